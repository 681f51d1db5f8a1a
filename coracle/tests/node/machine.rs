//! A state machine that is slow, hangs or panics disturbs nobody but those who wait for it.

use crate::common::eventually;
use coracle::snapshot::{self, Save};
use coracle::{
    Busy, Cause, Config, Context, MachineThread, Node, QueryContext, ReadError, StartError, StateMachine,
    StopReason, Storage, WriteError,
};
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// Whoever passes a closed gate waits until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Bar>, Condvar)>);

#[derive(Default)]
struct Bar {
    closed: bool,
    /// How many have come to it.
    came: u64,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.0.0.lock().unwrap().closed = closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut bar = self.0.0.lock().unwrap();
        bar.came += 1;
        drop(self.0.1.wait_while(bar, |bar| bar.closed).unwrap());
    }

    fn came(&self) -> u64 {
        self.0.0.lock().unwrap().came
    }
}

/// Adds up. `apply` passes the gate; 13 is unlucky.
#[derive(Default)]
struct Sum {
    sum: u64,
    gate: Gate,
}

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;
    type Query = u64;
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, by: u64) -> u64 {
        self.gate.pass();
        assert_ne!(by, 13, "unlucky");
        self.sum += by;
        self.sum
    }

    fn query(&self, _: &QueryContext, query: u64) -> u64 {
        assert_ne!(query, 13, "unlucky");
        self.sum
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.sum)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.sum = sum)
    }
}

async fn alone(gate: &Gate, change: impl FnOnce(&mut Config)) -> Node<Sum> {
    let mut config = Config::new(1, "127.0.0.1:0", Storage::Memory);
    change(&mut config);
    let node = Node::start(config, Sum { gate: gate.clone(), ..Sum::default() }).await.unwrap();
    node.set_configuration([(1, node.peer_addr().to_string())]).await.unwrap();
    node
}

/// While the leader's machine hangs in `apply`, the leader leads: it commits, confirms reads for its followers,
/// and says how it stands.
#[tokio::test]
async fn a_leader_whose_machine_hangs_goes_on_leading() {
    let gates: Vec<Gate> = (0..3).map(|_| Gate::default()).collect();
    let mut nodes = Vec::new();
    for (id, gate) in (1..).zip(&gates) {
        let config = Config::new(id, "127.0.0.1:0", Storage::Memory);
        nodes.push(Node::start(config, Sum { gate: gate.clone(), ..Sum::default() }).await.unwrap());
    }
    let list = (1..).zip(nodes.iter().map(|node| node.peer_addr().to_string()));
    nodes[0].set_configuration(list).await.unwrap();
    let leader = eventually("somebody leads", async || nodes[0].leader()).await.id.0 as usize - 1;
    gates[leader].set(true);
    let held = tokio::spawn({
        let node = nodes[leader].clone();
        async move { node.write_within(5, Duration::from_secs(3600)).await }
    });
    let follower = &nodes[(leader + 1) % 3];
    eventually("a follower reads what the leader has not applied", async || {
        (follower.read(0).await == Ok(5)).then_some(())
    })
    .await;
    let status = nodes[leader].status().await.unwrap();
    assert!(status.raft.commit > status.applied.index, "{status:?}");
    assert!(status.unapplied_bytes > 0);
    assert!(!held.is_finished(), "an answer comes after its apply");
    let late = nodes[leader].read_within(0, Duration::from_millis(1)).await;
    assert!(matches!(late, Err(ReadError::Lagging | ReadError::Timeout | ReadError::NoLeader)), "{late:?}");
    gates[leader].set(false);
    // If a busy computer cost the leader its office meanwhile, the entry is committed all the same.
    assert_eq!(held.await.unwrap(), Ok(5));
}

