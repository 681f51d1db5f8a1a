//! What saves a cluster, and what makes a new one out of what was saved: `coracle backup`, `restore` and `recover`.
//!
//! The work is the library's ([`coracle::backup`], [`coracle::rebuild`]); here it is fetched, told, and asked for.

use crate::backups::Place;
use crate::client::{self, Client, Value};
use crate::credentials::Credentials;
use crate::kv::Kv;
use crate::store::Store;
use clap::{Args, Subcommand, ValueEnum};
use coracle::backup::{self, BackupInfo, Partial};
use coracle::raft::{Index, LogId, Membership};
use coracle::rebuild::{self, Rebuilt, Survivor};
use coracle::storage::disk::ReadOnlyDir;
use coracle::storage::identity;
use coracle::{Config, in_full};
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long each answer of a server is waited for: it answers once a second, whatever it waits for itself.
const LIMIT: Duration = Duration::from_secs(60);

/// What is to be typed to go on.
const YES: &str = "recover";

/// Write the state of a running cluster to a file
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Backup {
    #[command(subcommand)]
    look: Option<Look>,
    /// The client address of any node
    #[arg(long, value_name = "HOST:PORT", required = true)]
    to: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// The file to write; what came of it before is FILE.partial, and goes on from there
    #[arg(required = true)]
    file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Look {
    /// Read all of a backup, check its checksums, and say what it is
    Verify {
        /// The backup
        file: PathBuf,
    },
}

/// Make one node of a new cluster out of a backup
#[derive(Args)]
pub struct Restore {
    /// The backup
    file: PathBuf,
    /// The node's data directory, empty or missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The node's id in the new cluster, at least 1
    #[arg(long)]
    id: u64,
    /// Where other nodes will reach it
    #[arg(long, value_name = "HOST:PORT")]
    peer_addr: String,
    /// The log store
    #[arg(long, value_enum, default_value_t = Store::Wal)]
    store: Store,
}

/// Make a one-node cluster out of a node whose cluster has lost its majority for good
#[derive(Args)]
pub struct Recover {
    /// The data directory of the node, which must not run
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where other nodes will reach it [default: where the others of its old cluster did]
    #[arg(long, value_name = "HOST:PORT")]
    peer_addr: Option<String>,
    /// Go on without asking
    #[arg(long)]
    yes: bool,
}

fn told(error: impl Error) -> String {
    in_full(&error)
}

impl Backup {
    /// Does it.
    pub fn run(&self) -> Result<(), String> {
        match (&self.look, &self.to, &self.file) {
            (Some(Look::Verify { file }), ..) => {
                let info = backup::verify(file).map_err(told)?;
                say(&format!("{}: intact\n{}", file.display(), describe(&info)))
            }
            (None, Some(to), Some(file)) => {
                self.credentials.apply()?;
                let info = fetch(to, file)?;
                say(&format!("{}: written and verified\n{}", file.display(), describe(&info)))
            }
            _ => Err("--to and FILE are needed".into()),
        }
    }
}

/// Nobody may be reading.
fn say(text: &str) -> Result<(), String> {
    match writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot write: {error}")),
        _ => Ok(()),
    }
}

/// What a backup is, a line each.
fn describe(info: &BackupInfo) -> String {
    let BackupInfo { last, membership, machine_version, bytes, .. } = info;
    format!(
        "  cluster  {}\n  entry    {} of term {}\n  members  {}\n  machine  version {machine_version}\n  bytes    {bytes}",
        membership.cluster,
        last.index,
        last.term,
        members(membership)
    )
}

fn members(membership: &Membership) -> String {
    let all = membership.all().map(|member| {
        let learns = if membership.is_voter(member.peer()) { "" } else { " (learner)" };
        format!("{}={}{learns}", member.id, member.address)
    });
    all.collect::<Vec<_>>().join(" ")
}

/// Fetches a backup piece by piece. One that broke off goes on where it was, if the node still has it.
fn fetch(to: &str, file: &Path) -> Result<BackupInfo, String> {
    let silent = |error: io::Error| client::unasked(to, &error);
    let mut client = Client::connect(to, LIMIT).map_err(silent)?;
    let mut partial = Partial::open(file).map_err(told)?;
    let mut ask = |words: &[String]| {
        let words: Vec<&[u8]> = ["CORACLE", "BACKUP"]
            .into_iter()
            .chain(words.iter().map(String::as_str))
            .map(str::as_bytes)
            .collect();
        match client.ask(&words).map_err(silent)? {
            Value::Bulk(bytes) => Ok(Some(bytes)),
            Value::Null => Ok(None),
            Value::Error(error) => Err(error),
            _ => Err(format!("{to} gave an answer that is none to this command: is it a node of Coracle?")),
        }
    };
    let same = match partial.begun() {
        Some((LogId { index, term }, bits)) => {
            let words = ["SAME".to_owned(), index.to_string(), term.to_string(), bits.to_string()];
            match ask(&words) {
                Err(error) if error.starts_with("GONE ") => None,
                given => given?,
            }
        }
        None => None,
    };
    let begun = match same {
        Some(begun) => begun,
        None => {
            partial.begin_anew().map_err(told)?;
            loop {
                if let Some(begun) = ask(&[])? {
                    break begun;
                }
            }
        }
    };
    let place: Place = serde_json::from_slice(&begun).map_err(|error| format!("{to} answered: {error}"))?;
    while partial.here() < place.bytes {
        let here = partial.here();
        let piece = ask(&["READ".to_owned(), here.to_string()])?.unwrap_or_default();
        if piece.is_empty() {
            return Err(format!("{to} ended the backup after {here} of {} bytes", place.bytes));
        }
        partial.take(here, &piece).map_err(told)?;
    }
    partial.finish().map_err(told)
}

