//! Copies of a directory (D5.2.10): what the peer says that notices, what the copy is told, and what goes on.

use crate::common::{Cluster, Journal};
use crate::kit::*;
use coracle::raft::{Boot, LogId};
use coracle::transport::tcp::{Local, Tcp, TcpConfig};
use coracle::transport::{Alarm, Inbound};
use coracle::wire::{self, AlarmReason, CloseReason, Hello, Incoming};
use tokio::sync::mpsc;

/// Node `id`, whose directory was started under these numbers.
fn started(id: u64, boots: &[u64]) -> Local {
    let boots: Vec<Boot> = boots.iter().map(|boot| Boot(*boot)).collect();
    let boot = *boots.last().unwrap();
    Local { boot, boot_number: boots.len() as u64, boots, ..local(id, Some(CLUSTER)) }
}

/// Node 2 with this list dialing node 1.
fn hello_of(boots: &[u64]) -> Hello {
    let mut hello = hello(2, 1);
    let Local { boot, boot_number, boots, .. } = started(2, boots);
    (hello.facts.boot, hello.facts.boot_number, hello.facts.boots) = (boot, boot_number, boots);
    hello
}

impl Node {
    async fn alarm(&mut self) -> Alarm {
        match self.next().await {
            Inbound::Alarm(alarm) => alarm,
            other => panic!("an alarm was expected: {other:?}"),
        }
    }
}

impl Stranger {
    /// The next frame, pings and all.
    async fn hear_anything(&mut self) -> Option<Incoming> {
        tokio::time::timeout(PATIENCE, self.hear_all()).await.expect("in time")
    }
}

async fn welcome(node: &Node, hello: &Hello) -> Stranger {
    let mut stranger = Stranger::connect(&node.address()).await;
    assert!(matches!(stranger.greet(hello).await, Some(Incoming::Welcome(_))));
    stranger
}

/// In which boot a disk was met is known after a restart too, as soon as the node gives it to its transport again.
#[tokio::test]
async fn a_copy_is_noticed_by_a_node_that_met_the_original_in_an_earlier_boot() {
    let a = Node::start(started(1, &[5])).await;
    let original = Node::start(started(2, &[10, 11])).await;
    a.knows(&[(2, &original.address())]);
    a.send(peer(2), forward(1, 1)).await;
    let met = a.tcp.met();
    assert_eq!(
        met.iter().map(|met| (met.peer, met.number, met.boot)).collect::<Vec<_>>(),
        [(peer(2), 2, Boot(11))]
    );
    a.tcp.close().await;
    original.tcp.close().await;
    let mut a = Node::start(Local { met, ..started(1, &[5, 6]) }).await;
    let copy = Node::start(started(2, &[10, 21])).await;
    a.knows(&[(2, &copy.address())]);
    let alarm = a.alarm().await;
    assert_eq!((alarm.about, alarm.reason, alarm.other), (peer(2), AlarmReason::Copy, Boot(11)));
}

#[tokio::test]
async fn a_copy_of_a_directory_raises_an_alarm_on_both_sides_and_is_talked_to() {
    let mut a = Node::start(started(1, &[5])).await;
    let original = Node::start(started(2, &[10, 11])).await;
    a.knows(&[(2, &original.address())]);
    a.send(peer(2), forward(1, 1)).await;
    original.tcp.close().await;
    assert_eq!([a.event().await, a.event().await], ["down 2", "disconnected 2"]);
    let mut copy = Node::start(started(2, &[10, 21])).await;
    a.knows(&[(2, &copy.address())]);
    let alarm = a.alarm().await;
    assert_eq!((alarm.told_by, alarm.about, alarm.reason), (None, peer(2), AlarmReason::Copy));
    assert_eq!((alarm.boot, alarm.other, alarm.number), (Boot(21), Boot(11), 2));
    let told = copy.alarm().await;
    assert_eq!(told, Alarm { told_by: Some(peer(1)), ..alarm });
    a.send(peer(2), forward(2, 1)).await;
    assert_eq!(copy.message().await.2, forward(2, 1), "nobody is refused on the word of a stranger");
    assert_eq!((a.tcp.counts().alarms, copy.tcp.counts().alarms), (1, 1));
}

