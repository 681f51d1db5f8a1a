//! How nodes start, stop and start again: what they find on their disks, what they refuse, and what they leave.

mod common;

use common::*;
use coracle::raft::{NodeId, RoleName};
use coracle::*;
use std::time::Duration;
use tokio::task::JoinSet;

/// A28, B40, CM-4: what was acknowledged is there after all nodes were stopped and started.
#[tokio::test]
async fn a_whole_cluster_restarts_with_everything_it_acknowledged() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    for line in ["a", "b", "c"] {
        cluster.write(line).await;
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    cluster.write("d").await;
    assert_eq!(cluster.converged().await, ["a", "b", "c", "d"]);
}

/// RS-3: a single node that restarts commits and applies its log without a new write.
#[tokio::test]
async fn rs_3_a_single_node_reads_its_writes_after_a_restart() {
    let mut cluster = Cluster::founded(1, true, |_| {}).await;
    cluster.write("kept").await;
    cluster.stop(1).await;
    cluster.restart(1).await;
    cluster.leader().await;
    assert_eq!(cluster.node(1).read(()).await.unwrap(), ["kept"]);
}

/// CS-6: a machine that panics does nothing any more, its node goes on, and everybody is answered.
#[tokio::test]
async fn cs_6_a_panicking_machine_answers_everybody_and_the_node_goes_on() {
    let cluster = Cluster::founded(1, true, |_| {}).await;
    let node = cluster.node(1);
    let mut writes = JoinSet::new();
    for number in 0..1000 {
        let node = node.clone();
        let line = if number == 500 { "poison".to_owned() } else { format!("{number}") };
        writes.spawn(async move { node.write_within(line, PATIENCE).await });
    }
    let outcomes = writes.join_all().await;
    let stopped = async || node.status().await.unwrap().machine_stopped;
    let stopped = eventually("the node says so", stopped).await;
    assert!(stopped.why.contains("does not take poison"), "{stopped:?}");
    let at = stopped.entry;
    for outcome in outcomes {
        let told = [WriteError::Unknown(Cause::MachineStopped(at)), WriteError::MachineStopped(at)];
        assert!(outcome.as_ref().map_or_else(|error| told.contains(error), |_| true), "{outcome:?}");
    }
    assert_eq!(node.write("late".into()).await, Err(WriteError::MachineStopped(at)));
    assert_eq!(node.read(()).await, Err(ReadError::MachineStopped(at)));
    assert_eq!(node.get_entry(at.index.0).await.unwrap().id(), at);
    node.stop().await;
    let reason = StopReason::Requested;
    assert_eq!(node.write("late".into()).await, Err(WriteError::Stopped(reason.clone())));
    assert_eq!(node.read(()).await, Err(ReadError::Stopped(reason.clone())));
    assert_eq!(node.get_entry(1).await, Err(EntryLookupError::Stopped(reason.clone())));
    assert_eq!(node.status().await, Err(reason));
}

/// CS-6, SH-1: a stop answers all who wait, for a majority that is not there; the node comes back with its log.
#[tokio::test]
async fn sh_1_a_stop_answers_everybody_and_frees_everything() {
    let mut cluster = Cluster::founded(3, true, steady).await;
    let leader = cluster.leader().await;
    cluster.write("before").await;
    cluster.stop_all_but(leader).await;
    let mut requests = JoinSet::new();
    for number in 0..1000 {
        let node = cluster.node(leader).clone();
        requests.spawn(async move {
            if number % 2 == 0 {
                let stopped = WriteError::Unknown(Cause::Stopped(StopReason::Requested));
                assert_eq!(node.write_within("w".into(), NEVER).await, Err(stopped));
            } else {
                let stopped = ReadError::Stopped(StopReason::Requested);
                assert_eq!(node.read_within((), NEVER).await, Err(stopped));
            }
        });
    }
    eventually("all of them wait", async || {
        let status = cluster.node(leader).status().await.unwrap();
        (status.pending == 1000).then_some(())
    })
    .await;
    tokio::time::timeout(PATIENCE, cluster.stop(leader)).await.expect("the stop ends");
    tokio::time::timeout(PATIENCE, requests.join_all()).await.expect("all were answered");
    cluster.configure = |_| {};
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    assert_eq!(cluster.converged().await[0], "before");
}

