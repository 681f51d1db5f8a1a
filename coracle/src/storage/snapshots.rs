//! Snapshots as files: written whole or not at all, verified by reading before anything relies on them.
//!
//! One file is one snapshot, `snapshot-INDEX-TERM`. It is prepared as `snapshot.tmp`, synced, read back, renamed, and
//! the directory synced; so what has the name is whole, and what a crash leaves is removed at the next start. One that
//! is being received grows as `incoming-FILE`, stays over a restart, and goes the same way once it is whole. Both are
//! synced part by part, so that a large one does not hold up the log on the same disk. All is checksummed in chunks and
//! as a whole:
//!
//! ```text
//! header   u32 CRC-32C of the rest   magic "CRSN"   u32 version   u32 length of the header
//!          u64 file   u64 index   u64 term   16 bytes digest   u64 cluster time   u32 machine's version
//!          u32 format of the digest that is compared, 0: none   u64 its index   u32 its machine's version   16 bytes
//!          u64 index, u64 term of the membership's entry   u32 length   the membership
//!          from version 2 on: u32 level of the log   u32 length   the sessions
//!          from version 3 on: u32 length   the timers   u32 newest version of the machine that entries were made for
//!          from version 4 on: u32 length   the rulings about entries that could not be applied
//!                             u32 length   the effects that are pending
//! chunks   u32 length, 1 to 1 MiB   u32 CRC-32C over file, number of the chunk, and bytes   the bytes
//! end      u32 0   u32 CRC-32C of the rest   u64 bytes of all chunks   u64 chunks   u64 XXH3 of all bytes
//! ```

use super::StoreError;
use super::disk::{Disk, DiskFile, failed, for_want_of_room, read_full};
use bytes::Bytes;
use coracle_core::{Index, LogId, Term};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3Default;

pub(crate) mod blob;
mod header;

use self::header::{decode, encode};

const MAGIC: [u8; 4] = *b"CRSN";

/// Without sessions, as all versions of this program know it, with them, and with timers and the version of entries.
const PLAIN: u32 = 1;
const WITH_SESSIONS: u32 = 2;
const WITH_TIMERS: u32 = 3;
/// And with rulings, or effects.
const WITH_RULINGS: u32 = 4;

/// Where a snapshot of this node's own machine is prepared.
const TEMPORARY: &str = "snapshot.tmp";
const PREFIX: &str = "snapshot-";
const INCOMING: &str = "incoming-";

/// How often a directory is listed of which a snapshot is gone before it is read.
const LISTINGS: usize = 20;

/// The bytes of a full chunk.
const CHUNK: usize = 1 << 20;

/// The bytes of a header without the membership, and of the end.
const FIXED: usize = 120;
const END: usize = 32;

/// No membership is longer: what a header claims beyond that is not believed.
const MAX_MEMBERSHIP: usize = 4 << 20;

/// Nor have all that comes after the fixed part: the membership, the level, the sessions, the timers, the rulings, the effects.
const MAX_AFTER: usize = MAX_MEMBERSHIP
    + 8
    + crate::sessions::MAX_ENCODED
    + 8
    + crate::timers::MAX_ENCODED
    + 4
    + crate::rulings::MAX_ENCODED
    + 4
    + crate::pending::MAX_ENCODED;

/// What a snapshot says besides the state of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// The entry up to which it stands for the log.
    pub id: LogId,
    /// The digest of everything up to there.
    pub digest: [u8; 16],
    /// The cluster's clock there, in milliseconds.
    pub cluster_time: u64,
    /// The version of the machine that wrote it.
    pub machine_version: u16,
    /// The newest digest that is compared with those of other nodes.
    pub compared: Option<coracle_core::Digest>,
    /// The entry of the membership that was in force there, and its payload.
    pub membership: (LogId, Bytes),
    /// The newest level of the entries up to there (D5.5.1).
    pub level: u16,
    /// The sessions that were open there, encoded; nothing as long as the level is 0.
    pub sessions: Bytes,
    /// The timers that were set there, encoded; nothing if there were none.
    pub timers: Bytes,
    /// The newest version of the machine that entries up to there were made for; not told where that is the first.
    pub entries_version: u16,
    /// What was ruled about entries that could not be applied, encoded; nothing if there was none (D5.5.5).
    pub rulings: Bytes,
    /// The effects that were pending there, encoded; nothing if there were none (D5.5.2).
    pub effects: Bytes,
}

