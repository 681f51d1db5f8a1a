//! The settings of a node, and the one place that judges them.
//!
//! Every setting has a default that suits a cluster within one data centre; only the node's name, its
//! peer address and its storage have to be chosen.

use crate::entry::MAX_PAYLOAD;
use crate::error::StartError;
use crate::storage::engine::{Engine, is_name};
use crate::token::{JoinToken, MAX_TOKEN};
use crate::transport::{MemoryNetwork, Role, Tls};
use crate::wire::{self, MAX_METADATA};
use coracle_core::{Broken, Incarnation, NodeId, Settings};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The core's unit of time.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The longest time that anything is waited for: more is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The addresses of [`Config::join`] at most: each is asked who is there, one after the other.
const MAX_JOIN: usize = 16;

/// Reads by the leader's lease: while a majority has promised to depose nobody, the leader answers linearizable reads
/// without a round of messages (thesis, section 6.4.1).
///
/// It trusts clocks, where everything else here trusts none. If the clock of a leader is slower than that of a follower by more
/// than [`max_clock_drift`](Lease::max_clock_drift), or stands still while the others go on, as that of a virtual machine may
/// that was paused, a read may miss writes that were completed before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// For how long the followers promise it, anew with each heartbeat. A multiple of 10 ms, at most the longest election
    /// timeout; after the drift and 20 ms it has to be longer than a heartbeat, or it would never be in force. Where a
    /// dead leader is noticed at once, an election waits for so long.
    pub duration: Duration,
    /// By how much the clock of any member may be slower than that of any other, in thousandths: with 100, nine seconds may
    /// pass on the one while ten pass on the other. Less than 1,000.
    pub max_clock_drift: u32,
}

/// Where a node keeps its log.
#[derive(Clone)]
pub enum Storage {
    /// In this directory, in the write-ahead log; created if missing. One node only.
    Dir(PathBuf),
    /// In this directory, by an engine of one's own; see [`engine`](crate::storage::engine). Created if
    /// missing. One node and one engine only.
    Engine {
        /// The data directory. The engine's own is in it.
        dir: PathBuf,
        /// What opens the store.
        engine: Arc<dyn Engine>,
    },
    /// In memory. The node forgets everything when it stops, so every start is a new incarnation, which
    /// can't take part in its old cluster. For tests and throw-away clusters.
    Memory,
}

impl PartialEq for Storage {
    /// Engines are the same if their names are.
    fn eq(&self, other: &Storage) -> bool {
        match (self, other) {
            (Storage::Dir(a), Storage::Dir(b)) => a == b,
            (Storage::Engine { dir: a, engine: x }, Storage::Engine { dir: b, engine: y }) => {
                a == b && x.name() == y.name()
            }
            (Storage::Memory, Storage::Memory) => true,
            _ => false,
        }
    }
}

impl Eq for Storage {}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Storage::Dir(dir) => f.debug_tuple("Dir").field(dir).finish(),
            Storage::Engine { dir, engine } => {
                f.debug_struct("Engine").field("dir", dir).field("engine", &engine.name()).finish()
            }
            Storage::Memory => f.write_str("Memory"),
        }
    }
}

/// Which thread applies commands and answers queries. Never the one of consensus: elections and heartbeats do
/// not wait for a state machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MachineThread {
    /// One of its own: `apply` may take its time and disturbs nobody.
    #[default]
    Own,
    /// A task of the tokio runtime on which the node is started, in turns of at most 10 ms. An answer to a
    /// task on the same thread then costs no hop between threads, but a slow `apply` delays the other tasks.
    Runtime,
}

