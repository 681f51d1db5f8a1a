//! The file `newcomer`: this node has asked a cluster to be taken in, and does not vote there yet. It is empty.
//!
//! So a start after a crash goes on asking; and a node that an operator has made a learner, which has no such file, is left
//! alone.

use super::StoreError;
use super::disk::{Disk, failed};

/// The name of the file.
const NEWCOMER: &str = "newcomer";

/// Whether it is there.
pub(crate) fn is_noted(disk: &dyn Disk) -> Result<bool, StoreError> {
    let names = disk.list().map_err(failed("list", disk.path()))?;
    Ok(names.iter().any(|name| name == NEWCOMER))
}

/// Makes it, or removes it, durably.
pub(crate) fn note(disk: &dyn Disk, asks: bool) -> Result<(), StoreError> {
    let path = disk.path().join(NEWCOMER);
    match (is_noted(disk)?, asks) {
        (false, true) => drop(disk.create(NEWCOMER).map_err(failed("create", &path))?),
        (true, false) => disk.remove(NEWCOMER).map_err(failed("remove", &path))?,
        _ => {}
    }
    disk.sync_dir().map_err(failed("sync", disk.path()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mem_disk::MemDisk;

    #[test]
    fn what_is_noted_outlives_a_loss_of_power() {
        let disk = MemDisk::new();
        assert!(!is_noted(&disk).unwrap());
        note(&disk, true).unwrap();
        let disk = disk.power_cut(512, || false);
        assert!(is_noted(&disk).unwrap());
        note(&disk, true).unwrap();
        note(&disk, false).unwrap();
        let disk = disk.power_cut(512, || false);
        assert!(!is_noted(&disk).unwrap());
        note(&disk, false).unwrap();
    }
}
