//! The Raft consensus algorithm as a pure function.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod membership;
mod message;
mod types;

pub use membership::{Membership, Tally};
pub use message::*;
pub use types::*;
