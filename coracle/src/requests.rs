//! What a handle asks of its node, and how the answers come back.

use crate::backup;
use crate::entry::Entry;
use crate::error::{Cause, EntryLookupError, ReadError, SnapshotError, StopReason, WriteError};
use crate::given_up::RebuildError;
use crate::proposal::Proposal;
use crate::rulings::{Ruled, Ruling};
use crate::slot::{Holds, Slot, Waiting};
use crate::state_machine::StateMachine;
use crate::status::{SnapshotStatus, Status};
use crate::wire::{Answer, Ask};
use crate::work::{Changed, Transferred, Waits, Way};
use bytes::Bytes;
use coracle_core::{Index, LogId, Membership, NodeId, Term};
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// What a handle asks. It does not know the machine's types: what has them is in the [`slot`](crate::slot)s of the callers.
pub(crate) enum Request {
    /// Replicate an encoded command, in this way.
    Write { command: Bytes, limit: Duration, way: Way, writer: Writer },
    /// Put into the log what a client numbers itself, if this node leads in that term.
    Submit { proposal: Proposal, term: Term, writer: Writer },
    /// Answer a query: from a state that has applied everything up to there, or else from one that is not older than the request.
    Read { reader: Reader, from: Option<Index> },
    /// Give out a snapshot that reaches so far.
    Backup { reaches: Index, answer: backup::Answer },
    /// Give out this very snapshot, if it is still there: its newest entry, and the bits that name the file.
    SameBackup { snapshot: LogId, file: u64, answer: backup::Answer },
    /// Found the cluster of a list whose lowest node this is.
    Found { ask: Box<Ask>, answer: oneshot::Sender<Answer> },
    /// Change the membership that stands at this entry.
    Change { expected: LogId, to: Box<Membership>, answer: oneshot::Sender<Changed> },
    /// Let another node lead: this one, or the best.
    Transfer { to: Option<NodeId>, answer: oneshot::Sender<Transferred> },
    /// Rule what becomes of an entry that cannot be applied.
    Rule { ruling: Ruling, answer: oneshot::Sender<Ruled> },
    /// Give the machine up, and rebuild it from another member's.
    Rebuild { answer: oneshot::Sender<Result<(), RebuildError>> },
    /// Tell how the node stands, at the end of a turn.
    Status { answer: oneshot::Sender<Status> },
    /// Take a snapshot now.
    Snapshot { answer: oneshot::Sender<Result<SnapshotStatus, SnapshotError>> },
    /// Look at an entry of the log.
    Entry { index: Index, answer: oneshot::Sender<Result<Entry, EntryLookupError>> },
}

impl Request {
    /// The bytes that it holds. What a query holds is not known: queries are only counted.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Request::Write { command, .. } => command.len(),
            Request::Submit { proposal, .. } => proposal.len(),
            _ => 0,
        }
    }

    /// Answers a request that was never looked at: the node has stopped.
    pub(crate) fn turn_away(self, reason: &StopReason) {
        let reason = reason.clone();
        match self {
            Request::Write { writer, .. } | Request::Submit { writer, .. } => {
                writer.answer(Err(WriteError::Stopped(reason)));
            }
            Request::Read { reader, .. } => reader.refuse(ReadError::Stopped(reason)),
            Request::Entry { answer, .. } => drop(answer.send(Err(EntryLookupError::Stopped(reason)))),
            // The handle finds the reason by itself.
            Request::Backup { answer, .. } | Request::SameBackup { answer, .. } => drop(answer),
            Request::Found { answer, .. } => drop(answer),
            Request::Change { answer, .. } => drop(answer),
            Request::Transfer { answer, .. } => drop(answer),
            Request::Rule { answer, .. } => drop(answer),
            Request::Rebuild { answer } => drop(answer),
            Request::Status { answer } => drop(answer),
            Request::Snapshot { answer } => drop(answer),
        }
    }
}

/// What a machine replied.
pub(crate) enum Replied<S: StateMachine> {
    /// The machine of this node.
    Here(S::Reply),
    /// That of another one. The caller decodes it, since that is user code.
    Encoded(Bytes),
}

impl<S: StateMachine> Replied<S> {
    pub(crate) fn decode(self) -> Result<S::Reply, WriteError> {
        match self {
            Replied::Here(reply) => Ok(reply),
            // It is done; only what it returned cannot be told.
            Replied::Encoded(bytes) => {
                S::decode_reply(&bytes).map_err(|_| WriteError::Unknown(Cause::ReplyLost))
            }
        }
    }
}

/// Where the outcome of a write goes.
pub(crate) struct Written<S: StateMachine>(Slot<Result<Replied<S>, WriteError>>);

/// Where the answer to a query goes, and until the machine takes it the query itself.
pub(crate) struct Asked<S: StateMachine> {
    query: Mutex<Option<S::Query>>,
    answer: Slot<Result<(S::Answer, LogId), ReadError>>,
    /// The entry up to which the machine is waited for, once that is all that is waited for; 0 before.
    confirmed: AtomicU64,
}

impl<S: StateMachine> Written<S> {
    /// Both sides of a write.
    pub(crate) fn new() -> (Writer, Waiting<Written<S>>) {
        let written = Arc::new(Written::<S>(Slot::new()));
        (Writer(Some(written.clone())), Waiting::new(written))
    }
}

impl<S: StateMachine> Asked<S> {
    /// Both sides of a read.
    pub(crate) fn new(query: S::Query) -> (Reader, Waiting<Asked<S>>) {
        let (query, confirmed) = (Mutex::new(Some(query)), AtomicU64::new(0));
        let asked = Arc::new(Asked::<S> { query, answer: Slot::new(), confirmed });
        (Reader(Some(asked.clone())), Waiting::new(asked))
    }

