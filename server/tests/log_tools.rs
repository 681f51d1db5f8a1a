//! `coracle log`: intact logs, logs in use, and every kind of damage; and the reader in Python beside it.

mod support;

use bytes::Bytes;
use coracle::entry::{Entry, Kind, Stamp};
use coracle::raft::{ClusterId, Digest, HardState, Incarnation, Index, LogId, NodeId, Peer, Term};
use coracle::storage::disk::{DirDisk, Disk};
use coracle::storage::snapshots::{self, Meta};
use coracle::storage::wal::{self, Wal, WalConfig};
use coracle::storage::{Change, LogStore, StoreError, WriteBatch, identity};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::log::*;
use support::{CORACLE, wait};
use tempfile::TempDir;

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

// A log that a workload leaves.

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A node's log in segments of 16 KiB, and what it should hold.
struct Node {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    wal: Wal,
    term: u64,
    purged: LogId,
    entries: Vec<Entry>,
}

impl Node {
    fn start(dir: &Path) -> Node {
        // Another test may be starting a process, which has a copy of the lock until it is a program of its own.
        let free = || match DirDisk::open(dir) {
            Err(StoreError::Locked { .. }) => None,
            opened => Some(opened.unwrap()),
        };
        let disk: Arc<dyn Disk> = Arc::new(wait("the directory's lock", free));
        let exists = wal::exists(&*disk).unwrap();
        identity::open_or_create(&*disk, NodeId(1), exists, || Incarnation(u64::MAX - 5)).unwrap();
        let identity = if exists {
            identity::set_cluster(&*disk, CLUSTER)
        } else {
            identity::inspect(&*disk).map(|i| i.0)
        };
        let config = WalConfig { segment_bytes: 20 << 10, ..WalConfig::default() };
        let mut wal = Wal::open(disk.clone(), identity.unwrap(), config);
        let found = wal.load(&mut |_| {}).unwrap();
        let mut entries = Vec::new();
        while entries.len() as u64 != found.last.index.0 - found.purged.index.0 {
            let next = Index(found.purged.index.0 + 1 + entries.len() as u64);
            entries.extend(wal.reader().entries(next, found.last.index, 1 << 20).unwrap());
        }
        let term = found.hard_state.term.0.max(found.last.term.0);
        Node { dir: dir.to_owned(), disk, wal, term, purged: found.purged, entries }
    }

    /// The next life of the node, after a stop that was clean or not.
    fn restart(mut self, clean: bool) -> Node {
        if clean {
            self.wal.idle().unwrap();
        }
        let Node { dir, disk, wal, entries, .. } = self;
        drop((disk, wal));
        let node = Node::start(&dir);
        assert_eq!(node.entries, entries);
        node
    }

    fn last(&self) -> LogId {
        self.entries.last().map_or(self.purged, Entry::id)
    }

    fn append(&mut self, count: u64, payload: u64, kind: Kind) {
        let before = self.last().index.0;
        let entries: Vec<Entry> = (1..=count)
            .map(|at| {
                let stamp = Stamp {
                    cluster_time: before,
                    wall_time: 7 << 40,
                    session: at,
                    sequence: 9,
                    ..Stamp::default()
                };
                let payload: Vec<u8> = (0..payload).map(|i| (i * 31 + before) as u8).collect();
                Entry::new(LogId::new(self.term, before + at), kind, stamp, &payload)
            })
            .collect();
        self.entries.extend(entries.iter().cloned());
        self.write(vec![Change::Append(entries)], None);
    }

    fn write(&mut self, changes: Vec<Change>, hard_state: Option<HardState>) {
        self.wal.write(&WriteBatch { hard_state, changes }).unwrap();
    }

    fn vote(&mut self, dice: &mut Dice) {
        self.term += 1 + dice.below(3);
        let peer =
            Peer { id: NodeId(1 + dice.below(3)), incarnation: Incarnation(dice.below(1 << 40) << 24) };
        let vote = (dice.below(3) > 0).then_some(peer);
        self.write(vec![], Some(HardState { term: Term(self.term), vote, promised: 0 }));
    }

