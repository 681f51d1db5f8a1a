//! Nodes that join under names which the cluster never had. Their disks are blank; they ask to be let in by themselves, learn,
//! and then vote, by the steps that production takes ([`admission`], [`members::next_step`]). Some take the place of the node
//! that was there before, which stays a member until then; some have no name until the leader has given them one.
//!
//! As with disks that are wiped under their old names, a quorum of whatever may be in force keeps its disks.

use super::{Happening, World};
use crate::joining::admission;
use crate::members::{self, MemberChange};
use crate::sim::dice::Dice;
use crate::sim::ghost::Verdict;
use crate::sim::host::Asks;
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use coracle_core::{Incarnation, Index, Member, NodeId, Peer};
use std::collections::BTreeMap;

impl World {
    /// A new node comes in the place of one that is lost.
    pub(in crate::sim) fn join(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let Some(node) = self.may_be_wiped(node, dice) else { return Ok(()) };
        let Some(name) = self.network.names.fresh() else { return Ok(()) };
        let (nameless, elsewhere) = (dice.chance(400), dice.chance(500));
        let replaces = Some(self.hosts[node].me.id).filter(|_| dice.chance(500));
        self.wipe_as(node, Some(name), dice)?;
        let host = &mut self.hosts[node];
        host.asks = Some(Asks { nameless, replaces });
        if elsewhere || nameless {
            host.at.listens = format!("sim-{}:1", host.me.incarnation.0);
            host.at.says.clone_from(&host.at.listens);
        }
        let (me, address) = (host.me, host.at.listens.clone());
        self.ghost.on_place(me, &address);
        self.met.count(Rare::JoinsAnew);
        let how = if nameless { "asks for a name" } else { "asks to be let in" };
        self.tell(|| format!("node {} {how}, at {address}, to replace {replaces:?}", node + 1));
        self.at(dice.within(MS, ELECTION), Happening::Joiner { node, disk: me.incarnation });
        Ok(())
    }

    /// A newcomer asks the leader, if it reaches that, and asks again until it votes.
    pub(in crate::sim) fn on_joiner(&mut self, node: usize, disk: Incarnation) -> Verdict {
        let host = &self.hosts[node];
        let Some(asks) = host.asks.as_ref().filter(|_| host.me.incarnation == disk && !self.healed) else {
            return Ok(());
        };
        let (nameless, replaces) = (asks.nameless, asks.replaces);
        let pause = self.chance.plain(26, node, self.now).within(MS, ELECTION);
        self.at(pause, Happening::Joiner { node, disk });
        let cut = |to: usize| self.network.cut[node][to] || self.network.cut[to][node];
        let deaf = |to: usize| cut(to) || self.frozen(to).is_some();
        let Some(leader) = self.newest_leader().filter(|leader| *leader != node && !deaf(*leader)) else {
            return Ok(());
        };
        if nameless { self.ask_for_a_name(node, leader) } else { self.ask_in(node, leader, replaces) }
    }

    /// It learns its name once that is committed, and not before.
    fn ask_for_a_name(&mut self, node: usize, leader: usize) -> Verdict {
        let disk = self.hosts[node].me.incarnation;
        let Some(up) = &self.hosts[leader].up else { return Ok(()) };
        let raft = up.raft();
        let (id, now) = (raft.membership_id(), raft.membership());
        if now.is_joint() || id.index > raft.commit() {
            return Ok(());
        }
        if let Some(member) = now.members.values().find(|member| member.incarnation == disk) {
            let id = member.id;
            self.met.count(Rare::JoinerNamed);
            self.name(node, id);
            self.at(MS, Happening::Start { node });
            // Production's caller asks again where it has not heard the answer.
            return self.admit(node, leader);
        }
        self.admit(node, leader)
    }

