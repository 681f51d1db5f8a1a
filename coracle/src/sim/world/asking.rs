//! Clients ask nodes: those that are up, those that are gone, and those that sleep.

use super::{Happening, World};
use crate::freshness::Freshness;
use crate::sim::chance::Kind;
use crate::sim::clients::Question;
use crate::sim::ghost::Verdict;
use crate::sim::host::{Event, Heard, encode};
use crate::sim::machine::Look;
use crate::sim::plan::ELECTION;
use crate::sim::situations::Rare;
use crate::work::RequestId;
use coracle_core::Index;
use std::time::Duration;

impl World {
    /// A node takes in a read that has to be so fresh.
    pub(super) fn begin_read(
        &mut self,
        node: usize,
        request: RequestId,
        look: Look,
        freshness: Freshness,
    ) -> Verdict {
        let now = self.now;
        let from = self.hosts[node].up.as_mut().and_then(|up| up.reading.begin(request, freshness, now));
        self.met.count_if(from.is_some(), Rare::ReadAlone);
        self.turn(node, Event::Read(request, look, from))
    }

    /// A node answers a read with what it had applied so far. How old that is.
    pub(super) fn end_read(&mut self, node: usize, request: RequestId, applied: Index) -> Option<Duration> {
        let now = self.now;
        self.hosts[node].up.as_mut().and_then(|up| up.reading.end(request, applied, now))
    }

    pub(in crate::sim) fn on_client(&mut self, client: usize) -> Verdict {
        let committed = self.ghost.committed();
        let (decision, mut dice) = self.chance.next(Kind::Ask, client);
        let pause = dice.within(1, self.plan.think.max(1));
        // Whoever knows no leader has patience.
        let lost = if self.clients.is_lost(client) { ELECTION / 20 } else { 0 };
        self.at(pause + lost, Happening::Client { client });
        // What is asked after the healing is part of the test, and cannot be left out.
        if !self.healed && !self.chance.allows(decision) {
            return Ok(());
        }
        let asked = self.clients.wake(client, self.now, self.hosts.len(), committed, &mut dice);
        let Some(question) = asked else { return Ok(()) };
        if self.clients.is_remote(client) {
            return self.on_remote(client, question);
        }
        let node = question.node;
        self.step(7, node, question.request.0);
        self.tell_asked(client, &question);
        if self.hosts[node].up.is_none() {
            // The connection is refused.
            return self.clients.refused(&self.network.names, question.request);
        }
        let run = self.hosts[node].run;
        if let Some(thaw) = self.frozen(node) {
            // Its socket takes it. What comes by different connections has no order.
            if dice.chance(500) {
                self.met.count(Rare::AskedAsleep);
                self.first_at(thaw, Happening::Asked { run, question });
            }
            return Ok(());
        }
        self.on_asked(run, question)
    }

    pub(in crate::sim) fn on_asked(&mut self, run: u64, question: Question) -> Verdict {
        let node = question.node;
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.first_at(thaw, Happening::Asked { run, question });
            return Ok(());
        }
        let Question { request, ask, freshness, .. } = question;
        self.clients.taken(node, request);
        match ask {
            Ok(command) => {
                let way = self.plan.way(self.clients.client_of(request));
                self.turn(node, Event::Write(request, way, encode(&command)))
            }
            Err(look) => self.begin_read(node, request, look, freshness),
        }
    }

    /// Somebody is answered.
    pub(super) fn hear(&mut self, node: usize, request: RequestId, mut heard: Heard) -> Verdict {
        self.trace.update(&request.0.to_le_bytes());
        self.tell_heard(node, request, &heard);
        if let Heard::Answer(_, applied, age) = &mut heard {
            *age = self.end_read(node, request, *applied);
            let leads = self.hosts[node].up.as_ref().is_some_and(|up| up.raft().is_leader());
            self.met.count_if(!leads, Rare::ReadFollower);
        }
        if self.visitors.asked(request) {
            self.answer_visitor(request, heard);
            return Ok(());
        }
        self.clients.on_heard(&self.network.names, request, heard, self.now)
    }
}