/// OV-1: how far a machine lags is bounded, and what is more is refused.
#[tokio::test]
async fn ov_1_a_leader_whose_machine_lags_refuses_more() {
    let gate = Gate::default();
    let node = alone(&gate, |config| config.max_unapplied_bytes = 1000).await;
    gate.set(true);
    let mut waiting = Vec::new();
    let refused = loop {
        let node = node.clone();
        waiting.push(tokio::spawn(async move { node.write_within(1, Duration::from_secs(3600)).await }));
        sleep(Duration::from_millis(1)).await;
        if let Some(at) = waiting.iter().position(tokio::task::JoinHandle::is_finished) {
            break waiting.remove(at).await.unwrap();
        }
        assert!(waiting.len() < 10_000, "it takes everything");
    };
    assert_eq!(refused, Err(WriteError::Busy(Busy::Machine)));
    let lag = node.status().await.unwrap().unapplied_bytes;
    assert!(lag <= 1200, "{lag} bytes wait, which is more than the limit and an entry");
    gate.set(false);
    for write in waiting {
        assert!(matches!(write.await.unwrap(), Ok(_) | Err(WriteError::Busy(Busy::Machine))));
    }
    eventually("it takes writes again", async || node.write(1).await.ok()).await;
}

/// SH-1: a stop does not wait for a machine that hangs. Its directory is free when the machine has ended.
#[tokio::test]
async fn sh_1_a_stop_does_not_wait_for_a_machine_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::Dir(dir.path().join("node"));
    let gate = Gate::default();
    let node = alone(&gate, |config| config.storage = storage.clone()).await;
    gate.set(true);
    let held = tokio::spawn({
        let node = node.clone();
        async move { node.write_within(1, Duration::from_secs(3600)).await }
    });
    eventually("the machine hangs", async || (gate.came() > 0).then_some(())).await;
    node.stop().await;
    let again = async || Node::start(Config::new(1, "127.0.0.1:0", storage.clone()), Sum::default()).await;
    let Err(refused) = again().await else { panic!("the directory is still in use") };
    assert!(matches!(refused, StartError::Store(_)), "{refused}");
    gate.set(false);
    let outcome = held.await.unwrap();
    let stopped = Err(WriteError::Unknown(Cause::Stopped(StopReason::Requested)));
    assert!(outcome == Ok(1) || outcome == stopped, "{outcome:?}");
    eventually("the directory is free", async || again().await.ok()).await.stop().await;
}

/// A query changes nothing, so one that panics costs its caller an answer and nobody else anything.
#[tokio::test]
async fn a_query_that_panics_is_an_error_and_the_node_goes_on() {
    for thread in [MachineThread::Own, MachineThread::Runtime] {
        let node = alone(&Gate::default(), |config| config.machine_thread = thread).await;
        let Err(ReadError::Panicked(said)) = node.read(13).await else { panic!("an error was expected") };
        assert!(said.contains("unlucky"), "{said}");
        assert_eq!(node.write(2).await, Ok(2));
        assert_eq!(node.read(0).await, Ok(2));
    }
}

/// Whoever asks right after a panic in `apply` is told of it, and of the entry.
#[tokio::test]
async fn after_a_panic_in_apply_everybody_is_told_of_it() {
    let node = alone(&Gate::default(), |_| {}).await;
    let outcome = node.write(13).await;
    let Err(WriteError::Unknown(Cause::MachineStopped(at))) = outcome else { panic!("{outcome:?}") };
    eventually("the node takes nothing more", async || match node.write(1).await {
        Err(WriteError::MachineStopped(told) | WriteError::Unknown(Cause::MachineStopped(told))) => {
            assert_eq!(told, at);
            Some(())
        }
        _ => None,
    })
    .await;
    assert_eq!(node.status().await.unwrap().machine_stopped.unwrap().entry, at);
}

#[test]
fn a_runtime_without_timers_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let start = Node::start(Config::new(1, "127.0.0.1:0", Storage::Memory), Sum::default());
    let Err(error) = runtime.block_on(start) else { panic!("it started") };
    assert!(error.to_string().contains("without timers"), "{error}");
}
