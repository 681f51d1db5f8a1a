//! How many keys the machine of this node has, for whoever asks the node and not the machine.

use crate::operation::DATABASES;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The handle. Clones share what is told. Each number is right by itself; two of them may be of different moments.
#[derive(Clone, Default, Debug)]
pub struct Figures(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    databases: [(AtomicU64, AtomicU64); DATABASES as usize],
    bytes: AtomicU64,
}

impl Figures {
    /// About the memory of all keys and values, in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Of each database how many keys it has, and how many of them are not for ever.
    pub fn databases(&self) -> impl Iterator<Item = (u64, u64)> {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        self.0.databases.iter().map(move |(keys, mortal)| (load(keys), load(mortal)))
    }

    /// Tells those of a database.
    pub(crate) fn tell(&self, database: u8, now: usize, now_mortal: usize) {
        let (keys, mortal) = &self.0.databases[usize::from(database)];
        keys.store(now as u64, Ordering::Relaxed);
        mortal.store(now_mortal as u64, Ordering::Relaxed);
    }

    /// Tells the memory.
    pub(crate) fn tell_bytes(&self, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }
}
