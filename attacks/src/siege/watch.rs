//! What is looked at during a siege: sizes of the processes, whether an operator is answered, and whether the computer runs
//! who is ready to run.

use coracle_server::cluster::{Cluster, report};
use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How often an operator asks, and how long he waits.
const ASK: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(10);

/// What one process takes, or the largest of several.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sizes {
    /// Resident, in MiB.
    pub(crate) memory: u64,
    /// Open.
    pub(crate) descriptors: u64,
}

impl Sizes {
    /// The largest of the cluster.
    pub(crate) fn of(cluster: &Cluster) -> Result<Sizes, String> {
        let pids = cluster.ids().into_iter().map(|id| cluster.node(id).pid().ok_or("a node does not run"));
        largest(&pids.collect::<Result<Vec<_>, _>>()?)
    }

    fn max(self, other: Sizes) -> Sizes {
        Sizes { memory: self.memory.max(other.memory), descriptors: self.descriptors.max(other.descriptors) }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB and {} descriptors in the largest process", self.memory, self.descriptors)
    }
}

fn largest(pids: &[u32]) -> Result<Sizes, String> {
    let mut most = Sizes::default();
    for pid in pids {
        let gone = |error: std::io::Error| format!("the process {pid} of a node ended: {error}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(gone)?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        let memory = kib.ok_or_else(|| format!("the process {pid} of a node ended"))? >> 10;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_err(gone)?.count() as u64;
        most = most.max(Sizes { memory, descriptors });
    }
    Ok(most)
}

/// What was seen.
pub(crate) struct Seen {
    pub(crate) most: Sizes,
    /// How often an operator was answered.
    pub(crate) answered: u64,
    /// The longest time that a sleep of 10 ms took.
    pub(crate) late: Duration,
    pub(crate) problems: Vec<String>,
}

pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    late: Arc<AtomicU64>,
    sizes: Option<JoinHandle<Result<Sizes, String>>>,
    operator: Option<JoinHandle<Result<u64, String>>>,
    probe: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(cluster: &Cluster) -> Watch {
        let (stop, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pids: Vec<u32> = cluster.ids().into_iter().filter_map(|id| cluster.node(id).pid()).collect();
        let addresses = cluster.client_addresses();
        let until = |stop: &Arc<AtomicBool>| {
            let stop = stop.clone();
            move || stop.load(Ordering::Relaxed)
        };
        let over = until(&stop);
        let sizes = std::thread::spawn(move || {
            let mut most = Sizes::default();
            while !over() {
                most = most.max(largest(&pids)?);
                sleep(LOOK);
            }
            Ok(most)
        });
        let over = until(&stop);
        let operator = std::thread::spawn(move || {
            let mut answered = 0;
            for address in addresses.iter().cycle() {
                if over() {
                    break;
                }
                report(address, ANSWER).map_err(|error| format!("an operator was not answered: {error}"))?;
                answered += 1;
                sleep(ASK / addresses.len() as u32);
            }
            Ok(answered)
        });
        let (over, longest) = (until(&stop), late.clone());
        let probe = std::thread::spawn(move || {
            while !over() {
                let start = Instant::now();
                sleep(Duration::from_millis(10));
                longest.fetch_max(start.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
        });
        Watch { stop, late, sizes: Some(sizes), operator: Some(operator), probe: Some(probe) }
    }

    pub(crate) fn stop(&mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut problems = Vec::new();
        let ended = || "a thread of the siege itself failed".to_owned();
        let most = self.sizes.take().map(|thread| thread.join().unwrap_or_else(|_| Err(ended())));
        let most = most.transpose().unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let answered = self.operator.take().map(|thread| thread.join().unwrap_or_else(|_| Err(ended())));
        let answered = answered.transpose().unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if let Some(probe) = self.probe.take() {
            // It cannot fail.
            drop(probe.join());
        }
        let late = Duration::from_micros(self.late.load(Ordering::Relaxed));
        Seen { most: most.unwrap_or_default(), answered: answered.unwrap_or_default(), late, problems }
    }
}
