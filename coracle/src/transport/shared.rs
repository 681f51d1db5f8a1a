//! What the transport's tasks share: who is connected, who is to be dialed, and what is known of the lost.
//!
//! One lock guards it, held for a few instructions and never across an await. A link is registered before
//! its first frame is written and unregistered after its last one was read, so [`Shared::send`] finds the
//! best one by a look into a map.
//!
//! **Finding a dead process** (D5.4.2): a link that ends without a goodbye makes its peer *suspect*,
//! with the boot that it had, and wakes whoever dials it. If the peer's address then refuses, or another boot
//! answers there, that boot is certainly gone and the node is told; if the same boot answers, it was only the
//! network.

mod marks;
mod moves;

use super::alarm::{Alarm, Kept};
use super::budget::Budget;
use super::certificate::Seen;
use super::config::{TcpConfig, descriptors};
use super::handshake::facts;
use super::introduction::{Introduction, Local};
use super::link::{Challenge, End, Link};
use super::notices::{Notices, Whose};
use super::outbox::Outbox;
use super::places::Places;
use super::quiet::Quiet;
use super::{Inbound, PeerMessage};
use crate::storage::met::Met;
use crate::wire::{self, AlarmReason, CloseReason, Facts, Frame, RefusedReason, ping};
use bytes::Bytes;
use coracle_core::{Boot, Broken, ClusterId, Incarnation, LogId, Membership, NodeId, Peer};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// How long a handshake goes on before it may have to give way. 20 ms: a Hello comes with the connection, and what has
/// come is read at once; so a flood gets some thousand connections a second to wait in vain, and a peer gets in.
const MOMENT: Duration = Duration::from_millis(20);
/// How many accepted connections of one peer may be there, though all but the newest are being ended. 16: each ends
/// within two seconds or so, and a peer that comes back has not lost more.
const PER_PEER: usize = 16;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: TcpConfig,
    /// This node, in its present life.
    pub(super) me: Peer,
    /// This boot of it.
    pub(super) boot: Boot,
    /// The share of `inbound_bytes` that is left to members, and that of all others: so no member waits for those.
    pub(super) budget: Arc<Semaphore>,
    pub(super) strangers_budget: Arc<Semaphore>,
    /// Places for sockets that were accepted; each holds one until it is closed.
    pub(super) sockets: Arc<Semaphore>,
    /// The share of `unfinished_bytes` that is left.
    unfinished: Arc<Semaphore>,
    /// What is left for clients.
    pub(super) clients: Budget,
    pub(super) counters: Arc<Counters>,
    /// What was said of the peers that are dialed, by their addresses.
    pub(super) quiet: Quiet,
    /// What was said of those who come.
    pub(super) notices: Notices,
    /// The cluster, once there is one: dialing waits for it.
    pub(super) cluster: watch::Sender<Option<ClusterId>>,
    /// Whether this node was looked for where the membership says that it is, and is not there.
    pub(super) away: AtomicBool,
    /// Set once, by the close: nothing new is registered or told from then on.
    pub(super) closing: AtomicBool,
    /// Rung whenever a link ended.
    pub(super) ended: Notify,
    inbound: mpsc::Sender<Inbound>,
    runtime: Handle,
    tasks: Mutex<Option<JoinSet<()>>>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) local: Local,
    /// The members of its newest membership, and their disks.
    members: BTreeMap<NodeId, Incarnation>,
    /// The newest certificates that members have shown.
    shown: Seen,
    /// The newest boots of those who were met.
    kept: Kept,
    /// Where members are that are not where the membership says.
    pub(super) places: Places,
    /// Every link by its id.
    pub(super) links: BTreeMap<u64, Arc<Link>>,
    /// The links to a peer that messages may take.
    pub(super) routes: BTreeMap<Peer, Route>,
    /// Whom to dial.
    pub(super) targets: BTreeMap<NodeId, Arc<Target>>,
    /// Peers whose link was cut, with the boot that they were in. Only of those who are dialed.
    suspects: BTreeMap<Peer, Boot>,
    /// Accepted connections that have not finished their handshake, oldest first.
    handshakes: BTreeMap<u64, Handshake>,
    /// The next id of a link or a handshake.
    next: u64,
}

