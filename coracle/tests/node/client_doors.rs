//! What a node's port says to clients that are none of this library's: it keeps its limits, and its peace.

use crate::common::*;
use bytes::{Bytes, BytesMut};
use coracle::client::Client;
use coracle::raft::{Boot, Incarnation, LogId as Id};
use coracle::snapshot::{self, Save};
use coracle::wire::{
    self, Close, CloseReason, Decoder, Directory, Facts, Forward, ForwardReply, Hello, Incoming, Mode,
    PeerMessage, Purpose, Query, QueryReply, Refused, RefusedReason,
};
use coracle::*;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection that says what it likes.
struct Raw {
    stream: TcpStream,
    buffer: BytesMut,
    decoder: Decoder,
}

fn hello() -> Hello {
    let facts = Facts {
        protocol: (wire::PROTOCOL_MIN, wire::PROTOCOL_MAX),
        required: 0,
        optional: wire::FEATURES,
        levels: (wire::LEVEL_MIN, wire::LEVEL_MAX),
        cluster: None,
        from: Peer { id: NodeId(0), incarnation: Incarnation(77) },
        boot: Boot(77),
        membership: Id::ZERO,
        max_frame: 64 << 20,
        boot_number: 0,
        boots: Vec::new(),
        address: String::new(),
        names: None,
        metadata: Bytes::new(),
        machine: 0,
    };
    Hello { facts, to: NodeId(0), to_incarnation: None, purpose: Purpose::Client }
}

impl Raw {
    async fn dial(address: &str) -> Raw {
        let stream = TcpStream::connect(address).await.unwrap();
        Raw { stream, buffer: BytesMut::new(), decoder: Decoder::new(64 << 20) }
    }

    /// Says this Hello; what the answer is.
    async fn greet(address: &str, hello: &Hello) -> (Raw, Incoming) {
        let mut raw = Raw::dial(address).await;
        raw.say(&hello.encode()).await;
        let answer = raw.hear().await.expect("an answer");
        (raw, answer)
    }

    /// One that is served, and what it was told of the cluster.
    async fn served(address: &str) -> (Raw, Directory) {
        let (mut raw, answer) = Raw::greet(address, &hello()).await;
        assert!(matches!(answer, Incoming::Welcome(_)), "{answer:?}");
        let Some(Incoming::Directory(directory)) = raw.hear().await else {
            panic!("a directory comes first")
        };
        (raw, directory)
    }

