//! The Raft consensus algorithm as a pure function.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod types;
pub use types::*;