/// An accepted connection before its handshake is over.
#[derive(Debug)]
struct Handshake {
    /// Where it comes from.
    source: IpAddr,
    /// Since when.
    start: Instant,
    /// What serves it.
    task: Option<AbortHandle>,
}

/// The links to one peer; at least one is there.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// The one that this node dialed, and the newest one that it accepted.
    pub(super) dialed: Option<Arc<Link>>,
    pub(super) accepted: Option<Arc<Link>>,
    /// The boot of the peer that said it stops: that is told once.
    stopped: Option<Boot>,
}

/// A member to be dialed.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) peer: Peer,
    /// Rung to dial now rather than later, or to see that `unneeded` is set.
    pub(super) wake: Notify,
    /// Set when the member is gone or has moved: its dialer ends.
    pub(super) unneeded: AtomicBool,
}

/// Events since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sent: AtomicU64,
    pub(super) unsent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) misaddressed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) alarms: AtomicU64,
    pub(super) dials: AtomicU64,
}

/// Where a link comes from.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    /// This node dialed it.
    Dialed(&'a Target),
    /// It was accepted from this address, and this is the first frame to be written.
    Accepted(IpAddr, Bytes),
}

/// Why a connection is not taken for a link.
#[derive(Debug)]
pub(super) struct Unwelcome {
    pub(super) reason: RefusedReason,
    pub(super) text: String,
    /// What an operator has to know of it.
    pub(super) alarm: Option<Alarm>,
}

fn unwelcome(reason: RefusedReason, text: &str) -> Unwelcome {
    Unwelcome { reason, text: text.to_owned(), alarm: None }
}

/// What dialing a suspect showed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// Its address refuses connections.
    Nobody,
    /// Someone answered.
    Someone(Peer, Boot),
}

impl Shared {
    pub(super) fn new(config: TcpConfig, local: Local, inbound: mpsc::Sender<Inbound>) -> Shared {
        let config = config.within(descriptors());
        let permits = config.inbound_bytes.min(Semaphore::MAX_PERMITS);
        let unfinished = config.unfinished_bytes.min(Semaphore::MAX_PERMITS);
        Shared {
            me: local.peer,
            boot: local.boot,
            budget: Arc::new(Semaphore::new(permits)),
            strangers_budget: Arc::new(Semaphore::new(permits)),
            sockets: Arc::new(Semaphore::new(config.sockets().min(Semaphore::MAX_PERMITS))),
            unfinished: Arc::new(Semaphore::new(unfinished)),
            clients: Budget::new(&config),
            counters: Arc::default(),
            quiet: Quiet::default(),
            notices: Notices::default(),
            cluster: watch::Sender::new(local.cluster),
            away: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            ended: Notify::new(),
            inbound,
            runtime: Handle::current(),
            tasks: Mutex::new(Some(JoinSet::new())),
            state: Mutex::new(State {
                kept: Kept::new(&local.met),
                places: Places::new(&local.places, Broken::default()),
                local,
                members: BTreeMap::new(),
                shown: Seen::default(),
                links: BTreeMap::new(),
                routes: BTreeMap::new(),
                targets: BTreeMap::new(),
                suspects: BTreeMap::new(),
                handshakes: BTreeMap::new(),
                next: 1,
            }),
            config,
        }
    }

    /// Where all that is heard goes.
    pub(super) fn inbound(&self) -> &mpsc::Sender<Inbound> {
        &self.inbound
    }

    /// What this node says of itself now.
    pub(super) fn local(&self) -> Local {
        self.state().local.clone()
    }

    /// In which boots the disks of the members were met last.
    pub(super) fn met(&self) -> Vec<Met> {
        let state = self.state();
        let peers = state.members.iter().map(|(id, incarnation)| Peer { id: *id, incarnation: *incarnation });
        peers.filter_map(|peer| state.kept.newest(peer)).collect()
    }

    /// What this node says of itself now, and how it says it to that one.
    pub(super) fn facts(&self, to: NodeId) -> (Local, Facts) {
        let state = self.state();
        let names = state.members.get(&to).map(|incarnation| Peer { id: to, incarnation: *incarnation });
        let facts = facts(&state.local, names, &self.config);
        (state.local.clone(), facts)
    }

