//! The file `identity`: whose directory this is.
//!
//! A voter is a disk, not a name. The file names the node, the incarnation that was drawn when the
//! directory was made, and, once the node has joined, the cluster. It is read before anything else, and
//! whatever does not fit stops the start: another node's directory, a damaged file, and above all an
//! identity that names a cluster without a log beside it. That is a disk that was wiped: it has forgotten
//! its votes and must not vote again under the old incarnation.
//!
//! It also remembers what the log cannot say of itself: how often the directory was started and under which
//! random numbers (its *boots*), so that a copy or an old state of it can be told from it; and a lower bound of
//! the number of the log's newest segment, so that the newest file cannot be missing unnoticed.
//!
//! The file is replaced whole (written aside, synced, renamed, directory synced), so a crash leaves the
//! old one, the new one, or, at the very first start, none; then the next start begins anew, since
//! nothing was promised yet.
//!
//! ```text
//!  0  u32  CRC-32C of all bytes behind   4  u32  magic "CRID"
//!  8  u32  version, 2                   12  u32  flags: bit 0, the cluster is known; bit 1, an engine is;
//!                                               bit 2, the machine is fenced
//! 16  u64  node                         24  u64  incarnation
//! 32  u128 cluster, or zero             48  16 bytes: the engine's name in ASCII, then zeros
//! 64  u64  least number of the newest   72  u64  number of the newest boot: how many there were
//!          segment, 0: none is known
//! 80  u32  count of the boots kept      84  u64  where the machine was found to differ, or zero
//! 92  4 bytes: zero
//! 96  the boots, u64 each, oldest first
//! ```
//!
//! Without bit 1 the write-ahead log keeps the log, and the name is all zeros.

use super::disk::{Disk, failed, read_full};
use super::engine::{self, WAL};
use super::{Identity, StoreError};
use coracle_core::{Boot, ClusterId, Incarnation, Index, NodeId};
use std::path::PathBuf;

/// The name of the file.
pub const IDENTITY: &str = "identity";

/// Where the next version of the file is prepared.
pub(super) const TEMPORARY: &str = "identity.tmp";

const MAGIC: [u8; 4] = *b"CRID";
const VERSION: u32 = 2;
/// The bytes before the first boot.
const SIZE: usize = 96;
/// The bytes of a boot.
const BOOT: usize = 8;
const KNOWS_CLUSTER: u32 = 1;
const NAMES_ENGINE: u32 = 2;
const FENCED: u32 = 4;

/// The newest boots that a directory keeps at most: those of a year with a start a day, in 3 KiB.
pub const MAX_BOOTS: usize = 366;

/// The starts of one directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Boots {
    /// How many there were, which is the number of the newest; 0 before the first.
    pub count: u64,
    /// The newest of them, at most [`MAX_BOOTS`], oldest first; the last has the number `count`.
    pub newest: Vec<Boot>,
}

impl Boots {
    /// The boot with this number, if it is among those that are kept.
    pub fn get(&self, number: u64) -> Option<Boot> {
        let back = usize::try_from(self.count.checked_sub(number)?).ok()?;
        self.newest.iter().rev().nth(back).copied()
    }

    /// The number of this boot, if it is among those that are kept.
    pub fn number(&self, boot: Boot) -> Option<u64> {
        let back = self.newest.iter().rev().position(|one| *one == boot)?;
        Some(self.count - back as u64)
    }

    /// One more, with a number of its own.
    fn push(&mut self, boot: Boot) {
        self.count += 1;
        self.newest.push(boot);
        let excess = self.newest.len().saturating_sub(MAX_BOOTS);
        self.newest.drain(..excess);
    }
}

/// All that the file says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Record {
    identity: Identity,
    /// The name of the engine that keeps the log.
    engine: String,
    /// The number of the newest segment is at least this; 0 if there may be none.
    segment: u64,
    boots: Boots,
    /// Where the machine was found to differ from that of a majority.
    fenced: Option<Index>,
}

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
        let boots = Boots::default();
        save(disk, &Record { identity, engine: engine.to_owned(), segment: 0, boots, fenced: None })?;
        return Ok(identity);
    }
    let record = read(disk)?;
    let (identity, kept_by) = (record.identity, &record.engine);
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
    save(disk, &record)?;
    Ok(identity)
}

