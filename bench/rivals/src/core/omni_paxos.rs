//! omnipaxos, driven as its documentation shows: what came is handled, then its outgoing messages are taken, with its
//! `MemoryStorage`.

use super::{Cluster, LEADER, NODES};
use bytes::Bytes;
use omnipaxos::messages::Message;
use omnipaxos::storage::{Entry, NoSnapshot};
use omnipaxos::util::LogEntry;
use omnipaxos::{ClusterConfig, OmniPaxos, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;
use std::mem;

#[derive(Clone, Debug)]
struct Command(Bytes);

impl Entry for Command {
    type Snapshot = NoSnapshot;
}

/// With its option `batch_size` at the size of the batches, or at its default of 1.
pub(super) struct Omni<const BATCH: bool> {
    nodes: Vec<OmniPaxos<Command, MemoryStorage<Command>>>,
    decided: [usize; NODES],
    mail: [Vec<Message<Command>>; NODES],
    out: Vec<Message<Command>>,
}

impl<const BATCH: bool> Cluster for Omni<BATCH> {
    fn elected(batch: u64) -> Self {
        let ids: Vec<u64> = (1..=NODES as u64).collect();
        let cluster = ClusterConfig { configuration_id: 1, nodes: ids.clone(), ..ClusterConfig::default() };
        let node = |pid: &u64| {
            let batch_size = if BATCH { batch as usize } else { 1 };
            let server = ServerConfig { pid: *pid, batch_size, ..ServerConfig::default() };
            cluster.clone().build_for_server(server, MemoryStorage::default()).expect("a valid configuration")
        };
        let nodes = ids.iter().map(node).collect();
        let mut cluster = Omni { nodes, decided: [0; NODES], mail: Default::default(), out: Vec::new() };
        cluster.nodes[LEADER].try_become_leader();
        cluster.pass();
        let leader = cluster.nodes[LEADER].get_current_leader();
        assert_eq!(leader, Some((LEADER as u64 + 1, true)));
        cluster
    }

    fn commit(&mut self, batch: Vec<Vec<u8>>) {
        for entry in batch {
            self.nodes[LEADER].append(Command(entry.into())).expect("no reconfiguration is under way");
        }
        self.pass();
    }

    fn settle(&mut self) {
        self.pass();
    }

    fn committed(&self) -> [u64; NODES] {
        self.decided.map(|decided| decided as u64)
    }
}

impl<const BATCH: bool> Omni<BATCH> {
    fn pass(&mut self) {
        loop {
            let mut idle = true;
            for at in 0..NODES {
                for message in mem::take(&mut self.mail[at]) {
                    self.nodes[at].handle_incoming(message);
                }
                self.nodes[at].take_outgoing_messages(&mut self.out);
                for message in self.out.drain(..) {
                    self.mail[message.get_receiver() as usize - 1].push(message);
                    idle = false;
                }
                self.apply(at);
            }
            if idle {
                return;
            }
        }
    }

    /// Takes what is decided out of the log.
    fn apply(&mut self, at: usize) {
        if self.nodes[at].get_decided_idx() == self.decided[at] {
            return;
        }
        let entries = self.nodes[at].read_decided_suffix(self.decided[at]).unwrap_or_default();
        let is_whole =
            |entry: &&LogEntry<Command>| matches!(entry, LogEntry::Decided(command) if !command.0.is_empty());
        self.decided[at] += entries.iter().filter(is_whole).count();
    }
}
