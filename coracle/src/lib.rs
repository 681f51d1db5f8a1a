//! Replicated state machines with Raft.
#![forbid(unsafe_code)]

pub mod entry;
pub mod storage;
