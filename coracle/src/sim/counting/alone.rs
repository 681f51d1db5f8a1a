//! The core alone, with the least of a shell: what `replica` does, without limits, clocks and callers.

use bytes::Bytes;
use coracle_core::{
    Boot, Carried, ClusterId, Envelope, Held, Incarnation, Index, Input, LogId, Member, Membership, Message,
    NodeId, Output, Peer, Raft, Replicate, Restored, Settings, TailChange, Tick, Ticket,
};
use std::collections::VecDeque;
use std::mem;

/// How many nodes there are, the first of which leads.
const NODES: usize = 3;
const LEADER: usize = 0;

#[derive(Clone)]
struct Entry {
    id: LogId,
    membership: Option<Box<Membership>>,
    payload: Bytes,
}

/// A message, and the entries that it carries.
struct Mail {
    envelope: Envelope,
    entries: Vec<Entry>,
}

struct Node {
    raft: Raft,
    log: Vec<Entry>,
    held: VecDeque<Held>,
    /// Whose entries the next proposal is.
    proposed: Vec<Bytes>,
    applied: Index,
    /// How many of what was applied were proposed.
    committed: u64,
}

/// Three nodes, the first of which leads.
pub struct Alone {
    nodes: Vec<Node>,
    mail: [Vec<Mail>; NODES],
    now: Tick,
}

fn peer(at: usize) -> Peer {
    Peer { id: NodeId(at as u64 + 1), incarnation: Incarnation(at as u64 + 11) }
}

impl Alone {
    /// Elects the leader.
    pub fn elected() -> Alone {
        let node = |at| {
            let settings = Settings::default();
            let raft = Raft::new(peer(at), Boot(1), settings, 42, Restored::default(), Tick(0));
            Node {
                raft: raft.expect("the defaults are valid"),
                log: Vec::new(),
                held: VecDeque::new(),
                proposed: Vec::new(),
                applied: Index::ZERO,
                committed: 0,
            }
        };
        let mut cluster =
            Alone { nodes: (0..NODES).map(node).collect(), mail: Default::default(), now: Tick(0) };
        let member = |at| {
            let Peer { id, incarnation } = peer(at);
            Member { id, incarnation, address: String::new() }
        };
        let membership = Membership::of_voters(ClusterId(1), (0..NODES).map(member));
        cluster.step(LEADER, Input::Bootstrap { ticket: Ticket(0), membership }, Vec::new());
        // Nobody else has a membership, and so nobody else campaigns.
        while !cluster.nodes[LEADER].raft.is_leader() {
            cluster.now = cluster.now.after(1);
            cluster.step(LEADER, Input::Tick, Vec::new());
            cluster.pass();
        }
        cluster
    }

    /// Proposes a batch at the leader, and passes messages until nobody has any more.
    pub fn commit(&mut self, batch: Vec<Vec<u8>>) {
        let count = batch.len() as u64;
        self.nodes[LEADER].proposed = batch.into_iter().map(Bytes::from).collect();
        self.step(LEADER, Input::Propose { ticket: Ticket(1), count }, Vec::new());
        self.pass();
    }

    /// Lets time pass, until followers know of all that is committed.
    pub fn settle(&mut self) {
        for _ in 0..2 * Settings::default().heartbeat {
            self.now = self.now.after(1);
            (0..NODES).for_each(|at| self.step(at, Input::Tick, Vec::new()));
            self.pass();
        }
    }

    /// How many proposed entries each node has committed, and taken out of its log.
    pub fn committed(&self) -> [u64; NODES] {
        [0, 1, 2].map(|at| self.nodes[at].committed)
    }

    /// Passes messages until nobody has any more.
    fn pass(&mut self) {
        while self.mail.iter().any(|mail| !mail.is_empty()) {
            for at in 0..NODES {
                for Mail { envelope, entries } in mem::take(&mut self.mail[at]) {
                    let prev = match &envelope.message {
                        Message::AppendEntries(append) => append.prev.index,
                        _ => Index::ZERO,
                    };
                    let of = |entry: &Entry| (entry.id.term, entry.membership.as_deref().cloned());
                    let carried = Carried::after(prev, entries.iter().map(of));
                    self.step(at, Input::Receive(envelope, carried), entries);
                }
            }
        }
    }

    /// Gives a node an input, carries out what it wants, and reports that. The disk is done at once.
    fn step(&mut self, at: usize, input: Input, mut received: Vec<Entry>) {
        let output = self.nodes[at].raft.step(self.now, input);
        let Output { tail, replicate, send, write, send_after_sync, commit, .. } = output;
        let node = &mut self.nodes[at];
        for change in tail {
            node.change_tail(change, &mut received);
        }
        for replicate in replicate {
            self.replicate(at, replicate);
        }
        for envelope in send {
            self.post(envelope, Vec::new());
        }
        self.nodes[at].held.extend(send_after_sync);
        if let Some(write) = write {
            self.step(at, Input::Persisted(write.id), Vec::new());
        }
        let written = self.nodes[at].raft.written();
        while self.nodes[at].held.front().is_some_and(|held| held.after <= written) {
            let Some(held) = self.nodes[at].held.pop_front() else { break };
            self.post(held.envelope, Vec::new());
        }
        if commit.is_some() {
            let index = self.nodes[at].apply();
            self.step(at, Input::Applied(index), Vec::new());
        }
    }

    fn replicate(&mut self, at: usize, replicate: Replicate) {
        let Replicate { to, mut append, last, .. } = replicate;
        let (term, prev) = (append.term, append.prev);
        append.last = last;
        let node = &self.nodes[at];
        let entries = node.log[prev.index.0 as usize..last.0 as usize].to_vec();
        let bytes = entries.iter().map(|entry| entry.payload.len() as u64).sum();
        let envelope = node.raft.envelope(to, append);
        self.post(envelope, entries);
        self.step(at, Input::Sent { to, term, prev, last, bytes }, Vec::new());
    }

    fn post(&mut self, envelope: Envelope, entries: Vec<Entry>) {
        self.mail[envelope.to.id.0 as usize - 1].push(Mail { envelope, entries });
    }
}

impl Node {
    fn change_tail(&mut self, change: TailChange, received: &mut Vec<Entry>) {
        let empty = |id, membership| Entry { id, membership, payload: Bytes::new() };
        match change {
            TailChange::TakeReceived(first) => {
                self.log.extend(received.drain(..).filter(|entry| entry.id.index >= first));
            }
            TailChange::TakeProposed { first, .. } => {
                let new = (first.index.0..).zip(mem::take(&mut self.proposed));
                let at = |index| LogId { index: Index(index), ..first };
                self.log.extend(new.map(|(index, payload)| Entry {
                    id: at(index),
                    membership: None,
                    payload,
                }));
            }
            TailChange::TakeNoop(id) => self.log.push(empty(id, None)),
            TailChange::TakeMembership { id, membership, .. } => {
                self.log.push(empty(id, Some(Box::new(membership))));
            }
            TailChange::Truncate(last) => self.log.truncate(last.0 as usize),
            TailChange::Reset(_) => unreachable!("there are no snapshots"),
        }
    }

    /// Takes what is committed, and durable here, out of the log. How far.
    fn apply(&mut self) -> Index {
        let upto = self.raft.commit().min(self.raft.persisted());
        let entries = self.log[self.applied.0 as usize..upto.0 as usize].to_vec();
        self.committed += entries.iter().filter(|entry| !entry.payload.is_empty()).count() as u64;
        self.applied = upto;
        upto
    }
}
