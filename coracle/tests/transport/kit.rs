//! What the tests share: nodes, a stranger who speaks the protocol by hand, and a wire that can be cut.

use bytes::{Bytes, BytesMut};
use coracle::Proposal;
use coracle::raft::{
    Boot, ClusterId, Envelope, Incarnation, LogId, Member, Membership, Message, NodeId, Peer, ReadIndex, Term,
};
use coracle::transport::tcp::{Local, Tcp, TcpConfig};
use coracle::transport::{Forward, Inbound, PeerMessage};
use coracle::wire::{Decoder, Facts, Hello, Incoming, Purpose};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub(crate) use crate::common::{NEVER, PATIENCE, returns, unless_starved};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc0ffee);
pub(crate) const OTHER: ClusterId = ClusterId(0xbad);
pub(crate) const LOOPBACK: &str = "127.0.0.1:0";

pub(crate) fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: Incarnation(1000 + id) }
}

pub(crate) fn local(id: u64, cluster: Option<ClusterId>) -> Local {
    Local::new(peer(id), Boot(7000 + id), cluster, LogId::ZERO)
}

/// Settings that give up a silent link soon.
pub(crate) fn hasty() -> TcpConfig {
    TcpConfig {
        handshake_timeout: NEVER,
        ping_interval: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(400),
        ..TcpConfig::default()
    }
}

/// Settings that give up a handshake soon.
pub(crate) fn curt() -> TcpConfig {
    TcpConfig { handshake_timeout: Duration::from_millis(200), ..TcpConfig::default() }
}

/// Settings that never give up a link or a handshake.
pub(crate) fn patient() -> TcpConfig {
    TcpConfig {
        connect_timeout: NEVER,
        handshake_timeout: NEVER,
        ping_interval: NEVER,
        idle_timeout: NEVER,
        ..TcpConfig::default()
    }
}

pub(crate) struct Node {
    pub(crate) tcp: Tcp,
    pub(crate) inbox: mpsc::Receiver<Inbound>,
}

impl Node {
    pub(crate) async fn start(local: Local) -> Node {
        Node::at(LOOPBACK, local, TcpConfig::default()).await
    }

    pub(crate) async fn at(address: &str, local: Local, config: TcpConfig) -> Node {
        let (inbound, inbox) = mpsc::channel(16);
        Node { tcp: Tcp::bind(address, config, local, inbound).await.unwrap(), inbox }
    }

    pub(crate) fn address(&self) -> String {
        self.tcp.local_addr().to_string()
    }

    pub(crate) fn knows(&self, list: &[(u64, &str)]) {
        self.tcp.set_membership(LogId::new(1, 1), &members(list), &[]);
    }

    pub(crate) async fn next(&mut self) -> Inbound {
        timeout(PATIENCE, self.inbox.recv()).await.expect("in time").expect("open")
    }

    pub(crate) async fn message(&mut self) -> (Peer, ClusterId, PeerMessage) {
        match self.next().await {
            Inbound::Message { from, cluster, message, .. } => (from, cluster, message),
            other => panic!("a message was expected: {other:?}"),
        }
    }

    /// The next event, in a few words.
    pub(crate) async fn event(&mut self) -> String {
        match self.next().await {
            Inbound::Message { from, .. } => format!("message {}", from.id),
            Inbound::Alarm(alarm) => format!("alarm {}", alarm.about.id),
            Inbound::Client(_) => "client".to_owned(),
            Inbound::Founding { from, .. } => format!("founding {}", from.id),
            Inbound::Disconnected(peer) => format!("disconnected {}", peer.id),
            Inbound::Down(peer) => format!("down {}", peer.id),
            Inbound::Newcomer { newcomer, .. } => format!("newcomer {}", newcomer.from.id),
        }
    }

    /// Sends as soon as there is a connection.
    pub(crate) async fn send(&self, to: Peer, message: PeerMessage) {
        until(|| self.tcp.send(to, message.clone())).await;
    }
}

/// Waits until something holds.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("in time");
}

pub(crate) fn members(list: &[(u64, &str)]) -> Membership {
    let member = |(id, address): &(u64, &str)| Member {
        id: NodeId(*id),
        incarnation: peer(*id).incarnation,
        address: (*address).to_owned(),
    };
    Membership::of_voters(CLUSTER, list.iter().map(member))
}

pub(crate) fn forward(id: u64, length: usize) -> PeerMessage {
    PeerMessage::Forward(Forward {
        id,
        time_left: 100,
        term: Term(4),
        proposal: Proposal::Command(Bytes::from(vec![7; length])),
    })
}

pub(crate) fn raft(from: Peer, to: Peer) -> PeerMessage {
    let message = Message::ReadIndex(ReadIndex { term: Term(1), boot: Boot(2), sequence: 3 });
    let envelope = Envelope { from, to, membership: LogId::ZERO, message };
    PeerMessage::Raft { envelope, entries: Vec::new() }
}

/// Node `from` dialing node `to`, with nothing wrong.
pub(crate) fn hello(from: u64, to: u64) -> Hello {
    let facts = Facts {
        protocol: (2, 2),
        required: 0,
        optional: 0,
        levels: (0, 0),
        cluster: Some(CLUSTER),
        from: peer(from),
        boot: Boot(7000 + from),
        membership: LogId::ZERO,
        max_frame: 64 << 20,
        boot_number: 0,
        boots: Vec::new(),
        address: String::new(),
        names: Some(peer(to)),
        metadata: Bytes::new(),
        machine: 0,
    };
    Hello { facts, to: NodeId(to), to_incarnation: Some(peer(to).incarnation), purpose: Purpose::Raft }
}

