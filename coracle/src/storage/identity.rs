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
//! the number of the log's newest segment, so that the newest file cannot be missing unnoticed. And until the node has
//! a cluster, it remembers the list of members to which it has promised itself (see `founding`).
//!
//! The file is replaced whole (written aside, synced, renamed, directory synced), so a crash leaves the
//! old one, the new one, or, at the very first start, none; then the next start begins anew, since
//! nothing was promised yet.
//!
//! ```text
//!  0  u32  CRC-32C of all bytes after   4  u32  magic "CRID"
//!  8  u32  version, 2                   12  u32  flags: bit 0, the cluster is known; bit 1, an engine is;
//!                                               bit 2, the machine is fenced;
//!                                               bit 3, the node has promised itself to a list;
//!                                               bit 4, the machine has stopped; bit 5, the log may hold rulings
//! 16  u64  node                         24  u64  incarnation
//! 32  u128 cluster, or zero             48  16 bytes: the engine's name in ASCII, then zeros
//! 64  u64  least number of the newest   72  u64  number of the newest boot: how many there were
//!          segment, 0: none is known
//! 80  u32  count of the boots kept      84  u64  where the machine turned out to differ, or zero
//! 92  u32  length of the list, or with bit 4 of the reason, or zero
//! 96  the boots, u64 each, oldest first; then, with bit 3, the round of the promise, u64, and the list, encoded like a
//!     membership in the log; with bit 4, the term and index of the entry that the machine has stopped before, the index of
//!     the newest ruling to try such an entry again that it has heeded, u64 each, and the reason, as text
//! ```
//!
//! Without bit 1 the write-ahead log keeps the log, and the name is all zeros. Bit 3 excludes bits 0 and 4.

use super::disk::Disk;
use super::engine::{self, WAL};
use super::small::{self, Small, u32_at, u64_at};
use super::{Identity, StoreError};
use bytes::Bytes;
use coracle_core::{Boot, ClusterId, Incarnation, Index, LogId, MachineStop, NodeId};
use std::path::PathBuf;

/// The name of the file.
pub const IDENTITY: &str = "identity";

/// Where the next version of the file is prepared.
pub(super) const TEMPORARY: &str = "identity.tmp";

const FILE: Small = Small { name: IDENTITY, temporary: TEMPORARY, magic: *b"CRID", version: 2 };

/// The bytes before the first boot.
const SIZE: usize = 96;
/// The bytes of a boot.
const BOOT: usize = 8;
/// The bytes of a promise's round.
const ROUND: usize = 8;
const KNOWS_CLUSTER: u32 = 1;
const NAMES_ENGINE: u32 = 2;
const FENCED: u32 = 4;
const PROMISED: u32 = 8;
const STOPPED: u32 = 16;
const RULES: u32 = 32;
/// The bytes of a stop before its reason, and of that at most.
const STOP: usize = 24;
const MAX_REASON: usize = 1024;

/// The newest boots that a directory keeps at most: those of a year with a start a day, in 3 KiB.
pub const MAX_BOOTS: usize = 366;

/// The longest list that a node can promise itself to, in bytes: a thousand members with addresses of 40 bytes.
pub const MAX_LIST: usize = 64 << 10;

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

/// To which list of members a blank node has promised itself: it takes no part in the founding of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// The members, and the cluster that they would found, encoded like a membership in the log.
    pub list: Bytes,
    /// In which of the founder's attempts it was given last. The founder numbers them, and they only grow.
    pub round: u64,
}

