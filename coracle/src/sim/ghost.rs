//! What really happened: the judge's own records, which no crash touches, and the safety invariants.
//!
//! The checks are incremental: each looks only at what the last step can have changed. The numbers are
//! those under which the invariants are known in this project's tests:
//!
//! - S1 one leader per term · S2 a leader never drops entries · S3 same (index, term), same entry and
//!   same past · S4 a leader has all that is committed · S5 all machines agree at each index
//! - S6 what is committed is durable on a quorum · S7 and never changes · S9 terms and votes never go back
//! - S8 a leader counts for entries of its own term only, and a follower follows no further than what the
//!   message has verified · S10 one vote per term · S11 nothing is said before it is durable
//! - S12 a leader knows no more of a follower than is true, which drops nothing of it in that term · S13 votes go to logs that are up-to-date, and
//!   a leader has a quorum of durable ones · S14 the membership in force is the newest in the own log
//! - S15 nothing is applied that is not committed and durable here · S22 what waits is bounded
//! - S26 leadership goes to whom it may go · S27 a member is only said to be where it was · S19 a read is not older than what was committed when it was asked · S20 what was durable is there after a crash · S21 what was refused never happens · S36 whoever joins has one name · S37 old certificates stay nobody's

mod admissions;
pub(super) mod effects;
mod marks;
pub(super) mod members;
mod places;
mod queued;
pub(super) mod timers;
mod transfers;

pub(super) use transfers::Follows;

use super::situations::{Met, Rare};
use crate::entry::{Entry, Kind};
use crate::storage::{Change, Recovered, WriteBatch};
use crate::work::Unsent;
use coracle_core::{
    AppendEntries, AppendEntriesReply, Envelope, HardState, Index, LogId, Message, NodeId, Peer, PeerStatus,
    Raft, Refusal, RequestVoteReply, Term,
};
use std::collections::{BTreeMap, BTreeSet};

/// A broken invariant, and how it showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Its number: S1 to S37, L1 to L15, or a word.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

/// By so much, in milliseconds, may the cluster's clock lag behind a node's own: what lasts is not to end early.
const CLOCK_SLACK: u64 = 1;

/// A start's first tick sets the clock going, if nothing did before.
const NOT_YET: u64 = u64::MAX;

pub(super) type Verdict = Result<(), Violation>;

pub(super) fn broken(invariant: &'static str, detail: String) -> Verdict {
    Err(Violation { invariant, detail })
}

/// An entry as the judge remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    term: Term,
    checksum: u32,
    membership: bool,
    timer: bool,
    bytes: u64,
    cluster_time: u64,
}

/// A log as the judge remembers it, from index 1.
#[derive(Clone, Default)]
struct Image {
    entries: Vec<Seen>,
}

impl Image {
    fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    fn get(&self, index: Index) -> Option<Seen> {
        self.entries.get((index.0 as usize).checked_sub(1)?).copied()
    }

    /// The bytes of the entries after `index`.
    fn bytes_after(&self, index: Index) -> u64 {
        self.entries.iter().skip(index.0 as usize).map(|entry| entry.bytes).sum()
    }

    fn change(&mut self, change: &Change, committed: &[Seen]) {
        match change {
            Change::Truncate(last) => self.entries.truncate(last.0 as usize),
            Change::Append(entries) => self.entries.extend(entries.iter().map(seen)),
            // What a snapshot stands for counts as if it were there.
            Change::Reset(to) => self.entries = committed[..to.index.0 as usize].to_vec(),
        }
    }
}

fn seen(entry: &Entry) -> Seen {
    let (membership, timer) = (entry.kind() == Kind::Membership, entry.kind() == Kind::Timer);
    let (bytes, cluster_time) = (entry.len() as u64, entry.stamp().cluster_time);
    Seen { term: entry.term(), checksum: entry.checksum(), membership, timer, bytes, cluster_time }
}

