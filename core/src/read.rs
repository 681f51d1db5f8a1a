//! Linearizable reads without a log entry: ReadIndex (thesis, section 6.4).
//!
//! A leader may answer a read once it knows that it still led *after* the read arrived. It learns that
//! from a round: a number that its heartbeats carry and its followers echo. A read joins only a round that
//! has not started yet; a round starts at once when none is under way, and otherwise when that one is
//! confirmed or one heartbeat interval has passed. A follower asks its leader for the index and then
//! answers from its own machine.

use crate::rules::Rules;
use crate::{Boot, Index, Peer, ReadIndex, Round, Term, Tick, Ticket};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::mem;

/// Who waits for a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reader {
    /// A caller of this node.
    Local(Ticket),
    /// A follower's question.
    Remote { peer: Peer, boot: Boot, sequence: u64 },
}

/// The reads at a leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LeaderReads {
    /// The newest round that has started.
    round: Round,
    /// When it started.
    started: Tick,
    /// Callers of this node who will join the next round.
    local: Vec<Ticket>,
    /// Followers who will: of each its newest question, which stands for the older ones.
    remote: BTreeMap<Peer, (Boot, u64)>,
    /// Rounds that have started and that somebody waits for, with the commit index at their start.
    waiting: VecDeque<(Round, Index, Vec<Reader>)>,
}

impl LeaderReads {
    pub(crate) fn new(now: Tick) -> LeaderReads {
        LeaderReads {
            round: Round(0),
            started: now,
            local: Vec::new(),
            remote: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn round(&self) -> Round {
        self.round
    }

    pub(crate) fn round_started(&self) -> Tick {
        self.started
    }

    /// Joins the round that the rule says.
    pub(crate) fn join(&mut self, rules: Rules, reader: Reader) {
        let under_way = self.waiting.back().map(|(round, ..)| *round);
        let awaited = rules.round_to_await(self.round, under_way);
        if let Some((.., readers)) = self.waiting.back_mut().filter(|(round, ..)| *round == awaited) {
            return readers.push(reader);
        }
        match reader {
            Reader::Local(ticket) => self.local.push(ticket),
            Reader::Remote { peer, boot, sequence } => {
                self.remote.insert(peer, (boot, sequence));
            }
        }
    }

    fn somebody_joins(&self) -> bool {
        !self.local.is_empty() || !self.remote.is_empty()
    }

    /// Whether somebody waits for the next round, and it may start.
    pub(crate) fn is_due(&self, now: Tick, heartbeat: u64) -> bool {
        self.somebody_joins() && (self.waiting.is_empty() || now.since(self.started) >= heartbeat)
    }

    /// A round starts. Those who joined are in it if the leader may answer reads already.
    pub(crate) fn start_round(&mut self, now: Tick, read_index: Option<Index>) -> Round {
        self.round = self.round.next();
        self.started = now;
        if let Some(index) = read_index
            && self.somebody_joins()
        {
            let local = mem::take(&mut self.local).into_iter().map(Reader::Local);
            let remote = mem::take(&mut self.remote).into_iter();
            let remote = remote.map(|(peer, (boot, sequence))| Reader::Remote { peer, boot, sequence });
            self.waiting.push_back((self.round, index, local.chain(remote).collect()));
        }
        self.round
    }

    /// A quorum has echoed `round`: it confirms that one and all before it.
    pub(crate) fn confirm(&mut self, rules: Rules, round: Round) -> Vec<(Index, Reader)> {
        let mut granted = Vec::new();
        while let Some((number, index, readers)) = self.waiting.front_mut()
            && rules.is_confirmed(*number, round)
        {
            granted.extend(mem::take(readers).into_iter().map(|reader| (*index, reader)));
            self.waiting.pop_front();
        }
        granted
    }

    /// Drops callers of this node, wherever they wait, and rounds that nobody waits for then.
    pub(crate) fn forget(&mut self, tickets: &BTreeSet<Ticket>) {
        self.local.retain(|ticket| !tickets.contains(ticket));
        for (_, _, readers) in &mut self.waiting {
            readers.retain(|reader| !matches!(reader, Reader::Local(ticket) if tickets.contains(ticket)));
        }
        self.waiting.retain(|(_, _, readers)| !readers.is_empty());
    }

    /// The callers of this node that wait.
    pub(crate) fn local_tickets(self) -> Vec<Ticket> {
        let waiting = self.waiting.into_iter().flat_map(|(_, _, readers)| readers);
        let readers = waiting.filter_map(|reader| match reader {
            Reader::Local(ticket) => Some(ticket),
            Reader::Remote { .. } => None,
        });
        readers.chain(self.local).collect()
    }
}

/// The reads at a follower.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct FollowerReads {
    /// Those who came after the question was asked, and so need another.
    waiting: Vec<Ticket>,
    /// The question under way: its number, when it last left, and who waits for it.
    asked: Option<(u64, Tick, Vec<Ticket>)>,
}

impl FollowerReads {
    pub(crate) fn join(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    /// The question to send now: a new one if none is under way, else the old one if it is overdue.
    pub(crate) fn due(
        &mut self,
        term: Term,
        boot: Boot,
        next: &mut u64,
        now: Tick,
        heartbeat: u64,
    ) -> Option<ReadIndex> {
        match &mut self.asked {
            Some((sequence, asked, _)) if now.since(*asked) >= heartbeat => {
                *asked = now;
                Some(ReadIndex { term, boot, sequence: *sequence })
            }
            None if !self.waiting.is_empty() => {
                *next += 1;
                self.asked = Some((*next, now, mem::take(&mut self.waiting)));
                Some(ReadIndex { term, boot, sequence: *next })
            }
            _ => None,
        }
    }

    /// The question under way.
    pub(crate) fn question(&self) -> Option<u64> {
        self.asked.as_ref().map(|(sequence, ..)| *sequence)
    }

    /// The leader answered question `sequence`; none if that is not the one under way.
    pub(crate) fn answered(&mut self, sequence: u64) -> Option<Vec<Ticket>> {
        self.asked.take_if(|(asked, ..)| *asked == sequence).map(|(_, _, tickets)| tickets)
    }

    /// Drops callers, and the question if nobody waits for its answer then.
    pub(crate) fn forget(&mut self, tickets: &BTreeSet<Ticket>) {
        self.waiting.retain(|ticket| !tickets.contains(ticket));
        if let Some((_, _, asked)) = &mut self.asked {
            asked.retain(|ticket| !tickets.contains(ticket));
        }
        self.asked.take_if(|(_, _, asked)| asked.is_empty());
    }

    /// Everybody who waits.
    pub(crate) fn take_all(&mut self) -> Vec<Ticket> {
        let asked = self.asked.take().map(|(_, _, tickets)| tickets).unwrap_or_default();
        asked.into_iter().chain(mem::take(&mut self.waiting)).collect()
    }
}