/// Before which entry a machine has stopped (D5.5.5), and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptStop {
    /// The entry.
    pub stop: MachineStop,
    /// Why it cannot be applied. A long text is cut.
    pub why: String,
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
    /// Where the machine turned out to differ from that of a majority.
    fenced: Option<Index>,
    /// Only without a cluster.
    promise: Option<Promise>,
    /// Before which entry the machine has stopped.
    stop: Option<KeptStop>,
    /// Whether the log may hold rulings about entries that cannot be applied.
    rules: bool,
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
    if !FILE.exists(disk)? {
        if log_exists {
            return refuse(
                "it is missing, but there is a log; bring the file back, or remove this node from the \
                 cluster, empty the directory and add the node again"
                    .into(),
            );
        }
        let identity = Identity { node, incarnation: draw(), cluster: None };
        let boots = Boots::default();
        let record = Record {
            identity,
            engine: engine.to_owned(),
            segment: 0,
            boots,
            fenced: None,
            promise: None,
            stop: None,
            rules: false,
        };
        save(disk, &record)?;
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

/// Begins a boot: draws its name, another one than all that are kept, and writes it down durably before it is
/// told to anybody. Returns all that are kept; the last is this boot's.
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
    if FILE.exists(disk)? { read(disk).map(|record| record.segment) } else { Ok(0) }
}

/// Writes down, durably, that the log has a segment of this number. From now on a log that ends before it is
/// damaged. A log without an identity, as a test may have it, knows no such number.
pub(super) fn raise_segment(disk: &dyn Disk, number: u64) -> Result<(), StoreError> {
    if !FILE.exists(disk)? {
        return Ok(());
    }
    let mut record = read(disk)?;
    if record.segment < number {
        record.segment = number;
        save(disk, &record)?;
    }
    Ok(())
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
    // Whoever has a cluster founds no other, whatever it has promised.
    record.promise = None;
    save(disk, &record)?;
    Ok(record.identity)
}

/// Writes down, durably, that the machine turned out to differ from that of a majority, and where. The first such place
/// stays.
pub fn set_fence(disk: &dyn Disk, at: Index) -> Result<(), StoreError> {
    let mut record = read(disk)?;
    if record.fenced.is_some() {
        return Ok(());
    }
    record.fenced = Some(at);
    save(disk, &record)
}

/// Writes down, durably, that the machine was rebuilt.
pub fn lift_fence(disk: &dyn Disk) -> Result<(), StoreError> {
    let mut record = read(disk)?;
    if record.fenced.take().is_none() {
        return Ok(());
    }
    save(disk, &record)
}

/// Where the machine turned out to differ from that of a majority.
pub fn fenced(disk: &dyn Disk) -> Result<Option<Index>, StoreError> {
    read(disk).map(|record| record.fenced)
}

/// Writes down, durably, before which entry the machine has stopped, or that it goes on.
pub fn set_stop(disk: &dyn Disk, stop: Option<KeptStop>) -> Result<(), StoreError> {
    let mut record = read(disk)?;
    let stop = stop.map(|KeptStop { stop, why }| KeptStop { stop, why: cut(&why, MAX_REASON).to_owned() });
    if record.stop != stop {
        record.stop = stop;
        save(disk, &record)?;
    }
    Ok(())
}

/// Before which entry the machine has stopped.
pub fn stop(disk: &dyn Disk) -> Result<Option<KeptStop>, StoreError> {
    read(disk).map(|record| record.stop)
}

/// Writes down, durably, that the log may hold rulings from now on.
pub fn set_rules(disk: &dyn Disk) -> Result<(), StoreError> {
    let mut record = read(disk)?;
    if !record.rules {
        record.rules = true;
        save(disk, &record)?;
    }
    Ok(())
}

/// Whether the log may hold rulings about entries that cannot be applied.
pub fn rules(disk: &dyn Disk) -> Result<bool, StoreError> {
    read(disk).map(|record| record.rules)
}

/// The beginning of a text, of so many bytes at most.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// To which list the node has promised itself, if to any.
pub fn promise(disk: &dyn Disk) -> Result<Option<Promise>, StoreError> {
    read(disk).map(|record| record.promise)
}

