//! D5.5.5: an entry that cannot be applied stops the machine, and not the node; and it is ruled what becomes of it.

use crate::common::{NEVER, eventually};
use coracle::snapshot::{self, Save};
use coracle::{
    Cause, Config, Context, Kind, LogId, Node, NodeId, QueryContext, ReadError, Ruling, RulingError,
    SnapshotError, StateMachine, Status, Storage, Verdict, WriteError,
};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Keeps lines. It cannot apply "poison" and "bane" until its program is upgraded, and has done half of them by then.
struct Fragile {
    lines: Vec<String>,
    upgraded: Arc<AtomicBool>,
    /// How often it has failed.
    failures: Arc<AtomicU64>,
}

impl StateMachine for Fragile {
    type Command = String;
    type Reply = u64;
    type Query = ();
    type Answer = Vec<String>;

    fn apply(&mut self, context: &mut Context, line: String) -> u64 {
        self.lines.push(format!("half of {line}"));
        if !self.upgraded.load(Ordering::Relaxed) {
            self.failures.fetch_add(u64::from(["poison", "bane"].contains(&&*line)), Ordering::Relaxed);
            assert_ne!(line, "poison", "it takes no poison");
            if line == "bane" {
                context.fatal("nor any bane");
            }
        }
        self.lines.pop();
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
        snapshot::load(from).map(|lines| self.lines = lines)
    }
}

/// Three nodes, each with a directory and a program of its own.
struct Three {
    dirs: tempfile::TempDir,
    upgraded: Vec<Arc<AtomicBool>>,
    failures: Arc<AtomicU64>,
    addresses: Vec<String>,
    nodes: Vec<Option<Node<Fragile>>>,
}

impl Three {
    async fn founded(size: usize) -> Three {
        let mut three = Three {
            dirs: tempfile::tempdir().unwrap(),
            upgraded: (0..size).map(|_| Arc::default()).collect(),
            failures: Arc::default(),
            addresses: vec!["127.0.0.1:0".to_owned(); size],
            nodes: (0..size).map(|_| None).collect(),
        };
        for id in 1..=size {
            three.start(id).await;
            three.addresses[id - 1] = three.node(id).peer_addr().to_string();
        }
        let list = (1..).zip(three.addresses.clone());
        three.node(1).set_configuration(list).await.unwrap();
        three
    }

    fn dir(&self, id: usize) -> PathBuf {
        self.dirs.path().join(format!("node-{id}"))
    }

    async fn start(&mut self, id: usize) {
        let mut config = Config::new(id as u64, &self.addresses[id - 1], Storage::Dir(self.dir(id)));
        config.request_timeout = NEVER;
        let (upgraded, failures) = (self.upgraded[id - 1].clone(), self.failures.clone());
        let machine = Fragile { lines: Vec::new(), upgraded, failures };
        self.nodes[id - 1] = Some(Node::start(config, machine).await.unwrap());
    }

    async fn stop(&mut self, id: usize) {
        self.nodes[id - 1].take().unwrap().stop().await;
    }

    fn node(&self, id: usize) -> &Node<Fragile> {
        self.nodes[id - 1].as_ref().unwrap()
    }

    async fn status(&self, id: usize) -> Status {
        self.node(id).status().await.unwrap()
    }

    /// Who leads, as all say that run.
    async fn leader(&self) -> usize {
        eventually("all follow one leader", async || {
            let mut told = self.nodes.iter().flatten().map(|node| node.leader().map(|leader| leader.id.0));
            let first = told.next()??;
            let leads = self.nodes[first as usize - 1].as_ref()?.is_leader();
            (leads && told.all(|other| other == Some(first))).then_some(first as usize)
        })
        .await
    }

    async fn write(&self, line: &str) -> Result<u64, WriteError> {
        eventually("a leader takes a write", async || {
            match self.node(self.leader().await).write(line.to_owned()).await {
                Err(WriteError::NotLeader { .. } | WriteError::NoLeader) => None,
                outcome => Some(outcome),
            }
        })
        .await
    }

    /// Before which entry the machine of this node has stopped.
    async fn stopped(&self, id: usize) -> LogId {
        eventually("the machine stops", async || Some(self.status(id).await.machine_stopped?.entry)).await
    }

    /// All have these lines, and the same digest of how they came to them.
    async fn all_have(&self, lines: &[&str]) {
        eventually("all machines are alike", async || {
            let mut digests = Vec::new();
            for node in self.nodes.iter().flatten() {
                if node.read(()).await.ok()? != lines {
                    return None;
                }
                let status = node.status().await.unwrap();
                digests.push((status.applied, status.digest));
            }
            digests.windows(2).all(|two| two[0] == two[1]).then_some(())
        })
        .await;
    }

    /// As soon as it is durable on some node that its machine has stopped.
    async fn retry(&self, entry: LogId) {
        eventually("it is tried again", async || match self.rule(Verdict::Retry, entry).await {
            Err(RulingError::NotStopped { .. }) => None,
            ruled => Some(ruled.unwrap()),
        })
        .await;
    }

    async fn rule(&self, verdict: Verdict, entry: LogId) -> Result<LogId, RulingError> {
        eventually("a leader rules", async || {
            let leader = self.node(self.leader().await);
            let ruled = match verdict {
                Verdict::Skip => leader.skip_entry(entry).await,
                Verdict::Retry => leader.retry_entry(entry).await,
            };
            match ruled {
                Err(
                    RulingError::NotLeader { .. }
                    | RulingError::NoLeader
                    | RulingError::Busy
                    | RulingError::Unsupported,
                ) => None,
                ruled => Some(ruled),
            }
        })
        .await
    }
}

