//! A client's reads: which are to be asked, of whom, and what becomes of each.
//!
//! A read changes nothing, so it is asked again wherever there is hope: after an error that another node, or the same one
//! later, may not have; when a connection ends; and when no answer came for a while. Only its own deadline ends it.

use crate::config::TICK;
use crate::error::ReadError;
use crate::freshness::Seen;
use crate::wire::Mode;
use crate::work::Waits;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// After how many ticks the first node is given up, and the next is asked; each further one gets twice as long. A second:
/// longer than any election by the default settings.
const ATTEMPT: u64 = 100;

/// How much longer than it was told a node is waited for, in ticks: its answer is on the way.
const ON_THE_WAY: u64 = 50;

/// The shortest and the longest pause before a read that was refused is asked again, in ticks.
const PAUSES: (u64, u64) = (1, 32);

/// How many may be under way. 1,024: a cluster answers many together, at the cost of one.
const WINDOW: usize = 1_024;

/// What is asked of a node now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    pub(crate) link: u64,
    pub(crate) flight: u64,
    /// How long the node may take, in ticks.
    pub(crate) limit: u64,
    pub(crate) mode: Mode,
    pub(crate) query: Bytes,
}

/// What comes of a read.
pub(crate) type Outcome = Result<Seen<Bytes>, ReadError>;

/// A question: what is wanted, and which node is asked first, where that is left open. 0: the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) mode: Mode,
    pub(crate) query: Bytes,
    pub(crate) first: u32,
}

struct Read<R> {
    question: Question,
    caller: R,
    until: u64,
    /// How often it was asked.
    attempts: u32,
    /// Which node has it, under which number.
    at: Option<(u64, u64)>,
    /// When that was.
    asked: u64,
    /// When something is due for it, whatever happens.
    alarm: u64,
    /// What the last node said.
    refused: Option<ReadError>,
}

/// All reads of a client.
pub(crate) struct Reads<R> {
    all: BTreeMap<u64, Read<R>>,
    newest: u64,
    /// To be asked as soon as there is a node.
    ready: VecDeque<u64>,
    /// Under way: whose question each number is.
    flights: BTreeMap<u64, u64>,
    alarms: BTreeSet<(u64, u64)>,
    answers: Vec<(R, Outcome)>,
}

impl<R: Waits> Reads<R> {
    pub(crate) fn new() -> Reads<R> {
        Reads {
            all: BTreeMap::new(),
            newest: 0,
            ready: VecDeque::new(),
            flights: BTreeMap::new(),
            alarms: BTreeSet::new(),
            answers: Vec::new(),
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes one in that waits until this tick.
    pub(crate) fn take(&mut self, question: Question, until: u64, caller: R) {
        self.newest += 1;
        let (at, refused) = (None, None);
        let read = Read { question, caller, until, attempts: 0, at, asked: 0, alarm: until, refused };
        self.alarms.insert((until, self.newest));
        self.all.insert(self.newest, read);
        self.ready.push_back(self.newest);
    }

    /// What has come since the last call.
    pub(crate) fn answers(&mut self) -> Vec<(R, Outcome)> {
        std::mem::take(&mut self.answers)
    }

    /// What is due at this tick. `nobody` says why no node can be asked, while none can.
    pub(crate) fn look_at_clock(&mut self, now: u64, nobody: Option<&str>) {
        while let Some((_, key)) = self.alarms.first().copied().filter(|(tick, _)| *tick <= now) {
            self.alarms.pop_first();
            let Some(read) = self.all.get_mut(&key) else { continue };
            if read.until <= now {
                let unreached = nobody.map(|why| ReadError::Unreachable(why.to_owned()));
                let error = unreached.or(read.refused.take()).unwrap_or(ReadError::Timeout);
                self.end(key, Err(error));
                continue;
            }
            if let Some((_, flight)) = read.at.take() {
                self.flights.remove(&flight);
            }
            self.wait_until(key, u64::MAX);
            self.ready.push_back(key);
        }
    }

    /// Asks what is to be asked of these nodes; those that are preferred come first. `newest` is the newest number used.
    pub(crate) fn ask(&mut self, nodes: &[u64], now: u64, newest: &mut u64) -> Vec<Ask> {
        let mut asks = Vec::new();
        while !nodes.is_empty() && self.flights.len() < WINDOW {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(read) = self.all.get_mut(&key) else { continue };
            if read.caller.gave_up() {
                self.drop_read(key);
                continue;
            }
            *newest = newest.wrapping_add(1);
            let link = nodes[read.question.first.wrapping_add(read.attempts) as usize % nodes.len()];
            let limit = (ATTEMPT << read.attempts.min(16)).min(read.until.saturating_sub(now));
            read.attempts += 1;
            (read.at, read.asked) = (Some((link, *newest)), now);
            let Question { mode, ref query, .. } = read.question;
            asks.push(Ask { link, flight: *newest, limit, mode, query: query.clone() });
            self.flights.insert(*newest, key);
            self.wait_until(key, now + limit + ON_THE_WAY);
        }
        asks
    }

    /// What a node says of a question.
    pub(crate) fn on_answer(&mut self, flight: u64, outcome: Outcome, now: u64) {
        let Some(key) = self.flights.remove(&flight) else { return };
        match outcome {
            Ok(seen) => self.end(key, Ok(self.here(key, seen, now))),
            // It will not do better elsewhere.
            Err(error @ (ReadError::Invalid(_) | ReadError::Panicked(_))) => self.end(key, Err(error)),
            Err(error) => {
                let Some(read) = self.all.get_mut(&key) else { return };
                (read.at, read.refused) = (None, Some(error));
                let pause = (PAUSES.0 << read.attempts.saturating_sub(1).min(16)).min(PAUSES.1);
                self.wait_until(key, now + pause);
            }
        }
    }

    /// What a node has seen, as it is now that its answer has come.
    fn here(&self, key: u64, seen: Seen<Bytes>, now: u64) -> Seen<Bytes> {
        let Some(read) = self.all.get(&key) else { return seen };
        // It took no longer than that to come here.
        let way = TICK.saturating_mul(u32::try_from(now - read.asked + 1).unwrap_or(u32::MAX));
        Seen { age: seen.age.map(|age| age.saturating_add(way)), ..seen }
    }

    /// The connection ended: what was asked over it is asked of others.
    pub(crate) fn on_disconnected(&mut self, link: u64) {
        let lost: Vec<(u64, u64)> = self.flights.iter().map(|(flight, key)| (*flight, *key)).collect();
        for (flight, key) in lost {
            let Some(read) = self.all.get_mut(&key).filter(|read| read.at == Some((link, flight))) else {
                continue;
            };
            read.at = None;
            self.flights.remove(&flight);
            self.wait_until(key, u64::MAX);
            self.ready.push_back(key);
        }
    }

    /// The next thing for this read is due then, or at its end.
    fn wait_until(&mut self, key: u64, tick: u64) {
        let Some(read) = self.all.get_mut(&key) else { return };
        self.alarms.remove(&(read.alarm, key));
        read.alarm = tick.min(read.until);
        self.alarms.insert((read.alarm, key));
    }

    fn end(&mut self, key: u64, outcome: Outcome) {
        if let Some(read) = self.drop_read(key) {
            self.answers.push((read.caller, outcome));
        }
    }

    fn drop_read(&mut self, key: u64) -> Option<Read<R>> {
        let read = self.all.remove(&key)?;
        self.alarms.remove(&(read.alarm, key));
        if let Some((_, flight)) = read.at {
            self.flights.remove(&flight);
        }
        Some(read)
    }
}
