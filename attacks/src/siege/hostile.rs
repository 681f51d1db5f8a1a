//! Everything that anybody can do who reaches the ports of a node, all at once and from many addresses.
//!
//! The attackers share one thread of the lowest priority, since they would have computers of their own: what is measured is
//! what a node does with what reaches it. None of them heeds what it is told. Each kind goes on as long as the siege does, and
//! begins again when it is cut off.

use bytes::BytesMut;
use coracle::raft::{Boot, ClusterId, Incarnation, LogId, NodeId, Peer, Term};
use coracle::transport::{Forward, PeerMessage};
use coracle::wire::{self, Decoder, Facts, Frame, Hello, Incoming, Purpose};
use coracle::{Bytes, Proposal};
use coracle_server::client::{Client, Value};
use coracle_server::cluster::{Place, report};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

/// How long one attack on one connection goes on at most, before it begins again.
const ROUND: Duration = Duration::from_secs(20);

/// The pause before it does.
const PAUSE: Duration = Duration::from_millis(50);

/// The key with the longest value.
const LARGE: &str = "large";

/// The length of that value.
const MIB: usize = 1 << 20;

/// What is done, by how many connections at each node.
pub(crate) type Kinds = &'static [(&'static str, usize, Kind)];

/// Everything.
pub(crate) const ALL: Kinds = &[
    ("a million arguments", 10, Kind::Arguments),
    ("as many arguments as are allowed", 10, Kind::AllowedArguments),
    ("replies that are not read", 300, Kind::Unread),
    ("replies that are read a byte at a time", 30, Kind::Trickle),
    ("half commands", 40, Kind::HalfCommand),
    ("large commands", 10, Kind::LargeCommands),
    ("pipelines of 100,000", 4, Kind::Pipeline),
    ("clients that ask on and on", 150, Kind::Crowd),
    ("idle clients", 650, Kind::Idle),
    ("garbage, and gone", 20, Kind::Garbage),
    ("half frames of strangers", 40, Kind::HalfFrame),
    ("half frames in the name of a member", 40, Kind::HalfFrameOfMember),
    ("silence at the peers' port", 260, Kind::SilentPeer),
];

/// Ten times as many as keep a cluster busy, and 2,000 that do nothing or are slow.
pub(crate) const CROWD: Kinds = &[
    ("clients that ask on and on", 10 * BUSY / 3, Kind::Crowd),
    ("replies that are read a byte at a time", 30, Kind::Trickle),
    ("half commands", 40, Kind::HalfCommand),
    ("idle clients", 600, Kind::Idle),
];

/// One that asks for all that it can get.
pub(crate) const GREEDY: Kinds = &[("pipelines of 100,000", 1, Kind::Pipeline)];

/// As many clients keep a cluster busy: with more it does no more.
pub(crate) const BUSY: usize = 64;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Arguments,
    AllowedArguments,
    Unread,
    Trickle,
    HalfCommand,
    LargeCommands,
    Pipeline,
    Crowd,
    Idle,
    Garbage,
    HalfFrame,
    HalfFrameOfMember,
    SilentPeer,
}

/// Writes what the attackers ask for.
pub(crate) fn prepare(place: &Place) -> Result<(), String> {
    let mut client = Client::connect(&place.client_addr, ROUND).map_err(|error| error.to_string())?;
    match client.ask(&[b"SET", LARGE.as_bytes(), &vec![b'x'; MIB]]).map_err(|error| error.to_string())? {
        Value::Simple(_) => Ok(()),
        other => Err(format!("the large value could not be set: {other:?}")),
    }
}

pub(crate) struct Hostile {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<String, String>>,
}

impl Hostile {
    /// Has all this done to each of these nodes.
    pub(crate) fn start(places: Vec<Place>, kinds: Kinds) -> Hostile {
        let stop = Arc::new(AtomicBool::new(false));
        let over = stop.clone();
        let thread = std::thread::spawn(move || {
            // Where it cannot be lowered the siege is only harder.
            let _ = rustix::process::nice(19);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(attack(places, kinds, over)),
                Err(error) => Err(error.to_string()),
            }
        });
        Hostile { stop, thread }
    }

    /// Ends it. What was done; an error if that was nothing.
    pub(crate) fn stop(self) -> Result<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.join().unwrap_or_else(|_| Err("their thread ended".to_owned()));
        done.map_err(|why| format!("there was no attack: {why}"))
    }
}

