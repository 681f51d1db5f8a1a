//! A running node as its handles share it, whatever its machine is.

use crate::backup::{self, Backup, BackupError};
use crate::config::Config;
use crate::entry::Entry;
use crate::error::{Busy, EntryLookupError, Leader, ReadError, SnapshotError, StopReason, WriteError};
use crate::freshness::Confirmed;
use crate::inbox::{self, Refused};
use crate::lanes::Lanes;
use crate::outstanding::Shared;
use crate::published::Published;
use crate::requests::{Reader, Request};
use crate::rulings::{Ruled, Ruling, RulingError};
use crate::status::{SnapshotStatus, Status};
use crate::timings::Timings;
use crate::transport::tcp::Tcp;
use crate::wire::Directory;
use bytes::Bytes;
use coracle_core::{Index, LogId, Peer, Term};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// How often a snapshot is asked for that is gone whenever it is opened.
const OPENINGS: u32 = 5;

/// A future that is compiled with this crate. One of an `async fn` would be compiled where it is polled, with all that
/// it runs, and so with every program that has a machine.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What all handles share: when the last one is dropped, the node stops.
pub(crate) struct Handles(pub(crate) watch::Sender<bool>);

impl Drop for Handles {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// A running node, whatever its machine is. It keeps nothing running.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) me: Peer,
    pub(crate) peer_addr: SocketAddr,
    pub(crate) requests: inbox::Sender<Request>,
    /// Which lanes of the node's session are in use.
    pub(crate) lanes: Mutex<Lanes>,
    pub(crate) transport: Arc<Tcp>,
    /// The newest version of the machine of which all members are.
    pub(crate) machine_version: Arc<AtomicU16>,
    /// How long the parts of the node take.
    pub(crate) timings: Arc<Timings>,
    /// What is known of how fresh the machine is.
    pub(crate) confirmed: Confirmed,
    /// What the machine publishes.
    pub(crate) published: Arc<Published>,
    /// The effects that are pending.
    pub(crate) outstanding: Arc<Shared>,
    pub(crate) leader: watch::Receiver<Option<Leader>>,
    /// How often it was told who leads.
    pub(crate) times_led: Arc<AtomicU64>,
    /// The term in which this node is in office.
    pub(crate) office: watch::Receiver<Option<Term>>,
    /// Who leads, for clients.
    pub(crate) directory: watch::Receiver<(LogId, Arc<Directory>)>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) ending: watch::Receiver<Option<StopReason>>,
    pub(crate) stopped: watch::Receiver<Option<StopReason>>,
}

impl Inner {
    pub(crate) fn check_length(&self, command: &Bytes) -> Result<(), WriteError> {
        let max = self.config.max_command_bytes;
        if command.len() > max {
            let problem = format!("it takes {} bytes, and max_command_bytes is {max}", command.len());
            return Err(WriteError::Invalid(problem));
        }
        Ok(())
    }

    /// Whether commands that need this version of the machine may be written.
    pub(crate) fn check_version(&self, needs: u16) -> Result<(), WriteError> {
        let all_have = self.machine_version.load(Ordering::Relaxed);
        if needs > all_have { Err(WriteError::NotYet { needs, all_have }) } else { Ok(()) }
    }

    pub(crate) fn write_refused(&self, refused: Refused) -> WriteError {
        match refused {
            Refused::Full => WriteError::Busy(Busy::Requests),
            Refused::Closed => WriteError::Stopped(self.stop_reason()),
        }
    }

    pub(crate) fn read_refused(&self, refused: Refused) -> ReadError {
        match refused {
            Refused::Full => ReadError::Busy(Busy::Requests),
            Refused::Closed => ReadError::Stopped(self.stop_reason()),
        }
    }

