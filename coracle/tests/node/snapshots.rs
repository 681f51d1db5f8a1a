//! Snapshots over real sockets and files: the log goes, a start goes on from what stands for it, and a follower that
//! lacks what is gone is sent it.

use crate::common::*;
use coracle::*;
use std::path::PathBuf;

/// Snapshots often, in many pieces.
fn often(config: &mut Config) {
    config.snapshot_entries = 20;
    config.snapshot_piece_bytes = 64;
}

async fn write(cluster: &Cluster, lines: std::ops::Range<u64>) {
    for number in lines {
        cluster.write(&format!("line {number}")).await;
    }
}

/// Writes lines where snapshots are taken [often], and has all nodes that run take them as the lines come: a machine may apply many at
/// once, and then there would be one snapshot where the log goes up to the older of two.
async fn write_with_snapshots(cluster: &Cluster, lines: std::ops::Range<u64>) {
    for number in lines {
        write(cluster, number..number + 1).await;
        if number % 20 == 19 {
            for node in cluster.running() {
                eventually("a snapshot of what is written", async || {
                    let status = node.status().await.unwrap();
                    let newest = status.snapshots.newest.map_or(0, |newest| newest.last.index.0);
                    (newest + 20 > status.raft.commit.0).then_some(())
                })
                .await;
            }
        }
    }
}

fn lines(upto: u64) -> Vec<String> {
    (0..upto).map(|number| format!("line {number}")).collect()
}

/// Waits until this node's log begins after `index`.
async fn purged(cluster: &Cluster, id: u64, index: u64) {
    eventually("the log is purged", async || {
        let status = cluster.node(id).status().await.unwrap();
        (status.raft.purged.index.0 > index).then_some(())
    })
    .await;
}

/// The files of the node's snapshots, newest first.
fn snapshots(cluster: &Cluster, id: u64) -> Vec<PathBuf> {
    let files = std::fs::read_dir(cluster.dir(id)).unwrap().map(|entry| entry.unwrap().path());
    let number = |path: &PathBuf| -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix("snapshot-")?.split('-').next()?.parse().ok()
    };
    let mut all: Vec<(u64, PathBuf)> = files.filter_map(|path| Some((number(&path)?, path))).collect();
    all.sort();
    all.into_iter().rev().map(|(_, path)| path).collect()
}

#[tokio::test]
async fn a_log_is_purged_and_a_start_goes_on_from_the_snapshot() {
    let mut cluster = Cluster::founded(3, true, often).await;
    write_with_snapshots(&cluster, 0..100).await;
    for id in 1..=3 {
        purged(&cluster, id, 40).await;
        assert!(snapshots(&cluster, id).len() <= 3, "the newest two, and one that is about to go");
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    assert_eq!(cluster.converged().await, lines(100));
    write_with_snapshots(&cluster, 100..130).await;
    assert_eq!(cluster.converged().await, lines(130));
}

/// Neither the entries nor the bytes of the log come to what the policy says.
#[tokio::test]
async fn a_snapshot_is_taken_once_the_machine_was_busy_for_so_long() {
    let cluster = Cluster::founded(1, true, |config| {
        (config.snapshot_entries, config.snapshot_bytes) = (u64::MAX, u64::MAX);
        config.snapshot_busy = std::time::Duration::from_millis(1);
    })
    .await;
    let mut number = 0;
    eventually("a snapshot", async || {
        write(&cluster, number..number + 10).await;
        number += 20;
        cluster.node(1).status().await.unwrap().snapshots.newest
    })
    .await;
}

#[tokio::test]
async fn a_log_in_memory_is_purged_too() {
    let cluster = Cluster::founded(3, false, often).await;
    write_with_snapshots(&cluster, 0..100).await;
    for id in 1..=3 {
        purged(&cluster, id, 40).await;
    }
    assert_eq!(cluster.converged().await, lines(100));
}

#[tokio::test]
async fn a_follower_that_lacks_what_is_purged_takes_a_snapshot() {
    let mut cluster = Cluster::founded(3, true, often).await;
    write_with_snapshots(&cluster, 0..5).await;
    cluster.converged().await;
    cluster.stop(3).await;
    write_with_snapshots(&cluster, 5..120).await;
    for id in 1..=2 {
        purged(&cluster, id, 20).await;
    }
    cluster.restart(3).await;
    assert_eq!(cluster.converged().await, lines(120));
    purged(&cluster, 3, 20).await;
    write_with_snapshots(&cluster, 120..125).await;
    assert_eq!(cluster.converged().await, lines(125));
}

/// SN-4: a receiver that is restarted again and again in the middle of an install still finishes it.
#[tokio::test]
async fn sn_4_an_install_goes_on_where_a_restart_cut_it() {
    let mut cluster = Cluster::founded(3, true, often).await;
    write_with_snapshots(&cluster, 0..5).await;
    cluster.converged().await;
    cluster.stop(3).await;
    write_with_snapshots(&cluster, 5..300).await;
    for id in 1..=2 {
        purged(&cluster, id, 20).await;
    }
    for _ in 0..5 {
        cluster.restart(3).await;
        eventually("something of it has come", async || {
            let came = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with("incoming-") || name.starts_with("snapshot-")
            };
            std::fs::read_dir(cluster.dir(3)).unwrap().any(|entry| came(&entry.unwrap().path())).then_some(())
        })
        .await;
        cluster.stop(3).await;
    }
    cluster.restart(3).await;
    assert_eq!(cluster.converged().await, lines(300));
}

