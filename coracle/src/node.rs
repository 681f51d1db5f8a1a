//! The handle to a running node: what users call.

use crate::alarms;
use crate::clock;
use crate::config::Config;
use crate::driver::Driver;
use crate::entry::Entry;
use crate::error::*;
use crate::inbox::{self, Refused};
use crate::machine::{Machine, Surroundings};
use crate::open::{Opened, newest_time, open, random, restore};
use crate::replica::Replica;
use crate::replicated::Replicated;
use crate::requests::{Reader, Request, Status, Writer};
use crate::runtime::{Parts, Runtime, Stopped};
use crate::state_machine::StateMachine;
use crate::storage::LogReader;
use crate::transport::tcp::{Local, Tcp, TcpConfig};
use crate::writer;
use coracle_core::*;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

/// Messages that wait for consensus at most; more wait in the sockets.
const INBOUND: usize = 1024;

/// A node of a cluster, running in this process. Clone it freely; all clones are the same node.
///
/// [`start`](Node::start) gives the node three threads: one for consensus and the network, one for the log, one
/// for the state machine (which may run on the caller's runtime instead, see [`Config::machine_thread`]). It
/// runs until [`stop`](Node::stop) is called, the last clone is dropped, or it has to stop by itself
/// ([`stopped`](Node::stopped) tells why). Then its threads, sockets and the lock of its directory are
/// released. Several nodes, of the same or other clusters, may live in one process.
pub struct Node<S: StateMachine> {
    pub(crate) inner: Arc<Inner<S>>,
}

pub(crate) struct Inner<S: StateMachine> {
    pub(crate) config: Config,
    pub(crate) me: Peer,
    peer_addr: SocketAddr,
    pub(crate) requests: inbox::Sender<Request<S>>,
    pub(crate) transport: Arc<Tcp>,
    leader: watch::Receiver<Option<Leader>>,
    stop: watch::Sender<bool>,
    ending: watch::Receiver<Option<StopReason>>,
    stopped: watch::Receiver<Option<StopReason>>,
}

impl<S: StateMachine> Clone for Node<S> {
    fn clone(&self) -> Node<S> {
        Node { inner: self.inner.clone() }
    }
}

