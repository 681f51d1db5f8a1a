//! Replicated state machines with Raft.
#![forbid(unsafe_code)]

pub mod entry;
mod error;
mod state_machine;
pub mod storage;
pub mod transport;
pub mod wire;

pub use coracle_core as core;
pub use error::*;
pub use state_machine::{CodecError, Context, StateMachine};
