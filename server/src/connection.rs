//! One client's connection: commands in, in order; replies out, in order.
//!
//! A turn takes what has arrived, cuts it into commands and carries them out one after the other.
//! Neighbouring writes become one batch, one entry of the log, and neighbouring reads one confirmed read;
//! so a client that sends a thousand commands at once waits for the log about as long as for one. At most
//! one request of a connection is under way at any time. That keeps its commands in order through
//! elections and retries, and bounds what it can ask of the node.
//!
//! The client may be slow, malicious or gone. An idle connection holds no buffers: bytes come through one
//! scratch buffer that all share, and only a command that is not whole is kept. A command that was begun
//! must go on arriving, replies must go on being taken, and what all connections keep has a limit.

use crate::backups::Backups;
use crate::budget::{Budget, Share};
use crate::commands::{self, Request};
use crate::kv::{Found, Lookup, MAX_COST, MAX_VALUE, Machine, Operation};
use crate::resp::{Command, Parser, ProtocolError, Replies};
use crate::session::{About, Session};
use crate::transaction::Transaction;
use crate::{admin, codec, failures};
use coracle::Node;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

/// How much one turn reads, in bytes. Bounds the commands of a turn, and so the size of a batch: this and
/// one command.
const READ_AT_ONCE: usize = 64 << 10;

/// Replies are sent when so many bytes of them have gathered, and at the end of a turn.
const SEND_FROM: usize = 64 << 10;

/// The memory that a queued command takes, and an argument of it, besides their bytes: their handles, and the
/// allocator's share.
const COMMAND_OVERHEAD: usize = 128;
const ARGUMENT_OVERHEAD: usize = 64;

/// What a request hears that there is no memory to answer.
const NO_ROOM: &str =
    "ERR the memory for replies of all clients is used up; nothing was done; try again later";

/// After an error that ends the connection, so much more input is read and thrown away, for so long. A
/// socket that is closed with input unread sends a reset, which can overtake the error.
const FAREWELL: (usize, Duration) = (16 << 20, Duration::from_secs(1));

thread_local! {
    /// Where bytes arrive, before it is known what they are.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AT_ONCE]);
}

/// What a client may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most client connections at a time; the default is redis's, 10,000.
    pub clients: usize,
    /// How long a command that was begun may rest unfinished without a new byte. 60 s by default: a
    /// living client sends a command in one go, and TCP itself retries a lost packet for less.
    pub half_command: Duration,
    /// How long a client may take nothing of the replies that wait for it. 60 s by default, likewise.
    pub stalled: Duration,
    /// The most memory for unfinished and waiting commands of all connections together, in bytes. 512 MiB
    /// by default: 32 of the largest commands, with what is made of them.
    pub commands: usize,
    /// The most memory for replies that wait to be taken, of all connections together, in bytes. 512 MiB by
    /// default: 8 of the [largest answers](crate::kv::MAX_ANSWER).
    pub replies: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let minute = Duration::from_secs(60);
        Limits {
            clients: 10_000,
            half_command: minute,
            stalled: minute,
            commands: 512 << 20,
            replies: 512 << 20,
        }
    }
}