/// How a node behaves. Make one with [`Config::new`], then change what you need.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The node's name in its cluster, at least 1. Never used for another node again.
    pub id: NodeId,
    /// The name of a blank disk, for a node that its cluster has admitted by it
    /// ([`MemberChange::Admit`](crate::MemberChange::Admit)). A disk that has a name keeps it. Default none: drawn at random.
    pub incarnation: Option<Incarnation>,
    /// Where to listen for other nodes, as `host:port`. Port 0 takes a free one. What others dial is in
    /// the membership.
    pub peer_addr: String,
    /// Where others are to dial this node, as `host:port`, if that is not [`peer_addr`](Config::peer_addr): behind a
    /// translation of addresses, or where it listens on every address of its host. Default empty.
    pub advertised: String,
    /// Peer addresses, `host:port`, at which this node finds its cluster by itself. A blank node that meets one there asks to
    /// be let in: it learns, and votes once it has caught up. One that has a cluster looks for members there too, so that
    /// members find each other though all have moved. The same settings serve the first start and every later one. Default
    /// empty: a node waits until somebody tells it its cluster.
    pub join: Vec<String>,
    /// Whether [`join`](Config::join) lists all nodes of a cluster that is still to be founded, this one among them: once all
    /// of them answer, the one of the lowest name founds it. Once there is a cluster it does nothing; but nodes that are all
    /// blank again would found another. Default false.
    pub found: bool,
    /// What the nodes of a cluster have in common. Whoever asks a node of it to be let in has to show the same; on plain
    /// connections it can be read on the way. Without one, nobody is let in who asks, but for nodes that have shown their
    /// certificate ([`tls`](Config::tls)). Default none.
    pub join_token: Option<JoinToken>,
    /// Where the log is kept.
    pub storage: Storage,
    /// The pause between two heartbeats of an idle leader. Whole ticks of 10 ms. Default 50 ms.
    pub heartbeat: Duration,
    /// A follower that hears nothing campaigns after a random time above the first and up to the second of
    /// these. Default (300 ms, 600 ms]. The first is at least twice the heartbeat.
    pub election_timeout: (Duration, Duration),
    /// How long [`write`](crate::Node::write) and [`read`](crate::Node::read) wait. Default 3 s.
    pub request_timeout: Duration,
    /// How long [`set_configuration`](crate::Node::set_configuration) waits for the named nodes, and then
    /// for the commit. Default 15 s.
    pub bootstrap_timeout: Duration,
    /// After how long without an answer the leader lets a learner that has caught up vote in the place of a voter, in one
    /// joint change, and removes that voter. Never if too few of those who would vote then answer. A learner is a learner,
    /// whoever made it one. Default none: nobody is replaced by itself.
    pub replace_dead_after: Option<Duration>,
    /// Whether a state machine of this node that was found to differ from that of a majority, with authenticated peers, and is
    /// not used any more for that, is rebuilt from the leader's by itself: at once, and if it differs again after 10 s, then
    /// 20 s, and so on up to an hour. Off by default: that a machine differs has a reason that somebody should look at, and
    /// [`Node::rebuild`](crate::Node::rebuild) does the same.
    pub rebuild_diverged: bool,
    /// Whether this node, when it leads, asks for a [`Lease`] and answers linearizable reads by it. Followers promise it
    /// whatever their own setting is. Default none: each read is confirmed by a majority.
    pub lease: Option<Lease>,
    /// Whether a write on a follower goes to the leader by itself, at most once and over one hop. Off by
    /// default: the caller then gets [`NotLeader`](crate::WriteError::NotLeader) and decides.
    pub forward: bool,
    /// How long a [session](crate::Session) of this node outlives its last word, by the cluster's clock: from 1 s to a day.
    /// After a longer time without a leader, the outcome of what was sent in it is unknown. Default 60 s.
    pub session_timeout: Duration,
    /// The certificate of this node, and whom it believes: connections between nodes, and to clients of the library, are
    /// encrypted then, and whoever speaks for a node has to show that node's certificate. Default none: connections are plain,
    /// and whoever reaches the port may write.
    pub tls: Option<Tls>,
    /// The network in memory that this node is in, instead of the system's: for nodes of one process, in tests and throw-away
    /// clusters. Then [`peer_addr`](Config::peer_addr) is an address in it, and the node shows no certificate. Default none.
    pub network: Option<MemoryNetwork>,
    /// How many [clients](crate::client) may be connected; 0 serves none. They have budgets of their own and take nothing from
    /// other nodes, and never more than a quarter of the descriptors that the process may open. Default 1,024.
    pub max_clients: usize,
    /// How many connections may be accepted at the peers' port and not closed yet, those of clients aside. Never more than half of
    /// the descriptors that the process may open. Default 1,281: 256 handshakes, 1,024 connections, and one that gives way.
    pub max_peer_sockets: usize,
    /// The largest encoded command, in bytes; larger ones are [`Invalid`](crate::WriteError::Invalid).
    /// Default 8 MiB, at most [`MAX_PAYLOAD`].
    pub max_command_bytes: usize,
    /// Requests that may wait in this node; more are [`Busy`](crate::WriteError::Busy). Default 65,536.
    pub max_pending: usize,
    /// Bytes of encoded commands that may wait until consensus takes them, which it does within milliseconds unless the
    /// machine is overloaded; more are [`Busy`](crate::WriteError::Busy), but a single one may exceed it. Without this
    /// bound `max_pending` commands of the largest size might wait. Default 64 MiB.
    pub max_unproposed_bytes: u64,
    /// Bytes of entries that may wait for this node's disk. A leader refuses more as `Busy`; a follower
    /// drops what its leader sends too fast. Default 64 MiB.
    pub max_unpersisted_bytes: u64,
    /// Bytes of entries in a leader's log that may wait for a quorum; more are refused as `Busy`, so that
    /// a cut-off leader does not fill its memory and disk. Default 128 MiB.
    pub max_uncommitted_bytes: u64,
    /// Bytes of committed entries that may wait for this node's state machine. A leader whose machine lags by
    /// more refuses writes as `Busy`. Default 16 MiB.
    pub max_unapplied_bytes: u64,
    /// Where the state machine runs. Default [`MachineThread::Own`].
    pub machine_thread: MachineThread,
    /// Bytes of the newest entries kept in memory, for followers that are a little behind. Default 16 MiB.
    pub cache_bytes: u64,
    /// Entries in one AppendEntries at most. Default 1,024.
    pub message_entries: u64,
    /// Bytes of entries in one AppendEntries at most; a single entry may exceed it. Default 1 MiB.
    pub message_bytes: u64,
    /// AppendEntries under way to one follower at most. Default 64.
    pub inflight_messages: usize,
    /// Bytes of entries under way to one follower at most. Default 8 MiB.
    pub inflight_bytes: u64,
    /// The size of one segment of the write-ahead log, in bytes. Default 64 MiB, at least 64 KiB.
    pub segment_bytes: u64,
    /// A snapshot is taken once so many bytes were written to the log since the newest one, or so many entries
    /// ([`snapshot_entries`](Config::snapshot_entries)), or once the machine was busy with them for so long
    /// ([`snapshot_busy`](Config::snapshot_busy)); and not before twice the bytes that that one took, so that a
    /// large state is not written over and over. Default 64 MiB.
    pub snapshot_bytes: u64,
    /// See [`snapshot_bytes`](Config::snapshot_bytes). Default 100,000.
    pub snapshot_entries: u64,
    /// See [`snapshot_bytes`](Config::snapshot_bytes). By the processor's time, answers to questions included: about so long a start takes
    /// at most to apply again what came after the newest snapshot. A machine that keeps its own disk is never busy in this sense.
    /// Default 250 ms.
    pub snapshot_busy: Duration,
    /// Bytes of a snapshot sent in one message, one at a time. Default 256 KiB, at most 8 MiB.
    pub snapshot_piece_bytes: u64,
    /// Bytes of snapshots that this node sends in a second at most, to all followers together; and that it writes, and then
    /// reads back, of its own, in parts of 4 MiB with a rest after each, so that the log's disk is not held up. 0: no
    /// limit. Default 64 MiB.
    pub snapshot_bytes_per_second: u64,
    /// Bytes of the newest [events](crate::Node::events) that this node remembers for those who watch its machine, each with
    /// about 100 of its own. 0: none, and nobody can watch. Default 16 MiB.
    pub events_bytes: u64,
    /// What the application wants the other members to know of this one. Raft does not look into it. Default
    /// empty, at most 1 KiB.
    pub metadata: Vec<u8>,
    /// Bytes of entries handed to the machine at once at most; a single entry may exceed it. Heartbeats and
    /// other requests get their chance in between.
    pub(crate) apply_bytes: u64,
    /// The state machine's version, and whether its commands are self-describing.
    pub(crate) machine: (u16, bool),
    /// The features that it offers to other nodes. A test makes an older version of it.
    pub(crate) features: u64,
    /// The rule that the node breaks.
    pub(crate) broken: Broken,
}