#[tokio::test]
async fn a_copy_that_dials_is_told_the_same_and_said_once() {
    let warnings = Warnings::collect();
    let mut a = Node::start(started(1, &[5])).await;
    drop(welcome(&a, &hello_of(&[10, 11])).await);
    assert_eq!(a.event().await, "disconnected 2");
    for round in 1..=3 {
        let mut copy = welcome(&a, &hello_of(&[10, 21])).await;
        let told = wire::Alarm { reason: AlarmReason::Copy, boot: Boot(11), number: 2 };
        assert_eq!(copy.hear().await, Some(Incoming::Alarm(told)));
        if round == 1 {
            assert_eq!(a.alarm().await.reason, AlarmReason::Copy);
        }
        assert_eq!(a.tcp.counts().alarms, round);
        drop(copy);
        assert_eq!(a.event().await, "disconnected 2");
    }
    assert_eq!(warnings.with("is a copy"), 1);
    let mut original = welcome(&a, &hello_of(&[10, 11, 12])).await;
    original.say(&wire::encode(&forward(1, 1)).to_bytes()).await;
    assert_eq!(a.event().await, "message 2", "the original is none");
    assert_eq!(a.tcp.counts().alarms, 3);
}

#[tokio::test]
async fn an_older_state_that_was_put_back_raises_an_alarm() {
    let mut a = Node::start(started(1, &[5])).await;
    drop(welcome(&a, &hello_of(&[10, 11, 12])).await);
    assert_eq!(a.event().await, "disconnected 2");
    let _older = welcome(&a, &hello_of(&[10, 21])).await;
    let alarm = a.alarm().await;
    assert_eq!((alarm.reason, alarm.other, alarm.number), (AlarmReason::Copy, Boot(12), 3));
}

#[tokio::test]
async fn a_boot_older_than_the_whole_list_raises_an_alarm_of_its_own() {
    let mut a = Node::start(started(1, &[5])).await;
    drop(welcome(&a, &hello_of(&[10])).await);
    assert_eq!(a.event().await, "disconnected 2");
    let mut hello = hello_of(&[20, 21]);
    hello.facts.boot_number = 900;
    let _later = welcome(&a, &hello).await;
    let alarm = a.alarm().await;
    assert_eq!((alarm.reason, alarm.other, alarm.number), (AlarmReason::Forgotten, Boot(10), 1));
}

/// The older link is asked first: only an answer shows that its boot is still there.
#[tokio::test]
async fn two_live_runs_of_one_disk_raise_an_alarm_on_all_sides() {
    let mut a = Node::start(started(1, &[5])).await;
    let mut older = welcome(&a, &hello_of(&[10])).await;
    let mut newer = welcome(&a, &hello_of(&[10, 11])).await;
    let Some(Incoming::Ping(number)) = older.hear_anything().await else { panic!("a question was expected") };
    assert_ne!(number, 0);
    // An answer to another question shows nothing.
    older.say(&pong(number + 1)).await;
    older.say(&wire::encode(&forward(1, 1)).to_bytes()).await;
    assert_eq!((a.event().await, a.tcp.counts().alarms), ("message 2".to_owned(), 0));
    older.say(&pong(number)).await;
    let alarm = a.alarm().await;
    assert_eq!((alarm.reason, alarm.about), (AlarmReason::TwoRuns, peer(2)));
    assert_eq!((alarm.boot, alarm.other), (Boot(11), Boot(10)));
    let about = |boot| Some(Incoming::Alarm(wire::Alarm { reason: AlarmReason::TwoRuns, boot, number: 0 }));
    assert_eq!(newer.hear().await, about(Boot(10)));
    assert_eq!(older.hear().await, about(Boot(11)));
    let Some(Incoming::Close(close)) = older.hear().await else { panic!("a goodbye was expected") };
    assert_eq!(close.reason, CloseReason::Replaced, "as any older connection");
}

#[tokio::test]
async fn an_older_run_that_does_not_answer_is_gone_and_no_alarm() {
    let a = Node::start(started(1, &[5])).await;
    let mut older = welcome(&a, &hello_of(&[10])).await;
    let _newer = welcome(&a, &hello_of(&[10, 11])).await;
    assert!(matches!(older.hear_anything().await, Some(Incoming::Ping(_))));
    let Some(Incoming::Close(close)) = older.hear().await else { panic!("a goodbye was expected") };
    assert_eq!(close.reason, CloseReason::Replaced);
    drop(older);
    until(|| a.tcp.counts().links == 1).await;
    assert_eq!(a.tcp.counts().alarms, 0);
}

