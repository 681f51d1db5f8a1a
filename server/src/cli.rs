//! The command line of `coracle`.
//!
//! Every failure is one line on standard error, and the exit code 1 (2 where the command line itself is
//! wrong).

mod certs;
mod entry;
mod members;
mod rebuild;
mod tls;

use self::certs::Certs;
use self::entry::Entry;
use self::members::Members;
use self::rebuild::Rebuild;
use self::tls::ServerTls;
use crate::bench::Bench;
use crate::client;
use crate::cluster::{self, Interrupt};
use crate::connection::Limits;
use crate::demo::Demo;
use crate::diary::{self, Diary};
use crate::joining::Join;
use crate::kv::Kv;
use crate::log::Log;
use crate::renewal;
use crate::report::ReportedSnapshot;
use crate::rescue::{Backup, Recover, Restore};
use crate::serve::{self, Options};
use crate::simulate::{History, Sim};
use crate::store::Store;
use clap::{Args, Parser, Subcommand};
use client::{Client, CommandTls, Value};
use coracle::{Config, Lease};
use rustix::process::Signal;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How long `status` waits for the server: it answers without asking anybody.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// How long `snapshot` waits: as long as a large one takes to be written and read back on a slow disk.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3600);

/// A replicated key-value store that Redis clients can talk to.
#[derive(Parser)]
#[command(name = "coracle", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node of a cluster
    Serve(Box<Serve>),
    /// Form a cluster, and show or change who takes part in it
    #[command(subcommand)]
    Members(Members),
    /// Show how a node sees itself and its cluster
    Status {
        /// The node's client address
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        #[command(flatten)]
        tls: CommandTls,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a snapshot of a node's data now, and wait until it is on disk
    Snapshot {
        /// The node's client address
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        #[command(flatten)]
        tls: CommandTls,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what becomes of an entry that the state machine cannot apply
    #[command(subcommand)]
    Entry(Entry),
    /// Make certificates, if there is no authority to ask for them
    #[command(subcommand)]
    Certs(Certs),
    /// Rebuild the machine of a node from its leader's, after it was found to differ from that of a majority
    Rebuild(Rebuild),
    /// Write the state of a running cluster to a file
    Backup(Backup),
    /// Make one node of a new cluster out of a backup
    Restore(Restore),
    /// Make a one-node cluster out of a node whose cluster has lost its majority for good
    Recover(Recover),
    /// Start three nodes, kill the leader, and check that no acknowledged write is lost
    Demo {
        /// Keep the cluster running at the end, until Ctrl-C
        #[arg(long)]
        keep: bool,
        /// The log store of the nodes
        #[arg(long, value_enum, default_value_t = Store::Wal)]
        store: Store,
    },
    /// Measure a cluster, or what this computer's disk and network allow at best
    Bench(Bench),
    /// Run simulated clusters of this code under faults, each decided by a seed
    Sim(Sim),
    /// Check recorded client histories for linearizability
    #[command(subcommand)]
    History(History),
    /// Inspect the log in a data directory, even while a server uses it
    #[command(subcommand)]
    Log(Log),
}

#[derive(Args)]
struct Serve {
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
    /// What all nodes of a cluster have in common, so that nobody else gets in or changes who takes part; travels in the clear where connections do
    #[arg(long, value_name = "SECRET", env = "CORACLE_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
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
    /// Maximum number of client connections
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().clients)]
    max_clients: usize,
    /// Close a connection whose command stays incomplete for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    half_command_limit: Duration,
    /// What to log to standard error: error, warn, info, debug, or a filter as in RUST_LOG
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
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

