//! The log's writer: owns the store and makes one batch after the other durable.
//!
//! A sync blocks, so the writer of a disk has a thread of its own. While it syncs, further writes gather in the
//! [`WriteQueue`] and go to the disk together next. Where a store has no room for a write, that write waits, and all
//! after it, until there is some: nothing is in doubt, and nothing is lost.
//!
//! A store in memory never blocks, so its orders are carried out where they are given: to wake a thread costs more
//! than they do.

use super::primitives::mpsc::{self, RecvTimeoutError};
use super::primitives::thread;
use crate::error::in_full;
use crate::storage::disk::{Disk, no_room};
use crate::storage::queue::WriteQueue;
use crate::storage::{LogStore, StoreError, WriteBatch, identity, met, moved};
use crate::work::Order;
use coracle_core::{Broken, ClusterId, MachineStop, WriteId};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// After so long without a write, the store may make its newest one attested.
const QUIET: Duration = Duration::from_millis(20);

/// A store without room is asked again after so long, and after twice that, and so on up to the most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the writer reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// This write and all before it are durable.
    Durable(WriteId),
    /// The identity names this cluster, durably.
    Named(ClusterId),
    /// One more promise is kept in the identity, durably.
    Promised,
    /// The identity says before which entry the machine has stopped, or that it goes on, durably.
    Stopped(Option<MachineStop>),
    /// The identity says that the machine was rebuilt, durably.
    Mended,
    /// The store has no room for the next write, and why. It is tried again and again.
    NoSpace(String),
    /// There is room again.
    Space,
    /// The store failed; it takes no more writes.
    Failed(StoreError),
}

/// The way to the writer. Dropping it lets a thread finish what it has, and end.
pub(crate) enum Writer {
    /// On its own thread.
    Thread { orders: mpsc::Sender<Order>, ended: oneshot::Receiver<()> },
    /// Where its orders are given.
    Here(Box<Work>),
}

impl Writer {
    /// Starts the thread. `disk` is where the identity is.
    pub(crate) fn start(
        name: String,
        store: Box<dyn LogStore>,
        disk: Option<Arc<dyn Disk>>,
        reports: UnboundedSender<Report>,
        broken: Broken,
    ) -> io::Result<Writer> {
        let (orders, inbox) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name(name).spawn(move || {
            let mut work = Work::new(store, disk, reports, broken);
            if let Err(error) = work.run(&inbox) {
                work.report(Report::Failed(error));
                // The store stays open until the node has heard: its readers would say that it was closed, and
                // not why.
                while inbox.recv().is_ok() {}
            }
            drop(work);
            drop(end);
        })?;
        Ok(Writer::Thread { orders, ended })
    }

    /// Works where orders are given, on a store that never blocks and always has room: one in memory.
    pub(crate) fn here(store: Box<dyn LogStore>, reports: UnboundedSender<Report>, broken: Broken) -> Writer {
        Writer::Here(Box::new(Work::new(store, None, reports, broken)))
    }

    /// Queues an order. One that comes after a failure is lost, as the node stops anyway.
    pub(crate) fn order(&mut self, order: Order) {
        match self {
            Writer::Thread { orders, .. } => drop(orders.send(order)),
            Writer::Here(work) => work.carry_out(order),
        }
    }

    /// Lets a thread finish, and waits until the store is closed.
    pub(crate) async fn finish(self) {
        if let Writer::Thread { orders, ended } = self {
            drop(orders);
            // The sender is dropped, not used: the error is the news.
            drop(ended.await);
        }
    }
}

/// What a writer works with.
pub(crate) struct Work {
    store: Box<dyn LogStore>,
    /// Where the identity is; none for a store in memory.
    disk: Option<Arc<dyn Disk>>,
    reports: UnboundedSender<Report>,
    queue: WriteQueue,
    /// The store failed, where orders are carried out as they are given.
    failed: bool,
}

impl Work {
    fn new(
        store: Box<dyn LogStore>,
        disk: Option<Arc<dyn Disk>>,
        reports: UnboundedSender<Report>,
        broken: Broken,
    ) -> Work {
        Work { store, disk, reports, queue: WriteQueue::new(broken), failed: false }
    }

    /// Carries out an order at once, and says so.
    fn carry_out(&mut self, order: Order) {
        if self.failed {
            return;
        }
        let done = self.take(order).and_then(|()| {
            while let Some((id, batch)) = self.queue.take() {
                self.store.write(&batch)?;
                self.durable(id);
            }
            Ok(())
        });
        if let Err(error) = done {
            self.failed = true;
            self.report(Report::Failed(error));
        }
    }

