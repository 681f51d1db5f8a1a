//! Machines that keep their own disk: they go on from there, and nothing is applied twice (hazard SN-15).

use crate::common::*;
use coracle::raft::LogId;
use coracle::snapshot::{self, Save};
use coracle::*;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A log of lines in a file, which is replaced as a whole when a batch is over.
struct Ledger {
    path: PathBuf,
    lines: Vec<String>,
    applied: Option<(LogId, Bytes)>,
    seen: Seen,
}

/// What a test sees of it.
#[derive(Clone, Default)]
struct Seen {
    /// Commands that were applied in this run.
    applies: Arc<AtomicU64>,
    /// States that were taken from snapshots in this run.
    restores: Arc<AtomicU64>,
    /// Nothing is kept from now on, as if the process had ended in the middle of a batch.
    dead: Arc<AtomicBool>,
    /// The disk refuses.
    refuses: Arc<AtomicBool>,
}

type Kept = (u64, u64, Vec<u8>, Vec<String>);

impl Ledger {
    /// What is in the file.
    fn open(path: PathBuf) -> (Ledger, Seen) {
        let seen = Seen::default();
        let mut ledger = Ledger { path, lines: Vec::new(), applied: None, seen: seen.clone() };
        if let Ok(bytes) = fs::read(&ledger.path) {
            let (index, term, blob, lines): Kept = snapshot::load(&mut &bytes[..]).unwrap();
            (ledger.applied, ledger.lines) = (Some((LogId::new(term, index), blob.into())), lines);
        }
        (ledger, seen)
    }
}

impl StateMachine for Ledger {
    type Command = String;
    type Reply = u64;
    type Query = ();
    type Answer = Vec<String>;

    fn apply(&mut self, _: &mut Context, line: String) -> u64 {
        self.seen.applies.fetch_add(1, Ordering::Relaxed);
        self.lines.push(line);
        self.lines.len() as u64
    }

    fn query(&self, _: &QueryContext, (): ()) -> Vec<String> {
        self.lines.clone()
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.lines.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        self.seen.restores.fetch_add(1, Ordering::Relaxed);
        snapshot::load(from).map(|lines| self.lines = lines)
    }

    const OWN_DISK: bool = true;

    fn applied(&self) -> Option<(LogId, Bytes)> {
        self.applied.clone()
    }

    fn persist(&mut self, at: LogId, blob: &[u8]) -> io::Result<()> {
        if self.seen.refuses.load(Ordering::Relaxed) {
            return Err(io::Error::other("the ledger's disk is gone"));
        }
        if self.seen.dead.load(Ordering::Relaxed) {
            return Ok(());
        }
        assert!(blob.len() < 4096, "the blob is bounded");
        let kept: Kept = (at.index.0, at.term.0, blob.to_vec(), self.lines.clone());
        let mut bytes = Vec::new();
        snapshot::save(kept)(&mut bytes)?;
        let next = self.path.with_extension("next");
        fs::write(&next, bytes)?;
        fs::rename(next, &self.path)
    }
}

