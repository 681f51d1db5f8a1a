//! `coracle serve`: its flags, and what becomes of signals.

use super::limits::ClientLimits;
use super::logging::{Format, Logging};
use super::tls::ServerTls;
use super::{duration, durations, runtime};
use crate::credentials::{AsUser, JoinToken};
use crate::figures::Figures;
use crate::joining::Join;
use crate::kv::{Kv, Machine};
use crate::renewal;
use crate::roster::Roster;
use crate::serve::{self, Options};
use crate::store::Store;
use clap::Args;
use coracle::{Config, Lease};
use rustix::process::Signal;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Args)]
pub(super) struct Serve {
    /// A file with the long names of these flags and their values, in TOML; flags and the environment (CORACLE_DATA_DIR for
    /// --data-dir, and so on) come first
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's id in its cluster, at least 1; with --join the cluster gives a new node one if this is omitted
    #[arg(long, required_unless_present = "join")]
    id: Option<u64>,
    /// The data directory; created if missing
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen for the other nodes
    #[arg(long, value_name = "HOST:PORT")]
    peer_addr: String,
    /// Where to listen for clients
    #[arg(long, value_name = "HOST:PORT")]
    client_addr: String,
    /// Where to answer by HTTP how the node stands: /healthz, /readyz, /status, /metrics; nowhere if omitted
    #[arg(long, value_name = "HOST:PORT")]
    admin_addr: Option<String>,
    /// Where the other nodes are to dial this one, if that is not --peer-addr
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Join the cluster of these client addresses: a new node learns, and then votes; one that has moved finds the others
    #[arg(long, value_name = "HOST:PORT[,…]", value_delimiter = ',')]
    join: Vec<String>,
    /// Form a new cluster of exactly the COUNT nodes of --join, this one among them
    #[arg(long, value_name = "COUNT", requires = "join", requires = "id")]
    expect: Option<usize>,
    /// Let this empty disk take the place of a lost one of the same id at another address
    #[arg(long, requires = "join")]
    rejoin: bool,
    #[command(flatten)]
    token: JoinToken,
    #[command(flatten)]
    login: AsUser,
    /// Serve clients of the library, too, on the peer address: whatever users there are, these may do everything with the keys and the users
    #[arg(long)]
    library_clients: bool,
    /// Serve whoever reaches the client port from other computers, too, while there are no users; without this only whoever shows a certificate or the join token is
    #[arg(long)]
    open_without_users: bool,
    #[command(flatten)]
    tls: ServerTls,
    /// Let a learner that has caught up take the place of a voter that was silent for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    replace_dead_after: Option<Duration>,
    /// Rebuild a machine that was found, by authenticated peers, to differ from that of a majority by itself
    #[arg(long)]
    rebuild_diverged: bool,
    /// The log store; with `memory` a node forgets its cluster when it stops
    #[arg(long, value_enum, default_value_t = Store::Wal)]
    store: Store,
    /// Time limit of a request, including the wait for a leader
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    timeout: Duration,
    /// The pause between two heartbeats of an idle leader [default: 50ms]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    heartbeat: Option<Duration>,
    /// How long a follower waits for its leader before it campaigns, drawn at random from this range [default: 300ms-600ms]
    #[arg(long, value_name = "TIME-TIME", value_parser = durations)]
    election_timeout: Option<(Duration, Duration)>,
    /// Answer reads by the leader's lease of so long, which trusts clocks; off if omitted, and then no read does
    #[arg(long, value_name = "TIME", value_parser = duration)]
    lease: Option<Duration>,
    /// By how many thousandths the clock of a node may be slower than that of another
    #[arg(long, value_name = "COUNT", default_value_t = 100, requires = "lease")]
    lease_drift: u32,
    /// Take a snapshot after so many entries: for tests, which want many
    #[arg(long, value_name = "COUNT", hide = true)]
    snapshot_entries: Option<u64>,
    /// Cut the write-ahead log into segments of so many bytes: for tests, which want many
    #[arg(long, value_name = "BYTES", hide = true)]
    segment_bytes: Option<u64>,
    #[command(flatten)]
    limits: ClientLimits,
    /// What to log to standard error: error, warn, info, debug, or a filter as in RUST_LOG
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How the lines of the log are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    log_format: Format,
    /// Stop when standard input ends: for children of tests and of the demo
    #[arg(long, hide = true)]
    parent_pipe: bool,
    /// Cannot apply a write of this value: for tests
    #[arg(long, value_name = "VALUE", hide = true)]
    fail_on: Option<String>,
    /// Break this rule, to show that a test would notice
    #[cfg(feature = "mutants")]
    #[arg(long, hide = true)]
    mutant: Option<String>,
}

