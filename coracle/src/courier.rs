//! A node's own session: carries writes to whoever leads, again and again, until they are answered (D5.6.2).
//!
//! Each caller's write gets the next number of its lane and is kept until its answer is here. All of it goes to the
//! leader, in order; when there is another leader, when a connection ends, or when something was refused, whatever has no
//! answer goes again, from the oldest on. The [sessions](crate::sessions) of the machine see to it that nothing of that is
//! done twice or out of order. So a leader's death is a pause to those who wait here, and no error.
//!
//! A passive structure: the driver tells it who leads, and gives it the answers.

use crate::error::{Cause, SessionError, WriteError};
use crate::proposal::{Numbered, Proposal};
use crate::work::Waits;
use bytes::Bytes;
use coracle_core::{Broken, Peer, Term};
use std::collections::{BTreeMap, VecDeque};

/// Whom the writes go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum To {
    /// This node leads, in this term.
    Here(Term),
    /// Another node does.
    Peer(Peer, Term),
}

/// Writes that were refused go again after so many ticks, then after twice as many, and so on, up to the most.
const PAUSE: u64 = 1;
const LONGEST_PAUSE: u64 = 32;

/// What has no answer from another node after so many ticks goes again, since the answer may be lost; then after twice as
/// many, and so on, up to the most.
const PATIENCE: u64 = 200;
const MOST_PATIENCE: u64 = 3200;

/// For so many ticks a session is asked for again where not all members are known to know sessions: they may be met yet.
const GRACE: u64 = 100;

/// So many writes of a lane are under way at most.
const WINDOW: usize = 512;

/// What waits in a lane.
struct Lane<W> {
    /// The number of the first that waits.
    first: u64,
    waiting: VecDeque<Waiting<W>>,
    /// How many of them, from the first on, went to the leader that there is now.
    sent: usize,
    /// How many may be under way: one after a refusal, and twice as many with each answer.
    window: usize,
    /// After how many ticks without an answer the first goes again.
    patience: u64,
    /// Nothing goes before this tick, and how long the pause was.
    rests: (u64, u64),
    /// Why the newest that was refused was, since the last answer.
    refused: Option<WriteError>,
}

struct Waiting<W> {
    /// None once its caller has given up, or was told.
    caller: Option<W>,
    /// None: its number is to be taken by nothing.
    command: Option<Bytes>,
    /// Whether it was sent before the newest time, in this session: then it may have been done.
    in_doubt: bool,
    /// The newest time that it was sent, and at which tick.
    flight: Option<u64>,
    sent_at: u64,
    /// Its answer has come, and that of one before it has not.
    answered: bool,
}

impl<W> Waiting<W> {
    fn new(command: Bytes, caller: W) -> Waiting<W> {
        let (caller, command) = (Some(caller), Some(command));
        Waiting { caller, command, in_doubt: false, flight: None, sent_at: 0, answered: false }
    }
}

enum Session {
    /// There is none.
    None,
    /// One is being opened.
    Opening,
    Open {
        id: u64,
        /// When it was heard last, as far as that is known here.
        heard: u64,
    },
    /// It has expired. What was sent in it is waited for, each by itself.
    Over,
}

/// What came of something that was sent, for those who wait.
pub(crate) struct Heard<W> {
    /// Answers to callers.
    pub(crate) answers: Vec<(W, Result<Bytes, WriteError>)>,
    /// Writes that cannot be carried in a session, since the cluster has no use of sessions: never sent.
    pub(crate) back: Vec<(W, Bytes)>,
}

impl<W> Default for Heard<W> {
    fn default() -> Heard<W> {
        Heard { answers: Vec::new(), back: Vec::new() }
    }
}

