//! The worker for the files of snapshots: reads pieces for followers, and puts those that come together.
//!
//! [`Files`] is passive; in production a thread turns it, and the simulator turns the very same.

use crate::error::in_full;
use crate::replicated::SaveState;
use crate::snapshots::{FileOrder, Piece};
use crate::storage::StoreError;
use crate::storage::disk::{Disk, DiskFile, failed};
use crate::storage::snapshots::{self, Incoming, KEPT, Kept, Meta, Pace};
use bytes::Bytes;
use coracle_core::{InstallSnapshot, InstallSnapshotReply, LogId, Peer};
use std::collections::BTreeMap;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::{io, thread};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What came of an order.
#[derive(Debug)]
pub(crate) enum Filed {
    /// A piece for this follower; none if it cannot be read.
    Piece(Peer, Option<Piece>),
    /// A piece from this leader was stored, or not: the answer.
    Stored(Peer, InstallSnapshotReply),
    /// A piece was not stored, for want of room: nothing is said, and it comes again.
    NoRoom,
    /// A snapshot is here as a whole, durable, and was read back.
    Received(Kept),
    /// A snapshot of this node's machine was written and read back; or not, and why.
    Saved(Result<Kept, String>),
    /// All snapshots but the newest are gone for good.
    Cleared,
    /// The disk failed.
    Failed(StoreError),
}

/// The files that are being read and written.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    pace: Pace,
    /// What is read for each follower. A file that is open here can be read though it was removed meanwhile.
    reading: BTreeMap<Peer, Open>,
    incoming: Option<Incoming>,
    /// The newest snapshot that came as a whole.
    whole: Option<Kept>,
    /// Whether there was no room for the newest piece.
    full: bool,
}

struct Open {
    snapshot: LogId,
    file: u64,
    length: u64,
    handle: Arc<dyn DiskFile>,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, pace: Pace) -> Files {
        Files { disk, pace, reading: BTreeMap::new(), incoming: None, whole: None, full: false }
    }

    /// Carries out an order. An error is one of this node's disk, after which nothing is to be relied on.
    pub(crate) fn carry_out(&mut self, order: FileOrder) -> Result<Vec<Filed>, StoreError> {
        match order {
            FileOrder::Read { to, snapshot, offset, most } => {
                // One that cannot be read is not sent: another will be.
                let piece = self.read(to, snapshot, offset, most).inspect_err(|error| {
                    tracing::warn!(%error, "a snapshot cannot be read to be sent");
                });
                Ok(vec![Filed::Piece(to, piece.ok())])
            }
            FileOrder::Close { to } => {
                self.reading.remove(&to);
                Ok(Vec::new())
            }
            FileOrder::Take { from, install, bytes } => match self.take(from, &install, &bytes) {
                Err(StoreError::NoSpace { path, source }) => self.without_room(&path, &source),
                taken => {
                    self.full = false;
                    taken
                }
            },
            FileOrder::Forget => {
                self.incoming = None;
                snapshots::forget_incoming(&*self.disk, None)?;
                Ok(Vec::new())
            }
            FileOrder::Clear => {
                snapshots::tidy(&*self.disk, 1)?;
                self.disk.sync_dir().map_err(failed("sync", self.disk.path()))?;
                Ok(vec![Filed::Cleared])
            }
        }
    }

    /// The disk is full, not broken. What has come gives its room to the log, and comes again from its beginning.
    fn without_room(&mut self, path: &Path, source: &io::Error) -> Result<Vec<Filed>, StoreError> {
        if !mem::replace(&mut self.full, true) {
            let path = path.display();
            tracing::warn!(
                "no room for a snapshot that comes, which is tried again until there is: {path}: {source}"
            );
        }
        self.incoming = None;
        snapshots::forget_incoming(&*self.disk, None)?;
        Ok(vec![Filed::NoRoom])
    }

    fn read(&mut self, to: Peer, snapshot: LogId, offset: u64, most: usize) -> Result<Piece, StoreError> {
        if self.reading.get(&to).is_none_or(|open| open.snapshot != snapshot) {
            let (file, handle) = snapshots::open_raw(&*self.disk, snapshot)?;
            let length = handle.len().map_err(failed("read the length of", self.disk.path()))?;
            self.reading.insert(to, Open { snapshot, file, length, handle });
        }
        let Open { file, length, handle, .. } = &self.reading[&to];
        let bytes = snapshots::read_piece(&**handle, offset, most);
        let bytes = bytes.map_err(failed("read", self.disk.path()))?;
        Ok(Piece { snapshot, file: *file, length: *length, offset, bytes })
    }

    fn take(
        &mut self,
        from: Peer,
        install: &InstallSnapshot,
        bytes: &Bytes,
    ) -> Result<Vec<Filed>, StoreError> {
        let InstallSnapshot { term, snapshot, file, length, offset } = *install;
        let stored = |next| Filed::Stored(from, InstallSnapshotReply { term, snapshot, file, next });
        // Consensus could not use it when it came, perhaps: another was being installed.
        if let Some(whole) = self.whole.as_ref().filter(|whole| whole.file == file) {
            return Ok(vec![stored(length), Filed::Received(whole.clone())]);
        }
        let mut incoming = match self.incoming.take() {
            Some(incoming) if incoming.file() == file => incoming,
            _ => Incoming::open(&*self.disk, file, &self.pace)?,
        };
        incoming.take(&*self.disk, offset, bytes)?;
        let here = incoming.here();
        if here < length {
            self.incoming = Some(incoming);
            return Ok(vec![stored(here)]);
        }
        match incoming.end(&*self.disk, snapshot) {
            Ok(kept) => {
                self.whole = Some(kept.clone());
                snapshots::tidy(&*self.disk, KEPT)?;
                Ok(vec![stored(length), Filed::Received(kept)])
            }
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::warn!(%error, "a snapshot that came is not whole, and comes again");
                Ok(vec![stored(0)])
            }
            Err(error) => Err(error),
        }
    }
}