/// A snapshot that is durable and was read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// What it says.
    pub meta: Meta,
    /// Names the file: random bits, drawn when it was written.
    pub file: u64,
    /// The length of the file, in bytes.
    pub bytes: u64,
}

/// A file with the name of a snapshot.
#[derive(Debug)]
pub struct SnapshotFile {
    /// The file's name.
    pub name: String,
    /// What it holds, or what is wrong with it.
    pub found: Result<Kept, StoreError>,
}

/// Reads and verifies all snapshots of a directory, newest first, for tools: nothing is changed, and a process may use the
/// directory. Damage is part of the result. Errors are what is none: the system refuses, a newer version wrote a
/// snapshot, or they are replaced faster than they can be read.
pub fn inspect(disk: &dyn Disk) -> Result<Vec<SnapshotFile>, StoreError> {
    for _ in 0..LISTINGS {
        let read = |id: LogId| (name(id), verify(disk, &name(id), &Pace::at_most(0)));
        let found: Vec<_> = list(disk)?.into_iter().map(read).collect();
        let gone = |error: &StoreError| matches!(error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        // Two newer ones came meanwhile.
        if found.iter().any(|(_, found)| found.as_ref().is_err_and(gone)) {
            continue;
        }
        let judge = |(name, found)| match found {
            Err(error @ StoreError::Damaged { .. }) => Ok(SnapshotFile { name, found: Err(error) }),
            Err(error) => Err(error),
            Ok(kept) if self::name(kept.meta.id) == name => Ok(SnapshotFile { name, found: Ok(kept) }),
            Ok(Kept { meta: Meta { id, .. }, .. }) => {
                let detail = format!("it is the snapshot up to {id}, under a name that is not its own");
                let found = Err(damaged(&disk.path().join(&name), 0, &detail));
                Ok(SnapshotFile { name, found })
            }
        };
        return found.into_iter().map(judge).collect();
    }
    let source = io::Error::other("they were replaced whenever they were read; try again later");
    Err(failed("read the snapshots in", disk.path())(source))
}

/// Whether a file of this name is a snapshot that is not whole yet, or never will be.
pub fn is_unfinished(name: &str) -> bool {
    name == TEMPORARY || name.starts_with(INCOMING)
}

/// How files are written, and read back.
#[derive(Clone)]
pub struct Pace {
    /// So many bytes are synced together. What comes in is never written past the end of a part before that part was
    /// synced.
    pub(crate) part: u64,
    /// After each part that this node writes or reads back, the log's disk is left alone for so long.
    pub(crate) pause: Duration,
    /// Whether the node stops: then nothing more is written or read back.
    pub(crate) stops: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

/// A pause is looked at again after so long, since the node may stop meanwhile.
const LOOK: Duration = Duration::from_millis(50);

impl Pace {
    /// Parts of 4 MiB, at most so many bytes in a second; 0: no limit.
    pub fn at_most(bytes_per_second: u64) -> Pace {
        let part: u64 = 4 << 20;
        let nanos = (part * 1_000_000_000).checked_div(bytes_per_second).unwrap_or(0);
        Pace { part, pause: Duration::from_nanos(nanos), stops: None }
    }

    /// After so many bytes of a part. How many there are of the next one.
    fn rest(&self, done: u64) -> io::Result<u64> {
        if done < self.part {
            return Ok(done);
        }
        let mut left = self.pause;
        loop {
            if self.stops.as_ref().is_some_and(|stops| stops()) {
                return Err(io::Error::other("the node stops"));
            }
            if left.is_zero() {
                return Ok(0);
            }
            let now = left.min(LOOK);
            std::thread::sleep(now);
            left -= now;
        }
    }
}

/// Snapshots that are kept: the newest, and the one before it.
pub(crate) const KEPT: usize = 2;

/// Whether a crash left this file of a snapshot that was being written; or of one that came in, where another came after
/// it: which of them is wanted still, nobody knows, and it comes again.
pub(crate) fn is_left(name: &str, names: &[String]) -> bool {
    let came = |name: &str| name.starts_with(INCOMING);
    name == TEMPORARY || came(name) && names.iter().filter(|name| came(name)).count() > 1
}

/// Writes a snapshot: durable, read back, and under its name. `file` are random bits that name it.
pub fn save(
    disk: &dyn Disk,
    meta: &Meta,
    file: u64,
    pace: &Pace,
    save: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Kept, StoreError> {
    let kept = write(disk, meta, file, pace, save);
    if kept.is_err() {
        // On a full disk it would take the room that the log needs. If it cannot go now, the next start removes it.
        drop(disk.remove(TEMPORARY));
    }
    kept
}

fn write(
    disk: &dyn Disk,
    meta: &Meta,
    file: u64,
    pace: &Pace,
    save: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Kept, StoreError> {
    let path = disk.path().join(TEMPORARY);
    let handle = disk.create(TEMPORARY).map_err(failed("create", &path))?;
    let mut writer = Writer::new(&*handle, file, encode(meta, file), pace).map_err(failed("write", &path))?;
    save(&mut writer).and_then(|()| writer.end()).map_err(failed("write", &path))?;
    handle.sync_data().map_err(failed("sync", &path))?;
    drop(handle);
    keep(disk, TEMPORARY, verify(disk, TEMPORARY, pace)?)
}

/// Gives a file that holds a whole snapshot its name, since it was read back.
fn keep(disk: &dyn Disk, from: &str, kept: Kept) -> Result<Kept, StoreError> {
    let name = name(kept.meta.id);
    disk.rename(from, &name).map_err(failed("rename", disk.path().join(from)))?;
    disk.sync_dir().map_err(failed("sync", disk.path()))?;
    Ok(kept)
}

/// The snapshots that are there, newest first, none of them read.
pub(crate) fn list(disk: &dyn Disk) -> Result<Vec<LogId>, StoreError> {
    let names = disk.list().map_err(failed("list", disk.path()))?;
    let mut all: Vec<LogId> = names.iter().filter_map(|name| parse(name)).collect();
    all.sort_by_key(|id| std::cmp::Reverse(id.index));
    Ok(all)
}

/// Removes all snapshots but the newest `count`. Whoever receives one and whoever writes one may do so at the same time.
pub(crate) fn tidy(disk: &dyn Disk, count: usize) -> Result<(), StoreError> {
    for old in list(disk)?.into_iter().skip(count) {
        let name = name(old);
        match disk.remove(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed("remove", disk.path().join(&name)))?,
        }
    }
    Ok(())
}

/// The newest snapshot that is whole. One that is damaged is passed over, and named; it is left where it is.
pub(crate) fn newest(disk: &dyn Disk) -> Result<(Option<Kept>, Vec<StoreError>), StoreError> {
    let mut damaged = Vec::new();
    for id in list(disk)? {
        match verify(disk, &name(id), &Pace::at_most(0)) {
            Ok(kept) => return Ok((Some(kept), damaged)),
            Err(error @ StoreError::Damaged { .. }) => damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((None, damaged))
}

/// Makes durable what a start has found, by writing it again: if the process ended right after the file got its name,
/// both may be in the page cache only, and a sync that failed then is not made good by another one.
pub(crate) fn settle(disk: &dyn Disk, id: LogId) -> Result<Kept, StoreError> {
    let (from, to) = (disk.path().join(name(id)), disk.path().join(TEMPORARY));
    let (_, old) = open_raw(disk, id)?;
    let new = disk.create(TEMPORARY).map_err(failed("create", &to))?;
    let mut at = 0;
    loop {
        let piece = read_piece(&*old, at, CHUNK).map_err(failed("read", &from))?;
        if piece.is_empty() {
            break;
        }
        new.write_at(&piece, at).map_err(failed("write", &to))?;
        at += piece.len() as u64;
    }
    new.sync_data().map_err(failed("sync", &to))?;
    drop(new);
    keep(disk, TEMPORARY, verify(disk, TEMPORARY, &Pace::at_most(0))?)
}

/// A snapshot by its entry, to read the machine's state from. What is read is verified chunk by chunk.
pub fn open(disk: &dyn Disk, id: LogId) -> Result<Reader, StoreError> {
    Reader::open(disk, &name(id))
}

/// Opens a snapshot as it is on the disk, to send it: the name of the file, and the file.
pub(crate) fn open_raw(disk: &dyn Disk, id: LogId) -> Result<(u64, Arc<dyn DiskFile>), StoreError> {
    let Reader { file, from, .. } = open(disk, id)?;
    Ok((file, from))
}

/// Up to `most` bytes of a file from `offset` on.
pub(crate) fn read_piece(file: &dyn DiskFile, offset: u64, most: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; most];
    let length = read_full(file, &mut bytes, offset)?;
    bytes.truncate(length);
    Ok(bytes.into())
}

/// Reads all of the file with this name, and checks every checksum in it.
pub(crate) fn verify(disk: &dyn Disk, name: &str, pace: &Pace) -> Result<Kept, StoreError> {
    let mut reader = Reader::open(disk, name)?;
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                done = pace.rest(done + length as u64).map_err(failed("read back", &reader.path))?;
            }
            Err(error) => return Err(reader.failure(error)),
        }
    }
    let Reader { meta, file, at, .. } = reader;
    Ok(Kept { meta, file, bytes: at })
}

/// What is left of a snapshot that began to come: which it is, where that can be told. Nothing is verified but the header.
pub(crate) fn begun(disk: &dyn Disk, name: &str) -> Option<(LogId, u64)> {
    Reader::open(disk, name).ok().map(|reader| (reader.meta.id, reader.file))
}

/// Opens the file with this name, to read the machine's state from. What is read is verified chunk by chunk.
pub(crate) fn open_named(disk: &dyn Disk, name: &str) -> Result<Reader, StoreError> {
    Reader::open(disk, name)
}

fn name(id: LogId) -> String {
    format!("{PREFIX}{}-{}", id.index, id.term)
}

fn parse(name: &str) -> Option<LogId> {
    let (index, term) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    Some(LogId { term: Term(number(term)?), index: Index(number(index)?) })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// What binds a chunk to its place: no chunk of another file, or from elsewhere in this one, passes for it.
fn chunk_sum(file: u64, number: u64, bytes: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&file.to_le_bytes()), &number.to_le_bytes());
    crc32c::crc32c_append(place, bytes)
}