/// The judge's record of one node.
#[derive(Default)]
struct Record {
    /// The log in memory, as its writes say.
    log: Image,
    /// What survives a loss of power now.
    durable: Image,
    durable_state: HardState,
    /// The newest term and vote, durable or not, of this boot.
    state: HardState,
    commit: Index,
    applied: Index,
    leads: bool,
    /// To whom it is handing over, if it leads.
    hands_over_to: Option<NodeId>,
    /// What it has acknowledged to the leader of its term, and in which term that was.
    acknowledged: (Term, Index),
    /// At a leader: how much it knew of each follower, and in which term.
    matched: BTreeMap<Peer, (Term, Index)>,
    /// In which term each follower last answered it.
    answered: BTreeMap<Peer, Term>,
    /// At a leader: the last index and the bytes of each message with entries that a follower has not answered,
    /// and in which term.
    under_way: BTreeMap<Peer, (Term, Vec<(Index, u64)>)>,
    /// Bytes of entries that waited for a quorum when it last became leader.
    inherited: u64,
    /// A time that an entry of its log showed, and what its own clock showed then, in milliseconds: from there the
    /// cluster's clock goes on.
    time: (u64, u64),
    /// What was durable when it went back: what was acknowledged until then was true.
    before: Image,
    /// Whether it has refused a vote, in this boot, since its log was newer.
    needed: bool,
}

impl Record {
    /// Whether this entry is, or was, durable on it.
    fn held(&self, index: Index, entry: Option<Seen>) -> bool {
        self.durable.get(index) == entry || (entry.is_some() && self.before.get(index) == entry)
    }
}

/// All records.
pub(super) struct Ghost {
    nodes: Vec<Record>,
    ids: Vec<NodeId>,
    /// The nodes, on the disks that they have now.
    peers: Vec<Peer>,
    /// The records of disks that were wiped: what they acknowledged was true.
    wiped: BTreeMap<Peer, Record>,
    /// Where each disk ever was.
    was_at: BTreeMap<Peer, BTreeSet<String>>,
    leader_of: BTreeMap<Term, NodeId>,
    vote_of: BTreeMap<(Peer, Term), Peer>,
    /// Every entry that ever was, with the term of the one before it.
    entry_of: BTreeMap<(Index, Term), (u32, Term)>,
    memberships: members::Memberships,
    committed: Vec<Seen>,
    /// In which term each of them was committed.
    committed_in: Vec<Term>,
    /// The digest of all machines at each index.
    digests: BTreeMap<Index, [u8; 16]>,
    /// Whose disk went back to an earlier state, at any time.
    went_back: BTreeSet<usize>,
    /// Of two processes on a directory and its copy, the record of the one that waits.
    aside: BTreeMap<usize, Record>,
    /// For whom the first durable vote of each term was.
    first_vote: BTreeMap<Term, NodeId>,
    /// The latest time that any node's clock can show by now, in milliseconds.
    pub(super) latest: u64,
    /// Up to where the node that is being judged knows the log committed by now.
    pub(super) commits: Index,
    pub(super) met: Met,
}

impl Ghost {
    pub(super) fn new(peers: Vec<Peer>) -> Ghost {
        Ghost {
            nodes: peers.iter().map(|_| Record::default()).collect(),
            ids: peers.iter().map(|peer| peer.id).collect(),
            peers,
            wiped: BTreeMap::new(),
            was_at: BTreeMap::new(),
            leader_of: BTreeMap::new(),
            vote_of: BTreeMap::new(),
            entry_of: BTreeMap::new(),
            memberships: members::Memberships::default(),
            committed: Vec::new(),
            committed_in: Vec::new(),
            digests: BTreeMap::new(),
            went_back: BTreeSet::new(),
            aside: BTreeMap::new(),
            first_vote: BTreeMap::new(),
            latest: 0,
            commits: Index::ZERO,
            met: Met::new(),
        }
    }

    /// The newest index that any node ever knew to be committed.
    pub(super) fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// A node has had a tick, and its own clock shows this many milliseconds.
    pub(super) fn on_tick(&mut self, node: usize, local: u64) {
        let (_, since) = &mut self.nodes[node].time;
        if *since == NOT_YET {
            *since = local;
        }
    }