/// Whose directory this is and which engine keeps its log, without changing anything: for tools.
pub fn inspect(disk: &dyn Disk) -> Result<(Identity, String), StoreError> {
    read(disk).map(|record| (record.identity, record.engine))
}

/// Begins a run: draws its boot, another one than all that are kept, and writes it down durably before it is
/// told to anybody. Returns all that are kept; the last is this run's.
pub fn begin_run(disk: &dyn Disk, mut draw: impl FnMut() -> Boot) -> Result<Boots, StoreError> {
    let mut record = read(disk)?;
    // Drawn at random, it is a new one at once.
    let mut boot = draw();
    for _ in 0..MAX_BOOTS {
        if boot != Boot::default() && record.boots.number(boot).is_none() {
            break;
        }
        boot = draw();
    }
    record.boots.push(boot);
    save(disk, &record)?;
    Ok(record.boots)
}

/// The starts of this directory, without changing anything: for tools.
pub fn boots(disk: &dyn Disk) -> Result<Boots, StoreError> {
    read(disk).map(|record| record.boots)
}

/// The least number that the newest segment of the log has; 0 if nothing is known, as where the directory has no
/// identity.
pub(super) fn least_segment(disk: &dyn Disk) -> Result<u64, StoreError> {
    if exists(disk)? { read(disk).map(|record| record.segment) } else { Ok(0) }
}

/// Writes down, durably, that the log has a segment of this number. From now on a log that ends before it is
/// damaged. A log without an identity, as a test may have it, knows no such number.
pub(super) fn raise_segment(disk: &dyn Disk, number: u64) -> Result<(), StoreError> {
    if !exists(disk)? {
        return Ok(());
    }
    let mut record = read(disk)?;
    if record.segment < number {
        record.segment = number;
        save(disk, &record)?;
    }
    Ok(())
}

fn exists(disk: &dyn Disk) -> Result<bool, StoreError> {
    let names = disk.list().map_err(failed("list", disk.path()))?;
    Ok(names.iter().any(|name| name == IDENTITY))
}

/// Writes down, durably, which cluster the node has joined. The same cluster again changes nothing;
/// another one is refused.
pub fn set_cluster(disk: &dyn Disk, cluster: ClusterId) -> Result<Identity, StoreError> {
    let mut record = read(disk)?;
    match record.identity.cluster {
        Some(known) if known == cluster => return Ok(record.identity),
        Some(known) => {
            return Err(StoreError::Identity {
                path: disk.path().join(IDENTITY),
                detail: format!("the node belongs to cluster {known} and cannot join cluster {cluster}"),
            });
        }
        None => record.identity.cluster = Some(cluster),
    }
    save(disk, &record)?;
    Ok(record.identity)
}

/// Writes down, durably, that the machine was found to differ from that of a majority, and where. The first such place
/// stays.
pub fn set_fence(disk: &dyn Disk, at: Index) -> Result<(), StoreError> {
    let mut record = read(disk)?;
    if record.fenced.is_some() {
        return Ok(());
    }
    record.fenced = Some(at);
    save(disk, &record)
}

/// Where the machine was found to differ from that of a majority.
pub fn fenced(disk: &dyn Disk) -> Result<Option<Index>, StoreError> {
    read(disk).map(|record| record.fenced)
}

/// Reads the file, which must be there.
fn read(disk: &dyn Disk) -> Result<Record, StoreError> {
    let path = disk.path().join(IDENTITY);
    let file = disk.open(IDENTITY).map_err(failed("open", &path))?;
    // One byte more than expected, so that a longer file is noticed.
    let mut bytes = [0; SIZE + MAX_BOOTS * BOOT + 1];
    let count = read_full(&*file, &mut bytes, 0).map_err(failed("read", &path))?;
    decode(&bytes[..count], path)
}

