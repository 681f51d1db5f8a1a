//! The network: links that lose, repeat, hold and cut messages, and break with what is under way.

use super::{Happening, World};
use crate::entry::Entry;
use crate::sim::chance::Kind;
use crate::sim::dice::Dice;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::Event;
use crate::sim::names::Names;
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use crate::sim::story;
use crate::transport::PeerMessage;
use crate::wire;
use crate::work::Unsent;
use bytes::Bytes;
use coracle_core::{ClusterId, Envelope, Incarnation, Index, Message, NodeId, Peer, Raft, Refusal, Status};
use std::collections::VecDeque;

/// How many of the newest messages are remembered, to be told to the wrong node.
const REMEMBERED: usize = 32;

/// How many acknowledgements are kept for the next time that a node leads.
const KEPT_ACKS: usize = 8;

/// A message under way.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Parcel {
    pub(in crate::sim) from: usize,
    pub(in crate::sim) to: usize,
    /// The runs of the two processes when it left.
    pub(super) runs: (u64, u64),
    /// The connection that it travels by.
    pub(super) connection: u64,
    /// The sender's cluster, and whether the sender's newest membership names the receiver.
    pub(super) cluster: Option<ClusterId>,
    pub(super) names: bool,
    pub(super) bytes: Bytes,
}

/// An answer to a question of a boot that has ended.
struct Echo {
    /// The boot that asked.
    run: u64,
    /// The question's number.
    sequence: u64,
    answer: Envelope,
}

/// All links.
pub(in crate::sim) struct Network {
    /// Which links are cut: from, to.
    pub(in crate::sim) cut: Vec<Vec<bool>>,
    /// The connection of each link; what travels by an older one is lost.
    pub(super) connection: Vec<Vec<u64>>,
    under_way: Vec<Vec<u64>>,
    recent: VecDeque<(Envelope, Vec<Entry>)>,
    /// The bytes of the most entries that a node added to its log at once so far: a limit on what waits is
    /// passed by so much at most.
    pub(in crate::sim) largest: u64,
    /// For each node an answer that it was about to get when its process was ended.
    echo: Vec<Option<Echo>>,
    /// Copies of acknowledgements that each node got as a leader, until it leads again.
    old_acks: Vec<VecDeque<Parcel>>,
    /// Copies of votes that each node got, until it campaigns again.
    old_votes: Vec<VecDeque<Parcel>>,
    /// Copies of entries that each node got, until somebody else leads or it drops some.
    old_entries: Vec<VecDeque<Parcel>>,
    /// The newest orders to campaign in a leader's place.
    pub(super) orders: Vec<Envelope>,
    /// Which node answers to which name.
    pub(super) names: Names,
}

impl Network {
    pub(in crate::sim) fn new(nodes: usize) -> Network {
        Network {
            cut: vec![vec![false; nodes]; nodes],
            connection: vec![vec![0; nodes]; nodes],
            under_way: vec![vec![0; nodes]; nodes],
            recent: VecDeque::new(),
            largest: 0,
            echo: (0..nodes).map(|_| None).collect(),
            old_acks: (0..nodes).map(|_| VecDeque::new()).collect(),
            old_votes: (0..nodes).map(|_| VecDeque::new()).collect(),
            old_entries: (0..nodes).map(|_| VecDeque::new()).collect(),
            orders: Vec::new(),
            names: Names::of(nodes),
        }
    }

    /// Cuts exactly these links.
    pub(in crate::sim) fn cut_where(&mut self, mut cut: impl FnMut(usize, usize) -> bool) {
        for (from, row) in self.cut.iter_mut().enumerate() {
            for (to, link) in row.iter_mut().enumerate() {
                *link = from != to && cut(from, to);
            }
        }
    }

    /// What was kept for a node whose disk is wiped is for nobody.
    pub(super) fn forget(&mut self, node: usize) {
        self.old_acks[node].clear();
        self.old_votes[node].clear();
        self.old_entries[node].clear();
        self.echo[node] = None;
    }

    /// What is under way between the two, in both directions, is lost. How much that is.
    pub(in crate::sim) fn reset(&mut self, a: usize, b: usize) -> u64 {
        let mut lost = 0;
        for (from, to) in [(a, b), (b, a)] {
            self.connection[from][to] += 1;
            lost += std::mem::take(&mut self.under_way[from][to]);
        }
        lost
    }
}

