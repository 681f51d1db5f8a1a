//! What a user writes: the machine that is replicated.
//!
//! Every node runs one. The library feeds the same commands in the same order to all of them, so they
//! stay equal as long as [`apply`](StateMachine::apply) depends on nothing but the machine and the
//! command: no clock, no random numbers, no iteration over a `HashMap` that shows in a reply.

pub use crate::codec::CodecError;

use crate::codec;
use crate::events::Publishes;
use crate::pending::{EffectError, EffectsFull, Pending, Token};
use crate::snapshot::Save;
use crate::timers::{Timers, TimersFull};
use bytes::Bytes;
use coracle_core::LogId;
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read};

/// A deterministic machine that turns commands into replies, and queries into answers.
pub trait StateMachine: Send + 'static {
    /// Which version of the machine this is, from 1. Raise it when there is a command that older programs cannot know. Every
    /// entry carries the newest version that all members were known to have when it was made, and a program of an older
    /// version stops at it rather than misunderstand it.
    ///
    /// It does *not* make room for another meaning of an old command: the whole log is applied again by the new program,
    /// and must give what it gave before. A command that is to mean something else needs another name, or a field that
    /// old commands do not have.
    const VERSION: u16 = 1;

    /// The version that a command needs. A command of a newer version than all members have is refused with
    /// [`NotYet`](crate::WriteError::NotYet), so that in a rolling upgrade no node meets what it cannot know. By default all
    /// commands need the newest: then nodes of the new version write nothing until the last one is upgraded. Say 1 for those
    /// that there always were, and they go on.
    fn version_of(command: &Self::Command) -> u16 {
        let _ = command;
        Self::VERSION
    }

    /// What changes the machine. Goes through the log.
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// What a command returns, delivered to its writer verbatim.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// What asks the machine. Never goes through the log.
    type Query: Serialize + DeserializeOwned + Send + 'static;
    /// What a query returns.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// What those are told who [watch](crate::Node::events) the machine: its commands, unless it
    /// [emits](Context::emit) events of its own.
    const PUBLISHES: Publishes = Publishes::Commands;

    /// Applies a committed command. Must be deterministic: the same machine and command give the same
    /// machine and reply on every node, today and in a later version of the program.
    ///
    /// A panic here, or [`Context::fatal`], stops the machine before the entry, and not the node: see
    /// [`Status::machine_stopped`](crate::Status::machine_stopped). What was changed for the entry is thrown away.
    fn apply(&mut self, context: &mut Context, command: Self::Command) -> Self::Reply;

    /// A [timer](Context::set_timer) fires: its time has come, by an entry of the log of its own. Like
    /// [`apply`](StateMachine::apply): deterministic, at the same place between the commands on every node, over changes of
    /// leader, restarts and snapshots; once for each time that it was set. It is not set any more; this may set it again,
    /// which fires by another entry, 10 ms later at the soonest.
    fn on_timer(&mut self, context: &mut Context, name: u64) {
        let _ = (context, name);
    }

    /// Answers a query from the state as it is.
    fn query(&self, context: &QueryContext, query: Self::Query) -> Self::Answer;

    /// Takes hold of the state as it is, and returns what writes it. This is called where commands are
    /// applied and must be cheap; the result runs beside the machine, which goes on, and may be slow.
    ///
    /// `impl Save` is short for `impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static`. The
    /// library adds lengths and checksums of its own. For a machine that can be cloned:
    /// [`snapshot::save(self.clone())`](crate::snapshot::save).
    fn snapshot(&self) -> impl Save;

    /// Becomes the state that a snapshot holds, whatever the state was before. It must read what
    /// [`snapshot`](StateMachine::snapshot) of this and of every earlier version wrote, and refuse
    /// anything else with an error. After an error the state may be anything: it is restored again before it
    /// is used. For a machine that can be cloned: [`snapshot::load`](crate::snapshot::load).
    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()>;

    /// Whether the machine keeps its state on a disk of its own, and so wants [`persist`](StateMachine::persist) called.
    const OWN_DISK: bool = false;

    /// For a machine that keeps its state on a disk of its own: the newest entry that this state holds, and
    /// the blob that came with it. The default is for a machine in memory, which knows nothing after a
    /// restart and is told everything again.
    fn applied(&self) -> Option<(LogId, Bytes)> {
        None
    }

    /// For a machine that keeps its state on a disk of its own: commits everything applied so far, with the
    /// place of the newest entry and the library's blob, all together or not at all. Called after each
    /// *batch* of applies, before each snapshot, and right after each [`restore`](StateMachine::restore), whose work must not
    /// be found by [`applied`](StateMachine::applied) before. The blob is a few KiB, and with
    /// sessions as large as the answers that they keep, 48 MiB at most; each timer that is set adds 28 bytes, and each effect that is
    /// pending its payload and 24 bytes. An error stops the node.
    fn persist(&mut self, at: LogId, blob: &[u8]) -> io::Result<()> {
        let _ = (at, blob);
        Ok(())
    }

    /// A digest of the whole state, if the machine keeps one. The library folds it into its own digest
    /// after each command, so it must be kept incrementally: never O(state).
    fn digest(&self) -> Option<[u8; 16]> {
        None
    }

    /// Whether [`encode_command`](StateMachine::encode_command) names the fields, so that a tool can show what
    /// is in the log. False where it is overridden by an encoding that does not.
    const SELF_DESCRIBING: bool = true;

    /// A command's bytes in the log: MessagePack with the names of the fields, unless overridden, so that a
    /// type may gain fields that have a `#[serde(default)]`. [`codec`](crate::codec) has a smaller encoding, and
    /// says which types survive which. A command that cannot be read back is refused by
    /// [`write`](crate::Node::write) as [`Invalid`](crate::WriteError::Invalid), and never enters the log.
    fn encode_command(command: &Self::Command) -> Result<Bytes, CodecError> {
        codec::message_pack::encode(command)
    }

    /// The command that the bytes say.
    fn decode_command(bytes: &Bytes) -> Result<Self::Command, CodecError> {
        codec::message_pack::decode(bytes)
    }

    /// A reply's bytes, as they go to a node that forwarded the command, and into the digest.
    fn encode_reply(reply: &Self::Reply) -> Result<Bytes, CodecError> {
        codec::message_pack::encode(reply)
    }

    /// The reply that the bytes say.
    fn decode_reply(bytes: &Bytes) -> Result<Self::Reply, CodecError> {
        codec::message_pack::decode(bytes)
    }

    /// A query's bytes, as they come from a [client](crate::client) in another process.
    fn encode_query(query: &Self::Query) -> Result<Bytes, CodecError> {
        codec::message_pack::encode(query)
    }

    /// The query that the bytes say.
    fn decode_query(bytes: &Bytes) -> Result<Self::Query, CodecError> {
        codec::message_pack::decode(bytes)
    }

    /// An answer's bytes, as they go to a client.
    fn encode_answer(answer: &Self::Answer) -> Result<Bytes, CodecError> {
        codec::message_pack::encode(answer)
    }

    /// The answer that the bytes say.
    fn decode_answer(bytes: &Bytes) -> Result<Self::Answer, CodecError> {
        codec::message_pack::decode(bytes)
    }
}