    /// Bytes of entries that are in a node's log in memory, and not on its disk.
    pub(super) fn unpersisted(&self, node: usize) -> u64 {
        let Record { log, durable, .. } = &self.nodes[node];
        let both = log.last().min(durable.last()).0;
        // Logs that have the same entry have the same past.
        let same = (1..=both).rev().map(Index).find(|at| log.get(*at) == durable.get(*at));
        log.bytes_after(same.unwrap_or(Index::ZERO))
    }

    /// Bytes of the entries of a node's log after `index`.
    pub(super) fn bytes_after(&self, node: usize, index: Index) -> u64 {
        self.nodes[node].log.bytes_after(index)
    }

    /// Bytes of entries in a leader's log that it does not know to be committed: now, and when it was elected.
    pub(super) fn uncommitted(&self, node: usize) -> (u64, u64) {
        let record = &self.nodes[node];
        (record.log.bytes_after(record.commit), record.inherited)
    }

    /// Entries leave for a follower. How many messages are under way to it then, and how many bytes.
    pub(super) fn on_entries(&mut self, leader: usize, envelope: &Envelope, bytes: u64) -> (usize, u64) {
        let Message::AppendEntries(append) = &envelope.message else { return (0, 0) };
        let (term, sent) = self.nodes[leader].under_way.entry(envelope.to).or_default();
        if *term != append.term {
            *term = append.term;
            sent.clear();
        }
        sent.push((append.last, bytes));
        (sent.len(), sent.iter().map(|(_, bytes)| bytes).sum())
    }

    /// A leader has these peers. One that left and comes back is a new one to it, with nothing under way.
    pub(super) fn on_peers(&mut self, leader: usize, peers: &[PeerStatus]) {
        self.nodes[leader]
            .under_way
            .retain(|to, _| peers.iter().any(|it| (it.id, it.incarnation) == (to.id, to.incarnation)));
    }

    /// A leader was answered: what is acknowledged has arrived, and a follower that lacks something gets all again.
    pub(super) fn on_answered(&mut self, leader: usize, follower: Peer, reply: &AppendEntriesReply) {
        let answered = self.nodes[leader].answered.entry(follower).or_default();
        *answered = reply.term.max(*answered);
        let Some((term, sent)) = self.nodes[leader].under_way.get_mut(&follower) else { return };
        if *term == reply.term {
            sent.retain(|(last, _)| *last > reply.matched && reply.conflict.is_none());
        }
    }

    /// A leader was told that entries did not leave: they go again, and so does what left after them.
    pub(super) fn on_unsent(&mut self, leader: usize, unsent: Unsent) {
        let Unsent::Entries(to, of, prev) = unsent else { return };
        if let Some((term, sent)) = self.nodes[leader].under_way.get_mut(&to)
            && *term == of
        {
            sent.retain(|(last, _)| *last <= prev.index);
        }
    }

    /// A node's disk has made a batch durable.
    pub(super) fn on_durable(&mut self, node: usize, batch: &WriteBatch) -> Verdict {
        let record = &mut self.nodes[node];
        for change in &batch.changes {
            record.durable.change(change, &self.committed);
            if matches!(change, Change::Reset(_)) {
                record.log.change(change, &self.committed);
            }
        }
        if let Some(state) = batch.hard_state {
            record.durable_state = state;
            return self.on_vote(node, state);
        }
        Ok(())
    }

    /// A vote is durable, and so can count from now on.
    fn on_vote(&mut self, node: usize, state: HardState) -> Verdict {
        let Some(vote) = state.vote else { return Ok(()) };
        // A disk that went back has forgotten its votes. What it says counts with nobody.
        if self.went_back.contains(&node) {
            return Ok(());
        }
        let first = *self.first_vote.entry(state.term).or_insert(vote.id);
        self.met.count_if(first != vote.id, Rare::Split);
        let cast = *self.vote_of.entry((self.peers[node], state.term)).or_insert(vote);
        if cast == vote {
            return Ok(());
        }
        broken(
            "S10",
            format!("node {} votes for {cast:?} and {vote:?} in term {}", self.ids[node], state.term),
        )
    }

