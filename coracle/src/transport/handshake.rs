//! Who may talk to whom.
//!
//! [`Stream`] reads and writes single frames, which is all that a handshake needs; it works over any byte
//! stream. [`judge`] and [`check_welcome`] are the rules, without I/O: the first for the one who was dialed,
//! the second for the one who dialed. Until it is over, a connection may make its receiver hold a few
//! kilobytes and no more.

use super::certificate::{Role, Shown};
use super::config::TcpConfig;
use super::introduction::Local;
use super::memory::Direct;
use super::socket::{Detached, ReadHalf, Socket, WriteHalf, attach, detach, split};
use crate::wire::{
    self, Decoder, Facts, Hello, Incoming, MAX_BOOTS, Purpose, RefusedReason, Welcome, WireError,
};
use bytes::{Bytes, BytesMut};
use coracle_core::{ClusterId, NodeId, Peer};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// The longest frame of a handshake, in bytes: some hundreds are usual, a refusal's text may take 4 KiB.
const HANDSHAKE_FRAME: usize = 8 << 10;
/// How much room is made for a read: small until it is known who is there, then enough for a good number of
/// messages at a time. A frame's buffer grows beyond that only as its bytes arrive (TR-3).
const HANDSHAKE_READ: usize = 1 << 10;
const READ: usize = 32 << 10;
/// Rather than reading into less room than this, in bytes, more is made.
const READ_MIN: usize = 4 << 10;

/// Both directions of a byte stream, with what was read and not yet understood.
#[derive(Debug)]
pub(super) struct Stream<R, W> {
    pub(super) reader: Reader<R>,
    pub(super) writer: W,
    /// Whose certificate the other end has shown.
    pub(super) certificate: Option<Shown>,
    /// The way past the stream for whole messages, if the other end is in this process.
    pub(super) direct: Option<Direct>,
}

