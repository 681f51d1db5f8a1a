//! Data directories that earlier versions wrote, which every later one opens and reads alike.
//!
//! Each is a text in `tests/golden/`, named by the version of its format: first what is in it, then its files, of
//! which only the lines of 32 bytes are there that are not all zero. Directories are never changed and never
//! removed once a version was released. A format that changes gets a new one:
//!
//! ```sh
//! CORACLE_GOLDEN=write cargo test -p coracle --test golden
//! ```

mod wal_support;

use coracle::entry::{Entry, Kind, Stamp};
use coracle::raft::{Boot, ClusterId, HardState, Index, LogId, MachineStop};
use coracle::storage::disk::Disk;
use coracle::storage::identity::KeptStop;
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::snapshots::{self, Kept, Meta, SnapshotFile};
use coracle::storage::{Change, WriteBatch, identity, wal};
use coracle::{Ruling, Verdict};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wal_support::*;

/// Makes a directory.
type Make = fn() -> MemDisk;

/// What this code writes: the text, and what makes the directory.
const NEWEST: [(&str, Make); 6] = [
    ("v2", make),
    ("v2-snapshots", make_with_snapshots),
    ("v2-sessions", make_with_sessions),
    ("v2-timers", make_with_timers),
    ("v2-leases", make_with_leases),
    ("v2-rulings", make_with_rulings),
];

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

/// Bytes in a line.
const LINE: usize = 32;

/// What the files begin with.
const FILES: &str = "\nfiles\n";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A directory with everything that a format has: votes, memberships, truncations, purges, seals, segments that were
/// left in a run and by a start, two starts, and a batch in doubt.
fn make() -> MemDisk {
    let disk = MemDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let runs = [
        vec![
            Step::Write(WriteBatch { hard_state: hard_state(1, Some(1)), changes: vec![] }),
            changes(vec![Change::Append(vec![membership(1, 1)]), append(1, 2..=5, 20)]),
            changes(vec![append(1, 6..=8, 30)]),
            Step::Write(WriteBatch {
                hard_state: hard_state(3, Some(2)),
                changes: vec![Change::Truncate(Index(7)), append(3, 8..=9, 5)],
            }),
            Step::Idle,
        ],
        vec![
            changes(vec![Change::Append(vec![membership(3, 10)]), append(3, 11..=12, 0)]),
            Step::Purge(LogId::new(1, 4)),
            Step::Write(WriteBatch { hard_state: hard_state(4, None), changes: vec![] }),
            changes(vec![append(4, 13..=14, 40)]),
        ],
    ];
    for (run, steps) in (1..).zip(runs) {
        let (mut wal, _) = start(&shared).unwrap();
        identity::begin_run(&disk, || Boot(0x1111 * run)).unwrap();
        identity::set_cluster(&disk, CLUSTER).unwrap();
        steps.iter().for_each(|step| step.run(&mut wal).unwrap());
    }
    disk
}

/// The same with two snapshots, one at the purged entry, as far as a purge may go, and one within the log; and with a part
/// of one that is coming.
fn make_with_snapshots() -> MemDisk {
    let disk = make();
    for (id, members, compared) in [((1, 4), (1, 1), None), ((3, 11), (3, 10), Some(8))] {
        let id = LogId::new(id.0, id.1);
        let digest =
            |index| coracle::raft::Digest { index: Index(index), format: 2, version: 3, bytes: [0xdd; 16] };
        let meta = Meta {
            id,
            digest: [0xee; 16],
            cluster_time: 1000 + id.index.0,
            machine_version: 3,
            compared: compared.map(digest),
            membership: (LogId::new(members.0, members.1), b"members".as_slice().into()),
            level: 0,
            sessions: bytes::Bytes::new(),
            timers: bytes::Bytes::new(),
            entries_version: 0,
            rulings: bytes::Bytes::new(),
            effects: bytes::Bytes::new(),
        };
        let state: Vec<u8> = (0..300).map(|at| (at * id.index.0 % 251) as u8).collect();
        snapshots::save(&disk, &meta, 0x5a5a_0000 + id.index.0, &snapshots::Pace::at_most(0), |to| {
            to.write_all(&state)
        })
        .unwrap();
    }
    disk.put("incoming-00000000000000aa", b"the beginning of one");
    disk
}

