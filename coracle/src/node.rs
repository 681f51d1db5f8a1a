//! The handle to a running node: what users call.
//!
//! Only what encodes, decodes and starts the machine knows the machine's type; the rest is [`Inner`], and compiled once.

use crate::backup::{Backup, BackupError};
use crate::config::Config;
use crate::duties::Effects;
use crate::entry::Entry;
use crate::error::{
    ChangeError, ConfigurationError, EntryLookupError, Leader, ReadError, SnapshotError, StartError,
    StopReason, TransferError, WriteError,
};
use crate::events::Position;
use crate::freshness::{Freshness, Seen};
use crate::given_up::RebuildError;
use crate::inner::{Handles, Inner};
use crate::launch::{Typed, launch, open_store};
use crate::machine::Machine;
use crate::members::MemberChange;
use crate::open::Opened;
use crate::own_disk::begin;
use crate::reading;
use crate::replicated::Replicated;
use crate::retrying;
use crate::rulings::{Ruling, RulingError, Verdict};
use crate::serving::Understanding;
use crate::session::Session;
use crate::state_machine::StateMachine;
use crate::status::{SnapshotStatus, Status};
use crate::timings::Timings;
use crate::transport::tcp::ProbeError;
use crate::watching::Events;
use crate::work::Way;
use crate::writing;
use coracle_core::{Index, LogId, Membership, NodeId, Term};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// A node of a cluster, running in this process. Clone it freely; all clones are the same node.
///
/// [`start`](Node::start) gives the node three threads: one for consensus and the network, one for the log, one
/// for the state machine (which may run on the caller's runtime instead, see [`Config::machine_thread`]). It
/// runs until [`stop`](Node::stop) is called, the last handle is dropped, or it has to stop by itself
/// ([`stopped`](Node::stopped) tells why). Then its threads, sockets and the lock of its directory are
/// released. Several nodes, of the same or other clusters, may live in one process.
///
/// A handle keeps the node running; what waits for one of its answers does not. The futures of [`write`](Node::write),
/// [`read`](Node::read), [`stop`](Node::stop), [`stopping`](Node::stopping) and [`stopped`](Node::stopped), and the
/// receiver of [`leader_changed`](Node::leader_changed), borrow nothing and are no handles: `tokio::spawn(node.stopped())`
/// watches a node that ends with its last handle. An `async move` block that owns a clone does hold a handle, until the
/// block ends.
pub struct Node<S: StateMachine> {
    pub(crate) inner: Arc<Inner>,
    /// Shared by all handles, and by nothing else.
    handles: Arc<Handles>,
    /// A handle holds no machine, and may go wherever it likes.
    machine: PhantomData<fn(S) -> S>,
}

impl<S: StateMachine> Clone for Node<S> {
    fn clone(&self) -> Node<S> {
        Node { inner: self.inner.clone(), handles: self.handles.clone(), machine: PhantomData }
    }
}

