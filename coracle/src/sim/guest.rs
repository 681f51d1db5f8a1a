//! A guest: the machine of a user, beside the simulator's own on each simulated node, and its clients.
//!
//! The simulated machine carries the guest as a part of its own state. So all that happens to the one happens to the
//! other: sessions, forwarding, restarts, snapshots that are taken, sent and installed. Its types end here; the
//! [`kit`](super::kit) knows them.
//!
//! Each node applies every command twice: to its machine, and to a second one, which is thrown away now and then and made
//! again from a snapshot of the first. The [`Record`] compares what all of them say of an entry, and the first difference is
//! the [`Finding`].

use super::dice::Dice;
use super::ghost::Violation;
use super::history::History;
use crate::pending::Pending;
use crate::replicated::SaveState;
use crate::state_machine::{Context, QueryContext};
use crate::timers::Timers;
use coracle_core::{Index, LogId};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// A machine without its types.
pub(super) trait Machine: Send {
    /// Applies a command, or has a timer fire. An error says that it panicked, or that something has no encoding.
    fn apply(&mut self, context: &mut Context, call: &Call) -> Result<Vec<u8>, Wrong>;
    fn query(&self, context: &QueryContext, query: &[u8]) -> Result<Vec<u8>, Wrong>;
    fn snapshot(&self) -> SaveState;
    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()>;
    fn digest(&self) -> Option<[u8; 16]>;
}

/// A rule that a machine breaks by itself, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    pub(super) rule: &'static str,
    pub(super) detail: String,
}

/// What a client asks, encoded, or that a timer fires.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Call {
    Command(Vec<u8>),
    Query(Vec<u8>),
    Timer(u64),
}

/// What a client is told.
pub(super) enum Told<'a> {
    Done(&'a [u8]),
    NotDone,
    Unknown,
}

/// A client of a guest.
pub(super) trait Asker {
    fn ask(&mut self, dice: &mut Dice) -> Result<Call, Wrong>;
    fn told(&mut self, call: &Call, told: Told<'_>) -> Result<(), Wrong>;
}

/// All that a user brings.
pub(super) trait Program: Send + Sync {
    fn machine(&self) -> Box<dyn Machine>;
    fn asker(&self, client: u64) -> Box<dyn Asker>;
    /// The query whose answer shows the whole state.
    fn state(&self) -> Option<&[u8]>;
    /// What must hold after every entry.
    fn holds(&self, machine: &dyn Machine, context: &QueryContext) -> Result<(), Wrong>;
    /// A call, and what it was answered, in words.
    fn call(&self, call: &Call) -> String;
    fn answer(&self, call: &Call, answer: &[u8]) -> String;
    /// Judges what the clients saw. Each operation that took effect has the index at which it did. False if that could not
    /// be decided.
    fn judge(
        &self,
        history: &History<Call, Vec<u8>>,
        at: &[Option<Index>],
        log: &[Applied],
    ) -> Result<bool, Violation>;
    /// Which of these steps of one machine, without a cluster, the user's model does not allow, if there is one.
    fn refuses(&self, steps: &[Step]) -> Option<(usize, Wrong)>;
}

/// What one machine does, one after the other.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Command(Applied),
    Query(Vec<u8>),
}

impl Step {
    pub(super) fn call(&self) -> Call {
        match self {
            Step::Command(applied) => applied.call.clone(),
            Step::Query(query) => Call::Query(query.clone()),
        }
    }
}

/// A command as the machines were given it, or a timer that fired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Applied {
    pub(super) id: LogId,
    pub(super) cluster_time: u64,
    pub(super) wall_time: u64,
    pub(super) version: u16,
    pub(super) call: Call,
    pub(super) outcome: Outcome,
}

/// A log that is applied once more, without a cluster: the timers and effects that the library keeps for the machine.
#[derive(Default)]
pub(super) struct Replay(Timers, Pending);

impl Replay {
    /// Before the next.
    pub(super) fn context(&mut self, applied: &Applied) -> Context {
        let mut context = Context::new(applied.id, applied.cluster_time, applied.wall_time);
        context.version = applied.version;
        (context.timers, context.pending) = (mem::take(&mut self.0), mem::take(&mut self.1));
        if let Call::Timer(name) = applied.call {
            context.cancel_timer(name);
        }
        context
    }

    /// After it.
    pub(super) fn took(&mut self, context: Context) {
        (self.0, self.1) = (context.timers, context.pending);
        // Nobody is told.
        drop(self.1.changes());
    }
}

/// All that a machine shows of a command that it has applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Outcome {
    pub(super) reply: Vec<u8>,
    pub(super) emitted: Vec<Vec<u8>>,
    pub(super) state: Option<Vec<u8>>,
    pub(super) digest: Option<[u8; 16]>,
    /// A digest of the timers that are set then.
    pub(super) timers: [u8; 16],
    /// A digest of the effects that are pending then.
    pub(super) effects: [u8; 16],
}

/// The first rule that was broken, and at which entry; at none, if the id is zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) id: LogId,
    pub(super) rule: &'static str,
    pub(super) detail: String,
}