impl Restore {
    /// Does it.
    pub fn run(&self) -> Result<(), String> {
        let storage = self.store.storage(Some(self.data_dir.clone()))?;
        let config = Config::new(self.id, self.peer_addr.clone(), storage);
        let rebuilt = rebuild::restore(&self.file, &config).map_err(told)?;
        say(&rebuilt_as(&rebuilt, &self.data_dir, self.store))
    }
}

/// What there is now, and how it is started.
fn rebuilt_as(rebuilt: &Rebuilt, dir: &Path, store: Store) -> String {
    let Rebuilt { membership, last, .. } = rebuilt;
    let member = membership.members.values().next();
    let (id, address) = member.map(|member| (member.id.0, &*member.address)).unwrap_or_default();
    let option = if store == Store::Wal { String::new() } else { format!(" --store {}", store.name()) };
    let dir = dir.display();
    format!(
        "node {id} in {dir} is the only member of the new cluster {}, with everything up to entry {}\n\
         start it: coracle serve --id {id} --data-dir {dir} --peer-addr {address}{option} --client-addr HOST:PORT",
        membership.cluster, last.index
    )
}

impl Recover {
    /// Does it, once that is wanted.
    pub fn run(&self) -> Result<(), String> {
        let dir = &self.data_dir;
        if rebuild::finish(dir).map_err(told)? {
            return say(&format!(
                "{}: a recovery that was cut right before its end is finished",
                dir.display()
            ));
        }
        let (identity, engine) =
            ReadOnlyDir::open(dir).and_then(|disk| identity::inspect(&disk)).map_err(told)?;
        let store = Store::from_str(&engine, false)
            .map_err(|_| format!("{}: this program does not know the store {engine}", dir.display()))?;
        // Nobody listens: where others will dial the node is told later.
        let config = Config::new(identity.node.0, "localhost:0", store.storage(Some(dir.clone()))?);
        let survivor = Survivor::open(&config).map_err(told)?;
        let address = match &self.peer_addr {
            Some(address) => address.clone(),
            None => survivor
                .address()
                .ok_or("its old cluster has no address for it: name one by --peer-addr")?
                .to_owned(),
        };
        say(&at_stake(&survivor, dir))?;
        self.agreed()?;
        let rebuilt = survivor.recover(Kv::new(), address).map_err(told)?;
        say(&rebuilt_as(&rebuilt, dir, store))?;
        match &rebuilt.before {
            Some(before) => say(&format!("what was there is now in {}", before.display())),
            None => Ok(()),
        }
    }

    /// Whether it is to be done: by option, or typed at a terminal.
    fn agreed(&self) -> Result<(), String> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err("nothing was done: there is no terminal to ask at, and --yes was not given".into());
        }
        print!("type {YES} to go on: ");
        // It is asked all the same.
        let _ = io::stdout().flush();
        let mut line = String::new();
        io::stdin().read_line(&mut line).map_err(|error| format!("cannot read an answer: {error}"))?;
        if line.trim() == YES { Ok(()) } else { Err("nothing was done".into()) }
    }
}

/// What the node holds, and what may be lost.
fn at_stake(survivor: &Survivor, dir: &Path) -> String {
    let (last, certain, me) = (survivor.last(), survivor.certain(), survivor.node());
    let others = survivor.membership().others(me).map(|member| format!("{}={}", member.id, member.address));
    let others = others.collect::<Vec<_>>().join(" ");
    let certain = match certain.index {
        Index::ZERO => "which of those were committed, no disk can tell".to_owned(),
        certain => format!("of which those up to {certain} were committed; of the others no disk can tell"),
    };
    let mut text = format!(
        "node {me} in {}, of cluster {}\n  \
           holds everything up to entry {} of term {}\n  \
           {certain}\n  \
           other members: {others}\n\
         What may be lost: every write after entry {}, acknowledged or not, that only others hold.\n\
         What may come back: writes up to there that were never acknowledged. All that the node holds is kept.\n\
         The new cluster has another id, so the other members can never join it with the data that they have.\n\
         If a majority of the old cluster can still be started, do that instead.",
        dir.display(),
        survivor.cluster(),
        last.index,
        last.term,
        last.index,
    );
    if let Some(index) = survivor.fenced() {
        text.push_str(&format!(
            "\nIts state machine was found to differ from that of a majority at entry {index}: what it holds may be wrong."
        ));
    }
    text
}
