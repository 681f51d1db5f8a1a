//! The client of a cluster, for programs that are no member of it: the client interaction of the thesis (chapter 6).
//!
//! A [`Client`] is used like a [`Node`](crate::Node), and both implement [`Access`](crate::Access). Given some addresses of
//! nodes (their *peer* addresses, [`Config::peer_addr`](crate::Config::peer_addr)) it finds the rest by itself: every node
//! tells its clients who leads and who is a member, and tells them again when that changes. It keeps one connection to each
//! node, up to nine of them.
//!
//! ```no_run
//! # use coracle::{Context, QueryContext, StateMachine, snapshot::{self, Save}};
//! # struct Counter(u64);
//! # impl StateMachine for Counter {
//! #     type Command = u64;
//! #     type Reply = u64;
//! #     type Query = ();
//! #     type Answer = u64;
//! #     fn apply(&mut self, _: &mut Context, by: u64) -> u64 { self.0 += by; self.0 }
//! #     fn query(&self, _: &QueryContext, (): ()) -> u64 { self.0 }
//! #     fn snapshot(&self) -> impl Save { snapshot::save(self.0) }
//! #     fn restore(&mut self, from: &mut dyn std::io::Read) -> std::io::Result<()> { snapshot::load(from).map(|n| self.0 = n) }
//! # }
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use coracle::client::Client;
//!
//! let client = Client::<Counter>::connect(["10.0.0.1:7000", "10.0.0.2:7000"])?;
//! let sum = client.write(5).await?;
//! assert!(client.read(()).await? >= sum);
//! # Ok(())
//! # }
//! ```
//!
//! **Writes are done once** (thesis, section 6.3). A client opens a session with the cluster by itself, and numbers what it
//! writes; it sends each write to whoever leads, again and again, until there is an answer or its time is up, and the machines
//! of all nodes take each number once. So the death of a leader, or of a connection, is a pause and no error. What is said of
//! a write in the end is one of three things:
//!
//! - `Ok`: it was done, and this is what the machine replied.
//! - An error other than [`WriteError::Unknown`]: it certainly was not done and never will be. No node was reached
//!   ([`Unreachable`](WriteError::Unreachable)), none led ([`NoLeader`](WriteError::NoLeader)), the cluster had no room
//!   ([`Busy`](WriteError::Busy)) for as long as the write could wait, not all members know such commands
//!   ([`NotYet`](WriteError::NotYet)), or it is [`Invalid`](WriteError::Invalid) in itself.
//! - [`WriteError::Unknown`]: a node was asked to do it, and nothing was heard of it in time, or the session had expired
//!   meanwhile. It may or may not be done, now or later.
//!
//! **Reads are linearizable** (thesis, section 6.4), whichever node answers; one that fails or is late is asked of the next.
//! [`read_as`](Client::read_as) asks for less, and is spread over the nodes: at least up to an entry, to read one's own writes, or
//! within a bound of age.
//!
//! **Watching.** [`events`](Client::events) goes through what the machine publishes, without a gap, whichever nodes die meanwhile.
//!
//! **Time.** Each call has one limit for all that it takes: connecting, looking for the leader, retries. Pauses between
//! retries grow from 10 ms to a third of a second, and those between attempts to connect from 20 ms to a second, with jitter.
//!
//! **Dropping a call's future** is safe. A read is forgotten. A write is done or not: what was not sent within a second after
//! that is not sent any more, and what was sent may be done. What comes after it in its session keeps its place.
//!
//! **What it costs.** One task, one more for each node, a connection to each of them, and no state machine: of the machine's
//! type only those of its commands, replies, queries and answers are used, with their encodings. The last handle that is
//! dropped ends the session and the connections; a call that is under way counts as one. Must be created on a tokio runtime
//! with its time and I/O drivers enabled, and ends with that.
//!
//! A node serves up to [`Config::max_clients`](crate::Config::max_clients) clients. Without
//! [certificates](ClientConfig::tls), whoever reaches the port may write.

pub(crate) mod agent;
pub(crate) mod reads;
mod task;
mod waiting;
mod watch;

