//! What clients are told of what failed.
//!
//! The first word says what they may conclude. `CLUSTERDOWN` and `BUSY`: certainly not done. `UNKNOWN`: it may take effect,
//! now or later. `ERR`: the request is wrong. Whatever could be tried again has been, by the library, for as long as it says.

use coracle::backup::BackupError;
use coracle::{ReadError, WriteError, in_full};
use std::time::Duration;

/// Of a write that had so much time.
pub(crate) fn of_write(error: &WriteError, limit: Duration) -> String {
    match error {
        WriteError::NotLeader { .. } | WriteError::NoLeader => no_leader(limit),
        WriteError::NotConfigured => not_configured(),
        WriteError::Busy(why) => format!("BUSY {why}; this was not done"),
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
        ReadError::Busy(why) => format!("BUSY {why}; this was not done"),
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
