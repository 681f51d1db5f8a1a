//! The world of the state machine: turns the [`Applier`] on a thread of its own, or as a task of the runtime
//! that the node was started on.
//!
//! Consensus never waits for it. Work comes once for each turn of consensus; answers go straight to
//! whoever waits. A turn takes a tick at most, so that reads and a stop get theirs.

use crate::applier::{Applier, Done, Outcome, Progress};
use crate::clock;
use crate::config::{MachineThread, TICK};
use crate::error::{StopReason, WriteError, in_full};
use crate::files::SnapshotWriter;
use crate::inner::Boxed;
use crate::outstanding::Shared;
use crate::published::Published;
use crate::put_off::PutOff;
use crate::replicated::Replicated;
use crate::requests::{Reader, Writer};
use crate::state_machine::StateMachine;
use crate::storage::disk::Disk;
use crate::timings::Timings;
use crate::transport::tcp::Tcp;
use crate::transport::{Forward, PeerMessage};
use crate::work::Work;
use bytes::Bytes;
use coracle_core::{LogId, Peer, Term};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::timeout;

/// How often callers who gave up are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// For how long answers are gathered while there is more to apply: one wake-up of whoever waits for several carries them all. A
/// command that takes long holds up those that were applied so shortly before it.
const GATHERED: Duration = Duration::from_micros(200);

/// How long a stop waits for a running `apply` or `query`.
const PATIENCE: Duration = Duration::from_secs(1);

/// What consensus hands over in one turn.
pub(crate) type Batch = Vec<Work<Writer, Reader>>;

/// What the machine reports to consensus.
#[derive(Debug)]
pub(crate) enum Report {
    /// This forwarded command can be applied.
    Checked(Peer, Forward),
    /// What came of something that the courier sent.
    Carried(u64, Result<Bytes, WriteError>),
    /// It has stopped before this entry, which it cannot apply, and why.
    Stopped(LogId, String),
    /// It has applied this entry, which the cluster skips.
    Passed(LogId),
    /// It applies no more, for this reason.
    Ended(StopReason),
}

/// The way to the machine.
pub(crate) struct Machine {
    inbox: mpsc::UnboundedSender<Batch>,
    progress: Arc<Mutex<Progress>>,
    ended: oneshot::Receiver<()>,
    put_off: PutOff<Writer, Reader>,
    published: Arc<Published>,
}

/// What the machine needs besides itself.
pub(crate) struct Surroundings {
    /// Where it runs.
    pub(crate) on: MachineThread,
    /// The runtime that the node was started on.
    pub(crate) runtime: Handle,
    /// The name of its thread.
    pub(crate) name: String,
    pub(crate) transport: Arc<Tcp>,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    pub(crate) snapshots: SnapshotWriter,
    /// Where it publishes.
    pub(crate) published: Arc<Published>,
    /// Where it tells which effects are pending.
    pub(crate) outstanding: Arc<Shared>,
    /// Why the node stops, once it does.
    pub(crate) ending: watch::Receiver<Option<StopReason>>,
    /// Keeps the directory locked until the machine has ended.
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) timings: Arc<Timings>,
    /// Bytes of entries that it may have before it.
    pub(crate) unapplied: u64,
}

impl Machine {
    /// Starts it. From here on only its own thread knows of what type it is.
    pub(crate) fn start<S: StateMachine>(
        replicated: Replicated<S>,
        around: Surroundings,
    ) -> io::Result<Machine> {
        let (inbox, work) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let mut applier = Applier::new(replicated, around.snapshots.files.clone());
        around.published.take(applier.news());
        let progress = Arc::new(Mutex::new(applier.progress()));
        let Surroundings { on, runtime, name, transport, reports, snapshots, published, .. } = around;
        let Surroundings { outstanding, ending, disk, timings, unapplied, .. } = around;
        let turning = Turning {
            applier,
            work,
            progress: progress.clone(),
            transport,
            reports: Guard(reports),
            snapshots,
            published,
            outstanding,
            stands: Term(0),
            ending,
            timings,
            busy: Duration::ZERO,
            swept: Instant::now(),
        };
        let (published, put_off) = (turning.published.clone(), PutOff::new(unapplied));
        let whole = Box::pin(async move {
            turning.run().await;
            drop((disk, end));
        });
        spawn(whole, on, &runtime, name)?;
        Ok(Machine { inbox, progress, ended, put_off, published })
    }

