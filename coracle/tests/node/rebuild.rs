//! Backups of running clusters, and new clusters out of them and out of survivors, over real sockets and files.

use crate::common::*;
use coracle::backup::{self, BackupError, BackupInfo, Partial};
use coracle::raft::{LogId, NodeId};
use coracle::rebuild::{self, RebuildError, Rebuilt, Survivor};
use coracle::*;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn often(config: &mut Config) {
    config.snapshot_entries = 20;
}

fn lines(upto: u64) -> Vec<String> {
    (0..upto).map(|number| format!("line {number}")).collect()
}

/// A free address, which nobody takes before it is used.
async fn address() -> String {
    let blank =
        Node::start(Config::new(1, "127.0.0.1:0", Storage::Memory), Journal::default()).await.unwrap();
    let address = blank.peer_addr().to_string();
    blank.stop().await;
    address
}

async fn config(id: u64, dir: PathBuf) -> Config {
    let mut config = Config::new(id, address().await, Storage::Dir(dir));
    config.request_timeout = NEVER;
    config
}

async fn saved(node: &Node<Journal>, path: PathBuf) -> BackupInfo {
    let backup = node.backup().await.unwrap();
    tokio::task::spawn_blocking(move || backup.save(&path)).await.unwrap().unwrap()
}

/// Starts what was rebuilt, and waits until it leads. It is its cluster's only member.
async fn started(config: &Config, rebuilt: &Rebuilt) -> Node<Journal> {
    let node = Node::start(config.clone(), Journal::default()).await.unwrap();
    eventually("it leads", async || node.is_leader().then_some(())).await;
    let status = node.status().await.unwrap();
    assert_eq!(status.cluster, Some(rebuilt.membership.cluster));
    assert_eq!(status.raft.membership, rebuilt.membership);
    assert_eq!(rebuilt.membership.members.len(), 1);
    assert_eq!(rebuilt.membership.members[&config.id].address, config.peer_addr);
    node
}

/// A backup from any node, while writes go on, holds every write that was acknowledged before, and a prefix of the
/// journal. A new cluster starts with exactly that, and takes writes.
#[tokio::test]
async fn a_backup_under_writes_is_restored_as_it_was_at_its_index() {
    let cluster = Cluster::founded(3, true, often).await;
    let home = tempfile::tempdir().unwrap();
    let mut written = 0;
    for id in 1..=3 {
        for _ in 0..30 {
            cluster.write(&format!("line {written}")).await;
            written += 1;
        }
        let path = home.path().join(format!("{id}.backup"));
        let goes_on = cluster.node(cluster.leader().await).write(format!("line {written}"));
        let (info, outcome) = tokio::join!(saved(cluster.node(id), path.clone()), goes_on);
        outcome.unwrap();
        written += 1;
        assert_eq!(backup::verify(&path).unwrap(), info);
        let config = config(9, home.path().join(format!("node-{id}"))).await;
        let rebuilt = rebuild::restore(&path, &config).unwrap();
        assert_eq!((rebuilt.last, rebuilt.before.clone()), (info.last, None));
        assert_ne!(rebuilt.membership.cluster, info.membership.cluster);
        let node = started(&config, &rebuilt).await;
        let restored = node.read(()).await.unwrap();
        assert!(restored == lines(written) || restored == lines(written - 1), "{restored:?}");
        node.write("more".to_owned()).await.unwrap();
        node.stop().await;
        let node = started(&config, &rebuilt).await;
        assert_eq!(node.read(()).await.unwrap().len(), restored.len() + 1);
        node.stop().await;
    }
    assert_eq!(cluster.converged().await, lines(written));
}

/// What nothing was written to since needs no new snapshot; and one node of many, or one that keeps nothing on a disk,
/// gives a backup all the same.
#[tokio::test]
async fn a_backup_is_the_newest_snapshot_where_that_holds_everything() {
    let cluster = Cluster::founded(1, false, |_| {}).await;
    cluster.write("line 0").await;
    let mut first = cluster.node(1).backup().await.unwrap();
    let second = cluster.node(1).backup().await.unwrap();
    assert_eq!(first.info(), second.info());
    let mut whole = Vec::new();
    first.read_to_end(&mut whole).unwrap();
    assert_eq!(whole.len() as u64, first.info().bytes);
    assert_eq!(second.read_at(10, 5).unwrap(), whole[10..15]);
    cluster.write("line 1").await;
    let third = cluster.node(1).backup().await.unwrap();
    assert!(third.info().last > second.info().last);
    assert_eq!(cluster.node(1).status().await.unwrap().pending, 0, "nobody is waited for any more");
}