#[derive(Debug)]
pub(super) struct Reader<R> {
    inner: R,
    buffer: BytesMut,
    decoder: Decoder,
    read: usize,
    /// Until when the frame that has begun is to be whole.
    until: Option<Instant>,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the connection was cut")]
    Io(#[from] io::Error),
    #[error("the connection was cut")]
    End,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Stream<R, W> {
    pub(super) fn new(reader: R, writer: W) -> Stream<R, W> {
        let reader = Reader {
            inner: reader,
            buffer: BytesMut::new(),
            decoder: Decoder::new(HANDSHAKE_FRAME),
            read: HANDSHAKE_READ,
            until: None,
        };
        Stream { reader, writer, certificate: None, direct: None }
    }

    /// Writes one frame.
    pub(super) async fn send(&mut self, frame: &Bytes) -> io::Result<()> {
        self.writer.write_all(frame).await?;
        self.writer.flush().await
    }

    /// From now on frames of up to `max_frame` bytes are welcome.
    pub(super) fn established(&mut self, max_frame: usize) {
        self.reader.decoder.set_max_frame(max_frame);
        self.reader.read = READ;
        // A buffer that starts large is replaced by large ones.
        let mut buffer = BytesMut::with_capacity(READ.max(self.reader.buffer.len()));
        buffer.extend_from_slice(&self.reader.buffer);
        self.reader.buffer = buffer;
    }
}

impl Stream<ReadHalf, WriteHalf> {
    pub(super) fn of(socket: Socket) -> Self {
        let (reader, writer, certificate) = split(socket);
        let direct = writer.direct();
        Stream { certificate, direct, ..Stream::new(reader, writer) }
    }

    /// The socket, free of the runtime that it was accepted on, and what was read of what is yet to be understood.
    pub(super) fn apart(self) -> io::Result<(Detached, BytesMut)> {
        let Reader { inner, buffer, .. } = self.reader;
        Ok((detach(inner, self.writer)?, buffer))
    }

    /// The same on the runtime that this is called in.
    pub(super) fn together(socket: Detached, read: BytesMut) -> io::Result<Self> {
        let (reader, writer) = attach(socket)?;
        let mut stream = Stream::new(reader, writer);
        stream.reader.buffer = read;
        Ok(stream)
    }
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// The next frame that is here already, with its length.
    pub(super) fn buffered(&mut self) -> Result<Option<(Incoming, usize)>, WireError> {
        let next = self.decoder.next(&mut self.buffer)?;
        if next.is_some() {
            self.until = None;
        }
        Ok(next)
    }

    /// The length of the frame that has begun; 0 while its header is not there.
    pub(super) fn begun(&self) -> usize {
        self.decoder.begun()
    }

    /// Waits for more bytes; of a frame that has begun, no longer than that after its first ones, so that nobody keeps a place
    /// by a byte now and then.
    pub(super) async fn fill_within(&mut self, limit: Duration) -> Result<(), ReadError> {
        if self.buffer.is_empty() && self.begun() == 0 {
            return self.fill().await;
        }
        let until = *self.until.get_or_insert_with(|| Instant::now() + limit);
        let late = |_| ReadError::Wire(WireError::Invalid("a frame that took too long"));
        timeout_at(until, self.fill()).await.map_err(late)?
    }

    /// The frame that has begun was held up: its time begins anew.
    pub(super) fn was_held_up(&mut self) {
        self.until = None;
    }

    /// Waits for more bytes. Cancel safe.
    pub(super) async fn fill(&mut self) -> Result<(), ReadError> {
        // A frame's buffer at most doubles: what has arrived vouches for what is claimed.
        let most = self.read.max(self.buffer.len());
        let room = self.decoder.missing(self.buffer.len()).max(READ_MIN.min(self.read)).min(most);
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(self.read);
        }
        self.buffer.reserve(room);
        match self.inner.read_buf(&mut self.buffer).await? {
            0 => Err(ReadError::End),
            _ => Ok(()),
        }
    }

    /// The next frame.
    pub(super) async fn receive(&mut self) -> Result<Incoming, ReadError> {
        loop {
            if let Some((incoming, _)) = self.buffered()? {
                return Ok(incoming);
            }
            self.fill().await?;
        }
    }

    /// Reads and forgets until the other side has nothing more to say.
    pub(super) async fn drain(&mut self) {
        self.buffer.clear();
        while let Ok(1..) = self.inner.read_buf(&mut self.buffer).await {
            self.buffer.clear();
        }
    }
}

/// What this node says of itself, and of the receiver: `names` is what its newest membership says of that.
pub(super) fn facts(local: &Local, names: Option<Peer>, config: &TcpConfig) -> Facts {
    let unsaid = local.boots.len().saturating_sub(MAX_BOOTS);
    Facts {
        protocol: (wire::PROTOCOL_MIN, wire::PROTOCOL_MAX),
        required: 0,
        optional: config.features,
        levels: (wire::LEVEL_MIN, wire::LEVEL_MAX),
        cluster: local.cluster,
        from: local.peer,
        boot: local.boot,
        membership: local.membership,
        max_frame: u32::try_from(config.max_frame).unwrap_or(u32::MAX),
        boot_number: local.boot_number,
        boots: local.boots[unsaid..].to_vec(),
        address: local.address.clone(),
        names,
        metadata: local.metadata.clone(),
        machine: local.machine,
    }
}

/// What a Hello comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is introduced, and that is all.
    Introduce,
    /// It may ask one question about a founding.
    Found,
    /// It is a client: its requests may be served.
    Serve,
    /// It may talk, in the name of this cluster.
    Talk(ClusterId),
}

/// Whether the one that calls itself so has the certificate for it: a node its own newest one, and a client any of the
/// cluster's. Where nothing is encrypted, nobody has one.
pub(super) fn authentic(
    config: &TcpConfig,
    certificate: Option<&Shown>,
    from: NodeId,
    purpose: Purpose,
) -> Result<(), (RefusedReason, String)> {
    let Some((tls, shown)) = config.tls.as_ref().zip(certificate) else { return Ok(()) };
    let refuse = |text: String| Err((RefusedReason::Certificate, text));
    if let Err(why) = tls.judge(shown) {
        return refuse(why);
    }
    if purpose == Purpose::Client && from == NodeId(0) || shown.name.role == Role::Node(from) {
        return Ok(());
    }
    refuse(format!("the certificate of {} is none of node {from}", shown.name))
}

