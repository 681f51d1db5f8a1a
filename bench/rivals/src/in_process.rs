//! A cluster of three nodes in one process, with the log in memory and no network: what a write costs in a library's own
//! tasks, queues and threads.
//!
//! Clients are tasks of one runtime, with a thread for each core, which ask the leader's node directly, each for one write after the other. The
//! machine adds numbers, so that it costs nothing, nor do its snapshots. Each measurement has a cluster of its own; that it did what it acknowledged
//! is looked at by the sum.

mod coracle;
mod openraft;

use crate::report::{by_turns, table};
use clap::Args;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

const CONTENDERS: [&str; 3] = ["Coracle", "openraft", "Coracle, over TCP"];

/// How clusters in one process are measured.
#[derive(Args)]
pub(crate) struct InProcess {
    /// Writes under way at once
    #[arg(long, value_name = "COUNT", default_values_t = [1, 64, 256, 1024, 4096], value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    clients: Vec<u64>,
    /// How long to measure, after a fifth of that
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    seconds: f64,
}

/// Three nodes, of which one leads.
trait Cluster: Send + Sync + Sized + 'static {
    /// Adds to the sum, on all nodes, and returns it.
    fn add(&self, number: u64) -> impl Future<Output = Result<u64, String>> + Send;

    /// Stops its nodes.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

impl InProcess {
    /// Measures every contender, and says how they compare.
    pub(crate) fn measure(&self, rounds: u32) -> Result<String, String> {
        let names: Vec<String> = self.clients.iter().map(u64::to_string).collect();
        let cases = by_turns(&names, CONTENDERS.len(), rounds, |at, contender| {
            self.writes_per_second(self.clients[at], contender)
        })?;
        Ok(table("clients", &CONTENDERS, &cases))
    }

    fn writes_per_second(&self, clients: u64, contender: usize) -> Result<f64, String> {
        let runtime = Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
        let limit = Duration::from_secs_f64(self.seconds);
        runtime.block_on(async {
            match CONTENDERS[contender] {
                "openraft" => load(openraft::three().await?, clients, limit).await,
                "Coracle" => load(coracle::three(coracle::Network::Memory).await?, clients, limit).await,
                _ => load(coracle::three(coracle::Network::Tcp).await?, clients, limit).await,
            }
        })
    }
}

/// Writes a second, of so many clients at once.
async fn load<C: Cluster>(cluster: C, clients: u64, limit: Duration) -> Result<f64, String> {
    let cluster = Arc::new(cluster);
    let (done, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut writers = JoinSet::new();
    for _ in 0..clients {
        let (cluster, done, over) = (Arc::clone(&cluster), Arc::clone(&done), Arc::clone(&over));
        writers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                cluster.add(1).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), String>(())
        });
    }
    tokio::time::sleep(limit / 5).await;
    let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(limit).await;
    let (took, after) = (start.elapsed(), done.load(Ordering::Relaxed));
    over.store(true, Ordering::Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer.map_err(|error| error.to_string())??;
    }
    let (sum, acknowledged) = (cluster.add(0).await?, done.load(Ordering::Relaxed));
    if sum != acknowledged {
        return Err(format!("{acknowledged} writes were acknowledged, and {sum} done"));
    }
    if let Some(cluster) = Arc::into_inner(cluster) {
        cluster.stop().await;
    }
    Ok((after - before) as f64 / took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_does_what_it_acknowledges() {
        let in_process = InProcess { clients: vec![3], seconds: 0.05 };
        for contender in 0..CONTENDERS.len() {
            in_process.writes_per_second(3, contender).unwrap();
        }
    }
}
