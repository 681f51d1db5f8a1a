//! Locks, bells, channels and threads of what hands work from one thread to another.
//!
//! In one place, so that the tests in [`race`](crate::race) can compile the very same code with a scheduler's in their
//! stead.

pub(crate) use std::sync::{Mutex, MutexGuard, mpsc};
pub(crate) use std::thread;
pub(crate) use tokio::sync::Notify;
pub(crate) use tokio::task::yield_now;
