//! What goes on over a connection after its handshake.
//!
//! A link reads, writes and [watches](super::pipe) itself, all three in one task. Reading waits for the node when that is
//! late (so the peer's writes back up, and only theirs); writing goes on meanwhile.

use super::alarm::Alarm;
use super::handshake::{ReadError, Reader, Stream};
use super::link::{End, Link};
use super::memory::Direct;
use super::pipe::{FREE, Pulse, watch, whisper, write};
use super::shared::Shared;
use super::{Held, Inbound, PeerMessage};
use crate::wire::{CloseReason, Incoming, WireError, pong};
use coracle_core::Peer;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

impl Link {
    /// Carries messages both ways until the link ends.
    pub(super) async fn run<R, W>(&self, shared: &Shared, stream: Stream<R, W>) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Stream { mut reader, mut writer, direct, .. } = stream;
        if let Some(direct) = direct {
            self.open(shared, direct);
        }
        let pulse = Pulse::default();
        let close_timeout = shared.config.close_timeout;
        let end = {
            let write = write(&self.outbox, &mut writer, &pulse);
            tokio::pin!(write);
            let end = tokio::select! {
                end = self.read(shared, &mut reader, &pulse) => end,
                () = &mut write => End::Finished,
                () = watch(&shared.config, &self.outbox, &pulse) => End::Silent,
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
        // The share of a stranger's large frame in what all of them may take, until the node has it.
        let mut share = None;
        loop {
            match reader.buffered() {
                Ok(None) => {}
                Ok(Some((Incoming::Pong(number), _))) => {
                    shared.ponged(self, number).await;
                    continue;
                }
                Ok(Some((Incoming::Ping(number), _))) => {
                    whisper(&self.outbox, pong(number));
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
                    share = None;
                    continue;
                }
                Ok(Some((Incoming::FoundingAsk(_) | Incoming::FoundingAnswer(_), _))) => {
                    return End::Protocol(WireError::Invalid("a founding within a conversation"));
                }
                Ok(Some((Incoming::Query(_) | Incoming::QueryReply(_) | Incoming::Directory(_), _))) => {
                    return End::Protocol(WireError::Invalid("a client's request within a conversation"));
                }
                Ok(Some((Incoming::Hello(_) | Incoming::Welcome(_) | Incoming::Refused(_), _))) => {
                    return End::Protocol(WireError::Invalid("a handshake within a conversation"));
                }
                Err(error) => return End::Protocol(error),
            }
            let trusted = self.is_trusted(shared);
            if share.is_none() && reader.begun() > FREE && !trusted {
                pulse.delivering.store(true, Ordering::Relaxed);
                let permit = shared.unfinished(reader.begun() - FREE).await;
                pulse.delivering.store(false, Ordering::Relaxed);
                share = Some(permit);
                reader.was_held_up();
            }
            let filled = if trusted {
                reader.fill().await
            } else {
                reader.fill_within(shared.config.unfinished_timeout).await
            };
            match filled {
                Ok(()) => pulse.heard.fetch_add(1, Ordering::Relaxed),
                Err(ReadError::Wire(error)) => return End::Protocol(error),
                Err(ReadError::Io(_) | ReadError::End) => return End::Cut,
            };
        }
    }

    /// Takes messages as they are from a peer in this process, while the node has room for them. They hold nothing of the budget,
    /// since their bytes are the sender's.
    #[allow(
        clippy::result_large_err,
        reason = "what is given back is the message, which a box would cost each time"
    )]
    fn open(&self, shared: &Shared, direct: Direct) {
        let (inbound, counters, me) = (shared.inbound().clone(), Arc::clone(&shared.counters), shared.me);
        let (from, cluster, names_me) = (self.peer, self.cluster, self.who.names == Some(me));
        direct.hear(move |message| {
            if is_misaddressed(&message, from, me) {
                counters.misaddressed.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            let room = match inbound.try_reserve() {
                Ok(room) => room,
                Err(_) => return Err(message),
            };
            counters.received.fetch_add(1, Ordering::Relaxed);
            room.send(Inbound::Message { from, cluster, names_me, message, held: Held::default() });
            Ok(())
        });
        // Set once: a link is run once.
        let _ = self.direct.set(direct);
    }

    /// Whether its frames are bounded by the number of members: it is a member's, and not one of those that another one has
    /// taken the place of, of which there may be many.
    fn is_trusted(&self, shared: &Shared) -> bool {
        shared.is_member(self.peer) && self.outbox.is_open()
    }

    /// Hands a message to the node, once there is room for it.
    async fn deliver(&self, shared: &Shared, message: PeerMessage, length: usize) {
        if is_misaddressed(&message, self.peer, shared.me) {
            shared.counters.misaddressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let most = u32::try_from(shared.config.inbound_bytes).unwrap_or(u32::MAX);
        let permits = u32::try_from(length).unwrap_or(u32::MAX).min(most);
        let budget = if self.is_trusted(shared) { &shared.budget } else { &shared.strangers_budget };
        let Ok(permit) = Arc::clone(budget).acquire_many_owned(permits).await else { return };
        let held = Held(Some(permit));
        shared.counters.received.fetch_add(1, Ordering::Relaxed);
        let (from, cluster, names_me) = (self.peer, self.cluster, self.who.names == Some(shared.me));
        shared.tell(Inbound::Message { from, cluster, names_me, message, held }).await;
    }
}

/// Whether a message names another sender than the handshake did, or another receiver than this node (TR-2).
fn is_misaddressed(message: &PeerMessage, from: Peer, me: Peer) -> bool {
    match message {
        PeerMessage::Raft { envelope, .. } | PeerMessage::Piece { envelope, .. } => {
            envelope.from != from || envelope.to != me
        }
        _ => false,
    }
}
