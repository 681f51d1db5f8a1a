//! The numbers of the lanes of a node's session.

use std::collections::BTreeSet;

/// Which lanes are in use. One that was given back is given out again, with the number that comes next in it: so there
/// are as many as sessions were open at a time.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    free: BTreeSet<u32>,
    next: u32,
}

impl Lanes {
    /// One that is free.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next
        })
    }

    /// It is used no more.
    pub(crate) fn give_back(&mut self, lane: u32) {
        self.free.insert(lane);
    }
}
