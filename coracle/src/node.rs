//! The handle to a running node: what users call.

use crate::applier::Applier;
use crate::clock;
use crate::config::{Config, Storage};
use crate::entry::Entry;
use crate::error::*;
use crate::replica::Replica;
use crate::requests::{Request, Status};
use crate::runtime::{Driver, Parts, Stopped};
use crate::state_machine::StateMachine;
use crate::storage::disk::{DirDisk, Disk, failed};
use crate::storage::engine::{self, Engine, WAL};
use crate::storage::identity::{self, Boots, IDENTITY};
use crate::storage::memory::MemoryStore;
use crate::storage::wal::{self, Wal, WalConfig};
use crate::storage::{Identity, LogStore, Recovered, StoreError};

use crate::transport::tcp::{Local, ProbeError, Tcp, TcpConfig};

use crate::wire::{RefusedReason, check_membership, decode_membership};
use crate::writer::Writer;
use coracle_core::*;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use xxhash_rust::xxh3::Xxh3Default;

/// Messages that wait for the driver at most; more wait in the sockets.
const INBOUND: usize = 1024;

/// The pause between two questions to a node that is not ready to be bootstrapped.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// How long a founder waits, once the membership is committed, until all members hold it.
const EVERYWHERE: Duration = Duration::from_secs(1);

/// A node of a cluster, running in this process. Clone it freely; all clones are the same node.
///
/// [`start`](Node::start) spawns the node on the current tokio runtime, and a thread for its log. It runs
/// until [`stop`](Node::stop) is called, the last clone is dropped, the runtime ends, or it has to stop by
/// itself ([`stopped`](Node::stopped) tells why). Then its threads, sockets and the lock of its directory
/// are released. Several nodes, of the same or other clusters, may live in one process.
pub struct Node<S: StateMachine> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: StateMachine> {
    config: Config,
    me: Peer,
    peer_addr: SocketAddr,
    requests: mpsc::Sender<Request<S>>,
    transport: Arc<Tcp>,
    leader: watch::Receiver<Option<Leader>>,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<Option<StopReason>>,
}

impl<S: StateMachine> Clone for Node<S> {
    fn clone(&self) -> Node<S> {
        Node { inner: self.inner.clone() }
    }
}

impl<S: StateMachine> Node<S> {
    /// Starts a node with a machine that has applied nothing: the log is applied to it again.
    ///
    /// Recovers the log, listens for peers and, if the node has a cluster, takes part in it. A node without
    /// one waits: until [`set_configuration`](Node::set_configuration) is called on it, or until a node
    /// of a cluster that names it connects.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its time and I/O drivers enabled.
    pub async fn start(config: Config, machine: S) -> Result<Node<S>, StartError> {
        config.validate()?;
        let opened = open(&config).await?;
        Node::launch(config, machine, opened).await
    }