/// The session, and who waits in it.
pub(crate) struct Courier<W> {
    session: Session,
    /// What the session is opened for, in milliseconds.
    lifetime: u64,
    lanes: BTreeMap<u32, Lane<W>>,
    /// What was sent to the leader that there is now, by its number there: which command of which lane. None: the opening.
    flights: BTreeMap<u64, Option<(u32, u64)>>,
    to: Option<To>,
    /// How many wait, and about how many bytes their commands have.
    waiting: usize,
    bytes: u64,
    /// Nothing at all goes before this tick, and how long the pause was.
    rests: (u64, u64),
    /// Since when a session is being opened, or is over, and for how many ticks that is waited for.
    since: u64,
    patience: u64,
    /// Why the newest opening of a session was refused.
    refused: Option<WriteError>,
    /// Whether what waits here can go no other way, and so waits on where the cluster has no use of sessions, yet.
    only_way: bool,
    /// Since when a session was refused for want of members that know what it is.
    unsupported: Option<u64>,
    heard: Heard<W>,
    broken: Broken,
}

impl<W: Waits> Courier<W> {
    /// `lifetime`: of its sessions, in milliseconds.
    pub(crate) fn new(lifetime: u64, broken: Broken) -> Courier<W> {
        Courier {
            session: Session::None,
            lifetime,
            lanes: BTreeMap::new(),
            flights: BTreeMap::new(),
            to: None,
            waiting: 0,
            bytes: 0,
            rests: (0, 0),
            since: 0,
            patience: PATIENCE,
            refused: None,
            only_way: false,
            unsupported: None,
            heard: Heard::default(),
            broken,
        }
    }

    /// The same, where there is no other way than this.
    pub(crate) fn only_way(self) -> Courier<W> {
        Courier { only_way: true, ..self }
    }

    /// What has come for those who wait, since the last call.
    pub(crate) fn heard(&mut self) -> Heard<W> {
        std::mem::take(&mut self.heard)
    }

    /// How many wait here, and not also in this node's own replica or machine.
    pub(crate) fn pending(&self) -> usize {
        let local = if matches!(self.to, Some(To::Here(_))) { self.flights.len() } else { 0 };
        self.waiting.saturating_sub(local)
    }

    /// About how many bytes of commands wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing waits in this lane.
    pub(crate) fn is_idle(&self, lane: u32) -> bool {
        self.lanes.get(&lane).is_none_or(|lane| lane.waiting.is_empty())
    }

    /// Takes a write in.
    pub(crate) fn take(&mut self, lane: u32, command: Bytes, caller: W) {
        self.waiting += 1;
        self.bytes += command.len() as u64;
        let lane = self.lanes.entry(lane).or_insert_with(|| Lane {
            first: 0,
            waiting: VecDeque::new(),
            sent: 0,
            window: WINDOW,
            patience: PATIENCE,
            rests: (0, 0),
            refused: None,
        });
        lane.waiting.push_back(Waiting::new(command, caller));
    }

    /// What goes to the leader now, each with the number by which its answer is known. `newest` is the newest number used.
    pub(crate) fn send(&mut self, to: Option<To>, now: u64, newest: &mut u64) -> Vec<(u64, Proposal)> {
        if self.to != to {
            self.forget_flights();
            (self.to, self.rests) = (to, (0, 0));
        }
        self.begin_anew(now);
        if to.is_none() || self.waiting == 0 || now < self.rests.0 {
            return Vec::new();
        }
        let Session::Open { id: session, .. } = self.session else { return self.open(now, newest) };
        let mut sent = Vec::new();
        for (&number, lane) in self.lanes.iter_mut().filter(|(_, lane)| now >= lane.rests.0) {
            let acknowledged = if self.broken.is("acknowledged-unanswered") {
                lane.first + lane.waiting.len() as u64
            } else {
                lane.first
            };
            let patience = lane.patience;
            let late = |it: &Waiting<W>| it.flight.is_some() && now > it.sent_at + patience;
            if matches!(to, Some(To::Peer(..))) && lane.waiting.front().is_some_and(late) {
                (lane.sent, lane.patience) = (0, (2 * patience).min(MOST_PATIENCE));
            }
            let upto = lane.waiting.len().min(lane.window);
            for at in lane.sent..upto {
                let it = &mut lane.waiting[at];
                if it.answered {
                    continue;
                }
                *newest = newest.wrapping_add(1);
                it.in_doubt |= it.flight.is_some();
                (it.flight, it.sent_at) = (Some(*newest), now);
                let place = Numbered { session, lane: number, number: lane.first + at as u64, acknowledged };
                self.flights.insert(*newest, Some((number, place.number)));
                sent.push((*newest, Proposal::Numbered(place, it.command.clone())));
            }
            lane.sent = lane.sent.max(upto);
        }
        sent
    }