    /// A node's disk went back to an earlier state.
    pub(super) fn on_put_back(&mut self, node: usize) {
        let before = std::mem::take(&mut self.nodes[node].durable);
        self.nodes[node] = Record { before, ..Record::default() };
        self.went_back.insert(node);
    }

    /// The process on a node's directory, and that on its copy, change places: `copied`: the copy is in front now.
    pub(super) fn exchange(&mut self, node: usize, copied: bool) {
        let aside = self.aside.entry(node).or_default();
        std::mem::swap(aside, &mut self.nodes[node]);
        if copied {
            // What the original acknowledged is true, wherever it is now.
            self.nodes[node].before = aside.durable.clone();
            self.went_back.insert(node);
        } else {
            self.went_back.remove(&node);
        }
    }

    /// A copy is gone.
    pub(super) fn forget_copy(&mut self, node: usize) {
        self.aside.remove(&node);
    }

    /// A node came back. What was durable must be there; more may be.
    pub(super) fn on_start(
        &mut self,
        node: usize,
        recovered: &Recovered,
        entries: &[Entry],
        snapshot: LogId,
    ) -> Verdict {
        let id = self.ids[node];
        let record = &mut self.nodes[node];
        // What was purged was committed and durable here: it counts as if it were still there.
        let purged = recovered.purged.index;
        let reached = self.committed.get((snapshot.index.0 as usize).wrapping_sub(1));
        if snapshot != LogId::ZERO && reached.is_none_or(|entry| entry.term != snapshot.term) {
            return broken("S16", format!("node {id} starts from {snapshot}, which is not committed"));
        }
        if purged > snapshot.index {
            return broken(
                "S20",
                format!("the log of node {id} begins after {purged}, and no snapshot reaches it"),
            );
        }
        let kept = self.committed[..purged.0 as usize].iter().copied();
        let image = Image { entries: kept.chain(entries.iter().map(seen)).collect() };
        // A truncation that was under way may have become durable with the rest of its batch: then the
        // entries after it are new ones. So the promise is judged on the entries that anyone committed:
        // another in the place of one was about to be overwritten.
        let upto = record.durable.last().0.min(self.committed.len() as u64);
        for index in (1..=upto).map(Index) {
            let held = record.durable.get(index);
            if held == self.committed.get(index.0 as usize - 1).copied() && image.get(index) != held {
                return broken(
                    "S20",
                    format!("node {id} lost the committed entry {index} that was durable on it"),
                );
            }
        }
        let (old, new) = (record.durable_state, recovered.hard_state);
        if new.term < old.term || (new.term == old.term && old.vote.is_some() && new.vote != old.vote) {
            return broken("S9", format!("node {id} went back from {old:?} to {new:?}"));
        }
        let newest = image.entries.last().map_or(0, |entry| entry.cluster_time);
        *record = Record {
            log: image.clone(),
            durable: image,
            durable_state: new,
            state: new,
            commit: snapshot.index,
            applied: snapshot.index,
            time: (newest, NOT_YET),
            before: std::mem::take(&mut record.before),
            acknowledged: record.acknowledged,
            ..Record::default()
        };
        self.on_vote(node, new)
    }

    /// Whether the node leads, as of its last step, and in which term.
    pub(super) fn leads(&self, node: usize) -> Option<Term> {
        let record = &self.nodes[node];
        record.leads.then_some(record.state.term)
    }

