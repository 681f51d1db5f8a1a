//! Replicated state machines with Raft.
#![forbid(unsafe_code)]

pub mod entry;
mod error;
mod state_machine;
pub mod storage;
mod transport;

pub use coracle_core as core;
pub use error::*;
pub use state_machine::{CodecError, Context, StateMachine};
