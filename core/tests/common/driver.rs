//! The driver of a node in the box: carries out an [`Output`] as its documentation says, and asks of every message that
//! leaves whether it may.

use super::*;

impl Cluster {
    /// Does what the node wants done, in the order of the fields.
    pub(super) fn carry_out(
        &mut self,
        id: u64,
        out: Output,
        input: &Input,
        received: Vec<Entry>,
    ) -> Vec<Input> {
        for envelope in out.envelopes() {
            if let Message::RequestVote(vote) = &envelope.message {
                self.history.asked.insert(id, vote.question);
            }
        }
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some(members) = out.members {
            node.members = Some(members);
        }
        self.change_tail(id, out.tail, input, &received);
        let mut follow_ups = self.keep_snapshots(id, &out.pieces, out.purge);
        follow_ups.extend(out.replicate.into_iter().filter_map(|replicate| self.replicate(id, replicate)));
        for envelope in out.send {
            self.post(id, Mail { envelope, entries: Vec::new(), posted: 0 });
        }
        if let Some(write) = out.write {
            self.queue_write(id, write);
        }
        for Held { after: until, term, envelope } in out.send_after_sync {
            let mail = Mail { envelope, entries: Vec::new(), posted: 0 };
            if self.nodes[&id].done >= until {
                self.post(id, mail);
            } else {
                self.nodes.get_mut(&id).unwrap().held.push(Waiting { until, term, mail });
            }
        }
        self.judge_answers(id, &out.reads, &out.refused);
        let node = self.nodes.get_mut(&id).unwrap();
        node.reads.extend(out.reads);
        node.refused.extend(out.refused);
        node.transfers.extend(out.transfers);
        node.alarms.extend(out.alarms);
        node.dropped.extend(out.dropped);
        follow_ups
    }

    /// Changes the log in memory, and notes which entries are new in it.
    fn change_tail(&mut self, id: u64, changes: Vec<TailChange>, input: &Input, received: &[Entry]) {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut first_new = node.memory.last().next();
        for change in changes {
            let mut create = |at: LogId, membership| {
                self.contents += 1;
                Entry { term: at.term, content: self.contents, membership }
            };
            match change {
                TailChange::Truncate(last) => {
                    assert!(!node.raft.as_ref().unwrap().is_leader(), "S2: node {id} leads and truncates");
                    node.memory.truncate(last);
                    first_new = first_new.min(last.next());
                }
                TailChange::Reset(id) => {
                    let snapshot = node.snapshot.as_ref().filter(|snapshot| snapshot.id == id);
                    node.memory.reset(snapshot.expect("S16: a log is reset to a durable snapshot"));
                    first_new = id.index.next();
                }
                TailChange::TakeReceived(first) => {
                    let Input::Receive(Envelope { message: Message::AppendEntries(append), .. }, _) = input
                    else {
                        panic!("node {id} takes entries from {input:?}");
                    };
                    assert_eq!(first, node.memory.last().next(), "no gap in the tail of {id}");
                    let skip = (first.0 - append.prev.index.0 - 1) as usize;
                    node.memory.log.extend(received[skip..].iter().cloned());
                }
                TailChange::TakeProposed { first, count, ticket } => {
                    assert_eq!(first.index, node.memory.last().next());
                    node.accepted.push((ticket, first));
                    node.memory.log.extend((0..count).map(|_| create(first, None)));
                }
                TailChange::TakeNoop(noop) => {
                    assert_eq!(noop.index, node.memory.last().next());
                    node.memory.log.push(create(noop, None));
                }
                TailChange::TakeMembership { id: at, membership, ticket } => {
                    assert_eq!(at.index, node.memory.last().next());
                    node.accepted.extend(ticket.map(|ticket| (ticket, at)));
                    node.memory.log.push(create(at, Some(Box::new(membership))));
                }
            }
        }
        let memory = node.memory.clone_tail(first_new.prev());
        self.note_entries(&memory, first_new);
    }