/// Two real transports under one name and on one disk.
#[tokio::test]
async fn two_processes_on_one_directory_learn_of_each_other() {
    let (inbound, mut inbox) = mpsc::channel(64);
    let a = Tcp::bind(LOOPBACK, TcpConfig::default(), started(1, &[5]), inbound).await.unwrap();
    let at = a.local_addr().to_string();
    let mut runs = [Node::start(started(2, &[10])).await, Node::start(started(2, &[10, 11])).await];
    for run in &runs {
        run.knows(&[(1, &at)]);
        run.send(peer(1), forward(1, 1)).await;
    }
    for run in &mut runs {
        assert_eq!(run.alarm().await.reason, AlarmReason::TwoRuns);
    }
    let heard = async {
        while !matches!(inbox.recv().await, Some(Inbound::Alarm(alarm)) if alarm.reason == AlarmReason::TwoRuns)
        {
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("in time");
}

/// Whoever comes again and again, each time as another boot, leaves one connection behind and not all of them.
#[tokio::test]
async fn sh_2_ever_new_runs_leave_one_question_open_at_a_time() {
    let config = TcpConfig { close_timeout: PATIENCE * 6, ..TcpConfig::default() };
    let a = Node::at(LOOPBACK, started(1, &[5]), config).await;
    for run in 1..=100 {
        let mut hello = hello(2, 1);
        hello.facts.boot = Boot(run);
        let mut stranger = loop {
            // While others are still being ended it may be told to come again.
            let mut stranger = Stranger::connect(&a.address()).await;
            match stranger.greet(&hello).await {
                Some(Incoming::Welcome(_)) => break stranger,
                other => assert!(matches!(other, Some(Incoming::Refused(_))), "{other:?}"),
            }
        };
        // It stays for as long as the node lets it, and answers nothing.
        tokio::spawn(async move { while stranger.hear_all().await.is_some() {} });
    }
    until(|| a.tcp.counts().links == 2).await;
}

/// A whole node tells the boots of its directory, from its first start on.
#[tokio::test]
async fn a_copied_directory_that_is_started_is_noticed_by_its_peers() {
    let mut cluster = Cluster::blank(1, true, |_| {}).await;
    let mut watcher = Node::start(local(7, Some(CLUSTER))).await;
    let me = {
        let mut probe = hello(7, 1);
        (probe.purpose, probe.to_incarnation) = (wire::Purpose::Probe, None);
        match Stranger::connect(&cluster.addresses[0]).await.greet(&probe).await {
            Some(Incoming::Welcome(welcome)) => welcome.facts.from,
            other => panic!("{other:?}"),
        }
    };
    let watch = |watcher: &Node, address: &str| {
        let member =
            coracle::raft::Member { id: me.id, incarnation: me.incarnation, address: address.to_owned() };
        let membership = coracle::raft::Membership::of_voters(CLUSTER, [member]);
        watcher.tcp.set_membership(LogId::new(1, 1), &membership, &[]);
    };
    watch(&watcher, &cluster.addresses[0]);
    until(|| watcher.tcp.counts().links == 1).await;
    let of = |watcher: &Node| watcher.tcp.peer(me).unwrap().boot;
    let first = of(&watcher);
    cluster.stop(1).await;
    // The directory is copied as it is between two starts.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&cluster.dir(1), copy.path());
    cluster.restart(1).await;
    until(|| watcher.tcp.peer(me).is_some_and(|peer| peer.boot != first)).await;
    assert_eq!(watcher.tcp.counts().alarms, 0, "a restart is everyday life");
    let original = of(&watcher);
    cluster.stop(1).await;
    let config = coracle::Config::new(1, LOOPBACK, coracle::Storage::Dir(copy.path().to_owned()));
    let copied = coracle::Node::start(config, Journal::default()).await.unwrap();
    watch(&watcher, &copied.peer_addr().to_string());
    let alarm = loop {
        if let Inbound::Alarm(alarm) = watcher.next().await {
            break alarm;
        }
    };
    assert_eq!((alarm.reason, alarm.about, alarm.other), (AlarmReason::Copy, me, original));
    assert_eq!(alarm.number, 2);
    copied.stop().await;
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_dir() {
            std::fs::create_dir(to.join(file.file_name())).unwrap();
            copy_dir(&file.path(), &to.join(file.file_name()));
        } else {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}
