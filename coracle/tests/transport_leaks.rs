//! Descriptors: connections that come and go leave none behind (SH-2), and running out of them ends nothing
//! (TR-7).
//!
//! Apart from the other tests, and one at a time, because both are about those of the whole process.
#![cfg(target_os = "linux")]

#[path = "common/patience.rs"]
mod patience;

use coracle::raft::{Boot, ClusterId, Incarnation, LogId, Member, Membership, NodeId, Peer};
use coracle::transport::tcp::{Local, Tcp, TcpConfig};
use coracle::wire::{self, Facts, Hello, Purpose};
use patience::PATIENCE;
use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc};

static ALONE: Mutex<()> = Mutex::const_new(());

fn local(id: u64) -> Local {
    let peer = Peer { id: NodeId(id), incarnation: Incarnation(id) };
    Local::new(peer, Boot(id), Some(ClusterId(1)), LogId::ZERO)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn sh_2_ten_thousand_connections_leave_nothing() {
    let _alone = ALONE.lock().await;
    let (inbound, _inbox) = mpsc::channel(16);
    let node = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(1), inbound.clone()).await.unwrap();
    let other = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(2), inbound).await.unwrap();
    let at = node.local_addr().to_string();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = (descriptors(), tasks());
    for round in 0..2_500 {
        // One that goes away at once, one that talks garbage, a good probe, and one for another node.
        drop(TcpStream::connect(&at).await.unwrap());
        let mut garbage = TcpStream::connect(&at).await.unwrap();
        garbage.write_all(&[round as u8; 100]).await.unwrap();
        let _ = garbage.read(&mut [0; 10]).await;
        drop(garbage);
        other.probe(&at, NodeId(1)).await.unwrap();
        other.probe(&at, NodeId(7)).await.unwrap_err();
    }
    let clean = async {
        while (descriptors(), tasks()) != before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, clean).await.unwrap_or_else(|_| {
        panic!("{before:?} descriptors and tasks before, {:?} after", (descriptors(), tasks()))
    });
    assert_eq!(node.counts().links, 0);
    node.close().await;
    other.close().await;
    assert_eq!(tasks(), 0);
}

/// Runs the test of this name, which is ignored here, in a process of its own that may open `limit` descriptors.
fn alone(limit: usize, test: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("ulimit -S -n {limit} && exec \"$0\" --exact --ignored --nocapture \"$1\"")])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn tr_7_running_out_of_descriptors_ends_nothing() {
    let _alone = ALONE.blocking_lock();
    alone(64, "run_out_of_descriptors");
}

#[tokio::test]
#[ignore = "needs a process with few descriptors: the test above runs it"]
async fn run_out_of_descriptors() {
    let (inbound, _inbox) = mpsc::channel(16);
    let node = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(1), inbound.clone()).await.unwrap();
    let other = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(2), inbound).await.unwrap();
    // Somebody else in this process takes all that are left, but for one that connects.
    let socket = TcpSocket::new_v4().unwrap();
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
        assert!(files.len() < 1000, "the limit is not in force");
    }
    let connection = socket.connect(node.local_addr()).await.unwrap();
    let refused = async {
        while node.counts().accept_errors < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("accepting fails too, and is tried again");
    drop((connection, files));
    let back = async {
        while other.probe(&node.local_addr().to_string(), NodeId(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("and works again");
}

#[test]
fn tr_6_strangers_leave_descriptors_for_the_log() {
    let _alone = ALONE.blocking_lock();
    alone(128, "strangers_by_the_thousand");
}

/// A process beside this one connects thousands of times, silent or as ever new nodes of the very cluster, and closes
/// nothing. All the while this one can open its files, and a member gets in.
#[tokio::test]
#[ignore = "needs a process with few descriptors: the test above runs it"]
async fn strangers_by_the_thousand() {
    const FILES: usize = 30;
    let (inbound, mut inbox) = mpsc::channel(16);
    // The node listens to what it is told.
    tokio::spawn(async move { while inbox.recv().await.is_some() {} });
    let node = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(1), inbound.clone()).await.unwrap();
    let at = node.local_addr().to_string();
    let member = |id: u64, address: &str| Member {
        id: NodeId(id),
        incarnation: Incarnation(id),
        address: address.to_owned(),
    };
    // Nothing listens at the other's address, so it has to come by itself.
    let membership = Membership::of_voters(ClusterId(1), [member(1, &at), member(2, "127.0.0.1:1")]);
    node.set_membership(LogId::new(1, 1), &membership, &[]);
    let mut attack = Command::new("sh")
        .args(["-c", "ulimit -S -n 1024 && exec \"$0\" --exact --ignored attack"])
        .arg(std::env::current_exe().unwrap())
        .env("CORACLE_ATTACK", &at)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let log = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                let files: Vec<_> = (0..FILES).map(|_| File::open("/dev/null")).collect();
                assert!(files.iter().all(Result::is_ok), "the log finds no descriptor");
                drop(files);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let mut served = 0;
    while attack.try_wait().unwrap().is_none() {
        let config = TcpConfig { handshake_timeout: Duration::from_secs(1), ..TcpConfig::default() };
        let other = Tcp::bind("127.0.0.1:0", config, local(2), inbound.clone()).await.unwrap();
        other.set_membership(LogId::new(1, 1), &membership, &[]);
        let linked = async {
            while other.peer(local(1).peer).is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, linked).await.expect("a member gets in");
        served += 1;
    }
    assert!(attack.wait().unwrap().success() && served > 0);
    over.store(true, Ordering::Relaxed);
    log.join().unwrap();
    assert_eq!(node.counts().accept_errors, 0, "the system was never asked for too much");
    let gone = async {
        while node.counts().links > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the strangers left nothing");
}

/// What that process does.
#[test]
#[ignore = "the other half of the test above, which starts it"]
fn attack() {
    let at = std::env::var("CORACLE_ATTACK").expect("the address to attack");
    let mut held = std::collections::VecDeque::new();
    for round in 0..1_000u64 {
        let mut stream = std::net::TcpStream::connect(&at).unwrap();
        if round % 2 == 0 {
            let _ = stream.write_all(&hello_of(1_000 + round).encode());
        }
        held.push_back(stream);
        if held.len() > 500 {
            held.pop_front();
        }
    }
}

/// Node `id` of the cluster, which is none of its members, dialing.
fn hello_of(id: u64) -> Hello {
    let facts = Facts {
        protocol: (wire::PROTOCOL_MIN, wire::PROTOCOL_MAX),
        required: 0,
        optional: 0,
        levels: (0, 0),
        cluster: Some(ClusterId(1)),
        from: local(id).peer,
        boot: Boot(id),
        membership: LogId::ZERO,
        max_frame: 1 << 20,
        boot_number: 0,
        boots: Vec::new(),
        address: String::new(),
        names: None,
        metadata: Default::default(),
        machine: 0,
    };
    Hello { facts, to: NodeId(1), to_incarnation: None, purpose: Purpose::Raft }
}
