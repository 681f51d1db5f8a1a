//! Looks at the log in a data directory, also while a server uses it, and changes nothing.
//!
//! `verify` says whether a start would succeed, and what is wrong; `dump` says all that is in there. Both
//! take no lock and open files to read only. The exit code is 0 for an intact log, 1 for a damaged one and 2
//! where nothing can be said: no such directory, no permission, none of ours, a newer version.

mod dump;
mod look;

use clap::Subcommand;
use coracle::in_full;
use look::Look;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Look at the log in a data directory.
#[derive(Subcommand)]
pub enum Log {
    /// Print its contents: node, files, terms, members, entries
    Dump {
        /// The data directory, in use or not
        dir: PathBuf,
        /// The first index to print
        #[arg(long, value_name = "INDEX", default_value_t = 1)]
        from: u64,
        /// The last index to print
        #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
        to: u64,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Verify all checksums; exit code 0: intact, 1: damaged, 2: unreadable
    Verify {
        /// The data directory, in use or not
        dir: PathBuf,
    },
}

/// Why there is no answer.
enum Failure {
    /// Nothing can be said of the log.
    Unreadable(String),
    /// Nobody takes what there is to say.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

impl Log {
    /// Does it; the exit code is the verdict.
    pub fn run(&self) -> ExitCode {
        let mut out = io::BufWriter::new(io::stdout().lock());
        let verdict = match self {
            Log::Dump { dir, from, to, json } => dump::dump(dir, *from, *to, *json, &mut out),
            Log::Verify { dir } => verify(dir, &mut out),
        };
        let verdict = verdict.and_then(|intact| out.flush().map(|()| intact).map_err(Failure::Output));
        match verdict {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(1),
            // Who reads has read enough.
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(Failure::Output(error)) => unreadable(&format!("cannot write: {error}")),
            Err(Failure::Unreadable(problem)) => unreadable(&problem),
        }
    }
}

fn unreadable(problem: &str) -> ExitCode {
    eprintln!("coracle: {}", problem.replace('\n', " "));
    ExitCode::from(2)
}

/// A file that holds nothing of the log.
fn unused(name: &str) -> String {
    if name.starts_with("incoming-") {
        format!("{name} does not count: it is a snapshot of which not everything has come yet")
    } else if name.starts_with("spare-") {
        format!("{name} holds nothing: it is kept to become the next segment")
    } else {
        format!("{name} does not count: a crash or a purge left it, and the next start removes it")
    }
}

/// Says what is wrong, a line each, and then what there is.
fn verify(dir: &std::path::Path, out: &mut impl Write) -> Result<bool, Failure> {
    let look = Look::at(dir)?;
    for flaw in &look.flaws {
        let verdict = if flaw.forgiven { "forgiven, since it is purged" } else { "damaged" };
        writeln!(out, "{verdict}: {}", in_full(&flaw.error))?;
    }
    for error in &look.passed_over {
        writeln!(out, "passed over, since the state can be made without it: {}", in_full(error))?;
    }
    for name in &look.others {
        writeln!(out, "{}", unused(name))?;
    }
    let verdict = if look.intact() { "intact" } else { "damaged" };
    let range = look.range();
    writeln!(out, "{}: {verdict}: {} log, {range}", dir.display(), look.store)?;
    Ok(look.intact())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_nothing_of_the_log_is_explained() {
        assert_eq!(unused("spare-0"), "spare-0 holds nothing: it is kept to become the next segment");
        assert!(unused("000000000000001a.log").contains("does not count: a crash or a purge left it"));
    }
}
