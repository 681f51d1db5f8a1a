//! A client's connection, at either end. A client is no node: it has no name, no route and no place among the peers, and
//! nothing of what it costs is taken from theirs.
//!
//! The node's transport accepts the connection and shakes hands; then the [`Visitor`] goes to whoever serves clients, who
//! takes the socket over on a runtime of its own. From there on both ends are the same: a [`Visit`], which reads frames,
//! hands each to whoever hears them, and writes what its [`Speaker`]s say.

use super::Inbound;
use super::budget::Budget;
use super::config::TcpConfig;
use super::dial::{DialError, TcpHalves, knock};
use super::handshake::{ReadError, Reader, Stream};
use super::link::End;
use super::outbox::Outbox;
use super::pipe::{FREE, Pulse, watch, whisper, write};
use super::shared::Shared;
use super::socket::{Detached, ReadHalf};
use crate::wire::{
    self, Close, CloseReason, Facts, Frame, Hello, Incoming, Purpose, RefusedReason, Welcome, WireError, pong,
};
use bytes::{Bytes, BytesMut};
use coracle_core::{Boot, ClusterId, LogId, NodeId, Peer};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// How many frames may wait to be written: what bounds them in earnest is their bytes.
const FRAMES: usize = 1 << 16;

/// About how many bytes a frame that waits takes besides its own.
const OVERHEAD: usize = 128;

/// A client whose handshake held, on its way to whoever serves it.
pub struct Visitor {
    socket: Option<(Detached, BytesMut)>,
    /// The largest frame that it takes.
    max_frame: usize,
    /// The first frame to be written.
    welcome: Bytes,
    config: TcpConfig,
    budget: Budget,
    place: OwnedSemaphorePermit,
}

impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visitor").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Visitor {
    /// Takes a client in, if there is a place.
    pub(super) fn welcome(shared: &Shared, client: &Facts) -> Result<Visitor, (RefusedReason, String)> {
        let budget = shared.clients.clone();
        let Ok(place) = Arc::clone(&budget.places).try_acquire_owned() else {
            return Err((RefusedReason::Busy, "no more clients are taken".to_owned()));
        };
        let config = shared.config.clone();
        let max_frame = u32::try_from(config.client_frame).unwrap_or(u32::MAX);
        let facts = Facts { max_frame, ..shared.facts(NodeId(0)).1 };
        let (welcome, max_frame) = (Welcome { facts }.encode(), client.max_frame as usize);
        Ok(Visitor { socket: None, max_frame, welcome, config, budget, place })
    }

    /// Tells the node that it is here.
    pub(super) async fn hand_over(mut self, shared: &Shared, stream: TcpHalves) {
        // A socket that the system cannot let go of is closed.
        if let Ok(socket) = stream.apart() {
            self.socket = Some(socket);
            shared.tell(Inbound::Client(Box::new(self))).await;
        }
    }

    /// Takes it over, on the runtime that this is called in.
    pub(crate) fn enter(self) -> io::Result<(Visit, Requests)> {
        let Visitor { socket, max_frame, welcome, config, budget, place } = self;
        let (socket, read) = socket.ok_or(io::ErrorKind::NotConnected)?;
        let mut stream = Stream::together(socket, read)?;
        stream.established(config.client_frame);
        let requests = Requests {
            count: Arc::new(Semaphore::new(config.client_requests.min(Semaphore::MAX_PERMITS))),
            bytes: budget.requests.clone(),
            most: config.client_bytes,
        };
        let mut visit = Visit::new(stream, config, max_frame, Some(welcome));
        visit.speaker.answers = Some(budget.answers.clone());
        (visit.unfinished, visit.place) = (Some(budget.unfinished.clone()), Some(place));
        Ok((visit, requests))
    }
}

/// What the requests of one client may take that are under way.
pub(crate) struct Requests {
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    most: usize,
}