    /// A node may have changed: everything that it says of itself is judged.
    pub(super) fn on_step(&mut self, node: usize, raft: &Raft) -> Verdict {
        let id = self.ids[node];
        if let Err(rule) = raft.check() {
            return broken("core", format!("node {id} breaks its own rule: {rule}"));
        }
        let state = raft.hard_state();
        let record = &mut self.nodes[node];
        if state != record.state {
            if state.term < record.state.term {
                return broken(
                    "S9",
                    format!("node {id} goes back from term {} to {}", record.state.term, state.term),
                );
            }
            let cast = record.state.vote;
            if state.term == record.state.term && cast.is_some() && state.vote != cast {
                return broken(
                    "S10",
                    format!(
                        "node {id} changes its vote in term {}: {cast:?} to {:?}",
                        state.term, state.vote
                    ),
                );
            }
            record.state = state;
        }
        if raft.is_leader() && !self.nodes[node].leads {
            let first = *self.leader_of.entry(state.term).or_insert(id);
            if first != id {
                return broken("S1", format!("nodes {first} and {id} both lead in term {}", state.term));
            }
            for (at, entry) in self.committed.iter().enumerate() {
                let index = Index(at as u64 + 1);
                // A leader that was elected late may lack what a later one has committed meanwhile.
                if self.committed_in[at] < state.term && self.nodes[node].log.get(index) != Some(*entry) {
                    return broken(
                        "S4",
                        format!("leader {id} of term {} lacks the committed entry {index}", state.term),
                    );
                }
            }
            self.on_elected(node, state.term)?;
            let record = &mut self.nodes[node];
            record.inherited = record.log.bytes_after(record.commit);
        }
        let newest = self.nodes[node].log.entries.iter().rposition(|entry| entry.membership);
        // The reset to a snapshot is on its way to the disk, and the node has not moved to it yet.
        let moves = raft.is_installing();
        if !moves && raft.membership_id().index.0 != newest.map_or(0, |at| at as u64 + 1) {
            let id = raft.membership_id();
            return broken("S14", format!("node {} goes by membership {id}, not its newest", self.ids[node]));
        }
        self.nodes[node].leads = raft.is_leader();
        self.nodes[node].hands_over_to = raft.transferring_to();
        // Whoever comes back as a member is a stranger again.
        let record = &mut self.nodes[node];
        record.matched.retain(|peer, _| raft.membership().members.contains_key(&peer.id));
        record.under_way.retain(|peer, _| raft.membership().contains(*peer));
        self.on_commit(node, raft)
    }

    /// A node takes office: a quorum has durably voted for it.
    fn on_elected(&mut self, node: usize, term: Term) -> Verdict {
        let id = self.ids[node];
        let voted = |voter: Peer| self.vote_of.get(&(voter, term)).is_some_and(|vote| vote.id == id);
        if !self.has_quorum(node, self.nodes[node].log.last(), voted) {
            return broken(
                "S13",
                format!("node {id} leads in term {term} without a quorum of durable votes"),
            );
        }
        if !self.may_lead(node) {
            return broken("S14", format!("node {id} leads in term {term}, and does not vote"));
        }
        // Its log ends with the empty entry of its term.
        let own = &self.nodes[node].log;
        let end = own.last().prev();
        self.met.count_if(self.nodes.iter().any(|other| other.log.last() > end), Rare::Behind);
        let old_majority = (self.committed.len() as u64 + 1..=end.0).map(Index).any(|index| {
            let holders = self.nodes.iter().filter(|n| n.durable.get(index) == own.get(index)).count();
            holders > self.nodes.len() / 2
        });
        self.met.count_if(old_majority, Rare::OldMajority);
        Ok(())
    }

    /// A node has voted on the word of this message: it may only if its own log is no newer.
    pub(super) fn on_granted(&self, node: usize, candidate: LogId) -> Verdict {
        let log = &self.nodes[node].log;
        let own =
            LogId { term: log.entries.last().map_or(Term::ZERO, |entry| entry.term), index: log.last() };
        if candidate >= own {
            return Ok(());
        }
        broken("S13", format!("node {} at {own} votes for a candidate at {candidate}", self.ids[node]))
    }