impl Serve {
    /// Serves until it is told to stop. On SIGHUP `again` is called with the log, and says whether it has read anything.
    pub(super) fn run(self, mut again: impl FnMut(&Logging) -> bool + Send + 'static) -> Result<(), String> {
        let logging = Logging::start(self.log.as_deref(), self.log_format)?;
        let parent_pipe = self.parent_pipe;
        if self.token.is_exposed() {
            tracing::warn!(
                "--join-token: others on this computer can see the words of a command line; --join-token-file hides it"
            );
        }
        self.login.apply()?;
        let fail_on = self.fail_on.clone();
        let options = self.options()?;
        let kv = Kv::new()
            .failing_on(fail_on)
            .publishing(options.roster.clone())
            .counting(options.figures.clone());
        let told = logging.clone();
        let result = run_server(options, kv, parent_pipe, move || again(&told));
        logging.finish();
        result
    }

    /// What to tell of in the log.
    pub(super) fn filter(&self) -> Option<&str> {
        self.log.as_deref()
    }

    pub(super) fn options(self) -> Result<Options, String> {
        let storage = self.store.storage(self.data_dir)?;
        if self.id == Some(0) {
            return Err("--id 0: a node's name is at least 1".into());
        }
        if self.timeout.is_zero() {
            return Err("--timeout must not be zero".into());
        }
        if self.expect.is_some_and(|count| count != self.join.len()) {
            return Err("--join must name exactly as many nodes as --expect says, this one among them".into());
        }
        let mut config = Config::new(self.id.unwrap_or_default(), self.peer_addr, storage);
        let (tls, client_tls) = self.tls.load()?;
        config.tls = tls;
        config.replace_dead_after = self.replace_dead_after;
        config.rebuild_diverged = self.rebuild_diverged;
        if !self.library_clients {
            // In whose name they ask is for them to say.
            config.max_clients = 0;
        }
        config.advertised = self.advertise.unwrap_or_default();
        config.heartbeat = self.heartbeat.unwrap_or(config.heartbeat);
        #[cfg(feature = "mutants")]
        if let Some(name) = &self.mutant {
            config.break_rule(name)?;
        }
        config.request_timeout = self.timeout;
        config.election_timeout = self.election_timeout.unwrap_or(config.election_timeout);
        let max_clock_drift = self.lease_drift;
        config.lease = self.lease.map(|duration| Lease { duration, max_clock_drift });
        config.snapshot_entries = self.snapshot_entries.unwrap_or(config.snapshot_entries);
        config.segment_bytes = self.segment_bytes.unwrap_or(config.segment_bytes);
        Ok(Options {
            config,
            client_addr: self.client_addr,
            admin_addr: self.admin_addr,
            client_tls,
            join: Join {
                to: self.join,
                expect: self.expect.is_some(),
                rejoin: self.rejoin,
                token: self.token.load()?,
            },
            roster: Roster::default(),
            figures: Figures::default(),
            open_without_users: self.open_without_users,
            timeout: self.timeout,
            limits: self.limits.load()?,
        })
    }
}

/// Runs a server until SIGTERM or SIGINT, or the end of standard input if that is a pipe from a parent. On SIGHUP certificates are
/// read again, and `again` is called, which says whether it has read anything.
pub fn run_server<M: Machine>(
    options: Options,
    machine: M,
    parent_pipe: bool,
    mut again: impl FnMut() -> bool + Send + 'static,
) -> Result<(), String> {
    runtime()?.block_on(async {
        let cannot = |error: io::Error| format!("cannot listen for signals: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        // A terminal that goes away does not end a server.
        let mut hangup = signal(SignalKind::hangup()).map_err(cannot)?;
        let tls = options.config.tls.clone();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                tls.iter().for_each(renewal::reload);
                if !again() && tls.is_none() {
                    tracing::warn!(
                        "ignored SIGHUP: there is nothing to read again; use SIGTERM to stop the server"
                    );
                }
            }
        });
        // With a handler, whatever it does, a file that grows too large is an error of the write, and told as one.
        let too_large = SignalKind::from_raw(Signal::XFSZ.as_raw());
        let _handled = signal(too_large).map_err(cannot)?;
        let mut orphaned = parent_pipe.then(end_of_input);
        let shutdown = async move {
            let orphaned = async {
                match &mut orphaned {
                    Some(end) => drop(end.await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = orphaned => {}
            }
        };
        let ready = |ready: serve::Ready| {
            let serve::Ready { id, clients, peers, plan } = ready;
            let lines = format!("node {id} ready: clients on {clients}, peers on {peers}\n{plan}");
            // Nobody may be reading.
            let _ = writeln!(io::stdout(), "{lines}").and_then(|()| io::stdout().flush());
        };
        serve::serve(options, machine, shutdown, ready).await.map_err(|error| coracle::in_full(&error))
    })
}

/// Resolves at the end of standard input. The thread that waits for it ends with the process.
fn end_of_input() -> tokio::sync::oneshot::Receiver<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(io::stdin().read(&mut buffer), Ok(bytes) if bytes > 0) {}
        let _ = tell.send(());
    });
    told
}