    async fn say(&mut self, bytes: &[u8]) {
        // Whether the other end still reads is found by hearing.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next frame but for signs of life; none if the connection ended.
    async fn hear(&mut self) -> Option<Incoming> {
        let heard = timeout(PATIENCE, async {
            loop {
                match self.decoder.next(&mut self.buffer).unwrap() {
                    Some((Incoming::Ping(_), _)) => {}
                    Some((incoming, _)) => return Some(incoming),
                    None => match self.stream.read_buf(&mut self.buffer).await {
                        Ok(0) | Err(_) => return None,
                        Ok(_) => {}
                    },
                }
            }
        });
        heard.await.expect("something is heard")
    }

    async fn reply(&mut self) -> ForwardReply {
        match self.hear().await {
            Some(Incoming::Message(PeerMessage::ForwardReply(reply))) => reply,
            other => panic!("a reply was expected: {other:?}"),
        }
    }

    async fn answer(&mut self) -> QueryReply {
        match self.hear().await {
            Some(Incoming::QueryReply(reply)) => reply,
            other => panic!("an answer was expected: {other:?}"),
        }
    }

    async fn write(&mut self, id: u64, term: Term, proposal: Proposal) -> Result<Bytes, WriteError> {
        let forward = PeerMessage::Forward(Forward { id, time_left: 60_000, term, proposal });
        self.say(&wire::encode(&forward).to_bytes()).await;
        let reply = self.reply().await;
        assert_eq!(reply.id, id);
        reply.outcome
    }

    async fn read(&mut self, query: Query) -> Result<Bytes, ReadError> {
        self.say(&query.encode().to_bytes()).await;
        let reply = self.answer().await;
        assert_eq!(reply.id, query.id);
        reply.outcome.map(|seen| seen.answer)
    }
}

fn numbered(session: u64, number: u64, acknowledged: u64, line: &str) -> Proposal {
    let command = Journal::encode_command(&line.to_owned()).unwrap();
    Proposal::Numbered(Numbered { session, lane: 0, number, acknowledged }, Some(command))
}

fn query(id: u64, query: Bytes) -> Query {
    Query { id, time_left: 60_000, mode: Mode::Read(Freshness::Linearizable), query }
}

fn nothing() -> Bytes {
    Journal::encode_query(&()).unwrap()
}

async fn session(raw: &mut Raw, term: Term, lifetime: u64) -> u64 {
    let name = raw.write(1, term, Proposal::Open(lifetime)).await.unwrap();
    u64::from_le_bytes(name.as_ref().try_into().unwrap())
}

/// What a client asks is done where that node leads, in the term that the client knows, and refused elsewhere by name;
/// and nothing that could be done twice is taken.
#[tokio::test]
async fn cs_1_a_numbered_write_is_taken_by_the_leader_and_done_once() {
    let cluster = Cluster::founded(3, false, steady).await;
    let leader = cluster.leader().await;
    let at = |id: u64| &*cluster.addresses[id as usize - 1];
    let (mut raw, directory) = Raw::served(at(leader)).await;
    let Directory { term, leader: Some(named), membership: Some((_, membership)), machine: 1 } = directory
    else {
        panic!("it knows its cluster: {directory:?}")
    };
    assert_eq!((named.id, membership.members.len()), (NodeId(leader), 3));
    let session = session(&mut raw, term, 60_000).await;
    let one = raw.write(2, term, numbered(session, 0, 0, "one")).await.unwrap();
    for id in 3..6 {
        assert_eq!(raw.write(id, term, numbered(session, 0, 0, "one")).await, Ok(one.clone()));
    }
    let gap = raw.write(6, term, numbered(session, 2, 0, "three")).await;
    assert_eq!(gap, Err(WriteError::Session(SessionError::Gap)));
    let other_term = raw.write(7, Term(term.0 + 1), numbered(session, 1, 0, "two")).await;
    assert!(other_term.is_err_and(|error| error.certainly_not_done()));
    let alone = Journal::encode_command(&"alone".to_owned()).unwrap();
    let alone = raw.write(8, term, Proposal::Command(alone)).await;
    assert!(matches!(alone, Err(WriteError::Invalid(_))), "{alone:?}");
    let garbage = Proposal::Numbered(
        Numbered { session, lane: 0, number: 1, acknowledged: 0 },
        Some(Bytes::from_static(b"\xc1 is no message pack")),
    );
    let garbage = raw.write(9, term, garbage).await;
    assert!(matches!(garbage, Err(WriteError::Invalid(_))), "{garbage:?}");

    let (mut other, directory) = Raw::served(at(leader % 3 + 1)).await;
    assert_eq!(directory.leader, Some(named));
    match other.write(10, term, numbered(session, 1, 0, "two")).await {
        Err(WriteError::NotLeader { leader: told }) => {
            assert_eq!((told.id, &*told.address), (named.id, at(leader)));
        }
        outcome => panic!("it names the leader: {outcome:?}"),
    }
    let read = other.read(query(11, nothing())).await.unwrap();
    assert_eq!(Journal::decode_answer(&read).unwrap(), ["one"]);
    let wrong = other.read(query(12, Bytes::from_static(b"\xc1"))).await;
    assert!(matches!(wrong, Err(ReadError::Invalid(_))), "{wrong:?}");
    let later = other.read(Query { mode: Mode::Unknown(99), ..query(13, nothing()) }).await;
    assert!(matches!(later, Err(ReadError::Invalid(_))), "a mode of a newer version: {later:?}");
}

/// A machine that tells the time of its cluster.
#[derive(Default)]
struct Clock {
    time: u64,
    ticks: u64,
}

impl StateMachine for Clock {
    type Command = bool;
    type Reply = ();
    type Query = ();
    type Answer = (u64, u64);

