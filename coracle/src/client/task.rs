//! The loop of a client, and its connections: they turn the [`agent`](super::agent) and decide nothing.
//!
//! One task has the agent; each address that is looked for has a dialer, which runs the connection that it gets.

use super::agent::{Agent, Limits, Patient, Say};
use super::reads::{Outcome, Question};
use super::waiting::Caller;
use crate::config::TICK;
use crate::error::WriteError;
use crate::inbox;
use crate::transport::PeerMessage;
use crate::transport::tcp::TcpConfig;
use crate::transport::visit::{Hears, Said, Speaker, Visit};
use crate::wire::{self, CloseReason, Incoming, WireError};
use bytes::Bytes;
use coracle_core::{Broken, ClusterId, Incarnation, NodeId, Peer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// What is taken in one turn at most.
const TURN: usize = 1_024;

/// What waits to be heard at most; more waits in the sockets.
const HEARD: usize = 1_024;

/// How long the end of a client may take: to end its session, and to say goodbye.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) type Writer = Caller<Result<Bytes, WriteError>>;
pub(super) type Reader = Caller<Outcome>;

impl<T> Patient for Caller<T> {
    fn until(&self) -> u64 {
        self.until
    }
}

/// What a handle asks for.
pub(super) enum Order {
    Write { lane: u32, needs: u16, command: Bytes, until: Instant, caller: Writer },
    Read { question: Question, until: Instant, caller: Reader },
}

impl Order {
    /// The bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Order::Write { command, .. } => command.len(),
            Order::Read { question, .. } => question.query.len(),
        }
    }
}

/// What a dialer tells.
enum Event {
    Connected {
        dialer: u64,
        link: u64,
        address: String,
        peer: Peer,
        cluster: Option<ClusterId>,
        speaker: Speaker,
    },
    Heard(u64, Incoming),
    Ended {
        dialer: u64,
        link: u64,
        address: String,
        why: String,
    },
    Unreachable(String),
}

/// One address that is looked for.
struct Dialer {
    /// Tells it from others of its address.
    id: u64,
    task: AbortHandle,
    /// The connection that there is.
    link: Option<u64>,
}

/// A running client.
pub(super) struct Task {
    agent: Agent<Writer, Reader>,
    orders: inbox::Receiver<Order>,
    /// Told when the last handle is gone.
    over: oneshot::Receiver<()>,
    began: Instant,
    now: u64,
    dialers: BTreeMap<String, Dialer>,
    /// The newest of them.
    newest: u64,
    speakers: BTreeMap<u64, Speaker>,
    tasks: JoinSet<()>,
    events: mpsc::Receiver<Event>,
    dial: Dial,
}

/// What every dialer has.
#[derive(Clone)]
struct Dial {
    me: Peer,
    config: Arc<TcpConfig>,
    links: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    /// The cluster, once it is known.
    cluster: watch::Sender<Option<ClusterId>>,
}

impl Task {
    pub(super) fn new(
        seeds: Vec<String>,
        lifetime: Duration,
        limits: Limits,
        transport: TcpConfig,
        orders: inbox::Receiver<Order>,
        over: oneshot::Receiver<()>,
    ) -> Task {
        // Only to tell clients apart in a log; and so that numbers of different clients differ.
        let name = getrandom::u64().unwrap_or_default();
        let (events_out, events) = mpsc::channel(HEARD);
        let dial = Dial {
            me: Peer { id: NodeId(0), incarnation: Incarnation(name) },
            config: Arc::new(transport),
            links: Arc::default(),
            events: events_out,
            cluster: watch::Sender::new(None),
        };
        let lifetime = lifetime.as_millis() as u64;
        Task {
            agent: Agent::new(seeds, lifetime, limits, name, Broken::default()),
            orders,
            over,
            began: Instant::now(),
            now: 0,
            dialers: BTreeMap::new(),
            newest: 0,
            speakers: BTreeMap::new(),
            tasks: JoinSet::new(),
            events,
            dial,
        }
    }

