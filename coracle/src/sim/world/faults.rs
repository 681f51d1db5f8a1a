//! What goes wrong: the one list of faults. A new one is a line in [`World::schedule_faults`] and an arm in
//! [`World::on_fault`], with a rate in [`Plan`](crate::sim::plan::Plan) and a name in
//! [`Kind`](crate::sim::chance::Kind).
//!
//! Each fault comes again and again, with random pauses, until everything heals. What exactly it does is
//! drawn from the dice of its decision.

use super::{Happening, World, named};
use crate::sim::chance::Kind;
use crate::sim::dice::Dice;
use crate::sim::ghost::Verdict;
use crate::sim::host::Event;
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use crate::storage::mem_disk::{Aim, Damage, Op};
use coracle_core::Index;
use std::io::ErrorKind;

impl World {
    /// Every fault that comes by itself, with the mean pause between two.
    fn mean(&self, kind: Kind) -> u64 {
        let plan = &self.plan;
        match kind {
            Kind::Crash => plan.crash,
            Kind::Partition => plan.partition,
            Kind::Flap => plan.flap,
            Kind::Reset => plan.reset,
            Kind::Freeze => plan.freeze,
            Kind::Rumour => plan.rumour,
            Kind::Clock if plan.clocks => 2 * ELECTION,
            Kind::DiskError => plan.disk_error,
            Kind::Damage => plan.damage,
            Kind::Stray => plan.stray,
            Kind::Purge => plan.purge,
            Kind::PutBack => plan.put_back,
            Kind::Rot => plan.rot,
            Kind::Turnover => plan.turnover,
            Kind::Change => plan.change,
            Kind::Transfer => plan.transfer,
            Kind::Wipe => plan.wipe,
            Kind::Move => plan.moves,
            Kind::Corner => plan.corner,
            Kind::Rule if plan.poison > 0 => ELECTION,
            Kind::Join => plan.join,
            Kind::Renew if plan.marks => ELECTION,
            _ => 0,
        }
    }

    pub(in crate::sim) fn schedule_faults(&mut self) {
        for &kind in Kind::ALL {
            let mean = self.mean(kind);
            if mean > 0 {
                let first = self.chance.plain(3, kind as usize, 0).within(1, 2 * mean);
                self.at(first, Happening::Fault(kind));
            }
        }
    }

    pub(in crate::sim) fn on_fault(&mut self, kind: Kind) -> Verdict {
        let mean = self.mean(kind);
        if mean == 0 || self.healed && kind != Kind::Rule {
            return Ok(());
        }
        let (decision, mut dice) = self.chance.next(kind, 0);
        let pause = dice.within(1, 2 * mean);
        self.at(pause, Happening::Fault(kind));
        let node = dice.below(self.hosts.len() as u64) as usize;
        let alone = self.hosts.len() == 1 && matches!(kind, Kind::Flap | Kind::Reset | Kind::Rumour);
        // Whatever else is left out of a run, in the end machines are to go on.
        let rules = self.healed && kind == Kind::Rule;
        if alone || !rules && !self.chance.allows(decision) {
            return Ok(());
        }
        self.tell(|| format!("fault {}", named(decision)));
        match kind {
            Kind::Crash => return self.crash(node, &mut dice),
            Kind::Partition => self.partition(node, &mut dice),
            Kind::Flap => {
                let to = self.other(node, &mut dice);
                let more = dice.within(2, 8) * 2 - 1;
                return self.on_flap(node, to, more);
            }
            Kind::Reset => {
                let other = self.other(node, &mut dice);
                let lost = self.network.reset(node, other);
                self.disconnect(node, other);
                self.met.count_if(lost > 0, Rare::Reset);
                self.tell(|| format!("the connection of nodes {} and {} breaks", node + 1, other + 1));
            }
            Kind::Freeze => {
                self.met.count(Rare::Frozen);
                let time = dice.within(MS, 10 * ELECTION);
                // A leader that slept does not know that it leads no more.
                let node = if dice.chance(500) { self.newest_leader().unwrap_or(node) } else { node };
                self.hosts[node].frozen_until = self.now + time;
                self.tell(|| format!("node {} freezes for {} ms", node + 1, time / MS));
            }
            Kind::Rumour => return self.rumour(node, &mut dice),
            Kind::Clock => {
                self.met.count(Rare::Clocked);
                let (rate, jumps) = (dice.within(500, 2000), dice.chance(200));
                let jump = if jumps { dice.below(5 * ELECTION) } else { 0 };
                let (rate, jump) = self.within_drift(rate, jump);
                self.set_clock(node, rate, jump);
                self.tell(|| format!("the clock of node {} jumps {} ms, rate {rate}", node + 1, jump / MS));
            }
            Kind::DiskError => self.disk_error(node, &mut dice),
            Kind::Damage => self.damage(node, &mut dice),
            Kind::Stray => return self.stray(&mut dice),
            Kind::Purge => return self.turn(node, Event::WantSnapshot),
            Kind::PutBack => return self.put_back(node, &mut dice),
            Kind::Rot => return self.rot(node, &mut dice),
            Kind::Turnover => self.turnover(node),
            Kind::Change => return self.change(node, &mut dice),
            Kind::Transfer => return self.transfer(node, &mut dice),
            Kind::Wipe => return self.wipe(node, &mut dice),
            Kind::Move => return self.relocate(node, &mut dice),
            Kind::Corner => self.corner(&mut dice),
            Kind::Rule => return self.rule(node, &mut dice),
            Kind::Join => return self.join(node, &mut dice),
            Kind::Renew => return self.renew(node, &mut dice),
            _ => {}
        }
        Ok(())
    }

