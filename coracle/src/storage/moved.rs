//! The file `moved`: where members were found that are not where the membership says (D5.3.5).
//!
//! A member that has moved tells its peers; they look for it there, and whoever has found it writes that down here, so
//! that a restart finds it again while the membership does not know yet. The file is replaced whole. It is a hint: where
//! it is missing or damaged nothing is known, and members are looked for where the membership says.
//!
//! ```text
//!  0  u32  CRC-32C of all bytes after   4  u32  magic "CRMV"
//!  8  u32  version, 1                   12  u32  count
//! 16  of each: u64 node, u64 incarnation, u64 boot, u32 length of the address, the address
//! ```

use super::StoreError;
use super::disk::Disk;
use super::small::{self, HEADER, Small, u32_at, u64_at};
use crate::place::Place;
use coracle_core::{Boot, Incarnation, NodeId, Peer};

/// The name of the file.
pub(crate) const MOVED: &str = "moved";

/// Where the next version of the file is prepared.
pub(super) const TEMPORARY: &str = "moved.tmp";

const FILE: Small = Small { name: MOVED, temporary: TEMPORARY, magic: *b"CRMV", version: 1 };

/// The bytes of each before its address.
const EACH: usize = 28;

/// The longest address, in bytes: at least what a handshake may tell.
const LONGEST: usize = 1_024;

/// As many are written and read at most: as many as a cluster may have members.
const MOST: usize = 1024;

/// What was written last. A file that cannot be read is told of in the log, and holds nothing.
pub(crate) fn load(disk: &dyn Disk) -> Result<Vec<Place>, StoreError> {
    if !FILE.exists(disk)? {
        return Ok(Vec::new());
    }
    let path = disk.path().join(MOVED);
    match decode(&FILE.read(disk, HEADER + MOST * (EACH + LONGEST))?) {
        Ok(places) => Ok(places),
        Err(problem) => {
            tracing::warn!(
                "{} {problem}: where members have moved to is not known from it; name one by --join if they are not \
                 found",
                path.display()
            );
            Ok(Vec::new())
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Vec<Place>, String> {
    if !FILE.is_whole(bytes) {
        return Err("has a wrong checksum".to_owned());
    }
    let version = small::version(bytes);
    if version != FILE.version {
        return Err(format!("is of version {version}, which this program does not know"));
    }
    let mut rest = &bytes[HEADER..];
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at_checked(count).ok_or("is cut short")?;
        rest = left;
        Ok::<_, String>(taken)
    };
    let mut places = Vec::new();
    for _ in 0..(small::word(bytes) as usize).min(MOST) {
        let fixed = take(EACH)?;
        let address = take(u32_at(fixed, 24) as usize)?;
        let address = std::str::from_utf8(address).map_err(|error| format!("has a bad address: {error}"))?;
        let peer = Peer { id: NodeId(u64_at(fixed, 0)), incarnation: Incarnation(u64_at(fixed, 8)) };
        places.push(Place { peer, boot: Boot(u64_at(fixed, 16)), address: address.to_owned() });
    }
    if rest.is_empty() { Ok(places) } else { Err("is too long".to_owned()) }
}

/// Writes all of it, durably.
pub(crate) fn save(disk: &dyn Disk, all: &[Place]) -> Result<(), StoreError> {
    let all = &all[..all.len().min(MOST)];
    let mut bytes = vec![0; HEADER];
    for Place { peer, boot, address } in all {
        for field in [peer.id.0, peer.incarnation.0, boot.0] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&(address.len() as u32).to_le_bytes());
        bytes.extend_from_slice(address.as_bytes());
    }
    FILE.replace(disk, all.len() as u32, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mem_disk::MemDisk;

    fn place(id: u64, address: &str) -> Place {
        let peer = Peer { id: NodeId(id), incarnation: Incarnation(10 + id) };
        Place { peer, boot: Boot(100 + id), address: address.to_owned() }
    }

    #[test]
    fn what_was_found_is_there_after_a_power_cut_at_any_point_old_or_new() {
        let (old, new) = ([place(2, "a:1")], [place(2, "host-of-b:20"), place(3, "c:3")]);
        for cut in 0.. {
            let disk = MemDisk::new();
            assert_eq!(load(&disk).unwrap(), []);
            save(&disk, &old).unwrap();
            disk.fail_from(disk.operations() + cut);
            let saved = save(&disk, &new);
            let there = load(&disk.power_cut(512, || false)).unwrap();
            if saved.is_ok() {
                assert_eq!(there, new);
                break;
            }
            assert!(there == old || there == new);
        }
    }

    #[test]
    fn a_damaged_file_holds_nothing_and_stops_nobody() {
        let disk = MemDisk::new();
        save(&disk, &[place(2, "a:1"), place(3, "b:2")]).unwrap();
        let good = disk.contents(MOVED).unwrap();
        let nothing = |bytes: &[u8]| {
            disk.put(MOVED, bytes);
            assert_eq!(load(&disk).unwrap(), []);
        };
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            nothing(&bytes);
        }
        (0..good.len()).for_each(|length| nothing(&good[..length]));
        nothing(&[&good[..], &[0]].concat());
        disk.put(MOVED, &good);
        assert_eq!(load(&disk).unwrap().len(), 2);
    }
}
