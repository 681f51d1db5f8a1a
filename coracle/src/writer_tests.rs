//! The log's [writer](super::writer), one event at a time.

use super::writer::{Report, Writer};
use crate::entry::{Entry, Kind, Stamp};
use crate::storage::memory::MemoryStore;
use crate::storage::{Change, LogReader, LogStore, ReadLogError, Recovered, StoreError, WriteBatch};
use crate::work::Order;
use bytes::Bytes;
use coracle_core::{Broken, Index, LogId, WriteId};
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes whose end is told.
struct Lost(Bytes, Option<oneshot::Sender<()>>);

impl AsRef<[u8]> for Lost {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        if let Some(tell) = self.1.take() {
            let _gone = tell.send(());
        }
    }
}

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
    let mut writer =
        Writer::start("writer".into(), Box::new(store), None, reports, Broken::default()).unwrap();
    writer.order(Order::Write(WriteId(1), WriteBatch::default()));
    assert!(matches!(told.recv().await, Some(Report::Failed(_))));
    // Whoever takes the next order, or drops it unseen, has not closed the store before.
    let (drops, dropped) = oneshot::channel();
    let entry = Entry::new(LogId::new(1, 1), Kind::Noop, Stamp::default(), &[]);
    let entry = Entry::decode(Bytes::from_owner(Lost(entry.bytes().clone(), Some(drops)))).unwrap();
    let batch = WriteBatch { hard_state: None, changes: vec![Change::Append(vec![entry])] };
    writer.order(Order::Write(WriteId(2), batch));
    dropped.await.unwrap();
    assert_eq!(Arc::strong_count(&open), 2);
    writer.finish().await;
    assert_eq!(Arc::strong_count(&open), 1);
}

/// What is in memory needs no thread: an order is carried out when it was given, and a failure is the last report.
#[test]
fn a_store_in_memory_is_written_where_orders_are_given() {
    let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
    let entry = |index| Entry::new(LogId::new(1, index), Kind::Noop, Stamp::default(), &[]);
    let append = |index| WriteBatch { hard_state: None, changes: vec![Change::Append(vec![entry(index)])] };
    let mut writer = Writer::here(Box::new(MemoryStore::new()), reports, Broken::default());
    for index in [1, 2] {
        writer.order(Order::Write(WriteId(index), append(index)));
        assert!(matches!(told.try_recv(), Ok(Report::Durable(WriteId(id))) if id == index));
    }
    // There is a gap before it.
    writer.order(Order::Write(WriteId(3), append(4)));
    assert!(matches!(told.try_recv(), Ok(Report::Failed(StoreError::Refused(_)))));
    writer.order(Order::Write(WriteId(4), append(3)));
    assert!(told.try_recv().is_err(), "nothing is written after a failure");
}

/// Has no room the first so many times.
struct Crowded(MemoryStore, u32);

impl LogStore for Crowded {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        self.0.load(progress)
    }
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        if self.1 > 0 {
            self.1 -= 1;
            return Err(StoreError::NoSpace {
                path: "next".into(),
                source: io::ErrorKind::StorageFull.into(),
            });
        }
        self.0.write(batch)
    }
    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        self.0.purge(upto)
    }
    fn reader(&self) -> Box<dyn LogReader> {
        self.0.reader()
    }
}

/// D5.2.9.
#[tokio::test]
async fn a_store_without_room_is_told_once_and_what_was_held_is_written_when_there_is() {
    let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
    let store = Crowded(MemoryStore::new(), 3);
    let mut writer =
        Writer::start("writer".into(), Box::new(store), None, reports, Broken::default()).unwrap();
    writer.order(Order::Write(WriteId(1), WriteBatch::default()));
    let Some(Report::NoSpace(reason)) = told.recv().await else { panic!() };
    assert!(reason.contains("make room"), "{reason}");
    writer.order(Order::Write(WriteId(2), WriteBatch::default()));
    assert!(matches!(told.recv().await, Some(Report::Space)));
    assert!(matches!(told.recv().await, Some(Report::Durable(WriteId(1)))));
    assert!(matches!(told.recv().await, Some(Report::Durable(WriteId(2)))));
    writer.finish().await;
}

#[tokio::test]
async fn a_node_stops_while_its_store_has_no_room() {
    let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
    let store = Crowded(MemoryStore::new(), u32::MAX);
    let mut writer =
        Writer::start("writer".into(), Box::new(store), None, reports, Broken::default()).unwrap();
    writer.order(Order::Write(WriteId(1), WriteBatch::default()));
    assert!(matches!(told.recv().await, Some(Report::NoSpace(_))));
    writer.finish().await;
    assert!(told.recv().await.is_none(), "nothing was acknowledged");
}

/// Has no room until something of it was purged.
struct Cramped(MemoryStore, bool);

impl LogStore for Cramped {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        self.0.load(progress)
    }
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        if self.1 {
            return self.0.write(batch);
        }
        Err(StoreError::NoSpace { path: "next".into(), source: io::ErrorKind::StorageFull.into() })
    }
    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        self.1 = true;
        self.0.purge(upto)
    }
    fn reader(&self) -> Box<dyn LogReader> {
        self.0.reader()
    }
}

/// The writer purges when it is told to, also while a write waits: for the room that the purge makes, perhaps.
#[tokio::test]
async fn a_purge_is_carried_out_while_a_write_waits_for_room() {
    let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
    let entry = |index| Entry::new(LogId::new(1, index), Kind::Noop, Stamp::default(), &[]);
    let batch = |index| WriteBatch { hard_state: None, changes: vec![Change::Append(vec![entry(index)])] };
    let mut store = MemoryStore::new();
    store.load(&mut |_| {}).unwrap();
    (1..=2).for_each(|index| store.write(&batch(index)).unwrap());
    let reader = store.reader();
    let store = Box::new(Cramped(store, false));
    let mut writer = Writer::start("writer".into(), store, None, reports, Broken::default()).unwrap();
    writer.order(Order::Write(WriteId(1), batch(3)));
    assert!(matches!(told.recv().await, Some(Report::NoSpace(_))));
    writer.order(Order::Purge(LogId::new(1, 1)));
    assert!(matches!(told.recv().await, Some(Report::Space)));
    assert!(matches!(told.recv().await, Some(Report::Durable(WriteId(1)))));
    writer.finish().await;
    assert!(matches!(reader.entries(Index(1), Index(1), 0), Err(ReadLogError::Purged)));
    assert_eq!(reader.entries(Index(2), Index(3), 1 << 20).unwrap().len(), 2);
}
