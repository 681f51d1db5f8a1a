//! What goes on over a connection after its handshake.
//!
//! A link reads, writes and watches itself, all three in one task. Reading waits for the node when that is
//! late (so the peer's writes back up, and only theirs); writing goes on meanwhile. The watch asks for a sign
//! of life when nothing was heard for a while, and gives the link up when none comes: then the other end, or
//! the way to it, is gone (TR-4). It asks as well when nothing was *said*: a peer that waits for its node does
//! not read, and so cannot answer, but its own questions are heard.

use super::alarm::Alarm;
use super::handshake::{ReadError, Reader, Stream};
use super::link::{End, Link};
use super::shared::Shared;
use super::{Held, Inbound, PeerMessage};
use crate::wire::{CloseReason, Frame, Incoming, WireError, ping, pong};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How many pieces one system call writes: a head and an entry for each of 64 small messages. More are
/// written by the next call, without waiting.
const PIECES: usize = 128;
/// How much of a frame anybody may leave unfinished, in bytes.
const FREE: usize = 64 << 10;
/// How often within the idle timeout the watch looks: the timeout is met to a sixth.
const LOOKS: u32 = 6;

impl Link {
    /// Carries messages both ways until the link ends.
    pub(super) async fn run<R, W>(&self, shared: &Shared, stream: Stream<R, W>) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Stream { mut reader, mut writer } = stream;
        let pulse = Pulse::default();
        let close_timeout = shared.config.close_timeout;
        let end = {
            let write = self.write(&mut writer, &pulse);
            tokio::pin!(write);
            let end = tokio::select! {
                end = self.read(shared, &mut reader, &pulse) => end,
                end = &mut write => end,
                end = self.watch(shared, &pulse) => end,
                // Who does not read does not get its goodbye.
                () = async { self.outbox.closed().await; sleep(close_timeout).await } => End::Finished,
            };
            if let End::Protocol(error) = &end {
                self.close(CloseReason::Protocol, &error.to_string());
                let _ = timeout(close_timeout, write).await;
            }
            end
        };
        if matches!(end, End::Finished | End::Protocol(_)) {
            // To close a socket with unread bytes in it is to reset it, and a reset may overtake the goodbye.
            let _ = timeout(close_timeout, reader.drain()).await;
        }
        end
    }

    async fn read<R: AsyncRead + Unpin>(
        &self,
        shared: &Shared,
        reader: &mut Reader<R>,
        pulse: &Pulse,
    ) -> End {
        // The share of a stranger's large frame in what all of them may take, and until when it has it.
        let mut share = None;
        loop {
            let found = reader.buffered();
            if !matches!(found, Ok(None)) {
                share = None;
            }
            match found {
                Ok(None) => {}
                Ok(Some((Incoming::Pong(number), _))) => {
                    shared.ponged(self, number).await;
                    continue;
                }
                Ok(Some((Incoming::Ping(number), _))) => {
                    self.whisper(pong(number));
                    continue;
                }
                Ok(Some((Incoming::Alarm(told), _))) => {
                    shared.alarm(Alarm::told(self.peer, shared.me, shared.boot, &told)).await;
                    continue;
                }
                Ok(Some((Incoming::Places(places), _))) => {
                    shared.hear_places(self.peer, places);
                    continue;
                }
                Ok(Some((Incoming::Close(close), _))) => return End::Closed(close),
                Ok(Some((Incoming::Message(message), length))) => {
                    pulse.delivering.store(true, Ordering::Relaxed);
                    self.deliver(shared, message, length).await;
                    pulse.delivering.store(false, Ordering::Relaxed);
                    continue;
                }
                Ok(Some((Incoming::FoundingAsk(_) | Incoming::FoundingAnswer(_), _))) => {
                    return End::Protocol(WireError::Invalid("a founding within a conversation"));
                }
                Ok(Some((Incoming::Hello(_) | Incoming::Welcome(_) | Incoming::Refused(_), _))) => {
                    return End::Protocol(WireError::Invalid("a handshake within a conversation"));
                }
                Err(error) => return End::Protocol(error),
            }
            if share.is_none() && reader.begun() > FREE && !shared.is_member(self.peer) {
                pulse.delivering.store(true, Ordering::Relaxed);
                let permit = shared.unfinished(reader.begun() - FREE).await;
                pulse.delivering.store(false, Ordering::Relaxed);
                share = Some((permit, Instant::now() + shared.config.unfinished_timeout));
            }
            let filled = match &share {
                Some((_, until)) => match timeout_at(*until, reader.fill()).await {
                    Ok(filled) => filled,
                    Err(_) => return End::Protocol(WireError::Invalid("a large frame that took too long")),
                },
                None => reader.fill().await,
            };
            match filled {
                Ok(()) => pulse.heard.fetch_add(1, Ordering::Relaxed),
                Err(ReadError::Wire(error)) => return End::Protocol(error),
                Err(ReadError::Io(_) | ReadError::End) => return End::Cut,
            };
        }
    }

    /// Hands a message to the node, once there is room for it. A message that names another sender than the
    /// handshake did, or another receiver than this node, is dropped (TR-2).
    async fn deliver(&self, shared: &Shared, message: PeerMessage, length: usize) {
        if let PeerMessage::Raft { envelope, .. } | PeerMessage::Piece { envelope, .. } = &message
            && (envelope.from != self.peer || envelope.to != shared.me)
        {
            shared.counters.misaddressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let most = u32::try_from(shared.config.inbound_bytes).unwrap_or(u32::MAX);
        let permits = u32::try_from(length).unwrap_or(u32::MAX).min(most);
        let Ok(permit) = Arc::clone(&shared.budget).acquire_many_owned(permits).await else { return };
        let held = Held(Some(permit));
        shared.counters.received.fetch_add(1, Ordering::Relaxed);
        let (from, cluster, names_me) = (self.peer, self.cluster, self.who.names == Some(shared.me));
        shared.tell(Inbound::Message { from, cluster, names_me, message, held }).await;
    }

    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut W, pulse: &Pulse) -> End {
        while let Some(mut pieces) = self.outbox.take().await {
            pulse.writing.store(true, Ordering::Relaxed);
            if write_all(writer, &mut pieces, &pulse.wrote).await.is_err() {
                // The reader may still hold the peer's goodbye, and it is certain to see the end.
                std::future::pending::<()>().await;
            }
            pulse.writing.store(false, Ordering::Relaxed);
        }
        let _ = writer.shutdown().await;
        End::Finished
    }

    /// Ends when the link is silent for too long in either direction.
    async fn watch(&self, shared: &Shared, pulse: &Pulse) -> End {
        let period = (shared.config.idle_timeout / LOOKS).max(Duration::from_millis(1));
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
                return End::Silent;
            }
            if period * (mute.max(deaf) + 1) > shared.config.ping_interval {
                self.whisper(ping(0));
            }
        }
    }

    /// Queues a frame that matters only where nothing else is queued.
    fn whisper(&self, head: Bytes) {
        self.outbox.push(Frame { head, bulk: Vec::new() });
    }
}

/// What the reader and the writer let the watch know.
#[derive(Default)]
struct Pulse {
    /// Grows with every read.
    heard: AtomicU64,
    /// Whether the reader waits for the node, and so cannot hear.
    delivering: AtomicBool,
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
