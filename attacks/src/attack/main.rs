//! `scripts/attack`: what is left of a cluster of the real program whose processes are killed, whose disks
//! fail or are full, and whose power is cut.
//!
//! The program under attack is unmodified; all that is done to it is done from outside. Whatever happens, the
//! same is asked: is everything that was acknowledged still there, do all nodes agree, and did each node
//! that stopped say why? One exception shows that the questions are worth asking: the power is also cut
//! under a program that does not sync (`--mutant`), and that one must be found out.
#![forbid(unsafe_code)]

mod disk;
mod errors;
mod full;
mod kills;
mod library;
mod load;
mod power;

use clap::{Parser, Subcommand};
use coracle_server::cluster::{Interrupt, Place, Program, random, server};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Attacks on clusters of the real program
#[derive(Parser)]
#[command(name = "attack", version, about)]
struct Cli {
    /// The program `coracle` to attack
    #[arg(long, value_name = "PATH")]
    program: PathBuf,
    /// The program `powercut`, a disk that loses what was not synced
    #[arg(long, value_name = "PATH")]
    powercut: Option<PathBuf>,
    /// What keeps its log
    #[arg(long, default_value = "wal")]
    store: String,
    /// The seed of all choices; random, and printed, if not given
    #[arg(long)]
    seed: Option<u64>,
    #[command(subcommand)]
    attack: Attack,
}

#[derive(Subcommand)]
enum Attack {
    /// Kill nodes with SIGKILL
    Kills {
        /// How often
        #[arg(long, default_value_t = 300)]
        rounds: u64,
        /// How many members the cluster has
        #[arg(long, default_value_t = 3)]
        members: usize,
    },
    /// Let system calls of the disk fail (needs strace)
    Errors {
        /// How many of the first syncs fail, one after the other
        #[arg(long, default_value_t = 100)]
        many: u64,
    },
    /// Fill a node's disk (needs root, to mount a small one)
    FullDisk {
        /// How often as a follower, and as often as the leader
        #[arg(long, default_value_t = 5)]
        rounds: u64,
    },
    /// Cut the power of the whole cluster, on a file system that loses what was not synced
    PowerCuts {
        /// How often
        #[arg(long, default_value_t = 100)]
        cuts: u64,
        /// Break this rule of the program, which must be a build that can; a finding is what is wanted then
        #[arg(long, value_name = "NAME")]
        mutant: Option<String>,
    },
}

/// Why an attack ended early.
enum Failure {
    /// A promise is broken.
    Found(String),
    /// Something else went wrong.
    Trouble(String),
    /// The system does not permit the attack.
    NotPermitted(String),
}

/// What is attacked, and where.
struct Target {
    program: PathBuf,
    powercut: Option<PathBuf>,
    store: String,
    mutant: Option<String>,
    /// A directory for everything.
    directory: PathBuf,
    interrupt: Interrupt,
    seed: u64,
}

impl Target {
    /// The disk without power.
    fn powercut(&self) -> Result<PathBuf, Failure> {
        self.powercut.clone().ok_or_else(|| Failure::Trouble("--powercut is missing".into()))
    }

    /// A new directory.
    fn subdirectory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.directory.join(name);
        let made = std::fs::create_dir(&path);
        made.map_err(|error| Failure::Trouble(format!("{}: {error}", path.display())))?;
        Ok(path)
    }

    /// The program of nodes whose data directories are in `data`.
    fn program(&self, data: &Path) -> Program {
        // Elections are short, since there are a great many.
        self.program_with(data, "100ms-200ms")
    }

    /// The same, for nodes that leave it to others to lead.
    fn patient(&self, data: &Path) -> Program {
        self.program_with(data, "1000ms-2000ms")
    }

    fn program_with(&self, data: &Path, election_timeout: &'static str) -> Program {
        let plain = server(&self.program);
        let (data, store, mutant) = (data.to_owned(), self.store.clone(), self.mutant.clone());
        Arc::new(move |place| {
            let directory = data.join(format!("node{}", place.id));
            let mut command = plain(&Place { directory, ..place.clone() });
            command.args(["--store", &store, "--heartbeat", "20ms", "--election-timeout", election_timeout]);
            // Snapshots and segments are many too: they are written, and the log purged after them, at any moment,
            // however little a busy machine gets done.
            command.args(["--timeout", "1s", "--snapshot-entries", "300", "--segment-bytes", "262144"]);
            command.arg("--library-clients");
            if let Some(mutant) = &mutant {
                command.args(["--mutant", mutant]);
            }
            command
        })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("attack: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), String> {
    let interrupt = Interrupt::default();
    coracle_server::cli::watch_signals(interrupt.clone())?;
    // Beside the program and not in a temporary directory, which may have no disk under it.
    let parent = cli.program.parent().map(Path::to_owned).unwrap_or_default();
    let parent = parent.canonicalize().map_err(|error| format!("{}: {error}", parent.display()))?;
    let directory = parent.join(format!("attack-{:016x}", random()));
    std::fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let seed = cli.seed.unwrap_or_else(|| random() % 1_000_000_000);
    let mut target = Target {
        program: cli.program,
        powercut: cli.powercut,
        store: cli.store,
        mutant: None,
        directory: directory.clone(),
        interrupt,
        seed,
    };
    println!("seed {seed}");
    let result = match cli.attack {
        Attack::Kills { rounds, members } => kills::rounds(&target, members, rounds),
        Attack::Errors { many } => errors::all(&target, many),
        Attack::FullDisk { rounds } => full::rounds(&target, rounds),
        Attack::PowerCuts { cuts, mutant } => {
            target.mutant = mutant;
            power::cuts(&target, cuts)
        }
    };
    let result = match (result, &target.mutant) {
        (Ok(()), None) => Ok(()),
        (Err(Failure::Found(what)), Some(name)) => {
            println!("{name} was found: {what}");
            Ok(())
        }
        (Ok(()), Some(name)) => Err(format!("{name} was not found")),
        (Err(Failure::NotPermitted(why)), _) => {
            println!("*** SKIPPED: {why}; this needs root and /dev/fuse");
            Ok(())
        }
        (Err(Failure::Found(problem) | Failure::Trouble(problem)), _) => Err(problem),
    };
    match result {
        Ok(()) => {
            std::fs::remove_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))
        }
        Err(problem) => {
            Err(format!("{problem} (seed {seed}; data and logs are kept in {})", directory.display()))
        }
    }
}