    fn truncate(&mut self, count: u64) {
        let keep = self.entries.len().saturating_sub(count as usize);
        self.entries.truncate(keep);
        let last = self.last().index;
        self.write(vec![Change::Truncate(last)], None);
    }

    fn purge(&mut self, keep: usize) {
        let Some(gone) = self.entries.len().checked_sub(keep + 1) else { return };
        self.purged = self.entries[gone].id();
        self.save(self.purged);
        self.entries.drain(..=gone);
        self.wal.purge(self.purged).unwrap();
    }

    /// A snapshot that stands for the log up to there, of some length.
    fn save(&self, id: LogId) {
        let compared = Digest { index: Index(id.index.0 / 2), format: 2, version: 3, bytes: [4; 16] };
        let meta = Meta {
            id,
            digest: [id.index.0 as u8; 16],
            cluster_time: 7 << 40,
            machine_version: 3,
            compared: id.index.0.is_multiple_of(2).then_some(compared),
            membership: (LogId::new(1, 1), Bytes::from_static(b"members")),
            level: 0,
            sessions: Bytes::new(),
            timers: Bytes::new(),
            entries_version: 0,
            rulings: Bytes::new(),
            effects: Bytes::new(),
        };
        let state: Vec<u8> = (0..id.index.0 * id.index.0 % 5000).map(|i| (i * 7 + i / 251) as u8).collect();
        snapshots::save(&*self.disk, &meta, id.index.0 << 40 | 5, &snapshots::Pace::at_most(0), |to| {
            to.write_all(&state)
        })
        .unwrap();
    }

    fn step(mut self, dice: &mut Dice) -> Node {
        match dice.below(20) {
            0 => return self.restart(true),
            1 => return self.restart(false),
            2 | 3 => self.vote(dice),
            4 | 5 => self.truncate(dice.below(8)),
            6 => self.purge(dice.below(40) as usize),
            7 => self.append(1, 20, Kind::Membership),
            8 => self.append(1, 0, Kind::Noop),
            9 => self.wal.idle().unwrap(),
            10 if dice.below(8) == 0 => {
                let to = LogId::new(self.term, self.last().index.0 + dice.below(50));
                self.save(to);
                self.write(vec![Change::Reset(to)], None);
                self.purged = to;
                self.entries.clear();
            }
            _ => self.append(1 + dice.below(6), dice.below(3000), Kind::Command),
        }
        self
    }
}

/// A directory that 150 steps left, stopped cleanly or not, and what is in it.
fn left(dir: &Path, seed: u64, clean: bool) -> (LogId, Vec<Entry>) {
    let mut dice = Dice(seed);
    let mut node = Node::start(dir);
    for _ in 0..150 {
        node = node.step(&mut dice);
    }
    if clean {
        node.wal.idle().unwrap();
    }
    (node.purged, node.entries)
}

/// A sealed log of several segments, none of them purged, and the names of these.
fn several(dir: &Path) -> Vec<String> {
    let mut node = Node::start(dir);
    node.append(3, 100, Kind::Command);
    let mut node = node.restart(true);
    for _ in 0..21 {
        node.append(2, 1500, Kind::Command);
    }
    node.wal.idle().unwrap();
    drop(node);
    let names: Vec<String> = files(dir).into_keys().filter(|name| name.ends_with(".log")).collect();
    assert!(names.len() >= 4, "{names:?}");
    names
}

// The tools.

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for (name, bytes) in files(from) {
        fs::write(to.path().join(name), bytes).unwrap();
    }
    to
}

fn hex(bytes: &Bytes) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// Intact logs.