    /// Hands a turn's work over. Where nobody waits for it, it may be [put off](crate::put_off) until it is `due`. After its end it is
    /// lost, as the node stops anyway.
    pub(crate) fn hand_over(&mut self, batch: Batch, due: bool) {
        let work = self.put_off.and(batch, due || self.published.is_watched());
        if !work.is_empty() {
            drop(self.inbox.send(work));
        }
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it end: whoever waits in it is answered. True if it did; false if it is left at what it runs.
    pub(crate) async fn finish(self) -> bool {
        let Machine { inbox, ended, .. } = self;
        drop(inbox);
        timeout(PATIENCE, ended).await.is_ok()
    }
}

/// Runs the machine's loop where it is to run.
fn spawn(whole: Boxed<'static, ()>, on: MachineThread, runtime: &Handle, name: String) -> io::Result<()> {
    match on {
        MachineThread::Runtime => drop(runtime.spawn(whole)),
        MachineThread::Own => {
            let alone = tokio::runtime::Builder::new_current_thread().build()?;
            thread::Builder::new().name(name).spawn(move || alone.block_on(whole))?;
        }
    }
    Ok(())
}

/// Tells consensus that the machine is gone, however that came about.
struct Guard(mpsc::UnboundedSender<Report>);

impl Drop for Guard {
    fn drop(&mut self) {
        let reason = if thread::panicking() {
            StopReason::Invariant("the machine's loop panicked".to_owned())
        } else {
            // The runtime that it was a task of was shut down.
            StopReason::Requested
        };
        drop(self.0.send(Report::Ended(reason)));
    }
}

struct Turning<S: StateMachine> {
    applier: Applier<S, Writer, Reader>,
    work: mpsc::UnboundedReceiver<Batch>,
    progress: Arc<Mutex<Progress>>,
    transport: Arc<Tcp>,
    reports: Guard,
    snapshots: SnapshotWriter,
    published: Arc<Published>,
    outstanding: Arc<Shared>,
    /// The term that was told to those who carry out effects.
    stands: Term,
    ending: watch::Receiver<Option<StopReason>>,
    timings: Arc<Timings>,
    /// For how long its turns took the processor.
    busy: Duration,
    swept: Instant,
}

impl<S: StateMachine> Turning<S> {
    async fn run(mut self) {
        let reason = loop {
            if self.applier.is_idle() {
                match self.work.recv().await {
                    Some(batch) => self.take(batch),
                    None => break self.end(),
                }
            }
            let closed = loop {
                match self.work.try_recv() {
                    Ok(batch) => self.take(batch),
                    Err(error) => break error == mpsc::error::TryRecvError::Disconnected,
                }
            };
            self.deliver();
            if closed {
                break self.end();
            }
            if let Err(reason) = self.turn() {
                drop(self.reports.0.send(Report::Ended(reason.clone())));
                break reason;
            }
            if !self.applier.is_idle() {
                yield_now().await;
            }
        };
        self.applier.stop(&reason);
        self.deliver();
        // What still comes is answered too, until consensus has heard.
        while let Some(batch) = self.work.recv().await {
            self.take(batch);
            self.applier.stop(&reason);
            self.deliver();
        }
    }

    fn take(&mut self, batch: Batch) {
        for work in batch {
            if let Work::Read(upto, reader) = &work {
                reader.confirm(*upto);
            }
            match work {
                Work::Fence => self.published.fence(),
                Work::Mend(_) => self.published.mend(),
                _ => {}
            }
            match work.with_queries(Reader::query::<S>) {
                Some(work) => self.applier.take(work),
                // Whoever only wants to know up to where has been told.
                None => self.applier.pass(),
            }
        }
    }

    /// Applies for a tick at most. That is a batch for a machine that keeps its own disk.
    fn turn(&mut self) -> Result<(), StopReason> {
        let (began, before) = (Instant::now(), self.applier.progress().applied.index.0);
        let (busy, mut restored) = (clock::of_this_thread(), false);
        let mut delivered = Duration::ZERO;
        while let Some(applied) = self.applier.next() {
            match applied? {
                Done::Stopped(at, why) => {
                    self.deliver();
                    drop(self.reports.0.send(Report::Stopped(at, in_full(&why))));
                }
                Done::Passed(at) => {
                    self.deliver();
                    self.published.fence();
                    drop(self.reports.0.send(Report::Passed(at)));
                }
                Done::Restored(_) => restored = true,
                Done::Applied(..) | Done::SnapshotTaken => {}
            }
            let passed = began.elapsed();
            if passed >= TICK {
                break;
            }
            if passed - delivered >= GATHERED {
                self.deliver();
                delivered = passed;
            }
        }
        self.deliver();
        self.published.take(self.applier.news());
        self.applier.persist()?;
        let applied = self.applier.progress().applied.index.0.saturating_sub(before);
        if applied > 0 {
            // One that keeps its own disk does nothing again at a start, and nobody does again what came in a snapshot.
            if !S::OWN_DISK && !restored {
                self.busy += clock::of_this_thread().saturating_sub(busy);
            }
            self.timings.apply.took(began.elapsed());
            self.timings.apply_entries.observe(applied);
        }
        if self.swept.elapsed() >= SWEEP {
            self.swept = Instant::now();
            self.applier.sweep();
        }
        Ok(())
    }

    fn deliver(&mut self) {
        // Before the progress, on which it hangs whether the node is in office.
        let progress = Progress { busy: self.busy, ..self.applier.progress() };
        let changes = self.applier.changed_effects();
        if !changes.is_empty() || progress.applied.term != self.stands {
            self.stands = progress.applied.term;
            self.outstanding.take(changes, self.stands);
        }
        // Before the answers: whoever has one finds a status that is not older.
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        for outcome in self.applier.outcomes() {
            match outcome {
                Outcome::Reply(writer, reply) => writer.reply::<S>(reply),
                Outcome::Encoded(writer, bytes) => writer.answer(Ok(bytes)),
                Outcome::Failed(writer, error) => writer.answer(Err(error)),
                Outcome::Answer(reader, answer) => reader.answer::<S>(answer),
                Outcome::Send(to, reply) => {
                    // If the connection is gone, the other side has answered its caller already.
                    if !self.transport.send(to, PeerMessage::ForwardReply(reply)) {
                        tracing::debug!(peer = %to.id, "the answer to a forwarded write was dropped: there is no connection");
                    }
                }
                Outcome::Snapshot(meta, save) => self.snapshots.save(*meta, save),
                Outcome::NoSnapshot => self.snapshots.give_up(),
                Outcome::Carried(flight, outcome) => {
                    drop(self.reports.0.send(Report::Carried(flight, outcome)));
                }
                Outcome::Checked(from, forward) => {
                    drop(self.reports.0.send(Report::Checked(from, forward)));
                }
            }
        }
    }

    /// Why the node stops.
    fn end(&self) -> StopReason {
        self.ending.borrow().clone().unwrap_or(StopReason::Requested)
    }
}