impl World {
    /// The node that has, or had last, this name.
    pub(in crate::sim) fn node(&self, id: NodeId) -> Option<usize> {
        self.network.names.node(id)
    }

    /// Whom a node reaches under this name: not itself, under one that it had before.
    pub(super) fn reached(&self, from: usize, id: NodeId) -> Option<usize> {
        self.node(id).filter(|to| *to != from)
    }

    /// Sends a message. An error is what the sender's transport refused, and says so; whatever else is lost is lost
    /// without a word.
    pub(in crate::sim) fn send(
        &mut self,
        from: usize,
        envelope: Envelope,
        entries: Vec<Entry>,
    ) -> Result<(), Unsent> {
        self.report.messages += 1;
        self.keep_order(&envelope);
        let Some(to) = self.reached(from, envelope.to.id) else { return Ok(()) };
        let link = (from + 1) * 10 + to + 1;
        if self.plan.stray > 0 {
            self.network.recent.truncate(REMEMBERED - 1);
            self.network.recent.push_front((envelope.clone(), entries.clone()));
        }
        if self.network.cut[from][to] || self.starves(from, &envelope) {
            self.met.count(Rare::Cut);
            return Ok(());
        }
        if !self.connects(from, to) {
            return Err(Unsent::of(&PeerMessage::Raft { envelope, entries }));
        }
        if let Some(dice) = self.chance.happens(Kind::Drop, link, self.plan.drop) {
            return self.drop_one((from, to), envelope, entries, dice);
        }
        let copies = match self.chance.happens(Kind::Duplicate, link, self.plan.duplicate) {
            Some(mut dice) => dice.within(2, 3),
            None => 1,
        };
        self.met.count_if(copies > 1, Rare::Duplicated);
        if self.echo(from, to, &envelope) {
            return Ok(());
        }
        let runs = (self.hosts[from].run, self.hosts[to].run);
        let connection = self.network.connection[from][to];
        let (cluster, names) = self.handshake(from, to);
        let acknowledges =
            matches!(&envelope.message, Message::AppendEntriesReply(it) if it.matched > Index::ZERO);
        let grants =
            matches!(&envelope.message, Message::RequestVoteReply(it) if !it.pre && it.refusal.is_none());
        let brings = !entries.is_empty();
        let later = self.held_in_corner(from, to, &envelope);
        let bytes = wire::encode(&PeerMessage::Raft { envelope, entries }).to_bytes();
        let parcel = Parcel { from, to, runs, connection, cluster, names, bytes };
        if acknowledges || brings || grants {
            self.keep_old(link, &parcel, brings, grants);
        }
        for _ in 0..copies {
            let delay = match self.chance.happens(Kind::Hold, link, self.plan.hold) {
                Some(mut dice) => {
                    self.met.count(Rare::Held);
                    dice.within(1, 10 * ELECTION)
                }
                None => self.chance.within(Kind::Delay, link, MS / 5, self.plan.latency.max(MS)),
            };
            self.network.under_way[from][to] += 1;
            self.at(delay + later, Happening::Deliver(parcel.clone()));
        }
        Ok(())
    }

    /// Loses a message, half of the time with the knowledge of its sender.
    fn drop_one(
        &mut self,
        (from, to): (usize, usize),
        envelope: Envelope,
        entries: Vec<Entry>,
        mut dice: Dice,
    ) -> Result<(), Unsent> {
        self.met.count(Rare::Dropped);
        let probes = match &envelope.message {
            Message::AppendEntries(append) if append.count() > 0 => self.probes(from, envelope.to.id),
            _ => false,
        };
        self.met.count_if(probes, Rare::ProbeLost);
        self.tell(|| format!("lost: node {} to {}: {}", from + 1, to + 1, envelope.message));
        if dice.below(2) == 0 {
            return Ok(());
        }
        let unsent = Unsent::of(&PeerMessage::Raft { envelope, entries });
        self.met.count_if(matches!(unsent, Unsent::Entries(..)), Rare::Unsent);
        Err(unsent)
    }

