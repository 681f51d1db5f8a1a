//! The machine with all that replicas must agree on: what a snapshot holds.
//!
//! The user's machine, the newest entry that it has applied, the digest of everything up to there, and the
//! cluster's clock as far as entries have brought it. All of it is a function of the log alone.

use crate::digests::CHECKED_EVERY;
use crate::entry::{Entry, Kind};
use crate::error::{Cause, ReadError, StopReason, WriteError};
use crate::events::{Event, News, Position, Publishes};
use crate::pending::{Change, Pending};
use crate::proposal::{Numbered, Proposal};
use crate::rulings::{Ruling, Rulings, Verdict};
use crate::sessions::{Judged, Sessions};
use crate::state_machine::{Context, QueryContext, StateMachine};
use crate::storage::snapshots::{Meta, Reader, blob};
use crate::timers::Timers;
use bytes::Bytes;
use coracle_core::{Broken, Index, LogId};
use std::any::Any;
use std::fmt::Display;
use std::io::{self, Write};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

/// A digest over all that replicas agree on: entries, replies, and the machine's own digest.
pub type Digest = [u8; 16];

/// The formats of the digests that are compared: the machine's own, or of a machine that keeps none the chain over
/// entries and replies.
const OF_THE_STATE: u32 = 1;
const OF_THE_CHAIN: u32 = 2;

/// Up to so many bytes are copied together and hashed in one go: that takes half of the time.
const IN_ONE_PIECE: usize = 768;

/// What writes a machine's state, on a thread of its own.
pub(crate) type SaveState = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// What came of an entry.
#[derive(Default)]
pub(crate) enum Applied<S: StateMachine> {
    /// Nothing that anybody waits for.
    #[default]
    Nothing,
    /// A command took effect: what it returned, and the encoding of that if it has one. A reply that has none is lost to a
    /// node that forwarded the command, and is no reason to stop.
    Replied(S::Reply, Option<Bytes>),
    /// What a session has to say: the answer that a command had before, the name of a new session, or why not.
    Told(Result<Bytes, WriteError>),
    /// The cluster skips this entry, and this machine has applied it: it is no replica of the others' any more.
    Passed(LogId),
}

/// A state machine and how it came where it is.
#[derive(Clone)]
pub(crate) struct Replicated<S> {
    machine: S,
    applied: LogId,
    digest: Digest,
    cluster_time: u64,
    sessions: Sessions,
    /// What the machine is told of each entry, with the timers that are set and the effects that are pending.
    context: Context,
    /// What was ruled about entries that could not be applied.
    rulings: Rulings,
    /// Events of entries up to this one were published before: the machine went back, and applies those again.
    told: Index,
    /// The newest level of the entries that it has applied.
    level: u16,
    /// The newest version of the machine that they were made for.
    version: u16,
    /// The membership in force there, with its entry.
    membership: (LogId, Bytes),
    /// What the state looked like at the newest index at which it is compared with others.
    compared: Option<coracle_core::Digest>,
    /// At which multiples that is.
    pub(crate) compared_every: u64,
    /// What those who watch have not been told yet; none is gathered where nobody can watch.
    news: News,
    pub(crate) publishes: bool,
    pub(crate) broken: Broken,
    /// Room for what is hashed in one go.
    row: Vec<u8>,
}

impl<S: StateMachine> Replicated<S> {
    /// A machine that has applied nothing.
    pub(crate) fn new(machine: S) -> Replicated<S> {
        let (applied, digest) = (LogId::ZERO, Digest::default());
        let (compared, compared_every) = (None, CHECKED_EVERY);
        Replicated {
            machine,
            applied,
            digest,
            cluster_time: 0,
            sessions: Sessions::default(),
            context: Context::new(LogId::ZERO, 0, 0),
            rulings: Rulings::default(),
            told: Index::ZERO,
            level: 0,
            version: 0,
            membership: (LogId::ZERO, Bytes::new()),
            compared,
            compared_every,
            news: News::default(),
            publishes: false,
            broken: Broken::default(),
            row: Vec::new(),
        }
    }

