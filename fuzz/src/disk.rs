//! What a start finds on a disk: files that were cut, flipped, or made by somebody else.

use crate::Source;
use bytes::Bytes;
use coracle::entry::{Entry, Kind, Stamp};
use coracle::raft::{ClusterId, HardState, Incarnation, Index, LogId, Member, Membership, NodeId, Term};
use coracle::storage::disk::Disk;
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::snapshots::{self, Meta, Pace};
use coracle::storage::wal::{Wal, WalConfig};
use coracle::storage::{Change, Identity, LogStore, WriteBatch, identity as who};
use std::io::Read;
use std::sync::{Arc, OnceLock};

const NODE: NodeId = NodeId(1);
const INCARNATION: Incarnation = Incarnation(7);
const CLUSTER: ClusterId = ClusterId(9);

/// An entry as it is everywhere, with the checksum that is there, and with a right one.
pub fn entry(data: &[u8]) {
    let mut bytes = data.to_vec();
    look_at(&bytes);
    if bytes.len() >= 4 {
        let sum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        look_at(&bytes);
    }
}

fn look_at(bytes: &[u8]) {
    let Ok(entry) = Entry::decode(Bytes::copy_from_slice(bytes)) else { return };
    let (id, kind, stamp, payload) = (entry.id(), entry.kind(), entry.stamp(), entry.payload());
    assert_eq!(Entry::new(id, kind, stamp, &payload), entry, "an entry has one encoding");
    if kind == Kind::Membership
        && let Ok(membership) = coracle::wire::decode_membership(&payload)
    {
        let again = coracle::wire::encode_membership(&membership);
        assert_eq!(coracle::wire::decode_membership(&again), Ok(membership), "a membership is what it says");
    }
}

/// A log of two segments, edited: the start refuses it, or all that it found can be read, or is named as damaged.
pub fn segment(data: &[u8]) {
    static WHOLE: OnceLock<Files> = OnceLock::new();
    let disk = edited(WHOLE.get_or_init(|| Files::of(&log())), data, ".log");
    let Ok(found) = who::inspect(&disk) else { return };
    let mut wal = Wal::open(Arc::new(disk), found.0, config());
    let Ok(recovered) = wal.load(&mut |_| {}) else { return };
    let reader = wal.reader();
    let (mut next, last) = (recovered.purged.index.next(), recovered.last.index);
    while next <= last {
        let Ok(entries) = reader.entries(next, last, 4 << 10) else { return };
        assert_eq!(entries[0].index(), next, "a reader gives what it was asked for");
        next = entries[entries.len() - 1].index().next();
    }
}

/// A snapshot's file, edited: what is read of it is what was written, up to where the damage is noticed.
pub fn snapshot(data: &[u8]) {
    static WHOLE: OnceLock<Files> = OnceLock::new();
    let disk = edited(WHOLE.get_or_init(|| Files::of(&saved())), data, "");
    drop(snapshots::inspect(&disk));
    let Ok(mut reader) = snapshots::open(&disk, SAVED) else { return };
    let mut state = Vec::new();
    if reader.read_to_end(&mut state).is_ok() {
        assert_eq!(state, STATE.repeat(TIMES), "damage was read as state");
    }
}

/// A directory's identity, edited.
pub fn identity(data: &[u8]) {
    static WHOLE: OnceLock<Files> = OnceLock::new();
    let disk = edited(WHOLE.get_or_init(|| Files::of(&named())), data, "");
    drop(who::inspect(&disk));
    drop(who::boots(&disk));
    drop(who::promise(&disk));
    drop(who::stop(&disk));
    drop(who::fenced(&disk));
}

/// The files of a disk, to begin from.
struct Files(Vec<(String, Vec<u8>)>);

impl Files {
    fn of(disk: &MemDisk) -> Files {
        let names = disk.list().expect("a disk in memory lists its files");
        let file = |name: String| disk.contents(&name).map(|bytes| (name, bytes));
        Files(names.into_iter().filter_map(file).collect())
    }
}

