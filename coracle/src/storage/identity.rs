//! The file `identity`: whose directory this is.
//!
//! A voter is a disk, not a name. The file names the node, the incarnation that was drawn when the
//! directory was made, and, once the node has joined, the cluster. It is read before anything else, and
//! whatever does not fit stops the start: another node's directory, a damaged file, and above all an
//! identity that names a cluster without a log beside it. That is a disk that was wiped: it has forgotten
//! its votes and must not vote again under the old incarnation.
//!
//! The file is replaced whole (written aside, synced, renamed, directory synced), so a crash leaves the
//! old one, the new one, or, at the very first start, none; then the next start begins anew, since
//! nothing was promised yet.
//!
//! ```text
//!  0  u32  CRC-32C of bytes 4 to 64      4  u32  magic "CRID"
//!  8  u32  version, 1                   12  u32  flags: bit 0, the cluster is known; bit 1, an engine is
//! 16  u64  node                         24  u64  incarnation
//! 32  u128 cluster, or zero             48  16 bytes: the engine's name in ASCII, then zeros
//! ```
//!
//! Without bit 1 the write-ahead log keeps the log, and the name is all zeros.

use super::disk::{Disk, failed, read_full};
use super::engine::{self, WAL};
use super::{Identity, StoreError};
use coracle_core::{ClusterId, Incarnation, NodeId};
use std::path::PathBuf;

/// The name of the file.
pub const IDENTITY: &str = "identity";

/// Where the next version of the file is prepared.
const TEMPORARY: &str = "identity.tmp";

const MAGIC: [u8; 4] = *b"CRID";
const VERSION: u32 = 1;
const SIZE: usize = 64;
const KNOWS_CLUSTER: u32 = 1;
const NAMES_ENGINE: u32 = 2;

/// Reads whose directory this is, or, if it is new, makes it `node`'s, with an incarnation drawn by `draw`.
///
/// `log_exists` says whether there is any log in the directory (see [`wal::exists`](super::wal::exists)).
/// Refused are a directory of another node, a damaged file, an identity with a cluster but without a
/// log, and a log without an identity. The result is durable.
pub fn open_or_create(
    disk: &dyn Disk,
    node: NodeId,
    log_exists: bool,
    draw: impl FnOnce() -> Incarnation,
) -> Result<Identity, StoreError> {
    open_or_create_with(disk, node, WAL, log_exists, draw)
}

/// [`open_or_create`] for a log that the engine of this name keeps. A directory whose log another engine
/// keeps is refused.
pub fn open_or_create_with(
    disk: &dyn Disk,
    node: NodeId,
    engine: &str,
    log_exists: bool,
    draw: impl FnOnce() -> Incarnation,
) -> Result<Identity, StoreError> {
    let path = disk.path().join(IDENTITY);
    let refuse = |detail: String| Err(StoreError::Identity { path: path.clone(), detail });
    let names = disk.list().map_err(failed("list", disk.path()))?;
    if !names.iter().any(|name| name == IDENTITY) {
        if log_exists {
            return refuse(
                "it is missing, but there is a log; bring the file back, or remove this node from the \
                 cluster, empty the directory and add the node again"
                    .into(),
            );
        }
        let identity = Identity { node, incarnation: draw(), cluster: None };
        save(disk, &identity, engine)?;
        return Ok(identity);
    }
    let (identity, kept_by) = read(disk)?;
    if kept_by != engine {
        return refuse(format!(
            "the log in this directory is kept by the store {kept_by}, not by {engine}; start the node with \
             {kept_by}, or give it a directory of its own"
        ));
    }
    if identity.node != node {
        let found = identity.node;
        return refuse(format!(
            "the directory belongs to node {found}, not to node {node}; start node {found} here, or give \
             node {node} a directory of its own"
        ));
    }
    if let (Some(cluster), false) = (identity.cluster, log_exists) {
        return refuse(format!(
            "the node has joined cluster {cluster}, but its log is gone; bring the log back, or remove \
             this node from the cluster, empty the directory and add the node again"
        ));
    }
    // What was read may be in the page cache only: its sync may have failed, or never have begun. It is
    // written again rather than synced again, since after a failure a second sync proves nothing.
    save(disk, &identity, engine)?;
    Ok(identity)
}