#[tokio::test]
async fn without_a_quorum_there_is_no_backup() {
    let mut cluster = Cluster::founded(3, true, |_| {}).await;
    cluster.write("line 0").await;
    cluster.stop_all_but(2).await;
    let mut config = cluster.config(2, &cluster.addresses[1]);
    config.request_timeout = std::time::Duration::from_millis(50);
    cluster.stop(2).await;
    let node = Node::start(config, Journal::default()).await.unwrap();
    let refused = node.backup().await.unwrap_err();
    assert!(matches!(refused, BackupError::Unconfirmed(_)), "{refused}");
}

/// A file that came in part goes on from there with the same backup, and begins anew with another.
#[tokio::test]
async fn a_backup_that_broke_off_goes_on_where_it_was() {
    let cluster = Cluster::founded(1, true, |_| {}).await;
    for number in 0..50 {
        cluster.write(&format!("line {number}")).await;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("b");
    let node = cluster.node(1);
    let first = node.backup().await.unwrap();
    let (id, file) = (first.info().last, first.info().file);
    let mut partial = Partial::open(&path).unwrap();
    assert_eq!((partial.here(), partial.begun()), (0, None));
    let in_use = in_full(&Partial::open(&path).unwrap_err());
    assert!(in_use.contains("in use"), "{in_use}");
    for _ in 0..3 {
        let here = partial.here();
        partial.take(here, &first.read_at(here, 100).unwrap()).unwrap();
        partial.take(here, b"again").unwrap();
    }
    drop((partial, first));
    // The node has another one meanwhile.
    cluster.write("line 50").await;
    assert_ne!(node.backup().await.unwrap().info().last, id);
    let same = node.same_backup(id, file).await.unwrap();
    let partial = Partial::open(&path).unwrap();
    assert_eq!((partial.here(), partial.begun()), (300, Some((id, file))));
    drop(partial);
    assert!(matches!(node.same_backup(id, file + 1).await, Err(BackupError::Gone(gone)) if gone == id));
    let info = same.save(&path).unwrap();
    assert_eq!((info.last, backup::verify(&path).unwrap()), (id, info));
    assert!(!home.path().join("b.partial").exists());
    // What is there is not written over.
    assert!(in_full(&same.save(&path).unwrap_err()).contains("exists"));
    // Two newer ones, and it is gone; but whoever has it open reads on.
    for number in 51..53 {
        cluster.write(&format!("line {number}")).await;
        node.backup().await.unwrap();
    }
    eventually("it is gone", async || {
        matches!(node.same_backup(id, file).await, Err(BackupError::Gone(_))).then_some(())
    })
    .await;
    assert_eq!(same.save(&home.path().join("c")).unwrap().last, id);
    // A part of one is no beginning of another.
    std::fs::copy(&path, home.path().join("d.partial")).unwrap();
    let newest = saved(node, home.path().join("d")).await;
    assert!(newest.last > id);
    assert_eq!(newest, backup::verify(&home.path().join("d")).unwrap());
}

/// Whoever holds a backup holds neither the node nor its directory; and who waits for one is told when the node stops.
#[tokio::test]
async fn a_backup_outlives_its_node() {
    let mut cluster = Cluster::founded(1, true, |_| {}).await;
    cluster.write("line 0").await;
    let backup = cluster.node(1).backup().await.unwrap();
    let node = cluster.node(1).clone();
    cluster.stop(1).await;
    assert!(matches!(
        node.backup().await,
        Err(BackupError::Unconfirmed(ReadError::Stopped(_)) | BackupError::Stopped(_))
    ));
    let (id, file) = (backup.info().last, backup.info().file);
    assert!(matches!(node.same_backup(id, file).await, Err(BackupError::Stopped(_))));
    cluster.restart(1).await;
    assert_eq!(backup.read_at(0, 1 << 20).unwrap().len() as u64, backup.info().bytes);
    // It is the same after a restart.
    assert_eq!(cluster.node(1).same_backup(id, file).await.unwrap().info(), backup.info());
}

/// A backup of some lines, in a directory of its own.
async fn some_backup() -> (TempDir, PathBuf) {
    let cluster = Cluster::founded(1, true, |_| {}).await;
    for number in 0..20 {
        cluster.write(&format!("line {number}")).await;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("backup");
    saved(cluster.node(1), path.clone()).await;
    (home, path)
}

#[tokio::test]
async fn nothing_is_restored_from_damage_or_over_anything() {
    let (home, path) = some_backup().await;
    let config = config(2, home.path().join("node")).await;
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 20, 100, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        let wrong = home.path().join("wrong");
        for bytes in [&damaged[..], &whole[..at]] {
            std::fs::write(&wrong, bytes).unwrap();
            assert!(backup::verify(&wrong).is_err(), "{at}");
            assert!(rebuild::restore(&wrong, &config).is_err(), "{at}");
            assert!(!home.path().join("node").exists() && !home.path().join("node.restoring").exists());
        }
    }
    assert!(rebuild::restore(&home.path().join("none"), &config).is_err());
    let memory = Config::new(2, "127.0.0.1:1", Storage::Memory);
    assert!(matches!(rebuild::restore(&path, &memory), Err(RebuildError::Refused(_))));
    // Any file is in the way.
    std::fs::create_dir(home.path().join("node")).unwrap();
    std::fs::write(home.path().join("node/letter"), b"dear").unwrap();
    assert!(matches!(rebuild::restore(&path, &config), Err(RebuildError::NotEmpty { .. })));
    assert_eq!(std::fs::read(home.path().join("node/letter")).unwrap(), b"dear");
    std::fs::remove_file(home.path().join("node/letter")).unwrap();
    // So is what somebody else put beside it; what an earlier attempt left is not.
    let beside = home.path().join("node.restoring");
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join("letter"), b"dear").unwrap();
    assert!(matches!(rebuild::restore(&path, &config), Err(RebuildError::Refused(_))));
    std::fs::write(beside.join("lock"), b"").unwrap();
    let rebuilt = rebuild::restore(&path, &config).unwrap();
    assert!(!beside.exists());
    let node = started(&config, &rebuilt).await;
    assert_eq!(node.read(()).await.unwrap(), lines(20));
    node.stop().await;
    assert!(matches!(rebuild::restore(&path, &config), Err(RebuildError::NotEmpty { .. })));
}