/// A log with sessions, and a snapshot with one that is open.
fn make_with_sessions() -> MemDisk {
    let disk = make();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let stamp = |session, sequence| Stamp { cluster_time: 1020, session, sequence, ..Stamp::default() };
    let numbered = |does: u32| [&does.to_le_bytes()[..], &[3, 0, 0, 0], &[7; 8]].concat();
    let entries = [
        (Kind::Session, stamp(0, 0), 60_000u64.to_le_bytes().to_vec()),
        (Kind::Numbered, stamp(15, 0), [numbered(1), b"command".to_vec()].concat()),
        (Kind::Numbered, stamp(15, 1), numbered(0)),
        (Kind::Session, stamp(15, 0), Vec::new()),
    ];
    let entry = |(index, (kind, stamp, payload)): (u64, (Kind, Stamp, Vec<u8>))| {
        Entry::new(LogId::new(4, index), kind, stamp, &payload)
    };
    let entries = (15..).zip(entries).map(entry).collect();
    changes(vec![Change::Append(entries)]).run(&mut start(&shared).unwrap().0).unwrap();
    // One session, which ends at 61,020, with lane 3, whose next number is 1, and one answer.
    let sessions = [
        &1u32.to_le_bytes()[..],
        &[15u64, 60_000, 61_020].map(u64::to_le_bytes).concat(),
        &[1u32, 3].map(u32::to_le_bytes).concat(),
        &1u64.to_le_bytes(),
        &[1u32, 2].map(u32::to_le_bytes).concat(),
        b"ok",
    ];
    let meta = Meta {
        id: LogId::new(4, 16),
        digest: [0xee; 16],
        cluster_time: 1020,
        machine_version: 3,
        compared: None,
        membership: (LogId::new(3, 10), b"members".as_slice().into()),
        level: 1,
        sessions: sessions.concat().into(),
        timers: bytes::Bytes::new(),
        entries_version: 0,
        rulings: bytes::Bytes::new(),
        effects: bytes::Bytes::new(),
    };
    let pace = snapshots::Pace::at_most(0);
    snapshots::save(&disk, &meta, 0x5a5a_0010, &pace, |to| to.write_all(&[7; 300])).unwrap();
    disk
}

/// A log in which timers fire, and two snapshots: one with two timers and no entry of a level yet, and one after the last has
/// fired.
fn make_with_timers() -> MemDisk {
    let disk = make();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let stamp = |time, version| Stamp { cluster_time: time, version, ..Stamp::default() };
    let entries = [
        Entry::new(LogId::new(4, 15), Kind::Command, stamp(1020, 3), b"sets two"),
        Entry::new(LogId::new(4, 16), Kind::Timer, stamp(2000, 3), &[]),
    ];
    changes(vec![Change::Append(entries.to_vec())]).run(&mut start(&shared).unwrap().0).unwrap();
    // Timer 9, due at 2000, and timer 10, due at 1500, both of entry 15.
    let timers = [
        &2u32.to_le_bytes()[..],
        &[9u64, 2000, 15].map(u64::to_le_bytes).concat(),
        &0u32.to_le_bytes(),
        &[10u64, 1500, 15].map(u64::to_le_bytes).concat(),
        &1u32.to_le_bytes(),
    ];
    for (index, level, timers) in [(15, 0, timers.concat()), (16, 2, Vec::new())] {
        let meta = Meta {
            id: LogId::new(4, index),
            digest: [0xee; 16],
            cluster_time: 1020,
            machine_version: 3,
            compared: None,
            membership: (LogId::new(3, 10), b"members".as_slice().into()),
            level,
            sessions: if level > 0 { vec![0; 4].into() } else { bytes::Bytes::new() },
            timers: timers.into(),
            entries_version: if level > 0 { 3 } else { 0 },
            rulings: bytes::Bytes::new(),
            effects: bytes::Bytes::new(),
        };
        let pace = snapshots::Pace::at_most(0);
        snapshots::save(&disk, &meta, 0x5a5a_0000 + index, &pace, |to| to.write_all(&[7; 300])).unwrap();
    }
    disk
}

