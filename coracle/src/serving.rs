//! A node's side of its clients' connections: what they ask goes to consensus, and the answers go back.
//!
//! Each connection has a task on the runtime that the node was started on, so that whatever is decoded and encoded there, by
//! the user's code, holds up neither consensus nor the machine. A client numbers its writes itself (D5.6.2), in a session of
//! its own: they are proposed if this node leads, and sent back otherwise, to be sent again to whoever does. They are never
//! forwarded, and never go through this node's own courier. A query is answered by this node's machine, like that of a
//! caller in this process.
//!
//! Answers do not wait for each other: each is written by whoever has it.

use crate::applier::understand;
use crate::error::{Cause, ReadError, StopReason, WatchError, WriteError};
use crate::events::Event;
use crate::freshness::{Freshness, Seen};
use crate::inner::{Boxed, Inner};
use crate::joining;
use crate::proposal::Proposal;
use crate::reading;
use crate::requests::{Request, Write, Writer};
use crate::state_machine::{CodecError, StateMachine};
use crate::transport::visit::{Hears, Requests, Said, Speaker, UnderWay, Visitor};
use crate::transport::{Forward, ForwardReply, Newcomer, PeerMessage};
use crate::watching;
use crate::wire::{self, CloseReason, Incoming, Mode, Query, QueryReply, Watched, WireError};
use bytes::Bytes;
use coracle_core::LogId;
use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a stop waits for the goodbyes to clients.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest that a query is waited for, whatever its client says.
const LONGEST: Duration = Duration::from_secs(3600);

/// What comes of a query.
type Outcome = Result<Seen<Bytes>, ReadError>;

/// What of a machine's types whoever serves clients needs.
pub(crate) trait Understands: Send + Sync {
    /// A proposal as this machine understands it, and the version of the machine that its command needs.
    fn write(&self, proposal: Proposal) -> Result<(Proposal, u16), CodecError>;

    /// Asks the machine, within this time.
    fn read(
        &self,
        query: &Bytes,
        limit: Duration,
        freshness: Freshness,
        inner: Arc<Inner>,
    ) -> Result<Boxed<'static, Outcome>, CodecError>;
}

/// That of one type.
pub(crate) struct Understanding<S>(PhantomData<fn(S) -> S>);

impl<S> Default for Understanding<S> {
    fn default() -> Understanding<S> {
        Understanding(PhantomData)
    }
}

impl<S: StateMachine> Understands for Understanding<S> {
    fn write(&self, proposal: Proposal) -> Result<(Proposal, u16), CodecError> {
        unharmed(|| understand::<S>(proposal))
    }

    fn read(
        &self,
        query: &Bytes,
        limit: Duration,
        freshness: Freshness,
        inner: Arc<Inner>,
    ) -> Result<Boxed<'static, Outcome>, CodecError> {
        let query = unharmed(|| S::decode_query(query))?;
        Ok(Box::pin(async move {
            let seen = reading::read::<S>(inner, query, limit, freshness).await?;
            let encoded = unharmed(|| S::encode_answer(&seen.answer));
            let answer = encoded.map_err(|error| ReadError::Invalid(error.to_string()))?;
            Ok(Seen { answer, applied: seen.applied, age: seen.age })
        }))
    }
}

/// What the user's code makes of what somebody sent, be it a panic.
fn unharmed<T>(code: impl FnOnce() -> Result<T, CodecError>) -> Result<T, CodecError> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| Err(CodecError(said(&*panic))))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("its encoding panicked: {}", text.unwrap_or_default())
}

/// Those who are served.
pub(crate) struct Serving {
    inner: Arc<Inner>,
    understands: Arc<dyn Understands>,
    runtime: Handle,
    tasks: JoinSet<()>,
    over: watch::Sender<bool>,
    /// One newcomer is let in at a time.
    admits: Arc<Semaphore>,
}

impl Serving {
    /// On this runtime.
    pub(crate) fn new(inner: Arc<Inner>, understands: Arc<dyn Understands>, runtime: Handle) -> Serving {
        let (tasks, over) = (JoinSet::new(), watch::Sender::new(false));
        Serving { inner, understands, runtime, tasks, over, admits: Arc::new(Semaphore::new(1)) }
    }

