//! Two processes at one node, on its directory and on a copy of it: one is in front, the other waits.

use super::{Host, Running};
use crate::storage::identity::Boots;
use crate::storage::mem_disk::MemDisk;

/// The process that waits, or the place of one that does not run.
pub(in crate::sim) struct Twin {
    disk: MemDisk,
    run: u64,
    up: Option<Running>,
    boots: Boots,
    torn: bool,
    /// Whether this is the copy.
    copy: bool,
}

impl Twin {
    /// A copy that does not run yet, on this disk.
    pub(in crate::sim) fn on(disk: MemDisk) -> Twin {
        Twin { disk, run: 0, up: None, boots: Boots::default(), torn: false, copy: true }
    }
}

impl Host {
    /// Whether the copy is in front.
    pub(in crate::sim) fn copied(&self) -> bool {
        self.twin.as_ref().is_some_and(|twin| !twin.copy)
    }

    /// Whether this run goes on and is not in front.
    pub(in crate::sim) fn runs_aside(&self, run: u64) -> bool {
        self.twin.as_ref().is_some_and(|twin| twin.run == run && twin.up.is_some())
    }

    /// Puts the other process in front, if there is one.
    pub(in crate::sim) fn change_places(&mut self) -> bool {
        let Some(twin) = &mut self.twin else { return false };
        std::mem::swap(&mut self.disk, &mut twin.disk);
        std::mem::swap(&mut self.run, &mut twin.run);
        std::mem::swap(&mut self.up, &mut twin.up);
        std::mem::swap(&mut self.boots, &mut twin.boots);
        std::mem::swap(&mut self.torn, &mut twin.torn);
        twin.copy = !twin.copy;
        true
    }
}
