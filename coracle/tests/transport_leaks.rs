//! SH-2: connections that come and go, well or badly, leave nothing behind.
//!
//! Alone in its program, because it counts the descriptors of the whole process.
#![cfg(target_os = "linux")]

use coracle::core::{Boot, ClusterId, Incarnation, LogId, NodeId, Peer};
use coracle::transport::tcp::{Local, Tcp, TcpConfig};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

fn local(id: u64) -> Local {
    let peer = Peer { id: NodeId(id), incarnation: Incarnation(id) };
    Local { peer, boot: Boot(id), cluster: Some(ClusterId(1)), membership: LogId::ZERO }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn sh_2_a_thousand_connections_leave_nothing() {
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