    /// The newest entry applied, and the digest of everything up to it.
    pub(crate) fn applied(&self) -> (LogId, Digest) {
        (self.applied, self.digest)
    }

    /// The newest level of the entries that it has applied.
    pub(crate) fn level(&self) -> u16 {
        self.level
    }

    /// The newest version of the machine that the entries were made for that it has applied.
    pub(crate) fn version(&self) -> u16 {
        self.version
    }

    /// When the first timer is due, by the cluster's clock, and by which entry it was set.
    pub(crate) fn due(&self) -> Option<(u64, Index)> {
        self.context.timers.first()
    }

    /// What was published since the last call.
    pub(crate) fn news(&mut self) -> News {
        mem::take(&mut self.news)
    }

    /// What has changed since the last call among the effects that are pending.
    pub(crate) fn changed_effects(&mut self) -> Vec<Change> {
        self.context.pending.changes()
    }

    /// What other nodes compare with what they have.
    pub(crate) fn compared(&self) -> Option<coracle_core::Digest> {
        self.compared
    }

    /// What the machine holds changes by itself, as in bad memory.
    #[cfg(feature = "sim")]
    pub(crate) fn rot(&mut self, bits: u64) {
        let bits = bits.to_le_bytes();
        self.digest.iter_mut().zip(bits).for_each(|(byte, bits)| *byte ^= bits);
    }

    /// What replicas agree on besides the machine, as of now.
    fn meta(&self) -> Meta {
        Meta {
            id: self.applied,
            digest: self.digest,
            cluster_time: self.cluster_time,
            machine_version: S::VERSION,
            compared: self.compared,
            membership: self.membership.clone(),
            level: self.level,
            sessions: if self.level > 0 { self.sessions.encode() } else { Bytes::new() },
            timers: self.context.timers.encode(),
            // The first is what there is where nothing is said.
            entries_version: if self.version > 1 { self.version } else { 0 },
            rulings: self.rulings.encode(),
            effects: self.context.pending.encode(),
        }
    }

    /// What a snapshot holds as of now, and what writes the machine's state beside it.
    pub(crate) fn snapshot(&self) -> Result<(Meta, SaveState), StopReason> {
        let meta = self.meta();
        let save = catch_unwind(AssertUnwindSafe(|| Box::new(self.machine.snapshot()) as SaveState));
        let save = save.map_err(|panic| StopReason::Panicked {
            at: format!("snapshot, after entry {}", self.applied),
            message: said(&*panic),
        })?;
        Ok((meta, save))
    }

    /// What writes the state of a machine that has applied nothing, so that it can be brought back to that.
    pub(crate) fn beginning(&self) -> Option<SaveState> {
        let nothing = self.applied == LogId::ZERO;
        let take = || Box::new(self.machine.snapshot()) as SaveState;
        nothing.then(|| catch_unwind(AssertUnwindSafe(take)).ok()).flatten()
    }

    /// Goes back to where it had applied nothing.
    pub(crate) fn begin_anew(&mut self, state: &[u8]) -> Result<(), StopReason> {
        let machine = &mut self.machine;
        let restored = catch_unwind(AssertUnwindSafe(|| machine.restore(&mut &*state)));
        let problem = match restored {
            Ok(Ok(())) => return self.stand_at(Meta::default()).map_err(StopReason::Invariant),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => said(&*panic),
        };
        Err(apply_failed(
            LogId::ZERO,
            format!("the state with which the machine began cannot be restored: {problem}"),
        ))
    }

    /// Takes the state of a snapshot. After an error it is neither the old nor the new one.
    pub(crate) fn restore(&mut self, mut from: Reader) -> Result<(), StopReason> {
        let meta = from.meta.clone();
        let id = meta.id;
        let failed = |problem: String| StopReason::Apply { id, problem };
        if meta.machine_version > S::VERSION {
            return Err(failed(format!(
                "the snapshot was written by version {} of the state machine, and this program has \
                 version {}: upgrade the program",
                meta.machine_version,
                S::VERSION
            )));
        }
        let machine = &mut self.machine;
        let restored = catch_unwind(AssertUnwindSafe(|| machine.restore(&mut from)));
        let restored = restored.map_err(|panic| StopReason::Panicked {
            at: format!("restore, of the snapshot up to {id}"),
            message: said(&*panic),
        })?;
        restored.map_err(|error| failed(format!("the snapshot cannot be restored: {error}")))?;
        self.stand_at(meta)
            .map_err(|problem| failed(format!("the snapshot cannot be restored: {problem}")))?;
        self.persist()
    }