    /// Starts a node on what its store held.
    async fn launch(config: Config, machine: S, opened: Opened) -> Result<Node<S>, StartError> {
        let Opened { store, recovered, disk, incarnation, cluster, boots } = opened;
        let boot = boots.newest.last().copied().unwrap_or_default();
        let me = Peer { id: config.id, incarnation };
        let reader: Arc<dyn crate::storage::LogReader> = Arc::from(store.reader());
        let newest_time = newest_time(&*reader, &recovered)?;
        let restored = restore(recovered)?;
        let settings = config.core();
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut))]
        let mut raft = Raft::new(me, boot, settings, random()?, restored, clock::now().tick)
            .map_err(|bad| StartError::Config { setting: bad.setting, problem: bad.to_string() })?;
        #[cfg(feature = "mutants")]
        raft.break_rule(config.broken);
        let mut applier = Applier::new(machine);
        applier.broken = config.broken;

        let (inbox, inbound) = mpsc::channel(INBOUND);
        let metadata = config.metadata.clone().into();
        let local = Local {
            boot_number: boots.count,
            boots: boots.newest,
            metadata,
            ..Local::new(me, boot, cluster, raft.membership_id())
        };
        let transport = Tcp::bind(&config.peer_addr, TcpConfig::default(), local, inbox)
            .await
            .map_err(|source| StartError::Listen { address: config.peer_addr.clone(), source })?;
        let transport = Arc::new(transport);
        transport.set_membership(raft.membership_id(), raft.membership());
        let (reports_out, reports) = mpsc::unbounded_channel();
        let writer = Writer::start(format!("coracle-log-{}", config.id), store, reports_out, config.broken)
            .map_err(|source| StartError::System { action: "start the log's thread", source })?;

        let (requests_out, requests) = mpsc::channel(config.max_pending);
        let (leader_out, leader) = watch::channel(None);
        let (stop_out, stop) = watch::channel(false);
        let (stopped_out, stopped) = watch::channel(None);
        let inner = Inner {
            config: config.clone(),
            me,
            peer_addr: transport.local_addr(),
            requests: requests_out,
            transport: transport.clone(),
            leader,
            stop: stop_out,
            stopped,
        };
        let parts = Parts {
            replica: Replica::new(raft, &config, newest_time),
            applier,
            config,
            transport,
            writer,
            reports,
            reader,
            disk,
            cluster,
            requests,
            inbound,
            leader: leader_out,
            stop,
            stopped: Stopped(stopped_out),
        };
        tokio::spawn(Driver::new(parts).run());
        Ok(Node { inner: Arc::new(inner) })
    }

    /// Founds a cluster of these nodes, given by name and peer address. Called on one of them, once.
    ///
    /// All named nodes must be running and blank; those that are not yet are waited for. The members'
    /// addresses are stored in the replicated log, so they must make sense from all nodes. Returns the
    /// membership once it is committed. Called again with the same list it succeeds again; with another
    /// one it fails with [`AlreadyConfigured`](ConfigurationError::AlreadyConfigured).
    ///
    /// If this node leads, it also waits until all members hold the membership, for a second at most, so
    /// that each of them can be asked at once.
    ///
    /// Dropping the future may or may not leave the cluster founded; calling again tells.
    pub async fn set_configuration<A: Into<String>>(
        &self,
        members: impl IntoIterator<Item = (u64, A)>,
    ) -> Result<Membership, ConfigurationError> {
        let addresses =
            self.check_list(members.into_iter().map(|(id, address)| (NodeId(id), address.into())))?;
        let membership = self.found(&addresses).await?;
        let until = Instant::now() + EVERYWHERE;
        while let Ok(Status { raft, .. }) = self.status().await
            && raft.peers.iter().any(|peer| peer.matched < raft.membership_id.index)
            && Instant::now() < until
        {
            sleep(PROBE_PAUSE / 10).await;
        }
        Ok(membership)
    }

    /// Founds the cluster. Returns the membership once it is committed.
    async fn found(&self, addresses: &BTreeMap<NodeId, String>) -> Result<Membership, ConfigurationError> {
        let deadline = Instant::now() + self.inner.config.bootstrap_timeout;
        let mut incarnations = BTreeMap::new();
        loop {
            // Another member may have been asked too, and be ahead.
            if let Some(existing) = self.existing(addresses, deadline).await? {
                return Ok(existing);
            }
            let missing = self.introduce(addresses, deadline, &mut incarnations).await;
            if missing.is_empty() {
                break;
            }
            if Instant::now() + PROBE_PAUSE >= deadline {
                return Err(ConfigurationError::NotReady(missing));
            }
            sleep(PROBE_PAUSE).await;
        }
        let members = addresses.iter().map(|(id, address)| Member {
            id: *id,
            incarnation: incarnations[id],
            address: address.clone(),
        });
        let members: Vec<Member> = members.collect();
        let membership = Membership::of_voters(name_cluster(&members), members);
        let (answer, answered) = oneshot::channel();
        let request = Request::Bootstrap { membership, answer };
        if self.inner.requests.send(request).await.is_err() {
            return Err(ConfigurationError::Stopped(self.stop_reason()));
        }
        match timeout_at(deadline, answered).await {
            // Between our question and the request somebody else may have founded the same cluster.
            Ok(Ok(Err(ConfigurationError::AlreadyConfigured))) | Ok(Ok(Ok(()))) => {
                self.existing(addresses, deadline).await?.ok_or(ConfigurationError::AlreadyConfigured)
            }
            Ok(Ok(Err(ConfigurationError::Timeout))) => {
                self.existing(addresses, deadline).await?.ok_or(ConfigurationError::Timeout)
            }
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(ConfigurationError::Stopped(self.stop_reason())),
            Err(_) => Err(ConfigurationError::Timeout),
        }
    }

    /// Replicates a command, and returns what the state machine replied once it is committed and applied.
    ///
    /// Waits for [`Config::request_timeout`]. Every error but [`Unknown`](WriteError::Unknown) says that the
    /// command certainly was not, and will not be, applied. Dropping the future leaves the outcome unknown.
    pub async fn write(&self, command: S::Command) -> Result<S::Reply, WriteError> {
        self.write_within(command, self.inner.config.request_timeout).await
    }

    /// [`write`](Node::write) with a time limit of its own.
    pub async fn write_within(&self, command: S::Command, limit: Duration) -> Result<S::Reply, WriteError> {
        let command = S::encode_command(&command)?;
        let max = self.inner.config.max_command_bytes;
        if command.len() > max {
            let problem = format!("it takes {} bytes, and max_command_bytes is {max}", command.len());
            return Err(WriteError::Invalid(problem));
        }
        let (answer, answered) = oneshot::channel();
        match self.inner.requests.try_send(Request::Write { command, limit, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(WriteError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(WriteError::Stopped(self.stop_reason())),
        }
        match timeout(limit, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(WriteError::Unknown(Cause::Stopped(self.stop_reason()))),
            Err(_) => Err(WriteError::Unknown(Cause::Timeout)),
        }
    }

    /// Asks the state machine, on any node, and gets an answer that reflects every write that was completed
    /// anywhere before this call (linearizable; thesis, section 6.4).
    ///
    /// Waits for [`Config::request_timeout`]. Cancel safe: a read changes nothing.
    pub async fn read(&self, query: S::Query) -> Result<S::Answer, ReadError> {
        self.read_within(query, self.inner.config.request_timeout).await
    }

    /// [`read`](Node::read) with a time limit of its own.
    pub async fn read_within(&self, query: S::Query, limit: Duration) -> Result<S::Answer, ReadError> {
        let (answer, answered) = oneshot::channel();
        match self.inner.requests.try_send(Request::Read { query, answer }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(ReadError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(ReadError::Stopped(self.stop_reason())),
        }
        match timeout(limit, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ReadError::Stopped(self.stop_reason())),
            Err(_) => Err(ReadError::Timeout),
        }
    }

    /// Whom this node holds for the leader now. It may be behind: for routing and display, not for decisions.
    pub fn leader(&self) -> Option<Leader> {
        self.inner.leader.borrow().clone()
    }

    /// Tells of each new leader as this node learns of it.
    pub fn leader_changed(&self) -> watch::Receiver<Option<Leader>> {
        self.inner.leader.clone()
    }

    /// How the node stands, by its own knowledge alone.
    pub async fn status(&self) -> Result<Status, StopReason> {
        let (answer, answered) = oneshot::channel();
        if self.inner.requests.send(Request::Status { answer }).await.is_err() {
            return Err(self.stop_reason());
        }
        answered.await.map_err(|_| self.stop_reason())
    }

    /// The entry at `index` of this node's log, committed or not. For inspection.
    pub async fn get_entry(&self, index: u64) -> Result<Entry, EntryLookupError> {
        let (answer, answered) = oneshot::channel();
        if self.inner.requests.send(Request::Entry { index: Index(index), answer }).await.is_err() {
            return Err(EntryLookupError::Stopped(self.stop_reason()));
        }
        answered.await.unwrap_or_else(|_| Err(EntryLookupError::Stopped(self.stop_reason())))
    }

    /// The settings that the node was started with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The address that the node listens on for its peers.
    pub fn peer_addr(&self) -> SocketAddr {
        self.inner.peer_addr
    }

    /// Stops the node, and returns when its threads, sockets and the lock of its directory are released.
    ///
    /// Whoever waits for an answer gets one. The peers are told, so that they need not wait for a timeout
    /// to elect another leader. Stopping a stopped node returns at once.
    pub async fn stop(&self) {
        self.inner.stop.send_replace(true);
        self.stopped().await;
    }

    /// Waits until the node has stopped, for whatever reason, and returns it.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.inner.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Requested),
            Err(_) => self.stop_reason(),
        }
    }

    fn stop_reason(&self) -> StopReason {
        self.inner.stopped.borrow().clone().unwrap_or(StopReason::Requested)
    }

    fn check_list(
        &self,
        members: impl Iterator<Item = (NodeId, String)>,
    ) -> Result<BTreeMap<NodeId, String>, ConfigurationError> {
        let invalid = |problem: String| Err(ConfigurationError::Invalid(problem));
        let mut addresses = BTreeMap::new();
        for (id, address) in members {
            if id.0 == 0 {
                return invalid("a node's name is at least 1".to_owned());
            }
            if address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return invalid(format!("the address {address:?} of node {id} is not host:port"));
            }
            if addresses.insert(id, address).is_some() {
                return invalid(format!("node {id} is in it twice"));
            }
        }
        let member = |(id, address): (&NodeId, &String)| Member {
            id: *id,
            incarnation: Incarnation::default(),
            address: address.clone(),
        };
        if !addresses.is_empty() {
            let membership = Membership::of_voters(ClusterId::default(), addresses.iter().map(member));
            check_membership(&membership).map_err(|error| ConfigurationError::Invalid(error.to_string()))?;
        }
        let me = self.inner.me.id;
        if addresses.contains_key(&me) {
            Ok(addresses)
        } else {
            invalid(format!("node {me}, which is asked, is not in it"))
        }
    }

    /// The membership, if the node has one already: the same list is waited for until it is committed.
    async fn existing(
        &self,
        addresses: &BTreeMap<NodeId, String>,
        deadline: Instant,
    ) -> Result<Option<Membership>, ConfigurationError> {
        loop {
            let status = self.status().await.map_err(ConfigurationError::Stopped)?;
            let membership = status.raft.membership;
            if status.cluster.is_none() {
                return Ok(None);
            }
            if !membership.is_empty() {
                let members = membership.members.values();
                let same = members.map(|m| (&m.id, &m.address)).eq(addresses.iter());
                if !same || membership.voters.len() != addresses.len() {
                    return Err(ConfigurationError::AlreadyConfigured);
                }
                if status.raft.commit >= status.raft.membership_id.index {
                    return Ok(Some(membership));
                }
            }
            // It belongs to a cluster, but what is in force was not committed or received yet.
            if Instant::now() >= deadline {
                return Err(ConfigurationError::Timeout);
            }
            sleep(PROBE_PAUSE / 10).await;
        }
    }

    /// Shakes hands with all nodes that are not known yet, itself included, since others will dial its address
    /// too. Takes down the incarnations of those that are there and blank; returns the others, and why.
    async fn introduce(
        &self,
        addresses: &BTreeMap<NodeId, String>,
        deadline: Instant,
        incarnations: &mut BTreeMap<NodeId, Incarnation>,
    ) -> Vec<(NodeId, String)> {
        let me = self.inner.me;
        let mut missing = Vec::new();
        for (id, address) in addresses {
            if incarnations.contains_key(id) {
                continue;
            }
            let why = match timeout_at(deadline, self.inner.transport.probe(address, *id)).await {
                // Whoever dials itself is told that its name is taken: so the address is right.
                Ok(Err(ProbeError::Refused { reason: RefusedReason::OwnName, .. })) if *id == me.id => {
                    incarnations.insert(*id, me.incarnation);
                    continue;
                }
                Ok(Ok(introduction)) if introduction.cluster.is_none() => {
                    incarnations.insert(*id, introduction.peer.incarnation);
                    continue;
                }
                Ok(Ok(_)) => "it belongs to a cluster already".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            missing.push((*id, why));
        }
        missing
    }
}

