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

use coracle_core::*;
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

/// A log with its hard state: once as a node has it in memory, once as its disk would give it back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) purged: LogId,
    /// The membership in force at `purged`.
    pub(crate) base: Option<(LogId, Membership)>,
    pub(crate) log: Vec<Entry>,
}

impl Image {
    pub(crate) fn last(&self) -> Index {
        Index(self.purged.index.0 + self.log.len() as u64)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        let at = index.0.checked_sub(self.purged.index.0 + 1)?;
        self.log.get(at as usize)
    }

    pub(crate) fn id_at(&self, index: Index) -> Option<LogId> {
        if index == self.purged.index {
            return Some(self.purged);
        }
        self.get(index).map(|entry| LogId { term: entry.term, index })
    }

    pub(crate) fn last_id(&self) -> LogId {
        self.id_at(self.last()).expect("the last entry")
    }

    fn truncate(&mut self, last: Index) {
        self.log.truncate((last.0 - self.purged.index.0) as usize);
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (at, entry) in self.log.iter().enumerate() {
            if runs.last().is_none_or(|run| run.term != entry.term) {
                runs.push(Run { first: Index(self.purged.index.0 + 1 + at as u64), term: entry.term });
            }
        }
        runs
    }

    pub(crate) fn memberships(&self) -> Vec<(LogId, Membership)> {
        let in_log = self.log.iter().enumerate().filter_map(|(at, entry)| {
            let index = Index(self.purged.index.0 + 1 + at as u64);
            entry.membership.as_ref().map(|m| (LogId { term: entry.term, index }, (**m).clone()))
        });
        self.base.iter().cloned().chain(in_log).collect()
    }

    pub(crate) fn restored(&self) -> Restored {
        Restored {
            hard_state: self.hard_state,
            purged: self.purged,
            runs: self.runs(),
            last: self.last(),
            memberships: self.memberships(),
        }
    }

    /// The terms of the entries, as the scripts write them.
    pub(crate) fn terms(&self) -> String {
        let terms: Vec<String> = self.log.iter().map(|entry| entry.term.to_string()).collect();
        terms.join(" ")
    }
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

/// What the box remembers over all crashes.
#[derive(Default)]
struct History {
    leaders: BTreeMap<Term, u64>,
    votes: BTreeMap<(u64, Term), u64>,
    /// Every entry ever made, with the one before it: equal names mean equal entries and equal prefixes.
    entries: BTreeMap<LogId, (u64, LogId)>,
    /// What is committed, and the term of the leader that committed it.
    committed: BTreeMap<Index, (LogId, u64, Term)>,
    /// The newest term in which a node has spoken.
    spoken: BTreeMap<u64, Term>,
    /// Reads that wait for an answer: where they were asked, and what was committed anywhere by then.
    reads: BTreeMap<Ticket, (u64, Index)>,
    proposals: BTreeMap<Ticket, (u64, u64)>,
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
        outgoing: ids(outgoing),
    }
}

/// An entry of a log that a script starts with. What it holds follows from its name.
fn given_entry(term: u64, index: u64, members: &BTreeMap<u64, Membership>) -> Entry {
    let membership = members.get(&index).cloned().map(Box::new);
    Entry { term: Term(term), content: 1_000_000_000 * term + index, membership }
}

/// Reads `"1 1 2*3"`: entries of term 1, 1, 2, 2, 2.
pub(crate) fn parse_log(text: &str, memberships: &[(u64, Membership)]) -> Vec<Entry> {
    let members: BTreeMap<u64, Membership> = memberships.iter().cloned().collect();
    let mut log = Vec::new();
    for word in text.split_whitespace() {
        let (term, times) = word.split_once('*').unwrap_or((word, "1"));
        for _ in 0..times.parse().expect("how many") {
            log.push(given_entry(term.parse().expect("a term"), log.len() as u64 + 1, &members));
        }
    }
    log
}

