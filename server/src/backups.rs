//! Backups over a client's connection: `CORACLE BACKUP …`, piece by piece.
//!
//! ```text
//! CORACLE BACKUP                      begins: the backup's place and length as JSON, or nil while it is being written
//! CORACLE BACKUP SAME index term file begins with one that was given out before, to go on with it
//! CORACLE BACKUP READ offset          the next bytes of it, at most 256 KiB; none at the end
//! ```
//!
//! A connection has one backup at a time, and gives it back when it ends. `coracle backup` is such a client
//! ([`rescue`](crate::rescue)).

use crate::budget::{Budget, Share};
use crate::commands::{unknown_subcommand, wrong_arity};
use crate::failures;
use crate::kv::Machine;
use crate::resp::{Command, Replies};
use coracle::Node;
use coracle::backup::{Backup, BackupInfo};
use coracle::raft::LogId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

/// Backups that are given out at once at most. Each keeps a snapshot on the disk, however old, and an open file.
pub const MOST: usize = 4;

/// How many bytes a reply carries at most.
const PIECE: usize = 256 << 10;

/// How long a reply waits for a backup that is being written. Less than a stopping server waits for its connections.
const WRITING: Duration = Duration::from_secs(1);

/// Where a backup is, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The index of its newest entry.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The bits that name its file.
    pub file: u64,
    /// The length of the file.
    pub bytes: u64,
}

impl Place {
    fn of(info: &BackupInfo) -> Place {
        let BackupInfo { last, file, bytes, .. } = *info;
        Place { index: last.index.0, term: last.term.0, file, bytes }
    }
}

/// The backup of one connection.
pub struct Backups {
    backup: Option<Arc<Backup>>,
    /// One that is being written. It is given up with the connection.
    coming: JoinSet<Result<Backup, String>>,
    place: Share,
}

impl Backups {
    /// None yet. `budget` is what all connections may have together.
    pub fn new(budget: &Arc<Budget>) -> Backups {
        Backups { backup: None, coming: JoinSet::new(), place: budget.share() }
    }

    /// Answers `CORACLE BACKUP …`. The limit is that of a request.
    pub(crate) async fn answer<M: Machine>(
        &mut self,
        node: &Node<M>,
        limit: Duration,
        command: &Command,
        replies: &mut Replies,
    ) {
        let numbers: Vec<Option<u64>> = (3..command.len()).map(|i| number(command.argument(i))).collect();
        let answered = if command.len() == 2 {
            self.begin(node, limit).await
        } else if command.is(2, "same") {
            match numbers[..] {
                [Some(index), Some(term), Some(file)] => self.same(node, LogId::new(term, index), file).await,
                _ => Err(wrong_arity("coracle|backup|same")),
            }
        } else if command.is(2, "read") {
            match numbers[..] {
                [Some(offset)] => self.read(offset).await.map(Some),
                _ => Err(wrong_arity("coracle|backup|read")),
            }
        } else {
            Err(unknown_subcommand(command))
        };
        match answered {
            Ok(Some(bytes)) => replies.bulk(&bytes),
            Ok(None) => replies.null(),
            Err(error) => replies.error(&error),
        }
    }

    /// Has the newest state written, unless that is under way already, and waits a moment for it.
    async fn begin<M: Machine>(
        &mut self,
        node: &Node<M>,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, String> {
        if self.coming.is_empty() {
            self.take_place()?;
            let node = node.clone();
            self.coming.spawn(async move {
                node.backup().await.map_err(|error| failures::of_backup(&error, limit))
            });
        }
        let Ok(Some(written)) = timeout(WRITING, self.coming.join_next()).await else { return Ok(None) };
        let written = written.unwrap_or_else(|error| Err(format!("ERR the backup failed: {error}")));
        self.open(written).map(Some)
    }

    async fn same<M: Machine>(
        &mut self,
        node: &Node<M>,
        last: LogId,
        file: u64,
    ) -> Result<Option<Vec<u8>>, String> {
        self.take_place()?;
        let given = node.same_backup(last, file).await;
        self.open(given.map_err(|error| failures::of_backup(&error, node.config().request_timeout))).map(Some)
    }

    /// One more backup is given out, in the place of whatever this connection had.
    fn take_place(&mut self) -> Result<(), String> {
        self.backup = None;
        self.coming.abort_all();
        self.coming = JoinSet::new();
        match self.place.set(1) {
            true => Ok(()),
            false => Err(format!("BUSY {MOST} backups are being made already; try again later")),
        }
    }

    fn open(&mut self, given: Result<Backup, String>) -> Result<Vec<u8>, String> {
        let given = given.inspect_err(|_| self.place.clear())?;
        let place = Place::of(given.info());
        self.backup = Some(Arc::new(given));
        serde_json::to_vec(&place).map_err(|error| format!("ERR {error}"))
    }

    /// The next piece. Files are read on another thread.
    async fn read(&self, offset: u64) -> Result<Vec<u8>, String> {
        let backup = self.backup.clone().ok_or("ERR begin a backup first: CORACLE BACKUP")?;
        let read = spawn_blocking(move || backup.read_at(offset, PIECE)).await;
        let read = read.map_err(|error| format!("ERR {error}"))?;
        read.map(Vec::from).map_err(|error| format!("ERR the backup cannot be read: {error}"))
    }
}

/// A number of 64 bits, of which the file's name is one.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