    /// What was sent goes again, to whoever leads: its answers will not come.
    fn forget_flights(&mut self) {
        if matches!(self.session, Session::Opening) {
            self.session = Session::None;
        }
        self.flights.clear();
        let renumbers = self.broken.is("resent-under-new-numbers");
        for lane in self.lanes.values_mut() {
            if renumbers {
                lane.first += lane.sent as u64;
            }
            (lane.sent, lane.rests) = (0, (0, 0));
            for it in &mut lane.waiting {
                it.in_doubt |= it.flight.is_some();
            }
        }
    }

    /// Ends a session that has expired, once all that can be known is known of what was sent in it; and one that was not
    /// heard for so long that it may expire soon, if nothing was sent in it that has no answer.
    fn begin_anew(&mut self, now: u64) {
        let waits = matches!(self.session, Session::Opening | Session::Over) && !self.flights.is_empty();
        if waits && matches!(self.to, Some(To::Peer(..))) && now > self.since + self.patience {
            self.patience = (2 * self.patience).min(MOST_PATIENCE);
            self.forget_flights();
        }
        let over = match self.session {
            Session::Over => self.flights.is_empty(),
            // A tick is 10 ms.
            Session::Open { heard, .. } => {
                let old = now.saturating_sub(heard) > self.lifetime / 10 / 2;
                let unsent = |it: &Waiting<W>| it.flight.is_none() && !it.in_doubt && !it.answered;
                old && self.lanes.values().all(|lane| lane.waiting.iter().all(unsent))
            }
            Session::None | Session::Opening => false,
        };
        if over {
            self.session = Session::None;
            self.number_anew();
        }
    }

    /// In another session, lanes begin at 0, and nothing was sent. What may have been done in the last one is told so, and
    /// never sent again: this one would not know it.
    fn number_anew(&mut self) {
        // Late answers to what was answered already bear numbers that mean something else now.
        self.flights.clear();
        let again = self.broken.is("sent-again-after-expiry");
        for lane in self.lanes.values_mut() {
            for it in std::mem::take(&mut lane.waiting) {
                let Waiting { caller, command, in_doubt, flight, answered, .. } = it;
                let doubtful = (in_doubt || flight.is_some()) && !again;
                match (caller, command) {
                    (Some(caller), Some(command)) if !doubtful && !answered => {
                        lane.waiting.push_back(Waiting::new(command, caller));
                    }
                    (caller, _) => {
                        self.waiting -= 1;
                        let error = WriteError::Unknown(Cause::SessionExpired);
                        self.heard.answers.extend(caller.map(|caller| (caller, Err(error))));
                    }
                }
            }
            (lane.first, lane.sent) = (0, 0);
        }
        self.lanes.retain(|_, lane| !lane.waiting.is_empty());
    }

    fn open(&mut self, now: u64, newest: &mut u64) -> Vec<(u64, Proposal)> {
        if !matches!(self.session, Session::None) {
            return Vec::new();
        }
        *newest = newest.wrapping_add(1);
        (self.session, self.since) = (Session::Opening, now);
        self.flights.insert(*newest, None);
        vec![(*newest, Proposal::Open(self.lifetime))]
    }