#[test]
fn an_intact_log_is_dumped_as_it_is_and_not_a_byte_changes() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let (purged, entries) = left(dir.path(), seed, seed % 2 == 0);
        let before = files(dir.path());
        let (code, text) = verify(dir.path());
        assert_eq!(code, 0, "seed {seed}: {text}");
        let (code, all) = dump(dir.path());
        assert_eq!(code, 0, "seed {seed}");
        assert_eq!(files(dir.path()), before, "seed {seed}");
        let found: Vec<_> = of(&all, "entry")
            .map(|e| (e["index"].clone(), e["term"].clone(), e["payload"].clone()))
            .collect();
        let expected: Vec<_> = entries
            .iter()
            .map(|e| (json!(e.index().0), json!(e.term().0), json!(hex(&e.payload()))))
            .collect();
        assert_eq!(found, expected, "seed {seed}");
        let outline = of(&all, "log").next().unwrap();
        assert_eq!(outline["purged"], json!({ "term": purged.term.0, "index": purged.index.0 }));
        assert_eq!(all.last().unwrap(), &json!({ "type": "end", "intact": true }));
        let doubtful = of(&all, "entry").filter(|e| e["in_doubt"] == true).count();
        assert!(seed % 2 == 1 || doubtful == 0, "a clean stop leaves nothing in doubt");
        // Spares and all: whatever is no segment that counts is named, except for hints on where entries lie.
        let named =
            ["segment", "snapshot", "unused"].into_iter().map(|kind| of(&all, kind).count()).sum::<usize>();
        let hints = before.keys().filter(|name| name.ends_with(".places")).count();
        assert_eq!(named + hints, before.len() - 2, "all but identity and lock");
        let (code, text) = said(&log(&["dump"], dir.path()));
        assert!(code == 0 && text.ends_with("intact\n"), "{text}");
    }
}

#[test]
fn what_is_in_doubt_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    node.append(2, 10, Kind::Command);
    node.append(2, 10, Kind::Command);
    node.term += 1;
    node.write(vec![], Some(HardState { term: Term(node.term), vote: None, promised: 0 }));
    node.truncate(1);
    node.wal
        .write(&WriteBatch {
            hard_state: Some(HardState { term: Term(9), vote: None, promised: 0 }),
            changes: vec![
                Change::Truncate(Index(2)),
                Change::Append(vec![Entry::new(LogId::new(9, 3), Kind::Command, Stamp::default(), b"new")]),
            ],
        })
        .unwrap();
    drop(node);
    let (code, all) = dump(dir.path());
    assert_eq!(code, 0);
    let doubt: Vec<_> =
        of(&all, "entry").map(|e| (e["index"].as_u64().unwrap(), e["in_doubt"] == true)).collect();
    assert_eq!(doubt, [(1, false), (2, false), (3, true)]);
    assert_eq!(of(&all, "hard_state").next().unwrap()["in_doubt"], true);
    assert_eq!(of(&all, "log").next().unwrap()["attested"]["index"], 2);
}