/// The nodes go on in consensus, say which entry it is, over starts too, and refuse what needs the machine; and only when all
/// have stopped there it is skipped, and all go on with what was there before.
#[tokio::test]
async fn an_entry_that_no_machine_can_apply_stops_no_node_and_is_skipped_once_all_have_stopped() {
    let mut three = Three::founded(3).await;
    three.write("a").await.unwrap();
    three.all_have(&["a"]).await;
    let leader = three.leader().await;
    let others: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
    three.node(others[0]).snapshot().await.unwrap();
    three.stop(others[1]).await;
    let Err(WriteError::Unknown(Cause::MachineStopped(entry))) = three.write("poison").await else {
        panic!("an error was expected")
    };
    for id in [leader, others[0]] {
        assert_eq!(three.stopped(id).await, entry);
        assert!(three.status(id).await.machine_stopped.unwrap().why.contains("it takes no poison"));
        let refused = three.node(id).read(()).await;
        assert_eq!(refused, Err(ReadError::MachineStopped(entry)));
        assert_eq!(three.node(id).snapshot().await, Err(SnapshotError::MachineStopped(entry)));
    }
    let refused = three.write("b").await;
    assert_eq!(refused, Err(WriteError::MachineStopped(entry)));
    assert!(refused.unwrap_err().certainly_not_done());
    assert_eq!(three.node(leader).get_entry(entry.index.0).await.unwrap().id(), entry);
    let absent = NodeId(others[1] as u64);
    let refused = eventually("the other's machine is known to have stopped", async || {
        let Err(RulingError::NotStopped { members, .. }) = three.rule(Verdict::Skip, entry).await else {
            panic!()
        };
        (members.len() == 1).then_some(members)
    })
    .await;
    assert_eq!(refused, [absent]);

    three.start(others[1]).await;
    assert_eq!(three.stopped(others[1]).await, entry);
    three.stop(others[0]).await;
    three.start(others[0]).await;
    assert_eq!(three.stopped(others[0]).await, entry, "a start says it again");
    let ruled = eventually("it is skipped", async || match three.rule(Verdict::Skip, entry).await {
        Err(RulingError::NotStopped { .. }) => None,
        ruled => Some(ruled.unwrap()),
    })
    .await;
    three.all_have(&["a"]).await;
    let ruling = three.node(leader).get_entry(ruled.index.0).await.unwrap();
    assert_eq!(ruling.kind(), Kind::Ruling);
    assert_eq!(Ruling::decode(&ruling.payload()), Some(Ruling { entry, verdict: Verdict::Skip }));
    assert_eq!(three.rule(Verdict::Skip, entry).await, Err(RulingError::Skipped(entry)));
    assert_eq!(three.write("b").await, Ok(2));
    three.all_have(&["a", "b"]).await;
    three.node(leader).snapshot().await.unwrap();
    for id in 1..=3 {
        three.stop(id).await;
        three.start(id).await;
    }
    three.all_have(&["a", "b"]).await;
}

/// A start of another program changes nothing by itself, since the node has given its word; a ruling does.
#[tokio::test]
async fn a_newer_program_tries_the_entry_again_once_that_is_ruled() {
    let mut one = Three::founded(1).await;
    one.write("a").await.unwrap();
    let Err(WriteError::Unknown(Cause::MachineStopped(entry))) = one.write("bane").await else {
        panic!("an error was expected")
    };
    assert_eq!(one.stopped(1).await, entry);
    one.retry(entry).await;
    let failed = async || (one.failures.load(Ordering::Relaxed) == 2).then_some(());
    eventually("the same program fails again", failed).await;
    assert_eq!(one.stopped(1).await, entry);
    one.upgraded[0].store(true, Ordering::Relaxed);
    one.stop(1).await;
    one.start(1).await;
    one.leader().await;
    assert_eq!(one.stopped(1).await, entry);
    assert!(one.status(1).await.machine_stopped.unwrap().why.contains("nor any bane"));
    one.retry(entry).await;
    one.all_have(&["a", "bane"]).await;
    assert_eq!(one.write("b").await, Ok(3));
}

/// Where one machine fails alone, the others go on: a leader lets one of them lead.
#[tokio::test]
async fn a_leader_whose_machine_fails_alone_hands_over_to_one_whose_machine_goes_on() {
    let three = Three::founded(3).await;
    three.write("a").await.unwrap();
    let failing = three.leader().await;
    for id in (1..=3).filter(|id| *id != failing) {
        three.upgraded[id - 1].store(true, Ordering::Relaxed);
    }
    let Err(WriteError::Unknown(Cause::MachineStopped(entry))) = three.write("poison").await else {
        panic!("an error was expected")
    };
    let next =
        eventually("another leads", async || Some(three.leader().await).filter(|id| *id != failing)).await;
    assert_eq!(three.write("b").await, Ok(3));
    eventually("the leader knows whose machine has stopped", async || {
        let stopped = three.status(next).await.stopped_machines;
        (stopped.get(&NodeId(failing as u64)) == Some(&entry)).then_some(())
    })
    .await;
    let refused = three.rule(Verdict::Skip, entry).await;
    assert!(
        matches!(refused, Err(RulingError::NotStopped { ref members, .. }) if members.len() == 2),
        "{refused:?}"
    );
    three.upgraded[failing - 1].store(true, Ordering::Relaxed);
    three.retry(entry).await;
    three.all_have(&["a", "poison", "b"]).await;
}
