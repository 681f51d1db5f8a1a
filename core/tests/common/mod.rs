//! A cluster in a glass box: nothing happens in it unless a script says so.
//!
//! Every message waits in the mailbox of its link until it is delivered, dropped, repeated or handed over
//! out of order. Every disk write waits until it is [persisted](Cluster::persist); a [crash](Cluster::crash)
//! leaves a node with exactly what was durable. Each node has a clock of its own.
//!
//! The box carries out an [`Output`] as its documentation demands and no better. It also remembers what no
//! node does: who led which term, who voted for whom, which entry was created where, what was committed.
//! After every single step it judges the node that stepped by that memory, and panics with the number of
//! the invariant (S1, S2, ...) that was broken.
//!
//! Reading the scripts: nodes are `A`, `B`, `C`, ...; a log is written as the terms of its entries, so
//! `"1 1 2"` has three entries, the last one of term 2. The first entry is always the membership.

#![allow(dead_code)]

mod driver;
mod image;
mod judge;
mod transcript;

pub(crate) use image::*;

use coracle_core::*;
use judge::History;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) const A: u64 = 1;
pub(crate) const B: u64 = 2;
pub(crate) const C: u64 = 3;
pub(crate) const D: u64 = 4;
pub(crate) const E: u64 = 5;

/// An entry with its bytes, which here are a number that no other entry has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) content: u64,
    pub(crate) membership: Option<Box<Membership>>,
}

/// A message on its way, with the bytes of the entries that it carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mail {
    pub(crate) envelope: Envelope,
    pub(crate) entries: Vec<Entry>,
    /// When it was posted, on the wall's clock.
    posted: u64,
}

/// A write in the queue of a node's log writer.
struct Job {
    write: Write,
    entries: Vec<Entry>,
}

/// A message that waits for the disk.
struct Held {
    until: WriteId,
    term: Term,
    mail: Mail,
}

pub(crate) struct Node {
    pub(crate) peer: Peer,
    boot: u64,
    /// None while the node is down.
    pub(crate) raft: Option<Raft>,
    pub(crate) clock: u64,
    /// What the node has in memory.
    pub(crate) memory: Image,
    /// What a power loss would leave.
    pub(crate) disk: Image,
    jobs: VecDeque<Job>,
    done: WriteId,
    held: Vec<Held>,
    /// Entries that the core wants sent and that the script has not reported on.
    pub(crate) open: Vec<Replicate>,
    /// What the last input brought about.
    pub(crate) out: Output,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) reads: Vec<ReadGrant>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) dropped: Vec<Dropped>,
    pub(crate) members: Option<Vec<Member>>,
}

/// What happens to an [`Output::replicate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    /// It leaves in the same turn, and the core is told.
    AtOnce,
    /// As above, but where the link is cut the connection is known to be broken, and the core is told.
    Connected,
    /// It waits for the script.
    ByHand,
}

pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<u64, Node>,
    links: BTreeMap<(u64, u64), VecDeque<Mail>>,
    cut: BTreeSet<(u64, u64)>,
    pub(crate) settings: Settings,
    pub(crate) sending: Sending,
    /// Ticks since the beginning, for those scripts in which time passes everywhere at once.
    pub(crate) wall: u64,
    /// How long a message takes in [`pass`](Cluster::pass), in ticks of the wall.
    pub(crate) latency: u64,
    seed: u64,
    contents: u64,
    tickets: u64,
    history: History,
    /// What is said and done, where a script has it written down.
    transcript: Option<String>,
}

pub(crate) fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: Incarnation(100 + id) }
}

pub(crate) fn member(id: u64) -> Member {
    Member { id: NodeId(id), incarnation: peer(id).incarnation, address: format!("node-{id}:1") }
}

pub(crate) fn ids(of: &[u64]) -> BTreeSet<NodeId> {
    of.iter().map(|id| NodeId(*id)).collect()
}