/// A node's two directories.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn ledger(&self) -> PathBuf {
        self.0.path().join("ledger")
    }

    fn config(&self, id: u64, address: &str) -> Config {
        let mut config = Config::new(id, address, Storage::Dir(self.log()));
        config.request_timeout = NEVER;
        config
    }

    async fn start(&self) -> (Node<Ledger>, Seen) {
        let (ledger, seen) = Ledger::open(self.ledger());
        (Node::start(self.config(1, "127.0.0.1:0"), ledger).await.unwrap(), seen)
    }

    /// It must say why it does not start.
    async fn refused(&self) -> String {
        match Node::start(self.config(1, "127.0.0.1:0"), Ledger::open(self.ledger()).0).await {
            Err(error @ StartError::OwnDisk(_)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

/// The only one of a cluster, to which lines were written.
async fn founded(home: &Home, lines: u64) -> (Node<Ledger>, Seen) {
    let (node, seen) = home.start().await;
    node.set_configuration([(1, node.peer_addr().to_string())]).await.unwrap();
    write(&node, 0..lines).await;
    (node, seen)
}

async fn write(node: &Node<Ledger>, lines: std::ops::Range<u64>) {
    for line in lines {
        eventually("it is written", async || node.write(line.to_string()).await.ok()).await;
    }
}

fn numbers(upto: u64) -> Vec<String> {
    (0..upto).map(|line| line.to_string()).collect()
}

/// What it has once it has applied its whole log.
async fn settled(node: &Node<Ledger>) -> Vec<String> {
    eventually("the machine has the whole log", async || {
        let status = node.status().await.ok()?;
        (status.caught_up && node.is_leader() && status.applied == status.raft.last).then_some(())
    })
    .await;
    node.read(()).await.unwrap()
}

/// A machine that knows nothing makes the same of the same log.
async fn like_one_that_applied_it_all(home: &Home, lines: u64) {
    let (fresh, seen) = Ledger::open(home.0.path().join("fresh"));
    let node = Node::start(home.config(1, "127.0.0.1:0"), fresh).await.unwrap();
    let counted = (settled(&node).await, seen.applies.load(Ordering::Relaxed));
    assert_eq!(counted, (numbers(lines), lines), "there is no snapshot");
    node.stop().await;
}

/// SN-15: what such a machine holds is not applied to it again, and its digest goes on.
#[tokio::test]
async fn sn_15_a_machine_with_its_own_disk_goes_on_from_there_and_nothing_is_applied_twice() {
    let home = Home::new();
    let (node, seen) = founded(&home, 10).await;
    let lines = settled(&node).await;
    assert_eq!((lines, seen.applies.load(Ordering::Relaxed)), (numbers(10), 10));
    node.stop().await;
    for written in 10..13 {
        let (node, seen) = home.start().await;
        let lines = settled(&node).await;
        assert_eq!((lines, seen.applies.load(Ordering::Relaxed)), (numbers(written), 0));
        write(&node, written..written + 1).await;
        assert_eq!(seen.applies.load(Ordering::Relaxed), 1);
        node.stop().await;
    }
    like_one_that_applied_it_all(&home, 13).await;
}

/// SN-15: killed after it applied and before it kept that, it gets exactly what it lacks, whichever moment that was.
#[tokio::test]
async fn sn_15_what_was_applied_and_not_kept_is_applied_again_and_nothing_else() {
    let home = Home::new();
    let (node, seen) = founded(&home, 5).await;
    settled(&node).await;
    seen.dead.store(true, Ordering::Relaxed);
    write(&node, 5..9).await;
    node.stop().await;
    let (node, seen) = home.start().await;
    let lines = settled(&node).await;
    assert_eq!((lines, seen.applies.load(Ordering::Relaxed)), (numbers(9), 4));
    node.stop().await;
    like_one_that_applied_it_all(&home, 9).await;
}

/// SN-15: an older copy of the machine's disk is brought up: by the log where that still reaches back, by the newest
/// snapshot where it does not; and that is kept at once.
#[tokio::test]
async fn sn_15_an_older_copy_of_the_machine_gets_what_it_lacks_without_a_gap() {
    let home = Home::new();
    let (node, _) = founded(&home, 3).await;
    settled(&node).await;
    node.stop().await;
    let old = fs::read(home.ledger()).unwrap();
    let (node, _) = home.start().await;
    write(&node, 3..6).await;
    settled(&node).await;
    node.stop().await;
    fs::write(home.ledger(), &old).unwrap();
    let (node, seen) = home.start().await;
    let lines = settled(&node).await;
    let counted = (seen.applies.load(Ordering::Relaxed), seen.restores.load(Ordering::Relaxed));
    assert_eq!((lines, counted), (numbers(6), (3, 0)), "the log has what it lacks");
    // Two snapshots, and the log goes up to the first.
    node.snapshot().await.unwrap();
    write(&node, 6..8).await;
    node.snapshot().await.unwrap();
    write(&node, 8..9).await;
    settled(&node).await;
    node.stop().await;
    for stale in [old, Vec::new()] {
        if stale.is_empty() {
            fs::remove_file(home.ledger()).unwrap();
        } else {
            fs::write(home.ledger(), &stale).unwrap();
        }
        let (ledger, seen) = Ledger::open(home.ledger());
        let node = Node::start(home.config(1, "127.0.0.1:0"), ledger).await.unwrap();
        let kept = Ledger::open(home.ledger()).0.lines;
        assert!(kept.len() >= 8, "the snapshot's state is kept at once: {kept:?}");
        let lines = settled(&node).await;
        let counted = (seen.applies.load(Ordering::Relaxed), seen.restores.load(Ordering::Relaxed));
        assert_eq!((lines, counted), (numbers(9), (1, 1)), "from the snapshot on");
        node.stop().await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// SN-15: a machine that cannot belong to this log is not used, and the error says why.
#[tokio::test]
async fn sn_15_a_machine_that_does_not_fit_the_log_is_refused_with_a_sentence() {
    let home = Home::new();
    let (node, _) = founded(&home, 3).await;
    settled(&node).await;
    node.stop().await;
    let older = home.0.path().join("older");
    copy(&home.log(), &older);
    let (node, _) = home.start().await;
    write(&node, 3..9).await;
    settled(&node).await;
    node.stop().await;
    let good = fs::read(home.ledger()).unwrap();
    // The library's blob is damaged, or is another entry's.
    let (index, term, blob, lines): Kept = snapshot::load(&mut &good[..]).unwrap();
    let put = |kept: Kept| {
        let mut bytes = Vec::new();
        snapshot::save(kept)(&mut bytes).unwrap();
        fs::write(home.ledger(), bytes).unwrap();
    };
    for bit in (0..blob.len() * 8).step_by(61) {
        let mut damaged = blob.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        put((index, term, damaged, lines.clone()));
        let said = home.refused().await;
        assert!(said.contains("the library's blob"), "{said}");
    }
    put((index - 1, term, blob.clone(), lines.clone()));
    let said = home.refused().await;
    assert!(said.contains("its blob is that of entry"), "{said}");
    // The log is an older copy.
    fs::write(home.ledger(), &good).unwrap();
    fs::rename(home.log(), home.0.path().join("newer")).unwrap();
    fs::rename(&older, home.log()).unwrap();
    let said = home.refused().await;
    assert!(said.contains("the log is an older copy"), "{said}");
    // The machine is another cluster's.
    let other = Home::new();
    let (node, _) = founded(&other, 12).await;
    settled(&node).await;
    node.stop().await;
    fs::copy(home.ledger(), other.ledger()).unwrap();
    let said = other.refused().await;
    assert!(said.contains("holds the state of cluster"), "{said}");
    // And the way out that they name: an empty machine.
    fs::remove_file(home.ledger()).unwrap();
    let (node, _) = home.start().await;
    assert_eq!(settled(&node).await, numbers(3));
    node.stop().await;
}

#[tokio::test]
async fn a_machine_that_cannot_keep_its_state_stops_the_node_with_the_reason() {
    let home = Home::new();
    let (node, seen) = founded(&home, 3).await;
    settled(&node).await;
    seen.refuses.store(true, Ordering::Relaxed);
    drop(node.write("3".to_owned()).await);
    let reason = node.stopped().await;
    let StopReason::Apply { problem, .. } = &reason else { panic!("{reason:?}") };
    assert!(problem.contains("the ledger's disk is gone"), "{problem}");
    let (node, _) = home.start().await;
    assert_eq!(settled(&node).await, numbers(4), "nothing is lost");
    node.stop().await;
}

/// It is sent to others by the same stream, and what they take is kept there at once.
#[tokio::test]
async fn a_machine_with_its_own_disk_is_sent_to_others_which_keep_it() {
    let (first, second) = (Home::new(), Home::new());
    let (node, _) = founded(&first, 5).await;
    node.snapshot().await.unwrap();
    write(&node, 5..8).await;
    node.snapshot().await.unwrap();
    eventually("the log begins late", async || {
        let status = node.status().await.ok()?;
        (status.raft.purged.index.0 > 5).then_some(())
    })
    .await;
    let start = async |address: String| {
        let (ledger, seen) = Ledger::open(second.ledger());
        (Node::start(second.config(2, &address), ledger).await.unwrap(), seen)
    };
    let (other, seen) = start("127.0.0.1:0".to_owned()).await;
    let address = other.peer_addr().to_string();
    let add = MemberChange::Add(NodeId(2), address.clone());
    node.change_members(add, Duration::from_secs(60)).await.unwrap();
    let equal = async |other: &Node<Ledger>| {
        eventually("both are alike", async || {
            let (one, two) = (node.status().await.ok()?, other.status().await.ok()?);
            (one.applied == two.applied && one.digest == two.digest).then_some(())
        })
        .await;
    };
    equal(&other).await;
    assert_eq!(seen.restores.load(Ordering::Relaxed), 1);
    other.stop().await;
    assert_eq!(Ledger::open(second.ledger()).0.lines, numbers(8));
    let (other, seen) = start(address).await;
    write(&node, 8..9).await;
    equal(&other).await;
    let counted = (seen.applies.load(Ordering::Relaxed), seen.restores.load(Ordering::Relaxed));
    assert_eq!(counted, (1, 0), "it goes on from its own disk");
    node.stop().await;
    other.stop().await;
}