/// Writes the machine's bytes in chunks.
struct Writer<'a> {
    to: &'a dyn DiskFile,
    file: u64,
    pace: &'a Pace,
    at: u64,
    /// Bytes written and not synced yet.
    unsynced: u64,
    chunk: Vec<u8>,
    chunks: u64,
    bytes: u64,
    whole: Xxh3Default,
}

impl<'a> Writer<'a> {
    fn new(to: &'a dyn DiskFile, file: u64, header: Vec<u8>, pace: &'a Pace) -> io::Result<Writer<'a>> {
        to.write_at(&header, 0)?;
        let (at, chunk) = (header.len() as u64, Vec::with_capacity(CHUNK));
        let (unsynced, whole) = (at, Xxh3Default::new());
        Ok(Writer { to, file, pace, at, unsynced, chunk, chunks: 0, bytes: 0, whole })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_at(bytes, self.at)?;
        (self.at, self.unsynced) = (self.at + bytes.len() as u64, self.unsynced + bytes.len() as u64);
        if self.unsynced >= self.pace.part {
            self.to.sync_data()?;
        }
        self.unsynced = self.pace.rest(self.unsynced)?;
        Ok(())
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        let sum = chunk_sum(self.file, self.chunks, &chunk);
        self.put(&[(chunk.len() as u32).to_le_bytes(), sum.to_le_bytes()].concat())?;
        self.put(&chunk)?;
        self.whole.update(&chunk);
        (self.chunks, self.bytes) = (self.chunks + 1, self.bytes + chunk.len() as u64);
        self.chunk = chunk;
        self.chunk.clear();
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        self.end_chunk()?;
        let numbers = [self.bytes, self.chunks, self.whole.digest()].map(u64::to_le_bytes).concat();
        let sum = crc32c::crc32c(&numbers);
        self.put(&[&[0; 4][..], &sum.to_le_bytes(), &numbers].concat())
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK {
            self.end_chunk()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the machine's bytes back, each chunk verified before any of it is given out. That the whole was read, and
/// nothing else, the end of the reading says: it is an error where something is missing.
pub struct Reader {
    pub(crate) meta: Meta,
    from: Arc<dyn DiskFile>,
    path: std::path::PathBuf,
    file: u64,
    at: u64,
    chunk: Vec<u8>,
    /// What of the chunk was given out.
    given: usize,
    chunks: u64,
    bytes: u64,
    whole: Xxh3Default,
    ended: bool,
}

impl Reader {
    fn open(disk: &dyn Disk, name: &str) -> Result<Reader, StoreError> {
        let path = disk.path().join(name);
        let from = disk.open(name).map_err(failed("open", &path))?;
        let mut header = vec![0; FIXED];
        let length = read_full(&*from, &mut header, 0).map_err(failed("read", &path))?;
        let damaged = |offset: u64, detail: &str| damaged(&path, offset, detail);
        if length < FIXED || header[4..8] != MAGIC {
            return Err(damaged(0, "it does not begin like a snapshot"));
        }
        let whole = u32_at(&header, 12) as usize;
        let payload = whole.checked_sub(FIXED).filter(|length| *length <= MAX_AFTER);
        let Some(payload) = payload else { return Err(damaged(12, "its header has an impossible length")) };
        header.resize(whole, 0);
        let rest = read_full(&*from, &mut header[FIXED..], FIXED as u64).map_err(failed("read", &path))?;
        if rest < payload || u32_at(&header, 0) != crc32c::crc32c(&header[4..]) {
            return Err(damaged(0, "the checksum of its header is wrong"));
        }
        if !(PLAIN..=WITH_RULINGS).contains(&u32_at(&header, 8)) {
            let detail = format!("version {}", u32_at(&header, 8));
            return Err(StoreError::Newer { path, offset: 8, detail });
        }
        let (file, meta) = decode(&header).ok_or_else(|| damaged(16, "its header cannot be true"))?;
        let at = whole as u64;
        Ok(Reader {
            meta,
            from,
            path,
            file,
            at,
            chunk: Vec::new(),
            given: 0,
            chunks: 0,
            bytes: 0,
            whole: Xxh3Default::new(),
            ended: false,
        })
    }

    /// What its header says, the name of the file, and the file.
    pub(crate) fn into_parts(self) -> (Meta, u64, Arc<dyn DiskFile>) {
        (self.meta, self.file, self.from)
    }

    /// What a read failed for, by the error that it gave.
    pub(crate) fn failure(&self, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::InvalidData => damaged(&self.path, self.at, &error.to_string()),
            _ => failed("read", &self.path)(error),
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let wrong = |detail: &str| io::Error::new(io::ErrorKind::InvalidData, detail.to_owned());
        let mut head = [0; 8];
        if read_full(&*self.from, &mut head, self.at)? < head.len() {
            return Err(wrong("it ends in the middle"));
        }
        let (length, sum) = (u32_at(&head, 0) as usize, u32_at(&head, 4));
        if length > CHUNK {
            return Err(wrong("a chunk has an impossible length"));
        }
        if length == 0 {
            let mut end = [0; END - 8 + 1];
            let found = read_full(&*self.from, &mut end, self.at + 8)?;
            let numbers = &end[..END - 8];
            let counted = [self.bytes, self.chunks, self.whole.digest()].map(u64::to_le_bytes).concat();
            if found != END - 8 || crc32c::crc32c(numbers) != sum || numbers != counted {
                return Err(wrong("its end does not fit what it holds"));
            }
            (self.at, self.ended) = (self.at + END as u64, true);
            self.chunk.clear();
            return Ok(());
        }
        self.chunk.resize(length, 0);
        let found = read_full(&*self.from, &mut self.chunk, self.at + 8)?;
        if found < length || chunk_sum(self.file, self.chunks, &self.chunk) != sum {
            self.chunk.clear();
            return Err(wrong("the checksum of a chunk is wrong"));
        }
        self.whole.update(&self.chunk);
        self.at += 8 + length as u64;
        (self.given, self.chunks, self.bytes) = (0, self.chunks + 1, self.bytes + length as u64);
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.given == self.chunk.len() && !self.ended && !to.is_empty() {
            self.next_chunk()?;
            self.given = 0;
        }
        let taken = to.len().min(self.chunk.len() - self.given);
        to[..taken].copy_from_slice(&self.chunk[self.given..self.given + taken]);
        self.given += taken;
        Ok(taken)
    }
}

fn damaged(path: &std::path::Path, offset: u64, detail: &str) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), offset, detail: detail.to_owned() }
}

