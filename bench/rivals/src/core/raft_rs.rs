//! raft-rs, driven as its documentation shows: what came is stepped, then the `Ready` is carried out, with its `MemStorage`.

use super::{Cluster, LEADER, NODES};
use raft::eraftpb::{Entry, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use std::mem;

/// Entries of one message may take as much as those of Coracle. The default is one entry for each message.
const MESSAGE_BYTES: u64 = 1 << 20;

/// With its option `batch_append` or without.
pub(super) struct RaftRs<const BATCH: bool> {
    nodes: Vec<RawNode<MemStorage>>,
    committed: [u64; NODES],
    mail: [Vec<Message>; NODES],
}

impl<const BATCH: bool> Cluster for RaftRs<BATCH> {
    fn elected(_: u64) -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let ids: Vec<u64> = (1..=NODES as u64).collect();
        let node = |id: &u64| {
            let config = Config {
                id: *id,
                election_tick: 10,
                heartbeat_tick: 3,
                max_size_per_msg: MESSAGE_BYTES,
                batch_append: BATCH,
                ..Config::default()
            };
            let storage = MemStorage::new_with_conf_state((ids.clone(), vec![]));
            RawNode::new(&config, storage, &logger).expect("a valid configuration")
        };
        let nodes = ids.iter().map(node).collect();
        let mut cluster = RaftRs { nodes, committed: [0; NODES], mail: Default::default() };
        cluster.nodes[LEADER].campaign().expect("a voter campaigns");
        cluster.pass();
        assert_eq!(cluster.nodes[LEADER].raft.state, StateRole::Leader);
        cluster
    }

    fn commit(&mut self, batch: Vec<Vec<u8>>) {
        for entry in batch {
            self.nodes[LEADER].propose(Vec::new(), entry).expect("a leader takes it");
        }
        self.pass();
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            self.nodes[LEADER].tick();
            self.pass();
        }
    }

    fn committed(&self) -> [u64; NODES] {
        self.committed
    }
}

impl<const BATCH: bool> RaftRs<BATCH> {
    fn pass(&mut self) {
        loop {
            let mut idle = true;
            for at in 0..NODES {
                for message in mem::take(&mut self.mail[at]) {
                    self.nodes[at].step(message).expect("a message of a member");
                }
                if self.nodes[at].has_ready() {
                    self.on_ready(at);
                    idle = false;
                }
            }
            if idle {
                return;
            }
        }
    }

    fn on_ready(&mut self, at: usize) {
        let mut ready = self.nodes[at].ready();
        self.post(ready.take_messages());
        self.apply(at, ready.take_committed_entries());
        let store = self.nodes[at].mut_store();
        if !ready.entries().is_empty() {
            store.wl().append(ready.entries()).expect("it follows the log");
        }
        if let Some(hard_state) = ready.hs() {
            store.wl().set_hardstate(hard_state.clone());
        }
        self.post(ready.take_persisted_messages());
        let mut light = self.nodes[at].advance(ready);
        if let Some(commit) = light.commit_index() {
            self.nodes[at].mut_store().wl().mut_hard_state().set_commit(commit);
        }
        self.post(light.take_messages());
        self.apply(at, light.take_committed_entries());
        self.nodes[at].advance_apply();
    }

    fn apply(&mut self, at: usize, entries: Vec<Entry>) {
        self.committed[at] += entries.iter().filter(|entry| !entry.data.is_empty()).count() as u64;
    }

    fn post(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.mail[message.to as usize - 1].push(message);
        }
    }
}