    /// Runs until the last handle is gone.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.look_around();
        loop {
            let idle = self.agent.is_idle();
            tokio::select! {
                biased;
                _ = &mut self.over => break,
                () = self.orders.rung() => {}
                Some(event) = self.events.recv() => {
                    self.look_at_clock();
                    self.on_event(event);
                }
                _ = ticks.tick(), if !idle => {}
            }
            self.look_at_clock();
            self.take_in();
            self.turn();
        }
        let _ = timeout(PATIENCE, self.say_goodbye()).await;
    }

    fn look_at_clock(&mut self) {
        self.now = self.tick_of(Instant::now());
    }

    fn tick_of(&self, time: Instant) -> u64 {
        (time.saturating_duration_since(self.began).as_nanos() / TICK.as_nanos()) as u64
    }

    /// Takes what else has come in already.
    fn take_in(&mut self) {
        for _ in 0..TURN {
            let Ok(event) = self.events.try_recv() else { break };
            self.on_event(event);
        }
        for order in self.orders.take(TURN) {
            match order {
                Order::Write { lane, needs, command, until, mut caller } => {
                    caller.until = self.tick_of(until) + 1;
                    self.agent.write(lane, needs, command, caller);
                }
                Order::Read { question, until, mut caller } => {
                    caller.until = self.tick_of(until) + 1;
                    self.agent.read(question, caller);
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected { dialer, link, address, peer, cluster, speaker } => {
                // One that was retired ends by itself.
                let Some(dialer) = self.dialers.get_mut(&address).filter(|it| it.id == dialer) else {
                    return;
                };
                if self.agent.on_connected(link, peer, cluster) {
                    dialer.link = Some(link);
                    self.speakers.insert(link, speaker);
                    self.dial.cluster.send_replace(self.agent.cluster);
                } else {
                    // Somebody else is at this address than should be, or will be for a moment.
                    speaker.close(CloseReason::Unneeded, "the client has another connection");
                }
                self.look_around();
            }
            Event::Heard(link, Incoming::Directory(directory)) => {
                self.agent.on_directory(link, directory);
                self.dial.cluster.send_replace(self.agent.cluster);
                self.look_around();
            }
            Event::Heard(link, Incoming::Message(PeerMessage::ForwardReply(reply))) => {
                self.agent.on_reply(link, reply, self.now);
            }
            Event::Heard(_, Incoming::QueryReply(reply)) => self.agent.on_answer(reply, self.now),
            Event::Heard(..) => {}
            Event::Ended { dialer, link, address, why } => {
                self.speakers.remove(&link);
                if let Some(dialer) = self.dialers.get_mut(&address).filter(|it| it.id == dialer) {
                    dialer.link = None;
                }
                self.agent.on_disconnected(link, why, self.now);
                self.look_around();
            }
            Event::Unreachable(why) => self.agent.on_unreachable(why),
        }
    }

    fn turn(&mut self) {
        // What cannot be said may be said otherwise at once, and what is answered then is told.
        loop {
            let actions = self.agent.turn(self.now);
            for (caller, outcome) in actions.writes {
                caller.answer(outcome);
            }
            for (caller, outcome) in actions.reads {
                caller.answer(outcome);
            }
            if actions.say.is_empty() {
                return;
            }
            for (link, say) in actions.say {
                self.say(link, &say);
            }
        }
    }

    fn say(&mut self, link: u64, say: &Say) {
        let frame = match say {
            Say::Write(forward) => wire::encode(&PeerMessage::Forward(forward.clone())),
            Say::Read(query) => query.encode(),
        };
        match self.speakers.get(&link).map_or(Said::Lost, |speaker| speaker.say(frame)) {
            Said::Queued => {}
            Said::TooLarge => self.agent.unsaid(say, Some("it is larger than the node takes"), self.now),
            Said::Lost => self.agent.unsaid(say, None, self.now),
        }
    }

    /// Looks for those who are missing, and for no others.
    fn look_around(&mut self) {
        let wanted = self.agent.wanted();
        let over = |dialer: &Dialer, address: &String| match dialer.link {
            Some(link) => self.agent.is_over(link),
            None => !wanted.contains(address),
        };
        let retired: Vec<String> =
            self.dialers.iter().filter(|(at, it)| over(it, at)).map(|(at, _)| at.clone()).collect();
        for address in retired {
            self.retire(&address);
        }
        for address in wanted {
            if !self.dialers.contains_key(&address) {
                self.newest += 1;
                let task = self.tasks.spawn(keep(self.dial.clone(), self.newest, address.clone()));
                self.dialers.insert(address, Dialer { id: self.newest, task, link: None });
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Looks there no more, and ends the connection that there is.
    fn retire(&mut self, address: &str) {
        let Some(Dialer { task, link, .. }) = self.dialers.remove(address) else { return };
        task.abort();
        if let Some(link) = link {
            self.speakers.remove(&link);
            self.agent.on_disconnected(link, "the node is no member any more".to_owned(), self.now);
        }
    }

    /// Ends the session, so that nobody keeps it, and the connections.
    async fn say_goodbye(&mut self) {
        if let Some((link, say)) = self.agent.end() {
            self.say(link, &say);
        }
        for dialer in self.dialers.values().filter(|dialer| dialer.link.is_none()) {
            dialer.task.abort();
        }
        for speaker in self.speakers.values() {
            speaker.close(CloseReason::Unneeded, "the client has ended");
        }
        while !self.speakers.is_empty() {
            match self.events.recv().await {
                Some(Event::Ended { link, .. }) => drop(self.speakers.remove(&link)),
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// Keeps a connection to whoever is at this address.
async fn keep(dial: Dial, dialer: u64, address: String) {
    let (min, max) = (dial.config.backoff_min, dial.config.backoff_max);
    let mut pause = min;
    loop {
        let cluster = *dial.cluster.borrow();
        match Visit::pay(&address, dial.me, cluster, &dial.config).await {
            Err(error) => {
                tracing::debug!(address, %error, "cannot connect to a node");
                let why = format!("{address}: {error}");
                if dial.events.send(Event::Unreachable(why)).await.is_err() {
                    return;
                }
            }
            Ok((visit, welcome)) => {
                let link = dial.links.fetch_add(1, Ordering::Relaxed);
                let (peer, cluster, speaker) = (welcome.facts.from, welcome.facts.cluster, visit.speaker());
                let at = address.clone();
                let connected = Event::Connected { dialer, link, address: at, peer, cluster, speaker };
                let (events, began) = (dial.events.clone(), Instant::now());
                drop(dial.events.send(connected).await);
                let why = visit.run(&mut Ear { link, events }).await;
                tracing::debug!(address, why, "the connection to a node ended");
                let (address, why) = (address.clone(), format!("{address}: {why}"));
                if dial.events.send(Event::Ended { dialer, link, address, why }).await.is_err() {
                    return;
                }
                if began.elapsed() >= max {
                    pause = min;
                }
            }
        }
        // With jitter, so that clients which lost the same node do not come back in step.
        let part = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
        sleep(pause / 2 + (pause / 2).mul_f64(part)).await;
        pause = (pause * 2).min(max);
    }
}

/// Hears what a node says.
struct Ear {
    link: u64,
    events: mpsc::Sender<Event>,
}

impl Hears for Ear {
    async fn hear(&mut self, incoming: Incoming, _: usize) -> Result<(), WireError> {
        match incoming {
            Incoming::Directory(_)
            | Incoming::QueryReply(_)
            | Incoming::Message(PeerMessage::ForwardReply(_)) => {
                // Without a client there is nobody to hear it, and this task soon ends.
                drop(self.events.send(Event::Heard(self.link, incoming)).await);
                Ok(())
            }
            _ => Err(WireError::Invalid("something else than the answer to a client")),
        }
    }
}
