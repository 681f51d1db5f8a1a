//! The machine that is replicated: ordered keys with revisions.
//!
//! It knows nothing of RESP. A command is a *batch* of operations of one connection: it takes one entry of
//! the log and is applied whole and in order, so a pipeline of a thousand writes costs one sync, and MSET
//! is seen by others entirely or not at all. A query is a batch too, answered from one state. A transaction is a batch that
//! begins with a [guard](Operation::Guard) and has [looks](Operation::Look) between its changes.
//!
//! The machine counts a global **revision**: each operation that changes anything raises it by one. A key
//! remembers the revision that created it, the one that changed it last, and its version (1 when created,
//! one more with each change; a key that is deleted and written again starts anew). RESP shows none of
//! this; other front ends will.
//!
//! A key may end at a time of the **cluster's clock**, which runs by the entries of the log. From the first entry of that
//! time on it is not there, on any node, for any change or question; a timer of the log removes it, so that this is also so
//! where nothing else is written.
//!
//! The digest is kept as it goes: each key has a 128-bit print over its name, value and numbers, and the
//! machine keeps the XOR of all prints. So an operation costs what it touches, never O(state).
//!
//! It knows the [users](crate::users) too, and does nothing that whoever asks may not do: a batch may begin with
//! whose it is ([`Operation::As`], [`Lookup::As`]). So what a connection has seen of somebody's rights may be old.
//!
//! Keys and values are copied out of the entry that brought them: a slice would keep the whole entry, up
//! to megabytes of batch, alive for as long as one small key of it lives.

#[cfg(test)]
mod fourth;
mod gone;
mod hashes;
mod keys;
#[cfg(test)]
mod lives;
mod looking;
mod record;
#[cfg(test)]
mod rights;
mod space;
mod state;
mod strings;
#[cfg(test)]
mod tests;

pub use crate::operation::{
    DATABASES, FORMER_MAX_VALUE, Found, Life, Lookup, MAX_ANSWER, MAX_COST, MAX_FIELDS, MAX_FOUND, MAX_KEY,
    MAX_VALUE, Only, OnlyLife, Operation, Outcome, Unit, When,
};
pub use record::{Datum, Deadline, Record};

use crate::codec;
use crate::figures::Figures;
use crate::roster::Roster;
use crate::users::{By, Refusal, Users};
use crate::value::Value;
use bytes::Bytes;
use coracle::snapshot::Save;
use coracle::{CodecError, Context, QueryContext, StateMachine};
use space::Space;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_128;

/// The name of the timer by which keys end.
const REAPER: u64 = 0;

/// A machine that the server can serve: [`Kv`], or one that wraps it.
pub trait Machine:
    StateMachine<Command = Vec<Operation>, Reply = Vec<Outcome>, Query = Vec<Lookup>, Answer = Vec<Found>>
{
}

impl<M> Machine for M where
    M: StateMachine<Command = Vec<Operation>, Reply = Vec<Outcome>, Query = Vec<Lookup>, Answer = Vec<Found>>
{
}

/// The keys. See the [module](self).
#[derive(Clone, Default, Debug)]
pub struct Kv {
    space: Space,
    users: Arc<Users>,
    /// Where they are published.
    roster: Roster,
    /// Where it is published how many keys there are.
    figures: Figures,
    /// When the newest entry was applied here, for how long ago it was that the cluster's clock stood as it does: no state.
    clocked: Option<Instant>,
    /// What cannot be written: for tests.
    fails_on: Option<Bytes>,
}

/// Where an operation stands: in which database, and at which time.
#[derive(Clone, Copy)]
struct At {
    database: u8,
    /// By the cluster's clock, in milliseconds.
    cluster_time: u64,
    /// By the clock of the leader that proposed it, in milliseconds since 1970.
    wall_time: u64,
}

/// A life is over before it begins.
struct Over;

impl At {
    fn of(context: &Context) -> At {
        At { database: 0, cluster_time: context.cluster_time, wall_time: context.wall_time }
    }

    /// When a key ends that is to live so long, and would have ended then.
    fn ends(self, life: Life, before: Option<Deadline>) -> Result<Option<Deadline>, Over> {
        let wall = i64::try_from(self.wall_time).unwrap_or(i64::MAX);
        let (left, unix) = match life {
            Life::Forever => return Ok(None),
            Life::Keep => return Ok(before),
            Life::For(left) => (left, wall.saturating_add(left)),
            Life::Until(unix) => (unix.saturating_sub(wall), unix),
        };
        let left = u64::try_from(left).ok().and_then(NonZeroU64::new).ok_or(Over)?;
        Ok(Some(Deadline { at: left.saturating_add(self.cluster_time), unix }))
    }
}