/// Two clusters out of one backup are two: neither takes the other's node.
#[tokio::test]
async fn what_is_restored_twice_makes_two_clusters() {
    let (home, path) = some_backup().await;
    let (one, other) = (config(1, home.path().join("1")).await, config(2, home.path().join("2")).await);
    let first = rebuild::restore(&path, &one).unwrap();
    let second = rebuild::restore(&path, &other).unwrap();
    assert_ne!(first.membership.cluster, second.membership.cluster);
    let (one, other) = (started(&one, &first).await, started(&other, &second).await);
    let both = [(1, one.peer_addr().to_string()), (2, other.peer_addr().to_string())];
    assert_eq!(one.set_configuration(both).await, Err(ConfigurationError::AlreadyConfigured));
}

fn survivor(config: &Config) -> Survivor {
    Survivor::open(config).unwrap()
}

/// Of three nodes two are lost for good. The third becomes a cluster of its own with everything that it held, and the old
/// ones cannot take part in it when they come back after all.
#[tokio::test]
async fn a_survivor_keeps_what_it_held_and_its_old_peers_cannot_join() {
    let mut cluster = Cluster::founded(3, true, often).await;
    for number in 0..50 {
        cluster.write(&format!("line {number}")).await;
    }
    cluster.converged().await;
    let old = cluster.node(1).status().await.unwrap();
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    let config = cluster.config(1, &cluster.addresses[0]);
    let before = survivor(&config);
    assert_eq!(Some(before.cluster()), old.cluster);
    assert_eq!(before.membership(), &old.raft.membership);
    assert!(before.certain() > LogId::ZERO && before.certain() < before.last(), "{before:?}");
    assert!(before.fenced().is_none());
    assert_eq!((before.node(), before.address()), (config.id, Some(&*config.peer_addr)));
    // It is locked meanwhile.
    assert!(Survivor::open(&config).is_err());
    let last = before.last();
    let rebuilt = before.recover(Journal::default(), &config.peer_addr).unwrap();
    assert_eq!((rebuilt.last, rebuilt.before.as_deref()), (last, Some(&*beside(&cluster, 1))));
    assert!(Some(rebuilt.membership.cluster) != old.cluster);
    let node = started(&config, &rebuilt).await;
    assert_eq!(node.read(()).await.unwrap(), lines(50));

    // The others come back, at the addresses that they always had. They know nothing but the old cluster.
    cluster.restart(2).await;
    cluster.restart(3).await;
    eventually("the two lead the old cluster among themselves", async || {
        let leads = |id| cluster.node(id).is_leader();
        (leads(2) || leads(3)).then_some(())
    })
    .await;
    cluster.write("of the old cluster").await;
    for number in 50..60 {
        node.write(format!("line {number}")).await.unwrap();
    }
    let mine = node.status().await.unwrap();
    assert_eq!((mine.cluster, mine.raft.membership.members.len()), (Some(rebuilt.membership.cluster), 1));
    assert_eq!(node.read(()).await.unwrap(), lines(60));
    let theirs = cluster.converged().await;
    assert_eq!((theirs.len(), theirs.last().map(|line| &**line)), (51, Some("of the old cluster")));
    node.stop().await;

    // And the old disk is what it was: it takes part in the old cluster again, if somebody wants that.
    std::fs::rename(cluster.dir(1), cluster.dir(1).with_extension("new")).unwrap();
    std::fs::rename(beside(&cluster, 1), cluster.dir(1)).unwrap();
    cluster.restart(1).await;
    assert_eq!(cluster.converged().await, theirs);
}

