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
//! must be whole in time, replies must be taken in time, and what all connections keep has a limit. Where that
//! is reached, whoever was waited for the longest is cut off ([`waits`](crate::waits)), and who comes is told to come
//! again. A long pipeline is carried out in turns, so that others have theirs; what goes to the node passes the
//! [`gate`](crate::gate).

mod asking;
mod shared;
mod together;
mod turn;

pub use shared::{Client, Limits, Newcomer, Place, Shared};

use crate::access::Access;
use crate::backups::Backups;
use crate::budget::Shares;
use crate::commands::{self, Phrase, Request};
use crate::gate::Refusals;
use crate::kv::{MAX_VALUE, Machine};
use crate::monitor::Refused;
use crate::passwords::Login;
use crate::resp::{Command, Excess, Parser, ProtocolError, Replies};
use crate::session::{Hello, Session};
use crate::transaction::Transaction;
use crate::waits::{Over, Wait};
use crate::{admin, user_commands};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;

/// How much one turn reads, in bytes. Bounds the commands of a turn, and so the size of a batch: this and
/// one command.
const READ_AT_ONCE: usize = 64 << 10;

/// What each connection has by itself for commands, and as much again for replies, in bytes: so a small command is carried out
/// whatever memory others hold.
pub const OWN: usize = 8 << 10;

/// Replies are sent when so many bytes of them have gathered, and at the end of a turn.
const SEND_FROM: usize = 64 << 10;

/// The memory that a queued command takes, and an argument of it, besides their bytes, on its whole way: where it
/// ends, its handle among those that are asked for, a copy of that, and its handle again in what is found or applied.
const COMMAND_OVERHEAD: usize = 384;
const ARGUMENT_OVERHEAD: usize = 128;

/// What a request hears that there is no memory to answer, or to take.
const NO_ROOM: &str = "BUSY the memory for replies is used up; this was not done; retry after 1000 ms";
const NO_COMMAND_ROOM: &str =
    "BUSY the memory for commands is used up; this was not done; retry after 1000 ms";

/// What one hears who comes when all places are taken.
pub const FULL: &str = "ERR max number of clients reached";

/// After an error that ends the connection, so much more input is read and thrown away, for so long. A
/// socket that is closed with input unread sends a reset, which can overtake the error.
const FAREWELL: (usize, Duration) = (16 << 20, Duration::from_secs(1));

thread_local! {
    /// Where bytes arrive, before it is known what they are.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AT_ONCE]);
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

/// Serves a client until it leaves or the server stops.
pub async fn serve<M: Machine, T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    newcomer: Newcomer,
    shared: Arc<Shared<M>>,
) {
    let Newcomer { id, from, shown, mut place } = newcomer;
    let away = place.guest().map(|guest| guest.away());
    shared.about.came.fetch_add(1, Ordering::Relaxed);
    let listed = shared.about.clients.enter(id, from);
    let mut connection = Connection {
        stream,
        lane: shared.node.forwarding_session(),
        session: Session::new(listed, shared.about.clone()),
        access: Access::new(&shared.rules, from.ip(), shown),
        transaction: Transaction::default(),
        backups: Backups::new(&shared.backups),
        parser: Parser::new(),
        queue: VecDeque::new(),
        fault: None,
        replies: Replies::default(),
        commands: Shares::new(&place.account().commands),
        half: Wait::default(),
        fetched: 0,
        owed: Shares::new(&place.account().replies),
        slow: Wait::default(),
        refusals: Refusals::default(),
        place,
        stopping: shared.stopping.clone(),
        stops: false,
        shared,
    };
    if *connection.stopping.borrow() {
        // Whoever was told of it before this one was listed did not tell it.
        connection.session.listed().woken.notify_one();
    }
    let end = match away {
        None => connection.run().await,
        Some(away) => tokio::select! {
            biased;
            end = connection.run() => end,
            () = away.notified() => Err(End::Gone),
        },
    };
    // What it held is free at once, not only after the farewell. What was answered before the fault is sent with it.
    connection.forget();
    if let Err(End::Fault(error)) = end {
        tracing::debug!(id, error, "a connection ended");
        connection.replies.error(&error);
        let sent = connection.send().await;
        connection.forget_replies();
        if sent.is_ok() {
            farewell(&mut connection.stream).await;
        }
    } else {
        connection.forget_replies();
        // Whoever has an encrypted connection is told that this is the end of it, and that nothing was cut off.
        let _ = timeout(FAREWELL.1, connection.stream.shutdown()).await;
    }
}