fn save(disk: &dyn Disk, record: &Record) -> Result<(), StoreError> {
    let path: PathBuf = disk.path().join(TEMPORARY);
    let file = disk.create(TEMPORARY).map_err(failed("create", &path))?;
    file.write_at(&encode(record), 0).map_err(failed("write to", &path))?;
    file.sync_data().map_err(failed("sync", &path))?;
    disk.rename(TEMPORARY, IDENTITY).map_err(failed("rename", &path))?;
    disk.sync_dir().map_err(failed("sync", disk.path()))
}

fn encode(record: &Record) -> Vec<u8> {
    let Record { identity, engine, segment, boots, fenced } = record;
    let mut bytes = vec![0; SIZE];
    bytes[4..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let mut flags = if identity.cluster.is_some() { KNOWS_CLUSTER } else { 0 };
    if engine != WAL {
        flags |= NAMES_ENGINE;
        bytes[48..48 + engine.len()].copy_from_slice(engine.as_bytes());
    }
    if let Some(index) = fenced {
        flags |= FENCED;
        bytes[84..92].copy_from_slice(&index.0.to_le_bytes());
    }
    bytes[12..16].copy_from_slice(&flags.to_le_bytes());
    bytes[16..24].copy_from_slice(&identity.node.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&identity.incarnation.0.to_le_bytes());
    bytes[32..48].copy_from_slice(&identity.cluster.map_or(0, |c| c.0).to_le_bytes());
    bytes[64..72].copy_from_slice(&segment.to_le_bytes());
    bytes[72..80].copy_from_slice(&boots.count.to_le_bytes());
    bytes[80..84].copy_from_slice(&(boots.newest.len() as u32).to_le_bytes());
    for boot in &boots.newest {
        bytes.extend_from_slice(&boot.0.to_le_bytes());
    }
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What the bytes of this file say.
fn decode(bytes: &[u8], path: PathBuf) -> Result<Record, StoreError> {
    let damaged = |offset: usize, detail: &str| StoreError::Damaged {
        path: path.clone(),
        offset: offset as u64,
        detail: format!("{detail}; bring the file back"),
    };
    let word = |at: usize| bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let u32_at = |at: usize| word(at).map_or(0, u32::from_le_bytes);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    // Every version has had as many.
    if bytes.len() < 64 {
        return Err(damaged(bytes.len(), "it ends too early"));
    }
    if bytes.get(4..8) != Some(&MAGIC[..]) || crc32c::crc32c(&bytes[4..]) != u32_at(0) {
        return Err(damaged(0, "its checksum is wrong"));
    }
    let (version, flags) = (u32_at(8), u32_at(12));
    if version < VERSION {
        return Err(StoreError::Older { path, version });
    }
    let newer = |offset: u64, detail: String| StoreError::Newer { path: path.clone(), offset, detail };
    if version > VERSION || flags & !(KNOWS_CLUSTER | NAMES_ENGINE | FENCED) != 0 {
        return Err(newer(8, format!("version {version} with flags {flags:#x}")));
    }
    let count = u32_at(80) as usize;
    if bytes.len() < SIZE || bytes.len() != SIZE + count.min(MAX_BOOTS) * BOOT {
        return Err(damaged(bytes.len(), "its length does not fit its boots"));
    }
    let newest = bytes[SIZE..].chunks_exact(BOOT);
    let newest = newest.map(|boot| Boot(u64::from_le_bytes(std::array::from_fn(|at| boot[at]))));
    let boots = Boots { count: u64_at(72), newest: newest.collect() };
    if count > MAX_BOOTS || boots.count < count as u64 {
        return Err(damaged(72, "it counts fewer boots than it keeps"));
    }
    let fenced = (flags & FENCED != 0).then(|| Index(u64_at(84)));
    let free = if fenced.is_some() { 92 } else { 84 };
    if bytes[free..SIZE].iter().any(|byte| *byte != 0) {
        return Err(newer(free as u64, "bytes that were kept free are in use".to_owned()));
    }
    let name = &bytes[48..64];
    let engine = if flags & NAMES_ENGINE != 0 {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).ok().filter(|name| engine::is_name(name));
        name.ok_or_else(|| damaged(48, "the name of the store is not one"))?
    } else if name.iter().any(|byte| *byte != 0) {
        return Err(newer(48, "bytes that were kept free are in use".to_owned()));
    } else {
        WAL
    };
    let cluster = u128::from(u64_at(32)) | u128::from(u64_at(40)) << 64;
    let identity = Identity {
        node: NodeId(u64_at(16)),
        incarnation: Incarnation(u64_at(24)),
        cluster: (flags & KNOWS_CLUSTER != 0).then_some(ClusterId(cluster)),
    };
    Ok(Record { identity, engine: engine.to_owned(), segment: u64_at(64), boots, fenced })
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

    #[test]
    fn boots_are_numbered_and_the_newest_are_kept() {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        let total = MAX_BOOTS as u64 + 5;
        for number in 1..=total {
            // Drawn once more if it was there before.
            let mut draws = [Boot(0), Boot(1000 + number.max(2) - 1), Boot(1000 + number)].into_iter();
            let boots = begin_run(&disk, || draws.next().unwrap()).unwrap();
            assert_eq!((boots.count, boots.get(number)), (number, Some(Boot(1000 + number))));
        }
        set_cluster(&disk, CLUSTER).unwrap();
        raise_segment(&disk, 7).unwrap();
        raise_segment(&disk, 6).unwrap();
        let disk = disk.power_cut(512, || false);
        let boots = boots(&disk).unwrap();
        assert_eq!((boots.count, boots.newest.len()), (total, MAX_BOOTS));
        assert_eq!((boots.get(5), boots.get(6), boots.get(total + 1)), (None, Some(Boot(1006)), None));
        assert_eq!((boots.number(Boot(1006)), boots.number(Boot(1005))), (Some(6), None));
        assert_eq!(least_segment(&disk).unwrap(), 7);
        assert_eq!(inspect(&disk).unwrap().0.cluster, Some(CLUSTER));
    }

    #[test]
    fn a_fence_is_kept_through_everything_and_the_first_counts() {
        for cut in 0.. {
            let disk = MemDisk::new();
            open(&disk, 1, false).unwrap();
            assert_eq!(fenced(&disk).unwrap(), None);
            disk.fail_from(disk.operations() + cut);
            let set = set_fence(&disk, Index(1024));
            let disk = disk.power_cut(512, || false);
            if set.is_err() {
                open(&disk, 1, true).unwrap();
                continue;
            }
            set_fence(&disk, Index(2048)).unwrap();
            set_cluster(&disk, CLUSTER).unwrap();
            begin_run(&disk, || Boot(9)).unwrap();
            raise_segment(&disk, 7).unwrap();
            open(&disk, 1, true).unwrap();
            assert_eq!(fenced(&disk).unwrap(), Some(Index(1024)));
            break;
        }
    }

    #[test]
    fn a_boot_is_durable_before_it_is_told() {
        for cut in 0.. {
            let disk = MemDisk::new();
            open(&disk, 1, false).unwrap();
            disk.fail_from(disk.operations() + cut);
            let begun = begin_run(&disk, || Boot(9));
            let kept = boots(&disk.power_cut(512, || false)).unwrap();
            if let Ok(told) = begun {
                assert_eq!(kept, told);
                break;
            }
            assert!(kept.count <= 1);
        }
    }

    /// Design 5.2.11: it says what to do.
    #[test]
    fn other_versions_and_what_they_may_add_are_refused_by_name() {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        let good = disk.contents(IDENTITY).unwrap();
        let refusal = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let sum = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            disk.put(IDENTITY, &bytes);
            open(&disk, 1, true).unwrap_err().to_string()
        };
        assert!(refusal(8, 1).contains("start with an empty directory"), "{}", refusal(8, 1));
        for (at, byte) in [(8, 3), (12, 8), (50, 1), (84, 1), (95, 1)] {
            assert!(refusal(at, byte).contains("upgrade"), "{}", refusal(at, byte));
        }
    }
}
