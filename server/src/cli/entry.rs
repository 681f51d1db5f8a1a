//! `coracle entry`: what becomes of an entry that the machine cannot apply.

use super::To;
use crate::entries;
use clap::Subcommand;
use coracle::raft::LogId;

#[derive(Subcommand)]
pub(super) enum Entry {
    /// Do nothing in its place, on any node, for ever; only once the machine of every member has stopped before it
    Skip {
        #[command(flatten)]
        to: To,
        /// The entry, as `status` shows it
        #[arg(value_name = "INDEX.TERM", value_parser = entry)]
        entry: LogId,
    },
    /// Let every machine that has stopped before it try it again
    Retry {
        #[command(flatten)]
        to: To,
        /// The entry, as `status` shows it
        #[arg(value_name = "INDEX.TERM", value_parser = entry)]
        entry: LogId,
    },
}

impl Entry {
    pub(super) fn run(self) -> Result<(), String> {
        let (to, verb, entry) = match self {
            Entry::Skip { to, entry } => (to, "SKIP", entry),
            Entry::Retry { to, entry } => (to, "RETRY", entry),
        };
        to.credentials.apply()?;
        let done = entries::ask(&to.to, verb, entry, to.wait)?;
        to.tell(&done)
    }
}

fn entry(word: &str) -> Result<LogId, String> {
    entries::place(word).ok_or_else(|| "write index.term, as `coracle status` shows it".to_owned())
}