/// A place in the log, and the how manieth of an entry: several timers may fire by one.
type Place = (Index, u32);

/// What the machines of all nodes said, by their places.
#[derive(Default)]
pub(super) struct Record {
    pub(super) log: BTreeMap<Place, Applied>,
    pub(super) finding: Option<Finding>,
    /// At the end, the queries that were answered, by the index at which their answers were true.
    pub(super) queries: Vec<(Index, Vec<u8>)>,
}

impl Record {
    pub(super) fn find(&mut self, id: LogId, wrong: Wrong) {
        let Wrong { rule, detail } = wrong;
        self.finding.get_or_insert(Finding { id, rule, detail });
    }

    /// The commands in their order.
    pub(super) fn commands(&self) -> Vec<Applied> {
        self.log.values().cloned().collect()
    }

    /// All commands and queries in their order.
    pub(super) fn steps(&self) -> Vec<Step> {
        let commands = self.log.values().map(|it| (it.id.index, false, Step::Command(it.clone())));
        let queries = self.queries.iter().map(|(at, query)| (*at, true, Step::Query(query.clone())));
        let mut all: Vec<_> = commands.chain(queries).collect();
        all.sort_by_key(|(at, reads, _)| (*at, *reads));
        all.into_iter().map(|(.., step)| step).collect()
    }
}

/// What the nodes of one run share of a guest.
#[derive(Clone)]
pub(super) struct Guests {
    pub(super) program: Arc<dyn Program>,
    record: Arc<Mutex<Record>>,
}

impl Guests {
    pub(super) fn of(program: Arc<dyn Program>) -> Guests {
        Guests { program, record: Arc::default() }
    }

    /// Looks at the record, or changes it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Record) -> T) -> T {
        look(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether an entry shows something wrong.
    pub(super) fn finding(&self) -> Option<Finding> {
        self.with(|record| record.finding.clone())
    }

    /// The machine of a node. Its second machine is made again at the multiples of `every`; 0: never.
    pub(super) fn machine(&self, every: u64) -> Guest {
        let machine = || self.program.machine();
        Guest {
            guests: self.clone(),
            machine: machine(),
            second: machine(),
            spare: machine(),
            every,
            made: None,
            newest: (LogId::ZERO, 0),
        }
    }
}

/// How the second machine of a node differs from the first.
const SECOND: &str = "a second machine that was given the same commands";

/// One on a node.
pub(super) struct Guest {
    guests: Guests,
    machine: Box<dyn Machine>,
    /// Given the same commands.
    second: Box<dyn Machine>,
    /// The second machine of before, which takes the state of a snapshot next.
    spare: Box<dyn Machine>,
    every: u64,
    /// The entry up to which the snapshot went of which the second was made.
    made: Option<LogId>,
    newest: (LogId, u32),
}

impl Guest {
    /// Applies a command, or has a timer fire. Whatever is wrong goes into the record.
    pub(super) fn apply(&mut self, context: &mut Context, call: &Call) -> Vec<u8> {
        let before = context.clone();
        let id = context.id;
        self.newest = match self.newest {
            (newest, number) if newest == id => (id, number + 1),
            _ => (id, 0),
        };
        let place = (id.index, self.newest.1);
        self.compare(context, &before, call).unwrap_or_else(|wrong| {
            let Context { cluster_time, wall_time, version, .. } = before;
            let outcome = Outcome::default();
            let applied = || Applied { id, cluster_time, wall_time, version, call: call.clone(), outcome };
            self.guests.with(|record| {
                // Where it came to nothing, it is in the log all the same.
                record.log.entry(place).or_insert_with(applied);
                record.find(id, wrong);
            });
            Vec::new()
        })
    }

    fn compare(&mut self, context: &mut Context, before: &Context, call: &Call) -> Result<Vec<u8>, Wrong> {
        let program = &self.guests.program;
        let outcome = outcome(&**program, &mut *self.machine, context, call)?;
        let reply = outcome.reply.clone();
        let Context { id, cluster_time, wall_time, version, .. } = *context;
        let applied = Applied { id, cluster_time, wall_time, version, call: call.clone(), outcome };
        let place = (id.index, self.newest.1);
        let known = self.guests.with(|record| {
            let known = record.log.entry(place).or_insert_with(|| applied.clone());
            (known.call == *call).then(|| known.outcome.clone())
        });
        if let Some(known) = known {
            alike(&**program, call, &known, &applied.outcome, "determinism", "the machine of another node")?;
        }
        let (rule, who) = match self.made {
            None => ("determinism", SECOND.to_owned()),
            Some(made) => {
                ("snapshot", format!("a machine that was restored from its snapshot after entry {made}"))
            }
        };
        let other = outcome_of_second(&**program, &mut *self.second, before, call)?;
        alike(&**program, call, &applied.outcome, &other, rule, &who)?;
        let now = QueryContext::new(id, cluster_time);
        program.holds(&*self.machine, &now)?;
        if self.every > 0 && id.index.0.is_multiple_of(self.every) {
            self.remake(id, &now)?;
        }
        Ok(reply)
    }