use crate::error::{Cause, ReadError, StartError, StopReason, WriteError};
use crate::events::Position;
use crate::freshness::{Freshness, Seen};
use crate::inbox;
use crate::lanes::Lanes;
use crate::state_machine::StateMachine;
use crate::transport::tcp::TcpConfig;
use crate::transport::{MemoryNetwork, Tls};
use crate::watching::Events;
use crate::wire::Mode;
use agent::Limits;
use bytes::Bytes;
use reads::{Outcome, Question};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use task::{Order, Task};
use tokio::sync::oneshot;
use tokio::time::Instant;
use waiting::Caller;
use watch::Watch;

/// The lane of what is written without a session of one's own.
const COMMON: u32 = 0;

/// The longest time that a call waits: more is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How a client behaves. Make one with [`ClientConfig::new`], then change what you need.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The peer addresses of some nodes, as `host:port`: one that answers is enough, and it tells of the others. They are
    /// looked at again whenever no node can be reached.
    pub addresses: Vec<String>,
    /// How long [`write`](Client::write) and [`read`](Client::read) wait altogether. Default 10 s: longer than it takes to
    /// notice the death of a leader and to elect another.
    pub request_timeout: Duration,
    /// How long the client's session outlives its last word, by the cluster's clock: from 1 s to a day. Default 60 s.
    pub session_timeout: Duration,
    /// The certificate of this client, and whom it believes, where nodes have [one](crate::Config::tls). Default none:
    /// connections are plain.
    pub tls: Option<Tls>,
    /// The network in memory that the nodes are [in](crate::Config::network), if they are in one. Default none.
    pub network: Option<MemoryNetwork>,
    /// Calls that may wait; more are [`Busy`](WriteError::Busy). Default 65,536.
    pub max_pending: usize,
    /// Bytes of commands that may wait; more are `Busy`, but a single one may exceed it. Default 64 MiB.
    pub max_pending_bytes: u64,
}

impl ClientConfig {
    /// The settings of a client of the nodes at these addresses, everything else by default.
    pub fn new<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> ClientConfig {
        ClientConfig {
            addresses: addresses.into_iter().map(Into::into).collect(),
            request_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(60),
            tls: None,
            network: None,
            max_pending: 65_536,
            max_pending_bytes: 64 << 20,
        }
    }

    /// Judges every field.
    pub fn validate(&self) -> Result<(), StartError> {
        let is_address = |address: &String| {
            address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
        };
        let rules = [
            ("addresses", self.addresses.is_empty(), "there must be one at least"),
            ("addresses", !self.addresses.iter().all(is_address), "each must be host:port"),
            ("request_timeout", self.request_timeout.is_zero(), "it must not be zero"),
            ("session_timeout", self.session_timeout < Duration::from_secs(1), "it must be at least 1 s"),
            ("session_timeout", self.session_timeout > LONGEST, "it must be at most a day"),
            ("max_pending", self.max_pending == 0, "it must not be zero"),
            ("max_pending_bytes", self.max_pending_bytes == 0, "it must not be zero"),
        ];
        match rules.into_iter().find(|(_, broken, _)| *broken) {
            Some((setting, _, problem)) => Err(StartError::Config { setting, problem: problem.to_owned() }),
            None => Ok(()),
        }
    }
}

/// What all clones share, and the calls that are under way.
struct Shared {
    config: ClientConfig,
    orders: inbox::Sender<Order>,
    lanes: Mutex<Lanes>,
    /// How many watches began, so that they begin at different nodes; the same for reads of any node.
    watches: AtomicU32,
    /// Dropped with the last of them.
    _over: oneshot::Sender<()>,
}

impl Shared {
    async fn write(
        self: Arc<Self>,
        lane: u32,
        needs: u16,
        command: Bytes,
        limit: Duration,
    ) -> Result<Bytes, WriteError> {
        let (caller, answer) = Caller::new();
        let until = Instant::now() + limit.min(LONGEST);
        self.orders.send(Order::Write { lane, needs, command, until, caller }).await.map_err(|refused| {
            match refused {
                inbox::Refused::Full => WriteError::Busy(crate::error::Busy::Requests),
                inbox::Refused::Closed => WriteError::Stopped(StopReason::Requested),
            }
        })?;
        answer.await.unwrap_or(Err(WriteError::Unknown(Cause::Stopped(StopReason::Requested))))
    }