/// Whom to ask for a change.
#[derive(clap::Args)]
struct To {
    /// Client addresses of nodes of the cluster: one is enough while it answers
    #[arg(long, value_name = "HOST:PORT[,…]", required = true, value_delimiter = ',')]
    to: Vec<String>,
    /// How long to wait for a leader that can be asked
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    wait: Duration,
    /// What the nodes were started with by --join-token
    #[arg(long, value_name = "SECRET", env = "CORACLE_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    #[command(flatten)]
    tls: CommandTls,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl To {
    fn token(&self) -> Option<&str> {
        self.join_token.as_deref()
    }

    fn tell(&self, done: &str) -> Result<(), String> {
        if self.json {
            println!("{}", serde_json::json!({ "done": done }));
        } else {
            println!("done: {done}");
        }
        Ok(())
    }
}

/// As many open files as the system allows, before anything is opened: a log has a file for each of its segments, and
/// the usual limit for a start is a thousand.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Most of what follows needs few files.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    // A bug is an error too, and gets its one line.
    std::panic::set_hook(Box::new(|panic| diary::last_words(&panic.to_string())));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    raise_file_limit();
    let result = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Members(members) => members.run(),
        Command::Entry(entry) => entry.run(),
        Command::Certs(certs) => certs.run(),
        Command::Rebuild(rebuild) => rebuild.run(),
        Command::Status { to, json, tls } => tls.apply().and_then(|()| status(&to, json)),
        Command::Snapshot { to, json, tls } => tls.apply().and_then(|()| snapshot(&to, json)),
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
        Command::Recover(recover) => recover.run(),
        Command::Demo { keep, store } => demo(keep, store),
        Command::Bench(bench) => interrupted_by_signals().and_then(|interrupt| bench.run(interrupt)),
        Command::Sim(sim) => sim.run(),
        Command::History(history) => return history.run(),
        Command::Log(log) => return log.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            diary::last_words(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Help and version are what was asked for; anything else is an error, in one line like all.
fn misunderstood(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody may be reading.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let problem: Vec<&str> =
        text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim).collect();
    let problem = problem.join(" ");
    let problem = problem.trim().trim_start_matches("error: ").split(" For more information").next();
    eprintln!("coracle: {} (see --help)", problem.unwrap_or_default().trim());
    ExitCode::from(2)
}

impl Serve {
    fn run(self) -> Result<(), String> {
        let filter = match &self.log {
            Some(filter) => EnvFilter::try_new(filter).map_err(|error| format!("--log {filter}: {error}"))?,
            None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")),
        };
        let diary = Diary::new(io::stderr());
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(diary.clone()).with_ansi(false).init();
        let parent_pipe = self.parent_pipe;
        let kv = Kv::new().failing_on(self.fail_on.clone());
        let result = run_server(self.options()?, kv, parent_pipe);
        diary.finish();
        result
    }

    fn options(self) -> Result<Options, String> {
        let storage = self.store.storage(self.data_dir)?;
        if self.id == Some(0) {
            return Err("--id 0: a node's name is at least 1".into());
        }
        if self.timeout.is_zero() || self.half_command_limit.is_zero() || self.max_clients == 0 {
            return Err("--timeout, --half-command-limit and --max-clients must not be zero".into());
        }
        if self.expect.is_some_and(|count| count != self.join.len()) {
            return Err("--join must name exactly as many nodes as --expect says, this one among them".into());
        }
        let mut config = Config::new(self.id.unwrap_or_default(), self.peer_addr, storage);
        let (tls, client_tls) = self.tls.load()?;
        config.tls = tls;
        config.replace_dead_after = self.replace_dead_after;
        config.rebuild_diverged = self.rebuild_diverged;
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
        Ok(Options {
            config,
            client_addr: self.client_addr,
            client_tls,
            join: Join {
                to: self.join,
                expect: self.expect.is_some(),
                rejoin: self.rejoin,
                token: self.join_token,
            },
            timeout: self.timeout,
            limits: Limits {
                clients: self.max_clients,
                half_command: self.half_command_limit,
                ..Limits::default()
            },
        })
    }
}

/// Runs a server until SIGTERM or SIGINT, or the end of standard input if that is a pipe from a parent.
pub fn run_server<M: crate::kv::Machine>(
    options: Options,
    machine: M,
    parent_pipe: bool,
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
                match &tls {
                    Some(tls) => renewal::reload(tls),
                    None => tracing::warn!("ignored SIGHUP; use SIGTERM to stop the server"),
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
            let line =
                format!("node {} ready: clients on {}, peers on {}", ready.id, ready.clients, ready.peers);
            // Nobody may be reading.
            let _ = writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush());
        };
        serve::serve(options, machine, shutdown, ready).await.map_err(|error| coracle::in_full(&error))
    })
}

fn runtime() -> Result<Runtime, String> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
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

fn status(to: &str, json: bool) -> Result<(), String> {
    let report = cluster::report(to, STATUS_LIMIT).map_err(|error| format!("{to}: {error}"))?;
    if json {
        println!("{}", serde_json::to_string(&report).map_err(|error| error.to_string())?);
    } else {
        print!("{report}");
    }
    Ok(())
}

fn snapshot(to: &str, json: bool) -> Result<(), String> {
    let cannot = |error: io::Error| format!("{to} does not answer: {error}");
    match Client::connect(to, SNAPSHOT_LIMIT)
        .map_err(cannot)?
        .ask(&[b"CORACLE", b"SNAPSHOT"])
        .map_err(cannot)?
    {
        Value::Bulk(answer) => {
            let taken: ReportedSnapshot =
                serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
            if json {
                println!("{}", String::from_utf8_lossy(&answer));
            } else {
                println!("a snapshot is on disk: {taken}");
            }
            Ok(())
        }
        Value::Error(error) => Err(error),
        _ => Err(format!("{to} gave an answer that is none to this command: is it a node of Coracle?")),
    }
}

fn demo(keep: bool, store: Store) -> Result<(), String> {
    if store == Store::Memory {
        return Err("the demo restarts a node on the data that it left behind; choose a store on disk".into());
    }
    // A store that this program does not have is told here, not by the first child.
    store.storage(Some(PathBuf::new()))?;
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let interrupt = interrupted_by_signals()?;
    let demo = Demo {
        programs: vec![cluster::server_on(program, store); 3],
        while_dead: Box::new(|_| {}),
        keep,
        interrupt,
    };
    demo.run(&mut io::stdout()).map_err(|problem| format!("the demo failed: {problem}"))
}