impl<S: StateMachine> fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { me, peer_addr, .. } = &*self.inner;
        f.debug_struct("Node").field("id", &me.id).field("peer_addr", peer_addr).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Node<S> {
    /// Starts a node with a machine that has applied nothing: it takes the state of the newest snapshot, and the log after
    /// that is applied to it again.
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
        config.machine = (S::VERSION, S::SELF_DESCRIBING);
        let opened = open_store(config.clone()).await?;
        Node::launch(config, machine, opened).await
    }

    /// Starts a node on what its store held.
    pub(crate) async fn launch(
        config: Config,
        machine: S,
        mut opened: Opened,
    ) -> Result<Node<S>, StartError> {
        let mut replicated = Replicated::new(machine);
        replicated.broken = config.broken;
        replicated.publishes = config.events_bytes > 0;
        let Opened { files, snapshot, recovered, cluster, .. } = &opened;
        let (files, snapshot, recovered) = (files.clone(), snapshot.clone(), recovered.clone());
        let cluster = *cluster;
        // Off the runtime's threads, since it reads files, and whatever the machine does with them.
        let begun = spawn_blocking(move || {
            let stands = begin(&mut replicated, &*files, snapshot.as_ref(), &recovered, cluster)?;
            Ok::<_, StartError>((replicated, stands))
        });
        let lost = |error| StartError::System {
            action: "bring the state machine to where it begins",
            source: io::Error::other(error),
        };
        let (replicated, stands) = begun.await.map_err(lost)??;
        opened.stands = stands;
        let machine = Typed {
            start: Box::new(move |around| Machine::start(replicated, around)),
            understands: Arc::new(Understanding::<S>::default()),
        };
        let (inner, handles) = launch(config, machine, opened).await?;
        Ok(Node { inner, handles: Arc::new(handles), machine: PhantomData })
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
        let members = members.into_iter().map(|(id, address)| (NodeId(id), address.into()));
        self.inner.bootstrap(members.collect()).await
    }

    /// Changes who takes part, at the leader: by joint consensus, in as many steps as it takes, and waits for each, for
    /// `limit` altogether at most. Returns the membership once it is committed.
    ///
    /// New voters learn first, and vote when they have caught up. A change after which too few of the voters would
    /// answer is refused. Asked for again it succeeds again, so after an error or a dropped future, which leaves done
    /// what is done, ask again.
    pub async fn change_members(
        &self,
        change: MemberChange,
        limit: Duration,
    ) -> Result<Membership, ChangeError> {
        self.inner.change_members(change, limit).await
    }

    /// Has another voter lead, at the leader: this one, or the one that is best prepared. Returns who leads then.
    ///
    /// The target is brought up to date first, while writes go on; then they wait, until it leads, or for an election
    /// timeout at most. No write is lost, done twice, or told to be in doubt. After an error that does not say otherwise the
    /// leader leads on. Takes a few milliseconds where all goes well, and two of the longest election timeouts at most.
    ///
    /// Asked for again, on any node that knows that this one leads, it succeeds again. Dropping the future leaves the
    /// transfer to go its way.
    pub async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        self.inner.transfer_leadership(to).await
    }

    /// Replicates a command, and returns what the state machine replied once it is committed and applied.
    ///
    /// Waits for [`Config::request_timeout`]. Every error but [`Unknown`](WriteError::Unknown) says that the
    /// command certainly was not, and will not be, applied. Dropping the future leaves the outcome unknown. The future
    /// is no handle: if the last one is dropped, it ends with the node.
    pub fn write(
        &self,
        command: S::Command,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        self.write_within(command, self.inner.config.request_timeout)
    }

    /// A [session](Session), through which writes are sent until they are answered, and done once.
    pub fn session(&self) -> Session<S> {
        Session::new(self.inner.clone(), Way::Session)
    }

    /// [`write`](Node::write) in a [session](Session) of its own: sent again and again until it is answered, done once, and
    /// told to be in doubt only where the session cannot know either. For a single command; several that have an order
    /// want a session. A command of a newer version than all members are known to have waits within `limit` until they are, and is
    /// refused as [`NotYet`](WriteError::NotYet) then.
    pub fn write_retrying(
        &self,
        command: S::Command,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        let session = self.session();
        async move { session.write_retrying(command, limit).await }
    }

    /// [`read`](Node::read) that is asked again, for so long, while there is no leader or no room.
    pub fn read_retrying(
        &self,
        query: S::Query,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        retrying::read::<S>(self.inner.clone(), query, limit)
    }

    /// A [session](Session) that is used only where another node leads: there writes go through it and survive the death of
    /// that leader, and where this node leads they go without it and cost no more than [`write`](Node::write). Writes through
    /// one are done in the order of the calls, or not done. For [`Config::forward`].
    pub fn forwarding_session(&self) -> Session<S> {
        Session::new(self.inner.clone(), Way::Lane)
    }

    /// [`write`](Node::write) with a time limit of its own.
    pub fn write_within(
        &self,
        command: S::Command,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        writing::write::<S>(self.inner.clone(), command, limit, Way::Once)
    }

    /// Asks the state machine, on any node, and gets an answer that reflects every write that was completed
    /// anywhere before this call (linearizable; thesis, section 6.4).
    ///
    /// Waits for [`Config::request_timeout`]. Cancel safe: a read changes nothing. The future is no handle: if the last
    /// one is dropped, it ends with the node.
    pub fn read(
        &self,
        query: S::Query,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        self.read_within(query, self.inner.config.request_timeout)
    }

    /// [`read`](Node::read) with a time limit of its own.
    pub fn read_within(
        &self,
        query: S::Query,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        reading::linearizable::<S>(self.inner.clone(), query, limit)
    }

    /// [`read`](Node::read) with a choice of how fresh the answer has to be, which says how fresh it is.
    pub fn read_as(
        &self,
        query: S::Query,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Seen<S::Answer>, ReadError>> + Send + use<S> {
        reading::read::<S>(self.inner.clone(), query, self.inner.config.request_timeout, freshness)
    }

    /// What the state machine publishes, from this place on: each command that takes effect, or what the machine
    /// [emits](crate::Context::emit). The same on every node, whoever leads.
    ///
    /// To know all that happens from a state on: read it, with the entry that it reflects
    /// ([`QueryContext::applied`](crate::QueryContext::applied)), and watch from the entry after that. To go on after a break, here
    /// or at another node: watch from the [`position`](Events::position) that was reached.
    ///
    /// A node remembers the newest [`Config::events_bytes`], and nothing from before the snapshot that it started from. An
    /// event is published once its entry is applied here, so a node that is behind publishes later, and never anything else.
    pub fn events(&self, from: Position) -> Events {
        Events::here(self.inner.clone(), from)
    }

    /// The effects that this node is to carry out: those that the machine has [given](crate::Context::effect) and that no
    /// command has [settled](crate::Context::settle), in the order in which they were given, and only while this node is in
    /// [office](Node::office). Each once for each of its offices; in the next one, on whichever node, those that are still
    /// pending come again. Two of these are each given all of them, so one is enough.
    ///
    /// Carry an effect out, and write a command that says what came of it, whose `apply` settles it. So every effect is
    /// carried out at least once, and more often where a leader dies in between, or does not know yet that another leads: two
    /// nodes may even do it at the same time. What makes that once is the [token](crate::Token), by which the world
    /// outside tells that it has done this already.
    ///
    /// ```
    /// # use coracle::{Node, StateMachine, Token};
    /// # async fn example<S: StateMachine<Command = (Token, bool)>>(node: &Node<S>) {
    /// let mut effects = node.effects();
    /// while let Ok(effect) = effects.next().await {
    ///     let sent = send(&effect.token.to_string(), &effect.payload).await;
    ///     // Where this fails, whoever leads next is given the effect again.
    ///     drop(node.write((effect.token, sent)).await);
    /// #   break;
    /// }
    /// # }
    /// # async fn send(_: &str, _: &[u8]) -> bool { true }
    /// ```
    pub fn effects(&self) -> Effects {
        Effects::of(self.inner.clone())
    }

    /// Whom this node holds for the leader now. It may be out of date: for routing and display, not for decisions.
    pub fn leader(&self) -> Option<Leader> {
        self.inner.leader.borrow().clone()
    }

    /// Whether this node holds itself for the leader now. It may be out of date: another may lead already, in a later term.
    pub fn is_leader(&self) -> bool {
        self.inner.leader.borrow().as_ref().is_some_and(|leader| leader.id == self.inner.me.id)
    }

    /// Tells of each new leader as this node learns of it.
    pub fn leader_changed(&self) -> watch::Receiver<Option<Leader>> {
        self.inner.leader.clone()
    }

    /// Tells when this node takes office, and when it loses it: the term, from when on it leads and its machine has
    /// applied all that was decided before; and `None` when it leads no more, or stops.
    ///
    /// For duties that the leader alone carries out. What it is told is about the past: another node may have taken office
    /// in a later term already, so whatever the duties touch outside of the cluster has to refuse an older term than one
    /// that it has seen. A receiver that is slow sees the newest state only: another term than before means that it was
    /// out of office in between.
    ///
    /// ```
    /// # async fn example<S: coracle::StateMachine>(node: &coracle::Node<S>) {
    /// let mut office = node.office();
    /// while let Ok(term) = office.wait_for(Option::is_some).await.map(|term| *term) {
    ///     tokio::select! {
    ///         () = duties(term) => {}
    ///         _ = office.wait_for(|now| *now != term) => {} // drops what is under way
    ///     }
    /// #   break;
    /// }
    /// # }
    /// # async fn duties(_: Option<coracle::Term>) {}
    /// ```
    pub fn office(&self) -> watch::Receiver<Option<Term>> {
        self.inner.office.clone()
    }

    /// How the node stands, by its own knowledge alone.
    pub async fn status(&self) -> Result<Status, StopReason> {
        self.inner.status().await
    }

    /// Takes a snapshot of this node's state machine now, whatever the policy says, and returns when it is durable and was
    /// read back: up to which entry it stands for the log, and how large it is. It holds at least what the machine had
    /// applied at the call; if the newest one does, it is that one.
    ///
    /// A node that is still applying what its log held at the start takes it afterwards. Waits as long as that, the writing
    /// and the reading take. Cancel safe: the snapshot is taken all the same.
    pub async fn snapshot(&self) -> Result<SnapshotStatus, SnapshotError> {
        self.inner.snapshot().await
    }

    /// The entry at `index` of this node's log, committed or not. For inspection.
    pub async fn get_entry(&self, index: u64) -> Result<Entry, EntryLookupError> {
        self.inner.get_entry(Index(index)).await
    }

    /// Skips an entry that the state machine cannot apply: nothing is done in its place, on any node, for ever. For the leader
    /// of a cluster in which the machine of *every* member has stopped before that entry
    /// ([`Status::machine_stopped`](crate::Status::machine_stopped), and at the leader
    /// [`stopped_machines`](crate::Status::stopped_machines)); members that are gone for good must be removed first. Returns
    /// the entry by which this is ruled, once that is committed: then every machine goes on.
    ///
    /// What the entry was to do is lost, and whoever wrote it was told that its outcome is unknown. Rather upgrade the program
    /// to one that can apply it, and [try it again](Node::retry_entry). Cancel safe: it may be ruled all the same.
    pub async fn skip_entry(&self, entry: LogId) -> Result<LogId, RulingError> {
        self.inner.rule(Ruling { entry, verdict: Verdict::Skip }).await
    }

    /// Has every state machine that has stopped before this entry try it again: after an upgrade of the program to one that
    /// can apply it, or where it failed for a reason that is gone. For the leader. Returns the entry by which this is ruled,
    /// once that is committed. A machine that still cannot apply the entry stops again. Cancel safe: it may be ruled all the
    /// same.
    pub async fn retry_entry(&self, entry: LogId) -> Result<LogId, RulingError> {
        self.inner.rule(Ruling { entry, verdict: Verdict::Retry }).await
    }

    /// Rebuilds the state machine of this node from its leader's: after it was found to differ from that of a majority
    /// ([`Status::fenced`](crate::Status::fenced), [`diverged`](crate::Status::diverged)). From then on until it is done it
    /// applies and answers nothing; the node stores and votes all along, and no write is lost. If it leads, another one takes
    /// over first. Returns the entry up to which it has applied then.
    ///
    /// Waits for so long. After a [`Timeout`](RebuildError::Timeout) it goes on, and may be asked for again. Dropping the
    /// future leaves it to go on, too. A start of the node meanwhile leaves a machine that is not used, until it is asked
    /// for again; unless [`Config::rebuild_diverged`](Config::rebuild_diverged) does it.
    pub async fn rebuild(&self, limit: Duration) -> Result<LogId, RebuildError> {
        self.inner.rebuild(limit).await
    }

    /// A [backup](crate::backup) of the whole cluster, from this node: a snapshot of its state that reflects every write
    /// that was completed anywhere before this call. Any node will do.
    ///
    /// The snapshot that is there is given out if it reflects them all; otherwise another one is written first, which
    /// takes as long as the state is large. Confirming what is newest waits for [`Config::request_timeout`], also for a leader. Dropping the
    /// future changes nothing.
    pub async fn backup(&self) -> Result<Backup, BackupError> {
        retrying::backup(&self.inner, self.inner.config.request_timeout).await
    }

    /// A backup that was given out before, known by its newest entry and the bits that name its file, to go on reading it.
    /// It is [`Gone`](BackupError::Gone) once this node has written two newer ones.
    pub async fn same_backup(&self, last: LogId, file: u64) -> Result<Backup, BackupError> {
        self.inner.same_backup(last, file).await
    }

    /// Asks who is at a peer address (`host:port`), and says which node. A member of this node's cluster that is there on
    /// the disk that the membership names is dialed there too from now on: for a node that was moved while those that it
    /// could ask have moved too. Whoever is a stranger is left alone.
    pub async fn meet(&self, address: &str) -> Result<NodeId, ProbeError> {
        self.inner.meet(address).await
    }

    /// How long the parts of the node take, and how much they do at once, since its start: for metrics.
    pub fn timings(&self) -> Arc<Timings> {
        self.inner.timings.clone()
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
    /// A leader hands over first, if another voter can take over, for a second or so at most. Whoever waits for an answer gets
    /// one. The peers are told, so that they need not wait for a timeout to elect another leader. Stopping a stopped node returns at once.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<S> {
        let inner = self.inner.clone();
        async move {
            inner.stop.send_replace(true);
            inner.stopped().await;
        }
    }

    /// Waits until the node begins to stop, for whatever reason: from then on it takes no requests, while its threads
    /// and its directory are still in use. Returns the reason. Cancel safe. The future is no handle, and keeps nothing
    /// running.
    pub fn stopping(&self) -> impl Future<Output = StopReason> + Send + use<S> {
        let inner = self.inner.clone();
        async move { inner.stopping().await }
    }

    /// Waits until the node has stopped, for whatever reason, and returns it. Cancel safe. The future is no handle, and
    /// keeps nothing running.
    pub fn stopped(&self) -> impl Future<Output = StopReason> + Send + use<S> {
        let inner = self.inner.clone();
        async move { inner.stopped().await }
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