    /// From now on the machine's state is the one that comes with this.
    fn stand_at(&mut self, meta: Meta) -> Result<(), String> {
        let Meta {
            id,
            digest,
            cluster_time,
            machine_version: _,
            compared,
            membership,
            level,
            sessions,
            timers,
            entries_version,
            rulings,
            effects,
        } = meta;
        let known = if level > 0 && !self.broken.is("sessions-not-in-snapshots") {
            Sessions::decode(&sessions, self.broken)
        } else {
            Some(Sessions::new(self.broken))
        };
        self.sessions = known.ok_or("the sessions that come with it make no sense")?;
        let timers = if self.broken.is("timers-not-in-snapshots") { Bytes::new() } else { timers };
        let timers = Timers::decode(&timers, self.broken);
        self.context.timers = timers.ok_or("the timers that come with it make no sense")?;
        let effects = if self.broken.is("effects-not-in-snapshots") { Bytes::new() } else { effects };
        let pending = Pending::decode(&effects, self.broken);
        self.context.pending = pending.ok_or("the effects that come with it make no sense")?.jumped();
        self.rulings = Rulings::decode(&rulings).ok_or("the rulings that come with it make no sense")?;
        self.told = self.told.max(self.applied.index);
        (self.applied, self.digest, self.membership) = (id, digest, membership);
        (self.cluster_time, self.compared) = (cluster_time, compared);
        (self.level, self.version) = (level, entries_version);
        if id.index >= self.told && !self.broken.is("jump-not-told") {
            self.news.jump(id.index);
        }
        Ok(())
    }

    /// Lets a machine that keeps its own disk commit all that it has applied, and what is held here beside it.
    pub(crate) fn persist(&mut self) -> Result<(), StopReason> {
        if !S::OWN_DISK {
            return Ok(());
        }
        let (id, blob) = (self.applied, blob::encode(&self.meta()));
        let machine = &mut self.machine;
        let persisted = catch_unwind(AssertUnwindSafe(|| machine.persist(id, &blob)));
        let persisted = persisted.map_err(|panic| StopReason::Panicked {
            at: format!("persist, after entry {id}"),
            message: said(&*panic),
        })?;
        persisted.map_err(|error| {
            apply_failed(
                id,
                format!("the state up to there cannot be kept on the state machine's own disk: {error}"),
            )
        })
    }

    /// It goes on in a cluster of its own, whose first membership comes with the state.
    pub(crate) fn founded(&mut self, at: LogId, membership: Bytes) -> Result<(), StopReason> {
        self.membership = (at, membership);
        (self.sessions, self.level, self.rulings) = (Sessions::new(self.broken), 0, Rulings::default());
        self.persist()
    }

    /// What a machine that keeps its own disk says at a start of where it stands; none if it has nothing.
    pub(crate) fn kept(&self) -> Result<Option<Meta>, String> {
        let machine = &self.machine;
        let applied = catch_unwind(AssertUnwindSafe(|| machine.applied()));
        let applied =
            applied.map_err(|panic| format!("it panicked when asked where it stands: {}", said(&*panic)))?;
        let Some((at, blob)) = applied else { return Ok(None) };
        if !S::OWN_DISK {
            return Err(
                "it says where it stands, and that it has no disk of its own: set OWN_DISK".to_owned()
            );
        }
        let unreadable =
            |problem| format!("the library's blob that came with entry {at} cannot be read: {problem}");
        let meta = blob::decode(&blob).map_err(unreadable)?;
        if meta.id != at {
            return Err(format!(
                "it says that it stands at entry {at}, and its blob is that of entry {}",
                meta.id
            ));
        }
        if meta.machine_version > S::VERSION {
            return Err(format!(
                "its state was written by version {} of the state machine, and this program has version {}: upgrade \
                 the program",
                meta.machine_version,
                S::VERSION
            ));
        }
        Ok(Some(meta))
    }

