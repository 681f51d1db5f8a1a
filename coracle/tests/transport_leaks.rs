//! Descriptors: connections that come and go leave none behind (SH-2), and running out of them ends nothing
//! (TR-7).
//!
//! Apart from the other tests, and one at a time, because both are about those of the whole process.
#![cfg(target_os = "linux")]

use coracle::core::{Boot, ClusterId, Incarnation, LogId, NodeId, Peer};
use coracle::transport::tcp::{Local, Tcp, TcpConfig};
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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
async fn sh_2_a_thousand_connections_leave_nothing() {
    let _alone = ALONE.lock().await;
    let (inbound, _inbox) = mpsc::channel(16);
    let node = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(1), inbound.clone()).await.unwrap();
    let other = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(2), inbound).await.unwrap();
    let at = node.local_addr().to_string();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = (descriptors(), tasks());
    for round in 0..250 {
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
    tokio::time::timeout(Duration::from_secs(10), clean).await.unwrap_or_else(|_| {
        panic!("{before:?} descriptors and tasks before, {:?} after", (descriptors(), tasks()))
    });
    assert_eq!(node.counts().links, 0);
    node.close().await;
    other.close().await;
    assert_eq!(tasks(), 0);
}

/// Runs the test below in a process of its own that may open 64 descriptors.
#[test]
fn tr_7_running_out_of_descriptors_ends_nothing() {
    let _alone = ALONE.blocking_lock();
    let test = "run_out_of_descriptors";
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" --exact --ignored \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
#[ignore = "needs a process with few descriptors: the test above runs it"]
async fn run_out_of_descriptors() {
    let patience = Duration::from_secs(10);
    let (inbound, _inbox) = mpsc::channel(16);
    let node = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(1), inbound.clone()).await.unwrap();
    let other = Tcp::bind("127.0.0.1:0", TcpConfig::default(), local(2), inbound).await.unwrap();
    let mut connections = Vec::new();
    while let Ok(stream) = TcpStream::connect(node.local_addr()).await {
        connections.push(stream);
        assert!(connections.len() < 1000, "the limit is not in force");
    }
    let refused = async {
        while node.counts().accept_errors == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(patience, refused).await.expect("accepting fails too");
    drop(connections);
    let back = async {
        while other.probe(&node.local_addr().to_string(), NodeId(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(patience, back).await.expect("and works again");
}