struct Connection<M: Machine, T> {
    stream: T,
    session: Session,
    access: Access,
    /// Its writes, in their order, and each of them done once.
    lane: coracle::Session<M>,
    transaction: Transaction,
    backups: Backups,
    parser: Parser,
    /// The commands of this turn.
    queue: VecDeque<Command>,
    /// What was wrong after them.
    fault: Option<ProtocolError>,
    replies: Replies,
    /// What the commands of this turn take, beyond [`OWN`].
    commands: Shares,
    /// The wait for the rest of a command.
    half: Wait,
    /// Bytes of the values that are being sent.
    fetched: usize,
    /// What they and the replies take, beyond [`OWN`].
    owed: Shares,
    /// The wait until more of the replies is taken.
    slow: Wait,
    refusals: Refusals,
    place: Place,
    /// Becomes true when the server stops.
    stopping: watch::Receiver<bool>,
    /// It has heard of that, and ends once its replies are sent.
    stops: bool,
    shared: Arc<Shared<M>>,
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
            self.rest().await?;
        }
    }

    /// Between two turns: what they took is given back, and one that was refused is not heard for a while.
    async fn rest(&mut self) -> Result<(), End> {
        // It holds less than before, so there is room.
        let _ = self.commands.set((self.parser.held() + self.transaction.held()).saturating_sub(OWN));
        if let Some(until) = self.refusals.deaf_until() {
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                _ = self.stopping.wait_for(|stopping| *stopping) => return Err(End::Stopping),
            }
        }
        Ok(())
    }

    /// Keeps nothing of what came.
    fn forget(&mut self) {
        (self.parser, self.queue) = (Parser::new(), VecDeque::new());
        self.half = Wait::default();
        self.commands.clear();
    }

    /// Keeps nothing of what was to be sent.
    fn forget_replies(&mut self) {
        self.replies.bytes = Vec::new();
        self.fetched = 0;
        self.slow = Wait::default();
        self.owed.clear();
    }

    /// Waits for bytes and cuts them into commands.
    async fn receive(&mut self) -> Result<(), End> {
        if self.stops {
            return Err(End::Stopping);
        }
        let begun = self.parser.started();
        let silence = self.place.guest().map(|guest| guest.silence());
        let limit = silence.unwrap_or(self.shared.limits.half_command);
        let Connection { stream, parser, queue, fault, session, half, commands, .. } = self;
        let client = session.listed();
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
                        // It was answered when it began.
                        Ok(Some(command)) if command.excess() == Some(Excess::Memory) => {}
                        Ok(Some(command)) => queue.push_back(command),
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
            () = client.woken.notified() => {
                return Err(if client.is_killed() { End::Gone } else { End::Stopping });
            }
            // Lazy: a timer is made only where there is something to wait for.
            over = half.over(limit, || commands.lists()), if begun || silence.is_some() => {
                return Err(End::Fault(match over {
                    _ if silence.is_some() => FULL.to_owned(),
                    Over::Late => format!("ERR Protocol error: half a command after {limit:?}"),
                    Over::GaveWay => NO_COMMAND_ROOM.to_owned(),
                }));
            }
        }
        if !self.queue.is_empty() || !self.parser.started() {
            self.half.end();
        }
        // It may have become somebody else since the turn before, or its user may have been removed.
        self.count_for_user().map_err(|full| End::Fault(full.to_owned()))?;
        self.charge()
    }

    /// Whatever it holds is counted for the user that it is, too. The error is the text of a reply.
    fn count_for_user(&mut self) -> Result<(), &'static str> {
        let news = self.place.is_of(self.access.user_name(), &self.shared.accounts);
        if news != Ok(false) {
            let user = self.place.user_account();
            self.commands.of_user(user.map(|account| &account.commands));
            self.owed.of_user(user.map(|account| &account.replies));
        }
        news.map(drop).map_err(|()| FULL)
    }

    /// Notes what has come. Where there is no memory for it, all of it is refused.
    fn charge(&mut self) -> Result<(), End> {
        // The bytes twice: they are copied into an entry.
        let charge =
            |command: &Command| 2 * command.bytes() + command.len() * ARGUMENT_OVERHEAD + COMMAND_OVERHEAD;
        let queued: usize = self.queue.iter().map(charge).sum();
        let held = self.parser.held() + self.transaction.held();
        if self.commands.set((held + queued).saturating_sub(OWN)) {
            return Ok(());
        }
        self.shared.about.served.refuse(Refused::Memory);
        for command in std::mem::take(&mut self.queue) {
            self.transaction.lose(&command);
            self.replies.error(NO_COMMAND_ROOM);
        }
        if self.parser.started() {
            if !self.parser.step_over() {
                return Err(End::Fault(NO_COMMAND_ROOM.to_owned()));
            }
            self.half.end();
            self.transaction.lose_some();
            self.replies.error(NO_COMMAND_ROOM);
        }
        self.commands.clear();
        Ok(())
    }

    /// Answers one request.
    async fn answer(&mut self, request: Request) -> Result<(), End> {
        match request {
            Request::Session(name, command) => {
                if name == "reset" {
                    self.access.reset();
                }
                self.session.answer(name, &command, &mut self.replies);
            }
            Request::Login(login) => match self.log_in(Some(login)).await {
                Ok(()) => self.replies.simple("OK"),
                Err(error) => self.replies.error(error),
            },
            Request::Select(database) => {
                self.session.database = database;
                self.replies.simple("OK");
            }
            Request::Keys(pattern) => return self.keys(pattern).await,
            Request::Watch(keys) => self.watch(keys).await,
            Request::Exec => return self.exec().await,
            Request::Wait => self.wait().await,
            Request::Queued => self.replies.simple("QUEUED"),
            Request::Hello(command) => match self.hello(&command).await {
                Ok(hello) => self.session.greet(hello, &mut self.replies),
                Err(error) => self.replies.error(error),
            },
            Request::Acl(command) if command.is(1, "whoami") && command.len() == 2 => {
                self.replies.bulk(self.access.name().as_bytes());
            }
            Request::Acl(command) => self.replies.error(&commands::unknown_subcommand(&command)),
            Request::Admin(command) if command.is(1, "token") => match self.access.show_token(&command) {
                Ok(()) => self.replies.simple("OK"),
                Err(error) => self.replies.error(error),
            },
            Request::Admin(command) if command.is(1, "users") => return self.manage(&command).await,
            Request::Admin(command) if command.is(1, "backup") => {
                let Shared { node, timeout, .. } = &*self.shared;
                self.backups.answer(node, *timeout, &command, &mut self.replies).await;
            }
            Request::Admin(command) => {
                let Shared { node, rules, .. } = &*self.shared;
                let token = rules.token.as_ref().filter(|_| !self.access.is_admin());
                admin::answer(node, &command, token, &mut self.replies).await;
            }
            Request::Refuse(error) | Request::Reject(error) => {
                self.shared.about.served.failed();
                self.replies.error(&error);
            }
            Request::Done => self.replies.simple("OK"),
            Request::Quit => {
                self.replies.simple("OK");
                self.send().await?;
                return Err(End::Gone);
            }
            // One alone is a batch of its own.
            Request::Write(write, phrase) => return self.write(vec![write], vec![phrase]).await,
            Request::Read(read, phrase) => return self.read(vec![read], vec![phrase]).await,
            Request::Multi | Request::Discard | Request::Unwatch => {
                self.replies.error("ERR this is for a transaction");
            }
        }
        self.send_if_many().await
    }

    async fn log_in(&mut self, login: Option<Login>) -> Result<(), &'static str> {
        let Some(login) = login else { return Ok(()) };
        let Shared { node, timeout, .. } = &*self.shared;
        self.access.log_in(node, *timeout, login).await?;
        self.count_for_user().inspect_err(|_| self.access.reset())?;
        self.session.listed().is_user(&self.access.name());
        Ok(())
    }

    async fn hello(&mut self, command: &Command) -> Result<Hello, &'static str> {
        let mut hello = Hello::parse(command)?;
        self.log_in(hello.login.take()).await?;
        Ok(hello)
    }

    /// Answers `CORACLE USERS …`.
    async fn manage(&mut self, command: &Command) -> Result<(), End> {
        if command.is(2, "list") && command.len() == 3 {
            let Shared { node, timeout, .. } = &*self.shared;
            match user_commands::list(&*self.access.all(node, *timeout).await) {
                Ok(json) => self.replies.bulk(json.as_bytes()),
                Err(error) => self.replies.error(&error),
            }
            return self.send_if_many().await;
        }
        match user_commands::change(command) {
            Ok(change) if self.access.may_begin() => {
                return self.write(vec![change], vec![Phrase::Plain]).await;
            }
            Ok(_) => self.replies.error(user_commands::NOT_FIRST),
            Err(error) => self.replies.error(&error),
        }
        self.send_if_many().await
    }

    async fn send_if_many(&mut self) -> Result<(), End> {
        if self.has_many() { self.send_many().await } else { Ok(()) }
    }

    /// Whether so many replies have gathered that they are to be sent.
    fn has_many(&self) -> bool {
        self.replies.bytes.len() >= SEND_FROM
    }

    async fn send_many(&mut self) -> Result<(), End> {
        self.send().await?;
        // So much took its time: now all other connections have theirs.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Notes that so many bytes of values are to be sent. False if there is no memory for that.
    fn owe(&mut self, bytes: usize) -> bool {
        // They are copied on their way out, one value and a little at a time.
        let copied = bytes.min(MAX_VALUE + SEND_FROM);
        let fits = self.owed.set((bytes + copied + self.replies.bytes.len()).saturating_sub(OWN));
        if !fits {
            self.shared.about.served.refuse(Refused::Memory);
        }
        self.fetched = if fits { bytes } else { 0 };
        fits
    }

    /// Sends all replies, as long as the client goes on taking them.
    async fn send(&mut self) -> Result<(), End> {
        let owed = (self.fetched + self.replies.bytes.len()).saturating_sub(OWN);
        if owed > self.owed.held() && !self.owed.set(owed) {
            tracing::debug!("a client is let go: the memory for replies of all clients is used up");
            return Err(End::Gone);
        }
        let mut bytes = &self.replies.bytes[..];
        while !bytes.is_empty() {
            let limit = self.shared.limits.stalled;
            let sent = tokio::select! {
                biased;
                sent = self.stream.write(bytes) => sent?,
                _ = self.slow.over(limit, || self.owed.lists()) => 0,
                () = self.session.listed().woken.notified() => {
                    if !self.session.listed().is_killed() {
                        self.stops = true;
                        continue;
                    }
                    0
                }
            };
            match sent {
                0 => return Err(End::Gone),
                sent => bytes = &bytes[sent..],
            }
            self.slow.end();
        }
        // An encrypted connection has kept the last of it.
        tokio::select! {
            biased;
            flushed = self.stream.flush() => flushed?,
            _ = self.slow.over(self.shared.limits.stalled, || self.owed.lists()) => return Err(End::Gone),
        }
        self.slow.end();
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