/// What the connections of a server share.
pub struct Shared<M: Machine> {
    /// The node.
    pub node: Node<M>,
    /// How long a request may take, waiting for a leader included.
    pub timeout: Duration,
    /// What clients may cost.
    pub limits: Limits,
    /// What whoever changes the membership must know, if anything.
    pub token: Option<String>,
    /// What may be said about the server, and what its clients hold.
    pub about: Arc<About>,
    /// Backups that are given out.
    pub backups: Arc<Budget>,
    /// Becomes true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

/// Why a connection ends. Only some reasons are told to the client.
enum End {
    /// It said QUIT, closed its end, or broke off.
    Gone,
    /// The server stops.
    Stopping,
    /// It broke a rule: this error is the last reply.
    Fault(String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Gone
    }
}

impl From<ProtocolError> for End {
    fn from(error: ProtocolError) -> End {
        End::Fault(format!("ERR {error}"))
    }
}

/// Serves a client until it leaves or the server stops. `place` is its place among the clients.
pub async fn serve<M: Machine, T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    id: u64,
    place: Share,
    shared: Arc<Shared<M>>,
) {
    let mut connection = Connection {
        stream,
        lane: shared.node.forwarding_session(),
        session: Session::new(id, shared.about.clone()),
        transaction: Transaction::default(),
        backups: Backups::new(&shared.backups),
        parser: Parser::new(),
        queue: Vec::new(),
        fault: None,
        replies: Replies::default(),
        commands: shared.about.commands.share(),
        fetched: 0,
        owed: shared.about.replies.share(),
        _place: place,
        stopping: shared.stopping.clone(),
        shared,
    };
    if let Err(End::Fault(error)) = connection.run().await {
        tracing::debug!(id, error, "a connection ended");
        // What it held is free at once, not only after the farewell.
        connection.parser = Parser::new();
        connection.commands.clear();
        connection.replies.error(&error);
        if connection.send().await.is_ok() {
            farewell(&mut connection.stream).await;
        }
    } else {
        // Whoever has an encrypted connection is told that this is the end of it, and that nothing was cut off.
        let _ = timeout(FAREWELL.1, connection.stream.shutdown()).await;
    }
}

struct Connection<M: Machine, T> {
    stream: T,
    session: Session,
    /// Its writes, in their order, and each of them done once.
    lane: coracle::Session<M>,
    transaction: Transaction,
    backups: Backups,
    parser: Parser,
    /// The commands of this turn.
    queue: Vec<Command>,
    /// What was wrong after them.
    fault: Option<ProtocolError>,
    replies: Replies,
    /// What the commands of this turn take.
    commands: Share,
    /// Bytes of the values that are being sent.
    fetched: usize,
    /// What they and the replies take.
    owed: Share,
    _place: Share,
    /// Becomes true when the server stops.
    stopping: watch::Receiver<bool>,
    shared: Arc<Shared<M>>,
}

/// Neighbouring requests of one kind, gathered to be done at once.
enum Batch {
    Empty,
    Writes(Vec<Operation>),
    Reads(Vec<Lookup>),
}

impl<M: Machine, T: AsyncRead + AsyncWrite + Unpin> Connection<M, T> {
    async fn run(&mut self) -> Result<(), End> {
        loop {
            self.receive().await?;
            self.carry_out().await?;
            self.send().await?;
            if let Some(fault) = self.fault.take() {
                return Err(fault.into());
            }
        }
    }