    /// Goes on from where the machine's own disk is.
    pub(crate) fn go_on_from(&mut self, meta: Meta) -> Result<(), String> {
        self.stand_at(meta)?;
        if self.broken.is("own-digest-lost") {
            self.digest = Digest::default();
        }
        Ok(())
    }

    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Applied<S>, StopReason> {
        let id = entry.id();
        self.begin(entry)?;
        let untold = self.context.pending.untold();
        let applied = self.carry_out(entry).inspect_err(|_| {
            self.news.events.retain(|event| event.at.index != id.index);
            if !self.broken.is("effect-of-failed-entry-kept") {
                self.context.pending.untell(untold);
            }
        })?;
        let told = match &applied {
            Applied::Replied(_, encoded) => encoded.as_deref(),
            Applied::Told(told) => told.as_deref().ok(),
            Applied::Nothing | Applied::Passed(_) => None,
        };
        self.end(entry, told.unwrap_or_default());
        Ok(applied)
    }

    /// The next entry comes.
    fn begin(&mut self, entry: &Entry) -> Result<(), StopReason> {
        let id = entry.id();
        if id.index != self.applied.index.next() {
            let problem = format!("entry {id} came to the machine after {}", self.applied);
            return Err(StopReason::Invariant(problem));
        }
        let made_by = entry.stamp().version;
        if made_by > S::VERSION {
            let problem = format!(
                "it was made by version {made_by} of the state machine, and this program has version {}: \
                 upgrade the program",
                S::VERSION
            );
            return Err(StopReason::Apply { id, problem });
        }
        self.cluster_time = self.cluster_time.max(entry.stamp().cluster_time);
        self.sessions.broken = self.broken;
        (self.context.timers.broken, self.context.pending.broken) = (self.broken, self.broken);
        // Before the command, which must not see what is over (D5.5.2).
        self.sessions.expire(self.cluster_time);
        self.level = self.level.max(entry.kind().level());
        self.version = self.version.max(made_by);
        Ok(())
    }

    /// Does what an entry says.
    fn carry_out(&mut self, entry: &Entry) -> Result<Applied<S>, StopReason> {
        Ok(match entry.kind() {
            Kind::Command => self.reply_to(entry, &entry.payload())?,
            Kind::Numbered | Kind::Session => self.in_session(entry)?,
            Kind::Membership => {
                self.membership = (entry.id(), Bytes::copy_from_slice(&entry.payload()));
                Applied::Nothing
            }
            Kind::Timer => {
                self.fire(entry)?;
                Applied::Nothing
            }
            Kind::Noop => Applied::Nothing,
            Kind::Ruling => {
                let ruling = Ruling::decode(&entry.payload());
                let ruling = ruling.ok_or_else(|| {
                    apply_failed(entry.id(), "its payload makes no sense for its kind".to_owned())
                })?;
                let passed = ruling.verdict == Verdict::Skip && !self.rulings.skips(ruling.entry);
                self.rulings.heed(ruling, entry.index());
                if passed { Applied::Passed(ruling.entry) } else { Applied::Nothing }
            }
        })
    }

    /// Does nothing in the place of an entry, by a ruling that stands there. A command of a session takes its number, without
    /// an answer, and timers that were to fire are set no more.
    pub(crate) fn skip(&mut self, entry: &Entry, ruled: Index) -> Result<(), StopReason> {
        self.begin(entry)?;
        let (kind, stamp) = (entry.kind(), entry.stamp());
        if let Some(Proposal::Numbered(place, _)) =
            Proposal::read(kind, stamp.session, stamp.sequence, &entry.payload())
            && matches!(self.sessions.judge(&place, self.cluster_time), Judged::New)
        {
            self.sessions.answered(&place, None);
        }
        if kind == Kind::Timer {
            for timer in self.context.timers.due_by(self.cluster_time) {
                self.context.timers.fires(timer);
            }
        }
        self.rulings.heed(Ruling { entry: entry.id(), verdict: Verdict::Skip }, ruled);
        self.end(entry, b"skipped");
        Ok(())
    }