impl Kv {
    /// A machine without keys, at revision 0.
    pub fn new() -> Kv {
        Kv::default()
    }

    /// One that publishes its users here.
    pub fn publishing(self, roster: Roster) -> Kv {
        Kv { roster, ..self }
    }

    /// One that publishes here how many keys it has.
    pub fn counting(self, figures: Figures) -> Kv {
        Kv { figures, ..self }
    }

    /// One that cannot apply a write of this value, for tests of what a cluster does then.
    pub(crate) fn failing_on(self, value: Option<String>) -> Kv {
        Kv { fails_on: value.map(Bytes::from), ..self }
    }

    /// How many operations have changed anything so far.
    pub fn revision(&self) -> u64 {
        self.space.revision
    }

    /// The record of a key in the first database.
    pub fn record(&self, key: &[u8]) -> Option<&Record> {
        self.space.get(0, key)
    }

    /// Does it if whoever asks may have it done, and there is room for its answer.
    fn judged(&mut self, by: Option<&By>, at: At, room: usize, operation: Operation) -> Outcome {
        if let Err(why) = self.users.judge(by, operation.role(), operation.keys()) {
            return Outcome::Refused(why);
        }
        if self.space.is_of_fourth() && operation.keys().any(|key| key.len() > MAX_KEY) {
            return Outcome::TooLong;
        }
        if self.space.database(at.database).mortal() > 0 {
            operation.keys().for_each(|key| self.reap(at, key));
        }
        if self.space.is_of_fourth() && self.answered(at, &operation) > room {
            return Outcome::Found(Found::TooLarge);
        }
        self.operate(by, at, operation)
    }

    /// How many bytes of a value a change may answer.
    fn answered(&self, at: At, operation: &Operation) -> usize {
        if operation.reply() == 0 {
            return 0;
        }
        let record = operation.keys().next().and_then(|key| self.space.get(at.database, key));
        record.and_then(Record::text).map_or(0, Value::len)
    }

    fn operate(&mut self, by: Option<&By>, at: At, operation: Operation) -> Outcome {
        match operation {
            Operation::As(_) | Operation::In(_) => Outcome::Nothing,
            Operation::Set { key, value, when, get } => either(self.set(at, &key, &value, when, get)),
            Operation::Put { key, value, only, life, get } => {
                either(self.set_if(at, &key, &value, &only, life, get))
            }
            Operation::Delete { keys } => Outcome::Number(self.delete(at, &keys)),
            Operation::DeleteIf { key, only } => count(self.delete_if(at, &key, &only)),
            Operation::Take { key } => either(self.take(at, &key)),
            Operation::Append { key, value } => count(self.append(at, &key, &value)),
            Operation::SetRange { key, offset, value } => count(self.set_range(at, &key, offset, &value)),
            Operation::Add { key, by } => count(self.add(at, &key, by)),
            Operation::AddFraction { key, by } => value(self.add_fraction(at, &key, &by)),
            Operation::SetAll { pairs } => {
                self.set_all(at, &pairs).map_or_else(|why| why, |()| Outcome::Done)
            }
            Operation::SetAllAbsent { pairs } => count(self.set_all_absent(at, &pairs)),
            Operation::Touch { key, life } => either(self.touch(at, &key, life)),
            Operation::Expire { key, life, only } => truth(self.expire(at, &key, life, only)),
            Operation::Rename { from, to, absent } => count(self.rename(at, &from, &to, absent)),
            Operation::Copy { from, to, database, replace } => {
                count(self.copy(at, &from, &to, database, replace))
            }
            Operation::Move { key, database } => count(self.move_to(at, &key, database)),
            Operation::Clear { all } => {
                self.clear(at, all);
                Outcome::Done
            }
            Operation::SetFields { key, pairs, absent } => count(self.set_fields(at, &key, &pairs, absent)),
            Operation::DeleteFields { key, fields } => count(self.delete_fields(at, &key, &fields)),
            Operation::AddField { key, field, by } => count(self.add_field(at, &key, &field, by)),
            Operation::AddFieldFraction { key, field, by } => {
                value(self.add_field_fraction(at, &key, &field, &by))
            }
            Operation::Guard { watched } => {
                let same = |(database, key, mark): &(u8, Bytes, u64)| {
                    self.reap(At { database: *database, ..at }, key);
                    self.space.stayed(*database, key, *mark)
                };
                if watched.iter().all(same) { Outcome::Done } else { Outcome::Nothing }
            }
            Operation::Look(lookup) => {
                let (database, cluster_time) = (at.database, at.cluster_time);
                let from = looking::From { by, database, cluster_time, since: Duration::ZERO };
                Outcome::Found(self.look_up(from, &lookup))
            }
            Operation::AddUser { name, hash, rights } => {
                self.change(|users| users.add(&name, &hash, &rights))
            }
            Operation::Grant { name, rights } => self.change(|users| users.grant(&name, &rights)),
            Operation::GivePassword { name, hash } => self.change(|users| users.give_password(&name, &hash)),
            Operation::RemoveUser { name } => self.change(|users| users.remove(&name)),
        }
    }