/// Writes down, durably, to which list the node has promised itself, in place of an earlier promise; or that it is
/// free again. Refused if it has a cluster.
pub fn set_promise(disk: &dyn Disk, promise: Option<Promise>) -> Result<(), StoreError> {
    let mut record = read(disk)?;
    let refuse = |detail| Err(StoreError::Identity { path: disk.path().join(IDENTITY), detail });
    if let Some(cluster) = record.identity.cluster {
        return refuse(format!("the node belongs to cluster {cluster} and cannot promise itself to another"));
    }
    if promise.as_ref().is_some_and(|promise| promise.list.len() > MAX_LIST) {
        return refuse(format!("a list of members takes at most {MAX_LIST} bytes"));
    }
    if record.promise != promise {
        record.promise = promise;
        save(disk, &record)?;
    }
    Ok(())
}

/// Reads the file, which must be there.
fn read(disk: &dyn Disk) -> Result<Record, StoreError> {
    let bytes = FILE.read(disk, SIZE + MAX_BOOTS * BOOT + ROUND + MAX_LIST)?;
    decode(&bytes, disk.path().join(IDENTITY))
}

fn save(disk: &dyn Disk, record: &Record) -> Result<(), StoreError> {
    let (flags, bytes) = encode(record);
    FILE.replace(disk, flags, bytes)
}

