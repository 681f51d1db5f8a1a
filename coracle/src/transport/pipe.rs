//! What every connection does after its handshake, whatever is said over it: it writes what is in its outbox, and it
//! watches whether the other end is still there.
//!
//! The watch asks for a sign of life when nothing was heard for a while, and gives the connection up when none comes: then
//! the other end, or the way to it, is gone (TR-4). It asks as well when nothing was *said*: an end that waits does not
//! read, and so cannot answer, but its own questions are heard.

use super::config::TcpConfig;
use super::outbox::Outbox;
use crate::wire::{Frame, ping};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

/// How much of a frame anybody may leave unfinished, in bytes.
pub(super) const FREE: usize = 64 << 10;
/// How many pieces one system call writes: a head and an entry for each of 64 small messages. More are
/// written by the next call, without waiting.
const PIECES: usize = 128;
/// How often within the idle timeout the watch looks: the timeout is met to a sixth.
const LOOKS: u32 = 6;

/// Writes what is queued, until the last frame was.
pub(super) async fn write<W: AsyncWrite + Unpin>(outbox: &Outbox, writer: &mut W, pulse: &Pulse) {
    while let Some(mut pieces) = outbox.take().await {
        pulse.writing.store(true, Ordering::Relaxed);
        if write_all(writer, &mut pieces, &pulse.wrote).await.is_err() {
            // The reader may still hold the other end's goodbye, and it is certain to see the end.
            std::future::pending::<()>().await;
        }
        pulse.writing.store(false, Ordering::Relaxed);
    }
    let _ = writer.shutdown().await;
}

/// Ends when the connection is silent for too long in either direction.
pub(super) async fn watch(config: &TcpConfig, outbox: &Outbox, pulse: &Pulse) {
    let period = (config.idle_timeout / LOOKS).max(Duration::from_millis(1));
    let (mut heard, mut wrote) = (0, 0);
    // For how many looks in a row nothing was heard, a write got nowhere, nothing was said.
    let (mut deaf, mut stuck, mut mute) = (0, 0, 0);
    loop {
        sleep(period).await;
        let now = pulse.heard.load(Ordering::Relaxed);
        let waits = pulse.delivering.load(Ordering::Relaxed);
        deaf = if now != heard || waits { 0 } else { deaf + 1 };
        heard = now;
        let now = pulse.wrote.load(Ordering::Relaxed);
        let writing = pulse.writing.load(Ordering::Relaxed);
        stuck = if now == wrote && writing { stuck + 1 } else { 0 };
        mute = if now == wrote && !writing { mute + 1 } else { 0 };
        wrote = now;
        if deaf >= LOOKS || stuck >= LOOKS {
            return;
        }
        if period * (mute.max(deaf) + 1) > config.ping_interval {
            whisper(outbox, ping(0));
        }
    }
}

/// Queues a frame that matters only where nothing else is queued.
pub(super) fn whisper(outbox: &Outbox, head: Bytes) {
    outbox.push(Frame { head, bulk: Vec::new() });
}

/// What the reader and the writer let the watch know.
#[derive(Default)]
pub(super) struct Pulse {
    /// Grows with every read.
    pub(super) heard: AtomicU64,
    /// Whether the reader waits for the node, and so cannot hear.
    pub(super) delivering: AtomicBool,
    /// Grows with every write.
    wrote: AtomicU64,
    /// Whether the writer has something that the system has not taken yet.
    writing: AtomicBool,
}

/// Writes all pieces, as many at a time as the system takes.
async fn write_all<W: AsyncWrite + Unpin>(
    writer: &mut W,
    pieces: &mut VecDeque<Bytes>,
    progress: &AtomicU64,
) -> io::Result<()> {
    while !pieces.is_empty() {
        let mut written = {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let count = pieces.len().min(PIECES);
            for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
                *slice = IoSlice::new(piece);
            }
            writer.write_vectored(&slices[..count]).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        progress.fetch_add(1, Ordering::Relaxed);
        while let Some(front) = pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            pieces.pop_front();
        }
    }
    writer.flush().await
}