/// What a store gave when it was opened.
struct Opened {
    store: Box<dyn LogStore>,
    recovered: Recovered,
    disk: Option<Arc<dyn Disk>>,
    incarnation: Incarnation,
    cluster: Option<ClusterId>,
    /// The starts of the directory, this one last.
    boots: Boots,
}

/// Opens and recovers the store, off the runtime's thread: a long log takes a while.
async fn open(config: &Config) -> Result<Opened, StartError> {
    let (id, storage, segment_bytes) = (config.id, config.storage.clone(), config.segment_bytes);
    let broken = config.broken;
    let (incarnation, boots) = (Incarnation(random()?), Boots { count: 1, newest: vec![Boot(random()?)] });
    let opening = tokio::task::spawn_blocking(move || match storage {
        Storage::Memory => {
            let mut store = MemoryStore::new();
            let recovered = store.load(&mut |_| {})?;
            Ok(Opened { store: Box::new(store), recovered, disk: None, incarnation, cluster: None, boots })
        }
        Storage::Dir(path) => open_dir(id, incarnation, &path, Keeper::Wal { segment_bytes, broken }),
        Storage::Engine { dir, engine } => open_dir(id, incarnation, &dir, Keeper::Engine(engine)),
    });
    match opening.await {
        Ok(opened) => opened,
        Err(error) => Err(StartError::System { action: "open the store", source: io::Error::other(error) }),
    }
}