fn is_quorum(membership: &Membership, holds: impl Fn(u64) -> bool) -> bool {
    let majority = |set: &BTreeSet<NodeId>| 2 * set.iter().filter(|id| holds(id.0)).count() > set.len();
    majority(&membership.voters) && (membership.outgoing.is_empty() || majority(&membership.outgoing))
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

    /// Puts a message back, behind the others.
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
            return Output::default();
        }
        self.step_with(to, Input::Receive(mail.envelope), mail.entries)
    }

    /// Hands over a message that somebody made up.
    pub(crate) fn say(&mut self, from: u64, to: u64, message: Message) -> Output {
        let membership = self.nodes.get(&from).and_then(|node| node.raft.as_ref());
        let membership = membership.map_or(LogId::ZERO, Raft::membership_id);
        let envelope = Envelope { from: peer(from), to: peer(to), membership, message };
        self.hand(Mail { envelope, entries: Vec::new(), posted: self.wall })
    }

    /// A node hears of a newer term, from one who cannot win in it.
    pub(crate) fn enter(&mut self, id: u64, term: u64) {
        let vote = Vote { campaign: Term(term), pre: false, transfer: None, last: LogId::ZERO };
        let stranger = if id == A { B } else { A };
        self.say(stranger, id, Message::Vote(vote));
        self.persist(id);
        self.links.remove(&(id, stranger));
        assert_eq!(self.term(id), term);
    }

    /// Hands over an AppendEntries that somebody made up, with the bytes that `from` has for it.
    pub(crate) fn give(&mut self, from: u64, to: u64, append: Append) -> Output {
        let log = self.nodes[&from].memory.clone();
        self.give_image(&log, from, to, append)
    }

    /// The same with the bytes that a node of another cluster has.
    pub(crate) fn give_from(&mut self, other: &Cluster, from: u64, to: u64, append: Append) -> Output {
        self.give_image(&other.nodes[&from].memory, from, to, append)
    }

    fn give_image(&mut self, log: &Image, from: u64, to: u64, append: Append) -> Output {
        let range = append.prev.index.0 + 1..=append.last.0;
        let entries = range.map(|at| log.get(Index(at)).expect("the sender has it").clone()).collect();
        let membership = self.raft(from).membership_id();
        let message = Message::Append(append);
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
        self.links.remove(&(from, to));
    }

    /// Loses everything that is on its way.
    pub(crate) fn lose_all(&mut self) {
        self.links.clear();
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

    /// Makes `id` the leader, everybody listening. Where its term is behind, it learns the newest one from a
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
        self.step(id, Input::Unsent { to: NodeId(to), term });
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
        let out = raft.step(now, input.clone());
        node.out = out.clone();
        let follow_ups = self.carry_out(id, out.clone(), &input, received);
        self.check(id, before, &input, &out);
        for follow_up in follow_ups {
            self.step(id, follow_up);
        }
        out
    }

    /// Does what the node wants done, in the order of the fields.
    fn carry_out(&mut self, id: u64, out: Output, input: &Input, received: Vec<Entry>) -> Vec<Input> {
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some(members) = out.members {
            node.members = Some(members);
        }
        let before = node.memory.last();
        let mut first_new = before.next();
        for change in out.tail {
            match change {
                TailChange::Truncate(last) => {
                    assert!(!node.raft.as_ref().unwrap().is_leader(), "S2: node {id} leads and truncates");
                    node.memory.truncate(last);
                    first_new = first_new.min(last.next());
                }
                TailChange::TakeReceived(first) => {
                    let Input::Receive(Envelope { message: Message::Append(append), .. }) = input else {
                        panic!("node {id} takes entries from {input:?}");
                    };
                    assert_eq!(first, node.memory.last().next(), "no gap in the tail of {id}");
                    let skip = (first.0 - append.prev.index.0 - 1) as usize;
                    node.memory.log.extend(received[skip..].iter().cloned());
                }
                TailChange::TakeProposed { first, ticket } => {
                    assert_eq!(first.index, node.memory.last().next());
                    let count = out.accepted.iter().find(|accepted| accepted.ticket == ticket).unwrap().count;
                    for _ in 0..count {
                        self.contents += 1;
                        let entry = Entry { term: first.term, content: self.contents, membership: None };
                        node.memory.log.push(entry);
                    }
                }
                TailChange::TakeNoop(noop) => {
                    assert_eq!(noop.index, node.memory.last().next());
                    self.contents += 1;
                    let entry = Entry { term: noop.term, content: self.contents, membership: None };
                    node.memory.log.push(entry);
                }
                TailChange::TakeMembership(at, membership) => {
                    assert_eq!(at.index, node.memory.last().next());
                    self.contents += 1;
                    let membership = Some(Box::new(membership));
                    node.memory.log.push(Entry { term: at.term, content: self.contents, membership });
                }
            }
        }
        let memory = node.memory.clone_tail(first_new.prev());
        self.note_entries(&memory, first_new);

        let mut follow_ups = Vec::new();
        for replicate in out.replicate {
            let to = replicate.envelope.to.id;
            match self.sending {
                Sending::ByHand => self.nodes.get_mut(&id).unwrap().open.push(replicate),
                Sending::Connected if self.cut.contains(&(id, to.0)) => {
                    follow_ups.push(Input::Unsent { to, term: replicate.append().term });
                }
                _ => follow_ups.push(self.send_entries(id, replicate, u64::MAX)),
            }
        }
        for envelope in out.send {
            let mail = Mail { envelope, entries: Vec::new(), posted: 0 };
            self.post(id, mail);
        }
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some(write) = out.write {
            let range = write.append.map_or(1..=0, |(first, last)| first.0..=last.0);
            let entries = range.map(|at| node.memory.get(Index(at)).expect("in the tail").clone()).collect();
            if let Some(hard_state) = write.hard_state {
                let old = node.memory.hard_state;
                assert!(hard_state.term >= old.term, "S9: the term of {id} goes back");
                let kept = hard_state.term > old.term || old.vote.is_none() || old.vote == hard_state.vote;
                assert!(kept, "S10: {id} changes its vote within a term");
                node.memory.hard_state = hard_state;
            }
            node.jobs.push_back(Job { write, entries });
        }
        let (until, term) = {
            let raft = node.raft.as_ref().unwrap();
            (raft.newest_write(), raft.term())
        };
        for envelope in out.send_after_sync {
            let mail = Mail { envelope, entries: Vec::new(), posted: 0 };
            if self.nodes[&id].done >= until {
                self.post(id, mail);
            } else {
                self.nodes.get_mut(&id).unwrap().held.push(Held { until, term, mail });
            }
        }
        for grant in &out.reads {
            let (asked, floor) = self.history.reads.remove(&grant.ticket).expect("S21: one answer each");
            assert_eq!(asked, id, "an answer is given where it was asked for");
            assert!(grant.index >= floor, "S19: {id} reads at {} what was {floor} before", grant.index);
        }
        for refused in &out.refused {
            let proposal = self.history.proposals.get(&refused.ticket);
            let accepted = self.nodes[&id].accepted.iter().any(|accepted| accepted.ticket == refused.ticket);
            assert!(!accepted, "S21: {id} refuses what it has in its log");
            if proposal.is_none() {
                self.history.reads.remove(&refused.ticket);
            }
        }
        let node = self.nodes.get_mut(&id).unwrap();
        node.accepted.extend(out.accepted);
        node.reads.extend(out.reads);
        node.refused.extend(out.refused);
        node.alarms.extend(out.alarms);
        node.dropped.extend(out.dropped);
        follow_ups
    }

    /// Loads the entries and posts them, one byte each.
    fn send_entries(&mut self, id: u64, replicate: Replicate, most: u64) -> Input {
        let node = &self.nodes[&id];
        let Replicate { mut envelope, max_bytes } = replicate;
        let Message::Append(append) = &mut envelope.message else { panic!("only AppendEntries") };
        let count = append.count().min(max_bytes.max(1)).min(most);
        append.cut(Index(append.prev.index.0 + count));
        let (to, term, prev, last) = (envelope.to.id, append.term, append.prev, append.last);
        let range = prev.index.0 + 1..=last.0;
        let raft = node.raft.as_ref().expect("the node is up");
        let known = range.clone().all(|at| {
            let named = append.runs.iter().rev().find(|run| run.first.0 <= at).expect("LG-7: no gap").term;
            node.memory.get(Index(at)).is_some_and(|entry| entry.term == named)
        });
        if !raft.is_leader() || raft.term() != term || !known {
            return Input::Unsent { to, term };
        }
        let entries = range.map(|at| node.memory.get(Index(at)).unwrap().clone()).collect();
        self.post(id, Mail { envelope, entries, posted: 0 });
        Input::Sent { to, term, prev, last, bytes: count }
    }

    /// A message leaves its node: the last moment to ask whether it may.
    fn post(&mut self, id: u64, mut mail: Mail) {
        let Mail { envelope, entries, .. } = &mail;
        let (to, node) = (envelope.to.id.0, &self.nodes[&id]);
        let durable = node.disk.hard_state;
        assert_eq!(envelope.from, node.peer, "a node speaks for itself");
        assert!(to != id, "a node does not write to itself");
        let term = envelope.message.term();
        assert!(durable.term >= term, "S11: {id} speaks in {term}, but its disk is in {}", durable.term);
        let spoken = self.history.spoken.entry(id).or_default();
        *spoken = term.max(*spoken);
        match &envelope.message {
            Message::Vote(vote) if !vote.pre => self.note_vote(id, vote.campaign, id),
            Message::VoteReply(reply) if !reply.pre && reply.refusal.is_none() => {
                self.note_vote(id, reply.campaign, to);
            }
            Message::AppendReply(reply)
                if durable.term == reply.term && reply.matched > node.disk.purged.index =>
            {
                let (disk, memory) = (node.disk.id_at(reply.matched), node.memory.id_at(reply.matched));
                assert!(disk.is_some(), "S11: {id} acknowledges {} before it is durable", reply.matched);
                assert_eq!(disk, memory, "S11: {id} acknowledges what is overwritten");
            }
            Message::Append(append) => {
                assert!(append.is_well_formed(), "LG-7: {append:?}");
                assert_eq!(append.count(), entries.len() as u64, "LG-7: as many entries as named");
            }
            _ => {}
        }
        mail.posted = self.wall;
        if !self.cut.contains(&(id, to)) {
            self.links.entry((id, to)).or_default().push_back(mail);
        }
    }

    fn note_vote(&mut self, voter: u64, term: Term, candidate: u64) {
        let durable = self.nodes[&voter].disk.hard_state;
        let kept = durable.term > term || (durable.term == term && durable.vote == Some(peer(candidate)));
        assert!(kept, "S11: the vote of {voter} for {candidate} in {term} leaves before it is durable");
        let before = *self.history.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(before, candidate, "S10: {voter} votes for {before} and {candidate} in {term}");
    }

    /// Two entries of the same name are the same, and so is all before them.
    fn note_entries(&mut self, image: &Image, from: Index) {
        for at in from.0..=image.last().0 {
            let (index, entry) = (Index(at), image.get(Index(at)).unwrap());
            let name = LogId { term: entry.term, index };
            let prev = image.id_at(index.prev()).unwrap();
            let known = *self.history.entries.entry(name).or_insert((entry.content, prev));
            assert_eq!(known, (entry.content, prev), "S3: two entries are both called {name}");
        }
    }

    /// Judges the node that has just stepped.
    fn check(&mut self, id: u64, before: (bool, Term, Index, LogId), input: &Input, out: &Output) {
        let (was_leader, old_term, old_commit, old_last) = before;
        let node = &self.nodes[&id];
        let raft = node.raft.as_ref().unwrap();
        assert_eq!(raft.check(), Ok(()), "node {id}");
        assert_eq!(raft.last(), node.memory.last_id(), "the tail of {id} equals its log");
        let (term, commit) = (raft.term(), raft.commit());
        assert_eq!(term, node.memory.hard_state.term, "a new term of {id} is written");
        assert!(term >= old_term, "S9: the term of {id} goes back");
        assert!(commit >= old_commit, "S9: the commit index of {id} goes back");
        assert!(raft.persisted() <= node.disk.last(), "S11: {id} takes for durable what is not");
        for change in &out.tail {
            if let TailChange::Truncate(last) = change {
                assert!(*last >= old_commit, "S7: {id} truncates what is committed");
            }
        }
        if out.members.is_some() || !out.tail.is_empty() {
            let in_log = node.memory.memberships().pop().map_or(LogId::ZERO, |(id, _)| id);
            assert_eq!(raft.membership_id(), in_log, "S14a: {id} goes by the newest membership in its log");
        }
        let (leads, role) = (raft.is_leader(), raft.role_name());
        if matches!(role, RoleName::Leader | RoleName::Candidate | RoleName::PreCandidate) {
            assert!(raft.membership().is_voter(node.peer), "S14f: {id} does not vote and is a {role}");
        }
        if was_leader && leads && old_term == term {
            assert!(node.memory.last_id() >= old_last, "S2: {id} leads and loses entries");
        }
        self.check_input(id, input, out, old_last, old_commit);
        if leads && !(was_leader && old_term == term) {
            self.check_election(id, term);
        }
        if commit > old_commit {
            self.check_commit(id, old_commit, commit);
        }
        if leads {
            self.check_progress(id);
        }
    }

    fn check_input(&self, id: u64, input: &Input, out: &Output, last: LogId, commit: Index) {
        let Input::Receive(envelope) = input else { return };
        match &envelope.message {
            Message::Append(append) if self.raft(id).commit() > commit => {
                let verified = append.commit.min(append.last);
                assert!(self.raft(id).commit() <= verified, "S8: {id} commits what it cannot know");
            }
            Message::Vote(vote) => {
                let replies = out.send.iter().chain(&out.send_after_sync);
                let granted = replies.into_iter().any(
                    |e| matches!(&e.message, Message::VoteReply(r) if r.refusal.is_none() && r.campaign == vote.campaign),
                );
                assert!(!granted || vote.last >= last, "S13: {id} grants a vote to a log behind its own");
            }
            _ => {}
        }
    }

    fn check_election(&mut self, id: u64, term: Term) {
        let before = *self.history.leaders.entry(term).or_insert(id);
        assert_eq!(before, id, "S1: {before} and {id} both lead {term}");
        let membership = self.raft(id).membership().clone();
        let voted = |voter: u64| {
            let itself = voter == id && self.nodes[&id].disk.hard_state.vote == Some(peer(id));
            itself || self.history.votes.get(&(voter, term)) == Some(&id)
        };
        assert!(is_quorum(&membership, voted), "S13: {id} leads {term} without a quorum of votes");
        let purged = self.nodes[&id].memory.purged.index;
        for (index, (entry, content, by)) in &self.history.committed {
            if *by < term && *index > purged {
                let own = self.nodes[&id].memory.get(*index).map(|own| (own.term, own.content));
                assert_eq!(own, Some((entry.term, *content)), "S4: {id} leads {term} and lacks {entry}");
            }
        }
    }

    fn check_commit(&mut self, id: u64, old: Index, new: Index) {
        let node = &self.nodes[&id];
        let raft = node.raft.as_ref().unwrap();
        if raft.is_leader() {
            let of = node.memory.id_at(new).unwrap().term;
            assert_eq!(of, raft.term(), "S8: a leader counts for entries of its own term only");
        }
        let term = raft.term();
        let mut first_of_all = false;
        for at in old.0 + 1..=new.0 {
            let entry = node.memory.get(Index(at)).expect("S15: what is committed is in the log");
            let name = LogId { term: entry.term, index: Index(at) };
            let known = *self.history.committed.entry(Index(at)).or_insert_with(|| {
                first_of_all = true;
                (name, entry.content, term)
            });
            assert_eq!((known.0, known.1), (name, entry.content), "S5/S7: {id} commits another entry {at}");
        }
        if first_of_all {
            assert!(raft.is_leader(), "S8: only a leader commits first");
            let name = node.memory.id_at(new).unwrap();
            self.check_durable(name);
        }
    }

    /// A committed entry is on the disks of a quorum.
    fn check_durable(&self, entry: LogId) {
        let leader = self.history.leaders.values().next_back().map(|id| &self.nodes[id]);
        let Some(leader) = leader.filter(|node| node.raft.is_some()) else { return };
        let membership = leader.raft.as_ref().unwrap().membership();
        let holds = |id: u64| self.nodes.get(&id).is_some_and(|n| n.disk.id_at(entry.index) == Some(entry));
        assert!(is_quorum(membership, holds), "S6: {entry} is committed and not durable on a quorum");
    }

    fn check_progress(&self, id: u64) {
        let leader = &self.nodes[&id];
        let status = leader.raft.as_ref().unwrap().status();
        for follower in status.peers.iter().filter(|peer| !peer.lost_entries) {
            let Some(node) = self.nodes.get(&follower.id.0) else { continue };
            assert!(follower.next > follower.matched, "S12: next is above matched");
            let moved_on = node.disk.hard_state.term.max(node.memory.hard_state.term) > status.term;
            if !moved_on {
                let (here, there) =
                    (leader.memory.id_at(follower.matched), node.disk.id_at(follower.matched));
                let purged = follower.matched <= node.disk.purged.index;
                assert!(purged || here == there, "S12: {} does not hold {here:?} for good", follower.id);
            }
            assert!(follower.messages_in_flight <= self.settings.inflight_messages, "S22: the window");
        }
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

impl Image {
    /// The entries behind `last`, in an image that starts there.
    fn clone_tail(&self, last: Index) -> Image {
        let purged = self.id_at(last).expect("in the log");
        let skip = (last.0 - self.purged.index.0) as usize;
        Image { hard_state: self.hard_state, purged, base: None, log: self.log[skip..].to_vec() }
    }
}