/// Removes what has come of snapshots, but for this file. Whether that is there.
pub(crate) fn forget_incoming(disk: &dyn Disk, but: Option<&str>) -> Result<bool, StoreError> {
    let mut there = false;
    for name in disk.list().map_err(failed("list", disk.path()))? {
        if but == Some(name.as_str()) {
            there = true;
        } else if name.starts_with(INCOMING) {
            disk.remove(&name).map_err(failed("remove", disk.path().join(&name)))?;
        }
    }
    Ok(there)
}

/// A snapshot that comes in piece by piece.
///
/// What one boot could not sync, a later one must not rely on, though a sync of the same file says yes then. So
/// nothing is written past the end of a part before that part was synced; of what an earlier boot left, the part that
/// it ended in comes again, and all before it is durable.
pub(crate) struct Incoming {
    file: u64,
    name: String,
    handle: Arc<dyn DiskFile>,
    /// How much of it is here.
    here: u64,
    /// The bytes of a part.
    part: u64,
}

impl Incoming {
    /// The one with this name, as far as it came before; any other that was coming goes.
    pub(crate) fn open(disk: &dyn Disk, file: u64, pace: &Pace) -> Result<Incoming, StoreError> {
        let wanted = format!("{INCOMING}{file:016x}");
        let there = forget_incoming(disk, Some(&wanted))?;
        let path = disk.path().join(&wanted);
        let handle = if there { disk.open(&wanted) } else { disk.create(&wanted) };
        let handle = handle.map_err(failed("open", &path)).map_err(for_want_of_room)?;
        let length = handle.len().map_err(failed("read the length of", &path))?;
        let part = pace.part.max(1);
        let here = length.saturating_sub(1) / part * part;
        if here < length {
            handle.set_len(here).map_err(failed("cut", &path))?;
        }
        Ok(Incoming { file, name: wanted, handle, here, part })
    }

