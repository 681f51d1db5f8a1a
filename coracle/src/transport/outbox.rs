//! What waits to be written to one connection.
//!
//! Anyone may push, and never waits: what does not fit is dropped, and the caller is told. One writer takes
//! everything that is there at once, so that all frames queued since it last looked leave in one write.
//! What it took counts as waiting until it comes back for more, so that a peer which does not read fills
//! its outbox and nothing else.
//!
//! Pieces of snapshots wait in a lane of their own: one of them leaves after all else that is queued, so that none goes
//! before a heartbeat or an append, and none waits for ever however much else there is.

use super::primitives::{Mutex, MutexGuard, Notify};
use crate::wire::Frame;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::PoisonError;

/// Pieces of snapshots that wait at most: one is sent at a time, and perhaps again.
const MAX_PIECES: usize = 2;

#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Rung when the last frame is queued.
    closing: Notify,
    max_bytes: usize,
    max_frames: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// The frames' pieces, in order.
    pieces: VecDeque<Bytes>,
    /// Pieces of snapshots. They take no room from the others.
    snapshots: VecDeque<Frame>,
    /// What waits: queued, or taken and not known to be written.
    bytes: usize,
    frames: usize,
    /// The part of it that the writer took last.
    taken_bytes: usize,
    taken_frames: usize,
    /// Nothing more may be queued: the last frame is in.
    closed: bool,
}

impl Outbox {
    /// An outbox whose first frame is `first`, if there is one, whatever the limits are.
    pub(super) fn new(max_bytes: usize, max_frames: usize, first: Option<Bytes>) -> Outbox {
        let queue = Queue { pieces: first.into_iter().collect(), ..Queue::default() };
        Outbox {
            queue: Mutex::new(queue),
            wake: Notify::new(),
            closing: Notify::new(),
            max_bytes,
            max_frames,
        }
    }

    /// Queues a frame. False: there is no room, and it was dropped.
    pub(super) fn push(&self, frame: Frame) -> bool {
        let length = frame.len();
        let mut queue = self.lock();
        let fits = queue.frames < self.max_frames && queue.bytes.saturating_add(length) <= self.max_bytes;
        if queue.closed || !(fits || queue.frames == 0) {
            return false;
        }
        queue.bytes += length;
        queue.frames += 1;
        queue.pieces.push_back(frame.head);
        queue.pieces.extend(frame.bulk);
        drop(queue);
        self.wake.notify_one();
        true
    }

    /// Queues a piece of a snapshot, after all else. False: there is no room, and it was dropped.
    pub(super) fn push_piece(&self, frame: Frame) -> bool {
        let mut queue = self.lock();
        if queue.closed || queue.snapshots.len() >= MAX_PIECES {
            return false;
        }
        queue.snapshots.push_back(frame);
        drop(queue);
        self.wake.notify_one();
        true
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Whether the last frame is not queued yet.
    pub(super) fn is_open(&self) -> bool {
        !self.lock().closed
    }

    /// Queues the last frame; the writer ends when it has written it. Only the first call counts.
    pub(super) fn close(&self, last: Bytes) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.closed = true;
            queue.pieces.push_back(last);
            drop(queue);
            self.wake.notify_one();
            self.closing.notify_one();
        }
    }

    /// Waits until the last frame is queued. Only one task may call it, and once.
    pub(super) async fn closed(&self) {
        self.closing.notified().await;
    }

    /// Waits for frames and takes all of them; what was taken before is now written. None: that was the
    /// last one. Only one writer may call it. Cancel safe.
    pub(super) async fn take(&self) -> Option<VecDeque<Bytes>> {
        loop {
            {
                let mut queue = self.lock();
                queue.bytes -= queue.taken_bytes;
                queue.frames -= queue.taken_frames;
                (queue.taken_bytes, queue.taken_frames) = (queue.bytes, queue.frames);
                let piece = if queue.closed { None } else { queue.snapshots.pop_front() };
                if let Some(frame) = piece {
                    queue.pieces.push_back(frame.head);
                    queue.pieces.extend(frame.bulk);
                }
                if !queue.pieces.is_empty() {
                    return Some(std::mem::take(&mut queue.pieces));
                }
                if queue.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