    pub(crate) fn status(&self) -> Boxed<'_, Result<Status, StopReason>> {
        Box::pin(self.ask_status())
    }

    async fn ask_status(&self) -> Result<Status, StopReason> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send_always(Request::Status { answer }).await.is_err() {
            return Err(self.stop_reason());
        }
        answered.await.map_err(|_| self.stop_reason())
    }

    pub(crate) fn snapshot(&self) -> Boxed<'_, Result<SnapshotStatus, SnapshotError>> {
        Box::pin(self.ask_snapshot())
    }

    async fn ask_snapshot(&self) -> Result<SnapshotStatus, SnapshotError> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send_always(Request::Snapshot { answer }).await.is_err() {
            return Err(SnapshotError::Stopped(self.stop_reason()));
        }
        answered.await.unwrap_or_else(|_| Err(SnapshotError::Stopped(self.stop_reason())))
    }

    pub(crate) fn get_entry(&self, index: Index) -> Boxed<'_, Result<Entry, EntryLookupError>> {
        Box::pin(self.ask_entry(index))
    }

    async fn ask_entry(&self, index: Index) -> Result<Entry, EntryLookupError> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send_always(Request::Entry { index, answer }).await.is_err() {
            return Err(EntryLookupError::Stopped(self.stop_reason()));
        }
        answered.await.unwrap_or_else(|_| Err(EntryLookupError::Stopped(self.stop_reason())))
    }

    pub(crate) fn rule(&self, ruling: Ruling) -> Boxed<'_, Ruled> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            if self.requests.send_always(Request::Rule { ruling, answer }).await.is_err() {
                return Err(RulingError::Stopped(self.stop_reason()));
            }
            answered.await.unwrap_or_else(|_| Err(RulingError::Stopped(self.stop_reason())))
        })
    }

    pub(crate) fn backup(&self, limit: Duration) -> Boxed<'_, Result<Backup, BackupError>> {
        Box::pin(self.ask_backup(limit))
    }

    async fn ask_backup(&self, limit: Duration) -> Result<Backup, BackupError> {
        let (reader, told) = Reader::point();
        let sent = self.requests.send(Request::Read { reader, from: None }).await;
        sent.map_err(|refused| BackupError::Unconfirmed(self.read_refused(refused)))?;
        let reaches = match timeout(limit, told).await {
            Ok(Ok(told)) => told.map_err(BackupError::Unconfirmed)?,
            Ok(Err(_)) => return Err(BackupError::Stopped(self.stop_reason())),
            Err(_) => return Err(BackupError::Unconfirmed(ReadError::Timeout)),
        };
        let mut tries = 1;
        loop {
            match self.given_out(|answer| Request::Backup { reaches, answer }).await {
                // Two newer ones have come before it was opened.
                Err(BackupError::Gone(_)) if tries < OPENINGS => tries += 1,
                given => return given,
            }
        }
    }

    /// The snapshot that this asks for.
    async fn given_out(&self, ask: impl FnOnce(backup::Answer) -> Request) -> Result<Backup, BackupError> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send_always(ask(answer)).await.is_err() {
            return Err(BackupError::Stopped(self.stop_reason()));
        }
        answered.await.unwrap_or_else(|_| Err(BackupError::Stopped(self.stop_reason())))
    }

    pub(crate) fn same_backup(&self, snapshot: LogId, file: u64) -> Boxed<'_, Result<Backup, BackupError>> {
        Box::pin(self.given_out(move |answer| Request::SameBackup { snapshot, file, answer }))
    }

    pub(crate) async fn stopping(&self) -> StopReason {
        self.told(self.ending.clone()).await
    }

    pub(crate) async fn stopped(&self) -> StopReason {
        self.told(self.stopped.clone()).await
    }

    async fn told(&self, mut reason: watch::Receiver<Option<StopReason>>) -> StopReason {
        match reason.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Requested),
            Err(_) => self.stop_reason(),
        }
    }

    pub(crate) fn stop_reason(&self) -> StopReason {
        let told = self.ending.borrow().clone();
        told.or_else(|| self.stopped.borrow().clone()).unwrap_or(StopReason::Requested)
    }
}
