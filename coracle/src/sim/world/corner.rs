//! A leader is driven into a corner: cut off while followers are bound by what they promised it, with a client that
//! goes on to read from it, and with every help for the others to elect somebody all the same.
//!
//! A follower keeps to a leader that it hears, and so by itself hardly ever comes to what only its promise forbids. So one
//! follower, the *heir*, hears nothing of the leader for longer than it promised anything, and asks for votes; it lacks no
//! entries, since the leader's are lost meanwhile; and the others forget that they hear a leader: they start anew, or are told
//! that it is gone.

use super::{Happening, World};
use crate::sim::chance::Kind;
use crate::sim::dice::Dice;
use crate::sim::host::{Event, Running};
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use coracle_core::{Envelope, Membership, Message, Raft};

/// Who is in a corner, and how.
#[derive(Clone, Copy, Default)]
pub(in crate::sim) struct Corner {
    /// When it got there, which tells it from others.
    since: u64,
    leader: usize,
    heir: usize,
    /// The leader's entries are lost; its heartbeats are not.
    starves: bool,
    /// Answers to the leader take so much longer.
    slow: u64,
    /// Votes that the heir asks for come after their receivers have heard the leader once more.
    late_votes: bool,
    /// The others start anew, or are told that the leader is gone, when it is cut off.
    restarts: bool,
    rumours: bool,
}

impl World {
    /// The newest leader gets into a corner, unless another is in one.
    pub(super) fn corner(&mut self, dice: &mut Dice) {
        let raft = |node: usize| self.hosts[node].up.as_ref().map(Running::raft);
        let Some(leader) = self.newest_leader().filter(|_| self.corner.is_none()) else { return };
        let Some(leads) = raft(leader) else { return };
        let others = self.voters(leader, leads.membership());
        // With the longest log it can be elected.
        let Some(heir) = others.max_by_key(|node| raft(*node).map(Raft::last)) else { return };
        // Who holds no lease has nothing to lose.
        if self.office(leader).is_none_or(|(_, left)| left == 0) {
            return;
        }
        let late_votes = dice.chance(300);
        let heard = !late_votes && dice.chance(200);
        let promised = self.plan.lease * MS;
        self.corner = Some(Corner {
            since: self.now,
            leader,
            heir,
            starves: late_votes || dice.chance(800),
            slow: if dice.chance(500) { dice.within(promised / 3, promised * 2 / 3) } else { 0 },
            late_votes,
            restarts: !late_votes && dice.chance(500),
            rumours: late_votes || dice.chance(400),
        });
        if dice.chance(500) {
            self.slow_clock(leader);
        }
        if !heard {
            let between = |a, b| (a, b) == (leader, heir) || (b, a) == (leader, heir);
            self.network.cut_where(between);
        }
        self.tell(|| format!("leader {} gets into a corner, node {} is to be elected", leader + 1, heir + 1));
        let pause = if heard { MS } else { dice.within(promised, promised + ELECTION / 2) };
        self.corner_stage(1, pause);
    }

    pub(in crate::sim) fn on_corner(&mut self, of: u64, stage: u8) {
        let Some(corner) = self.corner.filter(|corner| corner.since == of) else { return };
        let Corner { leader, heir, restarts, rumours, late_votes, .. } = corner;
        if self.healed || stage > 1 {
            self.network.cut_where(|_, _| false);
            return self.end_corner();
        }
        self.network.cut_where(|from, to| (from == leader) != (to == leader));
        self.cornered(leader);
        let mut dice = self.chance.plain(24, leader, self.now);
        for node in (0..self.hosts.len()).filter(|node| *node != leader && *node != heir) {
            let run = self.hosts[node].run;
            if restarts {
                self.at(dice.within(1, 20 * MS), Happening::Restart { node, run });
            }
            if rumours && !late_votes {
                let event = Event::PeerDown(self.hosts[leader].me);
                self.at(dice.within(1, ELECTION / 2), Happening::Noticed { node, run, event });
            }
        }
        self.corner_stage(2, dice.within(ELECTION, 3 * ELECTION));
    }