    /// The machine's snapshot, restored by one that holds something older, and that one's by a new machine.
    fn remake(&mut self, id: LogId, now: &QueryContext) -> Result<(), Wrong> {
        let program = &self.guests.program;
        let state =
            |machine: &dyn Machine| program.state().map(|query| machine.query(now, query)).transpose();
        let before = (state(&*self.machine)?, self.machine.digest());
        restore(&mut *self.spare, &saved(&*self.machine)?)?;
        let mut third = program.machine();
        restore(&mut *third, &saved(&*self.spare)?)?;
        for (machine, which) in
            [(&self.spare, "it"), (&third, "a second one, of what was restored from the first,")]
        {
            let after = (state(&**machine)?, machine.digest());
            if after != before {
                let query = Call::Query(program.state().unwrap_or_default().to_vec());
                let said = |(state, digest): &(Option<Vec<u8>>, _)| match state {
                    Some(answer) => program.answer(&query, answer),
                    None => format!("the digest {digest:02x?}"),
                };
                let detail = format!(
                    "the state is {}, and a machine that restores the snapshot of {which} has {}",
                    said(&before),
                    said(&after)
                );
                return Err(Wrong { rule: "snapshot", detail });
            }
        }
        mem::swap(&mut self.second, &mut self.spare);
        self.made = Some(id);
        Ok(())
    }

    pub(super) fn query(&self, context: &QueryContext, query: &[u8]) -> Vec<u8> {
        self.machine.query(context, query).unwrap_or_else(|wrong| {
            self.guests.with(|record| record.find(context.applied, wrong));
            Vec::new()
        })
    }

    pub(super) fn snapshot(&self) -> SaveState {
        self.machine.snapshot()
    }

    /// Takes the state of a snapshot.
    pub(super) fn restore(&mut self, bytes: &[u8]) -> io::Result<()> {
        let restored = restore(&mut *self.machine, bytes).and_then(|()| {
            self.second = self.guests.program.machine();
            restore(&mut *self.second, bytes)
        });
        self.made = None;
        restored.map_err(|wrong| {
            let problem = io::Error::other(wrong.detail.clone());
            self.guests.with(|record| record.find(self.newest.0, wrong));
            problem
        })
    }
}

fn saved(machine: &dyn Machine) -> Result<Vec<u8>, Wrong> {
    let mut bytes = Vec::new();
    let saved = machine.snapshot()(&mut bytes);
    let wrong =
        |error| Wrong { rule: "snapshot", detail: format!("its snapshot cannot be written: {error}") };
    saved.map(|()| bytes).map_err(wrong)
}

fn restore(machine: &mut dyn Machine, bytes: &[u8]) -> Result<(), Wrong> {
    let mut rest = bytes;
    let restored = machine.restore(&mut rest);
    let wrong =
        |error| Wrong { rule: "snapshot", detail: format!("it cannot be restored from a snapshot: {error}") };
    restored.map_err(wrong)
}

fn outcome_of_second(
    program: &dyn Program,
    machine: &mut dyn Machine,
    before: &Context,
    call: &Call,
) -> Result<Outcome, Wrong> {
    outcome(program, machine, &mut before.clone(), call)
}

/// Has a machine do this, and looks at what it shows of it.
pub(super) fn outcome(
    program: &dyn Program,
    machine: &mut dyn Machine,
    context: &mut Context,
    call: &Call,
) -> Result<Outcome, Wrong> {
    let reply = machine.apply(context, call)?;
    let now = QueryContext::new(context.id, context.cluster_time);
    let state = program.state().map(|query| machine.query(&now, query)).transpose()?;
    let emitted = context.emitted().iter().map(|event| event.to_vec()).collect();
    let (timers, effects) = (context.timers.digest(), context.pending.digest());
    Ok(Outcome { reply, emitted, state, digest: machine.digest(), timers, effects })
}

/// Whether two machines show the same of an entry.
pub(super) fn alike(
    program: &dyn Program,
    call: &Call,
    one: &Outcome,
    other: &Outcome,
    rule: &'static str,
    who: &str,
) -> Result<(), Wrong> {
    if one == other {
        return Ok(());
    }
    let state = |outcome: &Outcome| {
        let query = Call::Query(program.state().unwrap_or_default().to_vec());
        outcome.state.as_ref().map(|answer| program.answer(&query, answer)).unwrap_or_default()
    };
    let detail = if one.reply != other.reply {
        let (one, other) = (program.answer(call, &one.reply), program.answer(call, &other.reply));
        format!("the machine replies {one}, and {who} replies {other}")
    } else if one.emitted != other.emitted {
        format!("the machine emits {} events, and {who} emits others", one.emitted.len())
    } else if one.state != other.state {
        format!("the state is {} then, and that of {who} is {}", state(one), state(other))
    } else if one.timers != other.timers {
        format!("{who} has set other timers")
    } else if one.effects != other.effects {
        format!("{who} has other effects pending")
    } else {
        format!("{who} has another digest")
    };
    Err(Wrong { rule, detail })
}