/// A log of a node that has promised a lease.
fn make_with_leases() -> MemDisk {
    let disk = make();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let state = hard_state(4, Some(3)).map(|state| HardState { promised: 60, ..state });
    let batch = WriteBatch { hard_state: state, changes: vec![append(4, 15..=15, 8)] };
    Step::Write(batch).run(&mut start(&shared).unwrap().0).unwrap();
    disk
}

/// A directory whose machine has stopped, a log with rulings, and a snapshot that keeps both kinds.
fn make_with_rulings() -> MemDisk {
    let disk = make();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let ruling = |entry, verdict| Ruling { entry: LogId::new(4, entry), verdict }.encode();
    let made = |index, payload: &[u8]| {
        Entry::new(
            LogId::new(4, index),
            Kind::Ruling,
            Stamp { cluster_time: 1020, ..Stamp::default() },
            payload,
        )
    };
    let (retry, skip) = (ruling(14, Verdict::Retry), ruling(15, Verdict::Skip));
    let poison =
        Entry::new(LogId::new(4, 15), Kind::Command, Stamp { version: 3, ..Stamp::default() }, b"poison");
    let entries = vec![poison, made(16, &retry), made(17, &skip)];
    identity::set_rules(&disk).unwrap();
    changes(vec![Change::Append(entries)]).run(&mut start(&shared).unwrap().0).unwrap();
    let stop = MachineStop { at: LogId::new(4, 15), after: Index(9) };
    identity::set_stop(&disk, Some(KeptStop { stop, why: "it is poison".to_owned() })).unwrap();
    let kept = |at: u64, payload: [u8; 24]| [&at.to_le_bytes()[..], &payload].concat();
    // One effect, the first of entry 14.4.
    let effects = [
        &1u32.to_le_bytes()[..],
        &[4u64, 14].map(u64::to_le_bytes).concat(),
        &[0u32, 4].map(u32::to_le_bytes).concat(),
        b"mail",
    ];
    let meta = Meta {
        id: LogId::new(4, 17),
        digest: [0xee; 16],
        cluster_time: 1020,
        machine_version: 3,
        membership: (LogId::new(3, 10), b"members".as_slice().into()),
        level: 3,
        sessions: vec![0; 4].into(),
        rulings: [2u32.to_le_bytes().to_vec(), kept(16, retry), kept(17, skip)].concat().into(),
        effects: effects.concat().into(),
        ..Meta::default()
    };
    let pace = snapshots::Pace::at_most(0);
    snapshots::save(&disk, &meta, 0x5a5a_0017, &pace, |to| to.write_all(&[7; 300])).unwrap();
    disk
}