/// A3: stopping a stopped node is fine, and clones are the same node.
#[tokio::test]
async fn a_stopped_node_stays_stopped() {
    let cluster = Cluster::founded(1, false, |_| {}).await;
    let clone = cluster.node(1).clone();
    clone.stop().await;
    clone.stop().await;
    assert_eq!(cluster.node(1).stopped().await, StopReason::Requested);
    assert_eq!(cluster.node(1).leader(), None);
    let refused = cluster.node(1).write("?".into()).await;
    assert_eq!(refused, Err(WriteError::Stopped(StopReason::Requested)));
}

/// A1, SH-2: dropping the last handle frees the thread, the port and the directory.
#[tokio::test]
async fn dropping_the_last_handle_frees_thread_port_and_directory() {
    let mut cluster = Cluster::founded(1, true, |_| {}).await;
    let address = cluster.addresses[0].clone();
    drop(cluster.nodes[0].take());
    eventually("the port is free", async || std::net::TcpListener::bind(&address).ok()).await;
    eventually("the directory is free", async || {
        Node::start(cluster.config(1, "127.0.0.1:0"), Journal::default()).await.ok()
    })
    .await;
}

/// SH-2: a thousand starts and stops leave no thread and no descriptor behind.
#[tokio::test]
async fn sh_2_starting_and_stopping_leaks_nothing() {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    // No other test has a node of this number, by which its threads are known.
    let cycle = async |durable| {
        let cluster = Cluster::blank(1, durable, |config| config.id = NodeId(97)).await;
        cluster.node(1).stop().await;
    };
    // The pool of blocking threads, which all tests of this process share, fills first.
    for _ in 0..100 {
        cycle(false).await;
    }
    let before = count("fd");
    for number in 0..1000 {
        // Those on a disk have one thread more.
        cycle(number % 10 == 0).await;
    }
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let name =
            |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        tasks.map(name).filter(|name| name.trim_end().ends_with("-97")).count()
    };
    // The last of a node's threads tells that it has stopped, and ends then.
    eventually("no thread is left", async || (threads() == 0).then_some(())).await;
    // Other tests of this process open and close files meanwhile, a few hundred at most.
    let after = count("fd");
    assert!(after < before + 500, "{before} descriptors before, {after} after 1,000 nodes");
}

/// A16: the data directory is made; a second node on it is refused, with the directory's name.
#[tokio::test]
async fn a_second_node_on_the_same_directory_is_refused() {
    let cluster = Cluster::blank(1, true, |_| {}).await;
    let second = Node::start(cluster.config(1, "127.0.0.1:0"), Journal::default()).await;
    let Err(error @ StartError::Store(StoreError::Locked { .. })) = second else { panic!() };
    assert!(error.to_string().contains("node-1"), "{error}");
}

/// RS-1: a directory remembers whose it is.
#[tokio::test]
async fn rs_1_a_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::blank(1, true, |_| {}).await;
    cluster.stop(1).await;
    let mut config = cluster.config(1, "127.0.0.1:0");
    config.id = NodeId(2);
    let refused = Node::start(config, Journal::default()).await;
    let Err(error @ StartError::Store(StoreError::Identity { .. })) = refused else { panic!() };
    let text = error.to_string();
    assert!(text.contains("node 1") && text.contains("node 2"), "{text}");
}

/// RS-1: a node whose disk was wiped comes back as a stranger. It gets no say, and the others go on.
#[tokio::test]
async fn rs_1_a_wiped_node_does_not_vote() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    cluster.write("kept").await;
    cluster.converged().await;
    let leader = cluster.leader().await;
    let [wiped, other] = [1, 2, 3].into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else {
        panic!()
    };
    cluster.stop(wiped).await;
    std::fs::remove_dir_all(cluster.dir(wiped)).unwrap();
    cluster.restart(wiped).await;
    cluster.stop(leader).await;
    // To stop is to hand over, with a vote of the leader that goes. With the wiped node's voice the two that are left
    // would be a majority in a later term; without it there is none.
    let term = cluster.node(other).status().await.unwrap().raft.term;
    // Nothing shows that there will be no leader but that there would be one by now: another cluster, in the same
    // thread, of which two are left as well, and none was wiped, elects three.
    let mut twin = Cluster::founded(3, true, |_| {}).await;
    for _ in 0..3 {
        let led = twin.leader().await;
        twin.stop(led).await;
        twin.leader().await;
        twin.restart(led).await;
        twin.converged().await;
    }
    eventually("the other one asks for votes", async || {
        let status = cluster.node(other).status().await.unwrap();
        assert!(status.raft.term == term, "{:?} of {}", status.raft.role, status.raft.term);
        (status.raft.role == RoleName::PreCandidate).then_some(())
    })
    .await;
    assert_eq!(cluster.node(wiped).status().await.unwrap().raft.role, RoleName::Unconfigured);
    cluster.restart(leader).await;
    eventually("the two others go on", async || {
        let on_one = cluster.node(leader).write("goes on".into()).await.is_ok();
        (on_one || cluster.node(other).write("goes on".into()).await.is_ok()).then_some(())
    })
    .await;
}