/// Whose directory this is and which engine keeps its log, without changing anything: for tools.
pub fn inspect(disk: &dyn Disk) -> Result<(Identity, String), StoreError> {
    read(disk)
}

/// Writes down, durably, which cluster the node has joined. The same cluster again changes nothing;
/// another one is refused.
pub fn set_cluster(disk: &dyn Disk, cluster: ClusterId) -> Result<Identity, StoreError> {
    let (mut identity, engine) = read(disk)?;
    match identity.cluster {
        Some(known) if known == cluster => return Ok(identity),
        Some(known) => {
            return Err(StoreError::Identity {
                path: disk.path().join(IDENTITY),
                detail: format!("the node belongs to cluster {known} and cannot join cluster {cluster}"),
            });
        }
        None => identity.cluster = Some(cluster),
    }
    save(disk, &identity, &engine)?;
    Ok(identity)
}

/// Reads the file, which must be there: the identity, and the name of the engine.
fn read(disk: &dyn Disk) -> Result<(Identity, String), StoreError> {
    let path = disk.path().join(IDENTITY);
    let file = disk.open(IDENTITY).map_err(failed("open", &path))?;
    // One byte more than expected, so that a longer file is noticed.
    let mut bytes = [0; SIZE + 1];
    let count = read_full(&*file, &mut bytes, 0).map_err(failed("read", &path))?;
    decode(&bytes[..count], path)
}

fn save(disk: &dyn Disk, identity: &Identity, engine: &str) -> Result<(), StoreError> {
    let path: PathBuf = disk.path().join(TEMPORARY);
    let file = disk.create(TEMPORARY).map_err(failed("create", &path))?;
    file.write_at(&encode(identity, engine), 0).map_err(failed("write to", &path))?;
    file.sync_data().map_err(failed("sync", &path))?;
    disk.rename(TEMPORARY, IDENTITY).map_err(failed("rename", &path))?;
    disk.sync_dir().map_err(failed("sync", disk.path()))
}