    fn apply(&mut self, context: &mut Context, counts: bool) {
        self.time = context.cluster_time;
        self.ticks += u64::from(counts);
    }

    fn query(&self, _: &QueryContext, (): ()) -> (u64, u64) {
        (self.time, self.ticks)
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save((self.time, self.ticks))
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|(time, ticks)| *self = Clock { time, ticks })
    }
}

/// CS-3: after the end of its session nobody does what comes again, and says so.
#[tokio::test]
async fn cs_3_what_comes_after_the_end_of_its_session_is_never_done() {
    let config = Config::new(1, "127.0.0.1:0", Storage::Memory);
    let node = Node::start(config, Clock::default()).await.unwrap();
    let address = node.peer_addr().to_string();
    node.set_configuration([(1, address.clone())]).await.unwrap();
    let (mut raw, directory) = Raw::served(&address).await;
    let session = session(&mut raw, directory.term, 1_000).await;
    let tick = |number| {
        let command = Clock::encode_command(&true).unwrap();
        Proposal::Numbered(Numbered { session, lane: 0, number, acknowledged: 0 }, Some(command))
    };
    raw.write(2, directory.term, tick(0)).await.unwrap();
    let (began, _) = node.read(()).await.unwrap();
    eventually("its lifetime is over by the clock of the cluster", async || {
        node.write(false).await.ok()?;
        (node.read(()).await.ok()?.0 > began + 1_000).then_some(())
    })
    .await;
    let (mut raw, directory) = Raw::served(&address).await;
    for number in [0, 1] {
        let outcome = raw.write(3, directory.term, tick(number)).await;
        assert_eq!(outcome, Err(WriteError::Session(SessionError::Expired)));
    }
    assert_eq!(node.read(()).await.unwrap().1, 1);
}