fn beside(cluster: &Cluster, id: u64) -> PathBuf {
    cluster.dir(id).with_file_name(format!("node-{id}.before-recovery"))
}

/// Entries of which nobody can tell any more whether they were committed are kept: an acknowledged write may be among
/// them.
#[tokio::test]
async fn entries_that_may_not_be_committed_are_kept() {
    let mut cluster = Cluster::founded(3, true, steady).await;
    cluster.write("line 0").await;
    cluster.converged().await;
    let leader = cluster.leader().await;
    cluster.stop_all_but(leader).await;
    let node = cluster.node(leader).clone();
    let lost = tokio::spawn(node.write("line 1".to_owned()));
    eventually("it is durable with the leader, and with nobody else", async || {
        let raft = node.status().await.unwrap().raft;
        (raft.persisted == raft.last.index && raft.last.index > raft.commit).then_some(())
    })
    .await;
    drop(node);
    cluster.stop(leader).await;
    assert!(matches!(lost.await.unwrap(), Err(WriteError::Unknown(_))));
    let mut config = cluster.config(leader, &cluster.addresses[leader as usize - 1]);
    config.election_timeout = Config::new(1, "127.0.0.1:1", Storage::Memory).election_timeout;
    let rebuilt = survivor(&config).recover(Journal::default(), &config.peer_addr).unwrap();
    let node = started(&config, &rebuilt).await;
    assert_eq!(node.read(()).await.unwrap(), lines(2));
}

#[tokio::test]
async fn what_is_no_survivor_is_refused_and_stays() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("node");
    let config = config(1, dir.clone()).await;
    assert!(matches!(Survivor::open(&config), Err(RebuildError::Refused(_))), "there is none");
    assert!(!dir.exists(), "and none is made");
    let blank = Node::start(config.clone(), Journal::default()).await.unwrap();
    assert!(matches!(Survivor::open(&config), Err(RebuildError::Start(_))), "it is in use");
    blank.stop().await;
    assert!(matches!(Survivor::open(&config), Err(RebuildError::Refused(_))), "it is blank");
    let node = Node::start(config.clone(), Journal::default()).await.unwrap();
    node.set_configuration([(1, config.peer_addr.clone())]).await.unwrap();
    node.write("line 0".to_owned()).await.unwrap();
    node.stop().await;
    let mut other = config.clone();
    other.id = NodeId(2);
    assert!(matches!(Survivor::open(&other), Err(RebuildError::Start(_))), "it is another node's");
    // Nothing was done to it.
    drop(survivor(&config));
    let node = Node::start(config, Journal::default()).await.unwrap();
    eventually("it leads", async || node.is_leader().then_some(())).await;
    assert_eq!(node.read(()).await.unwrap(), lines(1));
}

/// A crash between the two renames leaves no directory in that place, and the new one is put there when asked for.
#[tokio::test]
async fn a_recovery_that_was_cut_at_its_end_is_finished() {
    let cluster = Cluster::founded(1, true, |_| {}).await;
    cluster.write("line 0").await;
    cluster.node(1).stop().await;
    let (dir, config) = (cluster.dir(1), cluster.config(1, &cluster.addresses[0]));
    assert!(!rebuild::finish(&dir).unwrap(), "nothing was begun");
    let rebuilt = survivor(&config).recover(Journal::default(), &config.peer_addr).unwrap();
    assert!(!rebuild::finish(&dir).unwrap(), "it is finished");
    let new = dir.with_file_name("node-1.recovering");
    std::fs::rename(&dir, &new).unwrap();
    assert!(rebuild::finish(&dir).unwrap());
    assert!(!new.exists());
    let node = started(&config, &rebuilt).await;
    assert_eq!(node.read(()).await.unwrap(), lines(1));
    node.stop().await;
    // A second recovery keeps what the first one kept.
    let again = survivor(&config).recover(Journal::default(), &config.peer_addr).unwrap();
    let kept: &Path = again.before.as_deref().unwrap();
    assert!(kept.ends_with("node-1.before-recovery-2") && beside(&cluster, 1).exists());
    assert_ne!(again.membership.cluster, rebuilt.membership.cluster);
}
