//! Three nodes in a row, without threads, sockets and disks: the least that can be around a driver and a machine. What a write
//! costs here is the work of consensus, of the encodings between its parts, and of the machines, and the same every time.

use crate::applier::{Applier, Outcome};
use crate::config::{Config, Storage};
use crate::driver::{Driver, Knowing};
use crate::entry::{Entry, Kind, Stamp};
use crate::proposal::Proposal;
use crate::replica::{Moment, Replica};
use crate::replicated::Replicated;
use crate::state_machine::StateMachine;
use crate::storage::mem_disk::MemDisk;
use crate::storage::memory::MemoryStore;
use crate::storage::{Change, LogStore, WriteBatch};
use crate::transport::PeerMessage;
use crate::wire::encode_membership;
use crate::work::{Order, RequestId, Way};
use coracle_core::{
    Boot, ClusterId, HardState, Incarnation, Index, LogId, Member, Membership, NodeId, Peer, Raft, Restored,
    Run, Term, Tick,
};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

const CLUSTER: ClusterId = ClusterId(1);

/// How long a session lives that is not heard of, in milliseconds.
const LIFETIME: u64 = 60_000;

/// A cluster of three that was elected, in which nothing goes wrong: to count what a write costs.
pub struct Row<S: StateMachine> {
    nodes: [Lone<S>; 3],
    now: Tick,
    /// How many writes there were.
    writes: u64,
}

/// One of its nodes.
struct Lone<S: StateMachine> {
    driver: Driver<RequestId, RequestId>,
    applier: Applier<S, RequestId, RequestId>,
    store: MemoryStore,
    /// What it wants sent.
    outbox: Vec<(Peer, PeerMessage)>,
    replies: Vec<S::Reply>,
}

fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: Incarnation(10 + id) }
}

impl<S: StateMachine> Row<S> {
    /// Elects the first of three nodes.
    ///
    /// # Panics
    /// If that does not come about, which would be a mistake of this program.
    pub fn elected(machine: impl Fn() -> S) -> Row<S> {
        let nodes = [1, 2, 3].map(|id| Lone::new(id, machine()));
        let mut row = Row { nodes, now: Tick(1), writes: 0 };
        while !row.nodes.iter().any(|node| node.driver.raft().is_leader()) {
            assert!(row.now < Tick(10_000), "nobody is elected");
            row.tick();
        }
        row.pass();
        // The first of the row is whoever leads.
        let leads = row.nodes.iter().position(|node| node.driver.raft().is_leader());
        row.nodes.swap(0, leads.expect("somebody was just elected"));
        row
    }

    /// A tick passes at each node.
    pub fn tick(&mut self) {
        self.now = self.now.after(1);
        for node in &mut self.nodes {
            node.turn(self.now, true);
        }
        self.pass();
    }

    /// Has the leader do these, which came at once. Its replies, in order, once all nodes have nothing more to say.
    ///
    /// # Panics
    /// If one cannot be encoded, or is not answered.
    pub fn write(&mut self, commands: Vec<S::Command>) -> Vec<S::Reply> {
        let count = commands.len();
        for command in commands {
            self.writes += 1;
            let command = S::encode_command(&command).expect("the command can be encoded");
            let caller = RequestId(self.writes);
            self.nodes[0].driver.on_write(command, Duration::ZERO, Way::Once, caller);
        }
        self.nodes[0].turn(self.now, false);
        self.pass();
        let replies = mem::take(&mut self.nodes[0].replies);
        assert_eq!(replies.len(), count, "each write is answered");
        replies
    }

    /// Opens so many sessions, as clients do that write through a node.
    pub fn open_sessions(&mut self, count: u64) {
        let term = self.nodes[0].driver.raft().term();
        for _ in 0..count {
            self.writes += 1;
            let caller = RequestId(self.writes);
            self.nodes[0].driver.on_submitted(Proposal::Open(LIFETIME), term, caller);
            self.nodes[0].turn(self.now, false);
            self.pass();
        }
    }

    /// How far each machine has come.
    pub fn applied(&self) -> [Index; 3] {
        [0, 1, 2].map(|at| self.nodes[at].applier.progress().applied.index)
    }