/// What a snapshot that is being written needs.
#[derive(Clone)]
pub(crate) struct SnapshotWriter {
    /// Where snapshots are.
    pub(crate) files: Arc<dyn Disk>,
    /// How they are written there.
    pub(crate) pace: Pace,
    /// Who is told.
    pub(crate) reports: UnboundedSender<Filed>,
}

impl SnapshotWriter {
    /// There is nothing to be written: the machine is not used any more.
    pub(crate) fn give_up(&self) {
        let problem = "the state machine differs from that of a majority, and is not used any more";
        drop(self.reports.send(Filed::Saved(Err(problem.to_owned()))));
    }

    /// Writes a snapshot, on a thread of its own.
    pub(crate) fn save(&self, meta: Meta, save: SaveState) {
        let SnapshotWriter { files, pace, reports } = self.clone();
        let unable = reports.clone();
        let work = move || {
            let file = getrandom::u64().map_err(|error| error.to_string());
            let write = AssertUnwindSafe(|| -> Result<Kept, String> {
                let kept =
                    snapshots::save(&*files, &meta, file?, &pace, save).map_err(|error| in_full(&error))?;
                snapshots::tidy(&*files, KEPT).map_err(|error| in_full(&error))?;
                Ok(kept)
            });
            let panicked = |_| Err("the state machine panicked while its snapshot was written".to_owned());
            // Nobody listens any more if the node is gone already.
            drop(reports.send(Filed::Saved(catch_unwind(write).unwrap_or_else(panicked))));
        };
        if let Err(error) = thread::Builder::new().name("coracle-snapshot".to_owned()).spawn(work) {
            drop(unable.send(Filed::Saved(Err(error.to_string()))));
        }
    }
}

/// The way to the worker's thread, whoever writes snapshots, and what all of them report.
pub(crate) type Worker = (mpsc::Sender<FileOrder>, SnapshotWriter, UnboundedReceiver<Filed>);