/// A19: nodes of several clusters, with the same names, live in one process.
#[tokio::test]
async fn several_clusters_live_in_one_process() {
    let one = Cluster::founded(3, false, steady).await;
    let two = Cluster::founded(3, false, steady).await;
    one.write("one").await;
    two.write("two").await;
    assert_eq!(one.converged().await, ["one"]);
    assert_eq!(two.converged().await, ["two"]);
}

/// `Config::segment_bytes`: the log is cut into files of that size.
#[tokio::test]
async fn the_log_is_cut_into_segments() {
    let cluster = Cluster::founded(1, true, |c| c.segment_bytes = 64 << 10).await;
    for _ in 0..40 {
        cluster.write(&"x".repeat(8000)).await;
    }
    let files = std::fs::read_dir(cluster.dir(1)).unwrap().count();
    assert!(files >= 8, "320 kB of entries in segments of 64 KiB, but only {files} files");
}

/// Settings are judged before anything is touched.
#[tokio::test]
async fn a_wrong_setting_is_refused_by_name() {
    let cluster = Cluster::blank(0, true, |_| {}).await;
    let mut config = cluster.config(1, "127.0.0.1:0");
    config.election_timeout = (Duration::from_millis(50), Duration::from_millis(40));
    let Err(error) = Node::start(config, Journal::default()).await else { panic!() };
    assert!(matches!(error, StartError::Config { setting: "election_timeout", .. }), "{error}");
    assert!(!cluster.dir(1).exists());
}

/// The address that cannot be listened on is in the error.
#[tokio::test]
async fn a_taken_port_is_named() {
    let cluster = Cluster::blank(1, false, |_| {}).await;
    let taken = cluster.addresses[0].clone();
    let Err(error) = Node::start(cluster.config(2, &taken), Journal::default()).await else { panic!() };
    assert!(matches!(&error, StartError::Listen { address, .. } if *address == taken), "{error}");
}

/// D5.2.5, SN-9: a log whose beginning is gone, with no snapshot in its place, is a gap and not a start.
#[tokio::test]
async fn sn_9_a_log_that_begins_late_is_refused() {
    use coracle::storage::{LogStore, disk::DirDisk, identity, wal};
    let mut cluster = Cluster::founded(1, true, |_| {}).await;
    cluster.write("one").await;
    cluster.stop(1).await;
    let disk = std::sync::Arc::new(DirDisk::open(cluster.dir(1)).unwrap());
    let identity = identity::open_or_create(&*disk, NodeId(1), true, || unreachable!()).unwrap();
    let mut log = wal::Wal::open(disk.clone(), identity, wal::WalConfig::default());
    let last = log.load(&mut |_| {}).unwrap().last;
    log.purge(last).unwrap();
    drop((log, disk));
    let refused = Node::start(cluster.config(1, "127.0.0.1:0"), Journal::default()).await;
    let Err(StartError::Store(error @ StoreError::Damaged { .. })) = refused else { panic!() };
    assert!(error.to_string().contains("no snapshot reaches it"), "{error}");
}

/// A node that begins to stop says so before it has stopped, and takes no more requests; one that leads knows it.
#[tokio::test]
async fn a_node_says_whether_it_leads_and_when_it_begins_to_stop() {
    let cluster = Cluster::founded(3, true, steady).await;
    let leader = cluster.leader().await;
    for id in 1..=3 {
        let node = cluster.node(id);
        eventually("all know who leads", async || node.leader().map(|_| ())).await;
        assert_eq!(node.is_leader(), node.leader().unwrap().id.0 == id);
        assert!(format!("{node:?}").starts_with(&format!("Node {{ id: NodeId({id})")), "{node:?}");
    }
    let node = cluster.node(leader).clone();
    let begins = tokio::spawn({
        let node = node.clone();
        async move {
            let reason = node.stopping().await;
            (reason, node.write("late".into()).await)
        }
    });
    node.stop().await;
    let (reason, refused) = begins.await.unwrap();
    assert_eq!(
        (reason, refused.clone()),
        (StopReason::Requested, Err(WriteError::Stopped(StopReason::Requested)))
    );
    assert!(refused.unwrap_err().certainly_not_done());
    assert!(!WriteError::Unknown(Cause::Timeout).certainly_not_done());
}