/// A membership by hand: who votes, who voted before (if it is joint), who only learns.
pub(crate) fn membership(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
    let all = voters.iter().chain(outgoing).chain(learners);
    Membership {
        cluster: ClusterId(7),
        members: all.map(|id| (NodeId(*id), member(*id))).collect(),
        voters: ids(voters),
        outgoing: outgoing.iter().map(|id| (NodeId(*id), member(*id))).collect(),
    }
}

impl Cluster {
    /// Nodes 1 to `size`, all voters, whose logs hold the first membership and nothing else. All are up and
    /// follow nobody.
    pub(crate) fn of(size: u64) -> Cluster {
        Cluster::with_logs(&vec!["1"; size as usize])
    }

    /// The same with other settings.
    pub(crate) fn with_settings(size: u64, settings: Settings) -> Cluster {
        Cluster::build(settings, 1, &Cluster::voters(size), &vec!["1"; size as usize])
    }

    /// One voter for each log, which is written as the terms of its entries.
    pub(crate) fn with_logs(logs: &[&str]) -> Cluster {
        Cluster::build(Settings::default(), 1, &Cluster::voters(logs.len() as u64), logs)
    }

    /// Memberships at the given indexes of the given logs.
    pub(crate) fn with_memberships(memberships: &[(u64, Membership)], logs: &[&str]) -> Cluster {
        Cluster::build(Settings::default(), 1, memberships, logs)
    }

    pub(crate) fn voters(size: u64) -> Vec<(u64, Membership)> {
        let all: Vec<u64> = (1..=size).collect();
        vec![(1, membership(&all, &[], &[]))]
    }

    /// As above, with everything by hand. A log of `"-"` is a blank node.
    pub(crate) fn build(
        settings: Settings,
        seed: u64,
        memberships: &[(u64, Membership)],
        logs: &[&str],
    ) -> Cluster {
        let images = logs.iter().map(|text| {
            let log = if *text == "-" { Vec::new() } else { parse_log(text, memberships) };
            let term = log.last().map_or(Term(0), |entry: &Entry| entry.term);
            Image { hard_state: HardState { term, vote: None }, log, ..Image::default() }
        });
        Cluster::from_images(settings, seed, images.collect())
    }