/// The frame that answers a ping of this number, at most 127.
pub(crate) fn pong(number: u64) -> Vec<u8> {
    let number = u8::try_from(number).expect("a small number");
    let meta = [8, number];
    let mut bytes = b"CRCL\x01\x06".to_vec();
    bytes.resize(16, 0);
    bytes.extend_from_slice(&2u32.to_le_bytes());
    bytes.extend_from_slice(&0u32.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&meta).to_le_bytes());
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&meta);
    bytes
}

/// Somebody who speaks the protocol by hand.
pub(crate) struct Stranger {
    pub(crate) stream: TcpStream,
    buffer: BytesMut,
    decoder: Decoder,
}

impl Stranger {
    pub(crate) async fn connect(address: &str) -> Stranger {
        Stranger::on(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn on(stream: TcpStream) -> Stranger {
        Stranger { stream, buffer: BytesMut::new(), decoder: Decoder::new(64 << 20) }
    }

    /// Says hello and hears the answer.
    pub(crate) async fn greet(&mut self, hello: &Hello) -> Option<Incoming> {
        self.say(&hello.encode()).await;
        self.hear().await
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame but pings; none at the end of the connection.
    pub(crate) async fn hear(&mut self) -> Option<Incoming> {
        let heard = async {
            loop {
                match self.hear_all().await {
                    Some(Incoming::Ping(_) | Incoming::Pong(_)) => continue,
                    other => return other,
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("in time")
    }

    /// The next frame; none at the end of the connection.
    pub(crate) async fn hear_all(&mut self) -> Option<Incoming> {
        loop {
            if let Some((incoming, _)) = self.decoder.next(&mut self.buffer).unwrap() {
                return Some(incoming);
            }
            if let Ok(0) | Err(_) = self.stream.read_buf(&mut self.buffer).await {
                return None;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Pass,
    /// Nothing moves, and nobody is told.
    Freeze,
    /// The connection is closed.
    Cut,
}

/// A stretch of network between a node and another one: it can be cut, frozen and led elsewhere.
pub(crate) struct Path {
    pub(crate) address: String,
    /// What becomes of the connections that are open now; new ones pass.
    mode: Mutex<watch::Sender<Mode>>,
    to: Mutex<String>,
}

impl Path {
    pub(crate) async fn to(address: &str) -> Arc<Path> {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let path = Arc::new(Path {
            address: listener.local_addr().unwrap().to_string(),
            mode: Mutex::new(watch::Sender::new(Mode::Pass)),
            to: Mutex::new(address.to_owned()),
        });
        let serving = Arc::clone(&path);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let address = serving.to.lock().unwrap().clone();
                let mode = serving.mode.lock().unwrap().subscribe();
                tokio::spawn(carry(near, address, mode));
            }
        });
        path
    }

    fn set(&self, mode: Mode) {
        let old = std::mem::replace(&mut *self.mode.lock().unwrap(), watch::Sender::new(Mode::Pass));
        old.send_replace(mode);
        // The old connections keep what they were told last.
        std::mem::forget(old);
    }

    pub(crate) fn cut(&self) {
        self.set(Mode::Cut);
    }

    pub(crate) fn freeze(&self) {
        self.set(Mode::Freeze);
    }

    pub(crate) fn lead_to(&self, address: &str) {
        *self.to.lock().unwrap() = address.to_owned();
    }
}

async fn carry(mut near: TcpStream, address: String, mut mode: watch::Receiver<Mode>) {
    let Ok(mut far) = TcpStream::connect(address).await else { return };
    let told = {
        let mode = mode.wait_for(|mode| *mode != Mode::Pass);
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => Mode::Cut,
            told = mode => *told.unwrap(),
        }
    };
    if told == Mode::Freeze {
        std::future::pending::<()>().await;
    }
}

/// What went through a connection, in both directions.
pub(crate) struct Tap;

impl Tap {
    /// Where it listens, and what it heard.
    pub(crate) async fn to(address: &str) -> (String, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let (heard, address) = (Arc::new(Mutex::new(Vec::new())), address.to_owned());
        let hears = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&address).await else { return };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(listen(near_in, far_out, Arc::clone(&hears)));
                tokio::spawn(listen(far_in, near_out, Arc::clone(&hears)));
            }
        });
        (here, heard)
    }
}

async fn listen(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    heard: Arc<Mutex<Vec<u8>>>,
) {
    let mut bytes = BytesMut::new();
    while let Ok(1..) = from.read_buf(&mut bytes).await {
        heard.lock().unwrap().extend_from_slice(&bytes);
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
    }
}

/// Collects the warnings of this thread while it lives.
pub(crate) struct Warnings {
    said: Arc<Mutex<Vec<String>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Warnings {
    pub(crate) fn collect() -> Warnings {
        let said = Arc::new(Mutex::new(Vec::new()));
        let guard = tracing::subscriber::set_default(Collector(Arc::clone(&said)));
        Warnings { said, _guard: guard }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn with(&self, part: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

struct Collector(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Collector {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