/// Judges the Hello of one who dialed this node.
pub(super) fn judge(
    local: &Local,
    config: &TcpConfig,
    hello: &Hello,
) -> Result<Verdict, (RefusedReason, String)> {
    let facts = &hello.facts;
    let refuse = |reason, text: String| Err((reason, text));
    compatible(config, local.peer.id, facts)?;
    if hello.purpose == Purpose::Client && config.max_clients > 0 {
        return judge_client(local, facts);
    }
    if !matches!(hello.purpose, Purpose::Raft | Purpose::Probe | Purpose::Founding) {
        return refuse(RefusedReason::Purpose, format!("{} are not served here", hello.purpose));
    }
    let me = local.peer;
    if hello.to != me.id {
        return refuse(
            RefusedReason::WrongNode,
            format!("node {} was dialed, but this is node {}", hello.to, me.id),
        );
    }
    if hello.to_incarnation.is_some_and(|expected| expected != me.incarnation) {
        return refuse(
            RefusedReason::WrongNode,
            format!("node {} was dialed, but its disk is another one now", me.id),
        );
    }
    if facts.from.id == NodeId(0) {
        return refuse(RefusedReason::BadName, "0 is not the name of a node".to_owned());
    }
    if facts.from.id == me.id {
        if (facts.from, facts.boot) == (me, local.boot) {
            return refuse(RefusedReason::OwnName, format!("this is node {} itself", me.id));
        }
        return refuse(
            RefusedReason::BadName,
            format!("this is node {} too, and not the one that dialed", me.id),
        );
    }
    match (local.cluster, facts.cluster) {
        (Some(mine), Some(theirs)) if mine != theirs => refuse(
            RefusedReason::WrongCluster,
            format!("this node belongs to cluster {mine}, the one that dialed to cluster {theirs}"),
        ),
        _ if hello.purpose == Purpose::Probe => Ok(Verdict::Introduce),
        _ if hello.purpose == Purpose::Founding => Ok(Verdict::Found),
        (_, Some(theirs)) => Ok(Verdict::Talk(theirs)),
        (_, None) => refuse(RefusedReason::Blank, "a node without a cluster has nothing to say".to_owned()),
    }
}

/// Judges the Hello of a client, which may not know yet whom it dialed, and has no node's name.
fn judge_client(local: &Local, facts: &Facts) -> Result<Verdict, (RefusedReason, String)> {
    if facts.from.id != NodeId(0) {
        let text = format!("a client is no node, and {} is the name of one", facts.from.id);
        return Err((RefusedReason::BadName, text));
    }
    match (local.cluster, facts.cluster) {
        (Some(mine), Some(theirs)) if mine != theirs => Err((
            RefusedReason::WrongCluster,
            format!("this node belongs to cluster {mine}, and the client asks for cluster {theirs}"),
        )),
        _ => Ok(Verdict::Serve),
    }
}

/// Judges the answer to a Hello: what the other side may not have seen in it.
pub(super) fn check_welcome(
    config: &TcpConfig,
    hello: &Hello,
    welcome: &Welcome,
) -> Result<(), (RefusedReason, String)> {
    let facts = &welcome.facts;
    compatible(config, hello.facts.from.id, facts)?;
    let anybody = hello.purpose == Purpose::Client && hello.to == NodeId(0);
    if (facts.from.id != hello.to && !anybody)
        || hello.to_incarnation.is_some_and(|i| i != facts.from.incarnation)
    {
        return Err((
            RefusedReason::WrongNode,
            format!("node {} was dialed, but node {} on another disk answered", hello.to, facts.from.id),
        ));
    }
    match (hello.facts.cluster, facts.cluster) {
        (Some(mine), Some(theirs)) if mine != theirs => Err((
            RefusedReason::WrongCluster,
            format!("the node that answered belongs to cluster {theirs}, not to {mine}"),
        )),
        _ => Ok(()),
    }
}

/// Whether there is a protocol and a set of features that both sides can live with. `me` is this node.
fn compatible(config: &TcpConfig, me: NodeId, facts: &Facts) -> Result<(), (RefusedReason, String)> {
    let (min, max) = facts.protocol;
    if min > wire::PROTOCOL_MAX || max < wire::PROTOCOL_MIN {
        let they = facts.from.id;
        let old = if max < wire::PROTOCOL_MIN { they } else { me };
        let text = format!(
            "node {they} speaks {}, node {me} speaks {}; upgrade node {old}",
            protocols(min, max),
            protocols(wire::PROTOCOL_MIN, wire::PROTOCOL_MAX)
        );
        return Err((RefusedReason::Protocol, text));
    }
    let unknown = facts.required & !config.features;
    if unknown != 0 {
        let they = facts.from.id;
        let text = format!("node {they} requires the features {unknown:#x}, which node {me} does not have");
        return Err((RefusedReason::Feature, text));
    }
    Ok(())
}

fn protocols(min: u32, max: u32) -> String {
    if min == max { format!("protocol {min}") } else { format!("protocols {min} to {max}") }
}
