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

use coracle::raft::{Boot, ClusterId, Index, LogId};
use coracle::storage::disk::Disk;
use coracle::storage::mem_disk::MemDisk;
use coracle::storage::{Change, WriteBatch, identity, wal};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wal_support::*;

/// The version that this code writes.
const NEWEST: &str = "v2";

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
    let shared: Arc<dyn Disk> = Arc::new(disk.copy());
    let (_, model) = start_and_read(&shared).unwrap();
    writeln!(text, "{:?}", model.hard_state).unwrap();
    writeln!(text, "purged {} attested {}", model.purged, found.attested).unwrap();
    for entry in &model.entries {
        writeln!(text, "{:?} {} {:?} {}", entry.kind(), entry.id(), entry.stamp(), hex(&entry.payload()))
            .unwrap();
    }
    for (id, payload) in &model.memberships {
        writeln!(text, "members of {id} {}", hex(payload)).unwrap();
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
    let newest = directory().join(format!("{NEWEST}.txt"));
    if std::env::var("CORACLE_GOLDEN").is_ok_and(|what| what == "write") {
        std::fs::create_dir_all(directory()).unwrap();
        std::fs::write(&newest, write(&make())).unwrap();
    }
    let texts = std::fs::read_dir(directory()).unwrap().map(|text| text.unwrap().path());
    let mut texts: Vec<PathBuf> = texts.collect();
    texts.sort();
    assert!(texts.contains(&newest), "what this version writes is kept");
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
    let kept = std::fs::read_to_string(directory().join(format!("{NEWEST}.txt"))).unwrap();
    let (_, disk) = read(&kept);
    let made = make();
    assert_eq!(made.list().unwrap(), disk.list().unwrap());
    for name in made.list().unwrap() {
        let (made, kept) = (made.contents(&name).unwrap(), disk.contents(&name).unwrap());
        assert_eq!(made.len(), kept.len(), "{name}");
        // Generations, and with them checksums, are other ones in each process.
        assert_eq!(made.get(4..12), kept.get(4..12), "{name}");
    }
    assert_eq!(describe(&made), describe(&disk));
}