    /// Keeps a message now and then, to come again when it is old.
    fn keep_old(&mut self, link: usize, parcel: &Parcel, brings: bool, grants: bool) {
        if self.plan.old_acks == 0 {
            return;
        }
        let Some(mut dice) = self.chance.happens(Kind::OldAck, link, self.plan.old_acks) else { return };
        let (network, to) = (&mut self.network, parcel.to);
        let kept = if brings {
            &mut network.old_entries[to]
        } else if grants {
            &mut network.old_votes[to]
        } else {
            &mut network.old_acks[to]
        };
        if kept.len() == KEPT_ACKS {
            kept.remove(dice.below(KEPT_ACKS as u64) as usize);
        }
        kept.push_front(parcel.clone());
    }

    /// A node leads: what it was told when it led before comes once more, as by a connection that hung; and so do
    /// entries of leaders before it, to whom they were for.
    pub(in crate::sim) fn tell_old_acks(&mut self, node: usize) {
        let acks = std::mem::take(&mut self.network.old_acks[node]);
        self.come_again(11, ELECTION, Rare::AckOfOldTerm, acks);
        for to in 0..self.hosts.len() {
            let entries = self.network.old_entries[to].clone();
            self.come_again(12, ELECTION / 4, Rare::EntriesOfOldTerm, entries);
        }
    }

    /// A node campaigns: what it was granted before comes once more.
    pub(in crate::sim) fn tell_old_votes(&mut self, node: usize) {
        let votes = std::mem::take(&mut self.network.old_votes[node]);
        self.come_again(14, 3 * MS, Rare::VoteOfOldTerm, votes);
    }

    /// A node has dropped entries: they come once more.
    pub(in crate::sim) fn tell_old_entries(&mut self, node: usize) {
        let entries = std::mem::take(&mut self.network.old_entries[node]);
        self.come_again(15, 2 * self.plan.latency, Rare::EntriesOfOldTerm, entries);
    }

    fn come_again(&mut self, what: u8, within: u64, rare: Rare, parcels: VecDeque<Parcel>) {
        for mut parcel in parcels {
            let (from, to) = (parcel.from, parcel.to);
            parcel.connection = self.network.connection[from][to];
            self.network.under_way[from][to] += 1;
            self.met.count(rare);
            let delay = self.chance.plain(what, to, self.now).within(1, within);
            self.at(delay, Happening::Deliver(parcel));
        }
    }

    /// Whether the two go on with their connection. A copy of a directory, or an old state of it, is refused by
    /// whoever has met the newer one.
    pub(super) fn connects(&mut self, from: usize, to: usize) -> bool {
        let (low, high) = self.hosts.split_at_mut(from.max(to));
        let (one, other) = (&mut low[from.min(to)], &mut high[0]);
        let mut fine = true;
        fine &= other.up.is_none() || one.meets(other);
        fine &= one.up.is_none() || other.meets(one);
        self.met.count_if(!fine, Rare::CopyRefused);
        fine && self.believes(from, to) && self.believes(to, from) && self.is_linked(from, to)
    }

    /// What the sender's handshake says: its cluster, and whether it names the receiver.
    pub(super) fn handshake(&self, from: usize, to: usize) -> (Option<ClusterId>, bool) {
        let Some(up) = &self.hosts[from].up else { return (None, false) };
        (up.driver.cluster(), up.names(self.hosts[to].me))
    }

    /// A forwarded write, or the answer to one: comes once, by the connection that it was sent by, or that
    /// connection ends.
    pub(in crate::sim) fn send_reliably(&mut self, from: usize, to: Peer, message: PeerMessage) {
        self.report.messages += 1;
        let Some(to) = self.reached(from, to.id) else { return };
        let link = (from + 1) * 10 + to + 1;
        self.met.count_if(matches!(message, PeerMessage::Forward(_)), Rare::Forwarded);
        let lost = self.network.cut[from][to]
            || !self.connects(from, to)
            || self.chance.happens(Kind::Drop, link, self.plan.drop.min(50)).is_some();
        if lost {
            self.tell(|| format!("lost: node {} to {}: {}", from + 1, to + 1, story::forwarded(&message)));
            self.met.count(Rare::ForwardLost);
            return self.disconnect(from, to);
        }
        let runs = (self.hosts[from].run, self.hosts[to].run);
        let connection = self.network.connection[from][to];
        let (cluster, names) = self.handshake(from, to);
        let bytes = wire::encode(&message).to_bytes();
        let delay = self.chance.within(Kind::Delay, link, MS / 5, self.plan.latency.max(MS));
        let parcel = Parcel { from, to, runs, connection, cluster, names, bytes };
        self.at(delay, Happening::Deliver(parcel));
    }