impl<S: StateMachine> fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { me, peer_addr, .. } = &*self.inner;
        f.debug_struct("Node").field("id", &me.id).field("peer_addr", peer_addr).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Node<S> {
    /// Starts a node with a machine that has applied nothing: the log is applied to it again.
    ///
    /// Recovers the log, listens for peers and, if the node has a cluster, takes part in it. A node without
    /// one waits: until [`set_configuration`](Node::set_configuration) is called on it, or until a node
    /// of a cluster that names it connects.
    ///
    /// The current tokio runtime must have its time and I/O drivers enabled; one without timers is refused.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(mut config: Config, machine: S) -> Result<Node<S>, StartError> {
        config.validate()?;
        config.machine = (S::VERSION, S::SELF_DESCRIBING);
        // Otherwise every time limit would panic later.
        if catch_unwind(|| drop(sleep(Duration::ZERO))).is_err() {
            let source = io::Error::other("enable_time or enable_all on its Builder gives it some");
            return Err(StartError::System { action: "use a tokio runtime without timers", source });
        }
        // Off the runtime's threads, since it reads files.
        let settings = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&settings)).await;
        let opened = opened.map_err(|error| StartError::System {
            action: "open the store",
            source: io::Error::other(error),
        })??;
        Node::launch(config, machine, opened).await
    }

    /// Starts a node on what its store held.
    pub(crate) async fn launch(config: Config, machine: S, opened: Opened) -> Result<Node<S>, StartError> {
        let (handed, node) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let name = format!("coracle-{}", config.id);
        let own = thread::Builder::new().name(name).spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let own = match own {
                Ok(own) => own,
                Err(source) => {
                    let action = "start the runtime of consensus";
                    return drop(handed.send(Err(StartError::System { action, source })));
                }
            };
            own.block_on(async move {
                match assemble(config, machine, opened, runtime).await {
                    Err(error) => drop(handed.send(Err(error))),
                    Ok((node, runtime)) => {
                        // If nobody takes it, its last handle is gone, and so it stops at once.
                        drop(handed.send(Ok(node)));
                        runtime.run().await;
                    }
                }
            });
            // A read that hangs in the disk does not hold the thread.
            own.shutdown_background();
        });
        own.map_err(|source| StartError::System { action: "start the thread of consensus", source })?;
        let lost = || StartError::System {
            action: "start the node",
            source: io::Error::other("its thread panicked"),
        };
        node.await.map_err(|_| lost())?
    }

    /// Founds a cluster of these nodes, given by name and peer address. Called on one of them, once; the lowest of them
    /// founds it.
    ///
    /// All named nodes must be running and blank; those that are not yet are waited for. The members'
    /// addresses are stored in the replicated log, so they must make sense from all nodes. Returns the
    /// membership once it is committed. Called again with the same list it succeeds again; with another
    /// one it fails with [`AlreadyConfigured`](ConfigurationError::AlreadyConfigured).
    ///
    /// Of lists that share a node one at most founds a cluster, however many are asked for at once and wherever:
    /// each node promises itself to one list, durably, before anything is founded. Where a node is bound to another
    /// list, [`PromisedToAnother`](ConfigurationError::PromisedToAnother) names both. Lists without a common node are
    /// different clusters, and do not know of each other.
    ///
    /// If this node leads, it also waits until all members hold the membership, for a second at most, so
    /// that each of them can be asked at once.
    ///
    /// Dropping the future may or may not leave the cluster founded; calling again tells.
    pub async fn set_configuration<A: Into<String>>(
        &self,
        members: impl IntoIterator<Item = (u64, A)>,
    ) -> Result<Membership, ConfigurationError> {
        self.bootstrap(members.into_iter().map(|(id, address)| (NodeId(id), address.into()))).await
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
        // What cannot be read back would stop every node, now and after each restart.
        S::decode_command(&command)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Write { command, limit, writer: Writer(answer) };
        let asked = async {
            self.inner.requests.send(request).await.map_err(|refused| match refused {
                Refused::Full => WriteError::Busy(Busy::Requests),
                Refused::Closed => WriteError::Stopped(self.stop_reason()),
            })?;
            Ok(answered.await)
        };
        match timeout(limit, asked).await {
            Ok(Ok(Ok(outcome))) => outcome?.decode(),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Err(_))) => Err(WriteError::Unknown(Cause::Stopped(self.stop_reason()))),
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
        let confirmed = Arc::new(AtomicBool::new(false));
        let reader = Reader { answer, confirmed: confirmed.clone() };
        let asked = async {
            self.inner.requests.send(Request::Read { query, reader }).await.map_err(
                |refused| match refused {
                    Refused::Full => ReadError::Busy,
                    Refused::Closed => ReadError::Stopped(self.stop_reason()),
                },
            )?;
            Ok(answered.await)
        };
        match timeout(limit, asked).await {
            Ok(Ok(Ok(outcome))) => outcome,
            Ok(Err(error)) => Err(error),
            Ok(Ok(Err(_))) => Err(ReadError::Stopped(self.stop_reason())),
            Err(_) if confirmed.load(Ordering::Relaxed) => Err(ReadError::Lagging),
            Err(_) => Err(ReadError::Timeout),
        }
    }

    /// Whom this node holds for the leader now. It may be behind: for routing and display, not for decisions.
    pub fn leader(&self) -> Option<Leader> {
        self.inner.leader.borrow().clone()
    }

    /// Whether this node holds itself for the leader now. It may be behind: another may lead already, in a later term.
    pub fn is_leader(&self) -> bool {
        self.inner.leader.borrow().as_ref().is_some_and(|leader| leader.id == self.inner.me.id)
    }

    /// Tells of each new leader as this node learns of it.
    pub fn leader_changed(&self) -> watch::Receiver<Option<Leader>> {
        self.inner.leader.clone()
    }

    /// How the node stands, by its own knowledge alone.
    pub async fn status(&self) -> Result<Status, StopReason> {
        let (answer, answered) = oneshot::channel();
        if self.inner.requests.send_always(Request::Status { answer }).await.is_err() {
            return Err(self.stop_reason());
        }
        answered.await.map_err(|_| self.stop_reason())
    }

    /// The entry at `index` of this node's log, committed or not. For inspection.
    pub async fn get_entry(&self, index: u64) -> Result<Entry, EntryLookupError> {
        let (answer, answered) = oneshot::channel();
        if self.inner.requests.send_always(Request::Entry { index: Index(index), answer }).await.is_err() {
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

    /// Waits until the node begins to stop, for whatever reason: from then on it takes no requests, while its threads
    /// and its directory are still in use. Returns the reason. Cancel safe.
    pub async fn stopping(&self) -> StopReason {
        let mut ending = self.inner.ending.clone();
        match ending.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Requested),
            Err(_) => self.stop_reason(),
        }
    }

    /// Waits until the node has stopped, for whatever reason, and returns it.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.inner.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Requested),
            Err(_) => self.stop_reason(),
        }
    }

    pub(crate) fn stop_reason(&self) -> StopReason {
        let told = self.inner.ending.borrow().clone();
        told.or_else(|| self.inner.stopped.borrow().clone()).unwrap_or(StopReason::Requested)
    }
}

