//! The machine that simulated clusters replicate: a small key-value store whose replies tell all, and beside it the
//! machine of a user, if there is one.

use super::guest::{Call, Guest};
use crate::events::Publishes;
use crate::pending::Token;
use crate::snapshot::{self, Save};
use crate::state_machine::{Context, QueryContext, StateMachine};
use crate::storage::disk::{Disk, read_full};
use bytes::Bytes;
use coracle_core::{Index, LogId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a client asks for. Every written text is unique in its run, so a history tells who wrote what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Set the value.
    Put(u8, String),
    /// Add to the end of the value.
    Append(u8, String),
    /// Set the value if it is the first text; both sides may be nothing.
    Cas(u8, Option<String>, String),
    /// A command of the guest, after the text that makes it unique.
    Guest(String, Vec<u8>),
    /// This effect was carried out.
    Settle(Token),
}

/// What is read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Look {
    /// The value of this key.
    Key(u8),
    /// What the guest answers to this.
    Guest(Vec<u8>),
}

impl Look {
    /// What is asked of the guest.
    pub(super) fn guest(&self) -> Option<&[u8]> {
        match self {
            Look::Key(_) => None,
            Look::Guest(query) => Some(query),
        }
    }

    /// As it travels: keys are few, and none has the number of what goes to a guest.
    pub(super) fn to_bytes(&self) -> Bytes {
        match self {
            Look::Key(key) => Bytes::copy_from_slice(&[*key]),
            Look::Guest(query) => [&[u8::MAX][..], query].concat().into(),
        }
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Look {
        match bytes.split_first() {
            Some((&u8::MAX, query)) => Look::Guest(query.to_vec()),
            first => Look::Key(first.map_or(0, |(key, _)| *key)),
        }
    }
}

/// What it looked like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Seen {
    /// The value, if there is one.
    Value(Option<String>),
    /// The guest's answer.
    Guest(Vec<u8>),
}

impl Seen {
    /// As it travels.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Seen::Value(None) => Vec::new(),
            Seen::Value(Some(text)) => [b"=", text.as_bytes()].concat(),
            Seen::Guest(answer) => [b"!", &answer[..]].concat(),
        }
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Seen {
        match bytes.split_first() {
            None => Seen::Value(None),
            Some((b'!', answer)) => Seen::Guest(answer.to_vec()),
            Some((_, text)) => Seen::Value(Some(String::from_utf8_lossy(text).into_owned())),
        }
    }
}

/// What a command returned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// Done.
    Done,
    /// The value was not the expected one.
    Differs,
    /// The guest's reply.
    Guest(Vec<u8>),
}

/// What it asks for of timers.
pub(super) enum Asks {
    Set(u64, u64),
    Cancel(u64),
}

/// What fired since it was looked at last.
pub(super) type Fired = Arc<Mutex<Vec<u64>>>;

/// The store.
#[derive(Default)]
pub(super) struct Kv {
    values: BTreeMap<u8, String>,
    own: Option<Own>,
    /// How far ahead it sets timers at most, in milliseconds; 0: it sets none.
    timers: u64,
    /// Whether it gives effects.
    effects: bool,
    /// What the judge is told.
    fired: Fired,
    /// It cannot apply puts whose number is a multiple of this; 0: it can apply everything.
    fails: Arc<AtomicU64>,
    guest: Option<Guest>,
}

/// Timers of this name and higher ones are set by others that fire.
const CHAINED: u64 = 1000;

/// Where a machine that keeps its own disk has its state, and what it knows of it.
struct Own {
    disk: Arc<dyn Disk>,
    applied: Option<(LogId, Bytes)>,
}

/// The file with the state, and where the next one is prepared.
const STATE: &str = "machine";
const NEXT: &str = "machine.tmp";

/// What is in it: index, term, the library's blob, and the values. Where there is a guest, its snapshot follows.
type Kept = (u64, u64, Vec<u8>, BTreeMap<u8, String>);
type KeptWithGuest = (Kept, Vec<u8>);

impl Kv {
    /// One with this guest, and nothing in it.
    pub(super) fn with(guest: Option<Guest>) -> Kv {
        Kv { guest, ..Kv::default() }
    }