/// The flags, and the bytes, but for those with which all files begin.
fn encode(record: &Record) -> (u32, Vec<u8>) {
    let Record { identity, engine, segment, boots, fenced, promise, stop, rules } = record;
    let mut bytes = vec![0; SIZE];
    let mut flags = if identity.cluster.is_some() { KNOWS_CLUSTER } else { 0 };
    if engine != WAL {
        flags |= NAMES_ENGINE;
        bytes[48..48 + engine.len()].copy_from_slice(engine.as_bytes());
    }
    if let Some(index) = fenced {
        flags |= FENCED;
        bytes[84..92].copy_from_slice(&index.0.to_le_bytes());
    }
    if let Some(Promise { list, .. }) = promise {
        flags |= PROMISED;
        bytes[92..96].copy_from_slice(&(list.len() as u32).to_le_bytes());
    }
    if let Some(KeptStop { why, .. }) = stop {
        flags |= STOPPED;
        bytes[92..96].copy_from_slice(&(why.len() as u32).to_le_bytes());
    }
    flags |= if *rules { RULES } else { 0 };
    bytes[16..24].copy_from_slice(&identity.node.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&identity.incarnation.0.to_le_bytes());
    bytes[32..48].copy_from_slice(&identity.cluster.map_or(0, |c| c.0).to_le_bytes());
    bytes[64..72].copy_from_slice(&segment.to_le_bytes());
    bytes[72..80].copy_from_slice(&boots.count.to_le_bytes());
    bytes[80..84].copy_from_slice(&(boots.newest.len() as u32).to_le_bytes());
    for boot in &boots.newest {
        bytes.extend_from_slice(&boot.0.to_le_bytes());
    }
    if let Some(Promise { list, round }) = promise {
        bytes.extend_from_slice(&round.to_le_bytes());
        bytes.extend_from_slice(list);
    }
    if let Some(KeptStop { stop: MachineStop { at, after }, why }) = stop {
        for number in [at.term.0, at.index.0, after.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(why.as_bytes());
    }
    (flags, bytes)
}

/// What the bytes of this file say.
fn decode(bytes: &[u8], path: PathBuf) -> Result<Record, StoreError> {
    let damaged = |offset: usize, detail: &str| StoreError::Damaged {
        path: path.clone(),
        offset: offset as u64,
        detail: format!("{detail}; bring the file back"),
    };
    let u32_at = |at: usize| u32_at(bytes, at);
    let u64_at = |at: usize| u64_at(bytes, at);
    // Every version has had as many.
    if bytes.len() < 64 {
        return Err(damaged(bytes.len(), "it ends too early"));
    }
    if !FILE.is_whole(bytes) {
        return Err(damaged(0, "its checksum is wrong"));
    }
    let (version, flags) = (small::version(bytes), small::word(bytes));
    if version < FILE.version {
        return Err(StoreError::Older { path, version });
    }
    let newer = |offset: u64, detail: String| StoreError::Newer { path: path.clone(), offset, detail };
    if version > FILE.version
        || flags & !(KNOWS_CLUSTER | NAMES_ENGINE | FENCED | PROMISED | STOPPED | RULES) != 0
    {
        return Err(newer(8, format!("version {version} with flags {flags:#x}")));
    }
    let (count, list) = (u32_at(80) as usize, u32_at(92) as usize);
    let (promised, stopped) = (flags & PROMISED != 0, flags & STOPPED != 0);
    if promised && flags & (STOPPED | KNOWS_CLUSTER) != 0 {
        return Err(damaged(12, "it names a promise to found a cluster, and a cluster or its machine"));
    }
    if !promised && !stopped && list != 0 {
        return Err(newer(92, "bytes that were kept free are in use".to_owned()));
    }
    let boots_end = SIZE + count.min(MAX_BOOTS) * BOOT;
    let end = boots_end + after_boots(promised, stopped, list);
    if bytes.len() < SIZE || bytes.len() != end {
        return Err(damaged(bytes.len(), "its length does not fit its boots and its list"));
    }
    let newest = bytes[SIZE..boots_end].chunks_exact(BOOT);
    let newest = newest.map(|boot| Boot(u64::from_le_bytes(std::array::from_fn(|at| boot[at]))));
    let boots = Boots { count: u64_at(72), newest: newest.collect() };
    if count > MAX_BOOTS || boots.count < count as u64 {
        return Err(damaged(72, "it counts fewer boots than it keeps"));
    }
    let fenced = (flags & FENCED != 0).then(|| Index(u64_at(84)));
    if fenced.is_none() && u64_at(84) != 0 {
        return Err(newer(84, "bytes that were kept free are in use".to_owned()));
    }
    let promise = promised.then(|| {
        let list = Bytes::copy_from_slice(&bytes[boots_end + ROUND..]);
        Promise { list, round: u64_at(boots_end) }
    });
    let stop = stopped.then(|| stop_in(bytes, boots_end));
    let named = flags & NAMES_ENGINE != 0;
    let engine = engine_in(bytes, named).ok_or_else(|| match named {
        true => damaged(48, "the name of the store is not one"),
        false => newer(48, "bytes that were kept free are in use".to_owned()),
    })?;
    let cluster = u128::from(u64_at(32)) | u128::from(u64_at(40)) << 64;
    let identity = Identity {
        node: NodeId(u64_at(16)),
        incarnation: Incarnation(u64_at(24)),
        cluster: (flags & KNOWS_CLUSTER != 0).then_some(ClusterId(cluster)),
    };
    let (engine, segment, rules) = (engine.to_owned(), u64_at(64), flags & RULES != 0);
    Ok(Record { identity, engine, segment, boots, fenced, promise, stop, rules })
}

/// The bytes after the boots.
fn after_boots(promised: bool, stopped: bool, length: usize) -> usize {
    match (promised, stopped) {
        (true, _) => ROUND + length.min(MAX_LIST),
        (false, true) => STOP + length.min(MAX_REASON),
        (false, false) => 0,
    }
}

/// The word that stands there that the machine has stopped.
fn stop_in(bytes: &[u8], at: usize) -> KeptStop {
    let entry = LogId::new(u64_at(bytes, at), u64_at(bytes, at + 8));
    let stop = MachineStop { at: entry, after: Index(u64_at(bytes, at + 16)) };
    KeptStop { stop, why: String::from_utf8_lossy(&bytes[at + STOP..]).into_owned() }
}

/// The name of the store, if it is one; without one there must be nothing in its place.
fn engine_in(bytes: &[u8], named: bool) -> Option<&str> {
    let name = &bytes[48..64];
    if !named {
        return name.iter().all(|byte| *byte == 0).then_some(WAL);
    }
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(name).ok().filter(|name| engine::is_name(name))
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