impl Config {
    /// The settings of node `id` that listens on `peer_addr`, everything else by default.
    pub fn new(id: u64, peer_addr: impl Into<String>, storage: Storage) -> Config {
        let core = Settings::default();
        Config {
            id: NodeId(id),
            incarnation: None,
            peer_addr: peer_addr.into(),
            advertised: String::new(),
            join: Vec::new(),
            found: false,
            join_token: None,
            storage,
            heartbeat: ticks(core.heartbeat),
            election_timeout: (ticks(core.election_min), ticks(core.election_max)),
            request_timeout: Duration::from_secs(3),
            bootstrap_timeout: Duration::from_secs(15),
            replace_dead_after: None,
            rebuild_diverged: false,
            lease: None,
            forward: false,
            session_timeout: Duration::from_secs(60),
            tls: None,
            network: None,
            max_clients: 1_024,
            max_peer_sockets: 1_281,
            max_command_bytes: 8 << 20,
            max_pending: 65_536,
            max_unproposed_bytes: 64 << 20,
            max_unpersisted_bytes: 64 << 20,
            max_uncommitted_bytes: 128 << 20,
            max_unapplied_bytes: 16 << 20,
            machine_thread: MachineThread::Own,
            cache_bytes: 16 << 20,
            message_entries: core.message_entries,
            message_bytes: core.message_bytes,
            inflight_messages: core.inflight_messages,
            inflight_bytes: core.inflight_bytes,
            segment_bytes: 64 << 20,
            snapshot_bytes: 64 << 20,
            snapshot_entries: 100_000,
            snapshot_busy: Duration::from_millis(250),
            snapshot_piece_bytes: 256 << 10,
            snapshot_bytes_per_second: 64 << 20,
            events_bytes: 16 << 20,
            metadata: Vec::new(),
            apply_bytes: 4 << 20,
            machine: (0, false),
            features: wire::FEATURES,
            broken: Broken::default(),
        }
    }