    /// A follower has taken an append: it follows no further than that has verified.
    pub(super) fn on_appended(
        &self,
        node: usize,
        before: Index,
        append: &AppendEntries,
        after: Index,
    ) -> Verdict {
        let verified = append.commit.min(append.last);
        if after <= before.max(verified) {
            return Ok(());
        }
        broken("S8", format!("node {} commits {after} on an append that verified {verified}", self.ids[node]))
    }

    /// What survives on the node: how long its durable log is, its durable term and vote.
    pub(super) fn durable(&self, node: usize) -> (Index, HardState) {
        (self.nodes[node].durable.last(), self.nodes[node].durable_state)
    }

    /// How far the node's durable log is that of the committed entries.
    pub(super) fn durable_prefix(&self, node: usize) -> Index {
        let (durable, committed) = (&self.nodes[node].durable.entries, &self.committed);
        let same = (0..durable.len().min(committed.len())).rev().find(|&at| durable[at] == committed[at]);
        Index(same.map_or(0, |at| at as u64 + 1))
    }

    /// The newest entry of the node's log in memory.
    pub(super) fn last(&self, node: usize) -> LogId {
        let log = &self.nodes[node].log;
        LogId { term: log.entries.last().map_or(Term::ZERO, |entry| entry.term), index: log.last() }
    }

    fn on_commit(&mut self, node: usize, raft: &Raft) -> Verdict {
        let (old, new) = (self.nodes[node].commit, raft.commit());
        if new < old {
            return broken("S9", format!("node {} goes back from commit {old} to {new}", self.ids[node]));
        }
        self.nodes[node].commit = new;
        if new > old && raft.is_leader() {
            let term_at = |index| self.nodes[node].log.get(index).map(|entry| entry.term);
            if term_at(new) != Some(raft.term()) {
                let id = self.ids[node];
                return broken(
                    "S8",
                    format!("leader {id} of term {} commits {new} by counting", raft.term()),
                );
            }
            self.met.count_if(term_at(old.next()) != Some(raft.term()), Rare::Jumped);
        }
        for index in (old.0 + 1..=new.0).map(Index) {
            let Some(entry) = self.nodes[node].log.get(index) else {
                return broken("S8", format!("node {} commits {index} without having it", self.ids[node]));
            };
            match self.committed.get(index.0 as usize - 1) {
                Some(known) if *known != entry => {
                    let id = self.ids[node];
                    return broken(
                        "S7",
                        format!("node {id} commits {index} of term {}, but {} was", entry.term, known.term),
                    );
                }
                Some(_) => {}
                None => {
                    if !self.is_held(node, index) {
                        let id = self.ids[node];
                        let detail =
                            format!("entry {index} is committed by node {id}, and not durable on a quorum");
                        return broken("S6", detail);
                    }
                    self.committed.push(entry);
                    self.committed_in.push(raft.term());
                }
            }
        }
        Ok(())
    }

    /// A message leaves a node: what it says must be durable.
    pub(super) fn on_send(&mut self, node: usize, envelope: &Envelope) -> Verdict {
        let (id, record) = (self.ids[node], &mut self.nodes[node]);
        let term = match &envelope.message {
            Message::RequestVote(vote) if vote.pre => Term::ZERO,
            other => other.term(),
        };
        if term > record.durable_state.term {
            return broken(
                "S11",
                format!("node {id} speaks in term {term}, which is not durable: {:?}", envelope.message),
            );
        }
        match &envelope.message {
            Message::TimeoutNow(ask) => return self.on_order(node, envelope.to, ask),
            Message::RequestVoteReply(RequestVoteReply { refusal: Some(Refusal::Log), .. }) => {
                record.needed = true;
            }
            Message::RequestVoteReply(reply) if !reply.pre && reply.refusal.is_none() => {
                let durable = record.durable_state;
                if durable.term == reply.campaign && durable.vote != Some(envelope.to) {
                    return broken(
                        "S11",
                        format!("node {id} grants a vote that is not durable: {durable:?}"),
                    );
                }
            }
            Message::AppendEntriesReply(reply) if reply.matched > record.durable.last() => {
                let last = record.durable.last();
                return broken(
                    "S11",
                    format!("node {id} acknowledges {}, but only {last} is durable", reply.matched),
                );
            }
            Message::AppendEntriesReply(reply) if reply.term >= record.acknowledged.0 => {
                let before = record.acknowledged.1;
                let more = reply.term > record.acknowledged.0 || reply.matched > before;
                record.acknowledged = (reply.term, if more { reply.matched } else { before });
            }
            _ => {}
        }
        Ok(())
    }