    /// Works until nobody can send orders any more.
    fn run(&mut self, orders: &mpsc::Receiver<Order>) -> Result<(), StoreError> {
        let mut quiet = true;
        loop {
            let order = if quiet {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_timeout(QUIET)
            };
            match order {
                Ok(order) => self.take(order)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.store.idle()?;
                    quiet = true;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return self.store.idle(),
            }
            quiet = false;
            while !self.queue.is_empty() {
                while let Ok(order) = orders.try_recv() {
                    self.take(order)?;
                }
                let Some((id, batch)) = self.queue.take() else { break };
                if !self.write(&batch, orders)? {
                    return Ok(());
                }
                self.durable(id);
            }
        }
    }

    /// Up to this write all is durable, if it is the last part of one.
    fn durable(&self, id: Option<WriteId>) {
        if let Some(id) = id {
            self.report(Report::Durable(id));
        }
    }

    fn take(&mut self, order: Order) -> Result<(), StoreError> {
        match order {
            Order::Write(id, batch) => self.queue.push(id, batch),
            Order::Name(cluster) => {
                if let Some(disk) = self.disk.as_deref() {
                    identity::set_cluster(disk, cluster)?;
                }
                self.report(Report::Named(cluster));
            }
            Order::Met(all) => {
                match self.disk.as_deref().map_or(Ok(()), |disk| met::save(disk, &all)) {
                    // Nothing that this node promised depends on it: where there is no room, the old file stays.
                    Err(StoreError::Io { source, .. }) if no_room(&source) => {
                        tracing::warn!(
                            "no room on the disk to note which boots of the other members were met: after a restart a copy of their directories may go unnoticed"
                        );
                    }
                    result => result?,
                }
            }
            Order::Places(all) => match self.disk.as_deref().map_or(Ok(()), |disk| moved::save(disk, &all)) {
                // The membership's addresses are tried all the same.
                Err(StoreError::Io { source, .. }) if no_room(&source) => {
                    tracing::warn!("no room on the disk to note where members have moved to");
                }
                result => result?,
            },
            Order::Purge(upto) => match self.store.purge(upto) {
                // Nothing waits for it, and the next purge goes further.
                Err(error @ StoreError::NoSpace { .. }) => {
                    tracing::warn!(%error, "no room to purge the log");
                }
                purged => purged?,
            },
            Order::Fence(index) => {
                if let Some(disk) = self.disk.as_deref() {
                    identity::set_fence(disk, index)?;
                }
            }
            Order::Mended => {
                self.disk.as_deref().map_or(Ok(()), identity::lift_fence)?;
                self.report(Report::Mended);
            }
            Order::Stop(stop) => {
                if let Some(disk) = self.disk.as_deref() {
                    identity::set_stop(disk, stop.clone())?;
                }
                self.report(Report::Stopped(stop.map(|stop| stop.stop)));
            }
            Order::Rules => {
                if let Some(disk) = self.disk.as_deref() {
                    identity::set_rules(disk)?;
                }
            }
            Order::Promise(promise) => {
                if let Some(disk) = self.disk.as_deref() {
                    identity::set_promise(disk, promise.map(|promise| promise.to_kept()))?;
                }
                self.report(Report::Promised);
            }
        }
        Ok(())
    }

    /// Writes a batch, as soon as there is room for it. False if nobody can send orders any more before there is:
    /// what was held then was never acknowledged.
    fn write(&mut self, batch: &WriteBatch, orders: &mpsc::Receiver<Order>) -> Result<bool, StoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let first = pause == FIRST_PAUSE;
            match self.store.write(batch) {
                Ok(()) if first => return Ok(true),
                Ok(()) => {
                    self.report(Report::Space);
                    return Ok(true);
                }
                Err(error @ StoreError::NoSpace { .. }) if first => {
                    self.report(Report::NoSpace(in_full(&error)));
                }
                Err(StoreError::NoSpace { .. }) => {}
                Err(error) => return Err(error),
            }
            let again = Instant::now() + pause;
            loop {
                match orders.recv_timeout(again.saturating_duration_since(Instant::now())) {
                    Ok(order) => self.take(order)?,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Ok(false),
                }
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Nobody listens any more if the node is gone already.
    fn report(&self, report: Report) {
        drop(self.reports.send(report));
    }
}
