//! Turns: how much a node takes in before it carries anything out.
//!
//! A node in production takes all that has come in, feeds its replica one by one, and only then writes,
//! sends and answers. So does a simulated one now and then, for as long as its plan says: what comes in
//! meanwhile is of the same turn, and commands and reads are handed over together at its end.

use super::{Before, Happening, World};
use crate::sim::chance::Kind;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::{Event, Heard, NOBODY, NotDone};
use crate::sim::plan::MS;
use crate::sim::situations::Rare;
use crate::sim::story;
use crate::storage::WriteBatch;
use coracle_core::Raft;

/// What a node has taken in of a turn that goes on.
pub(in crate::sim) struct Turn {
    run: u64,
    /// The node as the turn began.
    before: Before,
    /// How much it has taken in.
    events: u64,
    queued: Vec<WriteBatch>,
}

impl World {
    /// Lets a node handle an event, and carries out what it wants: at once, or when its turn ends.
    pub(in crate::sim) fn turn(&mut self, node: usize, event: Event) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let (before, run) = (Before::of(up.raft()), self.hosts[node].run);
        if self.turns[node].as_ref().is_some_and(|turn| turn.run == run) {
            return self.gather(node, event);
        }
        let gathers = self.plan.gather > 0;
        if let Some(mut dice) =
            gathers.then(|| self.chance.happens(Kind::Gather, node, self.plan.gather)).flatten()
        {
            if !dice.chance(200) {
                self.turns[node] = Some(Turn { run, before, events: 0, queued: Vec::new() });
                let time = dice.within(1, self.plan.turn);
                self.at(time, Happening::Turn { node, run });
                return self.gather(node, event);
            }
            // Now and then it is woken for nothing, just before something comes.
            self.met.count(Rare::EmptyTurn);
            let wants = self.hosts[node].settle(self.now);
            self.carry_out(node, wants)?;
        }
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let before = Before::of(up.raft());
        let (reads, ticks) = (matches!(event, Event::Read(..)), matches!(event, Event::Tick));
        let asked = match &event {
            Event::Write(request, ..)
                if *request != NOBODY && up.raft().is_leader() && self.has_room(node) =>
            {
                Some(*request)
            }
            _ => None,
        };
        let queued = self.hosts[node].feed(self.now, event);
        let mut wants = self.hosts[node].settle(self.now);
        wants.queued.splice(0..0, queued);
        self.watch(node, &before, &wants, reads, ticks);
        self.watch_holding(node, ticks)?;
        let busy = |(request, heard): &(_, Heard)| {
            Some(*request) == asked && matches!(heard, Heard::NotDone(NotDone::Busy))
        };
        if wants.heard.iter().any(busy) {
            return broken("L8", format!("leader {} refuses a write, though it has room for it", node + 1));
        }
        self.carry_out(node, wants)
    }

    /// Takes an event in.
    fn gather(&mut self, node: usize, event: Event) -> Verdict {
        let Some(turn) = &mut self.turns[node] else { return Ok(()) };
        turn.events += 1;
        let queued = self.hosts[node].feed(self.now, event);
        turn.queued.extend(queued.iter().cloned());
        self.judge(node, &queued)
    }

    /// A turn ends.
    pub(in crate::sim) fn on_turn(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Turn { node, run });
            return Ok(());
        }
        let Some(turn) = self.turns[node].take_if(|turn| turn.run == run) else { return Ok(()) };
        self.met.count_if(turn.events > 1, Rare::Gathered);
        let Turn { before, queued, .. } = turn;
        let mut wants = self.hosts[node].settle(self.now);
        let later = std::mem::replace(&mut wants.queued, queued);
        self.judge(node, &later)?;
        wants.queued.extend(later);
        self.watch(node, &before, &wants, false, false);
        self.watch_holding(node, false)?;
        wants.queued.clear();
        self.carry_out(node, wants)
    }

    /// The judge looks at what a node has queued for its disk, and at the node.
    pub(in crate::sim) fn judge(&mut self, node: usize, queued: &[WriteBatch]) -> Verdict {
        let raft = self.hosts[node].up.as_ref().map(crate::sim::host::Running::raft);
        let term = raft.filter(|raft| raft.is_leader()).map(Raft::term);
        let leads = term.is_some() && term == self.ghost.leads(node);
        let mut added = 0;
        let local = self.hosts[node].clock.local(self.now) / MS;
        // Heartbeats may be believed to be so much faster than the own clock (D5.5.2).
        self.ghost.latest = self.fastest() * 11 / 10 + 20;
        let raft = self.hosts[node].up.as_ref().map(crate::sim::host::Running::raft);
        self.ghost.commits = raft.map(Raft::commit).unwrap_or_default();
        self.watch_rulings(node, queued)?;
        for batch in queued {
            self.ghost.on_queued(node, leads, term, local, batch)?;
            added += story::bytes(batch);
        }
        if let Some(up) = &self.hosts[node].up {
            self.ghost.on_step(node, up.raft())?;
        }
        self.watch_leases(node)?;
        self.watch_ready(node)?;
        self.watch_room(node, added)
    }
}
