//! Effects, in a simulated world: whoever leads carries them out, and writes that it has (S34).
//!
//! A node takes its time for that, and meanwhile may stop, sleep, or lead no more. What it then still writes comes late, or
//! is lost, and the next leader does it again. What it writes may be refused: then it writes it again, as long as it leads.

use super::{Happening, World};
use crate::pending::Token;
use crate::sim::ghost::Verdict;
use crate::sim::host::{Event, NOBODY, Running, encode};
use crate::sim::machine::Ask;
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use crate::work::Way;
use coracle_core::{Index, Term};

/// An effect that a node carries out, in the office of this term.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Duty {
    node: usize,
    run: u64,
    office: Term,
    token: Token,
    /// Up to where its leader's log went when it had written that it is carried out.
    wrote: Index,
}

impl Duty {
    /// The process whose it is.
    pub(super) fn process(&self) -> (usize, u64) {
        (self.node, self.run)
    }
}

impl World {
    /// A node has done something: it begins to carry out what it finds to do. One that ends with that does not learn any more
    /// how far its machine has come.
    pub(in crate::sim) fn watch_effects(&mut self, node: usize, ends: bool) -> Verdict {
        if self.plan.effects == 0 || ends {
            return Ok(());
        }
        let run = self.hosts[node].run;
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        let (applied, term) = (up.applier.progress().applied, up.raft().term());
        let leads = up.raft().is_leader() && applied.term == term;
        let (at, office) = (applied.index, leads.then_some((run, term)));
        self.effects.on_pending(node, at, up.duties.pending())?;
        let mut found = Vec::new();
        while let Some(effect) = up.next_effect() {
            let again = self.effects.on_given(node, office, at, &effect)?;
            self.met.count(Rare::EffectGiven);
            self.met.count_if(again, Rare::EffectAgain);
            self.met.count_if(self.effects.is_of_timer(effect.token), Rare::EffectFired);
            found.push(effect.token);
        }
        if let Some(office) = office {
            self.effects.on_all_given(node, office, at)?;
        }
        for token in found {
            self.tell(|| format!("node {} begins to carry out effect {token}", node + 1));
            self.carry_on(Duty { node, run, office: term, token, wrote: Index::ZERO }, self.plan.effects);
        }
        Ok(())
    }

    /// It writes that it has carried out an effect, within this time.
    fn carry_on(&mut self, duty: Duty, time: u64) {
        let Duty { node, token, .. } = duty;
        let place = (token.index as usize * 8 + token.ordinal as usize) * 8 + node;
        let delay = self.chance.plain(31, place, self.now).within(1, time);
        self.at(delay, Happening::Duty(duty));
    }

    pub(in crate::sim) fn on_duty(&mut self, duty: Duty) -> Verdict {
        let Duty { node, run, office, token, wrote } = duty;
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Duty(duty));
            return Ok(());
        }
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        // What the machine says of it may be of where it went back to.
        if !self.effects.is_open(token) {
            return Ok(());
        }
        match up.driver.office() {
            // What it wrote is on its way: it waits for the answer, as a program does.
            Some(now) if now == office && up.raft().commit() < wrote => {
                self.carry_on(duty, ELECTION);
                return Ok(());
            }
            Some(now) if now == office => {}
            // Its machine went back, and will come there again: it is the same office then.
            None if up.raft().is_leader() && up.raft().term() == office => {
                self.carry_on(duty, ELECTION);
                return Ok(());
            }
            _ => return Ok(()),
        }
        let leaders = self.hosts.iter().filter_map(|host| host.up.as_ref()).map(Running::raft);
        let newer = leaders.filter(|raft| raft.is_leader() && raft.term() > office).count();
        self.met.count_if(newer > 0, Rare::EffectLate);
        self.step(14, node, token.index);
        self.tell(|| format!("node {} writes that it has carried out effect {token}", node + 1));
        self.turn(node, Event::Write(NOBODY, Way::Once, encode(&Ask::Settle(token))))?;
        let wrote = self.hosts[node].up.as_ref().map_or(Index::ZERO, |up| up.raft().last().index);
        self.carry_on(Duty { wrote, ..duty }, ELECTION);
        Ok(())
    }

    /// L14: all effects are carried out, and none is pending any more.
    pub(in crate::sim) fn settle_effects(&mut self) -> Verdict {
        let open = self.effects.open() as u64;
        let patience = 40 * ELECTION + open * 50 * MS + 2 * self.plan.effects;
        self.until("L14", patience, "end of all effects", |world| world.effects.open() == 0)?;
        (0..self.effects.again).for_each(|_| self.met.count(Rare::SettledAgain));
        Ok(())
    }
}
