//! How much may wait in a replica, and for what.

use crate::error::Busy;

/// In bytes.
pub(crate) struct Limits {
    pub(crate) unpersisted: u64,
    pub(crate) uncommitted: u64,
    pub(crate) unapplied: u64,
    pub(crate) cache: u64,
    pub(crate) apply: u64,
}

impl Limits {
    /// Which of them is exceeded by so many bytes that wait for the machine, for the disk, and for a quorum.
    pub(crate) fn exceeded(&self, unapplied: u64, unpersisted: u64, uncommitted: u64) -> Option<Busy> {
        if unapplied > self.unapplied {
            Some(Busy::Machine)
        } else if unpersisted > self.unpersisted {
            Some(Busy::Disk)
        } else if uncommitted > self.uncommitted {
            Some(Busy::Quorum)
        } else {
            None
        }
    }
}