/// What a request takes for as long as this lives.
#[derive(Debug)]
pub(crate) struct UnderWay(#[allow(dead_code, reason = "only their drop matters")] [OwnedSemaphorePermit; 2]);

impl Requests {
    /// Waits until there is room for one of so many bytes.
    pub(crate) async fn admit(&self, length: usize) -> Option<UnderWay> {
        let length = u32::try_from(length.min(self.most)).unwrap_or(u32::MAX);
        let count = Arc::clone(&self.count).acquire_owned().await.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(length).await.ok()?;
        Some(UnderWay([count, bytes]))
    }
}

/// Says things over a visit. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    outbox: Arc<Outbox>,
    /// The largest frame that the other end takes.
    max_frame: usize,
    /// At a node: what the answers may take that wait, beyond [`FREE`].
    answers: Option<Arc<Semaphore>>,
}

/// What became of something that was to be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// It is queued. That is no promise that it arrives.
    Queued,
    /// The other end does not take frames that large.
    TooLarge,
    /// The visit is over, or the other end does not read.
    Lost,
}

/// Bytes that take their share of a budget for as long as they wait.
struct Owned(Bytes, #[allow(dead_code, reason = "only its drop matters")] OwnedSemaphorePermit);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Speaker {
    /// Queues a frame. Never blocks.
    pub(crate) fn say(&self, mut frame: Frame) -> Said {
        let length = frame.len();
        if length > self.max_frame {
            return Said::TooLarge;
        }
        let waiting = self.outbox.bytes();
        if let Some(answers) = self.answers.as_ref().filter(|_| waiting > 0 && waiting + length > FREE) {
            let cost = u32::try_from(length + OVERHEAD).unwrap_or(u32::MAX);
            let Ok(share) = Arc::clone(answers).try_acquire_many_owned(cost) else { return self.lost() };
            frame.head = Bytes::from_owner(Owned(frame.head, share));
        }
        if self.outbox.push(frame) { Said::Queued } else { self.lost() }
    }

    /// There is no room. A client that misses an answer waits for it in vain, so it is better off without the connection.
    fn lost(&self) -> Said {
        if self.answers.is_some() {
            self.close(CloseReason::Slow, "the answers to it are not read");
        }
        Said::Lost
    }

    /// Says goodbye; the visit ends when that is written.
    pub(crate) fn close(&self, reason: CloseReason, text: &str) {
        self.outbox.close(Close { reason, text: text.to_owned() }.encode());
    }
}

/// Whoever hears what comes over a visit.
pub(crate) trait Hears: Send {
    /// One frame of so many bytes. Nothing more is read until this is done. An error ends the visit.
    fn hear(
        &mut self,
        incoming: Incoming,
        length: usize,
    ) -> impl Future<Output = Result<(), WireError>> + Send;
}

/// A connection between a client and a node, at either end.
pub(crate) struct Visit {
    stream: TcpHalves,
    config: TcpConfig,
    speaker: Speaker,
    pulse: Pulse,
    /// At a node: the share of unfinished frames.
    unfinished: Option<Arc<Semaphore>>,
    /// At a node: its place among the clients, given back after the socket is closed.
    place: Option<OwnedSemaphorePermit>,
}

impl Visit {
    fn new(stream: TcpHalves, config: TcpConfig, max_frame: usize, first: Option<Bytes>) -> Visit {
        let outbox = Arc::new(Outbox::new(config.outbox_bytes, FRAMES, first));
        let (speaker, pulse) = (Speaker { outbox, max_frame, answers: None }, Pulse::default());
        Visit { stream, config, speaker, pulse, unfinished: None, place: None }
    }