/// SN-5: where the newest snapshot is damaged, the one before and the log make the same state; where both are, the start
/// is refused, and nothing is deleted.
#[tokio::test]
async fn sn_5_a_damaged_snapshot_is_passed_over_for_the_one_before() {
    let mut cluster = Cluster::founded(1, true, often).await;
    write_with_snapshots(&cluster, 0..100).await;
    purged(&cluster, 1, 20).await;
    cluster.stop(1).await;
    let files = snapshots(&cluster, 1);
    let flip = |path: &PathBuf| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    flip(&files[0]);
    cluster.restart(1).await;
    assert_eq!(cluster.converged().await, lines(100));
    cluster.stop(1).await;
    let files = snapshots(&cluster, 1);
    for path in &files {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let refused = Node::start(cluster.config(1, "127.0.0.1:0"), Journal::default()).await;
    let Err(error) = refused else { panic!("it starts without a whole snapshot") };
    assert!(in_full(&error).contains("no snapshot reaches it"), "{}", in_full(&error));
    assert_eq!(snapshots(&cluster, 1), files, "damage is no reason to delete");
}

/// By command, whatever the policy says; and whoever asks is told what it holds, or why there is none.
#[tokio::test]
async fn a_snapshot_is_taken_by_command() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    write(&cluster, 0..10).await;
    cluster.converged().await;
    let applied = cluster.node(1).status().await.unwrap().applied;
    let taken = cluster.node(1).snapshot().await.unwrap();
    assert!(taken.last >= applied && taken.bytes > 0);
    let status = cluster.node(1).status().await.unwrap();
    assert_eq!((status.snapshots.newest, status.snapshots.taking), (Some(taken), false));
    assert_eq!(snapshots(&cluster, 1).len(), 1);
    // Two at once share one, or one comes after the other.
    write(&cluster, 10..20).await;
    cluster.converged().await;
    let node = cluster.node(1);
    let (one, other) = tokio::join!(node.snapshot(), node.snapshot());
    assert!(one.unwrap().last > taken.last && other.unwrap().last > taken.last);
    cluster.stop(1).await;
    cluster.restart(1).await;
    assert_eq!(cluster.converged().await, lines(20));
    // One that has applied nothing has nothing to take, and one that has stopped says so.
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(9, "127.0.0.1:0", Storage::Dir(dir.path().to_owned()));
    let blank = Node::start(config, Journal::default()).await.unwrap();
    assert_eq!(blank.snapshot().await, Err(SnapshotError::NothingApplied));
    blank.stop().await;
    assert_eq!(blank.snapshot().await, Err(SnapshotError::Stopped(StopReason::Requested)));
}

/// A snapshot that cannot be written is an error that says why; the one before stays, and the node goes on.
#[tokio::test]
async fn a_snapshot_that_cannot_be_written_is_named_and_the_node_goes_on() {
    let cluster = Cluster::founded(1, true, |_| {}).await;
    write(&cluster, 0..5).await;
    let taken = cluster.node(1).snapshot().await.unwrap();
    write(&cluster, 5..10).await;
    // A directory in the place of the file.
    let blocked = cluster.dir(1).join("snapshot.tmp");
    std::fs::create_dir(&blocked).unwrap();
    let Err(SnapshotError::Failed(problem)) = cluster.node(1).snapshot().await else {
        panic!("it is written")
    };
    assert!(problem.contains("snapshot.tmp"), "{problem}");
    assert_eq!(cluster.node(1).status().await.unwrap().snapshots.newest, Some(taken));
    std::fs::remove_dir(&blocked).unwrap();
    assert!(cluster.node(1).snapshot().await.unwrap().last > taken.last);
}