    pub(crate) fn file(&self) -> u64 {
        self.file
    }

    /// How much of it is here: where the next piece begins.
    pub(crate) fn here(&self) -> u64 {
        self.here
    }

    /// Takes a piece, if it is the next one. After an error, be it for want of room, it is not to be used any more.
    pub(crate) fn take(&mut self, disk: &dyn Disk, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let path = || disk.path().join(&self.name);
        let mut left = if offset == self.here { bytes } else { &[] };
        while !left.is_empty() {
            let room = (self.part - self.here % self.part).min(left.len() as u64);
            let (now, later) = left.split_at(room as usize);
            self.handle
                .write_at(now, self.here)
                .map_err(failed("write", path()))
                .map_err(for_want_of_room)?;
            (self.here, left) = (self.here + room, later);
            if self.here.is_multiple_of(self.part) {
                self.handle.sync_data().map_err(failed("sync", path()))?;
            }
        }
        Ok(())
    }

    /// All of it is here: makes it durable and gives it its name. If it is not what it was said to be, it is forgotten,
    /// and why is the error.
    pub(crate) fn end(self, disk: &dyn Disk, id: LogId) -> Result<Kept, StoreError> {
        let Incoming { file, name, handle, .. } = self;
        let pace = Pace::at_most(0);
        let path = disk.path().join(&name);
        handle.sync_data().map_err(failed("sync", &path))?;
        drop(handle);
        let kept = verify(disk, &name, &pace).and_then(|kept| {
            let same = kept.file == file && kept.meta.id == id;
            if same { Ok(kept) } else { Err(damaged(&path, 0, "it is another snapshot than was said")) }
        });
        match kept {
            Ok(kept) => keep(disk, &name, kept),
            Err(error) => {
                disk.remove(&name).map_err(failed("remove", &path))?;
                Err(error)
            }
        }
    }
}

#[cfg(test)]
#[path = "snapshots_tests.rs"]
mod tests;
