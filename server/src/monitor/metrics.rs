//! What is measured, by names that stay. `docs/metrics.md` lists them, and a test holds it to that.

use super::process::Process;
use crate::session::About;
use coracle::raft::RoleName;
use coracle::{Histogram, Status, Timings};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

/// What the names begin with.
const PREFIX: &str = "coracle";

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The length of the core's tick, in seconds.
const TICK: f64 = 0.01;

/// A node at one moment.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// None if it has stopped, or does not answer.
    pub(crate) status: Option<Status>,
    pub(crate) about: Arc<About>,
    pub(crate) timings: Arc<Timings>,
    pub(crate) leader_changes: u64,
}

impl Scrape {
    /// Everything, as Prometheus reads it.
    pub(crate) fn text(self) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // A String takes everything.
        let _ = encode(&mut text, &registry);
        text
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut all = Metrics(encoder);
        all.gauge("up", "Whether the node answers", u8::from(self.status.is_some()))?;
        if let Some(status) = &self.status {
            all.consensus(status)?;
            all.log(status)?;
            all.machine(status)?;
            all.peers(status)?;
        }
        all.counter(
            "leader_changes",
            "How often another node was heard of as the leader",
            self.leader_changes,
        )?;
        all.times(&self.timings)?;
        all.clients(&self.about)?;
        all.process()
    }
}

struct Metrics<'a>(DescriptorEncoder<'a>);

