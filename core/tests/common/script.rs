//! What a script does: to the network, to the disks, with time, and to the nodes.

use super::*;

impl Cluster {
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
        // What a shell reads from the entries' bytes.
        let prev = match &mail.envelope.message {
            Message::AppendEntries(append) => append.prev.index,
            _ => Index::ZERO,
        };
        let entries = mail.entries.iter().map(|entry| (entry.term, entry.membership.as_deref().cloned()));
        let carried = Carried::after(prev, entries);
        self.step_with(to, Input::Receive(mail.envelope, carried), mail.entries)
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

    /// The same of an AppendEntries with entries that exist nowhere.
    pub(crate) fn claim(&mut self, from: u64, to: u64, append: AppendEntries, carried: Carried) -> Output {
        let (membership, message) = (self.raft(from).membership_id(), Message::AppendEntries(append));
        let envelope = Envelope { from: peer(from), to: peer(to), membership, message };
        self.step(to, Input::Receive(envelope, carried))
    }

    /// A node hears of a newer term, from one who cannot win in it.
    pub(crate) fn enter(&mut self, id: u64, term: u64) {
        let vote = RequestVote {
            campaign: Term(term),
            pre: false,
            question: 0,
            last: LogId::ZERO,
            handed_over: None,
        };
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
        if let Some(id) = write.reset {
            let snapshot = node.snapshot.as_ref().filter(|snapshot| snapshot.id == id);
            node.disk.reset(snapshot.expect("S16: a log is reset to a durable snapshot"));
        }
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
        for Waiting { term: of, mail, .. } in free {
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
        // What a start does with a log that its newest snapshot does not belong to.
        if let Some(snapshot) = &node.snapshot
            && snapshot.id.index > node.disk.purged.index
            && node.disk.id_at(snapshot.id.index) != Some(snapshot.id)
        {
            node.disk.reset(snapshot);
        }
        node.memory = node.disk.clone();
        node.done = WriteId(0);
        let (boot, seed) = (Boot(1000 * id + node.boot), self.seed.wrapping_mul(1_000_003) + node.boot);
        let mut restored = node.disk.restored();
        restored.snapshot = node.snapshot.as_ref().map_or(restored.purged, |snapshot| snapshot.id);
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

    /// Asks for a change of the membership that the node knows.
    pub(crate) fn change(&mut self, id: u64, to: Membership) -> Ticket {
        self.change_from(id, self.raft(id).membership_id(), to)
    }

    pub(crate) fn change_from(&mut self, id: u64, expected: LogId, to: Membership) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.step(id, Input::ChangeMembership { ticket, expected, to });
        ticket
    }

    /// Asks a leader to hand over: to this node, or to the best one.
    pub(crate) fn transfer(&mut self, id: u64, to: Option<u64>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.step(id, Input::TransferLeadership { ticket, to: to.map(NodeId) });
        ticket
    }

    /// The machine of each node applies all that it may.
    pub(crate) fn apply_all(&mut self) {
        for id in self.ids() {
            if let Some(raft) = &self.nodes[&id].raft {
                let index = raft.commit().min(raft.persisted());
                self.step(id, Input::Applied(index));
            }
        }
    }

    /// Time passes while machines apply, until `done`; the number of ticks, or none if that takes longer than `limit`.
    pub(crate) fn work_until(&mut self, limit: u64, done: impl Fn(&Cluster) -> bool) -> Option<u64> {
        for ticks in 0..=limit {
            if done(self) {
                return Some(ticks);
            }
            self.apply_all();
            self.pass_one();
        }
        None
    }

    /// The script's word that the oldest open request to `to` left, with at most `most` entries.
    pub(crate) fn sent(&mut self, id: u64, to: u64, most: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        let at = node.open.iter().position(|open| open.to.id.0 == to).expect("an open request");
        let open = node.open.remove(at);
        let follow_up = self.send_entries(id, open, most);
        self.step(id, follow_up);
    }

    /// The script's word that the oldest open request to `to` was given up.
    pub(crate) fn unsent(&mut self, id: u64, to: u64) {
        let node = self.nodes.get_mut(&id).unwrap();
        let at = node.open.iter().position(|open| open.to.id.0 == to).expect("an open request");
        let AppendEntries { term, prev, .. } = node.open.remove(at).append;
        self.step(id, Input::Unsent { to: peer(to), term, prev });
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
