//! The judge: remembers what no node does, and holds every step against it. S1, S2, ... are the invariants' numbers.

use super::*;

/// What the box remembers over all crashes.
#[derive(Default)]
pub(super) struct History {
    pub(super) leaders: BTreeMap<Term, u64>,
    pub(super) votes: BTreeMap<(u64, Term), u64>,
    /// Every entry ever made, with the one before it: equal names mean equal entries and equal prefixes.
    pub(super) entries: BTreeMap<LogId, (u64, LogId)>,
    /// What is committed, and the term of the leader that committed it.
    pub(super) committed: BTreeMap<Index, (LogId, u64, Term)>,
    /// The newest term in which a node has spoken.
    pub(super) spoken: BTreeMap<u64, Term>,
    /// The number of a node's newest candidacy.
    pub(super) asked: BTreeMap<u64, u64>,
    /// Who has refused a vote, since its log was newer: a learner that has may be needed.
    pub(super) needed: BTreeSet<u64>,
    /// Reads that wait for an answer: where they were asked, and what was committed anywhere by then.
    pub(super) reads: BTreeMap<Ticket, (u64, Index)>,
    pub(super) proposals: BTreeMap<Ticket, (u64, u64)>,
}

impl Cluster {
    pub(super) fn note_vote(&mut self, voter: u64, term: Term, candidate: u64) {
        let durable = self.nodes[&voter].disk.hard_state;
        let kept = durable.term > term || (durable.term == term && durable.vote == Some(peer(candidate)));
        assert!(kept, "S11: the vote of {voter} for {candidate} in {term} leaves before it is durable");
        let before = *self.history.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(before, candidate, "S10: {voter} votes for {before} and {candidate} in {term}");
    }

    /// Two entries of the same name are the same, and so is all before them.
    pub(super) fn note_entries(&mut self, image: &Image, from: Index) {
        for at in from.0..=image.last().0 {
            let (index, entry) = (Index(at), image.get(Index(at)).unwrap());
            let name = LogId { term: entry.term, index };
            let prev = image.id_at(index.prev()).unwrap();
            let known = *self.history.entries.entry(name).or_insert((entry.content, prev));
            assert_eq!(known, (entry.content, prev), "S3: two entries are both called {name}");
        }
    }

    /// Judges the node that has just stepped.
    pub(super) fn check(&mut self, id: u64, before: (bool, Term, Index, LogId), input: &Input, out: &Output) {
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
            let of = raft.membership_id().index;
            // Until it knows the newest committed, and as a leader until the tick after (D5.1.16).
            let open = of > raft.commit() || (leads && of > old_commit) || (was_leader && leads);
            let memberships = node.memory.memberships();
            let before = memberships.iter().rev().nth(1).filter(|_| open);
            let voted = before.is_some_and(|(_, membership)| membership.is_voter(node.peer));
            let needed = raft.membership().contains(node.peer) && self.history.needed.contains(&id);
            let votes = raft.membership().is_voter(node.peer) || voted || needed;
            assert!(votes, "S14f: {id} does not vote and is a {role}");
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

    pub(super) fn check_input(&mut self, id: u64, input: &Input, out: &Output, last: LogId, commit: Index) {
        let Input::Receive(envelope, _) = input else { return };
        match &envelope.message {
            Message::AppendEntries(append) if self.raft(id).commit() > commit => {
                let verified = append.commit.min(append.last);
                assert!(self.raft(id).commit() <= verified, "S8: {id} commits what it cannot know");
            }
            Message::RequestVote(vote) => {
                if out.envelopes().any(
                    |e| matches!(&e.message, Message::RequestVoteReply(r) if r.refusal == Some(Refusal::Log)),
                ) {
                    self.history.needed.insert(id);
                }
                let granted = out.envelopes().any(
                    |e| matches!(&e.message, Message::RequestVoteReply(r) if r.refusal.is_none() && r.campaign == vote.campaign),
                );
                assert!(!granted || vote.last >= last, "S13: {id} grants a vote to a log older than its own");
            }
            _ => {}
        }
    }

    pub(super) fn check_election(&mut self, id: u64, term: Term) {
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

    pub(super) fn check_commit(&mut self, id: u64, old: Index, new: Index) {
        let node = &self.nodes[&id];
        let raft = node.raft.as_ref().unwrap();
        if raft.is_leader() {
            let of = node.memory.id_at(new).unwrap().term;
            assert_eq!(of, raft.term(), "S8: a leader counts for entries of its own term only");
        }
        let term = raft.term();
        let mut first_of_all = false;
        if let Some((known, ..)) = self.history.committed.get(&node.memory.purged.index) {
            assert_eq!(*known, node.memory.purged, "S16: the log of {id} goes on after what is committed");
        }
        for at in old.0.max(node.memory.purged.index.0) + 1..=new.0 {
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
    pub(super) fn check_durable(&self, entry: LogId) {
        let leader = self.history.leaders.values().next_back().map(|id| &self.nodes[id]);
        let Some(leader) = leader.filter(|node| node.raft.is_some()) else { return };
        let membership = leader.raft.as_ref().unwrap().membership();
        let holds = |id: u64| {
            let node = self.nodes.get(&id);
            node.is_some_and(|n| {
                n.disk.purged.index > entry.index || n.disk.id_at(entry.index) == Some(entry)
            })
        };
        assert!(is_quorum(membership, holds), "S6: {entry} is committed and not durable on a quorum");
    }

    pub(super) fn check_progress(&self, id: u64) {
        let leader = &self.nodes[&id];
        let status = leader.raft.as_ref().unwrap().status();
        for follower in status.peers.iter().filter(|peer| !peer.lost_entries) {
            let Some(node) = self.nodes.get(&follower.id.0) else { continue };
            assert!(follower.next > follower.matched, "S12: next is above matched");
            let moved_on = node.disk.hard_state.term.max(node.memory.hard_state.term) > status.term;
            if !moved_on {
                let (here, there) =
                    (leader.memory.id_at(follower.matched), node.disk.id_at(follower.matched));
                let purged = follower.matched <= node.disk.purged.index.max(leader.memory.purged.index);
                assert!(purged || here == there, "S12: {} does not hold {here:?} for good", follower.id);
            }
            assert!(follower.messages_in_flight <= self.settings.inflight_messages, "S22: the window");
        }
    }
}

fn is_quorum(membership: &Membership, holds: impl Fn(u64) -> bool) -> bool {
    let majority = |set: &[NodeId]| 2 * set.iter().filter(|id| holds(id.0)).count() > set.len();
    let voters: Vec<_> = membership.voters.iter().copied().collect();
    let outgoing: Vec<_> = membership.outgoing.keys().copied().collect();
    majority(&voters) && (outgoing.is_empty() || majority(&outgoing))
}