    /// The query, unless the machine has got it.
    pub(crate) fn take_back(&self) -> Option<S::Query> {
        self.query.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The entry up to which the machine is waited for, if that is all that is waited for.
    pub(crate) fn confirmed(&self) -> Option<Index> {
        Some(Index(self.confirmed.load(Ordering::Relaxed))).filter(|index| *index > Index::ZERO)
    }
}

impl<S: StateMachine> Holds for Written<S> {
    type Answer = Result<Replied<S>, WriteError>;

    fn slot(&self) -> &Slot<Result<Replied<S>, WriteError>> {
        &self.0
    }
}

impl<S: StateMachine> Holds for Asked<S> {
    type Answer = Result<(S::Answer, LogId), ReadError>;

    fn slot(&self) -> &Slot<Result<(S::Answer, LogId), ReadError>> {
        &self.answer
    }
}

/// What consensus needs of whoever waits for a write.
pub(crate) trait Write: Any + Send + Sync {
    fn gave_up(&self) -> bool;
    fn answer(&self, outcome: Result<Bytes, WriteError>);
    fn lose(&self);
}

impl<S: StateMachine> Write for Written<S> {
    fn gave_up(&self) -> bool {
        self.0.is_left()
    }

    fn answer(&self, outcome: Result<Bytes, WriteError>) {
        self.0.answer(outcome.map(Replied::Encoded));
    }

    fn lose(&self) {
        self.0.lose();
    }
}

/// What consensus needs of whoever waits for a read.
trait Read: Any + Send + Sync {
    fn gave_up(&self) -> bool;
    fn refuse(&self, why: ReadError);
    fn confirm(&self, upto: Index);
    fn lose(&self);
}

/// Whoever wants to know up to where everything goes that is done by now, and asks the machine nothing.
struct Point(Mutex<Option<oneshot::Sender<Result<Index, ReadError>>>>);

impl Point {
    fn tell(&self, told: Result<Index, ReadError>) {
        let teller = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(teller.map(|teller| teller.send(told)));
    }
}

impl Read for Point {
    fn gave_up(&self) -> bool {
        let teller = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        teller.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn refuse(&self, why: ReadError) {
        self.tell(Err(why));
    }

    fn confirm(&self, upto: Index) {
        self.tell(Ok(upto));
    }

    fn lose(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl<S: StateMachine> Read for Asked<S> {
    fn gave_up(&self) -> bool {
        self.answer.is_left()
    }

    fn refuse(&self, why: ReadError) {
        self.answer.answer(Err(why));
    }

    fn confirm(&self, upto: Index) {
        self.confirmed.store(upto.0, Ordering::Relaxed);
    }

    fn lose(&self) {
        self.answer.lose();
    }
}

/// Whom the outcome of a write goes to, whatever the machine is. Dropped without an answer, it says that none will come.
pub(crate) struct Writer(Option<Arc<dyn Write>>);

impl Writer {
    /// Whoever this is for.
    pub(crate) fn to(write: Arc<dyn Write>) -> Writer {
        Writer(Some(write))
    }

    /// An encoded reply, or why there is none.
    pub(crate) fn answer(mut self, outcome: Result<Bytes, WriteError>) {
        if let Some(write) = self.0.take() {
            write.answer(outcome);
        }
    }

    /// The reply of this node's machine. Only that machine's own callers come to it.
    pub(crate) fn reply<S: StateMachine>(mut self, reply: S::Reply) {
        let Some(write) = &self.0 else { return };
        if let Some(Written(slot)) = (&**write as &dyn Any).downcast_ref::<Written<S>>() {
            slot.answer(Ok(Replied::Here(reply)));
            self.0 = None;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(write) = &self.0 {
            write.lose();
        }
    }
}

impl Waits for Writer {
    fn gave_up(&self) -> bool {
        self.0.as_ref().is_none_or(|write| write.gave_up())
    }
}

/// Whom the answer to a query goes to, with the query, whatever the machine is. Dropped without an answer, it says that
/// none will come.
pub(crate) struct Reader(Option<Arc<dyn Read>>);

impl Reader {
    /// Why there is no answer.
    pub(crate) fn refuse(mut self, why: ReadError) {
        if let Some(read) = self.0.take() {
            read.refuse(why);
        }
    }

    /// Both sides of the question up to where everything goes that is done by now.
    pub(crate) fn point() -> (Reader, oneshot::Receiver<Result<Index, ReadError>>) {
        let (teller, told) = oneshot::channel();
        (Reader(Some(Arc::new(Point(Mutex::new(Some(teller)))))), told)
    }

    /// A quorum has confirmed the read, from a state up to there at least.
    pub(crate) fn confirm(&self, upto: Index) {
        if let Some(read) = &self.0 {
            read.confirm(upto);
        }
    }

    /// What is asked, if it is something. Only the machine's own callers come to it, and each once.
    pub(crate) fn query<S: StateMachine>(&self) -> Option<S::Query> {
        self.asked::<S>()?.query.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the machine said, and the newest entry that it had applied.
    pub(crate) fn answer<S: StateMachine>(mut self, answer: Result<(S::Answer, LogId), ReadError>) {
        if let Some(asked) = self.asked::<S>() {
            asked.answer.answer(answer);
            self.0 = None;
        }
    }

    fn asked<S: StateMachine>(&self) -> Option<&Asked<S>> {
        (&**self.0.as_ref()? as &dyn Any).downcast_ref()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(read) = &self.0 {
            read.lose();
        }
    }
}

impl Waits for Reader {
    fn gave_up(&self) -> bool {
        self.0.as_ref().is_none_or(|read| read.gave_up())
    }
}
