//! The core alone: one leader and two followers in one thread, messages passed by function calls, logs in memory.
//!
//! So many entries are proposed at a time; then messages are passed, a node's whole mail at once, until nobody has anything more
//! to say. Each entry is a buffer of its own, made as it is proposed, and is shared by the three logs. What is committed is taken out of
//! the log, as for a state machine, on each node. That all of them committed all of it is looked at after the time is taken, which is
//! this thread's time on a processor, since nothing here waits.

mod omni_paxos;
mod raft_rs;

use crate::report::{by_turns, table};
use clap::Args;
use coracle::sim::counting::Alone;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The leader, and how many there are.
const LEADER: usize = 0;
const NODES: usize = 3;

/// Entries that are proposed before the time begins.
const WARM_UP: u64 = 4_096;

/// How the core is measured.
#[derive(Args)]
pub(crate) struct Core {
    /// Entries that are proposed in each measurement, rounded up to whole batches
    #[arg(long, value_name = "COUNT", default_value_t = 200_000)]
    entries: u64,
    /// How many are proposed at a time
    #[arg(long, value_name = "COUNT", default_values_t = [1, 16, 256, 1024], value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    batches: Vec<u64>,
    /// The length of an entry, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 16)]
    size: usize,
}

/// Three nodes of a library, the first of which leads.
trait Cluster {
    /// Elects the leader. Entries come `batch` at a time.
    fn elected(batch: u64) -> Self
    where
        Self: Sized;

    /// Proposes a batch at the leader, and passes messages until nobody has any more.
    fn commit(&mut self, batch: Vec<Vec<u8>>);

    /// Lets time pass, until followers know of all that is committed whatever that takes.
    fn settle(&mut self);

    /// How many proposed entries each node has committed, and taken out of its log.
    fn committed(&self) -> [u64; NODES];
}

impl Cluster for Alone {
    fn elected(_: u64) -> Alone {
        Alone::elected()
    }

    fn commit(&mut self, batch: Vec<Vec<u8>>) {
        self.commit(batch);
    }

    fn settle(&mut self) {
        self.settle();
    }

    fn committed(&self) -> [u64; NODES] {
        self.committed()
    }
}

/// What a contender is called, and how it is started.
type Contender = (&'static str, fn(u64) -> Box<dyn Cluster>);

const CONTENDERS: [Contender; 5] = [
    ("Coracle", |batch| Box::new(<Alone as Cluster>::elected(batch))),
    ("raft-rs", |batch| Box::new(raft_rs::RaftRs::<false>::elected(batch))),
    ("raft-rs, `batch_append`", |batch| Box::new(raft_rs::RaftRs::<true>::elected(batch))),
    ("omnipaxos", |batch| Box::new(omni_paxos::Omni::<false>::elected(batch))),
    ("omnipaxos, `batch_size`", |batch| Box::new(omni_paxos::Omni::<true>::elected(batch))),
];

impl Core {
    /// Measures every contender, and says how they compare.
    pub(crate) fn measure(&self, rounds: u32) -> Result<String, String> {
        let names: Vec<String> = self.batches.iter().map(u64::to_string).collect();
        let cases = by_turns(&names, CONTENDERS.len(), rounds, |at, contender| {
            self.entries_per_second(self.batches[at], CONTENDERS[contender])
        })?;
        Ok(table("entries at a time", &CONTENDERS.map(|(name, _)| name), &cases))
    }

    fn entries_per_second(&self, batch: u64, (name, start): Contender) -> Result<f64, String> {
        let mut cluster = start(batch);
        let mut done = 0;
        let mut commit = |cluster: &mut dyn Cluster, entries: u64| {
            for _ in 0..entries.div_ceil(batch) {
                cluster.commit((0..batch).map(|_| vec![7; self.size]).collect());
                done += batch;
            }
        };
        commit(&mut *cluster, WARM_UP);
        let start = processor_time();
        commit(&mut *cluster, self.entries);
        let took = processor_time() - start;
        let led = cluster.committed()[LEADER];
        if led != done {
            return Err(format!("the leader of {name} has committed {led} of {done} entries"));
        }
        cluster.settle();
        let committed = cluster.committed();
        if committed != [done; NODES] {
            return Err(format!("the nodes of {name} have committed {committed:?} of {done} entries"));
        }
        Ok((self.entries.div_ceil(batch) * batch) as f64 / took.as_secs_f64())
    }
}

/// How long this thread has had a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A contender that does less than all would look fast.
    #[test]
    fn every_contender_commits_every_entry_on_every_node() {
        for contender in CONTENDERS {
            for batch in [1, 16, 300] {
                let core = Core { entries: 1_000, batches: vec![batch], size: 16 };
                core.entries_per_second(batch, contender).unwrap();
            }
        }
    }
}
