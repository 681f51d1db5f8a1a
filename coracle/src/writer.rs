//! The log's writer: a thread that owns the store and makes one batch after the other durable.
//!
//! A sync blocks, so it has a thread of its own. While it syncs, further writes gather in the
//! [`WriteQueue`] and go to the disk together next.

use crate::storage::queue::WriteQueue;
use crate::storage::{LogStore, StoreError, WriteBatch};
use coracle_core::{Broken, WriteId};
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// After so long without a write, the store may make its newest one attested.
const QUIET: Duration = Duration::from_millis(20);

/// What the writer reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// This write and all before it are durable.
    Durable(WriteId),
    /// The store failed; it takes no more writes.
    Failed(StoreError),
}

/// The way to the writer's thread. Dropping it lets the thread finish what it has, and end.
pub(crate) struct Writer {
    orders: mpsc::Sender<(WriteId, WriteBatch)>,
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(
        name: String,
        store: Box<dyn LogStore>,
        reports: UnboundedSender<Report>,
        broken: Broken,
    ) -> io::Result<Writer> {
        let (orders, inbox) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name(name).spawn(move || {
            let mut store = store;
            if let Err(error) = work(&mut *store, &inbox, &reports, WriteQueue::new(broken)) {
                // Nobody listens any more if the node is gone already.
                drop(reports.send(Report::Failed(error)));
            }
            // Not before the failure is told: its readers would say that it was closed, and not why.
            drop(store);
            drop(end);
        })?;
        Ok(Writer { orders, ended })
    }

    /// Queues a write. One that comes after a failure is lost, as the node stops anyway.
    pub(crate) fn write(&self, id: WriteId, batch: WriteBatch) {
        drop(self.orders.send((id, batch)));
    }

    /// Lets the thread finish, and waits until the store is closed.
    pub(crate) async fn finish(self) {
        let Writer { orders, ended } = self;
        drop(orders);
        // The sender is dropped, not used: the error is the news.
        drop(ended.await);
    }
}

/// Works until nobody can send orders any more.
fn work(
    store: &mut dyn LogStore,
    orders: &mpsc::Receiver<(WriteId, WriteBatch)>,
    reports: &UnboundedSender<Report>,
    mut queue: WriteQueue,
) -> Result<(), StoreError> {
    let mut quiet = true;
    loop {
        let order = if quiet {
            orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            orders.recv_timeout(QUIET)
        };
        match order {
            Ok((id, batch)) => queue.push(id, batch),
            Err(RecvTimeoutError::Timeout) => {
                store.idle()?;
                quiet = true;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return store.idle(),
        }
        quiet = false;
        while !queue.is_empty() {
            for (id, batch) in orders.try_iter() {
                queue.push(id, batch);
            }
            if let Some((id, batch)) = queue.take() {
                store.write(&batch)?;
                drop(reports.send(Report::Durable(id)));
            }
        }
    }
}