/// Puts a node together, on its own thread and runtime. `callers` is the runtime that it was started on.
async fn assemble<S: StateMachine>(
    config: Config,
    machine: S,
    opened: Opened,
    callers: tokio::runtime::Handle,
) -> Result<(Node<S>, Runtime<S>), StartError> {
    let Opened { store, recovered, disk, incarnation, cluster, boots, fenced, met, promise } = opened;
    let start = boots.count;
    let boot = boots.newest.last().copied().unwrap_or_default();
    let me = Peer { id: config.id, incarnation };
    let reader: Arc<dyn LogReader> = Arc::from(store.reader());
    let newest_time = newest_time(&*reader, &recovered)?;
    let restored = restore(recovered)?;
    let settings = config.core();
    #[cfg_attr(not(feature = "mutants"), expect(unused_mut))]
    let mut raft = Raft::new(me, boot, settings, random()?, restored, clock::now().tick)
        .map_err(|bad| StartError::Config { setting: bad.setting, problem: bad.to_string() })?;
    #[cfg(feature = "mutants")]
    raft.break_rule(config.broken);
    let mut replicated = Replicated::new(machine);
    replicated.broken = config.broken;

    let (inbox, inbound) = mpsc::channel(INBOUND);
    let metadata = config.metadata.clone().into();
    let local = Local {
        boot_number: boots.count,
        boots: boots.newest,
        met,
        metadata,
        ..Local::new(me, boot, cluster, raft.membership_id())
    };
    let transport = Tcp::bind(&config.peer_addr, TcpConfig::default(), local, inbox)
        .await
        .map_err(|source| StartError::Listen { address: config.peer_addr.clone(), source })?;
    let transport = Arc::new(transport);
    transport.set_membership(raft.membership_id(), raft.membership());
    let system = |action| move |source| StartError::System { action, source };
    let (reports_out, reports) = mpsc::unbounded_channel();
    let name = format!("coracle-log-{}", config.id);
    let writer = writer::Writer::start(name, store, disk.clone(), reports_out, config.broken)
        .map_err(system("start the log's thread"))?;

    let (requests_out, requests) = inbox::bounded(config.max_pending);
    let (leader_out, leader) = watch::channel(None);
    let (stop_out, stop) = watch::channel(false);
    let (ending_out, ending) = watch::channel(None);
    let (stopped_out, stopped) = watch::channel(None);
    let (machine_out, machine_reports) = mpsc::unbounded_channel();
    let around = Surroundings {
        on: config.machine_thread,
        runtime: callers,
        name: format!("coracle-app-{}", config.id),
        transport: transport.clone(),
        reports: machine_out,
        ending: ending.clone(),
        disk: disk.clone(),
    };
    let machine = Machine::start(replicated, around).map_err(system("start the machine's thread"))?;
    let inner = Inner {
        config: config.clone(),
        me,
        peer_addr: transport.local_addr(),
        requests: requests_out,
        transport: transport.clone(),
        leader,
        stop: stop_out,
        ending,
        stopped,
    };
    let replica = Replica::new(raft, &config, newest_time);
    let driver = Driver::new(replica, cluster, boot, &config).fenced_at(fenced).remembering(promise, start);
    if let Some(index) = fenced {
        tracing::error!(node = %config.id, %index, "{}", alarms::FENCED);
    }
    let parts = Parts {
        driver,
        machine,
        machine_reports,
        config,
        transport,
        writer,
        reports,
        reader,
        disk,
        requests,
        inbound,
        leader: leader_out,
        stop,
        ending: ending_out,
        stopped: Stopped(stopped_out),
    };
    Ok((Node { inner: Arc::new(inner) }, Runtime::new(parts)))
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