    /// Whether this is an answer that is held: until the asker, whose process ends now, asks its leader a
    /// question of the same number. That one lets the answer go.
    fn echo(&mut self, from: usize, to: usize, envelope: &Envelope) -> bool {
        match &envelope.message {
            Message::ReadIndexReply(reply) if reply.index.is_some() => {
                if self.chance.happens(Kind::Echo, to, self.plan.echo).is_none() {
                    return false;
                }
                let run = self.hosts[to].run;
                let answer = Echo { run, sequence: reply.sequence, answer: envelope.clone() };
                self.network.echo[to] = Some(answer);
                self.tell(|| format!("held: node {} to {}: {}", from + 1, to + 1, envelope.message));
                self.at(1, Happening::Restart { node: to, run });
                true
            }
            Message::ReadIndex(question) => {
                let (term, run) = (question.term, self.hosts[from].run);
                let same = |echo: &mut Echo| {
                    let leader = echo.answer.from == envelope.to && echo.answer.message.term() == term;
                    leader && echo.sequence == question.sequence && echo.run < run
                };
                if let Some(Echo { run: earlier, answer, .. }) = self.network.echo[from].take_if(same) {
                    self.met.count(Rare::OtherRun);
                    let connection = self.network.connection[to][from];
                    let bytes = wire::encode(&PeerMessage::Raft { envelope: answer, entries: Vec::new() });
                    let (runs, bytes) = ((self.hosts[to].run, earlier), bytes.to_bytes());
                    let (cluster, names) = self.handshake(to, from);
                    let parcel = Parcel { from: to, to: from, runs, connection, cluster, names, bytes };
                    self.at(1, Happening::Deliver(parcel));
                }
                false
            }
            _ => false,
        }
    }

    fn probes(&self, leader: usize, follower: NodeId) -> bool {
        let Some(up) = &self.hosts[leader].up else { return false };
        let status = up.raft().status();
        status.peers.iter().any(|peer| peer.id == follower && peer.probing)
    }

    pub(in crate::sim) fn on_deliver(&mut self, parcel: Parcel) -> Verdict {
        let Parcel { from, to, runs, connection, .. } = parcel;
        if let Some(thaw) = self.frozen(to) {
            self.at(thaw, Happening::Deliver(parcel));
            return Ok(());
        }
        let Ok(Some(message)) = wire::decode(&parcel.bytes) else {
            return broken("wire", "a message that was sent cannot be decoded".to_owned());
        };
        let same_link = connection == self.network.connection[from][to];
        let (envelope, entries) = match message {
            PeerMessage::Raft { envelope, entries } => (envelope, entries),
            PeerMessage::Piece { .. } => return self.on_piece(&parcel, message),
            message => {
                let same_runs = runs == (self.hosts[from].run, self.hosts[to].run);
                if !same_link || !same_runs || self.hosts[to].up.is_none() {
                    self.disconnect(from, to);
                    return Ok(());
                }
                self.tell(|| format!("node {} to {}: {}", from + 1, to + 1, story::forwarded(&message)));
                self.step(2, to, parcel.bytes.len() as u64);
                return self.hand(from, to, parcel.cluster, parcel.names, message);
            }
        };
        if !same_link {
            return Ok(());
        }
        self.network.under_way[from][to] = self.network.under_way[from][to].saturating_sub(1);
        if self.hosts[to].up.is_none() {
            return Ok(());
        }
        self.met.count_if(runs != (self.hosts[from].run, self.hosts[to].run), Rare::EarlierRun);
        self.step(2, to, parcel.bytes.len() as u64);
        let said = self.options.story.then(|| envelope.message.to_string());
        let idles = match &envelope.message {
            Message::AppendEntries(append) => append.count() == 0,
            Message::AppendEntriesReply(_) => true,
            _ => false,
        };
        let at = self.report.story.len();
        let look = |world: &World| {
            let raft = world.hosts[to].up.as_ref().map(crate::sim::host::Running::raft);
            let (id, peer) = (world.hosts[to].me.id, world.hosts[from].me.id);
            raft.map(|r| (id, r.leader(), r.hard_state(), r.commit(), r.last(), r.matched(peer)))
        };
        let before = look(self);
        let verdict = self.receive(from, to, (parcel.cluster, parcel.names), envelope, entries);
        if let Some(said) = said {
            // Heartbeats that tell nothing new are left out.
            if !idles || verdict.is_err() || look(self) != before || self.report.story.len() > at {
                let line = self.line(format!("node {} to {}: {said}", from + 1, to + 1));
                self.report.story.insert(at, line);
            }
        }
        verdict
    }