    fn admit(&mut self, node: usize, leader: usize) -> Verdict {
        let (disk, address) = (self.hosts[node].me.incarnation, self.hosts[node].at.listens.clone());
        let broken = self.hosts[leader].broken;
        let Some(up) = &self.hosts[leader].up else { return Ok(()) };
        let (id, now) = (up.raft().membership_id(), up.raft().membership().clone());
        let Ok(to) = members::admit(&now, disk, &address, broken) else { return Ok(()) };
        let step = members::next_step(&now, &to);
        self.ghost.judge_admission(&now, &step, disk)?;
        let given = to.members.values().filter(|member| member.incarnation == disk).map(Member::peer);
        let given: Vec<Peer> = given.collect();
        // (A node that was removed, and whose name is given again, may run on: nobody calls for it.)
        if step == now || given.iter().any(|peer| self.hosts.iter().any(|host| host.me.id == peer.id)) {
            return Ok(());
        }
        // It will be there.
        for peer in given {
            self.ghost.on_place(peer, &address);
            self.network.names.promise(peer.id);
        }
        self.ask_for(leader, id, step)
    }

    fn name(&mut self, node: usize, id: NodeId) {
        self.network.names.give(id, node);
        let host = &mut self.hosts[node];
        host.me.id = id;
        if let Some(asks) = &mut host.asks {
            asks.nameless = false;
        }
        let me = host.me;
        self.ghost.on_named(node, me);
        self.issue(node);
        self.tell(|| format!("node {} is told its name: it is {me:?}", node + 1));
    }

    /// A node that has its name asks to be let in, as by `--join`, or an operator replaces another by it.
    fn ask_in(&mut self, node: usize, leader: usize, replaces: Option<NodeId>) -> Verdict {
        let (host, address) = (&self.hosts[node], self.hosts[node].at.listens.clone());
        let (me, Some(own)) = (host.me, &host.up) else { return Ok(()) };
        let has_cluster = own.driver.cluster().is_some();
        let member = Member { id: me.id, incarnation: me.incarnation, address: address.clone() };
        let Some(up) = &self.hosts[leader].up else { return Ok(()) };
        let (id, now) = (up.raft().membership_id(), up.raft().membership().clone());
        if now.is_joint() || id.index > up.raft().commit() {
            return Ok(());
        }
        let changes = match replaces.filter(|old| now.members.contains_key(old)) {
            Some(old) => vec![MemberChange::Replace { old, new: me.id, address }],
            None => match admission(&now, &member, has_cluster, false) {
                Ok(changes) => changes,
                // It was removed meanwhile, and knows the cluster: its operator looks after it.
                Err(_) => return Ok(()),
            },
        };
        let met = BTreeMap::from([(me.id, member)]);
        for change in changes {
            let Ok(votes) = change.votes(&now, &met) else { continue };
            let Ok(mut to) = change.apply(&now, &met, votes) else { continue };
            self.revoke(leader, &now, &mut to)?;
            if to != now {
                return self.ask_for(leader, id, members::next_step(&now, &to));
            }
        }
        Ok(())
    }

    /// Nobody waits for a name any more: whoever was given one has it.
    pub(super) fn end_asking(&mut self) {
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            let disk = host.me.incarnation;
            if let Some(asks) = host.asks.as_mut().filter(|asks| asks.nameless) {
                asks.nameless = false;
                if let Some(id) = self.ghost.name_of(disk) {
                    self.name(node, id);
                }
            }
        }
    }

    /// A node under a new name was turned.
    pub(super) fn watch_joiner(&mut self, node: usize, restored: bool) {
        let host = &mut self.hosts[node];
        let (Some(asks), Some(up)) = (&host.asks, &host.up) else { return };
        let raft = up.raft();
        let first = !host.joined && raft.last().index > Index::ZERO;
        self.met.count_if(first, Rare::JoinerLearns);
        self.met.count_if(first && restored, Rare::JoinerInstalled);
        let (id, newest) = raft.committed_membership();
        if newest.is_voter(host.me) && id.index > Index::ZERO {
            let in_place = asks.replaces.is_some_and(|old| !newest.members.contains_key(&old));
            self.met.count(Rare::JoinerVotes);
            self.met.count_if(in_place, Rare::JoinerReplaces);
            host.asks = None;
        }
    }
}