    fn change(&mut self, how: impl FnOnce(&mut Users) -> Result<(), Refusal>) -> Outcome {
        match how(Arc::make_mut(&mut self.users)) {
            Ok(()) => {
                self.roster.publish(&self.users);
                Outcome::Done
            }
            Err(why) => Outcome::Refused(why),
        }
    }

    /// Does a batch, in order.
    fn carry_out(&mut self, at: At, batch: Vec<Operation>) -> Vec<Outcome> {
        let (mut by, mut at, mut spent) = (None, at, 0);
        let most = if self.space.is_of_fourth() { MAX_FOUND } else { MAX_COST };
        let mut outcomes = Vec::with_capacity(batch.len());
        for operation in batch {
            let guards = match operation {
                Operation::As(who) => {
                    by = Some(who);
                    continue;
                }
                Operation::In(database) => {
                    at.database = database;
                    continue;
                }
                _ => matches!(operation, Operation::Guard { .. }),
            };
            // What is changed was counted before the batch was proposed; what is found cannot be.
            let took = if let Operation::Look(lookup) = &operation { worth(lookup, None) } else { 0 };
            let mut outcome = match &operation {
                Operation::Look(_) if spent > most => Outcome::Found(Found::TooLarge),
                _ => self.judged(by.as_ref(), at, most.saturating_sub(spent), operation),
            };
            match &mut outcome {
                Outcome::Found(found) => {
                    spent += found.bytes() + took;
                    if spent > most {
                        *found = Found::TooLarge;
                    }
                }
                Outcome::Value(value) if self.space.is_of_fourth() => spent += value.len(),
                _ => {}
            }
            let void = guards && outcome == Outcome::Nothing;
            outcomes.push(outcome);
            if void {
                break;
            }
        }
        outcomes
    }

    /// What is to be done whenever the keys may have changed: the timer is set by which the next one ends, and how many there
    /// are is told.
    fn settle(&mut self, context: &mut Context) {
        let due = self.space.next_due();
        // Where no key ends nobody asks.
        self.clocked = due.map(|_| Instant::now());
        if due != context.timer(REAPER) {
            let set = match due {
                Some(due) => context.set_timer(REAPER, due),
                None => {
                    context.cancel_timer(REAPER);
                    Ok(())
                }
            };
            if let Err(full) = set {
                context.fatal(full.to_string());
            }
        }
        self.tell();
    }

    fn tell(&mut self) {
        for number in self.space.take_changed() {
            let database = self.space.database(number);
            self.figures.tell(number, database.len(), database.mortal());
        }
        self.figures.tell_bytes(self.space.bytes());
    }
}

/// What answering a question took, as bytes that could be copied meanwhile. Values are shared, and not copied, but for parts of them.
fn worth(lookup: &Lookup, found: Option<&Found>) -> usize {
    lookup.cost()
        + match (lookup, found) {
            (Lookup::Scan { count, .. }, _) => looking::worth_of_scan(*count),
            (_, Some(found @ Found::Fields(_))) | (Lookup::Range { .. }, Some(found)) => found.bytes(),
            _ => 0,
        }
}

fn either(result: Result<Outcome, Outcome>) -> Outcome {
    result.unwrap_or_else(|refusal| refusal)
}

fn count(result: Result<i64, Outcome>) -> Outcome {
    result.map_or_else(|refusal| refusal, Outcome::Number)
}

fn truth(done: bool) -> Outcome {
    Outcome::Number(i64::from(done))
}

fn value(result: Result<Bytes, Outcome>) -> Outcome {
    result.map_or_else(|refusal| refusal, |value| Outcome::Value(value.into()))
}