async fn attack(places: Vec<Place>, kinds: Kinds, over: Arc<AtomicBool>) -> Result<String, String> {
    let done: Rc<RefCell<BTreeMap<&str, u64>>> = Rc::default();
    let local = LocalSet::new();
    let mut number = 0;
    for place in &places {
        let Some(target) = Target::of(place).await else {
            return Err("the nodes do not say who they are".to_owned());
        };
        for &(name, count, kind) in kinds {
            for _ in 0..count {
                number += 1;
                let (target, done) = (target.clone(), done.clone());
                local.spawn_local(async move {
                    loop {
                        // That it was cut off is what should become of it.
                        drop(timeout(ROUND, once(kind, &target, number)).await);
                        *done.borrow_mut().entry(name).or_default() += 1;
                        sleep(PAUSE).await;
                    }
                });
            }
        }
    }
    let until = async {
        while !over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    local.run_until(until).await;
    drop(local);
    let done = done.borrow();
    let told: Vec<_> = done.iter().map(|(name, times)| format!("{name} ({times} rounds)")).collect();
    Ok(told.join(", "))
}

/// Whom to attack.
#[derive(Clone)]
struct Target {
    clients: SocketAddr,
    peers: SocketAddr,
    cluster: ClusterId,
    me: Peer,
    /// The largest frame, nearly.
    frame: Frame,
    /// Another member, whose name anybody can take where no certificates are.
    member: Peer,
}

impl Target {
    async fn of(place: &Place) -> Option<Target> {
        let seen = report(&place.client_addr, ROUND).ok()?;
        let peer = |id: u64| {
            let member = seen.members.iter().find(|member| member.id == id)?;
            let incarnation = Incarnation(u64::from_str_radix(&member.incarnation, 16).ok()?);
            Some(Peer { id: NodeId(id), incarnation })
        };
        let other = seen.members.iter().find(|other| other.id != place.id)?;
        let (me, member) = (peer(place.id)?, peer(other.id)?);
        let (clients, peers) = (place.client_addr.parse().ok()?, place.peer_addr.parse().ok()?);
        let frame = wire::encode(&PeerMessage::Forward(Forward {
            id: 1,
            time_left: 1_000,
            term: Term(1),
            proposal: Proposal::Command(Bytes::from(vec![0; 30 * MIB])),
        }));
        Some(Target { clients, peers, cluster: cluster_of(peers, me).await?, me, frame, member })
    }
}

/// What whoever introduces himself is told.
async fn cluster_of(peers: SocketAddr, me: Peer) -> Option<ClusterId> {
    let mut stream = connect(peers, 0).await.ok()?;
    stream.write_all(&hello(me, stranger(0), None, Purpose::Probe, 1).encode()).await.ok()?;
    let (mut decoder, mut buffer) = (Decoder::new(MIB), BytesMut::new());
    loop {
        if let Some((Incoming::Welcome(welcome), _)) = decoder.next(&mut buffer).ok()? {
            return welcome.facts.cluster;
        }
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// A connection from one of 48 addresses of this computer.
async fn connect(to: SocketAddr, number: u64) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 1, 1 + (number % 48) as u8], 0)))?;
    socket.connect(to).await
}

