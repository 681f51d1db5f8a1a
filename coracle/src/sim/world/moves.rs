//! Nodes that move (D5.3.5). They listen at an address each; whoever is to be reached is dialed where production's own
//! rules ([`Places`](crate::transport::places::Places)) look for it, and whoever answers there is who listens there. In
//! runs without moves everybody reaches everybody.

use super::{Happening, World};
use crate::members::MemberChange;
use crate::place::Place;
use crate::sim::dice::Dice;
use crate::sim::ghost::{Verdict, Violation, broken};
use crate::sim::host::{Event, Link, Running};
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use coracle_core::{Boot, Index, Member, Peer};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// A node comes back at another address; now and then it says that it is at a third one.
    pub(in crate::sim) fn relocate(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let up = self.hosts[node].up.as_ref();
        // A blank node waits where it was added.
        if self.ghost.committed() == Index::ZERO || up.is_none_or(|up| up.driver.cluster().is_none()) {
            return Ok(());
        }
        self.crash(node, dice)?;
        let wrong = dice.chance(200);
        let other = dice.below(self.hosts.len() as u64) as usize;
        let elsewhere = self.hosts[other].at.listens.clone();
        self.settle_at(node);
        self.at(dice.within(1, 50 * MS), Happening::Start { node });
        if wrong && other != node {
            self.met.count(Rare::MovedWrong);
            self.hosts[node].at.says = elsewhere;
        }
        Ok(())
    }

    /// From its next start on a node is where nobody ever was.
    fn settle_at(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.at.moves += 1;
        host.at.listens = format!("sim:{}.{}", host.me.id, host.at.moves);
        host.at.says.clone_from(&host.at.listens);
        let (me, at) = (host.me, host.at.listens.clone());
        self.ghost.on_place(me, &at);
        self.met.count(Rare::Moved);
        self.tell(|| format!("node {} moves to {at}", node + 1));
    }

    /// Whether the two are connected.
    pub(super) fn is_linked(&self, from: usize, to: usize) -> bool {
        !self.plan.addressed || self.has_dialed(from, to) || self.has_dialed(to, from)
    }

    /// Whether nobody is connected to it.
    pub(super) fn is_lonely(&self, node: usize) -> bool {
        let mut others = (0..self.hosts.len()).filter(|other| *other != node);
        self.plan.addressed && !others.any(|other| self.is_linked(node, other))
    }

    /// Whether the connection that `node` made is there, at both ends.
    fn has_dialed(&self, node: usize, other: usize) -> bool {
        self.link(node, other).is_some_and(|link| link.dialed)
            && self.link(other, node).is_some_and(|link| link.accepted)
    }

    fn link(&self, node: usize, other: usize) -> Option<&Link> {
        let up = self.hosts[node].up.as_ref()?;
        let there = &self.hosts[other];
        let link = up.standing.links.get(&there.me)?;
        let number = self.network.connection[node.min(other)][node.max(other)];
        (there.up.is_some() && link.run == there.run && link.number == number).then_some(link)
    }

    /// What a node does now and then about where the others are: it dials whom it has not dialed, writes down where it
    /// found them, and, if it leads, has the membership say where they are.
    pub(super) fn look_around(&mut self, node: usize) -> Verdict {
        if !self.plan.addressed {
            return Ok(());
        }
        self.dial_all(node)?;
        self.hosts[node].remember(self.now);
        let now = self.now;
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        if !up.standing.looks(now) {
            return Ok(());
        }
        self.compare(node);
        let leads = self.hosts[node].up.as_ref().is_some_and(|up| up.raft().is_leader());
        if leads && self.takes_over { self.take_over(node) } else { Ok(()) }
    }

    /// Who answers at an address, if the network lets the two speak.
    fn who_is_at(&self, node: usize, address: &str) -> Option<usize> {
        let there = |at: &usize| self.hosts[*at].at.listens == address && self.hosts[*at].up.is_some();
        let at = (0..self.hosts.len()).find(there)?;
        let cut = self.network.cut[node][at] || self.network.cut[at][node];
        (!cut && self.frozen(at).is_none()).then_some(at)
    }

    fn who(&self, at: usize) -> (Peer, Boot) {
        (self.hosts[at].me, self.hosts[at].boot())
    }

    fn dial_all(&mut self, node: usize) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        if up.driver.cluster().is_none() {
            return Ok(());
        }
        let dialed: Vec<Peer> = up.standing.places.dialed().collect();
        for peer in dialed {
            if !self.node(peer.id).is_some_and(|other| self.has_dialed(node, other)) {
                self.dial(node, peer)?;
            }
        }
        Ok(())
    }

    /// Looks for a member wherever it may be.
    fn dial(&mut self, node: usize, peer: Peer) -> Verdict {
        let Some(other) = self.node(peer.id) else { return Ok(()) };
        // What it says itself, on a connection that it made.
        let says = self.link(node, other).filter(|_| self.has_dialed(other, node));
        let says = says.map(|link| link.says.clone());
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let addresses = up.standing.places.addresses(peer, says.as_deref());
        for address in addresses {
            let Some(at) = self.who_is_at(node, &address) else { continue };
            let who = self.who(at);
            let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
            let told = says.as_ref() == Some(&address);
            let news = up.standing.places.find(peer, who, &address);
            self.met.count_if(news.is_some(), Rare::FoundElsewhere);
            self.met.count_if(news.is_some() && !told, Rare::FoundByOthers);
            self.watch_places(node)?;
            if who.0 != peer {
                self.met.count(Rare::FoundAnother);
                continue;
            }
            let Some(up) = &self.hosts[node].up else { return Ok(()) };
            let first = up.standing.places.addresses(peer, None).into_iter().next();
            if first.as_ref() != Some(&address) {
                let id = peer.id;
                let detail =
                    format!("node {} met node {id} at {address}, and looks first at {first:?}", node + 1);
                return broken("S27", detail);
            }
            self.connect(node, at);
            if let Some(place) = news {
                self.tell(|| format!("node {} finds node {} at {}", node + 1, peer.id, place.address));
                for third in (0..self.hosts.len()).filter(|third| *third != at) {
                    self.pass_on(node, third, std::slice::from_ref(&place));
                }
            }
            return Ok(());
        }
        Ok(())
    }

    /// A node has dialed another. Each tells the other where members are.
    fn connect(&mut self, node: usize, at: usize) {
        let number = self.network.connection[node.min(at)][node.max(at)];
        for (one, other, dials) in [(node, at, true), (at, node, false)] {
            let before = self.link(one, other).map(|link| (link.dialed, link.accepted));
            let (dialed, accepted) = before.unwrap_or_default();
            let there = &self.hosts[other];
            let (boot, says) = (there.boot(), there.at.says.clone());
            let (dialed, accepted) = (dialed || dials, accepted || !dials);
            let link = Link { run: there.run, number, boot, says, dialed, accepted };
            let peer = there.me;
            if let Some(up) = &mut self.hosts[one].up {
                up.standing.links.insert(peer, link);
            }
        }
        for (one, other) in [(node, at), (at, node)] {
            let found = |up: &Running| up.standing.places.found().cloned().collect::<Vec<Place>>();
            let found = self.hosts[one].up.as_ref().map(found).unwrap_or_default();
            self.pass_on(one, other, &found);
        }
    }

    /// A node tells another, if the two are connected, where members are. Only members are heard.
    fn pass_on(&mut self, node: usize, other: usize, places: &[Place]) {
        if node == other || places.is_empty() || !self.is_linked(node, other) {
            return;
        }
        let from = self.hosts[node].me;
        let Some(up) =
            self.hosts[other].up.as_mut().filter(|up| up.driver.raft().membership().contains(from))
        else {
            return;
        };
        for place in places {
            up.standing.places.hear(place.clone());
        }
    }

    /// What a node knows of where others are is true, and the newest that it found (S27).
    fn watch_places(&self, node: usize) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        self.ghost.judge_places(node, up.standing.places.found())
    }

    /// What a node wrote down of where others are is there when it starts.
    pub(super) fn watch_kept_places(&mut self, node: usize) -> Verdict {
        let host = &self.hosts[node];
        let Some(up) = &host.up else { return Ok(()) };
        let known: Vec<&Place> = up.standing.places.found().collect();
        let dialed: BTreeSet<Peer> = up.standing.places.dialed().collect();
        let lost = host.at.kept.iter().find(|place| {
            let home = up.standing.places.home(place.peer) == Some(&place.address);
            dialed.contains(&place.peer) && !home && !known.contains(place)
        });
        if let Some(Place { peer, address, .. }) = lost {
            let detail =
                format!("node {} has forgotten that it found node {} at {address}", node + 1, peer.id);
            return broken("S27", detail);
        }
        self.met.count_if(!known.is_empty(), Rare::PlacesKept);
        Ok(())
    }

    /// Whether this node is where the membership says, as it finds out itself.
    fn compare(&mut self, node: usize) {
        let host = &self.hosts[node];
        let Some(up) = &host.up else { return };
        let home = up.standing.places.other_home(&host.at.says).map(str::to_owned);
        if home.is_some() && home == up.standing.compared {
            return;
        }
        let there = home.as_ref().and_then(|home| self.who_is_at(node, home));
        let away = home.is_some() && there != Some(node);
        if let Some(up) = &mut self.hosts[node].up {
            (up.standing.away, up.standing.compared) = (away, home);
        }
    }

    /// The leader's part.
    fn take_over(&mut self, node: usize) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        let (me, boot) = self.who(node);
        let claims = up.standing.claims(me, boot, &self.hosts[node].at.says);
        for place in claims {
            let linked = |other| self.is_linked(node, other);
            if place.peer != me && !self.node(place.peer.id).is_some_and(linked) {
                continue;
            }
            let there = self.who_is_at(node, &place.address).map(|at| self.who(at));
            let Some(up) = &self.hosts[node].up else { return Ok(()) };
            if !up.standing.places.is_there(&place, there) {
                self.met.count(Rare::ClaimRefused);
                continue;
            }
            let (id, now) = (up.raft().membership_id(), up.raft().membership().clone());
            let Place { peer, address, .. } = place;
            let member = Member { id: peer.id, incarnation: peer.incarnation, address: address.clone() };
            let met = BTreeMap::from([(peer.id, member)]);
            // Its caller waits until no other change is under way.
            if now.is_joint() || id.index > up.raft().commit() {
                return Ok(());
            }
            let Ok(to) = MemberChange::Move(peer.id, address).apply(&now, &met, true) else { continue };
            if to != now {
                self.met.count(Rare::AddressCommitted);
                self.turn(node, Event::Change(self.now, id, to))?;
            }
        }
        Ok(())
    }

    // ---- once everything is healed

    /// Whoever can know of the others finds them, soon (L11); whoever cannot is told where one is, by hand.
    pub(super) fn find_each_other(&mut self) -> Verdict {
        if !self.plan.addressed {
            return Ok(());
        }
        self.network.cut_where(|_, _| false);
        // Slow machines would come to nothing else.
        self.clients.stop_asking();
        let size = self.hosts.len();
        for node in 0..size {
            // Nobody's settings are wrong any more.
            if self.hosts[node].at.says != self.hosts[node].at.listens {
                let mut dice = self.chance.plain(22, node, self.now);
                self.crash(node, &mut dice)?;
                self.hosts[node].at.says = self.hosts[node].at.listens.clone();
            }
        }
        self.until("S20", 10 * ELECTION, "all nodes started", |world| {
            world.hosts.iter().all(|host| host.dead || host.up.is_some())
        })?;
        if self.find_who_can_know()? {
            return Ok(());
        }
        self.pass(5 * ELECTION)?;
        for node in 0..size {
            for other in 0..size {
                let (peer, boot) = self.who(other);
                let address = self.hosts[other].at.listens.clone();
                let linked = self.is_linked(node, other);
                if let Some(up) = self.hosts[node].up.as_mut().filter(|_| !linked)
                    && up.standing.places.hear(Place { peer, boot, address }) == Some(true)
                {
                    self.met.count(Rare::Named);
                }
            }
        }
        Ok(())
    }

    /// Waits until the nodes are connected, if they are all members and can know of each other: whether that is so. What
    /// was under way when the faults ended goes on, and whoever is removed by it is looked for no more.
    fn find_who_can_know(&mut self) -> Result<bool, Violation> {
        let mut nodes: BTreeSet<usize> = (0..self.hosts.len()).collect();
        let stays = |world: &World, nodes: &BTreeSet<usize>| nodes.iter().all(|node| world.is_member(*node));
        if self.hosts.iter().any(|host| host.up.is_none()) || !stays(self, &nodes) {
            return Ok(false);
        }
        while self.can_know(&nodes) {
            let linked = |world: &World| world.all_linked(nodes.iter().copied());
            // (Whoever was frozen dials nobody before it would have thawed: within ten.)
            self.until(
                "L11",
                11 * ELECTION,
                "connections between all that can know of each other",
                |world| linked(world) || !stays(world, &nodes),
            )?;
            if linked(self) {
                return Ok(true);
            }
            nodes.retain(|node| self.is_member(*node));
        }
        Ok(false)
    }

    /// Whether a node is a member by what each that runs knows.
    fn is_member(&self, node: usize) -> bool {
        let peer = self.hosts[node].me;
        let mut running = self.hosts.iter().filter_map(|host| host.up.as_ref());
        running.all(|up| up.raft().membership().contains(peer))
    }

    /// Whether one of any two of these that are next to each other knows where the other is, so that all hear of all.
    fn can_know(&self, nodes: &BTreeSet<usize>) -> bool {
        let knows = |node: usize, other: usize| {
            let there = &self.hosts[other];
            let looks =
                |up: &Running| up.standing.places.addresses(there.me, None).contains(&there.at.listens);
            self.hosts[node].up.as_ref().is_some_and(looks)
        };
        let mut reached: BTreeSet<usize> = nodes.first().copied().into_iter().collect();
        for _ in nodes {
            let next = |to: &&usize| reached.iter().any(|from| knows(*from, **to) || knows(**to, *from));
            let more: Vec<usize> = nodes.iter().filter(next).copied().collect();
            reached.extend(more);
        }
        reached == *nodes
    }

    fn all_linked(&self, mut nodes: impl Iterator<Item = usize> + Clone) -> bool {
        let all = nodes.clone();
        nodes.all(|node| all.clone().all(|other| node == other || self.is_linked(node, other)))
    }

    /// All vote, and are connected. Then a majority moves, one after the other, and the rest dies: those that moved go on,
    /// also where the leader had no time to put their addresses into the membership (L11).
    pub(super) fn only_the_moved_live(&mut self) -> Verdict {
        let size = self.hosts.len();
        if !self.plan.addressed || size < 3 || self.hosts.iter().any(|host| host.dead) {
            return Ok(());
        }
        // Slow machines would come to nothing else.
        self.clients.stop_asking();
        // It is on all disks, as slow as they are: what a node has only in memory is gone when it comes back.
        self.until("L11", 20 * ELECTION, "membership, on all disks, that says where all are", |world| {
            world.hosts.iter().all(|host| world.says_rightly(host.me) && host.has_written_all())
        })?;
        let mut dice = self.chance.plain(23, 0, self.now);
        let first = dice.below(size as u64) as usize;
        let moved: Vec<usize> = (0..=size / 2).map(|at| (first + at) % size).collect();
        self.takes_over = dice.chance(300);
        for node in &moved {
            self.crash(*node, &mut dice)?;
            self.settle_at(*node);
            if dice.chance(500) {
                let pause = dice.within(MS, 3 * ELECTION);
                self.pass(pause)?;
            }
        }
        let all = moved.clone();
        self.until("L11", 20 * ELECTION, "connections between those that have moved", |world| {
            world.all_linked(all.iter().copied())
        })?;
        // What a node has found is on its disk a second later, or once that has done what it was given before.
        self.pass(1500 * MS)?;
        // A node whose program is upgraded, for an entry that it could not apply, has to find the others anew.
        self.until("L11", 40 * ELECTION, "places on the disks of those that have moved", |world| {
            moved.iter().all(|node| world.hosts[*node].has_written_all())
        })?;
        for node in (0..size).filter(|node| !moved.contains(node)) {
            self.crash(node, &mut dice)?;
            self.hosts[node].dead = true;
        }
        for node in &moved {
            self.crash(*node, &mut dice)?;
        }
        self.met.count(Rare::ThirdDies);
        let before = self.ghost.committed();
        let goes_on = self.until("L11", 60 * ELECTION, "leader among those that have moved", |world| {
            world.ghost.committed() > before
        });
        self.takes_over = true;
        self.clients.ask_again();
        for node in (0..size).filter(|node| !moved.contains(node)) {
            self.hosts[node].dead = false;
            self.start(node)?;
        }
        goes_on
    }

    /// Whether the committed membership, at each node, says of this one what is true.
    fn says_rightly(&self, peer: Peer) -> bool {
        let Some(at) = self.node(peer.id).map(|node| &self.hosts[node].at.listens) else { return false };
        self.hosts.iter().all(|host| {
            let says = |up: &Running| {
                let (_, membership) = up.raft().committed_membership();
                membership.members.get(&peer.id).is_some_and(|member| member.address == *at)
            };
            host.up.as_ref().is_some_and(says)
        })
    }
}