/// What a machine may know of the entry that it applies, the same on every node, and what it may ask for beside its reply.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The entry's place in the log.
    pub id: LogId,
    /// The cluster's clock in milliseconds: never runs backwards, on no node, over no change of leader.
    pub cluster_time: u64,
    /// The wall clock of the leader that proposed the command, in milliseconds since 1970. May jump.
    pub wall_time: u64,
    /// The newest [version](StateMachine::VERSION) of the machine by which an entry was made up to here: all members have it. A
    /// rule that came with a version holds from there on, and the former one before, also where the log is applied again.
    pub version: u16,
    /// What was emitted.
    pub(crate) emitted: Vec<Bytes>,
    /// All timers, while the entry is applied.
    pub(crate) timers: Timers,
    /// All effects that are pending, while the entry is applied.
    pub(crate) pending: Pending,
    /// Why the entry cannot be applied.
    pub(crate) fatal: Option<String>,
}

impl Context {
    /// A context for tests of a machine, of its first version. No timer is set in it and no effect pending, and what the machine
    /// sets and gives stays in it.
    pub fn new(id: LogId, cluster_time: u64, wall_time: u64) -> Context {
        Context {
            id,
            cluster_time,
            wall_time,
            version: 1,
            emitted: Vec::new(),
            timers: Timers::default(),
            pending: Pending::default(),
            fatal: None,
        }
    }

