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
                // The store stays open until the node has heard: its readers would say that it was closed, and
                // not why.
                while inbox.recv().is_ok() {}
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStore;
    use crate::storage::{LogReader, Recovered};
    use coracle_core::LogId;
    use std::sync::Arc;

    /// Fails every write, and shows by its last reference whether it is still open.
    struct Full(MemoryStore, #[allow(dead_code)] Arc<()>);

    impl LogStore for Full {
        fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
            self.0.load(progress)
        }
        fn write(&mut self, _: &WriteBatch) -> Result<(), StoreError> {
            Err(StoreError::Refused("full".into()))
        }
        fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
            self.0.purge(upto)
        }
        fn reader(&self) -> Box<dyn LogReader> {
            self.0.reader()
        }
    }

    /// Otherwise a read that comes in between stops the node first, with words that name no cause.
    #[tokio::test]
    async fn a_store_that_failed_stays_open_until_the_node_lets_go() {
        let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
        let open = Arc::new(());
        let store = Full(MemoryStore::new(), open.clone());
        let writer = Writer::start("writer".into(), Box::new(store), reports, Broken::default()).unwrap();
        writer.write(WriteId(1), WriteBatch::default());
        assert!(matches!(told.recv().await, Some(Report::Failed(_))));
        // A thread that went on by itself would be done by now.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(Arc::strong_count(&open), 2);
        writer.finish().await;
        assert_eq!(Arc::strong_count(&open), 1);
    }
}