/// Starts the thread. It ends when nobody can send orders any more, or after an error, and with it
/// the writing of snapshots.
pub(crate) fn start(name: String, disk: Arc<dyn Disk>, pace: Pace) -> io::Result<Worker> {
    let (orders, inbox) = mpsc::channel();
    let (reports, reported) = unbounded_channel();
    let ended = Arc::new(AtomicBool::new(false));
    let stopped = ended.clone();
    let pace = Pace { stops: Some(Arc::new(move || stopped.load(Ordering::Relaxed))), ..pace };
    let writer = SnapshotWriter { files: disk.clone(), pace: pace.clone(), reports: reports.clone() };
    thread::Builder::new().name(name).spawn(move || {
        let mut files = Files::new(disk, pace);
        for order in inbox {
            match files.carry_out(order) {
                // Nobody listens any more if the node is gone already.
                Ok(filed) => filed.into_iter().for_each(|filed| drop(reports.send(filed))),
                Err(error) => {
                    drop(reports.send(Filed::Failed(error)));
                    break;
                }
            }
        }
        ended.store(true, Ordering::Relaxed);
    })?;
    Ok((orders, writer, reported))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::mem_disk::MemDisk;
    use crate::storage::snapshots::{open_raw, read_piece};
    use coracle_core::{Incarnation, NodeId, Term};
    use std::time::Duration;

    /// A snapshot as a leader has it, and its file.
    fn from_leader(disk: &MemDisk) -> (Kept, Bytes) {
        let meta = Meta {
            id: LogId::new(3, 9),
            digest: [7; 16],
            cluster_time: 99,
            machine_version: 2,
            compared: None,
            membership: (LogId::new(1, 1), Bytes::from_static(b"who takes part")),
            level: 0,
            sessions: Bytes::new(),
            timers: Bytes::new(),
            entries_version: 0,
            rulings: Bytes::new(),
            effects: Bytes::new(),
        };
        let kept =
            snapshots::save(disk, &meta, 77, &Pace::at_most(0), |to| to.write_all(&[5; 3000])).unwrap();
        let whole = read_piece(&*open_raw(disk, meta.id).unwrap().1, 0, 1 << 20).unwrap();
        (kept, whole)
    }

    fn take(files: &mut Files, kept: &Kept, length: u64, offset: usize, bytes: Bytes) -> Vec<Filed> {
        let from = Peer { id: NodeId(1), incarnation: Incarnation(1) };
        let (term, snapshot, file) = (Term(4), kept.meta.id, kept.file);
        let install = InstallSnapshot { term, snapshot, file, length, offset: offset as u64 };
        files.carry_out(FileOrder::Take { from, install, bytes }).unwrap()
    }

    /// ST-5: a full disk ends no node. What came makes room, and comes again when there is some.
    #[test]
    fn st_5_a_snapshot_that_finds_no_room_comes_again() {
        let (theirs, ours) = (MemDisk::new(), MemDisk::new());
        let (kept, whole) = from_leader(&theirs);
        let length = whole.len() as u64;
        let mut files = Files::new(Arc::new(ours.clone()), Pace::at_most(0));
        let mut take = |offset: usize, bytes: Bytes| take(&mut files, &kept, length, offset, bytes);
        assert!(matches!(&take(0, whole.slice(..1000))[..], [Filed::Stored(_, reply)] if reply.next == 1000));
        ours.set_full(true);
        for _ in 0..2 {
            assert!(matches!(&take(1000, whole.slice(1000..))[..], [Filed::NoRoom]));
            assert_eq!(ours.list().unwrap(), [""; 0], "it holds nothing back from the log");
        }
        ours.set_full(false);
        assert!(matches!(&take(1000, whole.slice(1000..))[..], [Filed::Stored(_, reply)] if reply.next == 0));
        assert!(matches!(&take(0, whole.clone())[..], [Filed::Stored(..), Filed::Received(_)]));
    }

    /// SN-11: consensus takes one snapshot at a time. One that came whole while another was installed is told again
    /// when the leader asks what became of it.
    #[test]
    fn sn_11_a_snapshot_that_came_whole_is_told_whenever_it_is_asked_for() {
        let (theirs, ours) = (MemDisk::new(), MemDisk::new());
        let (kept, whole) = from_leader(&theirs);
        let length = whole.len() as u64;
        let mut files = Files::new(Arc::new(ours), Pace::at_most(0));
        let mut take = |offset: usize, bytes: Bytes| take(&mut files, &kept, length, offset, bytes);
        assert!(matches!(&take(0, whole.slice(..1000))[..], [Filed::Stored(_, reply)] if reply.next == 1000));
        assert!(matches!(&take(1000, whole.slice(1000..))[..], [Filed::Stored(..), Filed::Received(_)]));
        for again in [Bytes::new(), whole.slice(1000..)] {
            let filed = take(whole.len() - again.len(), again);
            let [Filed::Stored(_, reply), Filed::Received(told)] = &filed[..] else { panic!("{filed:?}") };
            assert_eq!((reply.next, &told.meta), (length, &kept.meta));
        }
    }

    /// However slowly a snapshot is written, a node that stops does not wait for it.
    #[tokio::test]
    async fn a_snapshot_that_is_being_written_ends_with_its_node() {
        let disk = MemDisk::new();
        let pace = Pace { part: 100, pause: Duration::from_secs(1 << 20), stops: None };
        let (orders, writer, mut filed) = start("files".to_owned(), Arc::new(disk.clone()), pace).unwrap();
        let meta = Meta {
            id: LogId::new(3, 9),
            digest: [7; 16],
            cluster_time: 99,
            machine_version: 2,
            compared: None,
            membership: (LogId::new(1, 1), Bytes::new()),
            level: 0,
            sessions: Bytes::new(),
            timers: Bytes::new(),
            entries_version: 0,
            rulings: Bytes::new(),
            effects: Bytes::new(),
        };
        let (tell, begun) = mpsc::channel();
        writer.save(
            meta,
            Box::new(move |to| {
                tell.send(()).map_err(io::Error::other)?;
                to.write_all(&[5; 3000])
            }),
        );
        begun.recv().unwrap();
        drop((orders, writer));
        let Some(Filed::Saved(Err(problem))) = filed.recv().await else { panic!("it is written") };
        assert!(problem.contains("the node stops"), "{problem}");
        // Whoever writes lets go of the way to the node last of all.
        assert!(filed.recv().await.is_none() && disk.list().unwrap().is_empty());
    }
}