#[test]
fn a_range_is_printed_and_a_closed_pipe_ends_it_quietly() {
    let dir = tempfile::tempdir().unwrap();
    several(dir.path());
    let output = log(&["dump", "--json", "--from", "5", "--to", "8"], dir.path());
    let indexes: Vec<_> = of(&lines(&output), "entry").map(|e| e["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, [5, 6, 7, 8]);
    let mut child = Command::new(CORACLE)
        .args(["log", "dump", "--json"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(said(&output), (0, String::new()));
}

/// The limit that a process starts with is raised before a log is opened.
#[test]
fn ov_2_a_log_of_more_segments_than_files_may_be_open_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    for _ in 0..220 {
        node.append(1, 9000, Kind::Command);
    }
    drop(node);
    let segments = files(dir.path()).into_keys().filter(|name| name.ends_with(".log")).count();
    assert!(segments > 100, "{segments}");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn 64; exec \"$0\" log verify \"$1\"", CORACLE]).arg(dir.path());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// Damage.

/// What is done to which file, and where it must be seen: in this file, at this offset.
struct Deed {
    what: &'static str,
    deed: fn(&Path, &str),
    to: String,
    seen: (String, u64),
}

/// Every kind of damage, to a log of these segments.
fn deeds(names: &[String]) -> Vec<Deed> {
    let (second, last) = (&*names[1], &*names[names.len() - 1]);
    let on = |what, deed, to: &str, file: &str, offset| {
        let seen = (file.to_owned(), offset);
        Deed { what, deed, to: to.to_owned(), seen }
    };
    let own = |what, deed, to: &str, offset| on(what, deed, to, to, offset);
    vec![
        own("a segment's header", |d, f| flip(d, f, 20, 1), second, 0),
        own("a checkpoint", |d, f| flip(d, f, 4096 + 100, 3), second, 4096),
        own("a batch's header", |d, f| flip(d, f, 8192 + 30, 3), second, 8192),
        own("an entry", |d, f| flip(d, f, 8192 + 1000, 3), second, 8192),
        own("an entry of the newest segment", |d, f| flip(d, f, 8192 + 1000, 3), last, 8192),
        own("a cut file", |d, f| cut(d, f, 9000), second, 8192),
        own("an empty file", |d, f| cut(d, f, 0), second, 0),
        on("a missing segment", remove, second, &names[2], 4096),
        own("the newest segment, missing", remove, last, 0),
        own("another segment's bytes", put_oldest_over, second, 0),
        own("the identity", |d, f| flip(d, f, 16, 0), "identity", 0),
        own("a cut identity", |d, f| cut(d, f, 4), "identity", 4),
    ]
}

fn cut(dir: &Path, file: &str, len: u64) {
    fs::OpenOptions::new().write(true).open(dir.join(file)).unwrap().set_len(len).unwrap();
}

fn remove(dir: &Path, file: &str) {
    fs::remove_file(dir.join(file)).unwrap();
}

fn put_oldest_over(dir: &Path, file: &str) {
    let oldest = files(dir).into_keys().find(|name| name.ends_with(".log")).unwrap();
    fs::copy(dir.join(oldest), dir.join(file)).unwrap();
}

#[test]
fn every_kind_of_damage_is_named_with_its_file() {
    let sound = tempfile::tempdir().unwrap();
    let names = several(sound.path());
    for Deed { what, deed, to, seen: (file, offset) } in deeds(&names) {
        let dir = copy(sound.path());
        deed(dir.path(), &to);
        let before = files(dir.path());
        let (code, text) = verify(dir.path());
        assert_eq!(code, 1, "{what}: {text}");
        assert!(text.contains(&file) && text.contains("damaged: "), "{what}: {text}");
        let (code, all) = dump(dir.path());
        assert_eq!(code, 1, "{what}");
        let damage = of(&all, "damage").next().unwrap_or_else(|| panic!("{what}"));
        let found = (damage["file"].as_str().unwrap(), damage["offset"].as_u64());
        assert_eq!(found, (&*file, Some(offset)), "{what}");
        assert_eq!(all.last().unwrap(), &json!({ "type": "end", "intact": false }));
        assert_eq!(files(dir.path()), before, "{what}");
    }
}

#[test]
fn a_directory_without_its_identity_or_its_log_is_refused() {
    let sound = tempfile::tempdir().unwrap();
    let names = several(sound.path());
    for (what, gone) in
        [("no identity", vec!["identity"]), ("no log", names.iter().map(String::as_str).collect())]
    {
        let dir = copy(sound.path());
        gone.iter().for_each(|name| remove(dir.path(), name));
        assert_eq!(verify(dir.path()).0, 1, "{what}");
        assert_eq!(dump(dir.path()).0, 1, "{what}");
    }
}

#[test]
fn what_can_be_read_beside_the_damage_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let names = several(dir.path());
    let (_, sound) = dump(dir.path());
    flip(dir.path(), &names[2], 8192 + 1000, 0);
    let (code, all) = dump(dir.path());
    assert_eq!(code, 1);
    let whole: Vec<&Value> = of(&sound, "entry").collect();
    let read: Vec<&Value> = of(&all, "entry").collect();
    assert!(read.iter().all(|entry| whole.contains(entry)), "nothing is invented");
    let indexes: Vec<u64> = read.iter().map(|e| e["index"].as_u64().unwrap()).collect();
    assert!(
        indexes.is_sorted() && indexes.len() < whole.len() && indexes.len() > whole.len() / 2,
        "{indexes:?}"
    );
    assert_eq!((indexes[0], indexes.last()), (1, Some(&45)), "before and after: {indexes:?}");
}

#[test]
fn a_snapshot_is_verified_and_missed_where_the_log_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    for _ in 0..10 {
        node.append(4, 1500, Kind::Command);
    }
    node.save(LogId::new(0, 30));
    node.purge(20);
    drop(node);
    let (code, all) = dump(dir.path());
    let seen: Vec<_> = of(&all, "snapshot").map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!((code, seen), (0, vec![30, 20]));
    let (code, text) = verify(dir.path());
    assert!(code == 0 && text.contains("purged up to 20, a snapshot up to 30"), "{text}");
    fs::write(dir.path().join("incoming-0000000000000007"), b"some of it").unwrap();
    // One of the two is enough, whichever it is.
    for (damaged, left) in [("snapshot-30-0", 20), ("snapshot-20-0", 30)] {
        let one = copy(dir.path());
        flip(one.path(), damaged, 400, 3);
        let (code, text) = verify(one.path());
        assert!(code == 0 && text.contains("passed over") && text.contains(damaged), "{text}");
        assert!(text.contains(&format!("a snapshot up to {left}")), "{text}");
        assert!(text.contains("incoming-0000000000000007 does not count"), "{text}");
        let (code, all) = dump(one.path());
        assert_eq!((code, of(&all, "damage").all(|damage| damage["forgiven"] == true)), (0, true));
        // Without both, the log begins late.
        let (code, text) = {
            remove(one.path(), &format!("snapshot-{left}-0"));
            verify(one.path())
        };
        assert!(code == 1 && text.contains("no snapshot reaches it") && text.contains(damaged), "{text}");
    }
    // A snapshot under the name of another one is none.
    fs::rename(dir.path().join("snapshot-30-0"), dir.path().join("snapshot-31-0")).unwrap();
    let (code, text) = verify(dir.path());
    assert!(code == 0 && text.contains("passed over") && text.contains("snapshot-31-0"), "{text}");
}