/// What keeps the log of a data directory.
enum Keeper {
    Wal { segment_bytes: u64, broken: Broken },
    Engine(Arc<dyn Engine>),
}

impl Keeper {
    fn name(&self) -> &str {
        match self {
            Keeper::Wal { .. } => WAL,
            Keeper::Engine(engine) => engine.name(),
        }
    }

    /// Whether the directory holds a log. Where there is no identity, a log of whatever store counts: a new
    /// identity must not begin a second log beside it.
    fn log_exists(&self, disk: &dyn Disk) -> Result<bool, StoreError> {
        let names = disk.list().map_err(failed("list", disk.path()))?;
        if !names.iter().any(|name| name == IDENTITY) {
            let engines = names.iter().any(|name| name.starts_with(engine::DIRECTORY));
            return Ok(engines || wal::exists(disk)?);
        }
        match self {
            Keeper::Wal { .. } => wal::exists(disk),
            Keeper::Engine(engine) => engine.exists(&engine::directory(disk.path(), engine.name())),
        }
    }

    fn open(&self, disk: &Arc<dyn Disk>, identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
        match self {
            Keeper::Wal { segment_bytes, broken } => {
                let config = WalConfig { segment_bytes: *segment_bytes, ..WalConfig::default() };
                let mut wal = Wal::open(disk.clone(), identity, config);
                wal.broken = *broken;
                Ok(Box::new(wal))
            }
            Keeper::Engine(engine) => engine.open(&engine::directory(disk.path(), engine.name()), identity),
        }
    }
}