    /// The node will break the rule of this name, to show that a test would notice.
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    pub fn break_rule(&mut self, name: &str) -> Result<(), String> {
        let known = crate::mutants::MUTANTS.iter().find(|mutant| mutant.name == name);
        self.broken = Broken::rule(Some(known.ok_or_else(|| format!("there is no mutant {name}"))?.name));
        Ok(())
    }

    /// How it finds its cluster.
    fn validate_joining(&self) -> Result<(), StartError> {
        let token = self.join_token.as_ref().map(|token| token.bytes().len());
        let nowhere =
            |address: &String| address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err());
        let unfit = token.is_some_and(|bytes| !(1..=MAX_TOKEN).contains(&bytes));
        let rules = [
            ("join", self.join.iter().any(nowhere), "each address must be host:port"),
            ("join", self.join.len() > MAX_JOIN, "it must be at most 16 addresses"),
            ("found", self.found && self.join.is_empty(), "it needs the addresses in join"),
            ("join_token", unfit, "it must be 1 to 256 bytes"),
        ];
        match rules.into_iter().find(|(_, broken, _)| *broken) {
            Some((setting, _, problem)) => Err(StartError::Config { setting, problem: problem.to_owned() }),
            None => Ok(()),
        }
    }

    /// Judges every field, alone and against the others.
    pub fn validate(&self) -> Result<(), StartError> {
        self.validate_name()?;
        self.validate_joining()?;
        let bad = |setting, problem: &str| Err(StartError::Config { setting, problem: problem.to_owned() });
        for (setting, time) in [
            ("heartbeat", self.heartbeat),
            ("election_timeout", self.election_timeout.0),
            ("election_timeout", self.election_timeout.1),
            ("lease", self.lease.map_or(Duration::ZERO, |lease| lease.duration)),
        ] {
            if time.as_nanos() % TICK.as_nanos() != 0 {
                return bad(setting, "it must be a multiple of 10 ms");
            }
        }
        if let Err(problem) = self.core().validate() {
            // The core's names for the two bounds are this setting's two halves.
            let setting = match problem.setting {
                "election_min" | "election_max" => "election_timeout",
                "clock_drift" => "lease",
                other => other,
            };
            return bad(setting, &format!("it must be {}", problem.must));
        }
        if let Storage::Engine { engine, .. } = &self.storage
            && !is_name(engine.name())
        {
            let must = "an engine's name is 1 to 16 lower-case letters, digits and hyphens, and not wal";
            return bad("storage", must);
        }
        let too_hasty = self.replace_dead_after.is_some_and(|limit| limit < 2 * self.election_timeout.1);
        let core = self.core();
        let counts = core.lease * (1000 - core.clock_drift.min(1000)) / 1000;
        let in_vain = self.lease.is_some() && counts <= core.heartbeat + 2;
        let rules = [
            ("lease", in_vain, "after drift and 20 ms it must be longer than a heartbeat"),
            ("request_timeout", self.request_timeout.is_zero(), "it must not be zero"),
            ("replace_dead_after", too_hasty, "it must be at least twice the longest election timeout"),
            ("session_timeout", self.session_timeout < Duration::from_secs(1), "it must be at least 1 s"),
            ("session_timeout", self.session_timeout > LONGEST, "it must be at most a day"),
            ("bootstrap_timeout", self.bootstrap_timeout.is_zero(), "it must not be zero"),
            ("bootstrap_timeout", self.bootstrap_timeout > LONGEST, "it must be at most a day"),
            ("max_peer_sockets", self.max_peer_sockets < 4, "it must be at least 4"),
            ("max_command_bytes", self.max_command_bytes == 0, "it must not be zero"),
            ("max_command_bytes", self.max_command_bytes > MAX_PAYLOAD, "it must be at most 32 MiB"),
            ("max_pending", self.max_pending == 0, "it must not be zero"),
            ("max_unproposed_bytes", self.max_unproposed_bytes == 0, "it must not be zero"),
            ("max_unpersisted_bytes", self.max_unpersisted_bytes == 0, "it must not be zero"),
            ("max_uncommitted_bytes", self.max_uncommitted_bytes == 0, "it must not be zero"),
            ("max_unapplied_bytes", self.max_unapplied_bytes == 0, "it must not be zero"),
            // A message over the largest frame would be dropped again and again.
            ("message_bytes", self.message_bytes > MAX_PAYLOAD as u64, "it must be at most 32 MiB"),
            ("snapshot_bytes", self.snapshot_bytes == 0, "it must not be zero"),
            ("snapshot_entries", self.snapshot_entries == 0, "it must not be zero"),
            ("snapshot_busy", self.snapshot_busy.is_zero(), "it must not be zero"),
            ("snapshot_piece_bytes", self.snapshot_piece_bytes == 0, "it must not be zero"),
            ("snapshot_piece_bytes", self.snapshot_piece_bytes > 8 << 20, "it must be at most 8 MiB"),
            ("segment_bytes", self.segment_bytes < 64 << 10, "it must be at least 64 KiB"),
            ("metadata", self.metadata.len() > MAX_METADATA, "it must be at most 1 KiB"),
        ];
        match rules.into_iter().find(|(_, broken, _)| *broken) {
            Some((setting, _, problem)) => bad(setting, problem),
            None => Ok(()),
        }
    }

    /// Judges who it is and where.
    fn validate_name(&self) -> Result<(), StartError> {
        let bad = |setting, problem: &str| Err(StartError::Config { setting, problem: problem.to_owned() });
        if self.id.0 == 0 {
            return bad("id", "a node's name is at least 1");
        }
        if self.peer_addr.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return bad("peer_addr", "it must be host:port");
        }
        let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if !self.advertised.is_empty() && port(&self.advertised).is_none_or(|port| port == 0) {
            return bad("advertised", "it must be host:port, or empty");
        }
        if self.network.is_some() && self.tls.is_some() {
            return bad("network", "nodes in a network in memory show no certificates: leave tls out");
        }
        if let Some(tls) = &self.tls
            && tls.name().role != Role::Node(self.id)
        {
            return bad(
                "tls",
                &format!("the certificate is that of {}, and this is node {}", tls.name(), self.id),
            );
        }
        Ok(())
    }

    /// What the core needs of this, in its units.
    pub(crate) fn core(&self) -> Settings {
        let in_ticks = |time: Duration| (time.as_nanos() / TICK.as_nanos()) as u64;
        Settings {
            heartbeat: in_ticks(self.heartbeat),
            election_min: in_ticks(self.election_timeout.0),
            election_max: in_ticks(self.election_timeout.1),
            lease: self.lease.map_or(0, |lease| in_ticks(lease.duration)),
            clock_drift: self.lease.map_or(0, |lease| u64::from(lease.max_clock_drift)),
            message_entries: self.message_entries,
            message_bytes: self.message_bytes,
            inflight_messages: self.inflight_messages,
            inflight_bytes: self.inflight_bytes,
        }
    }
}

