//! The command line of `coracle`.
//!
//! Every failure is one line on standard error, and the exit code 1 (2 where the command line itself is
//! wrong). `status` has codes of its own for what it finds.

mod certs;
mod configuration;
mod doctor;
mod entry;
mod init;
mod limits;
mod logging;
mod members;
mod rebuild;
mod serve;
mod tls;
mod users;

pub use self::serve::run_server;

use self::certs::Certs;
use self::configuration::Configuration;
use self::doctor::Doctor;
use self::entry::Entry;
use self::init::{Completions, Init, Man};
use self::members::Members;
use self::rebuild::Rebuild;
use self::serve::Serve;
use self::users::Users;
use crate::bench::Bench;
use crate::client;
use crate::cluster::{self, Interrupt};
use crate::credentials::Credentials;
use crate::demo::Demo;
use crate::diary;
use crate::log::Log;
use crate::report::{Health, Report, ReportedSnapshot};
use crate::rescue::{Backup, Recover, Restore};
use crate::simulate::{History, Sim};
use crate::store::Store;
use clap::{Parser, Subcommand};
use client::{Client, Value};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// How long `status` waits for the server: it answers without asking anybody.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// How long `snapshot` waits: as long as a large one takes to be written and read back on a slow disk.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3600);

/// The exit code where the command line, or the configuration file, is wrong.
const MISUNDERSTOOD: u8 = 2;

/// The exit codes of `status` for a node that answers, and does not serve.
const NO_LEADER: u8 = 3;
const NOT_READY: u8 = 4;
const NO_CLUSTER: u8 = 5;

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
    /// Check a configuration file, and show what it comes to
    #[command(subcommand)]
    Config(Configuration),
    /// Write a commented configuration file and a unit for systemd
    Init(Init),
    /// Print what a shell needs to complete this program's command lines
    Completions(Completions),
    /// Write this program's manual pages
    Man(Man),
    /// Show how a node sees itself and its cluster; the exit code is 0 if it serves, 3 without a leader, 4 if it is not ready, 5
    /// without a cluster
    Status {
        /// The node's client address
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        #[command(flatten)]
        credentials: Credentials,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what is wrong with a cluster, what will hurt next, and what to do; the exit code is 3 if something is wrong now
    Doctor(Doctor),
    /// Take a snapshot of a node's data now, and wait until it is on disk
    Snapshot {
        /// The node's client address
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        #[command(flatten)]
        credentials: Credentials,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add, change, remove and show users
    #[command(subcommand)]
    Users(Users),
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

/// Whom to ask for a change.
#[derive(clap::Args)]
struct To {
    /// Client addresses of nodes of the cluster: one is enough while it answers
    #[arg(long, value_name = "HOST:PORT[,…]", required = true, value_delimiter = ',')]
    to: Vec<String>,
    /// How long to wait for a leader that can be asked
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    wait: Duration,
    #[command(flatten)]
    credentials: Credentials,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl To {
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
    let words = match configuration::complete(std::env::args_os()) {
        Ok(words) => words,
        Err(problem) => {
            diary::last_words(&problem);
            return ExitCode::from(MISUNDERSTOOD);
        }
    };
    let cli = match Cli::try_parse_from(words.all()) {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error),
    };
    raise_file_limit();
    let result = match cli.command {
        Command::Serve(serve) => serve.run(move |logging| words.read_again(|filter| logging.follow(filter))),
        Command::Config(configuration) => configuration.run(),
        Command::Init(init) => init.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
        Command::Members(members) => members.run(),
        Command::Users(users) => users.run(),
        Command::Entry(entry) => entry.run(),
        Command::Certs(certs) => certs.run(),
        Command::Rebuild(rebuild) => rebuild.run(),
        Command::Status { to, json, credentials } => {
            return found_out(credentials.apply().and_then(|()| status(&to, json)));
        }
        Command::Doctor(doctor) => return found_out(doctor.run()),
        Command::Snapshot { to, json, credentials } => credentials.apply().and_then(|()| snapshot(&to, json)),
        Command::Backup(backup) => backup.run(),
        Command::Restore(restore) => restore.run(),
        Command::Recover(recover) => recover.run(),
        Command::Demo { keep, store } => demo(keep, store),
        Command::Bench(bench) => interrupted_by_signals().and_then(|interrupt| bench.run(interrupt)),
        Command::Sim(sim) => sim.run(),
        Command::History(history) => return history.run(),
        Command::Log(log) => return log.run(),
    };
    found_out(result.map(|()| 0))
}

/// Ends with this code, or with why there is none.
fn found_out(result: Result<u8, String>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            diary::last_words(&problem);
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with a command line, without how it should be.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let problem: Vec<&str> =
        text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim).collect();
    let problem = problem.join(" ");
    let problem = problem.trim().trim_start_matches("error: ").split(" For more information").next();
    problem.unwrap_or_default().trim().to_owned()
}

/// Help and version are what was asked for; anything else is an error, in one line like all.
fn misunderstood(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody may be reading.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    eprintln!("coracle: {} (see --help)", one_line(error));
    ExitCode::from(MISUNDERSTOOD)
}

fn runtime() -> Result<Runtime, String> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}

/// Shows a node. What is returned is the exit code.
fn status(to: &str, json: bool) -> Result<u8, String> {
    let report = match cluster::report(to, STATUS_LIMIT) {
        Err(error) if error.starts_with("NOPERM ") => return health(to, json),
        report => report.map_err(|error| format!("{to}: {error}"))?,
    };
    if json {
        println!("{}", serde_json::to_string(&report).map_err(|error| error.to_string())?);
    } else {
        print!("{report}");
    }
    let Report { role, leader, ready, fenced, machine_stopped, .. } = &report;
    Ok(found(role, *leader, *ready && fenced.is_none() && machine_stopped.is_none()))
}

/// What a user may know who is no administrator.
fn health(to: &str, json: bool) -> Result<u8, String> {
    let health = cluster::health(to, STATUS_LIMIT).map_err(|error| format!("{to}: {error}"))?;
    if json {
        println!("{}", serde_json::to_string(&health).map_err(|error| error.to_string())?);
    } else {
        println!("{health}; more is for administrators");
    }
    let Health { role, leader, ready, .. } = &health;
    Ok(found(role, *leader, *ready))
}

/// The exit code for a node of this role.
fn found(role: &str, leader: Option<u64>, ready: bool) -> u8 {
    match (role, leader) {
        ("unconfigured", _) => NO_CLUSTER,
        (_, None) => NO_LEADER,
        _ if !ready => NOT_READY,
        _ => 0,
    }
}

fn snapshot(to: &str, json: bool) -> Result<(), String> {
    let cannot = |error: io::Error| client::unasked(to, &error);
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
    use crate::serve::Options;
    use coracle::{Config, Lease, Storage};

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
    fn a_status_says_by_its_exit_code_whether_the_node_serves() {
        for (role, leader, ready, code) in [
            ("leader", Some(1), true, 0),
            ("follower", Some(1), true, 0),
            ("follower", None, true, 3),
            ("candidate", None, false, 3),
            ("follower", Some(1), false, 4),
            ("unconfigured", None, true, 5),
        ] {
            assert_eq!(found(role, leader, ready), code, "{role} {leader:?} {ready}");
        }
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