    /// Sends entries now, or leaves that to the script. What the core is to be told of it.
    fn replicate(&mut self, id: u64, replicate: Replicate) -> Option<Input> {
        let to = replicate.to;
        match self.sending {
            Sending::ByHand => {
                self.nodes.get_mut(&id).unwrap().open.push(replicate);
                None
            }
            Sending::Connected if self.cut.contains(&(id, to.id.0)) => {
                let AppendEntries { term, prev, .. } = replicate.append;
                Some(Input::Unsent { to, term, prev })
            }
            _ => Some(self.send_entries(id, replicate, u64::MAX)),
        }
    }

    /// Queues a write, with the entries as they are now. The hard state counts in memory at once.
    fn queue_write(&mut self, id: u64, write: Write) {
        let node = self.nodes.get_mut(&id).unwrap();
        let range = write.append.map_or(0..0, |(first, last)| first.0..last.next().0);
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

    /// Judges what those are told who asked to read or to write.
    fn judge_answers(&mut self, id: u64, reads: &[ReadGrant], refused: &[Refused]) {
        for grant in reads {
            let (asked, floor) = self.history.reads.remove(&grant.ticket).expect("S21: one answer each");
            assert_eq!(asked, id, "an answer is given where it was asked for");
            assert!(grant.index >= floor, "S19: {id} reads at {} what was {floor} before", grant.index);
        }
        for refused in refused {
            let proposal = self.history.proposals.get(&refused.ticket);
            let accepted = self.nodes[&id].accepted.iter().any(|(ticket, _)| *ticket == refused.ticket);
            assert!(!accepted, "S21: {id} refuses what it has in its log");
            if proposal.is_none() {
                self.history.reads.remove(&refused.ticket);
            }
        }
    }

    /// Loads the entries and posts them, one byte each.
    pub(super) fn send_entries(&mut self, id: u64, replicate: Replicate, most: u64) -> Input {
        let node = &self.nodes[&id];
        let Replicate { to, mut append, last, max_bytes } = replicate;
        let (term, prev) = (append.term, append.prev);
        let count = (last.0 - prev.index.0).min(max_bytes.max(1)).min(most);
        let last = Index(prev.index.0 + count);
        let range = prev.index.0 + 1..=last.0;
        let raft = node.raft.as_ref().expect("the node is up");
        let known = range.clone().all(|at| {
            let named = raft.term_at(Index(at));
            named.is_some() && node.memory.get(Index(at)).map(|entry| entry.term) == named
        });
        if !raft.is_leader() || raft.term() != term || !known {
            return Input::Unsent { to, term, prev };
        }
        let entries: Vec<Entry> = range.map(|at| node.memory.get(Index(at)).unwrap().clone()).collect();
        append.last = last;
        let envelope = raft.envelope(to, append);
        self.post(id, Mail { envelope, entries, posted: 0 });
        Input::Sent { to, term, prev, last, bytes: count }
    }

    /// A message leaves its node: the last moment to ask whether it may.
    pub(super) fn post(&mut self, id: u64, mut mail: Mail) {
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
            Message::RequestVote(vote) if !vote.pre => self.note_vote(id, vote.campaign, id),
            Message::RequestVoteReply(reply) if !reply.pre && reply.refusal.is_none() => {
                self.note_vote(id, reply.campaign, to);
            }
            Message::AppendEntriesReply(reply)
                if durable.term == reply.term && reply.matched > node.disk.purged.index =>
            {
                let (disk, memory) = (node.disk.id_at(reply.matched), node.memory.id_at(reply.matched));
                assert!(disk.is_some(), "S11: {id} acknowledges {} before it is durable", reply.matched);
                assert_eq!(disk, memory, "S11: {id} acknowledges what is overwritten");
            }
            Message::AppendEntries(append) => {
                assert_eq!(append.count(), entries.len() as u64, "LG-7: as many entries as named");
            }
            _ => {}
        }
        mail.posted = self.wall;
        if self.cut.contains(&(id, to)) {
            return self.write_lost(&mail.envelope);
        }
        self.links.entry((id, to)).or_default().push_back(mail);
    }
}