fn ticks(number: u64) -> Duration {
    TICK * number as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Identity, LogStore, StoreError};
    use std::path::Path;

    fn refused(change: impl Fn(&mut Config)) -> &'static str {
        let mut config = Config::new(1, "127.0.0.1:0", Storage::Memory);
        config.validate().expect("the defaults are valid");
        change(&mut config);
        match config.validate() {
            Err(StartError::Config { setting, .. }) => setting,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_setting_that_makes_no_sense_is_refused_by_name() {
        let ms = Duration::from_millis;
        assert_eq!(refused(|c| c.id = NodeId(0)), "id");
        assert_eq!(refused(|c| c.peer_addr = "nowhere".into()), "peer_addr");
        assert_eq!(refused(|c| c.peer_addr = "host:99999".into()), "peer_addr");
        assert_eq!(refused(|c| c.heartbeat = Duration::ZERO), "heartbeat");
        assert_eq!(refused(|c| c.heartbeat = ms(15)), "heartbeat");
        assert_eq!(refused(|c| c.election_timeout = (ms(90), ms(600))), "election_timeout");
        assert_eq!(refused(|c| c.election_timeout = (ms(300), ms(300))), "election_timeout");
        assert_eq!(refused(|c| c.election_timeout = (ms(305), ms(600))), "election_timeout");
        let lease = |millis, max_clock_drift| Some(Lease { duration: ms(millis), max_clock_drift });
        for (millis, drift) in [(610, 100), (305, 100), (70, 0), (80, 100), (300, 1000)] {
            assert_eq!(refused(|c| c.lease = lease(millis, drift)), "lease", "{millis} {drift}");
        }
        assert_eq!(refused(|c| c.request_timeout = Duration::ZERO), "request_timeout");
        assert_eq!(refused(|c| c.bootstrap_timeout = Duration::ZERO), "bootstrap_timeout");
        assert_eq!(refused(|c| c.bootstrap_timeout = Duration::MAX), "bootstrap_timeout");
        assert_eq!(refused(|c| c.max_peer_sockets = 3), "max_peer_sockets");
        assert_eq!(refused(|c| c.join = vec!["host".to_owned()]), "join");
        assert_eq!(refused(|c| c.join = vec!["host:1".to_owned(); 17]), "join");
        assert_eq!(refused(|c| c.found = true), "found");
        assert_eq!(refused(|c| c.join_token = Some(JoinToken::new(""))), "join_token");
        assert_eq!(refused(|c| c.join_token = Some(JoinToken::new(vec![1; 257]))), "join_token");
        assert_eq!(refused(|c| c.max_command_bytes = 0), "max_command_bytes");
        assert_eq!(refused(|c| c.max_command_bytes = MAX_PAYLOAD + 1), "max_command_bytes");
        assert_eq!(refused(|c| c.max_pending = 0), "max_pending");
        assert_eq!(refused(|c| c.max_unproposed_bytes = 0), "max_unproposed_bytes");
        assert_eq!(refused(|c| c.max_unpersisted_bytes = 0), "max_unpersisted_bytes");
        assert_eq!(refused(|c| c.max_uncommitted_bytes = 0), "max_uncommitted_bytes");
        assert_eq!(refused(|c| c.max_unapplied_bytes = 0), "max_unapplied_bytes");
        assert_eq!(refused(|c| c.message_entries = 0), "message_entries");
        assert_eq!(refused(|c| c.message_bytes = 0), "message_bytes");
        assert_eq!(refused(|c| c.message_bytes = (32 << 20) + 1), "message_bytes");
        assert_eq!(refused(|c| c.inflight_messages = 0), "inflight_messages");
        assert_eq!(refused(|c| c.inflight_bytes = 0), "inflight_bytes");
        assert_eq!(refused(|c| c.segment_bytes = 4096), "segment_bytes");
        assert_eq!(refused(|c| c.metadata = vec![0; 1025]), "metadata");
        for name in ["", "wal", "Upper", "two words", "../up", "seventeen-letters"] {
            let storage = Storage::Engine { dir: "x".into(), engine: Arc::new(Named(name)) };
            assert_eq!(refused(|c| c.storage = storage.clone()), "storage", "{name}");
        }
    }

    struct Named(&'static str);

    impl Engine for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn exists(&self, _: &Path) -> Result<bool, StoreError> {
            Ok(false)
        }
        fn open(&self, dir: &Path, _: Identity) -> Result<Box<dyn LogStore>, StoreError> {
            Err(StoreError::Locked { path: dir.to_owned() })
        }
    }

    #[test]
    fn durations_reach_the_core_in_ticks() {
        let mut config = Config::new(1, "127.0.0.1:0", Storage::Memory);
        config.heartbeat = Duration::from_millis(70);
        config.election_timeout = (Duration::from_millis(200), Duration::from_millis(410));
        config.lease = Some(Lease { duration: Duration::from_millis(300), max_clock_drift: 51 });
        config.message_entries = 3;
        config.message_bytes = 4;
        config.inflight_messages = 5;
        config.inflight_bytes = 6;
        let core = config.core();
        assert_eq!((core.heartbeat, core.election_min, core.election_max), (7, 20, 41));
        assert_eq!((core.lease, core.clock_drift), (30, 51));
        assert_eq!((core.message_entries, core.message_bytes), (3, 4));
        assert_eq!((core.inflight_messages, core.inflight_bytes), (5, 6));
    }
}