impl Metrics<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl Into<f64>) -> Result<(), Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value.into())
    }

    /// A whole number, exact up to 2^53.
    fn count(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.gauge(name, help, value as f64)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// One value for each label.
    fn family<L: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (L, f64)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            metric.encode_family(&[(label, of.as_ref())])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Numbers that are `unit` each.
    fn histogram(&mut self, name: &str, help: &str, unit: f64, seen: &Histogram) -> Result<(), Error> {
        let (sum, buckets) = seen.seen();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 * unit);
        let buckets: Vec<_> = buckets.into_iter().map(|(upper, count)| (bound(upper), count)).collect();
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum as f64 * unit, count, &buckets, None)
    }

    fn timed(&mut self, name: &str, help: &str, times: &Histogram) -> Result<(), Error> {
        self.histogram(name, help, 1e-6, times)
    }

    fn times(&mut self, of: &Timings) -> Result<(), Error> {
        self.timed(
            "log_write_seconds",
            "How long writes to the log took until they were durable",
            &of.log_write,
        )?;
        self.histogram(
            "log_write_entries",
            "Entries written to the log at once",
            1.0,
            &of.log_write_entries,
        )?;
        self.histogram(
            "log_write_bytes",
            "Bytes of entries written to the log at once",
            1.0,
            &of.log_write_bytes,
        )?;
        self.timed("apply_seconds", "How long the machine worked on what there was for it", &of.apply)?;
        self.histogram("apply_entries", "Entries that it applied meanwhile", 1.0, &of.apply_entries)
    }

    fn consensus(&mut self, status: &Status) -> Result<(), Error> {
        let raft = &status.raft;
        let roles = ["unconfigured", "learner", "follower", "candidate", "leader"];
        let role = |name| (name, f64::from(u8::from(raft.role.as_str() == name)));
        self.family("role", "What the node is: 1 for its role", "role", roles.into_iter().map(role))?;
        self.count("term", "Its term", raft.term.0)?;
        self.count(
            "leader_id",
            "Whom it holds for the leader; 0 if it knows none",
            raft.leader.map_or(0, |id| id.0),
        )?;
        let ready = super::unready(status).is_empty();
        self.gauge("ready", "Whether it can serve", u8::from(ready))?;
        self.count("members", "Who takes part, by its membership", status.members.len() as u64)?;
        let voters = status.members.iter().filter(|member| member.voter).count();
        self.count("voters", "How many of them vote", voters as u64)?;
        self.count("pending_requests", "Requests of its clients that wait", status.pending as u64)?;
        let moved = u8::from(status.moved);
        self.gauge("moved", "Whether it is not where the membership says", moved)?;
        if let Some(expires) = status.certificate_expires {
            let help = "When the first of its certificates is not valid any more, in seconds since 1970";
            self.gauge("certificate_expires_seconds", help, expires.as_secs_f64())?;
        }
        Ok(())
    }

    fn log(&mut self, status: &Status) -> Result<(), Error> {
        let raft = &status.raft;
        self.count("commit_index", "The newest index that it knows to be committed", raft.commit.0)?;
        self.count("last_index", "The newest index of its log", raft.last.index.0)?;
        self.count("persisted_index", "The newest index that is durable here", raft.persisted.0)?;
        self.count("first_index", "The oldest index of its log", raft.purged.index.0 + 1)?;
        self.count(
            "log_writes_under_way",
            "Writes to the log that are not durable yet",
            raft.writes_under_way as u64,
        )?;
        self.count(
            "log_disk_bytes",
            "Bytes that the log takes on disk, its spare files included",
            status.disk_bytes,
        )?;
        let full = u8::from(status.no_space.is_some());
        self.gauge("log_out_of_space", "Whether the log has no room, so that writes are refused", full)
    }

    fn machine(&mut self, status: &Status) -> Result<(), Error> {
        self.count("applied_index", "The newest index that its machine has applied", status.applied.index.0)?;
        let help = "Bytes of committed entries that its machine has not applied yet";
        self.count("unapplied_bytes", help, status.unapplied_bytes)?;
        let stopped = u8::from(status.machine_stopped.is_some());
        self.gauge("machine_stopped", "Whether its machine has stopped before an entry", stopped)?;
        let fenced = u8::from(status.fenced.is_some());
        self.gauge("machine_fenced", "Whether its machine differs from that of a majority", fenced)?;
        let differ = status.diverged.len() as u64;
        self.count(
            "machines_diverged",
            "At the leader: how many machines differ from that of a majority",
            differ,
        )?;
        if let Some(newest) = &status.snapshots.newest {
            self.count("snapshot_index", "The index of its newest snapshot", newest.last.index.0)?;
            self.count("snapshot_bytes", "The bytes of its newest snapshot", newest.bytes)?;
        }
        let taking = u8::from(status.snapshots.taking);
        self.gauge("snapshot_taking", "Whether a snapshot is being taken", taking)?;
        let sending = status.snapshots.sending.len() as u64;
        self.count("snapshots_sending", "To how many members a snapshot is being sent", sending)?;
        let receiving = u8::from(status.snapshots.receiving.is_some());
        self.gauge("snapshot_receiving", "Whether a snapshot comes from the leader", receiving)
    }

    /// The other members, by their ids.
    fn peers(&mut self, status: &Status) -> Result<(), Error> {
        let (raft, label) = (&status.raft, "peer");
        let others = || status.members.iter().filter(|member| member.id != raft.me.id);
        let flag = |flag: bool| f64::from(u8::from(flag));
        let connected = others().map(|member| (member.id.to_string(), flag(member.connected)));
        self.family("peer_connected", "Whether there is a connection to this member", label, connected)?;
        let encrypted = others().map(|member| (member.id.to_string(), flag(member.encrypted)));
        self.family("peer_encrypted", "Whether that connection is encrypted", label, encrypted)?;
        if raft.role != RoleName::Leader {
            return Ok(());
        }
        let each = |value: fn(&coracle::raft::PeerStatus, u64) -> f64| {
            raft.peers.iter().map(move |peer| (peer.id.to_string(), value(peer, raft.last.index.0)))
        };
        let lag = each(|peer, last| last.saturating_sub(peer.matched.0) as f64);
        self.family(
            "peer_lag_entries",
            "At the leader: entries that this member does not hold durably",
            label,
            lag,
        )?;
        let applied = each(|peer, last| last.saturating_sub(peer.applied.0) as f64);
        self.family(
            "peer_unapplied_entries",
            "At the leader: entries that it has not applied",
            label,
            applied,
        )?;
        let bytes = each(|peer, _| peer.bytes_in_flight as f64);
        self.family("peer_bytes_in_flight", "At the leader: bytes of entries under way to it", label, bytes)?;
        let silent = each(|peer, _| peer.silent_for as f64 * TICK);
        self.family("peer_silent_seconds", "At the leader: for how long it has not answered", label, silent)?;
        let snapshot = each(|peer, _| f64::from(u8::from(peer.receives_snapshot)));
        self.family("peer_receives_snapshot", "At the leader: whether it is sent a snapshot", label, snapshot)
    }

    fn clients(&mut self, about: &About) -> Result<(), Error> {
        self.count("clients", "Connections of clients", about.all.clients.held() as u64)?;
        self.count("clients_limit", "How many there may be", about.all.clients.limit() as u64)?;
        self.count(
            "command_bytes",
            "Memory that commands of clients take",
            about.all.commands.held() as u64,
        )?;
        self.count("command_bytes_limit", "How much they may take", about.all.commands.limit() as u64)?;
        self.count("reply_bytes", "Memory that replies to clients take", about.all.replies.held() as u64)?;
        self.count("reply_bytes_limit", "How much they may take", about.all.replies.limit() as u64)?;
        let databases = || (0..).map(|number: u8| number.to_string()).zip(about.figures.databases());
        let keys = databases().map(|(number, (keys, _))| (number, keys as f64));
        self.family("keys", "Keys of each database", "database", keys)?;
        let mortal = databases().map(|(number, (_, mortal))| (number, mortal as f64));
        self.family("keys_with_end", "How many of them are not for ever", "database", mortal)?;
        self.count("key_bytes", "About the memory of all keys and values", about.figures.bytes())?;
        self.count("key_bytes_limit", "How much they may take; 0: all", about.memory_limit())?;
        let commands = about.served.commands.load(Ordering::Relaxed);
        self.counter("commands", "Commands of clients, of whichever kind", commands)?;
        self.timed("write_seconds", "How long batches of writes took", &about.served.writes)?;
        self.timed("read_seconds", "How long batches of reads took", &about.served.reads)?;
        let (hits, misses) = (&about.served.hits, &about.served.misses);
        self.counter("key_hits", "Keys that were asked for and there", hits.load(Ordering::Relaxed))?;
        self.counter("key_misses", "Keys that were asked for and not there", misses.load(Ordering::Relaxed))?;
        self.refusals(about)?;
        let failures = about.served.failures.load(Ordering::Relaxed);
        self.counter(
            "failed_batches",
            "Batches of clients that were not done, or of which that is unknown",
            failures,
        )
    }

    fn refusals(&mut self, about: &About) -> Result<(), Error> {
        let help = "What was refused before the node was asked, by reason";
        let mut metric = self.0.encode_descriptor("refused", help, None, MetricType::Counter)?;
        for (reason, count) in about.served.refusals() {
            metric
                .encode_family(&[("reason", reason)])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn process(&mut self) -> Result<(), Error> {
        if let Some(process) = Process::look() {
            self.count("process_resident_memory_bytes", "Memory of the process", process.resident_bytes)?;
            self.count("process_open_fds", "Files and sockets that it has open", process.open_files)?;
            self.count("process_max_fds", "How many it may have open", process.max_files)?;
            self.counter("process_cpu_seconds", "Time of a processor that it has used", process.cpu_seconds)?;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.gauge("time_seconds", "The node's clock, in seconds since 1970", now.as_secs_f64())
    }
}