#[test]
fn st_damage_below_a_purge_is_told_and_forgiven() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    for _ in 0..4 {
        node.append(2, 1500, Kind::Command);
    }
    // The purge is not attested, so its files are still there.
    node.purge(1);
    drop(node);
    let names: Vec<String> = files(dir.path()).into_keys().filter(|name| name.ends_with(".log")).collect();
    flip(dir.path(), &names[0], 8192 + 1000, 0);
    let (code, text) = verify(dir.path());
    assert_eq!((code, text.contains("forgiven")), (0, true), "{text}");
    let (code, all) = dump(dir.path());
    assert_eq!((code, of(&all, "damage").all(|damage| damage["forgiven"] == true)), (0, true));
    let node = Node::start(dir.path());
    assert_eq!(node.entries.len(), 1, "a start agrees");
}

#[test]
fn what_is_no_readable_log_is_told_from_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(verify(dir.path()).0, 2, "an empty directory");
    assert_eq!(verify(&dir.path().join("none")).0, 2, "no directory");
    fs::write(dir.path().join("letter.txt"), b"dear").unwrap();
    assert_eq!(verify(&dir.path().join("letter.txt")).0, 2, "a file");
    assert_eq!(verify(dir.path()).0, 2, "somebody else's directory");
    let names = several(&dir.path().join("node"));
    // Another version: the number changed, and the checksum right.
    for (version, told) in [(3, "upgrade"), (1, "start with an empty directory")] {
        for (name, magic) in [("identity", b"CRID"), (names[1].as_str(), b"CRWS")] {
            let other = copy(&dir.path().join("node"));
            let mut bytes = fs::read(other.path().join(name)).unwrap();
            assert_eq!(&bytes[4..8], magic);
            bytes[8] = version;
            let summed = if name == "identity" { bytes.len() } else { 64 };
            let sum = crc32c(&bytes[4..summed]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            fs::write(other.path().join(name), bytes).unwrap();
            let (code, text) = verify(other.path());
            assert!(code == 2 && text.contains(told) && text.contains(name), "{code}: {text}");
            assert_eq!(dump(other.path()).0, 2);
        }
    }
    #[cfg(unix)]
    if !rustix::process::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt;
        let closed = dir.path().join("node");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(verify(&closed).0, 2, "no permission");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ ((sum & 1) * 0x82f6_3b78))
    })
}

// Logs in use.