async fn once(kind: Kind, target: &Target, number: u64) -> io::Result<()> {
    match kind {
        Kind::HalfFrame => return half_frame(target, number, stranger(number)).await,
        Kind::HalfFrameOfMember => return half_frame(target, number, target.member).await,
        Kind::SilentPeer => {
            let mut stream = connect(target.peers, number).await?;
            return stream.read(&mut [0]).await.map(drop);
        }
        _ => {}
    }
    let mut stream = connect(target.clients, number).await?;
    match kind {
        Kind::Arguments => {
            stream.write_all(&command("EXISTS", 1_000_000)).await?;
            stream.read(&mut [0; 64]).await.map(drop)
        }
        Kind::AllowedArguments => loop {
            stream.write_all(&command("MGET", 32_767)).await?;
            read_some(&mut stream).await?;
        },
        Kind::Unread => {
            stream.write_all(format!("GET {LARGE}\r\n").repeat(50).as_bytes()).await?;
            sleep(ROUND).await;
            Ok(())
        }
        Kind::Trickle => {
            stream.write_all(format!("GET {LARGE}\r\n").repeat(50).as_bytes()).await?;
            loop {
                stream.read_exact(&mut [0]).await?;
                sleep(Duration::from_millis(100)).await;
            }
        }
        Kind::HalfCommand => {
            stream.write_all(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1048576\r\n").await?;
            stream.write_all(&vec![b'x'; MIB - 100]).await?;
            for _ in 0..90 {
                stream.write_all(b"x").await?;
                sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Kind::LargeCommands => large_commands(&mut stream, number).await,
        Kind::Pipeline => pipeline(stream, number).await,
        Kind::Crowd => loop {
            stream.write_all(format!("SET crowd:{number} x\r\nGET crowd:{number}\r\n").as_bytes()).await?;
            read_some(&mut stream).await?;
        },
        Kind::Garbage => {
            let garbage: [&[u8]; 4] =
                [b"\x16\x03\x01\x02\x00", b"*-5\r\n$", b"GET \"\r\n", b"*3\r\n$3\r\nSET\r\n"];
            stream.write_all(garbage[(number % 4) as usize]).await
        }
        _ => stream.read(&mut [0]).await.map(drop),
    }
}

/// A command with so many empty arguments.
fn command(name: &str, arguments: usize) -> Vec<u8> {
    let head = format!("*{}\r\n${}\r\n{name}\r\n", arguments + 1, name.len());
    [head.into_bytes(), b"$0\r\n\r\n".repeat(arguments)].concat()
}

async fn read_some(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0; 16 << 10]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// An MSET of 7 MiB, and a SET that answers with the megabyte before; with pauses, since all of it goes to three disks.
async fn large_commands(stream: &mut TcpStream, number: u64) -> io::Result<()> {
    let value = "x".repeat(MIB / 2);
    let mut many = "*29\r\n$4\r\nMSET\r\n".to_owned();
    for part in 0..14 {
        let key = format!("many:{}:{part}", number % 8);
        many += &format!("${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len());
    }
    loop {
        stream.write_all(many.as_bytes()).await?;
        read_some(stream).await?;
        stream.write_all(format!("SET {LARGE}:{} x GET\r\n", number % 8).repeat(100).as_bytes()).await?;
        read_some(stream).await?;
        sleep(Duration::from_secs(2)).await;
    }
}

/// 100,000 commands at once, and all that is answered is taken.
async fn pipeline(stream: TcpStream, number: u64) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let commands = format!("SET pipeline:{number} x\r\n").repeat(1_000);
    let write = async {
        for _ in 0..100 {
            writer.write_all(commands.as_bytes()).await?;
        }
        sleep(Duration::from_secs(1)).await;
        io::Result::Ok(())
    };
    let read = async {
        let mut buffer = vec![0; 64 << 10];
        while reader.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::select! {
        written = write => written,
        ended = read => ended,
    }
}

/// Somebody whom nobody knows.
fn stranger(number: u64) -> Peer {
    Peer { id: NodeId(1_000 + number), incarnation: Incarnation(number) }
}

fn hello(to: Peer, from: Peer, cluster: Option<ClusterId>, purpose: Purpose, boot: u64) -> Hello {
    let facts = Facts {
        protocol: (wire::PROTOCOL_MIN, wire::PROTOCOL_MAX),
        required: 0,
        optional: 0,
        levels: (wire::LEVEL_MIN, wire::LEVEL_MAX),
        cluster,
        from,
        boot: Boot(boot),
        membership: LogId::ZERO,
        max_frame: 64 << 20,
        boot_number: 0,
        boots: Vec::new(),
        address: String::new(),
        names: None,
        metadata: Bytes::new(),
        machine: 0,
    };
    Hello { facts, to: to.id, to_incarnation: Some(to.incarnation), purpose }
}

/// All but the end of the largest frame.
async fn half_frame(target: &Target, number: u64, from: Peer) -> io::Result<()> {
    let mut stream = connect(target.peers, number).await?;
    let hello = hello(target.me, from, Some(target.cluster), Purpose::Raft, number);
    stream.write_all(&hello.encode()).await?;
    read_some(&mut stream).await?;
    stream.write_all(&target.frame.head).await?;
    for part in &target.frame.bulk {
        stream.write_all(&part[..part.len().saturating_sub(1)]).await?;
    }
    stream.read(&mut [0]).await.map(drop)
}