    /// A change of the membership is about to be asked for: now and then one to those voters who are left to the leader, in a
    /// corner without a majority of those who vote now.
    pub(super) fn corner_changing(
        &mut self,
        leader: usize,
        now: &Membership,
        dice: &mut Dice,
    ) -> Option<Membership> {
        let (_, left) = self.office(leader)?;
        let raft = self.hosts[leader].up.as_ref().map(Running::raft)?;
        let free = !now.is_joint() && raft.membership_id().index <= raft.commit();
        if self.plan.lease == 0 || left == 0 || !free || !dice.chance(500) {
            return None;
        }
        let voters: Vec<usize> = self.voters(leader, now).collect();
        let (far, near) = voters.split_at_checked(now.voters.len() / 2 + 1)?;
        let heir = *far.first()?;
        let mut to = now.clone();
        let ids = near.iter().chain([&leader]).map(|node| self.hosts[*node].me.id);
        to.voters = ids.collect();
        let corner = Corner { since: self.now, leader, heir, ..Corner::default() };
        self.corner = Some(corner);
        if dice.chance(700) {
            self.slow_clock(leader);
        }
        self.network.cut_where(|from, to| far.contains(&from) != far.contains(&to));
        self.met.count(Rare::CornerChange);
        self.clients.reads_at = Some(leader);
        self.tell(|| format!("leader {} changes the membership in a corner, without {far:?}", leader + 1));
        self.corner_stage(2, dice.within(ELECTION, 3 * ELECTION));
        Some(to)
    }

    /// Who votes with this node in the membership.
    fn voters(&self, but: usize, membership: &Membership) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(move |node| *node != but && membership.is_voter(self.hosts[*node].me))
    }

    fn corner_stage(&mut self, stage: u8, pause: u64) {
        let Some(Corner { since, .. }) = self.corner else { return };
        self.at(pause, Happening::Corner { since, stage });
    }

    /// The leader is cut off, but for a client.
    fn cornered(&mut self, leader: usize) {
        self.clients.reads_at = Some(leader);
        let leased = self.office(leader).is_some_and(|(_, left)| left > 0);
        self.met.count_if(leased, Rare::Cornered);
    }

    pub(super) fn end_corner(&mut self) {
        self.clients.reads_at = None;
        self.corner = None;
    }

    /// A node's clock is as slow as it may be beside the others.
    fn slow_clock(&mut self, node: usize) {
        for other in 0..self.hosts.len() {
            let rate = if other == node { self.slowest() } else { 1000 };
            self.set_clock(other, rate, 0);
        }
    }

    /// Whether this is lost since its sender is in a corner.
    pub(super) fn starves(&self, from: usize, envelope: &Envelope) -> bool {
        let starves = self.corner.as_ref().is_some_and(|corner| corner.starves && corner.leader == from);
        starves && matches!(&envelope.message, Message::AppendEntries(append) if append.count() > 0)
    }

    /// How much longer a message takes since somebody is in a corner.
    pub(super) fn held_in_corner(&mut self, from: usize, to: usize, envelope: &Envelope) -> u64 {
        let Some(Corner { leader, heir, slow, late_votes, .. }) = self.corner else { return 0 };
        match &envelope.message {
            Message::AppendEntriesReply(_) if to == leader => slow,
            Message::RequestVote(vote) if late_votes && from == heir && to != leader && !vote.pre => {
                let link = (from + 1) * 10 + to + 1;
                let later = self.chance.within(Kind::Corner, link, 0, 250 * MS);
                if later > MS {
                    self.met.count(Rare::CornerVote);
                    self.network.cut[leader][to] = false;
                    self.network.cut[to][leader] = false;
                    let (run, event) = (self.hosts[to].run, Event::PeerDown(self.hosts[leader].me));
                    self.at(later - MS / 2, Happening::Noticed { node: to, run, event });
                }
                later
            }
            _ => 0,
        }
    }
}