impl StateMachine for Kv {
    /// The batches have an encoding of their own.
    const SELF_DESCRIBING: bool = false;
    /// Users came with the second; databases, hashes, lives and transactions with the third; values over 1 MiB, and what is known
    /// of keys that came and went, with the fourth.
    const VERSION: u16 = 4;
    type Command = Vec<Operation>;
    type Reply = Vec<Outcome>;
    type Query = Vec<Lookup>;
    type Answer = Vec<Found>;

    fn version_of(batch: &Vec<Operation>) -> u16 {
        batch.iter().map(Operation::version).max().unwrap_or(1)
    }

    fn apply(&mut self, context: &mut Context, batch: Vec<Operation>) -> Vec<Outcome> {
        let fails = |operation: &Operation| match operation {
            Operation::Set { value, .. } => self.fails_on.as_ref() == Some(value),
            _ => false,
        };
        if batch.iter().any(fails) {
            context.fatal("it was told not to apply that");
            return Vec::new();
        }
        self.space.is_made_by(context.version);
        let outcomes = self.carry_out(At::of(context), batch);
        self.settle(context);
        outcomes
    }

    fn on_timer(&mut self, context: &mut Context, _: u64) {
        self.space.is_made_by(context.version);
        self.reap_some(context.cluster_time);
        self.settle(context);
    }

    /// May answer fewer lookups than were asked, but at least one: it stops where the values pass
    /// [`MAX_ANSWER`], and the caller asks again for the rest.
    fn query(&self, context: &QueryContext, batch: Vec<Lookup>) -> Vec<Found> {
        let mut answers = Vec::with_capacity(batch.len());
        let (mut answered, mut spent) = (0, 0);
        let since = self.clocked.map_or(Duration::ZERO, |then| then.elapsed());
        let mut from = looking::From { by: None, database: 0, cluster_time: context.cluster_time, since };
        for lookup in &batch {
            match lookup {
                Lookup::As(who) => from.by = Some(who),
                Lookup::In(database) => from.database = (*database).min(DATABASES - 1),
                lookup => {
                    let found = self.look_up(from, lookup);
                    let bytes = found.bytes();
                    if answered + bytes > MAX_ANSWER && !answers.is_empty() {
                        break;
                    }
                    answered += bytes;
                    answers.push(found);
                    // Others have their turn, too: the rest is asked for again.
                    spent += worth(lookup, answers.last());
                    if spent > MAX_COST {
                        break;
                    }
                }
            }
        }
        answers
    }

    fn snapshot(&self) -> impl Save {
        let taken = self.clone();
        move |to: &mut dyn io::Write| state::write(&taken, to)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        let Kv { space, users, .. } = state::read(from)?;
        (self.space, self.users) = (space, users);
        self.roster.publish(&self.users);
        // Those that are empty now, too.
        self.space.all_changed();
        self.tell();
        Ok(())
    }

    fn digest(&self) -> Option<[u8; 16]> {
        let mut state = [0; 32];
        state[..16].copy_from_slice(&self.space.prints().to_le_bytes());
        state[16..24].copy_from_slice(&self.space.revision.to_le_bytes());
        state[24..].copy_from_slice(&(self.space.len() as u64).to_le_bytes());
        let keys = xxh3_128(&state);
        // Where there never were users it is that of the first version, which knows none.
        let all = if self.users.version() == 0 { keys } else { keys ^ self.users.print() };
        Some((all ^ self.space.gone_print()).to_le_bytes())
    }

    fn encode_command(command: &Vec<Operation>) -> Result<Bytes, CodecError> {
        Ok(codec::encode_operations(command))
    }

    fn decode_command(bytes: &Bytes) -> Result<Vec<Operation>, CodecError> {
        codec::decode_operations(bytes)
    }

    fn encode_reply(reply: &Vec<Outcome>) -> Result<Bytes, CodecError> {
        Ok(codec::encode_outcomes(reply))
    }

    fn decode_reply(bytes: &Bytes) -> Result<Vec<Outcome>, CodecError> {
        codec::decode_outcomes(bytes)
    }
}

/// The bytes of what may be a number: of a long value the first are enough to see that it is none.
fn digits(value: &Value) -> Bytes {
    value.pieces()[0].clone()
}

/// The number that the bytes say, in its one canonical form: no plus sign, no leading zeros, no spaces.
pub fn number(bytes: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == bytes).then_some(number)
}