    /// Passes messages until nobody has any more.
    fn pass(&mut self) {
        loop {
            let mut sent = Vec::new();
            for node in &mut self.nodes {
                let from = node.driver.raft().me();
                sent.extend(mem::take(&mut node.outbox).into_iter().map(|(to, message)| (from, to, message)));
            }
            if sent.is_empty() {
                return;
            }
            for node in &mut self.nodes {
                let me = node.driver.raft().me();
                let mine = sent.extract_if(.., |(_, to, _)| *to == me);
                let mine: Vec<_> = mine.collect();
                if mine.is_empty() {
                    continue;
                }
                for (from, _, message) in mine {
                    node.driver.on_message(from, CLUSTER, true, message);
                }
                node.turn(self.now, false);
            }
        }
    }
}

impl<S: StateMachine> Lone<S> {
    fn new(id: u64, machine: S) -> Lone<S> {
        let mut config = Config::new(id, "127.0.0.1:0", Storage::Memory);
        config.machine = (S::VERSION, S::SELF_DESCRIBING);
        // Nobody writes them here.
        (config.snapshot_bytes, config.snapshot_entries) = (u64::MAX, u64::MAX);
        let member = |id| {
            let Peer { id, incarnation } = peer(id);
            Member { id, incarnation, address: String::new() }
        };
        let membership = Membership::of_voters(CLUSTER, [1, 2, 3].map(member));
        let first = LogId::new(1, 1);
        let hard_state = HardState { term: Term(1), vote: None, promised: 0 };
        let entry = Entry::new(first, Kind::Membership, Stamp::default(), &encode_membership(&membership));
        let mut store = MemoryStore::new();
        let log = WriteBatch { hard_state: Some(hard_state), changes: vec![Change::Append(vec![entry])] };
        store.write(&log).expect("it is in memory");
        let restored = Restored {
            hard_state,
            runs: vec![Run::new(1, 1)],
            last: first.index,
            memberships: vec![(first, membership)],
            ..Restored::default()
        };
        let raft = Raft::new(peer(id), Boot(id), config.core(), id, restored, Tick(0));
        let replica = Replica::new(raft.expect("the defaults are valid"), &config, 0);
        let mut driver = Driver::new(replica, Some(CLUSTER), Boot(id), &config);
        driver.knowing = Knowing::All;
        Lone {
            driver,
            applier: Applier::new(Replicated::new(machine), Arc::new(MemDisk::new())),
            store,
            outbox: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// Turns the driver until it wants nothing more, as the runtime does.
    fn turn(&mut self, now: Tick, tick: bool) {
        let mut tick = tick;
        loop {
            let actions = self.driver.turn(Moment::new(10 * now.0, 0), mem::take(&mut tick));
            let mut again = false;
            for order in actions.orders {
                if let Order::Write(id, batch) = order {
                    self.store.write(&batch).expect("it is in memory");
                    self.driver.on_persisted(id);
                    again = true;
                }
            }
            self.outbox.extend(actions.send);
            for load in actions.loads {
                let read = self.store.reader().entries(load.first, load.last, load.max_bytes as usize);
                self.driver.on_loaded(load, read);
                again = true;
            }
            for work in actions.work {
                // Nobody reads here.
                if let Some(work) = work.with_queries(|_| None) {
                    self.applier.take(work);
                }
            }
            again |= self.apply();
            if !again {
                return;
            }
        }
    }

    /// Whether the machine got on.
    fn apply(&mut self) -> bool {
        let before = self.applier.progress().applied;
        while let Some(done) = self.applier.next() {
            done.expect("the machine can apply everything");
        }
        for outcome in self.applier.outcomes() {
            if let Outcome::Reply(_, reply) = outcome {
                self.replies.push(reply);
            }
        }
        let progress = self.applier.progress();
        if progress.applied != before {
            self.driver.on_progress(progress);
        }
        progress.applied != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::applier::tests::Sum;

    /// One that left something out would look cheap.
    #[test]
    fn all_three_machines_apply_every_write_and_the_leader_answers_each() {
        let mut row = Row::elected(Sum::default);
        assert_eq!(row.write(vec![1]), [1]);
        assert_eq!(row.write(vec![2, 3]), [3, 6]);
        let many: u64 = (0..3_000).map(|_| row.write(vec![1; 10]).len() as u64).sum();
        assert_eq!(many, 30_000);
        // Followers hear with a heartbeat how far the last one is committed.
        for _ in 0..20 {
            row.tick();
        }
        let applied = row.applied();
        assert!(applied[0] >= Index(30_004) && applied == [applied[0]; 3], "{applied:?}");
        assert_eq!(row.write(vec![0]), [30_006]);
    }
}
