//! The file `met`: in which boot the disk of each other member was met last.
//!
//! A copy of a member's directory, or an older state of it that was put back, is told from it by whoever met a
//! later boot of that directory (D5.2.10). So that a restart does not forget that, it is written down here. The
//! file is replaced whole; where it is missing, nothing is known.
//!
//! ```text
//!  0  u32  CRC-32C of all bytes after   4  u32  magic "CRMT"
//!  8  u32  version, 1                   12  u32  count
//! 16  of each: u64 node, u64 incarnation, u64 number of the boot, u64 boot
//! ```

use super::StoreError;
use super::disk::Disk;
use super::small::{self, HEADER, Small};
use coracle_core::{Boot, Incarnation, NodeId, Peer};

/// The name of the file.
pub(crate) const MET: &str = "met";

/// Where the next version of the file is prepared.
pub(super) const TEMPORARY: &str = "met.tmp";

const FILE: Small = Small { name: MET, temporary: TEMPORARY, magic: *b"CRMT", version: 1 };

/// The bytes of each.
const EACH: usize = 32;

/// As many are read at most: four times the members that a cluster may have.
const MOST: usize = 4096;

/// The newest boot in which a disk was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// Whose disk it is.
    pub peer: Peer,
    /// The number of the boot among the starts of its directory.
    pub number: u64,
    /// The boot.
    pub boot: Boot,
}

/// Reads what was written last.
pub(crate) fn load(disk: &dyn Disk) -> Result<Vec<Met>, StoreError> {
    if !FILE.exists(disk)? {
        return Ok(Vec::new());
    }
    let path = disk.path().join(MET);
    let bytes = FILE.read(disk, HEADER + MOST * EACH)?;
    let damaged = |detail: &str| StoreError::Damaged {
        path: path.clone(),
        offset: 0,
        detail: format!(
            "{detail}; remove the file: copies of other members' directories are then noticed only from now on"
        ),
    };
    if !FILE.is_whole(&bytes) {
        return Err(damaged("its checksum is wrong"));
    }
    let version = small::version(&bytes);
    if version != FILE.version {
        let detail = format!("version {version}");
        return Err(StoreError::Newer { path, offset: 8, detail });
    }
    let records = bytes[HEADER..].chunks_exact(EACH);
    if !records.remainder().is_empty() || small::word(&bytes) as usize != records.len() {
        return Err(damaged("its length does not fit its count"));
    }
    let record = |record: &[u8]| {
        let field = |at: usize| small::u64_at(record, 8 * at);
        let peer = Peer { id: NodeId(field(0)), incarnation: Incarnation(field(1)) };
        Met { peer, number: field(2), boot: Boot(field(3)) }
    };
    Ok(records.map(record).collect())
}

/// Writes all of it, durably.
pub(crate) fn save(disk: &dyn Disk, all: &[Met]) -> Result<(), StoreError> {
    let all = &all[..all.len().min(MOST)];
    let mut bytes = vec![0; HEADER];
    for Met { peer, number, boot } in all {
        for field in [peer.id.0, peer.incarnation.0, *number, boot.0] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
    }
    FILE.replace(disk, all.len() as u32, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mem_disk::MemDisk;

    fn met(id: u64, number: u64) -> Met {
        let peer = Peer { id: NodeId(id), incarnation: Incarnation(10 + id) };
        Met { peer, number, boot: Boot(100 + number) }
    }

    #[test]
    fn what_was_met_is_there_after_a_power_cut_at_any_point_old_or_new() {
        for cut in 0.. {
            let disk = MemDisk::new();
            assert_eq!(load(&disk).unwrap(), []);
            save(&disk, &[met(2, 1)]).unwrap();
            disk.fail_from(disk.operations() + cut);
            let saved = save(&disk, &[met(2, 7), met(3, 1)]);
            let there = load(&disk.power_cut(512, || false)).unwrap();
            if saved.is_ok() {
                assert_eq!(there, [met(2, 7), met(3, 1)]);
                break;
            }
            assert!(there == [met(2, 1)] || there == [met(2, 7), met(3, 1)]);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found_and_the_error_says_what_to_do() {
        let disk = MemDisk::new();
        save(&disk, &[met(2, 7), met(3, 1)]).unwrap();
        let good = disk.contents(MET).unwrap();
        let refused = |bytes: &[u8]| {
            disk.put(MET, bytes);
            let error = load(&disk).unwrap_err();
            assert!(error.to_string().contains("remove the file"), "{error}");
        };
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            refused(&bytes);
        }
        (0..good.len()).for_each(|length| refused(&good[..length]));
        refused(&[&good[..], &[0]].concat());
    }
}
