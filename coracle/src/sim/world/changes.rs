//! Changes of membership in a simulated world: somebody asks for them at any time, and at the end all nodes vote again.

use super::World;
use crate::members;
use crate::sim::dice::Dice;
use crate::sim::ghost::Verdict;
use crate::sim::ghost::members::is_quorum;
use crate::sim::host::{Event, Host, Running};
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use crate::work::{Changed, Transferred};
use coracle_core::{LogId, Member, Membership, NodeId, Peer, RefusedReason};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// Somebody wants another membership: mostly of the leader, and mostly knowing the one that there is.
    pub(in crate::sim) fn change(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let node = if dice.chance(800) { self.newest_leader().unwrap_or(node) } else { node };
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let (id, now) = (up.raft().membership_id(), up.raft().membership().clone());
        if now.is_empty() {
            return Ok(());
        }
        let kind = dice.below(4);
        let all = kind == 2;
        let mut to = match kind {
            // One voter more or fewer, one learner more or fewer, or anything.
            0 => self.turn_one(&now, dice, true),
            1 => self.turn_one(&now, dice, false),
            2 => self.all_vote(&now),
            _ => {
                let voters = (0..self.hosts.len()).filter(|_| dice.chance(600)).collect::<Vec<_>>();
                let members = (0..self.hosts.len()).filter(|node| voters.contains(node) || dice.chance(500));
                self.membership(&now, members, &voters)
            }
        };
        self.revoke(node, &now, &mut to)?;
        // The old disk goes first, as by the library's own steps.
        let replaces = to.members.values().any(|member| {
            now.members.get(&member.id).is_some_and(|known| known.incarnation != member.incarnation)
        });
        let to = if replaces || all { members::next_step(&now, &to) } else { to };
        let to = self.corner_changing(node, &now, dice).unwrap_or(to);
        self.ask_for(node, id, to)
    }

    pub(super) fn ask_for(&mut self, node: usize, expected: LogId, to: Membership) -> Verdict {
        // (Whoever asks does not make the cluster depend on disks that he knows to be lost.)
        if to.voters.is_empty() || !is_quorum(&to, |peer| self.is_sound(peer)) {
            return Ok(());
        }
        self.tell(|| {
            let list = |ids: Vec<&NodeId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let (voters, members) = (list(to.voters.iter().collect()), list(to.members.keys().collect()));
            format!("node {} is asked for voters {voters} of members {members}", node + 1)
        });
        self.turn(node, Event::Change(self.now, expected, to))
    }

    /// What became of changes, and of transfers.
    pub(in crate::sim) fn on_changed(
        &mut self,
        node: usize,
        changed: &[(u64, Changed)],
        transferred: &[Transferred],
    ) {
        self.on_transferred(node, transferred);
        for (_, outcome) in changed {
            self.met.count(match outcome {
                Changed::Done(_) => Rare::Changed,
                Changed::Refused(RefusedReason::NotCaughtUp(_)) => Rare::VoterLate,
                Changed::Refused(_) | Changed::Busy(_) => Rare::ChangeRefused,
                Changed::Unknown => Rare::ChangeUnknown,
            });
            self.tell(|| format!("node {}: change {outcome:?}", node + 1));
        }
    }

    /// All nodes vote again, as an operator would have it: first those that are not there learn, then all vote.
    pub(in crate::sim) fn bring_all_back(&mut self) -> Verdict {
        if !self.plan.changes {
            return Ok(());
        }
        self.network.cut_where(|_, _| false);
        // Where one or two commit by themselves, slow learners would never be done.
        self.clients.stop_asking();
        let until = self.now + 100 * ELECTION;
        let mut asked = self.now;
        loop {
            let whole = |up: &Running| {
                let raft = up.raft();
                let now = raft.membership();
                let there = |peer: Peer| self.hosts.iter().any(|host| host.me == peer);
                !now.is_joint()
                    && self.hosts.iter().all(|host| now.is_voter(host.me))
                    // Nor does anybody whom a new name has replaced.
                    && now.members.values().map(Member::peer).all(there)
                    && raft.membership_id() == raft.committed_membership().0
            };
            if self.hosts.iter().all(|host| host.up.as_ref().is_some_and(whole)) {
                self.clients.ask_again();
                return Ok(());
            }
            let leader = self.newest_leader().filter(|_| self.now >= asked);
            if let Some(leader) = leader
                && let Some(up) = &self.hosts[leader].up
            {
                let (id, now) = (up.raft().membership_id(), up.raft().membership().clone());
                asked = self.now + ELECTION / 4;
                let mut to = self.all_vote(&now);
                self.revoke(leader, &now, &mut to)?;
                let step = members::next_step(&now, &to);
                if step != now {
                    self.ask_for(leader, id, step)?;
                }
            }
            if self.now > until {
                return self.until("L5", MS, "end to a change of the membership", |_| false);
            }
            self.happen()?;
        }
    }

    /// The membership in which all vote. Whoever was let in under a name, and got another one since it never heard of that, goes
    /// under that name first.
    fn all_vote(&self, now: &Membership) -> Membership {
        let strays = |member: &Member| {
            let named = |host: &Host| {
                host.me.incarnation == member.incarnation && host.me.id != member.id && !host.is_nameless()
            };
            self.hosts.iter().any(named)
        };
        if now.members.values().any(strays) {
            let mut to = now.clone();
            to.members.retain(|_, member| !strays(member));
            to.voters.retain(|id| to.members.contains_key(id));
            return to;
        }
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        self.membership(now, all.iter().copied(), &all)
    }

    /// The same with one more or one fewer.
    fn turn_one(&self, now: &Membership, dice: &mut Dice, votes: bool) -> Membership {
        let one = dice.below(self.hosts.len() as u64) as usize;
        let id = |node: usize| self.hosts[node].me.id;
        let all = 0..self.hosts.len();
        let voter = |node: usize| now.voters.contains(&id(node)) != (votes && node == one);
        let voters: Vec<usize> = all.clone().filter(|node| voter(*node)).collect();
        let member = |node: usize| now.members.contains_key(&id(node)) != (!votes && node == one);
        self.membership(now, all.filter(|node| voters.contains(node) || member(*node)), &voters)
    }

    fn membership(
        &self,
        now: &Membership,
        members: impl Iterator<Item = usize>,
        voters: &[usize],
    ) -> Membership {
        let member = |node: usize| {
            let Peer { id, incarnation } = self.hosts[node].me;
            (id, Member { id, incarnation, address: self.hosts[node].at.listens.clone() })
        };
        // Nobody can call a node that has no name yet.
        let named = |node: &usize| !self.hosts[*node].is_nameless();
        // Another disk under an old name is another member.
        let known = |(id, member): (NodeId, Member)| {
            let same = now.members.get(&id).filter(|known| known.incarnation == member.incarnation);
            (id, same.cloned().unwrap_or(member))
        };
        Membership {
            cluster: now.cluster,
            members: members.filter(named).map(member).map(known).collect::<BTreeMap<_, _>>(),
            voters: voters
                .iter()
                .filter(|node| named(node))
                .map(|node| self.hosts[*node].me.id)
                .collect::<BTreeSet<_>>(),
            marks: now.marks.clone(),
            ..Membership::default()
        }
    }
}