/// A frame that a client may not send, and bytes that are no frame, end the connection with a word, and nothing else.
#[tokio::test]
async fn garbage_of_a_client_ends_its_connection_and_nothing_else() {
    let cluster = Cluster::founded(1, false, steady).await;
    cluster.leader().await;
    let address = &cluster.addresses[0];
    let (mut good, _) = Raw::served(address).await;
    let reply = ForwardReply { id: 1, outcome: Ok(Bytes::new()) };
    let mut huge = query(1, vec![0; 100].into()).encode().to_bytes().to_vec();
    huge[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    let checksum = crc32c(&huge[..28]);
    huge[28..32].copy_from_slice(&checksum.to_le_bytes());
    let all = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n more than a header".to_vec(),
        wire::encode(&PeerMessage::ForwardReply(reply)).to_bytes().to_vec(),
        hello().encode().to_vec(),
        Directory::default().encode().to_bytes().to_vec(),
        huge,
    ];
    for garbage in all {
        let (mut raw, _) = Raw::served(address).await;
        raw.say(&garbage).await;
        match raw.hear().await {
            Some(Incoming::Close(Close { reason: CloseReason::Protocol, .. })) => {}
            other => panic!("{garbage:?}: {other:?}"),
        }
        assert_eq!(raw.hear().await, None);
    }
    // In the middle of a frame it just goes.
    let (mut raw, _) = Raw::served(address).await;
    raw.say(&query(1, vec![0; 1_000].into()).encode().to_bytes()[..500]).await;
    drop(raw);
    assert!(good.read(query(1, nothing())).await.is_ok());
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// There are as many places as the settings say, each is free again after its client, and a refusal has a name.
#[tokio::test]
async fn clients_have_places_and_peers_have_others() {
    let cluster = Cluster::founded(1, false, |config| {
        steady(config);
        config.max_clients = 2;
    })
    .await;
    let address = &cluster.addresses[0];
    let refused = async |hello: &Hello| match Raw::greet(address, hello).await.1 {
        Incoming::Refused(Refused { reason, text, .. }) => (reason, text),
        other => panic!("a refusal was expected: {other:?}"),
    };
    let first = Raw::served(address).await;
    let second = Raw::served(address).await;
    assert_eq!(refused(&hello()).await.0, RefusedReason::Busy);
    // Whoever is no client is not meant.
    let mut probe = hello();
    (probe.purpose, probe.to, probe.facts.from.id) = (Purpose::Probe, NodeId(1), NodeId(9));
    assert!(matches!(Raw::greet(address, &probe).await.1, Incoming::Welcome(_)));
    drop(first);
    eventually("its place is free", async || {
        let (_raw, answer) = Raw::greet(address, &hello()).await;
        matches!(answer, Incoming::Welcome(_)).then_some(())
    })
    .await;
    drop(second);
    let mut named = hello();
    named.facts.from.id = NodeId(5);
    assert_eq!(refused(&named).await.0, RefusedReason::BadName);
    let mut strange = hello();
    strange.facts.cluster = Some(ClusterId(12));
    assert_eq!(refused(&strange).await.0, RefusedReason::WrongCluster);
    drop(cluster);

    let cluster = Cluster::blank(1, false, |config| config.max_clients = 0).await;
    let (reason, text) = match Raw::greet(&cluster.addresses[0], &hello()).await.1 {
        Incoming::Refused(Refused { reason, text, .. }) => (reason, text),
        other => panic!("a refusal was expected: {other:?}"),
    };
    assert_eq!((reason, &*text), (RefusedReason::Purpose, "clients are not served here"));
}

/// A client that says a request byte by byte gives its place back in the end, however often a byte comes.
#[tokio::test]
async fn a_client_that_trickles_is_cut_off() {
    let cluster = Cluster::founded(1, false, |config| {
        steady(config);
        config.max_clients = 1;
    })
    .await;
    let (raw, _) = Raw::served(&cluster.addresses[0]).await;
    let frame = query(1, nothing()).encode().to_bytes();
    let (mut reader, mut writer) = raw.stream.into_split();
    let trickle = async {
        // The last byte never comes.
        for byte in frame.slice(..frame.len() - 1) {
            let _ = writer.write_all(&[byte]).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut heard = Vec::new();
    let ended = async {
        tokio::select! {
            _ = reader.read_to_end(&mut heard) => {}
            () = trickle => {}
        }
    };
    timeout(PATIENCE, ended).await.expect("it is cut off");
    assert!(String::from_utf8_lossy(&heard).contains("took too long"), "{heard:?}");
    eventually("its place is free", async || {
        let (_raw, answer) = Raw::greet(&cluster.addresses[0], &hello()).await;
        matches!(answer, Incoming::Welcome(_)).then_some(())
    })
    .await;
}

/// Who asks and does not read fills what answers may take, and is cut off. Others do not notice.
#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let cluster = Cluster::founded(1, false, steady).await;
    cluster.leader().await;
    cluster.node(1).write("x".repeat(1 << 20)).await.unwrap();
    let address = &cluster.addresses[0];
    let good = Client::<Journal>::connect([address]).unwrap();
    let (mut deaf, _) = Raw::served(address).await;
    for id in 0..300 {
        deaf.say(&query(id, nothing()).encode().to_bytes()).await;
    }
    for _ in 0..3 {
        assert!(good.read_within((), PATIENCE).await.is_ok());
    }
    let gone = timeout(PATIENCE, async {
        // What it says to who is gone is answered with a reset.
        while deaf.stream.write_all(&query(1, nothing()).encode().to_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    gone.await.expect("it is cut off");
    assert!(good.read_within((), PATIENCE).await.is_ok());
}

/// The end of a node is told to its clients.
#[tokio::test]
async fn a_node_that_stops_says_so_to_its_clients() {
    let mut cluster = Cluster::founded(1, false, steady).await;
    cluster.leader().await;
    let (mut raw, _) = Raw::served(&cluster.addresses[0]).await;
    cluster.stop(1).await;
    loop {
        match raw.hear().await {
            Some(Incoming::Directory(_)) => {}
            Some(Incoming::Close(Close { reason: CloseReason::Stopping, .. })) => break,
            other => panic!("a goodbye was expected: {other:?}"),
        }
    }
    assert_eq!(raw.hear().await, None);
}