    /// One that keeps its state on this disk, as it is there.
    pub(super) fn on(disk: Arc<dyn Disk>, mut guest: Option<Guest>) -> io::Result<Kv> {
        let (mut applied, mut values) = (None, BTreeMap::new());
        if disk.list()?.iter().any(|name| name == STATE) {
            let file = disk.open(STATE)?;
            let mut bytes = vec![0; file.len()? as usize];
            read_full(&*file, &mut bytes, 0)?;
            let (index, term, blob, kept): Kept = match &mut guest {
                None => snapshot::load(&mut &bytes[..])?,
                Some(guest) => {
                    let (kept, state): KeptWithGuest = snapshot::load(&mut &bytes[..])?;
                    guest.restore(&state)?;
                    kept
                }
            };
            (applied, values) = (Some((LogId::new(term, index), blob.into())), kept);
        }
        Ok(Kv { values, own: Some(Own { disk, applied }), guest, ..Kv::default() })
    }

    /// The same with timers, which tells what fires.
    pub(super) fn with_timers(self, timers: u64) -> (Kv, Fired) {
        let fired = self.fired.clone();
        (Kv { timers, ..self }, fired)
    }

    /// The same, which gives effects or does not.
    pub(super) fn with_effects(self, effects: bool) -> Kv {
        Kv { effects, ..self }
    }

    /// The effects that a command gives, if it takes effect.
    pub(super) fn gives(ask: &Ask) -> Vec<String> {
        let (number, count) = match ask {
            Ask::Put(_, text) if number(text).is_multiple_of(2) => (number(text), 1 + number(text) % 3),
            Ask::Append(_, text) if number(text).is_multiple_of(3) => (number(text), 1),
            _ => (0, 0),
        };
        (0..count).map(|at| format!("{number}, {at}")).collect()
    }

    /// The effect that a timer gives when it fires.
    pub(super) fn gives_when_fired(name: u64, index: Index) -> Option<String> {
        (index.0 % 5 < 2).then(|| format!("timer {name}"))
    }

    /// The same with a program that cannot apply everything.
    pub(super) fn failing(self, fails: Arc<AtomicU64>) -> Kv {
        Kv { fails, ..self }
    }

    /// What a command asks for of timers, if they are set as far ahead as `most`. Some are due at once, some by the same
    /// entry as others, and of one name there are few, so that they are set again and again.
    pub(super) fn asks(ask: &Ask, most: u64, time: u64) -> Option<Asks> {
        match ask {
            _ if most == 0 => None,
            Ask::Put(key, text) => {
                let number = number(text);
                let ahead = number * 7919 % most / 50 * 50;
                Some(Asks::Set(u64::from(*key) * 2 + number % 2, time + ahead))
            }
            Ask::Append(key, text) if number(text).is_multiple_of(3) => {
                Some(Asks::Cancel(u64::from(*key) * 2))
            }
            Ask::Append(..) | Ask::Cas(..) | Ask::Guest(..) | Ask::Settle(_) => None,
        }
    }

    /// What a timer that fires asks for: another one, or that its neighbour does not.
    pub(super) fn asks_when_fired(name: u64, index: Index, time: u64) -> Option<Asks> {
        match index.0 % 3 {
            _ if name >= CHAINED => None,
            0 => Some(Asks::Set(name + CHAINED, time + index.0 % 2 * 100)),
            1 => Some(Asks::Cancel(name ^ 1)),
            _ => None,
        }
    }

    fn obey(context: &mut Context, asks: Option<Asks>) {
        match asks {
            Some(Asks::Set(name, due)) => context.set_timer(name, due).expect("few are set"),
            Some(Asks::Cancel(name)) => drop(context.cancel_timer(name)),
            None => {}
        }
    }

    fn give(&self, context: &mut Context, effects: impl IntoIterator<Item = String>) {
        for effect in effects.into_iter().filter(|_| self.effects) {
            context.effect_bytes(effect.as_bytes()).expect("few are pending");
        }
    }
}