fn open_dir(
    id: NodeId,
    fresh: Incarnation,
    path: &std::path::Path,
    keeper: Keeper,
) -> Result<Opened, StartError> {
    let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(path)?);
    wal::tidy(&*disk)?;
    let exists = keeper.log_exists(&*disk)?;
    let mut identity = identity::open_or_create_with(&*disk, id, keeper.name(), exists, || fresh)?;
    let mut store = keeper.open(&disk, identity)?;
    let began = Instant::now();
    let mut told = Duration::ZERO;
    let recovered = store.load(&mut |share| {
        // Most starts take no time worth a line.
        if began.elapsed() >= told + Duration::from_secs(1) {
            told = began.elapsed();
            tracing::info!(node = %id, percent = (share * 100.0) as u32, "reading the log");
        }
    })?;
    // A log that begins late is right only if a snapshot reaches it, and there are none yet.
    if recovered.purged != LogId::ZERO {
        let detail = format!("the log begins behind {}, and no snapshot reaches it", recovered.purged);
        return Err(StoreError::Damaged { path: path.to_owned(), offset: 0, detail }.into());
    }
    // A founder names the cluster in its identity only after its first entry was durable.
    if identity.cluster.is_none()
        && let Some((entry, payload)) = recovered.memberships.last()
    {
        let membership = decode(*entry, payload)?;
        identity = identity::set_cluster(&*disk, membership.cluster)?;
    }
    let draw = || Boot(getrandom::u64().expect("the system gives random bits"));
    let boots = identity::begin_run(&*disk, draw)?;
    Ok(Opened {
        store,
        recovered,
        boots,
        disk: Some(disk),
        incarnation: identity.incarnation,
        cluster: identity.cluster,
    })
}

pub(crate) fn restore(recovered: Recovered) -> Result<Restored, StartError> {
    let Recovered { hard_state, purged, last, runs, memberships } = recovered;
    let memberships = memberships.iter().map(|(id, payload)| Ok((*id, decode(*id, payload)?)));
    let memberships = memberships.collect::<Result<_, StartError>>()?;
    Ok(Restored { hard_state, purged, runs, last: last.index, memberships })
}

fn decode(id: LogId, payload: &[u8]) -> Result<Membership, StartError> {
    decode_membership(payload).map_err(|error| StartError::Membership { id, problem: error.to_string() })
}

/// The cluster time of the newest entry, from which a leader's clock goes on.
pub(crate) fn newest_time(
    reader: &dyn crate::storage::LogReader,
    recovered: &Recovered,
) -> Result<u64, StartError> {
    let Recovered { purged, last, .. } = recovered;
    if last.index <= purged.index {
        return Ok(0);
    }
    match reader.entries(last.index, last.index, 0) {
        Ok(entries) => Ok(entries.first().map_or(0, |entry| entry.stamp().cluster_time)),
        Err(crate::storage::ReadLogError::Store(error)) => Err(error.into()),
        Err(error) => Err(StoreError::Refused(format!("the newest entry {last}: {error}")).into()),
    }
}

fn random() -> Result<u64, StartError> {
    getrandom::u64()
        .map_err(|error| StartError::System { action: "draw random bits", source: io::Error::other(error) })
}

/// The name of the cluster that these members, on these disks, found.
///
/// It is as random as their incarnations, and the same whichever of them is asked: so two that are asked at
/// once found one cluster, with the very same first entry, and not two that exclude each other.
fn name_cluster(members: &[Member]) -> ClusterId {
    let mut hash = Xxh3Default::new();
    hash.update(b"coracle cluster");
    for Member { id, incarnation, address } in members {
        hash.update(&id.0.to_le_bytes());
        hash.update(&incarnation.0.to_le_bytes());
        hash.update(&(address.len() as u64).to_le_bytes());
        hash.update(address.as_bytes());
    }
    ClusterId(hash.digest128())
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