    /// Waits for bytes and cuts them into commands.
    async fn receive(&mut self) -> Result<(), End> {
        let half = self.parser.started();
        let limit = self.shared.limits.half_command;
        let Connection { stream, parser, queue, fault, stopping, .. } = self;
        let read = poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => {}
                }
                let mut input = buffer.filled();
                if input.is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                loop {
                    match parser.next(&mut input) {
                        Ok(Some(command)) => queue.push(command),
                        Ok(None) => return Poll::Ready(Ok(())),
                        Err(error) => {
                            *fault = Some(error);
                            return Poll::Ready(Ok(()));
                        }
                    }
                }
            })
        });
        tokio::select! {
            biased;
            result = read => result?,
            _ = stopping.wait_for(|stopping| *stopping) => return Err(End::Stopping),
            // Lazy: a timer is made only where there is something to wait for.
            () = async { tokio::time::sleep(limit).await }, if half => {
                return Err(End::Fault(format!("ERR Protocol error: half a command, and then nothing for {limit:?}")));
            }
        }
        // The bytes twice: they are copied into an entry.
        let charge =
            |command: &Command| 2 * command.bytes() + command.len() * ARGUMENT_OVERHEAD + COMMAND_OVERHEAD;
        let queued: usize = self.queue.iter().map(charge).sum();
        if !self.commands.set(self.parser.held() + queued) {
            self.queue.clear();
            return Err(End::Fault("ERR the memory for commands of all clients is used up".into()));
        }
        Ok(())
    }

    /// Does what the queue says, in order.
    async fn carry_out(&mut self) -> Result<(), End> {
        let mut batch = Batch::Empty;
        let mut cost = 0;
        for command in std::mem::take(&mut self.queue) {
            let request = self.transaction.parse(command);
            let more = if let Request::Write(write) = &request { write.cost() } else { 0 };
            cost += more;
            batch = match (batch, request) {
                (Batch::Writes(mut writes), Request::Write(write))
                    if writes.len() < codec::MAX_OPERATIONS && cost <= MAX_COST =>
                {
                    writes.push(write);
                    Batch::Writes(writes)
                }
                (Batch::Reads(mut reads), Request::Read(read)) => {
                    reads.push(read);
                    Batch::Reads(reads)
                }
                (batch, request) => {
                    cost = more;
                    self.settle(batch).await?;
                    match request {
                        Request::Write(write) => Batch::Writes(vec![write]),
                        Request::Read(read) => Batch::Reads(vec![read]),
                        other => {
                            self.answer(other).await?;
                            Batch::Empty
                        }
                    }
                }
            };
        }
        self.settle(batch).await
    }

    /// Answers one request.
    async fn answer(&mut self, request: Request) -> Result<(), End> {
        match request {
            Request::Session(name, command) => self.session.answer(name, &command, &mut self.replies),
            Request::Admin(command) if command.is(1, "backup") => {
                let Shared { node, timeout, .. } = &*self.shared;
                self.backups.answer(node, *timeout, &command, &mut self.replies).await;
            }
            Request::Admin(command) => {
                let Shared { node, token, .. } = &*self.shared;
                admin::answer(node, &command, token.as_deref(), &mut self.replies).await;
            }
            Request::Refuse(error) => self.replies.error(&error),
            Request::Done => self.replies.simple("OK"),
            Request::Quit => {
                self.replies.simple("OK");
                self.send().await?;
                return Err(End::Gone);
            }
            // One alone is a batch of its own.
            Request::Write(write) => return self.settle(Batch::Writes(vec![write])).await,
            Request::Read(read) => return self.settle(Batch::Reads(vec![read])).await,
        }
        self.send_if_many().await
    }

    /// Has a batch done and answers each of its requests.
    async fn settle(&mut self, batch: Batch) -> Result<(), End> {
        match batch {
            Batch::Empty => Ok(()),
            Batch::Writes(writes) => self.write(writes).await,
            Batch::Reads(reads) => self.read(reads).await,
        }
    }

    async fn write(&mut self, writes: Vec<Operation>) -> Result<(), End> {
        let count = writes.len();
        // Before anything is done: afterwards it could not be refused.
        if !self.owe(writes.iter().map(Operation::reply).sum()) {
            return self.repeat_error(NO_ROOM, count).await;
        }
        let limit = self.shared.timeout;
        match self.lane.write_retrying(writes, limit).await {
            Ok(outcomes) if outcomes.len() == count => {
                for outcome in outcomes {
                    commands::answer_write(&outcome, &mut self.replies);
                    self.send_if_many().await?;
                }
            }
            Ok(outcomes) => {
                let error = format!("UNKNOWN {} outcomes came for {count} commands", outcomes.len());
                self.repeat_error(&error, count).await?;
            }
            Err(error) => self.repeat_error(&failures::of_write(&error, limit), count).await?,
        }
        self.fetched = 0;
        Ok(())
    }

    async fn read(&mut self, mut reads: Vec<Lookup>) -> Result<(), End> {
        while !reads.is_empty() {
            let limit = self.shared.timeout;
            match self.shared.node.read_retrying(reads.clone(), limit).await {
                Ok(mut answers) if (1..=reads.len()).contains(&answers.len()) => {
                    // As many as there is memory for; the rest is asked for again.
                    let mut fit = answers.len();
                    while !self.owe(answers[..fit].iter().map(Found::bytes).sum()) && fit > 0 {
                        fit /= 2;
                    }
                    answers.truncate(fit);
                    reads.drain(..fit.max(1));
                    if answers.is_empty() {
                        self.repeat_error(NO_ROOM, 1).await?;
                    }
                    for found in answers {
                        self.answer_read(found).await?;
                    }
                    self.fetched = 0;
                }
                Ok(_) => return self.repeat_error("ERR the machine answered nothing", reads.len()).await,
                Err(error) => {
                    let error = failures::of_read(&error, limit);
                    return self.repeat_error(&error, reads.len()).await;
                }
            }
        }
        Ok(())
    }

    async fn answer_read(&mut self, found: Found) -> Result<(), End> {
        if let Found::Values(values) = found {
            // Up to MAX_ANSWER bytes: they leave piece by piece.
            self.replies.array(values.len());
            for value in values {
                commands::answer_value(value.as_ref(), &mut self.replies);
                self.send_if_many().await?;
            }
            return Ok(());
        }
        commands::answer_read(&found, &mut self.replies);
        self.send_if_many().await
    }

    async fn repeat_error(&mut self, error: &str, times: usize) -> Result<(), End> {
        for _ in 0..times {
            self.replies.error(error);
            self.send_if_many().await?;
        }
        Ok(())
    }

    async fn send_if_many(&mut self) -> Result<(), End> {
        if self.replies.bytes.len() < SEND_FROM { Ok(()) } else { self.send().await }
    }

    /// Notes that so many bytes of values are to be sent. False if there is no memory for that.
    fn owe(&mut self, bytes: usize) -> bool {
        // They are copied on their way out, one value and a little at a time.
        let copied = bytes.min(MAX_VALUE + SEND_FROM);
        let fits = self.owed.set(bytes + copied + self.replies.bytes.len());
        self.fetched = if fits { bytes } else { 0 };
        fits
    }

    /// Sends all replies, as long as the client goes on taking them.
    async fn send(&mut self) -> Result<(), End> {
        let owed = self.fetched + self.replies.bytes.len();
        if owed > self.owed.held() && !self.owed.set(owed) {
            tracing::debug!("a client is let go: the memory for replies of all clients is used up");
            return Err(End::Gone);
        }
        let mut bytes = &self.replies.bytes[..];
        while !bytes.is_empty() {
            let sent = tokio::select! {
                biased;
                sent = self.stream.write(bytes) => sent?,
                () = async { tokio::time::sleep(self.shared.limits.stalled).await } => 0,
            };
            match sent {
                0 => return Err(End::Gone),
                sent => bytes = &bytes[sent..],
            }
        }
        // An encrypted connection has kept the last of it.
        timeout(self.shared.limits.stalled, self.stream.flush()).await.map_err(|_| End::Gone)??;
        // Between turns a connection holds no buffers.
        self.replies.bytes = Vec::new();
        if self.fetched == 0 {
            self.owed.clear();
        }
        Ok(())
    }
}

/// Waits a moment until the client has seen the last reply. See [`FAREWELL`].
pub(crate) async fn farewell<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut T) {
    let (most, patience) = FAREWELL;
    let _ = timeout(patience, async {
        stream.shutdown().await?;
        let mut left = most;
        while left > 0 {
            let read = poll_fn(|context| {
                SCRATCH.with_borrow_mut(|scratch| {
                    let mut buffer = ReadBuf::new(scratch);
                    Pin::new(&mut *stream).poll_read(context, &mut buffer).map_ok(|()| buffer.filled().len())
                })
            });
            match read.await? {
                0 => break,
                bytes => left = left.saturating_sub(bytes),
            }
        }
        io::Result::Ok(())
    })
    .await;
}