fn interrupted_by_signals() -> Result<Interrupt, String> {
    let interrupt = Interrupt::default();
    watch_signals(interrupt.clone())?;
    Ok(interrupt)
}

/// Sets the flag on SIGINT and SIGTERM.
pub fn watch_signals(interrupt: Interrupt) -> Result<(), String> {
    let runtime = runtime()?;
    let cannot = |error: io::Error| format!("cannot listen for signals: {error}");
    let (mut terminated, mut interrupted) = runtime
        .block_on(async { Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)) })
        .map_err(cannot)?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        });
        interrupt.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Reads `500ms`, `2s` or `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err("write a time as 500ms, 2s or 1m".into()),
    };
    let number: u32 = number.parse().map_err(|_| "write a time as 500ms, 2s or 1m".to_owned())?;
    Ok(Duration::from_millis(u64::from(number) * unit))
}

/// Reads `300ms-600ms`, or `600ms` alone for half of that up to all of it.
fn durations(text: &str) -> Result<(Duration, Duration), String> {
    match text.split_once('-') {
        Some((from, to)) => Ok((duration(from)?, duration(to)?)),
        None => duration(text).map(|to| (to / 2, to)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle::Storage;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_numbers_with_units() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        for wrong in ["", "2", "s", "-1s", "1.5s", "2 s", "99999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(durations("100ms-1s"), Ok((Duration::from_millis(100), Duration::from_secs(1))));
        assert_eq!(durations("600ms"), Ok((Duration::from_millis(300), Duration::from_millis(600))));
    }

    #[test]
    fn reads_go_by_a_lease_only_where_that_is_chosen() {
        let line = "coracle serve --id 1 --data-dir d --peer-addr a --client-addr b";
        let lease = |more: &str| options(&format!("{line}{more}")).config.lease;
        assert_eq!(lease(""), None);
        let chosen = |millis, max_clock_drift| {
            Some(Lease { duration: Duration::from_millis(millis), max_clock_drift })
        };
        assert_eq!(lease(" --lease 300ms"), chosen(300, 100));
        assert_eq!(lease(" --lease 500ms --lease-drift 20"), chosen(500, 20));
        assert!(try_options(&format!("{line} --lease-drift 20")).is_err());
    }

    fn try_options(line: &str) -> Result<Options, String> {
        match Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.command {
            Command::Serve(serve) => serve.options(),
            _ => unreachable!(),
        }
    }

    fn options(line: &str) -> Options {
        try_options(line).unwrap()
    }

    #[test]
    fn each_setting_of_serve_arrives() {
        let base = "coracle serve --id 3 --peer-addr a:1 --client-addr b:2 --data-dir /d";
        let plain = options(base);
        assert_eq!((plain.config.id.0, plain.config.peer_addr.as_str()), (3, "a:1"));
        assert_eq!(plain.client_addr, "b:2");
        assert_eq!(plain.config.storage, Storage::Dir("/d".into()));
        assert_eq!(plain.timeout, Duration::from_secs(2));
        assert_eq!(plain.config.election_timeout.1, Duration::from_millis(600));
        let more =
            " --timeout 1s --heartbeat 20ms --election-timeout 1s-2s --max-clients 7 --half-command-limit 3s";
        let set = options(&format!("{base}{more} --store memory"));
        assert_eq!(set.timeout, Duration::from_secs(1));
        assert_eq!(set.config.heartbeat, Duration::from_millis(20));
        assert_eq!(set.config.election_timeout, (Duration::from_secs(1), Duration::from_secs(2)));
        assert_eq!((set.limits.clients, set.limits.half_command), (7, Duration::from_secs(3)));
        assert_eq!(set.config.storage, Storage::Memory);
        assert!(
            try_options("coracle serve --id 3 --peer-addr a:1 --client-addr b:2").is_err(),
            "no directory"
        );
        assert!(try_options(&format!("{base} --timeout 0s")).is_err());
        assert_eq!(options(&format!("{base} --store wal")).config.storage, Storage::Dir("/d".into()));
        let engine = |name: &str| match try_options(&format!("{base} --store {name}")) {
            Ok(Options { config: Config { storage: Storage::Engine { dir, engine }, .. }, .. }) => {
                assert_eq!((dir.to_str(), engine.name()), (Some("/d"), name));
                true
            }
            Ok(_) => panic!("{name} is an engine"),
            Err(error) => {
                assert!(error.contains(&format!("--features {name}")), "{error}");
                false
            }
        };
        assert_eq!((engine("lmdb"), engine("rocksdb")), (cfg!(feature = "lmdb"), cfg!(feature = "rocksdb")));
    }
}