    /// Whether this is the number of something that was sent to this node and has no answer.
    pub(crate) fn awaits(&self, flight: u64, from: Peer) -> bool {
        matches!(self.to, Some(To::Peer(to, _)) if to == from) && self.flights.contains_key(&flight)
    }

    /// The connection to this node ended: its answers will not come.
    pub(crate) fn on_disconnected(&mut self, peer: Peer, now: u64) {
        if matches!(self.to, Some(To::Peer(to, _)) if to == peer) {
            self.forget_flights();
            self.rests = rest(self.rests, now);
        }
    }

    /// What came of something that was sent.
    pub(crate) fn on_answer(&mut self, flight: u64, outcome: Result<Bytes, WriteError>, now: u64) {
        match self.flights.remove(&flight) {
            None => {}
            Some(None) => self.on_opened(outcome, now),
            Some(Some(place)) => self.on_outcome(place, flight, outcome, now),
        }
    }

    fn on_opened(&mut self, outcome: Result<Bytes, WriteError>, now: u64) {
        let id = match outcome {
            Ok(id) => id.as_ref().try_into().ok().map(u64::from_le_bytes),
            Err(WriteError::Session(SessionError::Unsupported)) if !self.only_way => {
                if now - *self.unsupported.get_or_insert(now) >= GRACE {
                    return self.give_back();
                }
                None
            }
            Err(error) => {
                self.refused = error.certainly_not_done().then_some(error);
                None
            }
        };
        match id {
            Some(id) => {
                (self.session, self.rests) = (Session::Open { id, heard: now }, (0, 0));
                (self.patience, self.unsupported, self.refused) = (PATIENCE, None, None);
            }
            None => (self.session, self.rests) = (Session::None, rest(self.rests, now)),
        }
    }

    /// There are no sessions in this cluster, yet.
    fn give_back(&mut self) {
        self.session = Session::None;
        (self.waiting, self.bytes) = (0, 0);
        for lane in std::mem::take(&mut self.lanes).into_values() {
            let writes = lane.waiting.into_iter().filter_map(|it| Some((it.caller?, it.command?)));
            self.heard.back.extend(writes);
        }
    }

    /// An answer is true whichever copy it is for; a refusal counts only if it is for the newest.
    fn on_outcome(&mut self, place: (u32, u64), flight: u64, outcome: Result<Bytes, WriteError>, now: u64) {
        let (lane, number) = place;
        let Some(lane) = self.lanes.get_mut(&lane) else { return };
        let Some(at) = number.checked_sub(lane.first).map(|at| at as usize) else { return };
        let Some(it) = lane.waiting.get_mut(at).filter(|it| !it.answered) else { return };
        let told = match outcome {
            Ok(reply) => Ok(reply),
            // It was done; nobody can tell the answer any more.
            Err(WriteError::Session(SessionError::Forgotten) | WriteError::Unknown(Cause::ReplyLost)) => {
                Err(WriteError::Unknown(Cause::ReplyLost))
            }
            Err(_) if it.flight != Some(flight) => return,
            Err(error) => {
                (it.flight, lane.sent) = (None, lane.sent.min(at));
                it.in_doubt |= matches!(error, WriteError::Unknown(_));
                match error {
                    WriteError::Session(SessionError::Expired) => {
                        (self.session, self.since) = (Session::Over, now);
                    }
                    error @ (WriteError::Invalid(_) | WriteError::NotYet { .. }) => {
                        // Its number is to be taken all the same, by nothing.
                        it.command = None;
                        let doubt = it.in_doubt.then_some(WriteError::Unknown(Cause::Timeout));
                        let error = doubt.unwrap_or(error);
                        self.heard.answers.extend(it.caller.take().map(|caller| (caller, Err(error))));
                    }
                    error => {
                        lane.refused = error.certainly_not_done().then_some(error);
                        lane.rests = rest(lane.rests, now);
                        lane.window = 1;
                    }
                }
                return;
            }
        };
        it.answered = true;
        it.flight = None;
        if it.in_doubt {
            self.flights.retain(|_, other| *other != Some(place));
        }
        let length = it.command.take().map_or(0, |command| command.len() as u64);
        self.bytes = self.bytes.saturating_sub(length);
        (lane.rests, self.rests) = ((0, 0), (0, 0));
        (lane.window, lane.patience, lane.refused) = ((2 * lane.window).min(WINDOW), PATIENCE, None);
        self.heard.answers.extend(it.caller.take().map(|caller| (caller, told)));
        while lane.waiting.front().is_some_and(|it| it.answered) {
            lane.waiting.pop_front();
            (lane.first, lane.sent) = (lane.first + 1, lane.sent.saturating_sub(1));
            self.waiting -= 1;
        }
        if let Session::Open { heard, .. } = &mut self.session {
            *heard = now;
        }
    }