    async fn read(self: Arc<Self>, mode: Mode, query: Bytes, first: u32, limit: Duration) -> Outcome {
        let (caller, answer) = Caller::new();
        let until = Instant::now() + limit.min(LONGEST);
        let question = Question { mode, query, first };
        self.orders.send(Order::Read { question, until, caller }).await.map_err(|refused| match refused {
            inbox::Refused::Full => ReadError::Busy(crate::error::Busy::Requests),
            inbox::Refused::Closed => ReadError::Stopped(StopReason::Requested),
        })?;
        answer.await.unwrap_or(Err(ReadError::Stopped(StopReason::Requested)))
    }
}

/// A handle to a cluster, from outside of it. Clone it freely: all clones share a session and its connections. See the
/// [module](self).
pub struct Client<S: StateMachine> {
    shared: Arc<Shared>,
    machine: PhantomData<fn(S) -> S>,
}

impl<S: StateMachine> Clone for Client<S> {
    fn clone(&self) -> Client<S> {
        Client { shared: self.shared.clone(), machine: PhantomData }
    }
}

impl<S: StateMachine> fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("addresses", &self.shared.config.addresses).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Client<S> {
    /// A client of the nodes at these addresses. It connects by and by; calls wait for that.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn connect<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Result<Client<S>, StartError> {
        Client::start(ClientConfig::new(addresses))
    }

    /// A client with settings of one's own.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(config: ClientConfig) -> Result<Client<S>, StartError> {
        config.validate()?;
        let bytes = usize::try_from(config.max_pending_bytes).unwrap_or(usize::MAX);
        let (orders, taken) =
            inbox::bounded(inbox::Limits { questions: config.max_pending, bytes }, Order::bytes);
        let (_over, over) = oneshot::channel();
        let limits = Limits { calls: config.max_pending, bytes: config.max_pending_bytes };
        let (tls, network) = (config.tls.clone(), config.network.clone());
        let transport = TcpConfig { tls, network, ..TcpConfig::default() };
        let task =
            Task::new(config.addresses.clone(), config.session_timeout, limits, transport, taken, over);
        tokio::spawn(task.run());
        let shared =
            Arc::new(Shared { config, orders, lanes: Mutex::default(), watches: AtomicU32::new(0), _over });
        Ok(Client { shared, machine: PhantomData })
    }

    /// Replicates a command, once, and returns what the state machine replied.
    ///
    /// Waits for [`ClientConfig::request_timeout`]. Every error but [`Unknown`](WriteError::Unknown) says that the command
    /// certainly was not, and will not be, done. Calls that are under way at the same time are done in any order; for an
    /// order take a [`session`](Client::session).
    pub fn write(
        &self,
        command: S::Command,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        self.write_within(command, self.shared.config.request_timeout)
    }

    /// [`write`](Client::write) with a time limit of its own.
    pub fn write_within(
        &self,
        command: S::Command,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        write::<S>(self.shared.clone(), COMMON, command, limit)
    }

    /// Asks the state machine, and gets an answer that reflects every write that was completed anywhere before this call
    /// (linearizable; thesis, section 6.4).
    ///
    /// Waits for [`ClientConfig::request_timeout`]. Cancel safe: a read changes nothing.
    pub fn read(
        &self,
        query: S::Query,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        self.read_within(query, self.shared.config.request_timeout)
    }

    /// [`read`](Client::read) with a time limit of its own.
    pub fn read_within(
        &self,
        query: S::Query,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        let seen = read::<S>(self.shared.clone(), query, limit, Freshness::Linearizable);
        async move { seen.await.map(|seen| seen.answer) }
    }

    /// [`read`](Client::read) with a choice of how fresh the answer has to be, which says how fresh it is. Reads that need not be
    /// linearizable are spread over the nodes. An age counts the way to this client, to within 20 ms.
    pub fn read_as(
        &self,
        query: S::Query,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Seen<S::Answer>, ReadError>> + Send + use<S> {
        read::<S>(self.shared.clone(), query, self.shared.config.request_timeout, freshness)
    }

    /// What the state machine publishes, from this place on: that of [`Node::events`](crate::Node::events), from any node that
    /// remembers it. It goes on at another node when one falls silent, without a gap; [`Compacted`](crate::WatchError::Compacted)
    /// means that none of them remembers.
    ///
    /// Many events come together, 64 at most; each call of that size is a round trip. One that waits costs a small message a second.
    pub fn events(&self, from: Position) -> Events {
        let first = self.shared.watches.fetch_add(1, Ordering::Relaxed);
        Events::of(Watch { shared: self.shared.clone(), first }, from)
    }

    /// A [session](Session), through which writes are done in the order of the calls.
    pub fn session(&self) -> Session<S> {
        let lane = self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner).take();
        Session { client: self.clone(), lane }
    }

    /// The settings that the client was started with.
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }
}