fn encode(identity: &Identity, engine: &str) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[4..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let mut flags = if identity.cluster.is_some() { KNOWS_CLUSTER } else { 0 };
    if engine != WAL {
        flags |= NAMES_ENGINE;
        bytes[48..48 + engine.len()].copy_from_slice(engine.as_bytes());
    }
    bytes[12..16].copy_from_slice(&flags.to_le_bytes());
    bytes[16..24].copy_from_slice(&identity.node.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&identity.incarnation.0.to_le_bytes());
    bytes[32..48].copy_from_slice(&identity.cluster.map_or(0, |c| c.0).to_le_bytes());
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The identity and the engine in the bytes of this file.
fn decode(bytes: &[u8], path: PathBuf) -> Result<(Identity, String), StoreError> {
    let Ok(bytes): Result<&[u8; SIZE], _> = bytes.try_into() else {
        let detail = format!("an identity has {SIZE} bytes; bring the file back");
        return Err(StoreError::Damaged { path, offset: bytes.len() as u64, detail });
    };
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    if bytes[4..8] != MAGIC || crc32c::crc32c(&bytes[4..]) != u32_at(0) {
        let detail = "its checksum is wrong; bring the file back".into();
        return Err(StoreError::Damaged { path, offset: 0, detail });
    }
    let (version, flags) = (u32_at(8), u32_at(12));
    if version != VERSION || flags & !(KNOWS_CLUSTER | NAMES_ENGINE) != 0 {
        let detail = format!("version {version} with flags {flags:#x}");
        return Err(StoreError::Newer { path, offset: 8, detail });
    }
    let engine = if flags & NAMES_ENGINE != 0 {
        let name = bytes[48..].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).ok().filter(|name| engine::is_name(name));
        let detail = "the name of the store is not one; bring the file back".to_owned();
        name.ok_or(StoreError::Damaged { path, offset: 48, detail })?
    } else {
        WAL
    };
    let cluster = u128::from(u64_at(32)) | u128::from(u64_at(40)) << 64;
    let identity = Identity {
        node: NodeId(u64_at(16)),
        incarnation: Incarnation(u64_at(24)),
        cluster: (flags & KNOWS_CLUSTER != 0).then_some(ClusterId(cluster)),
    };
    Ok((identity, engine.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mem_disk::MemDisk;

    const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

    fn open(disk: &MemDisk, node: u64, log_exists: bool) -> Result<Identity, StoreError> {
        open_or_create(disk, NodeId(node), log_exists, || Incarnation(77))
    }

    #[test]
    fn a_new_directory_gets_an_identity_and_keeps_it() {
        let disk = MemDisk::new();
        let made = open(&disk, 1, false).unwrap();
        assert_eq!(made, Identity { node: NodeId(1), incarnation: Incarnation(77), cluster: None });
        set_cluster(&disk, CLUSTER).unwrap();
        let disk = disk.power_cut(512, || false);
        let read = open_or_create(&disk, NodeId(1), true, || panic!("drawn only once")).unwrap();
        assert_eq!(read, Identity { cluster: Some(CLUSTER), ..made });
        assert_eq!(set_cluster(&disk, CLUSTER).unwrap(), read);
        let error = set_cluster(&disk, ClusterId(5)).unwrap_err().to_string();
        assert!(error.contains(&CLUSTER.to_string()), "{error}");
    }

    #[test]
    fn a_directory_belongs_to_one_engine() {
        let disk = MemDisk::new();
        let open = |engine| open_or_create_with(&disk, NodeId(1), engine, true, || panic!("not new"));
        open_or_create_with(&disk, NodeId(1), "lmdb", false, || Incarnation(77)).unwrap();
        let set = set_cluster(&disk, CLUSTER).unwrap();
        assert_eq!(open("lmdb").unwrap(), set);
        assert_eq!(inspect(&disk).unwrap(), (set, "lmdb".into()));
        for other in ["wal", "lmdb2", "rocksdb"] {
            let error = open(other).unwrap_err().to_string();
            assert!(error.contains("the store lmdb, not by "), "{error}");
        }
    }

    #[test]
    fn another_node_is_refused_by_both_names() {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        let error = open(&disk, 2, false).unwrap_err().to_string();
        assert!(error.contains("node 1") && error.contains("node 2"), "{error}");
    }

    #[test]
    fn rs_1_a_wiped_disk_is_refused() {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        set_cluster(&disk, CLUSTER).unwrap();
        let error = open(&disk, 1, false).unwrap_err();
        assert!(matches!(error, StoreError::Identity { .. }), "{error}");
        open(&disk, 1, true).unwrap();
        let empty = MemDisk::new();
        assert!(matches!(open(&empty, 1, true), Err(StoreError::Identity { .. })), "a log without a name");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_the_file_is_found() {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        let good = disk.contents(IDENTITY).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.put(IDENTITY, &bytes);
            assert!(matches!(open(&disk, 1, true), Err(StoreError::Damaged { .. })), "bit {bit}");
        }
        for len in 0..good.len() {
            disk.put(IDENTITY, &good[..len]);
            assert!(matches!(open(&disk, 1, true), Err(StoreError::Damaged { .. })), "length {len}");
        }
    }

    #[test]
    fn st_6_a_crash_at_any_point_of_making_it_starts_cleanly() {
        for survives in [false, true] {
            for cut in 0.. {
                let disk = MemDisk::new();
                disk.fail_from(cut);
                let made = open(&disk, 1, false);
                let after = disk.power_cut(512, || survives);
                let identity = open(&after, 1, false).unwrap();
                if let Ok(made) = made {
                    assert_eq!(identity, made);
                    break;
                }
            }
            for cut in 0.. {
                let disk = MemDisk::new();
                let blank = open(&disk, 1, false).unwrap();
                disk.fail_from(disk.operations() + cut);
                let set = set_cluster(&disk, CLUSTER);
                let identity = open(&disk.power_cut(512, || survives), 1, true).unwrap();
                if let Ok(set) = set {
                    assert_eq!(identity, set);
                    break;
                }
                assert!(identity == blank || identity == Identity { cluster: Some(CLUSTER), ..blank });
            }
        }
    }
}