    /// A leader has heard of a follower: it must not believe more than is true.
    pub(super) fn on_matched(&mut self, leader: usize, raft: &Raft, peer: Peer) -> Verdict {
        let named = raft.membership().members.get(&peer.id).is_some_and(|member| member.peer() == peer);
        let Some(matched) = raft.matched(peer.id).filter(|_| named) else { return Ok(()) };
        let known = (raft.term(), matched);
        let follower = peer.id;
        let before = self.nodes[leader].matched.insert(peer, known);
        if before.is_some_and(|(term, index)| term == raft.term() && index > matched && matched > Index::ZERO)
        {
            let leader = self.ids[leader];
            return broken(
                "S12",
                format!("leader {leader} of {follower} went back from {before:?} to {known:?}"),
            );
        }
        let Some(record) = self.record(peer) else { return Ok(()) };
        if record.state.term > raft.term() {
            // It follows somebody newer by now, who may have had it drop what it acknowledged here.
            return Ok(());
        }
        let own = self.nodes[leader].log.get(matched);
        if matched > Index::ZERO && !record.held(matched, own) {
            let leader = self.ids[leader];
            return broken(
                "S12",
                format!("leader {leader} believes that {follower} has its entry {matched}"),
            );
        }
        Ok(())
    }

    /// A machine has taken the state of a snapshot.
    pub(super) fn on_restored(&mut self, node: usize, id: LogId, digest: [u8; 16]) -> Verdict {
        let record = &mut self.nodes[node];
        let (name, applied) = (self.ids[node], record.applied);
        if id.index <= applied {
            return broken("S16", format!("the machine of node {name} goes back from {applied} to {id}"));
        }
        record.applied = id.index;
        if record.durable.last() < id.index {
            return broken(
                "S16",
                format!("node {name} takes a state up to {id} before its log is durably there"),
            );
        }
        let known = self.committed.get(id.index.0 as usize - 1).map(|entry| entry.term);
        if known != Some(id.term) {
            return broken("S16", format!("node {name} takes a state up to {id}, which is not committed"));
        }
        self.on_state(node, id, digest)
    }

    /// The state of a node's machine is that of a snapshot.
    pub(super) fn on_state(&mut self, node: usize, id: LogId, digest: [u8; 16]) -> Verdict {
        if *self.digests.entry(id.index).or_insert(digest) == digest {
            return Ok(());
        }
        broken("S16", format!("node {} has another digest at {id}, from a snapshot", self.ids[node]))
    }

    /// A machine has applied an entry. One that rotted has a digest that says nothing.
    pub(super) fn on_applied(&mut self, node: usize, entry: &Entry, digest: Option<[u8; 16]>) -> Verdict {
        let (id, index) = (self.ids[node], entry.index());
        let record = &mut self.nodes[node];
        record.applied = index;
        if record.durable.get(index) != Some(seen(entry)) {
            return broken("S15", format!("node {id} applies {index}, which is not durable on it"));
        }
        let Some(known) = self.committed.get(index.0 as usize - 1) else {
            return broken("S15", format!("node {id} applies {index}, which is not committed"));
        };
        if *known != seen(entry) {
            return broken("S5", format!("node {id} applies another entry {index} than the committed one"));
        }
        match digest {
            Some(digest) if *self.digests.entry(index).or_insert(digest) != digest => {
                broken("S5", format!("node {id} has another digest at {index}"))
            }
            _ => Ok(()),
        }
    }
}