/// The worst case: small segments that are filled, purged and recycled as fast as the disk allows.
#[test]
fn a_log_that_moves_under_the_readers_eyes_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start(dir.path());
    node.append(1, 100, Kind::Command);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        let mut dice = Dice(1);
        while !stopped.load(Ordering::Relaxed) {
            node.append(1 + dice.below(4), dice.below(3000), Kind::Command);
            match dice.below(20) {
                0 => node.purge(dice.below(60) as usize),
                1 => node.truncate(dice.below(5)),
                2 if dice.below(20) == 0 => node = node.restart(dice.below(2) == 0),
                _ => {}
            }
        }
        node.wal.idle().unwrap();
    });
    let mut told = Vec::new();
    for _ in 0..150 {
        told.push(verify(dir.path()));
        let output = log(&["dump", "--json"], dir.path());
        let all = lines(&output);
        told.push(said(&Output { stdout: vec![], ..output }));
        let indexes: Vec<u64> = of(&all, "entry").map(|e| e["index"].as_u64().unwrap()).collect();
        let moved = of(&all, "moved").count();
        let gaps = indexes.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!(gaps <= moved, "{gaps} gaps, {moved} times moved");
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    let wrong: Vec<_> = told.iter().filter(|(code, _)| *code != 0).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

// The reader in Python.

/// What both readers print.
const SHARED: [&str; 8] = ["directory", "hard_state", "log", "run", "membership", "snapshot", "entry", "end"];

fn python(dir: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/read-log.py");
    Command::new("python3").arg(script).arg(dir).stdin(Stdio::null()).output().expect("python3")
}

/// Both must say the same; what that is.
fn compare(dir: &Path, what: &str) -> i32 {
    let other = python(dir);
    let (code, ours) = dump(dir);
    let error = String::from_utf8_lossy(&other.stderr);
    assert_eq!(other.status.code(), Some(code), "{what}: {error}\n{:?}", ours.last());
    assert!(code != 1 || error.starts_with("damaged: "), "{what}: {error}");
    if code == 0 {
        let ours: Vec<_> =
            ours.into_iter().filter(|line| SHARED.iter().any(|kind| line["type"] == *kind)).collect();
        assert_eq!(lines(&other), ours, "{what}");
    }
    code
}

#[test]
#[ignore = "needs python3"]
fn a_reader_written_from_the_documentation_reads_the_same() {
    let mut outcomes = BTreeMap::new();
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        left(dir.path(), seed, seed % 2 == 0);
        assert_eq!(compare(dir.path(), &format!("seed {seed}")), 0);
        let mut dice = Dice(seed);
        let counts = |name: &String| name.ends_with(".log") || name.starts_with("snapshot-");
        let names: Vec<String> = files(dir.path()).into_keys().filter(counts).collect();
        for _ in 0..12 {
            let image = copy(dir.path());
            let name = &names[dice.below(names.len() as u64) as usize];
            let path = image.path().join(name);
            let len = fs::metadata(&path).unwrap().len();
            let what = match dice.below(8) {
                0 => {
                    fs::remove_file(&path).unwrap();
                    "removed".to_owned()
                }
                1 => {
                    let len = dice.below(len);
                    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
                    format!("cut to {len}")
                }
                2 => {
                    let block = dice.below(len / 4096 + 1);
                    let mut bytes = fs::read(&path).unwrap();
                    bytes[block as usize * 4096..].fill(0);
                    fs::write(&path, bytes).unwrap();
                    format!("zeros from block {block} on")
                }
                _ => {
                    // Mostly where something is.
                    let within = if dice.below(2) == 0 { 100 } else { 4096 };
                    let (block, byte) = (dice.below(len / 4096 + 1), dice.below(within));
                    let at = (block * 4096 + byte).min(len - 1);
                    flip(image.path(), name, at as usize, dice.below(8) as u32);
                    format!("bit flipped in block {block}, byte {byte}")
                }
            };
            *outcomes.entry(compare(image.path(), &format!("seed {seed}, {name}: {what}"))).or_insert(0) += 1;
        }
    }
    assert!(outcomes[&0] > 10 && outcomes[&1] > 10, "{outcomes:?}");
    println!("{outcomes:?}");
}