    /// Publishes an event to those who [watch](crate::Node::events) the machine, in MessagePack with the names of the fields.
    /// For machines that say so by [`PUBLISHES`](StateMachine::PUBLISHES); of others nothing that they emit is kept.
    pub fn emit<T: Serialize>(&mut self, event: &T) -> Result<(), CodecError> {
        self.emitted.push(codec::message_pack::encode(event)?);
        Ok(())
    }

    /// Publishes these very bytes as an event. See [`emit`](Context::emit).
    pub fn emit_bytes(&mut self, event: impl Into<Bytes>) {
        self.emitted.push(event.into());
    }

    /// Says that this entry cannot be applied, and why: the machine stops before it, as after a panic, and its reply goes to
    /// nobody. Whatever the machine has changed for it is thrown away. See [`apply`](StateMachine::apply).
    pub fn fatal(&mut self, why: impl Into<String>) {
        self.fatal.get_or_insert(why.into());
    }

    /// What was emitted so far. For tests of a machine.
    pub fn emitted(&self) -> &[Bytes] {
        &self.emitted
    }

    /// Sets a timer: [`on_timer`](StateMachine::on_timer) is called with its name when the
    /// [cluster's clock](Context::cluster_time) has come to `due`, in milliseconds. Never before; later by a commit and up to
    /// 10 ms, and where the leader dies by the election of the next; while no majority runs, none fires. If a timer of this
    /// name is set already, this takes its place. Timers that are due at the same time fire in the order in which they were
    /// set.
    ///
    /// Names are the machine's own: a lease's number, a job's. The timers are part of the machine's state that the library
    /// keeps for it, in snapshots too. A timer fires only once all members run versions that know timers.
    pub fn set_timer(&mut self, name: u64, due: u64) -> Result<(), TimersFull> {
        self.timers.set(self.id.index.0, name, due)
    }

    /// Cancels a timer, which will not fire. False if none of this name is set.
    pub fn cancel_timer(&mut self, name: u64) -> bool {
        self.timers.cancel(name)
    }

    /// When the timer of this name is due, by the cluster's clock, if it is set.
    pub fn timer(&self, name: u64) -> Option<u64> {
        self.timers.due(name)
    }

    /// Gives an effect, in MessagePack with the names of the fields: something that the leader is to carry out, outside of the
    /// cluster. It is pending from now on, in snapshots too, until it is [settled](Context::settle); each leader finds those
    /// that are pending in [`Node::effects`](crate::Node::effects). Returns what it is called, whoever carries it out and
    /// however often.
    ///
    /// As many may be pending as [`EffectsFull`] says. A machine that begins to give effects by commands that there were
    /// before is a new [version](StateMachine::VERSION).
    pub fn effect<T: Serialize>(&mut self, effect: &T) -> Result<Token, EffectError> {
        let payload = codec::message_pack::encode(effect)?;
        Ok(self.effect_bytes(&payload)?)
    }

    /// Gives these very bytes as an effect. See [`effect`](Context::effect).
    pub fn effect_bytes(&mut self, effect: &[u8]) -> Result<Token, EffectsFull> {
        self.pending.give(self.id, effect)
    }

    /// Settles an effect: it is pending no more, and no leader carries it out again. For the command that says what came of
    /// it. False if none of this name is pending: it was settled before, as by a leader that carried it out as well.
    pub fn settle(&mut self, effect: Token) -> bool {
        self.pending.settle(effect)
    }

    /// The effects that are pending, in the order in which they were given.
    pub fn effects(&self) -> impl Iterator<Item = (Token, &Bytes)> {
        self.pending.all()
    }
}

/// What a machine may know of the moment in which it is asked. It may differ between nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct QueryContext {
    /// The newest entry that the machine has applied.
    pub applied: LogId,
    /// The cluster's clock in milliseconds, as far as the applied entries have brought it.
    pub cluster_time: u64,
}

impl QueryContext {
    /// A context for tests of a machine.
    pub fn new(applied: LogId, cluster_time: u64) -> QueryContext {
        QueryContext { applied, cluster_time }
    }
}