    /// An entry was applied, or skipped.
    fn end(&mut self, entry: &Entry, told: &[u8]) {
        self.fold(entry, told);
        let id = entry.id();
        self.applied = id;
        if id.index.0.is_multiple_of(self.compared_every) {
            // A machine's own digest leaves the replies out, which may change with its version.
            let (sessions, timers) = (self.sessions.digest(), self.context.timers.digest());
            let pending = self.context.pending.digest();
            let own = |at: usize| sessions[at] ^ timers[at] ^ pending[at];
            let (format, bytes) = match self.machine.digest() {
                Some(state) => (OF_THE_STATE, std::array::from_fn(|at| state[at] ^ own(at))),
                None => (OF_THE_CHAIN, self.digest),
            };
            let version = u32::from(S::VERSION);
            self.compared = Some(coracle_core::Digest { index: id.index, format, version, bytes });
        }
    }

    /// An entry of a session.
    fn in_session(&mut self, entry: &Entry) -> Result<Applied<S>, StopReason> {
        let (id, stamp) = (entry.id(), entry.stamp());
        let told = |told: Result<Bytes, _>| Applied::Told(told.map_err(WriteError::Session));
        Ok(match Proposal::read(entry.kind(), stamp.session, stamp.sequence, &entry.payload()) {
            Some(Proposal::Open(lifetime)) => {
                let opened = self.sessions.open(id.index.0, lifetime, self.cluster_time);
                told(opened.map(|()| Bytes::copy_from_slice(&id.index.0.to_le_bytes())))
            }
            Some(Proposal::Close(session)) => {
                self.sessions.close(session);
                told(Ok(Bytes::new()))
            }
            Some(Proposal::Numbered(place, command)) => {
                match self.sessions.judge(&place, self.cluster_time) {
                    Judged::New => self.numbered(entry, &place, command)?,
                    Judged::Seen(answer) => {
                        Applied::Told(answer.ok_or(WriteError::Unknown(Cause::ReplyLost)))
                    }
                    Judged::Refused(why) => told(Err(why)),
                }
            }
            Some(Proposal::Command(_)) | None => {
                return Err(apply_failed(id, "its payload makes no sense for its kind".to_owned()));
            }
        })
    }

    /// The next command of a lane, or nothing in its place.
    fn numbered(
        &mut self,
        entry: &Entry,
        place: &Numbered,
        command: Option<Bytes>,
    ) -> Result<Applied<S>, StopReason> {
        let applied = match command {
            Some(command) => self.reply_to(entry, &command)?,
            None => Applied::Told(Ok(Bytes::new())),
        };
        let answer = match &applied {
            Applied::Replied(_, encoded) => encoded.as_ref(),
            Applied::Told(told) => told.as_ref().ok(),
            Applied::Nothing | Applied::Passed(_) => None,
        };
        self.sessions.answered(place, answer);
        Ok(applied)
    }

    /// Applies a command.
    fn reply_to(&mut self, entry: &Entry, command: &Bytes) -> Result<Applied<S>, StopReason> {
        let reply = self.command(entry, command)?;
        let encoded = S::encode_reply(&reply).inspect_err(|error| {
            let id = entry.id();
            tracing::warn!(entry = %id, %error, "a reply cannot be encoded, and is lost if the write was forwarded");
        });
        Ok(Applied::Replied(reply, encoded.ok()))
    }

    /// Answers a query. One that panics has changed nothing.
    pub(crate) fn query(&self, query: S::Query) -> Result<S::Answer, ReadError> {
        let context = QueryContext::new(self.applied, self.cluster_time);
        catch_unwind(AssertUnwindSafe(|| self.machine.query(&context, query)))
            .map_err(|panic| ReadError::Panicked(said(&*panic)))
    }

    fn command(&mut self, entry: &Entry, encoded: &Bytes) -> Result<S::Reply, StopReason> {
        let id = entry.id();
        let command = S::decode_command(encoded).map_err(|error| apply_failed(id, error.0))?;
        let twice = self.broken.is("command-applied-twice");
        let reply = self.call(entry, &format_args!("entry {id}"), |machine, context| {
            if twice {
                drop(S::decode_command(encoded).map(|command| machine.apply(context, command)));
            }
            machine.apply(context, command)
        })?;
        if S::PUBLISHES == Publishes::Commands {
            self.publish(entry, encoded.clone());
        }
        Ok(reply)
    }

