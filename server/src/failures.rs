//! What clients are told of what failed.
//!
//! The first word says what they may conclude. `CLUSTERDOWN`, `LOADING` and `BUSY`: certainly not done. `UNKNOWN`: it may take effect,
//! now or later. `ERR`: the request is wrong. Whatever could be tried again has been, by the library, for as long as it says.

use coracle::backup::BackupError;
use coracle::{ReadError, WriteError, in_full};
use std::fmt;
use std::time::Duration;

/// The first words of what was certainly not done, and may be at another node or later.
pub(crate) const NOT_DONE: [&str; 4] = ["CLUSTERDOWN ", "LOADING ", "BUSY ", "NOTLEADER "];
/// When to ask again where the node itself had no room for as long as a request may take.
const LATER: Duration = Duration::from_secs(1);

/// Of what had no room, and is to be asked again after this time.
pub(crate) fn busy(why: impl fmt::Display, after: Duration) -> String {
    format!("BUSY {why}; this was not done; retry after {} ms", after.as_millis())
}

/// The same of a node that has just started, and still applies what its log held then.
pub(crate) fn while_loading(error: String) -> String {
    match error.strip_prefix("CLUSTERDOWN ") {
        Some(why) => format!("LOADING this node still applies what its log held at its start: {why}"),
        None => error,
    }
}

/// Of a write that had so much time.
pub(crate) fn of_write(error: &WriteError, limit: Duration) -> String {
    match error {
        WriteError::NotLeader { .. } | WriteError::NoLeader => no_leader(limit),
        WriteError::NotConfigured => not_configured(),
        WriteError::Busy(why) => busy(why, LATER),
        WriteError::Invalid(problem) => format!("ERR {problem}"),
        WriteError::Unknown(cause) => format!("UNKNOWN {cause}; this may or may not take effect"),
        other => format!("CLUSTERDOWN {other}"),
    }
}

/// Of a read that had so much time.
pub(crate) fn of_read(error: &ReadError, limit: Duration) -> String {
    match error {
        ReadError::NoLeader => no_leader(limit),
        ReadError::NotConfigured => not_configured(),
        ReadError::Busy(why) => busy(why, LATER),
        ReadError::Lagging => {
            format!("CLUSTERDOWN this node lags, and did not catch up within {limit:?}; another may not")
        }
        ReadError::Panicked(_) => format!("ERR {error}"),
        ReadError::Timeout => format!("CLUSTERDOWN no majority confirmed the read within {limit:?}"),
        other => format!("CLUSTERDOWN {other}"),
    }
}

/// Of a backup, which had so much time to be confirmed.
pub(crate) fn of_backup(error: &BackupError, limit: Duration) -> String {
    match error {
        BackupError::Gone(_) => format!("GONE {error}"),
        BackupError::Unconfirmed(ReadError::NoLeader) => no_leader(limit),
        BackupError::Unconfirmed(ReadError::NotConfigured) => not_configured(),
        BackupError::Unconfirmed(_) | BackupError::Stopped(_) => format!("CLUSTERDOWN {}", in_full(error)),
        other => format!("ERR {}", in_full(other)),
    }
}

fn no_leader(limit: Duration) -> String {
    format!("CLUSTERDOWN there was no leader within {limit:?}; this was not done")
}

fn not_configured() -> String {
    "CLUSTERDOWN this node has no cluster yet; to make one run \
     'coracle members init --to CLIENT-ADDRESS 1=PEER-ADDRESS 2=PEER-ADDRESS 3=PEER-ADDRESS'"
        .into()
}