/// Whether a put of this text is too much for a program that cannot apply one of so many.
pub(super) fn too_much(text: &str, poison: u64) -> bool {
    poison > 0 && number(text).is_multiple_of(poison)
}

/// The number in a text that a client has made.
fn number(text: &str) -> u64 {
    text.trim_end_matches(';').parse().unwrap_or(0)
}

impl StateMachine for Kv {
    type Command = Ask;
    type Reply = Told;
    type Query = Look;
    type Answer = Seen;

    const PUBLISHES: Publishes = Publishes::Emitted;

    fn apply(&mut self, context: &mut Context, ask: Ask) -> Told {
        Kv::obey(context, Kv::asks(&ask, self.timers, context.cluster_time));
        self.give(context, Kv::gives(&ask));
        let fails = self.fails.load(Ordering::Relaxed);
        match ask {
            Ask::Put(key, ref text) if too_much(text, fails) => {
                // It has done half of it by then.
                self.values.insert(key, "half".to_owned());
                context.fatal("it is too much for this program");
            }
            Ask::Put(key, text) => {
                context.emit_bytes(text.clone());
                self.values.insert(key, text);
            }
            Ask::Append(key, text) => {
                self.values.entry(key).or_default().push_str(&text);
                context.emit_bytes(vec![key]);
                context.emit_bytes(text);
            }
            Ask::Cas(key, expected, text) => {
                if self.values.get(&key) != expected.as_ref() {
                    return Told::Differs;
                }
                self.values.insert(key, text);
            }
            Ask::Settle(token) => {
                return if context.settle(token) { Told::Done } else { Told::Differs };
            }
            Ask::Guest(_, command) => {
                return match &mut self.guest {
                    Some(guest) => Told::Guest(guest.apply(context, &Call::Command(command))),
                    None => Told::Differs,
                };
            }
        }
        Told::Done
    }

    fn on_timer(&mut self, context: &mut Context, name: u64) {
        if let Some(guest) = &mut self.guest {
            guest.apply(context, &Call::Timer(name));
            return;
        }
        self.fired.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        self.give(context, Kv::gives_when_fired(name, context.id.index));
        Kv::obey(context, Kv::asks_when_fired(name, context.id.index, context.cluster_time));
    }

    fn query(&self, context: &QueryContext, look: Look) -> Seen {
        match (look, &self.guest) {
            (Look::Guest(query), Some(guest)) => Seen::Guest(guest.query(context, &query)),
            (Look::Guest(_), None) => Seen::Value(None),
            (Look::Key(key), _) => Seen::Value(self.values.get(&key).cloned()),
        }
    }

    fn snapshot(&self) -> impl Save {
        let (values, guest) = (self.values.clone(), self.guest.as_ref().map(Guest::snapshot));
        move |to: &mut dyn io::Write| {
            let Some(save) = guest else { return snapshot::save(values)(to) };
            let mut state = Vec::new();
            save(&mut state)?;
            snapshot::save((values, state))(to)
        }
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        let Some(guest) = &mut self.guest else {
            return snapshot::load(from).map(|values| self.values = values);
        };
        let (values, state): (_, Vec<u8>) = snapshot::load(from)?;
        self.values = values;
        guest.restore(&state)
    }

    const OWN_DISK: bool = true;

    fn applied(&self) -> Option<(LogId, Bytes)> {
        self.own.as_ref().and_then(|own| own.applied.clone())
    }

    /// All or nothing: the file is replaced. Where there is no room, what was kept before stays good.
    fn persist(&mut self, at: LogId, blob: &[u8]) -> io::Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let kept: Kept = (at.index.0, at.term.0, blob.to_vec(), self.values.clone());
        let mut bytes = Vec::new();
        match &self.guest {
            None => snapshot::save(kept)(&mut bytes)?,
            Some(guest) => {
                let mut state = Vec::new();
                guest.snapshot()(&mut state)?;
                snapshot::save((kept, state))(&mut bytes)?;
            }
        }
        let file = own.disk.create(NEXT)?;
        match file.write_at(&bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            written => written?,
        }
        file.sync_data()?;
        own.disk.rename(NEXT, STATE)?;
        own.disk.sync_dir()
    }
}