/// Writes that are done once, and in the order of the calls: each call after those that were polled before it.
///
/// Sessions of a client do not wait for each other, and cost a few hundred bytes while they are open. One keeps its client
/// running.
pub struct Session<S: StateMachine> {
    client: Client<S>,
    lane: u32,
}

impl<S: StateMachine> Session<S> {
    /// [`Client::write`], in order.
    pub fn write(
        &self,
        command: S::Command,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        self.write_within(command, self.client.shared.config.request_timeout)
    }

    /// [`write`](Session::write) with a time limit of its own.
    pub fn write_within(
        &self,
        command: S::Command,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        write::<S>(self.client.shared.clone(), self.lane, command, limit)
    }

    /// [`Client::read`]: it reflects every write of this session that was answered.
    pub fn read(
        &self,
        query: S::Query,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        self.client.read(query)
    }

    /// [`read`](Session::read) with a time limit of its own.
    pub fn read_within(
        &self,
        query: S::Query,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        self.client.read_within(query, limit)
    }

    /// [`Client::read_as`].
    pub fn read_as(
        &self,
        query: S::Query,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Seen<S::Answer>, ReadError>> + Send + use<S> {
        self.client.read_as(query, freshness)
    }

    /// [`Client::events`].
    pub fn events(&self, from: Position) -> Events {
        self.client.events(from)
    }

    /// The client that it belongs to.
    pub fn client(&self) -> &Client<S> {
        &self.client
    }
}

impl<S: StateMachine> Drop for Session<S> {
    fn drop(&mut self) {
        self.client.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.lane);
    }
}

impl<S: StateMachine> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("client", &self.client).field("lane", &self.lane).finish()
    }
}

async fn write<S: StateMachine>(
    shared: Arc<Shared>,
    lane: u32,
    command: S::Command,
    limit: Duration,
) -> Result<S::Reply, WriteError> {
    let (needs, encoded) = (S::version_of(&command), S::encode_command(&command)?);
    drop(command);
    let reply = shared.write(lane, needs, encoded, limit).await?;
    // It is done; only what it returned cannot be told.
    S::decode_reply(&reply).map_err(|_| WriteError::Unknown(Cause::ReplyLost))
}

async fn read<S: StateMachine>(
    shared: Arc<Shared>,
    query: S::Query,
    limit: Duration,
    freshness: Freshness,
) -> Result<Seen<S::Answer>, ReadError> {
    let invalid = |error: crate::state_machine::CodecError| ReadError::Invalid(error.to_string());
    let encoded = S::encode_query(&query).map_err(invalid)?;
    drop(query);
    let first = match freshness {
        Freshness::Linearizable => 0,
        _ => shared.watches.fetch_add(1, Ordering::Relaxed),
    };
    let seen = shared.read(Mode::Read(freshness), encoded, first, limit).await?;
    let answer = S::decode_answer(&seen.answer).map_err(invalid)?;
    Ok(Seen { answer, applied: seen.applied, age: seen.age })
}