    /// Forgets callers who have given up. What they wanted and was never sent is not sent any more; the rest is not known
    /// to be done or not, and its number is taken by it or by nothing.
    pub(crate) fn sweep(&mut self) {
        for lane in self.lanes.values_mut() {
            for it in &mut lane.waiting {
                if it.caller.take_if(|caller| caller.gave_up()).is_some() {
                    it.command = None;
                }
            }
        }
        self.forget();
    }

    /// Tells those whose time is over: the outcome is unknown, or for what was never sent this, if nothing says better why.
    pub(crate) fn expire(&mut self, over: impl Fn(&W) -> bool, unsent: &WriteError) {
        for lane in self.lanes.values_mut() {
            for it in &mut lane.waiting {
                let Some(caller) = it.caller.take_if(|caller| over(caller)) else { continue };
                it.command = None;
                let sent = it.in_doubt || it.flight.is_some();
                let error = if sent && !self.broken.is("client-told-no") {
                    WriteError::Unknown(Cause::Timeout)
                } else {
                    lane.refused.as_ref().or(self.refused.as_ref()).unwrap_or(unsent).clone()
                };
                self.heard.answers.push((caller, Err(error)));
            }
        }
        self.forget();
    }

    /// All who wait for an answer.
    pub(crate) fn callers(&self) -> impl Iterator<Item = &W> {
        self.lanes.values().flat_map(|lane| &lane.waiting).filter_map(|it| it.caller.as_ref())
    }

    /// What ends the session, if there is one in which nothing is under way.
    pub(crate) fn end(&self) -> Option<Proposal> {
        match self.session {
            Session::Open { id, .. } if self.waiting == 0 => Some(Proposal::Close(id)),
            _ => None,
        }
    }

    /// Forgets what nobody waits for, as far as nothing of it was ever sent, and nothing after it.
    fn forget(&mut self) {
        for lane in self.lanes.values_mut() {
            let gone =
                |it: &Waiting<W>| it.caller.is_none() && !it.answered && it.flight.is_none() && !it.in_doubt;
            while lane.waiting.back().is_some_and(gone) {
                lane.waiting.pop_back();
                self.waiting -= 1;
            }
            lane.sent = lane.sent.min(lane.waiting.len());
        }
        let commands =
            self.lanes.values().flat_map(|lane| &lane.waiting).filter_map(|it| it.command.as_ref());
        self.bytes = commands.map(|command| command.len() as u64).sum();
    }

    /// All who wait: the node stops.
    pub(crate) fn turn_out(&mut self) -> Vec<W> {
        (self.waiting, self.bytes) = (0, 0);
        self.flights.clear();
        let lanes = std::mem::take(&mut self.lanes).into_values();
        lanes.flat_map(|lane| lane.waiting).filter_map(|it| it.caller).collect()
    }
}

/// The pause after another refusal. Those of what was sent together are one.
fn rest((until, before): (u64, u64), now: u64) -> (u64, u64) {
    if now < until {
        return (until, before);
    }
    let pause = (2 * before).clamp(PAUSE, LONGEST_PAUSE);
    (now + pause, pause)
}