    /// Serves one more.
    pub(crate) fn take_in(&mut self, visitor: Visitor) {
        while self.tasks.try_join_next().is_some() {}
        let (inner, understands) = (self.inner.clone(), self.understands.clone());
        let whole = serve(visitor, inner, understands, self.over.subscribe());
        self.tasks.spawn_on(whole, &self.runtime);
    }

    /// Lets a node in that asks for it, if that may be.
    pub(crate) fn admit(&mut self, newcomer: Newcomer, answer: oneshot::Sender<wire::Answer>) {
        while self.tasks.try_join_next().is_some() {}
        let refuse = |why: &str| {
            let why = wire::Objection::Other(why.to_owned());
            wire::Answer::Refused(self.inner.me.id, why)
        };
        if let Err(why) = joining::admits(&self.inner, &newcomer) {
            return drop(answer.send(refuse(why)));
        }
        let Ok(place) = self.admits.clone().try_acquire_owned() else {
            return drop(answer.send(refuse("another node is being let in")));
        };
        let inner = self.inner.clone();
        let letting = async move {
            // Whoever asked may have gone.
            drop(answer.send(joining::take_in(&inner, &newcomer).await));
            drop(place);
        };
        self.tasks.spawn_on(letting, &self.runtime);
    }

    /// Says goodbye to all of them.
    pub(crate) async fn finish(mut self) {
        self.over.send_replace(true);
        let _ = timeout(PATIENCE, async { while self.tasks.join_next().await.is_some() {} }).await;
        self.tasks.shutdown().await;
    }
}

/// Serves one client to its end.
async fn serve(
    visitor: Visitor,
    inner: Arc<Inner>,
    understands: Arc<dyn Understands>,
    mut over: watch::Receiver<bool>,
) {
    let node = inner.me.id;
    let (visit, requests) = match visitor.enter() {
        Ok(entered) => entered,
        Err(error) => return tracing::warn!(%node, "a client cannot be served: {error}"),
    };
    let speaker = visit.speaker();
    let mut directory = inner.directory.clone();
    directory.mark_changed();
    let tells = async {
        loop {
            tokio::select! {
                // Without a sender the node is gone, and says so below.
                Ok(()) = directory.changed() => {
                    let newest = directory.borrow_and_update().1.clone();
                    speaker.say(newest.encode());
                }
                _ = over.wait_for(|over| *over) => break,
            }
        }
        speaker.close(CloseReason::Stopping, "the node stops");
        std::future::pending::<()>().await;
    };
    let mut server = Server {
        inner: inner.clone(),
        understands,
        requests,
        speaker: speaker.clone(),
        reads: JoinSet::new(),
    };
    let end = tokio::select! {
        end = visit.run(&mut server) => end,
        () = tells => String::new(),
    };
    tracing::debug!(%node, end, "the connection of a client ended");
}

/// What a client asks, one after the other.
struct Server {
    inner: Arc<Inner>,
    understands: Arc<dyn Understands>,
    requests: Requests,
    speaker: Speaker,
    /// Queries that wait for their answers. They end with the connection.
    reads: JoinSet<()>,
}

impl Hears for Server {
    async fn hear(&mut self, incoming: Incoming, length: usize) -> Result<(), WireError> {
        let Some(under_way) = self.requests.admit(length).await else { return Ok(()) };
        match incoming {
            Incoming::Message(PeerMessage::Forward(forward)) => self.write(forward, under_way).await,
            Incoming::Query(query) => self.read(query, under_way),
            _ => return Err(WireError::Invalid("something else than the request of a client")),
        }
        Ok(())
    }
}

impl Server {
    async fn write(&self, forward: Forward, under_way: UnderWay) {
        let Forward { id, term, proposal, .. } = forward;
        let (speaker, fate) = (self.speaker.clone(), Mutex::new(Fate::Here));
        let client = Arc::new(Answering { id, speaker, fate, _under_way: under_way });
        let proposal = match self.understood(proposal) {
            Ok(proposal) => proposal,
            Err(error) => return client.answer(Err(error)),
        };
        let request = Request::Submit { proposal, term, writer: Writer::to(client.clone()) };
        match self.inner.requests.send(request).await {
            Ok(()) => client.handed_over(),
            Err(refused) => client.answer(Err(self.inner.write_refused(refused))),
        }
    }