    /// Timers fire: all that are due by now.
    fn fire(&mut self, entry: &Entry) -> Result<(), StopReason> {
        for timer in self.context.timers.due_by(self.cluster_time) {
            if self.context.timers.fires(timer) {
                let (id, (.., name)) = (entry.id(), timer);
                self.call(entry, &format_args!("entry {id}, timer {name}"), |machine, context| {
                    machine.on_timer(context, name);
                })?;
            }
        }
        Ok(())
    }

    /// Lets the machine do something for this entry, and takes in what it asks for. A panic there is said to be `at` there.
    fn call<T>(
        &mut self,
        entry: &Entry,
        at: &dyn Display,
        does: impl FnOnce(&mut S, &mut Context) -> T,
    ) -> Result<T, StopReason> {
        let Replicated { machine, context, .. } = self;
        (context.id, context.cluster_time, context.wall_time) =
            (entry.id(), self.cluster_time, entry.stamp().wall_time);
        // An entry that nobody says it of is one of the first.
        context.version = self.version.max(1);
        (context.emitted, context.fatal) = (Vec::new(), None);
        let done = catch_unwind(AssertUnwindSafe(|| does(machine, context)));
        let done =
            done.map_err(|panic| StopReason::Panicked { at: at.to_string(), message: said(&*panic) })?;
        if let Some(problem) = context.fatal.take() {
            return Err(StopReason::Apply { id: entry.id(), problem });
        }
        let emitted = mem::take(&mut context.emitted);
        if S::PUBLISHES == Publishes::Emitted {
            emitted.into_iter().for_each(|event| self.publish(entry, event));
        }
        Ok(done)
    }

    /// The next event of this entry.
    fn publish(&mut self, entry: &Entry, payload: Bytes) {
        if !self.publishes || entry.index() <= self.told {
            return;
        }
        let index = entry.index();
        let before = self.news.events.last().filter(|event| event.at.index == index);
        let at = Position { index, number: before.map_or(0, |event| event.at.number + 1) };
        self.news.events.push(Event { at, cluster_time: self.cluster_time, payload });
    }

    fn fold(&mut self, entry: &Entry, reply: &[u8]) {
        let machine = self.machine.digest();
        let own = [self.context.timers.digest(), self.context.pending.digest()];
        let mut row = Row { room: &mut self.row, hash: None };
        [&self.digest[..], entry.bytes(), reply].into_iter().for_each(|part| row.add(part));
        machine.iter().for_each(|digest| row.add(digest));
        own.iter().filter(|own| **own != [0; 16]).for_each(|own| row.add(own));
        self.digest = row.end();
    }
}

/// What is hashed in a row.
struct Row<'a> {
    /// What was added, as long as it is short.
    room: &'a mut Vec<u8>,
    hash: Option<Xxh3Default>,
}

impl Row<'_> {
    fn add(&mut self, part: &[u8]) {
        match &mut self.hash {
            Some(hash) => hash.update(part),
            None if self.room.len() + part.len() <= IN_ONE_PIECE => self.room.extend_from_slice(part),
            none => {
                let hash = none.insert(Xxh3Default::new());
                hash.update(self.room);
                hash.update(part);
            }
        }
    }

    /// The digest of all that was added. The room is empty again.
    fn end(self) -> Digest {
        let digest = self.hash.map_or_else(|| xxh3_128(self.room), |hash| hash.digest128());
        self.room.clear();
        digest.to_le_bytes()
    }
}

fn apply_failed(id: LogId, problem: String) -> StopReason {
    StopReason::Apply { id, problem }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    message.unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
#[path = "replicated_effects_tests.rs"]
mod effects_tests;

#[cfg(test)]
#[path = "replicated_timers_tests.rs"]
mod timers_tests;

#[cfg(test)]
#[path = "replicated_tests.rs"]
mod tests;