    /// Somebody keeps an image of a node's disk, and puts it back in a later boot. That the two can be told apart,
    /// all others must have met the later boot: whoever has not cannot know.
    fn put_back(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let spoilt = self.spoilt();
        let host = &self.hosts[node];
        let mut others = self.hosts.iter().filter(|other| other.me != host.me && !other.dead);
        let known = others.all(|other| other.knows(host));
        let host = &mut self.hosts[node];
        // (What a fence says would be forgotten with the newer state.)
        let gone = host.is_spoilt() || host.twin.is_some();
        if host.up.is_none() || gone || self.ghost.committed() == Index::ZERO {
            return Ok(());
        }
        let Some((run, image)) = &host.old else {
            host.old = Some((host.run, host.disk.copy()));
            return Ok(());
        };
        if *run == host.run || !known || spoilt >= (self.plan.nodes - 1) / 2 {
            return Ok(());
        }
        let image = image.clone();
        if dice.chance(500) {
            return self.copy(node, image.copy());
        }
        self.tell(|| format!("the disk of node {} is put back to what it was", node + 1));
        self.crash(node, dice)?;
        let host = &mut self.hosts[node];
        (host.disk, host.put_back, host.torn) = (image, true, false);
        self.met.count(Rare::PutBack);
        self.ghost.on_put_back(node);
        Ok(())
    }

    /// How many nodes are not what they were.
    pub(super) fn spoilt(&self) -> usize {
        self.hosts.iter().filter(|host| host.is_spoilt()).count()
    }

    fn other(&self, node: usize, dice: &mut Dice) -> usize {
        let size = self.hosts.len();
        (node + 1 + dice.below(size as u64 - 1) as usize) % size
    }

    fn rumour(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let gone = self.other(node, dice);
        if self.frozen(node).is_some() {
            return Ok(());
        }
        self.met.count(Rare::Rumoured);
        self.tell(|| format!("node {} is told that node {} is gone", node + 1, gone + 1));
        let gone = self.hosts[gone].me;
        self.turn(node, Event::PeerDown(gone))
    }

    fn partition(&mut self, node: usize, dice: &mut Dice) {
        let kind = dice.below(6);
        let name = match kind {
            0 | 1 => None,
            2 => Some(Rare::Isolated),
            3 => Some(Rare::OneWay),
            4 => Some(Rare::Halves),
            _ => Some(Rare::Partial),
        };
        name.into_iter().for_each(|rare| self.met.count(rare));
        self.tell(|| format!("a partition around node {}: {name:?}", node + 1));
        self.network.cut_where(|from, to| match kind {
            0 | 1 => false,
            2 => (from == node) != (to == node),
            3 => from == node && to != node,
            4 => (from <= node) != (to <= node),
            _ => dice.chance(300),
        });
    }

    /// The node that leads in the newest term.
    pub(super) fn newest_leader(&self) -> Option<usize> {
        let leads = |node: &usize| self.hosts[*node].up.as_ref().is_some_and(|up| up.raft().is_leader());
        let term = |node: &usize| self.hosts[*node].up.as_ref().map(|up| up.raft().term());
        (0..self.hosts.len()).filter(leads).max_by_key(term)
    }

    /// A leader and its companions, a minority, are cut off until somebody else leads; it comes back without
    /// them, and is left to lead again: what it did in its first term meets what happened since.
    fn turnover(&mut self, node: usize) {
        let leader = self.newest_leader().unwrap_or(node);
        self.on_turnover(leader, 0);
    }