    /// What the peer said of itself on the link that a message would take.
    pub(super) fn peer(&self, peer: Peer) -> Option<Introduction> {
        self.state().best(peer).map(|link| link.who.clone())
    }

    /// Whose notices are to be told of this one: those of a member are told whatever strangers send. By its name alone, since
    /// a member that comes on another disk, or in the name of another cluster, is what an operator has to know of.
    pub(super) fn whose(&self, id: NodeId) -> Whose {
        if self.state().members.contains_key(&id) { Whose::Member(id) } else { Whose::Stranger }
    }

    /// The same of one that did not say who it is: whoever comes from where a member is, as far as numbers say that.
    pub(super) fn whose_address(&self, source: IpAddr) -> Whose {
        let state = self.state();
        let there = |target: &Target| {
            let addresses = state.places.addresses(target.peer, None);
            addresses
                .iter()
                .any(|address| address.parse::<SocketAddr>().is_ok_and(|known| known.ip() == source))
        };
        let member = state.targets.iter().find(|(_, target)| there(target));
        member.map_or(Whose::Stranger, |(id, _)| Whose::Member(*id))
    }

    /// Whether the newest membership names this node, on this disk.
    pub(super) fn is_member(&self, peer: Peer) -> bool {
        self.state().is_member(peer)
    }

    /// Waits until this many bytes of a stranger's unfinished frame may be held. A frame larger than all that may
    /// waits for all of it.
    pub(super) async fn unfinished(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let most = u32::try_from(self.config.unfinished_bytes).unwrap_or(u32::MAX);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(most);
        Arc::clone(&self.unfinished).acquire_many_owned(permits).await.ok()
    }

    /// Queues a message on the best link to a peer, if whoever is there knows what it is.
    pub(super) fn send(&self, to: Peer, message: PeerMessage) -> bool {
        let link = self.state().best(to).cloned();
        let sent = link.is_some_and(|link| {
            if message.needs() & !link.who.features != 0 {
                return false;
            }
            let Err(message) = link.hand_over(message) else { return true };
            let frame = wire::encode(&message);
            let fits = frame.len() <= link.max_frame;
            fits && match message {
                PeerMessage::Piece { .. } => link.outbox.push_piece(frame),
                _ => link.outbox.push(frame),
            }
        });
        let counter = if sent { &self.counters.sent } else { &self.counters.unsent };
        counter.fetch_add(1, Ordering::Relaxed);
        sent
    }

    /// Tells the node something, once it has room to listen.
    pub(super) async fn tell(&self, inbound: Inbound) {
        if !self.closing.load(Ordering::Relaxed) {
            // Nobody listens any more: the node is gone, and this transport soon will be.
            let _ = self.inbound.send(inbound).await;
        }
    }

    /// Logs an alarm and tells the node, unless it was said a while ago.
    pub(super) async fn alarm(&self, alarm: Alarm) {
        self.counters.alarms.fetch_add(1, Ordering::Relaxed);
        let (remote, reason) = match alarm.told_by {
            Some(by) => (by, format!("{:?}, told", alarm.reason)),
            None => (alarm.about, format!("{:?}", alarm.reason)),
        };
        let named = format!("{} {}", remote.id, remote.incarnation.0);
        let whose = if self.is_member(remote) { Whose::Member(remote.id) } else { Whose::Stranger };
        if self.notices.admit_alarm(whose, &named, &reason) {
            tracing::error!(node = %self.me.id, "{alarm}");
            self.tell(Inbound::Alarm(alarm)).await;
        }
    }