/// What is in the directory, in words.
fn describe(disk: &MemDisk) -> String {
    let known = identity::inspect(disk).unwrap().0;
    let found = wal::inspect(disk, Some(&known)).unwrap();
    assert!(found.damage.iter().all(|damage| damage.forgiven), "{:?}", found.damage);
    let mut text = String::new();
    let cluster = known.cluster.map_or(0, |cluster| cluster.0);
    writeln!(text, "node {} incarnation {} cluster {cluster:x}", known.node, known.incarnation).unwrap();
    let boots = identity::boots(disk).unwrap();
    writeln!(text, "boots {} newest {:?}", boots.count, boots.newest).unwrap();
    if let Some(kept) = identity::stop(disk).unwrap() {
        writeln!(text, "{kept:?}").unwrap();
    }
    let shared: Arc<dyn Disk> = Arc::new(disk.copy());
    let (_, model) = start_and_read(&shared).unwrap();
    // As before there were leases, where none was promised.
    let hard_state = format!("{:?}", model.hard_state).replace(", promised: 0 }", " }");
    writeln!(text, "{hard_state}").unwrap();
    writeln!(text, "purged {} attested {}", model.purged, found.attested).unwrap();
    for entry in &model.entries {
        writeln!(text, "{:?} {} {:?} {}", entry.kind(), entry.id(), entry.stamp(), hex(&entry.payload()))
            .unwrap();
    }
    for (id, payload) in &model.memberships {
        writeln!(text, "members of {id} {}", hex(payload)).unwrap();
    }
    for SnapshotFile { name, found } in snapshots::inspect(disk).unwrap() {
        let Kept { meta, file, bytes } = found.unwrap();
        let mut state = Vec::new();
        snapshots::open(disk, meta.id).unwrap().read_to_end(&mut state).unwrap();
        // As before there were sessions, and timers, where there are none.
        let meta = format!("{meta:?}").replace(", rulings: b\"\", effects: b\"\"", "");
        let meta = meta.replace(", timers: b\"\", entries_version: 0", "");
        let meta = meta.replace(", level: 0, sessions: b\"\" }", " }");
        writeln!(text, "{name} {file:x} of {bytes} bytes, {meta}, state {}", hex(&state)).unwrap();
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(disk: &MemDisk) -> String {
    let mut text = describe(disk) + FILES;
    for name in disk.list().unwrap() {
        let bytes = disk.contents(&name).unwrap();
        writeln!(text, "file {name} {}", bytes.len()).unwrap();
        for (at, line) in bytes.chunks(LINE).enumerate().filter(|(_, line)| line.iter().any(|b| *b != 0)) {
            writeln!(text, "{:x} {}", at * LINE, hex(line)).unwrap();
        }
    }
    text
}

/// What is in it, and the directory.
fn read(text: &str) -> (&str, MemDisk) {
    let (described, files) = text.split_once(FILES).expect("a description and files");
    let disk = MemDisk::new();
    let mut files = files.lines().peekable();
    while let Some(head) = files.next() {
        let mut words = head.split(' ').skip(1);
        let name = words.next().unwrap();
        let mut bytes = vec![0; words.next().unwrap().parse().unwrap()];
        while let Some(line) = files.next_if(|line| !line.starts_with("file ")) {
            let (at, digits) = line.split_once(' ').unwrap();
            let at = usize::from_str_radix(at, 16).unwrap();
            for (place, digits) in bytes[at..].iter_mut().zip(digits.as_bytes().chunks(2)) {
                *place = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
            }
        }
        disk.put(name, &bytes);
    }
    (described, disk)
}

#[test]
fn directories_of_every_version_are_opened_and_read_alike() {
    if std::env::var("CORACLE_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::create_dir_all(directory()).unwrap();
        for (name, make) in NEWEST {
            std::fs::write(directory().join(format!("{name}.txt")), write(&make())).unwrap();
        }
    }
    let texts = std::fs::read_dir(directory()).unwrap().map(|text| text.unwrap().path());
    let mut texts: Vec<PathBuf> = texts.collect();
    texts.sort();
    for (name, _) in NEWEST {
        assert!(texts.contains(&directory().join(format!("{name}.txt"))), "what this version writes is kept");
    }
    for path in texts {
        let text = std::fs::read_to_string(&path).unwrap();
        let (described, disk) = read(&text);
        assert_eq!(describe(&disk), described, "{}", path.display());
        // And the log goes on.
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (mut log, mut model) = start_and_read(&shared).unwrap();
        let next = model.last().index.0 + 1;
        let step = changes(vec![append(9, next..=next + 3, 3000)]);
        step.run(&mut log).unwrap();
        model.apply(&step);
        drop(log);
        assert_eq!(start_and_read(&shared).unwrap().1, model, "{}", path.display());
    }
}

/// What this code writes is what it wrote when the version was named: a change of a format gets a new version.
#[test]
fn this_version_writes_what_it_says() {
    for (text, make) in NEWEST {
        let kept = std::fs::read_to_string(directory().join(format!("{text}.txt"))).unwrap();
        let (_, disk) = read(&kept);
        let made = make();
        assert_eq!(made.list().unwrap(), disk.list().unwrap());
        for name in made.list().unwrap() {
            let (made, kept) = (made.contents(&name).unwrap(), disk.contents(&name).unwrap());
            assert_eq!(made.len(), kept.len(), "{name}");
            // Generations, and with them checksums, are other ones in each process; of snapshots everything is the same.
            let same = if name.starts_with("snapshot-") { 0..kept.len() } else { 4..12 };
            assert_eq!(made.get(same.clone()), kept.get(same), "{name}");
        }
        assert_eq!(describe(&made), describe(&disk));
    }
}
