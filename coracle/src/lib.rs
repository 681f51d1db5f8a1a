//! Replicated state machines with Raft.
#![forbid(unsafe_code)]

mod applier;
mod clock;
mod config;
pub mod entry;
mod error;
mod node;
mod replica;
mod runtime;
mod state_machine;
pub mod storage;
mod tail;
pub mod transport;
pub mod wire;
mod writer;

pub use applier::Digest;
pub use config::{Config, Storage};
pub use coracle_core as core;
pub use error::*;
pub use node::Node;
pub use runtime::Status;
pub use state_machine::{CodecError, Context, StateMachine};