    /// A message from a node with a cluster reaches another.
    pub(super) fn hand(
        &mut self,
        from: usize,
        to: usize,
        cluster: Option<ClusterId>,
        names: bool,
        message: PeerMessage,
    ) -> Verdict {
        let Some(cluster) = cluster else { return Ok(()) };
        let blank = |world: &World| world.hosts[to].up.as_ref().is_some_and(|up| up.driver.is_blank());
        let stays_blank = !names && blank(self);
        let from = match &message {
            PeerMessage::Raft { envelope, .. } | PeerMessage::Piece { envelope, .. } => envelope.from,
            _ => self.hosts[from].me,
        };
        self.turn(to, Event::Message(from, cluster, names, message))?;
        if stays_blank && self.hosts[to].up.is_some() && !blank(self) {
            let detail = format!("blank node {} binds itself to whoever does not name it", to + 1);
            return broken("S23", detail);
        }
        Ok(())
    }

    /// Counts what is rare about a message that arrives.
    fn count_received(&mut self, from: usize, to: usize, envelope: &Envelope) {
        let Some(up) = &self.hosts[to].up else { return };
        let (raft, sender) = (up.raft(), envelope.from);
        let term = raft.term();
        match &envelope.message {
            Message::RequestVoteReply(reply) => {
                let rare = match (reply.refusal, reply.pre) {
                    (Some(Refusal::Leader), true) => Some(Rare::Sticky),
                    (Some(Refusal::Leader), false) => Some(Rare::StickyVote),
                    (Some(Refusal::Rival), _) => Some(Rare::Rivals),
                    (Some(Refusal::Log), _) => Some(Rare::ShorterLog),
                    (Some(Refusal::Voted), _) => Some(Rare::Voted),
                    _ => None,
                };
                rare.into_iter().for_each(|rare| self.met.count(rare));
            }
            Message::AppendEntries(append) => {
                let leaders = append.prev.index.max(append.last);
                let longer = append.term == term && raft.last().index > self.ghost.last(from).index;
                self.met.count_if(longer && leaders > Index::ZERO, Rare::LongerLog);
                self.met.count_if(append.term < term, Rare::OldTold);
                let full = self.ghost.unpersisted(to) > self.plan.room;
                self.met.count_if(full && append.count() > 0 && append.term >= term, Rare::Shed);
            }
            Message::AppendEntriesReply(reply) if raft.is_leader() && reply.term == term => {
                let known = raft.matched(sender.id).unwrap_or_default();
                self.met.count_if(reply.matched < known, Rare::OldAck);
                if let Some(limit) = reply.conflict {
                    let last = raft.last().index;
                    self.met.count_if(limit.index.0 + 1 < last.0, Rare::Skipped);
                    let terms = (limit.index.0 + 1..=last.0).map(|at| raft.term_at(Index(at)));
                    let mut terms: Vec<_> = terms.collect();
                    terms.dedup();
                    self.met.count_if(terms.len() > 2, Rare::SkippedTerms);
                }
            }
            _ => {}
        }
    }