    pub(crate) fn from_images(settings: Settings, seed: u64, images: Vec<Image>) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            settings,
            sending: Sending::AtOnce,
            wall: 0,
            latency: 0,
            seed,
            contents: 0,
            tickets: 0,
            history: History::default(),
            transcript: None,
        };
        for (at, image) in images.into_iter().enumerate() {
            cluster.add(at as u64 + 1, image);
        }
        cluster
    }

    /// Adds a node that starts with `image` on its disk.
    pub(crate) fn add(&mut self, id: u64, image: Image) {
        self.note_entries(&image, image.purged.index.next());
        let node = Node {
            peer: peer(id),
            boot: 0,
            raft: None,
            clock: 1000 * id,
            memory: Image::default(),
            disk: image,
            jobs: VecDeque::new(),
            done: WriteId(0),
            held: Vec::new(),
            open: Vec::new(),
            out: Output::default(),
            accepted: Vec::new(),
            reads: Vec::new(),
            refused: Vec::new(),
            alarms: Vec::new(),
            dropped: Vec::new(),
            members: None,
        };
        self.nodes.insert(id, node);
        self.restart(id);
    }

    // What a script asks.

    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn raft(&self, id: u64) -> &Raft {
        self.nodes[&id].raft.as_ref().expect("the node is up")
    }

    pub(crate) fn is_up(&self, id: u64) -> bool {
        self.nodes[&id].raft.is_some()
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn role(&self, id: u64) -> RoleName {
        self.raft(id).role_name()
    }

    pub(crate) fn term(&self, id: u64) -> u64 {
        self.raft(id).term().0
    }

    pub(crate) fn vote(&self, id: u64) -> Option<u64> {
        self.raft(id).status().vote.map(|peer| peer.id.0)
    }

    pub(crate) fn commit(&self, id: u64) -> u64 {
        self.raft(id).commit().0
    }

    pub(crate) fn last(&self, id: u64) -> u64 {
        self.raft(id).last().index.0
    }

    /// Whom the node takes for the leader.
    pub(crate) fn leader_of(&self, id: u64) -> Option<u64> {
        self.raft(id).leader().map(|id| id.0)
    }

    /// The terms of the log, such as `"1 1 2"`.
    pub(crate) fn log(&self, id: u64) -> String {
        self.nodes[&id].memory.terms()
    }

    pub(crate) fn progress(&self, leader: u64, of: u64) -> PeerStatus {
        let peers = self.raft(leader).status().peers;
        peers.into_iter().find(|peer| peer.id.0 == of).expect("a leader knows every member")
    }

    /// The node that leads the newest term that anybody leads.
    pub(crate) fn leader(&self) -> Option<u64> {
        let up = self.nodes.iter().filter_map(|(id, node)| node.raft.as_ref().map(|raft| (id, raft)));
        up.filter(|(_, raft)| raft.is_leader()).max_by_key(|(_, raft)| raft.term()).map(|(id, _)| *id)
    }

    /// What waits on a link.
    pub(crate) fn mail(&self, from: u64, to: u64) -> Vec<Message> {
        let link = self.links.get(&(from, to));
        link.into_iter().flatten().map(|mail| mail.envelope.message.clone()).collect()
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.links.values().all(VecDeque::is_empty)
    }

    /// The newest index that is committed anywhere.
    pub(crate) fn committed(&self) -> u64 {
        self.history.committed.last_key_value().map_or(0, |(index, _)| index.0)
    }

    /// Reads that nobody has answered yet.
    pub(crate) fn unanswered_reads(&self) -> usize {
        self.history.reads.len()
    }

    /// Where a ticket's read was granted.
    pub(crate) fn granted(&self, id: u64, ticket: Ticket) -> Option<u64> {
        self.nodes[&id].reads.iter().find(|grant| grant.ticket == ticket).map(|grant| grant.index.0)
    }

    pub(crate) fn refused(&self, id: u64, ticket: Ticket) -> Option<RefusedReason> {
        self.nodes[&id].refused.iter().find(|refused| refused.ticket == ticket).map(|refused| refused.reason)
    }

    // What a script does to the network.

    /// Takes the oldest message from a link.
    pub(crate) fn take(&mut self, from: u64, to: u64) -> Mail {
        let link = self.links.get_mut(&(from, to));
        link.and_then(VecDeque::pop_front).unwrap_or_else(|| panic!("no mail from {from} to {to}"))
    }

    /// Takes the first message from a link that `fits`.
    pub(crate) fn take_first(&mut self, from: u64, to: u64, fits: impl Fn(&Message) -> bool) -> Mail {
        let link = self.links.entry((from, to)).or_default();
        let at = link.iter().position(|mail| fits(&mail.envelope.message));
        link.remove(at.unwrap_or_else(|| panic!("no such mail from {from} to {to}: {link:?}"))).unwrap()
    }

    /// Takes any message at all, by its number among all that wait.
    pub(crate) fn take_nth(&mut self, mut nth: usize) -> Option<Mail> {
        for link in self.links.values_mut() {
            if nth < link.len() {
                return link.remove(nth);
            }
            nth -= link.len();
        }
        None
    }

    pub(crate) fn waiting(&self) -> usize {
        self.links.values().map(VecDeque::len).sum()
    }

    /// Puts a message back, after the others.
    pub(crate) fn put_back(&mut self, mail: Mail) {
        let link = (mail.envelope.from.id.0, mail.envelope.to.id.0);
        self.links.entry(link).or_default().push_back(mail);
    }

    /// Hands a message over, wherever it comes from.
    pub(crate) fn hand(&mut self, mail: Mail) -> Output {
        let to = mail.envelope.to.id.0;
        self.hand_to(to, mail)
    }

    /// The network hands a message to `to`, whoever it is meant for.
    pub(crate) fn hand_to(&mut self, to: u64, mail: Mail) -> Output {
        if self.nodes.get(&to).is_none_or(|node| node.raft.is_none()) {
            self.write_lost(&mail.envelope);
            return Output::default();
        }
        self.step_with(to, Input::Receive(mail.envelope), mail.entries)
    }

    /// Hands over a message that somebody made up. The answer to question 0 is one to the newest question.
    pub(crate) fn say(&mut self, from: u64, to: u64, mut message: Message) -> Output {
        if let Message::RequestVoteReply(reply) = &mut message
            && reply.question == 0
        {
            reply.question = self.history.asked.get(&to).copied().unwrap_or_default();
        }
        let membership = self.nodes.get(&from).and_then(|node| node.raft.as_ref());
        let membership = membership.map_or(LogId::ZERO, Raft::membership_id);
        let envelope = Envelope { from: peer(from), to: peer(to), membership, message };
        self.hand(Mail { envelope, entries: Vec::new(), posted: self.wall })
    }

    /// A node hears of a newer term, from one who cannot win in it.
    pub(crate) fn enter(&mut self, id: u64, term: u64) {
        let vote =
            RequestVote { campaign: Term(term), pre: false, question: 0, transfer: None, last: LogId::ZERO };
        let stranger = if id == A { B } else { A };
        self.say(stranger, id, Message::RequestVote(vote));
        self.persist(id);
        self.links.remove(&(id, stranger));
        assert_eq!(self.term(id), term);
    }

    /// Hands over an AppendEntries that somebody made up, with the bytes that `from` has for it.
    pub(crate) fn give(&mut self, from: u64, to: u64, append: AppendEntries) -> Output {
        let log = self.nodes[&from].memory.clone();
        self.give_image(&log, from, to, append)
    }

    /// The same with the bytes that a node of another cluster has.
    pub(crate) fn give_from(&mut self, other: &Cluster, from: u64, to: u64, append: AppendEntries) -> Output {
        self.give_image(&other.nodes[&from].memory, from, to, append)
    }

    fn give_image(&mut self, log: &Image, from: u64, to: u64, append: AppendEntries) -> Output {
        let range = append.prev.index.0 + 1..=append.last.0;
        let entries = range.map(|at| log.get(Index(at)).expect("the sender has it").clone()).collect();
        let membership = self.raft(from).membership_id();
        let message = Message::AppendEntries(append);
        let envelope = Envelope { from: peer(from), to: peer(to), membership, message };
        self.hand(Mail { envelope, entries, posted: self.wall })
    }

    /// Delivers what waits on a link now, in order.
    pub(crate) fn deliver(&mut self, from: u64, to: u64) {
        let mails = self.links.remove(&(from, to)).unwrap_or_default();
        for mail in mails {
            self.hand(mail);
        }
    }

    /// Delivers what waits for a node now.
    pub(crate) fn deliver_to(&mut self, to: u64) {
        for from in self.ids() {
            self.deliver(from, to);
        }
    }

    /// Loses what waits on a link.
    pub(crate) fn lose(&mut self, from: u64, to: u64) {
        for mail in self.links.remove(&(from, to)).unwrap_or_default() {
            self.write_lost(&mail.envelope);
        }
    }

    /// Loses everything that is on its way.
    pub(crate) fn lose_all(&mut self) {
        for (from, to) in self.links.keys().copied().collect::<Vec<_>>() {
            self.lose(from, to);
        }
    }

    /// From now on messages pass within a group only. Those on their way arrive.
    pub(crate) fn partition(&mut self, groups: &[&[u64]]) {
        self.cut.clear();
        for from in self.ids() {
            for to in self.ids() {
                if !groups.iter().any(|group| group.contains(&from) && group.contains(&to)) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// From now on messages pass between these pairs only.
    pub(crate) fn connect_only(&mut self, pairs: &[(u64, u64)]) {
        self.cut.clear();
        for from in self.ids() {
            for to in self.ids() {
                if !pairs.contains(&(from, to)) && !pairs.contains(&(to, from)) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// Cuts one direction of one link.
    pub(crate) fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    pub(crate) fn isolate(&mut self, id: u64) {
        for other in self.ids() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    // What a script does to the disks.

    /// The oldest write of a node becomes durable, and the node hears of it.
    pub(crate) fn persist_one(&mut self, id: u64) {
        if let Some(done) = self.write_one(id) {
            self.tell_persisted(id, done);
        }
    }

    /// All writes of a node become durable, and the node hears of it, also of those that follow from it.
    pub(crate) fn persist(&mut self, id: u64) {
        while !self.nodes[&id].jobs.is_empty() {
            self.persist_one(id);
        }
    }

    /// All writes under way become durable, and the node hears only of the newest.
    pub(crate) fn persist_at_once(&mut self, id: u64) {
        let mut newest = None;
        while let Some(done) = self.write_one(id) {
            newest = Some(done);
        }
        if let Some(done) = newest {
            self.tell_persisted(id, done);
        }
    }

    /// The oldest write reaches the disk, but the node does not know yet.
    pub(crate) fn write_one(&mut self, id: u64) -> Option<WriteId> {
        let node = self.nodes.get_mut(&id).unwrap();
        let Job { write, entries } = node.jobs.pop_front()?;
        if let Some(hard_state) = write.hard_state {
            node.disk.hard_state = hard_state;
        }
        let mut cut_off = Vec::new();
        if let Some(last) = write.truncate {
            let before = node.disk.last().0;
            cut_off = (last.0 + 1..=before).filter_map(|at| node.disk.id_at(Index(at))).collect();
            node.disk.truncate(last);
        }
        if let Some((first, last)) = write.append {
            assert_eq!(first, node.disk.last().next(), "node {id} appends to the end of its disk");
            node.disk.log.extend(entries);
            assert_eq!(last, node.disk.last(), "node {id} writes what it names");
        }
        for gone in cut_off {
            if self.history.committed.get(&gone.index).is_some_and(|(id, ..)| *id == gone) {
                self.check_durable(gone);
            }
        }
        Some(write.id)
    }

    /// The node hears that its writes up to `done` are durable.
    pub(crate) fn tell_persisted(&mut self, id: u64, done: WriteId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.done = node.done.max(done);
        let term = node.raft.as_ref().expect("the node is up").term();
        let (free, held) = node.held.drain(..).partition(|held| held.until <= done);
        node.held = held;
        for Held { term: of, mail, .. } in free {
            if of == term {
                self.post(id, mail);
            }
        }
        self.step(id, Input::Persisted(done));
    }

    pub(crate) fn writes_under_way(&self, id: u64) -> usize {
        self.nodes[&id].jobs.len()
    }

    /// The power goes off: what was not durable is lost. Messages on their way still arrive.
    pub(crate) fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.raft = None;
        node.jobs.clear();
        node.held.clear();
        node.open.clear();
        self.history.reads.retain(|_, (asked, _)| *asked != id);
        self.write_line(&format!("{id} crashes"));
    }

    /// The node starts with what is on its disk.
    pub(crate) fn restart(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        assert!(node.raft.is_none(), "node {id} is down before it starts");
        let spoken = self.history.spoken.get(&id).copied().unwrap_or_default();
        assert!(node.disk.hard_state.term >= spoken, "S9: node {id} spoke in {spoken} and has forgotten it");
        node.boot += 1;
        node.clock += 7;
        node.memory = node.disk.clone();
        node.done = WriteId(0);
        let (boot, seed) = (Boot(1000 * id + node.boot), self.seed.wrapping_mul(1_000_003) + node.boot);
        let restored = node.disk.restored();
        let settings = self.settings.clone();
        let raft = Raft::new(node.peer, boot, settings, seed, restored, Tick(node.clock)).expect("settings");
        assert_eq!(raft.check(), Ok(()));
        node.raft = Some(raft);
        self.write_start(id);
    }

    // What a script does with time.

    /// `ticks` pass at one node, and it notices each.
    pub(crate) fn tick(&mut self, id: u64, ticks: u64) {
        for _ in 0..ticks {
            self.nodes.get_mut(&id).unwrap().clock += 1;
            self.step(id, Input::Tick);
        }
    }

    /// Ticks a node until it asks for votes, and then until it has drawn a patience of its own.
    pub(crate) fn time_out(&mut self, id: u64) {
        let before = self.role(id);
        for _ in 0..=self.settings.election_max {
            self.tick(id, 1);
            if self.role(id) != before {
                return;
            }
        }
        panic!("node {id} does not lose its patience as a {before}");
    }

    /// Time passes everywhere, but no timer fires: patience runs out, and nobody acts on it.
    pub(crate) fn silence(&mut self, ticks: u64) {
        for node in self.nodes.values_mut() {
            node.clock += ticks;
        }
    }

    /// One tick at every node, then all that follows from it, as far as it arrives by then.
    pub(crate) fn pass_one(&mut self) {
        self.wall += 1;
        for id in self.ids() {
            if self.is_up(id) {
                self.tick(id, 1);
            }
        }
        self.run_due();
    }

    /// Time passes everywhere.
    pub(crate) fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.pass_one();
        }
    }

    /// Time passes until `done`; the number of ticks, or none if that takes longer than `limit`.
    pub(crate) fn pass_until(&mut self, limit: u64, done: impl Fn(&Cluster) -> bool) -> Option<u64> {
        for ticks in 0..=limit {
            if done(self) {
                return Some(ticks);
            }
            self.pass_one();
        }
        None
    }

    /// Delivers every message and finishes every write, and those that follow, until nothing is left to do.
    pub(crate) fn run(&mut self) {
        let latency = std::mem::replace(&mut self.latency, 0);
        self.run_due();
        self.latency = latency;
        assert!(self.is_silent());
    }

    fn run_due(&mut self) {
        for _ in 0..100_000 {
            let mut idle = true;
            for id in self.ids() {
                if self.is_up(id) && !self.nodes[&id].jobs.is_empty() {
                    self.persist(id);
                    idle = false;
                }
            }
            let due = |mail: &Mail| mail.posted + self.latency <= self.wall;
            let links: Vec<_> = self.links.iter().filter(|(_, link)| link.front().is_some_and(due)).collect();
            let links: Vec<_> = links.into_iter().map(|(link, _)| *link).collect();
            for (from, to) in links {
                let mail = self.take(from, to);
                self.hand(mail);
                idle = false;
            }
            if idle {
                return;
            }
        }
        panic!("the cluster never falls silent");
    }

    // What a script asks of the nodes.

    /// The node asks for pre-votes.
    pub(crate) fn campaign(&mut self, id: u64) {
        self.step(id, Input::Campaign);
    }

    /// Makes `id` the leader, everybody listening. Where its term is older, it learns the newest one from a
    /// refusal and tries again.
    pub(crate) fn elect(&mut self, id: u64) {
        for _ in 0..3 {
            self.silence(self.settings.election_min);
            self.campaign(id);
            self.run();
            if self.role(id) == RoleName::Leader {
                return;
            }
        }
        panic!("nothing stands against {id}\n{}", self.describe());
    }

    /// Takes a pre-candidate as far as its campaign, by the pre-vote of `voter`.
    pub(crate) fn run_pre_vote(&mut self, id: u64, voter: u64) {
        self.persist(id);
        self.deliver(id, voter);
        self.persist(voter);
        self.deliver(voter, id);
        assert_eq!(self.role(id), RoleName::Candidate, "a quorum of pre-votes");
    }

    /// Elects `id` with these votes alone.
    pub(crate) fn elect_by(&mut self, id: u64, voters: &[u64]) {
        let cut = self.cut.clone();
        let mut group = voters.to_vec();
        group.push(id);
        self.partition(&[&group]);
        self.elect(id);
        self.cut = cut;
    }

    /// Asks for `count` entries.
    pub(crate) fn propose(&mut self, id: u64, count: u64) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.history.proposals.insert(ticket, (id, count));
        self.step(id, Input::Propose { ticket, count });
        ticket
    }

    pub(crate) fn read(&mut self, id: u64) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.history.reads.insert(ticket, (id, Index(self.committed())));
        self.step(id, Input::Read { ticket });
        ticket
    }

    pub(crate) fn bootstrap(&mut self, id: u64, membership: Membership) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.step(id, Input::Bootstrap { ticket, membership });
        ticket
    }

    /// The script's word that the oldest open request to `to` left, with at most `most` entries.
    pub(crate) fn sent(&mut self, id: u64, to: u64, most: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        let at = node.open.iter().position(|open| open.envelope.to.id.0 == to).expect("an open request");
        let open = node.open.remove(at);
        let follow_up = self.send_entries(id, open, most);
        self.step(id, follow_up);
    }

    /// The script's word that the oldest open request to `to` was given up.
    pub(crate) fn unsent(&mut self, id: u64, to: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        let at = node.open.iter().position(|open| open.envelope.to.id.0 == to).expect("an open request");
        let term = node.open.remove(at).append().term;
        self.step(id, Input::Unsent { to: peer(to), term });
    }

    /// Gives a node an input.
    pub(crate) fn step(&mut self, id: u64, input: Input) -> Output {
        self.step_with(id, input, Vec::new())
    }

    fn step_with(&mut self, id: u64, input: Input, received: Vec<Entry>) -> Output {
        let node = self.nodes.get_mut(&id).unwrap();
        let now = Tick(node.clock);
        let raft = node.raft.as_mut().expect("the node is up");
        let before = (raft.is_leader(), raft.term(), raft.commit(), node.memory.last_id());
        let was = (raft.role_name(), raft.term());
        let out = raft.step(now, input.clone());
        let is = (raft.role_name(), raft.term());
        node.out = out.clone();
        self.write_step(id, &input, &out, (was != is).then_some(is));
        let follow_ups = self.carry_out(id, out.clone(), &input, received);
        self.check(id, before, &input, &out);
        for follow_up in follow_ups {
            self.step(id, follow_up);
        }
        out
    }

    /// All nodes that are up agree on everything.
    pub(crate) fn assert_converged(&self) {
        let up: Vec<u64> = self.ids().into_iter().filter(|id| self.is_up(*id)).collect();
        for id in &up {
            let same =
                |other: &u64| self.commit(*other) == self.commit(*id) && self.log(*other) == self.log(*id);
            assert!(up.iter().all(same), "{}", self.describe());
        }
        assert_eq!(self.commit(up[0]), self.last(up[0]), "all that is in the logs is committed");
    }

    /// The cluster at a glance, for the message of a failed test.
    pub(crate) fn describe(&self) -> String {
        let line = |(id, node): (&u64, &Node)| match &node.raft {
            Some(raft) => format!(
                "{id}: {} of term {}, leader {:?}, commit {}, persisted {}, log {}\n",
                raft.role_name(),
                raft.term(),
                raft.leader(),
                raft.commit(),
                raft.persisted(),
                node.memory.terms()
            ),
            None => format!("{id}: down\n"),
        };
        self.nodes.iter().map(line).collect()
    }
}