/// Edits one after the other: a byte for the file, one for what is done, three for where, and what that needs. Only files with this
/// end of their names are edited.
fn edited(files: &Files, data: &[u8], end: &str) -> MemDisk {
    let mut files = files.0.clone();
    let edits: Vec<usize> = (0..files.len()).filter(|at| files[*at].0.ends_with(end)).collect();
    let mut source = Source(data);
    while !source.is_over() && !edits.is_empty() {
        let file = &mut files[edits[usize::from(source.byte()) % edits.len()]].1;
        let (what, at) = (source.byte(), usize::from(source.u16()) | usize::from(source.byte()) << 16);
        let at = at % (file.len() + 1);
        match what % 4 {
            0 => file.truncate(at),
            1 => {
                let bytes = source.bytes(usize::from(what / 4) + 1);
                let end = (at + bytes.len()).min(file.len());
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
            2 => {
                // A checksum over what follows it: the length is said.
                let length = usize::from(source.u16());
                let from = (at + 4).min(file.len());
                let sum = crc32c::crc32c(&file[from..(from + length).min(file.len())]);
                if at + 4 <= file.len() {
                    file[at..at + 4].copy_from_slice(&sum.to_le_bytes());
                }
            }
            _ => {
                // A checksum over what stands before it.
                let length = usize::from(source.u16());
                let sum = crc32c::crc32c(&file[at.saturating_sub(length)..at]);
                if at + 4 <= file.len() {
                    file[at..at + 4].copy_from_slice(&sum.to_le_bytes());
                }
            }
        }
    }
    let disk = MemDisk::new();
    files.iter().for_each(|(name, bytes)| disk.put(name, bytes));
    disk
}

fn config() -> WalConfig {
    WalConfig { segment_bytes: 64 << 10, spares: 0, prepare_ahead: false, draw: Arc::new(|| 0x5eed) }
}

/// The identity of a node, blank as yet.
fn blank() -> MemDisk {
    let disk = MemDisk::new();
    who::open_or_create(&disk, NODE, false, || INCARNATION).expect("a disk in memory takes an identity");
    who::begin_run(&disk, || coracle::raft::Boot(3)).expect("and a boot");
    disk
}

/// The identity of a member.
fn named() -> MemDisk {
    let disk = blank();
    who::set_cluster(&disk, CLUSTER).expect("a disk in memory takes a cluster");
    disk
}

/// A log in two segments.
fn log() -> MemDisk {
    let disk = blank();
    let identity = Identity { node: NODE, incarnation: INCARNATION, cluster: None };
    let mut wal = Wal::open(Arc::new(disk.clone()), identity, config());
    wal.load(&mut |_| {}).expect("an empty log is whole");
    let member = Member { id: NODE, incarnation: INCARNATION, address: "a:1".to_owned() };
    let first = coracle::wire::encode_membership(&Membership::of_voters(CLUSTER, [member]));
    for index in 1..=40 {
        let id = LogId::new(1 + index / 20, index);
        let entry = match index {
            1 => Entry::new(id, Kind::Membership, Stamp::default(), &first),
            _ => Entry::new(id, Kind::Command, Stamp::default(), &[index as u8; 2_000]),
        };
        let hard_state = Some(HardState { term: Term(id.term.0), ..HardState::default() });
        let batch = WriteBatch { hard_state, changes: vec![Change::Append(vec![entry])] };
        wal.write(&batch).expect("a disk in memory takes writes");
    }
    who::set_cluster(&disk, CLUSTER).expect("and the cluster");
    disk
}

const SAVED: LogId = LogId { term: Term(3), index: Index(40) };
const STATE: &[u8] = b"what a machine knows. ";
const TIMES: usize = 10_000;

fn saved() -> MemDisk {
    let disk = MemDisk::new();
    let member = Member { id: NODE, incarnation: INCARNATION, address: "a:1".to_owned() };
    let members = Membership::of_voters(CLUSTER, [member]);
    let membership = (LogId::new(1, 1), coracle::wire::encode_membership(&members));
    let meta = Meta { id: SAVED, membership, ..Meta::default() };
    let pace = Pace::at_most(0);
    snapshots::save(&disk, &meta, 5, &pace, |to| to.write_all(&STATE.repeat(TIMES))).expect("it is saved");
    disk
}