    /// Visits the node at an address, of this cluster if one is given. Cancel safe.
    pub(crate) async fn pay(
        address: &str,
        client: Peer,
        cluster: Option<ClusterId>,
        config: &TcpConfig,
    ) -> Result<(Visit, Welcome), DialError> {
        let nobody = NodeId(0);
        let facts = Facts {
            protocol: (wire::PROTOCOL_MIN, wire::PROTOCOL_MAX),
            required: 0,
            optional: config.features,
            levels: (wire::LEVEL_MIN, wire::LEVEL_MAX),
            cluster,
            from: client,
            boot: Boot(client.incarnation.0),
            membership: LogId::ZERO,
            max_frame: u32::try_from(config.max_frame).unwrap_or(u32::MAX),
            boot_number: 0,
            boots: Vec::new(),
            address: String::new(),
            names: None,
            metadata: Bytes::new(),
            machine: 0,
        };
        let hello = Hello { facts, to: nobody, to_incarnation: None, purpose: Purpose::Client };
        let (mut stream, welcome) = knock(address, config, &hello).await?;
        stream.established(config.max_frame);
        let visit = Visit::new(stream, config.clone(), welcome.facts.max_frame as usize, None);
        Ok((visit, welcome))
    }

    /// What says things over it.
    pub(crate) fn speaker(&self) -> Speaker {
        self.speaker.clone()
    }

    /// Reads, writes and watches until the connection ends. Why it did.
    pub(crate) async fn run(mut self, hears: &mut impl Hears) -> String {
        let Visit { stream: TcpHalves { reader, writer, .. }, config, speaker, pulse, unfinished, .. } =
            &mut self;
        let (outbox, close_timeout) = (Arc::clone(&speaker.outbox), config.close_timeout);
        let end = {
            let write = write(&outbox, writer, pulse);
            tokio::pin!(write);
            let read = read(reader, &outbox, pulse, unfinished.as_ref(), config, hears);
            let end = tokio::select! {
                end = read => end,
                () = &mut write => End::Finished,
                () = watch(config, &outbox, pulse) => End::Silent,
                // Who does not read does not get its goodbye.
                () = async { outbox.closed().await; sleep(close_timeout).await } => End::Finished,
            };
            if let End::Protocol(error) = &end {
                speaker.close(CloseReason::Protocol, &error.to_string());
                let _ = timeout(close_timeout, write).await;
            }
            end
        };
        // From here on nothing is said any more.
        speaker.close(CloseReason::Unneeded, "");
        if matches!(end, End::Finished | End::Protocol(_)) {
            // To close a socket with unread bytes in it is to reset it, and a reset may overtake the goodbye.
            let _ = timeout(close_timeout, reader.drain()).await;
        }
        end.to_string()
    }
}

async fn read(
    reader: &mut Reader<ReadHalf>,
    outbox: &Outbox,
    pulse: &Pulse,
    unfinished: Option<&Arc<Semaphore>>,
    config: &TcpConfig,
    hears: &mut impl Hears,
) -> End {
    // The share of a large frame in what all clients may leave unfinished.
    let mut share = None;
    loop {
        match reader.buffered() {
            Ok(None) => {}
            Ok(Some((Incoming::Pong(_), _))) => continue,
            Ok(Some((Incoming::Ping(number), _))) => {
                whisper(outbox, pong(number));
                continue;
            }
            Ok(Some((Incoming::Close(close), _))) => return End::Closed(close),
            Ok(Some((incoming, length))) => {
                share = None;
                pulse.delivering.store(true, Ordering::Relaxed);
                let heard = hears.hear(incoming, length).await;
                pulse.delivering.store(false, Ordering::Relaxed);
                match heard {
                    Ok(()) => continue,
                    Err(error) => return End::Protocol(error),
                }
            }
            Err(error) => return End::Protocol(error),
        }
        if let Some(unfinished) = unfinished.filter(|_| share.is_none() && reader.begun() > FREE) {
            let bytes = (reader.begun() - FREE).min(config.client_bytes);
            pulse.delivering.store(true, Ordering::Relaxed);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            let permit = Arc::clone(unfinished).acquire_many_owned(bytes).await;
            pulse.delivering.store(false, Ordering::Relaxed);
            share = Some(permit);
            reader.was_held_up();
        }
        let filled = reader.fill_within(config.unfinished_timeout).await;
        match filled {
            Ok(()) => pulse.heard.fetch_add(1, Ordering::Relaxed),
            Err(ReadError::Wire(error)) => return End::Protocol(error),
            Err(ReadError::Io(_) | ReadError::End) => return End::Cut,
        };
    }
}