    /// Starts a task that ends with the transport.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = tasks.as_mut()?;
        while tasks.try_join_next().is_some() {}
        Some(tasks.spawn_on(task, &self.runtime))
    }

    /// Takes all tasks, so that no new ones start.
    pub(super) fn take_tasks(&self) -> JoinSet<()> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    // Links.

    /// Enters a link. Refused, if the world has changed since its handshake was judged, if it is one accepted
    /// connection too many, or if whoever has shown its certificate runs on a copy of its directory (D5.2.10): then with the
    /// alarm.
    pub(super) fn register(
        &self,
        facts: &Facts,
        cluster: ClusterId,
        encrypted: bool,
        origin: Origin<'_>,
    ) -> Result<(Arc<Link>, Option<Alarm>), Unwelcome> {
        let mut state = self.state();
        if state.local.cluster.is_some_and(|mine| mine != cluster) {
            return Err(unwelcome(RefusedReason::WrongCluster, "the node has joined another cluster"));
        }
        let (dialed, source, first) = match origin {
            Origin::Dialed(target) if target.unneeded.load(Ordering::Relaxed) => {
                return Err(unwelcome(RefusedReason::Busy, "the node is not dialed any more"));
            }
            Origin::Dialed(_) => (true, None, None),
            Origin::Accepted(source, first) => {
                self.admit(&state, facts.from, source)?;
                (false, Some(source), Some(first))
            }
        };
        if self.closing.load(Ordering::Relaxed) {
            return Err(unwelcome(RefusedReason::Busy, "the node stops"));
        }
        let alarm = state.kept.meet(facts);
        if let Some(alarm) = alarm.as_ref().filter(|alarm| encrypted && alarm.reason == AlarmReason::Copy) {
            let (reason, text) = (RefusedReason::Copy, alarm.to_string());
            return Err(Unwelcome { reason, text, alarm: Some(alarm.clone()) });
        }
        let link = Arc::new(Link {
            id: state.next_id(),
            peer: facts.from,
            boot: facts.boot,
            cluster,
            who: Introduction::new(facts, self.config.features, encrypted),
            dialed,
            source,
            max_frame: facts.max_frame as usize,
            outbox: Outbox::new(self.config.outbox_bytes, self.config.outbox_messages, first),
            direct: OnceLock::new(),
            challenge: Challenge::default(),
        });
        if let Some(alarm) = &alarm {
            link.outbox.push(Frame { head: alarm.encode(), bulk: Vec::new() });
        }
        self.challenge(&state, &link);
        let route = state.routes.entry(link.peer).or_default();
        let place = if link.dialed { &mut route.dialed } else { &mut route.accepted };
        if let Some(old) = place.replace(Arc::clone(&link)) {
            old.challenge.replaced.store(true, Ordering::Relaxed);
            if !old.challenge.is_open() {
                old.close(CloseReason::Replaced, "");
            }
        }
        state.links.insert(link.id, Arc::clone(&link));
        state.tell_places(&link);
        Ok((link, alarm))
    }

    /// Whether one more connection of this peer may be accepted from this address. Where all places are taken, a
    /// member gets that of a connection which is not one's.
    fn admit(&self, state: &State, peer: Peer, source: IpAddr) -> Result<(), Unwelcome> {
        let same = state.links.values().filter(|link| !link.dialed && link.peer == peer).count();
        if same >= PER_PEER {
            return Err(unwelcome(RefusedReason::Busy, "too many connections of this node"));
        }
        let strangers = || state.links.values().filter(|link| !link.dialed && !state.is_member(link.peer));
        let member = state.is_member(peer);
        if !member
            && strangers().filter(|link| link.source == Some(source)).count() >= self.config.max_per_address
        {
            return Err(unwelcome(RefusedReason::Busy, "too many connections from this address"));
        }
        let accepted = state.links.values().filter(|link| !link.dialed && link.outbox.is_open()).count();
        if accepted < self.config.max_connections {
            return Ok(());
        }
        match strangers().find(|link| link.outbox.is_open()) {
            Some(stranger) if member => {
                stranger.close(CloseReason::Unneeded, "a member needs the connection's place");
                Ok(())
            }
            _ => Err(unwelcome(RefusedReason::Busy, "no more connections are taken")),
        }
    }

    /// Asks one older link to the same peer, of another boot, whether that boot is still there. If it answers, two boots
    /// answer for one disk; if not, it is gone, and its end was not noticed yet.
    fn challenge(&self, state: &State, new: &Arc<Link>) {
        let mut others =
            state.links.values().filter(|other| other.peer == new.peer && other.outbox.is_open());
        // One at a time, so that who comes again and again does not leave one behind each time.
        if others.clone().any(|other| other.challenge.is_open()) {
            return;
        }
        let Some(old) = others.find(|other| other.boot != new.boot) else { return };
        old.challenge.set(new);
        old.outbox.push(Frame { head: ping(new.id), bulk: Vec::new() });
        let (old, limit) = (Arc::clone(old), self.config.close_timeout);
        self.spawn(async move {
            // Without an answer it is the link of a boot that is gone.
            let answered = timeout(limit, old.challenge.answered.notified()).await.is_ok();
            old.challenge.end();
            if !answered || old.challenge.replaced.load(Ordering::Relaxed) {
                old.close(CloseReason::Replaced, "another boot of the node has connected");
            }
        });
    }

    /// An old link heard this answer to a ping.
    pub(super) async fn ponged(&self, old: &Link, number: u64) {
        let Some(new) = old.challenge.answer(number) else { return };
        let told = |boot, other| {
            let (about, reason) = (old.peer, AlarmReason::TwoRuns);
            Alarm { told_by: None, about, reason, boot, other, number: 0 }
        };
        let alarm = told(new.boot, old.boot);
        new.outbox.push(Frame { head: alarm.encode(), bulk: Vec::new() });
        old.outbox.push(Frame { head: told(old.boot, new.boot).encode(), bulk: Vec::new() });
        self.alarm(alarm).await;
        old.challenge.answered.notify_one();
    }

    /// Removes a link that ended, and tells the node what that means.
    pub(super) async fn unregister(&self, link: &Link, end: &End) {
        let stopping = matches!(end, End::Closed(close) if close.reason == CloseReason::Stopping);
        let cut = matches!(end, End::Cut | End::Silent);
        let (mut down, mut last) = (false, false);
        {
            let mut state = self.state();
            state.links.remove(&link.id);
            let mut stopped = None;
            if let Some(route) = state.routes.get_mut(&link.peer) {
                for place in [&mut route.dialed, &mut route.accepted] {
                    place.take_if(|other| other.id == link.id);
                }
                down = stopping && route.stopped != Some(link.boot);
                if stopping {
                    route.stopped = Some(link.boot);
                }
                stopped = route.stopped;
            }
            if !state.links.values().any(|other| other.peer == link.peer) {
                state.routes.remove(&link.peer);
                last = true;
            }
            if stopping {
                state.suspects.remove(&link.peer);
            } else if cut && stopped != Some(link.boot) {
                state.suspect(link.peer, link.boot);
            }
        }
        self.ended.notify_waiters();
        if down {
            self.tell(Inbound::Down(link.peer)).await;
        }
        if last {
            self.tell(Inbound::Disconnected(link.peer)).await;
        }
    }

    /// Draws the conclusion from what dialing a peer showed.
    pub(super) async fn answered(&self, peer: Peer, answer: Answer) {
        let gone = {
            let mut state = self.state();
            match (state.suspects.remove(&peer), answer) {
                (None, _) => false,
                (Some(_), Answer::Nobody) => true,
                (Some(boot), Answer::Someone(who, run)) => (who, run) != (peer, boot),
            }
        };
        if gone {
            self.tell(Inbound::Down(peer)).await;
        }
    }

    /// The number of links.
    pub(super) fn links(&self) -> usize {
        self.state().links.len()
    }

    /// Says goodbye on every link, and ends every handshake and every dialer that is not in one.
    pub(super) fn close(&self, reason: CloseReason, text: &str) {
        let mut state = self.state();
        state.links.values().for_each(|link| link.close(reason, text));
        let handshakes = std::mem::take(&mut state.handshakes);
        state.targets.values().for_each(|target| target.retire());
        drop(state);
        handshakes.into_values().filter_map(|handshake| handshake.task).for_each(|task| task.abort());
    }

    // Membership.

    /// Replaces the members to dial. The new ones, and those who moved, are returned.
    pub(super) fn set_targets(
        &self,
        newest: LogId,
        membership: &Membership,
        wanted: &BTreeMap<NodeId, (Peer, String)>,
    ) -> Vec<Arc<Target>> {
        let mut state = self.state();
        state.local.membership = newest;
        let all = membership.outgoing.values().chain(membership.members.values());
        state.members = all.map(|member| (member.id, member.incarnation)).collect();
        self.knows(&mut state, membership);
        let home = membership.members.get(&self.me.id).map(|member| member.address.clone());
        for peer in state.places.settle(home, wanted) {
            let Some(target) = state.targets.remove(&peer.id) else { continue };
            target.retire();
            state.suspects.remove(&target.peer);
            if let Some(link) = state.routes.get(&target.peer).and_then(|route| route.dialed.as_ref()) {
                link.close(CloseReason::Unneeded, "");
            }
        }
        let mut added = Vec::new();
        for (id, (peer, _)) in wanted {
            state.targets.entry(*id).or_insert_with(|| {
                let (wake, unneeded) = (Notify::new(), AtomicBool::new(false));
                let target = Arc::new(Target { peer: *peer, wake, unneeded });
                added.push(Arc::clone(&target));
                target
            });
        }
        added
    }

    /// The node has joined a cluster: whoever talks in the name of another one is sent away.
    pub(super) fn set_cluster(&self, cluster: ClusterId) {
        let mut state = self.state();
        state.local.cluster = Some(cluster);
        for link in state.links.values().filter(|link| link.cluster != cluster) {
            link.close(CloseReason::WrongCluster, "the node has joined another cluster");
        }
        drop(state);
        self.cluster.send_replace(Some(cluster));
    }

    // Handshakes.

    /// Starts the handshake of an accepted connection.
    pub(super) fn start_handshake<F>(self: &Arc<Self>, remote: IpAddr, serve: impl FnOnce(HandshakeSlot) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let id = {
            let mut state = self.state();
            let id = state.next_id();
            state.handshakes.insert(id, Handshake { source: remote, start: Instant::now(), task: None });
            id
        };
        // Without the lock: a task that cannot start is dropped here, and its slot takes the lock.
        let task = self.spawn(serve(HandshakeSlot { shared: Arc::clone(self), id }));
        if let Some(handshake) = self.state().handshakes.get_mut(&id) {
            handshake.task = task;
        }
    }

    /// Cuts off handshakes while there are too many. None of them before it had its moment: a peer says its Hello at
    /// once, and that is heard however many strangers come after it.
    pub(super) async fn thin_out(&self) {
        loop {
            let (evicted, wait) = {
                let mut state = self.state();
                if state.handshakes.len() <= self.config.max_handshakes {
                    return;
                }
                let Some(oldest) = state.oldest_of_greediest() else { return };
                let age = state.handshakes.get(&oldest).map_or(MOMENT, |handshake| handshake.start.elapsed());
                match MOMENT.checked_sub(age).filter(|wait| !wait.is_zero()) {
                    Some(wait) => (None, wait),
                    None => (state.handshakes.remove(&oldest), Duration::ZERO),
                }
            };
            match evicted {
                Some(handshake) => drop(handshake.task.map(|task| task.abort())),
                None => sleep(wait).await,
            }
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn is_member(&self, peer: Peer) -> bool {
        self.members.get(&peer.id) == Some(&peer.incarnation)
    }

    /// The link that a message to a peer takes: one that does not end, rather the one that this node dialed.
    pub(super) fn best(&self, peer: Peer) -> Option<&Arc<Link>> {
        let route = self.routes.get(&peer)?;
        [&route.dialed, &route.accepted].into_iter().flatten().find(|link| link.outbox.is_open())
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Notes that a link to a peer was cut, and has it dialed at once.
    fn suspect(&mut self, peer: Peer, boot: Boot) {
        if let Some(target) = self.targets.get(&peer.id).filter(|target| target.peer == peer) {
            self.suspects.insert(peer, boot);
            target.wake.notify_one();
        }
    }

    /// The oldest handshake of the address that has most of them.
    fn oldest_of_greediest(&self) -> Option<u64> {
        let mut count: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.handshakes.values().for_each(|handshake| *count.entry(handshake.source).or_default() += 1);
        let greediest = count.into_iter().max_by_key(|(_, count)| *count)?.0;
        self.handshakes.iter().find(|(_, handshake)| handshake.source == greediest).map(|(id, _)| *id)
    }
}

impl Target {
    fn retire(&self) {
        self.unneeded.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

/// A place among the unfinished handshakes; dropping it frees the place.
#[derive(Debug)]
pub(super) struct HandshakeSlot {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for HandshakeSlot {
    fn drop(&mut self) {
        self.shared.state().handshakes.remove(&self.id);
    }
}
