//! Who may have how many of the process's file descriptors.
//!
//! The plan is made at the start and adds up: whatever comes, nobody takes what another one needs, and the log least of all,
//! which ends the node where it can open no file. Where the system allows too few for that, the server does not start.

use crate::guests;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt;

/// For the node itself: the log (64 files that are kept open, and those in use), snapshots and backups, connections to other
/// nodes, listeners, and what the runtimes and standard streams have.
const OWN: u64 = 128;

/// The fewest with which a server starts: what the node itself needs, and as many again for everybody else.
const FEWEST: u64 = 2 * OWN;

/// Connections that were taken and are turned away, or are on their way out.
const PASSING: u64 = 8;

/// What each may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// All that the process may open.
    pub files: u64,
    /// Connections that were accepted from other nodes, or from who says so.
    pub peers: usize,
    /// Clients of the library.
    pub library: usize,
    /// Redis clients.
    pub clients: usize,
}

/// What is wanted, if there is enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// See [`Plan::peers`].
    pub peers: usize,
    /// See [`Plan::library`].
    pub library: usize,
    /// See [`Plan::clients`].
    pub clients: usize,
}

impl Wanted {
    /// Asks the system for as many descriptors as are wanted, and shares out what there is.
    pub fn plan(self) -> Result<Plan, String> {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = self.sum();
        let mut files = current.unwrap_or(u64::MAX);
        if files < wanted {
            let more = wanted.min(maximum.unwrap_or(u64::MAX));
            if setrlimit(Resource::Nofile, Rlimit { current: Some(more), maximum }).is_ok() {
                files = more;
            }
        }
        self.within(files)
    }

    fn sum(self) -> u64 {
        let Wanted { peers, library, clients } = self;
        OWN + PASSING + guests::SEATS as u64 + (peers + library) as u64 + clients as u64
    }

    /// Shares out so many: a quarter of what is free goes to peers and an eighth to clients of the library, if they want so
    /// much and clients cannot have all that they want otherwise.
    fn within(self, files: u64) -> Result<Plan, String> {
        if files < FEWEST {
            return Err(format!(
                "only {files} files may be open, and a server needs {FEWEST}: raise `ulimit -n`"
            ));
        }
        let Wanted { mut peers, mut library, mut clients } = self;
        if files < self.sum() {
            let free = usize::try_from(files - OWN - PASSING).unwrap_or(usize::MAX) - guests::SEATS;
            peers = peers.min(free / 4);
            library = library.min(free / 8);
            clients = clients.min(free - peers - library);
        }
        Ok(Plan { files, peers, library, clients })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { files, peers, library, clients } = self;
        let own = OWN + PASSING;
        write!(
            f,
            "{files} files may be open: {own} for the node itself, {peers} for connections from peers, {clients} for \
             clients, {library} for clients of the library, {} for operators",
            guests::SEATS
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { peers: 1_281, library: 1_024, clients: 10_000 };

    #[test]
    fn the_plan_adds_up_at_every_limit_or_is_refused() {
        for files in 0..20_000 {
            match WANTED.within(files) {
                Ok(plan) => {
                    let sum =
                        Wanted { peers: plan.peers, library: plan.library, clients: plan.clients }.sum();
                    assert!(sum <= files, "{plan}");
                    assert!(plan.peers >= 24 && plan.clients >= 48, "{plan}");
                }
                Err(why) => {
                    assert!(files < FEWEST, "{why}");
                    assert!(why.contains("raise `ulimit -n`"), "{why}");
                }
            }
        }
        let ample = WANTED.within(1 << 20).unwrap();
        assert_eq!((ample.peers, ample.library, ample.clients), (1_281, 1_024, 10_000));
    }
}
