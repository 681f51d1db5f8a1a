#![allow(clippy::result_large_err, reason = "a message is given back as it was")]

use super::*;
use crate::wire::ForwardReply;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HERE: &str = "10.0.0.1:1";
const THERE: &str = "10.0.0.2:1";

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// Both ends of a connection from `HERE` to `THERE`, and what keeps it possible.
async fn connected(network: &MemoryNetwork) -> (MemoryStream, MemoryStream, Listener) {
    let (mut listener, address) = network.listen(THERE).unwrap();
    assert_eq!(address, at(THERE));
    let here = network.clone().seen_from(at(HERE)).connect(THERE).unwrap();
    let (there, from) = listener.accept().await;
    assert_eq!(from, at(HERE));
    (here, there, listener)
}

fn kind(result: io::Result<MemoryStream>) -> io::ErrorKind {
    result.expect_err("no connection").kind()
}

#[tokio::test]
async fn bytes_arrive_in_order_and_then_the_end() {
    let network = MemoryNetwork::new();
    let (mut here, mut there, _listener) = connected(&network).await;
    // More than may wait: the writer waits for the reader.
    let sent: Vec<u8> = (0..3 * IN_FLIGHT).map(|byte| byte as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        here.writer.write_all(&sent).await.unwrap();
        here.writer.shutdown().await.unwrap();
        here
    });
    let mut heard = Vec::new();
    there.reader.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, expected);
    drop(writing.await.unwrap());
    let broken = there.writer.write_all(b"anybody?").await.unwrap_err();
    assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn an_address_is_one_listener_s_until_that_is_gone() {
    let network = MemoryNetwork::new();
    let (listener, _) = network.listen(HERE).unwrap();
    assert_eq!(network.listen(HERE).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    MemoryNetwork::new().listen(HERE).expect("another network has addresses of its own");
    let (_other, chosen) = network.listen("10.0.0.1:0").unwrap();
    assert_ne!(chosen, at(HERE));
    assert_eq!(kind(network.connect(THERE)), io::ErrorKind::ConnectionRefused);
    drop(listener);
    assert_eq!(kind(network.connect(HERE)), io::ErrorKind::ConnectionRefused);
    network.listen(HERE).expect("it is free again");
    assert_eq!(kind(network.connect("localhost:1")), io::ErrorKind::InvalidInput);
}

/// A stranger that dials and dials takes no more memory than the backlog.
#[tokio::test]
async fn connections_that_nobody_takes_are_bounded() {
    let network = MemoryNetwork::new();
    let (_listener, _) = network.listen(THERE).unwrap();
    let connections: Vec<_> = (0..BACKLOG).map(|_| network.connect(THERE).unwrap()).collect();
    assert_eq!(kind(network.connect(THERE)), io::ErrorKind::TimedOut);
    assert_eq!(connections.len(), BACKLOG);
}

#[tokio::test]
async fn what_is_cut_ends_at_once_and_stays_apart_until_it_is_healed() {
    let network = MemoryNetwork::new();
    let (mut here, mut there, _listener) = connected(&network).await;
    let (_bystander, _) = network.listen("10.0.0.3:1").unwrap();
    let (from_here, from_there) = (network.clone().seen_from(at(HERE)), network.clone().seen_from(at(THERE)));
    here.writer.write_all(b"lost").await.unwrap();
    network.cut(at(THERE), at(HERE));
    let mut heard = Vec::new();
    assert_eq!(there.reader.read_to_end(&mut heard).await.unwrap(), 0, "{heard:?}");
    assert_eq!(here.reader.read_to_end(&mut heard).await.unwrap(), 0, "{heard:?}");
    assert!(here.writer.write_all(b"more").await.is_err());
    assert_eq!(kind(from_here.connect(THERE)), io::ErrorKind::HostUnreachable);
    from_here.connect("10.0.0.3:1").expect("others are not concerned");
    network.connect(THERE).expect("nor is a client");
    network.heal(at(HERE), at(THERE));
    from_here.connect(THERE).unwrap();
    network.isolate(at(THERE));
    for network in [&from_here, &network] {
        assert_eq!(kind(network.connect(THERE)), io::ErrorKind::HostUnreachable);
    }
    assert_eq!(kind(from_there.connect("10.0.0.3:1")), io::ErrorKind::HostUnreachable);
    network.heal_all();
    from_there.connect("10.0.0.3:1").unwrap();
}

fn message() -> PeerMessage {
    PeerMessage::ForwardReply(ForwardReply { id: 7, outcome: Ok(bytes::Bytes::from_static(b"done")) })
}

#[tokio::test]
async fn a_message_passes_an_open_door_as_it_is_and_no_other() {
    let network = MemoryNetwork::new();
    let (here, there, _listener) = connected(&network).await;
    let (speaker, hearer) = (here.writer.direct(), there.writer.direct());
    assert_eq!(speaker.hand_over(message()), Err(message()), "nobody hears yet");
    let heard = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&heard);
    hearer.hear(move |message| match counter.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(()),
        _ => Err(message),
    });
    assert_eq!(speaker.hand_over(message()), Ok(()));
    assert_eq!(speaker.hand_over(message()), Err(message()), "there is no room");
    assert_eq!(heard.load(Ordering::Relaxed), 2);
    network.cut(at(HERE), at(THERE));
    assert_eq!(speaker.hand_over(message()), Err(message()), "it is cut");
    hearer.hear(|_| Ok(()));
    assert_eq!(speaker.hand_over(message()), Err(message()), "nor does it open again");
    assert_eq!(heard.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_door_closes_with_its_end() {
    let network = MemoryNetwork::new();
    let (here, there, _listener) = connected(&network).await;
    let speaker = here.writer.direct();
    there.writer.direct().hear(|_| Ok(()));
    assert_eq!(speaker.hand_over(message()), Ok(()));
    drop(there);
    assert_eq!(speaker.hand_over(message()), Err(message()));
}