    fn understood(&self, proposal: Proposal) -> Result<Proposal, WriteError> {
        if let Proposal::Command(_) = proposal {
            // It could be done twice.
            let problem = "a client writes in a session, and nowhere else".to_owned();
            return Err(WriteError::Invalid(problem));
        }
        if let Some(command) = proposal.command() {
            self.inner.check_length(command)?;
        }
        let (proposal, needs) = self.understands.write(proposal)?;
        self.inner.check_version(needs)?;
        Ok(proposal)
    }

    fn read(&mut self, query: Query, under_way: UnderWay) {
        while self.reads.try_join_next().is_some() {}
        let (id, speaker) = (query.id, self.speaker.clone());
        let asked = self.ask(query);
        self.reads.spawn(async move {
            let outcome = match asked {
                Ok(answer) => answer.await,
                Err(error) => Err(error),
            };
            if speaker.say(QueryReply { id, outcome }.encode()) == Said::TooLarge {
                let error = ReadError::Invalid("the client does not take so large an answer".to_owned());
                speaker.say(QueryReply { id, outcome: Err(error) }.encode());
            }
            drop(under_way);
        });
    }

    fn ask(&self, query: Query) -> Result<Boxed<'static, Outcome>, ReadError> {
        let Query { time_left, mode, query, .. } = query;
        let limit = Duration::from_millis(time_left).min(LONGEST);
        let inner = self.inner.clone();
        match mode {
            Mode::Read(freshness) => {
                let answer = self.understands.read(&query, limit, freshness, inner);
                answer.map_err(|error| ReadError::Invalid(error.to_string()))
            }
            Mode::Watch(from) => Ok(Box::pin(async move {
                let answer = watched(watching::some(inner, from, limit).await)?.encode();
                Ok(Seen { answer, applied: LogId::ZERO, age: None })
            })),
            Mode::Unknown(mode) => {
                Err(ReadError::Invalid(format!("this node knows no reads of mode {mode}")))
            }
        }
    }
}

/// What a watch brought, as the client is told it: what another node may have is for another to say.
fn watched(some: Result<Vec<Event>, WatchError>) -> Result<Watched, ReadError> {
    match some {
        Ok(events) => Ok(Watched::Events(events)),
        Err(WatchError::Compacted(upto)) => Ok(Watched::Compacted(upto)),
        Err(WatchError::Off) => Ok(Watched::Off),
        Err(WatchError::Diverged) => Err(ReadError::Diverged),
        Err(WatchError::Stopped(reason)) => Err(ReadError::Stopped(reason)),
        Err(WatchError::Unreachable(why)) => Err(ReadError::Unreachable(why)),
    }
}

/// A client that waits for what comes of a write.
struct Answering {
    id: u64,
    speaker: Speaker,
    fate: Mutex<Fate>,
    _under_way: UnderWay,
}

/// Where its write is.
enum Fate {
    /// On its way to consensus, which may refuse it and then drops it: that is certain, and told otherwise.
    Here,
    /// Dropped on its way, by whomever.
    Dropped,
    /// With consensus.
    There,
}

impl Answering {
    /// Consensus has it.
    fn handed_over(&self) {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(std::mem::replace(&mut *fate, Fate::There), Fate::Dropped) {
            drop(fate);
            self.lose();
        }
    }
}

impl Write for Answering {
    fn gave_up(&self) -> bool {
        // It is in the log, or soon will be: only the answer is dropped.
        false
    }

    fn answer(&self, outcome: Result<Bytes, WriteError>) {
        let reply = |outcome| PeerMessage::ForwardReply(ForwardReply { id: self.id, outcome });
        if self.speaker.say(wire::encode(&reply(outcome))) == Said::TooLarge {
            self.speaker.say(wire::encode(&reply(Err(WriteError::Unknown(Cause::ReplyLost)))));
        }
    }

    fn lose(&self) {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*fate, Fate::There) {
            *fate = Fate::Dropped;
            return;
        }
        drop(fate);
        self.answer(Err(WriteError::Unknown(Cause::Stopped(StopReason::Requested))));
    }
}