    pub(in crate::sim) fn on_turnover(&mut self, leader: usize, stage: u8) {
        if self.healed || self.hosts.len() < 3 {
            return;
        }
        let size = self.hosts.len();
        let minority = |node: usize| (node + size - leader) % size < (size - 1) / 2;
        let next = self.newest_leader().filter(|next| *next != leader && !minority(*next));
        let alone = |node: usize| match stage {
            0 => minority(node),
            1 => minority(node) && node != leader,
            2 => (minority(node) && node != leader) || Some(node) == next,
            _ => false,
        };
        match stage {
            0 => self.network.cut_where(|from, to| alone(from) != alone(to)),
            // Nobody but the old leader reaches all that are left.
            2 => self
                .network
                .cut_where(|from, to| alone(from) || alone(to) || (from != leader && to != leader)),
            _ => self.network.cut_where(|from, to| alone(from) || alone(to)),
        }
        self.tell(|| format!("turnover of leader {}, stage {stage}: node {next:?} leads now", leader + 1));
        self.met.count_if(stage == 2 && next.is_some(), Rare::TurnedOver);
        let mut dice = self.chance.plain(13, leader, self.now);
        let pause = match stage {
            0 => dice.within(ELECTION, 3 * ELECTION),
            1 => dice.within(ELECTION / 10, ELECTION),
            2 => dice.within(2 * ELECTION, 4 * ELECTION),
            _ => return,
        };
        self.at(pause, Happening::Turnover { leader, stage: stage + 1 });
    }

    /// A link goes and comes, every few messages.
    pub(in crate::sim) fn on_flap(&mut self, from: usize, to: usize, more: u64) -> Verdict {
        if self.healed {
            return Ok(());
        }
        self.met.count(Rare::Flapped);
        let cut = &mut self.network.cut;
        cut[from][to] = !cut[from][to];
        cut[to][from] = cut[from][to];
        if more > 0 {
            let pause = self.chance.plain(4, from, self.now).within(MS, ELECTION / 3);
            self.at(pause, Happening::Flap { from, to, more: more - 1 });
        }
        Ok(())
    }

    /// The next operation of some kind fails, or nothing has room for a while.
    fn disk_error(&mut self, node: usize, dice: &mut Dice) {
        let host = &mut self.hosts[node];
        if host.up.is_none() || host.faulty {
            return;
        }
        host.faulty = true;
        let disk = &host.disk;
        let what = match dice.below(7) {
            0 | 1 => Some(Op::Write),
            2 | 3 => Some(Op::Sync),
            4 => Some(*dice.pick(&[Op::Create, Op::Rename, Op::SyncDir])),
            5 => {
                disk.fail_read(dice.below(3));
                None
            }
            _ => {
                disk.set_full(true);
                None
            }
        };
        let error = *dice.pick(&[ErrorKind::Other, ErrorKind::StorageFull]);
        what.into_iter().for_each(|op| disk.fail_next(op, error));
        host.fault = what;
        let time = dice.within(MS, 8 * ELECTION);
        self.at(time, Happening::Room { node });
        self.tell(|| format!("the disk of node {} goes wrong: {what:?}", node + 1));
    }

    pub(in crate::sim) fn end_disk_faults(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        // Whoever was refused something has stopped by now, or waits for room.
        if host.up.is_some() {
            host.disk.clear_faults();
            host.faulty = false;
        }
    }

    /// A disk changes what it had kept: at a minority of the nodes, once each.
    fn damage(&mut self, node: usize, dice: &mut Dice) {
        let damaged = self.spoilt();
        let host = &mut self.hosts[node];
        // Before the membership is committed, a single node may be all there is of the cluster.
        let young = self.ghost.committed() == Index::ZERO;
        let gone = host.damaged || host.put_back || host.twin.is_some();
        if young || gone || host.up.is_none() {
            return;
        }
        let too_many = damaged >= (self.plan.nodes - 1) / 2;
        if if self.plan.changes { !self.may_lose(node) } else { too_many } {
            return;
        }
        let changing = self.plan.changes && self.is_changing();
        let host = &mut self.hosts[node];
        let kind = *dice.pick(&[Damage::Flip, Damage::Lost, Damage::Misplaced]);
        let aim = *dice.pick(&[Aim::Anywhere, Aim::Newest, Aim::TopsFirst, Aim::Top]);
        let Some((file, offset)) = host.disk.damage(kind, aim, ".log", |below| dice.below(below)) else {
            return;
        };
        host.damaged = true;
        self.met.count_if(changing, Rare::DamagedChanging);
        let host = &self.hosts[node];
        // Most damage is found by who starts on it.
        if dice.chance(700) {
            let run = host.run;
            let limit = *dice.pick(&[2, 2, ELECTION]);
            self.at(dice.within(1, limit), Happening::Restart { node, run });
        }
        self.met.count(match aim {
            Aim::Anywhere => Rare::DamagedAnywhere,
            Aim::Newest => Rare::DamagedNewest,
            Aim::TopsFirst => Rare::DamagedTop,
            Aim::Top => Rare::TopGone,
        });
        self.met.count(match kind {
            Damage::Flip => Rare::Flipped,
            Damage::Lost => Rare::LostWrite,
            Damage::Misplaced => Rare::Misplaced,
        });
        self.tell(|| format!("the disk of node {} spoils {file} at {offset}: {kind:?}, {aim:?}", node + 1));
    }
}