    /// A node handles a message, and the judge what it made of it.
    fn receive(
        &mut self,
        from: usize,
        to: usize,
        (cluster, names): (Option<ClusterId>, bool),
        envelope: Envelope,
        entries: Vec<Entry>,
    ) -> Verdict {
        let Some(up) = &self.hosts[to].up else { return Ok(()) };
        let raft = up.raft();
        let (commit, state) = (raft.commit(), raft.hard_state());
        let message = envelope.message.clone();
        let sender = envelope.from;
        let roomy = self.ghost.bytes_after(to, raft.persisted()) <= self.plan.room;
        self.count_received(from, to, &envelope);
        // What was for a disk that was wiped since says nothing to this one.
        let mine = envelope.to == self.hosts[to].me;
        self.met.count_if(!mine, Rare::OldNameAsked);
        let told = self.before_told(to);
        if let Message::AppendEntriesReply(reply) = &message {
            self.ghost.on_answered(to, sender, reply);
        }
        self.hand(from, to, cluster, names, PeerMessage::Raft { envelope, entries })?;
        self.after_told(to, sender, &message, told)?;
        let Some(up) = &self.hosts[to].up else { return Ok(()) };
        let raft = up.raft();
        match &message {
            Message::AppendEntriesReply(_) => self.ghost.on_matched(to, raft, sender)?,
            Message::AppendEntries(append) => {
                self.ghost.on_appended(to, commit, append, raft.commit())?;
                let follows = raft.leader() == Some(sender.id) && raft.term() == append.term;
                let matches = raft.term_at(append.prev.index) == Some(append.prev.term);
                let takes = mine && follows && matches && !raft.is_installing();
                if roomy && takes && raft.last().index < append.last {
                    let (node, last) = (to + 1, append.last);
                    return broken("L8", format!("node {node} leaves out {last}, though it has room for it"));
                }
            }
            Message::RequestVote(vote) if !vote.pre => {
                let now = raft.hard_state();
                if now != state && now.vote == Some(sender) {
                    self.ghost.on_granted(to, vote.last)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A message that somebody once sent comes to the wrong node, or from a node that is none: nothing may
    /// come of it (S23).
    pub(in crate::sim) fn stray(&mut self, dice: &mut Dice) -> Verdict {
        let count = self.network.recent.len() as u64;
        let at = dice.below(count) as usize;
        let Some((mut envelope, entries)) = self.network.recent.get(at).cloned() else { return Ok(()) };
        let Some(mut to) = self.node(envelope.to.id) else { return Ok(()) };
        let answers = matches!(
            envelope.message,
            Message::RequestVoteReply(_) | Message::AppendEntriesReply(_) | Message::ReadIndexReply(_)
        );
        match dice.below(if answers { 4 } else { 2 }) {
            // It names one node, and comes to another.
            0 => to = dice.below(self.hosts.len() as u64) as usize,
            // It is for an earlier life of this one.
            1 => envelope.to.incarnation = Incarnation(envelope.to.incarnation.0 + 500),
            2 => envelope.from.incarnation = Incarnation(envelope.from.incarnation.0 - 500),
            _ => envelope.from.id = NodeId(99),
        }
        let genuine = envelope.to == self.hosts[to].me && envelope.from.id.0 < 99;
        let genuine = genuine && envelope.from.incarnation.0 > 1000;
        let Some(up) = &self.hosts[to].up else { return Ok(()) };
        let newer = envelope.to == self.hosts[to].me && envelope.message.term() > up.raft().term();
        if genuine || newer || self.frozen(to).is_some() {
            return Ok(());
        }
        let look = |raft: &Raft| {
            let Status { peers, .. } = raft.status();
            let peers: Vec<_> = peers.iter().map(|p| (p.id, p.matched, p.next, p.probing)).collect();
            (raft.role_name(), raft.hard_state(), raft.leader(), raft.commit(), raft.last(), peers)
        };
        // What it would have done at its next turn anyway is not for this.
        if self.turns[to].is_none() {
            let wants = self.hosts[to].settle(self.now);
            self.carry_out(to, wants)?;
        }
        let Some(up) = &self.hosts[to].up else { return Ok(()) };
        let before = look(up.raft());
        self.met.count(Rare::Stray);
        self.step(8, to, envelope.from.id.0);
        let said = envelope.message.clone();
        let cluster = self.hosts[to].up.as_ref().and_then(|up| up.driver.cluster());
        let Some(cluster) = cluster else { return Ok(()) };
        let from = envelope.from;
        self.turn(to, Event::Message(from, cluster, false, PeerMessage::Raft { envelope, entries }))?;
        let after = self.hosts[to].up.as_ref().map(|up| look(up.raft()));
        match after {
            Some(after) if after != before => {
                broken("S23", format!("node {} took a stray message to heart: {said:?}", to + 1))
            }
            _ => Ok(()),
        }
    }
}
