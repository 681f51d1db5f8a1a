//! A user's program with its types, as the simulator takes it.

use super::calls::{Client, Draw, HistoryOf, Input, InputOf, Output, OutputOf, Shown, Told};
use super::checks::Checks;
use crate::codec::CodecError;
use crate::events::Publishes;
use crate::replicated::SaveState;
use crate::sim::dice::Dice;
use crate::sim::ghost::Violation;
use crate::sim::guest::{Applied, Asker, Call, Machine, Program, Replay, Step, Told as Heard, Wrong};
use crate::sim::history::{History, Operation, Outcome};
use crate::state_machine::{Context, QueryContext};
use bytes::Bytes;
use coracle_core::{Index, LogId};
use std::any::Any;
use std::fmt::Debug;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Commands and queries have at most so many bytes, so that the bounds of simulated nodes, which are small, hold some.
const LARGEST: usize = 3000;

/// What a user brought.
pub(super) struct Typed<S: Shown> {
    pub(super) machine: Box<dyn Fn() -> S + Send + Sync>,
    pub(super) client: Box<dyn Fn(u64) -> Box<dyn Client<S>> + Send + Sync>,
    pub(super) checks: Checks<S>,
}

impl<S: Shown> Program for Typed<S> {
    fn machine(&self) -> Box<dyn Machine> {
        Box::new(Carried((self.machine)()))
    }

    fn asker(&self, client: u64) -> Box<dyn Asker> {
        Box::new(Asking((self.client)(client)))
    }

    fn state(&self) -> Option<&[u8]> {
        self.checks.state.as_deref()
    }

    fn holds(&self, machine: &dyn Machine, context: &QueryContext) -> Result<(), Wrong> {
        for (query, holds) in &self.checks.always {
            let answer = decode_answer::<S>(&machine.query(context, query)?)?;
            held("always", || holds(&answer))?;
        }
        Ok(())
    }

    fn call(&self, call: &Call) -> String {
        if let Call::Timer(name) = call {
            return format!("timer {name} fires");
        }
        match input::<S>(call) {
            Ok(Input::Command(command)) => format!("{command:?}"),
            Ok(Input::Query(query)) => format!("query {query:?}"),
            Err(wrong) => wrong.detail,
        }
    }

    fn answer(&self, call: &Call, answer: &[u8]) -> String {
        if let Call::Timer(_) = call {
            return "nothing".to_owned();
        }
        match output::<S>(call, answer) {
            Ok(Output::Reply(reply)) => format!("{reply:?}"),
            Ok(Output::Answer(answer)) => format!("{answer:?}"),
            Err(wrong) => wrong.detail,
        }
    }

    fn judge(
        &self,
        history: &History<Call, Vec<u8>>,
        at: &[Option<Index>],
        log: &[Applied],
    ) -> Result<bool, Violation> {
        let violation = |Wrong { rule, detail }| Violation { invariant: rule, detail };
        let history = typed::<S>(history).map_err(violation)?;
        self.judge_end(&history, log).map_err(violation)?;
        match &self.checks.model {
            None => Ok(true),
            Some(model) => {
                model.judge(&history, at).map_err(|detail| Violation { invariant: "model", detail })
            }
        }
    }

    fn refuses(&self, steps: &[Step]) -> Option<(usize, Wrong)> {
        let model = self.checks.model.as_ref()?;
        let mut machine = Carried((self.machine)());
        let (mut calls, mut places) = (Vec::new(), Vec::new());
        let (mut now, mut replay) = (QueryContext::new(LogId::ZERO, 0), Replay::default());
        for (place, step) in steps.iter().enumerate() {
            let call = step.call();
            let said = match step {
                Step::Command(applied) => {
                    now = QueryContext::new(applied.id, applied.cluster_time);
                    let mut context = replay.context(applied);
                    let said = machine.apply(&mut context, &call);
                    replay.took(context);
                    said
                }
                Step::Query(query) => machine.query(&now, query),
            };
            let said = said.ok()?;
            // A model knows of no timers.
            if !matches!(call, Call::Timer(_)) {
                calls.push((input::<S>(&call).ok()?, output::<S>(&call, &said).ok()?));
                places.push(place);
            }
        }
        let (at, state) = model.refuses(&calls)?;
        let (input, output) = &calls[at];
        let detail = format!("the model holds {state} then, and does not allow {output:?} to {input:?}");
        Some((places[at], Wrong { rule: "model", detail }))
    }
}

impl<S: Shown> Typed<S> {
    /// Asks a machine that is given the whole log once more.
    fn judge_end(&self, history: &HistoryOf<S>, log: &[Applied]) -> Result<(), Wrong> {
        if self.checks.end.is_empty() {
            return Ok(());
        }
        let mut machine = Carried((self.machine)());
        let (mut now, mut replay) = (QueryContext::new(LogId::ZERO, 0), Replay::default());
        for applied in log {
            let mut context = replay.context(applied);
            machine.apply(&mut context, &applied.call)?;
            replay.took(context);
            now = QueryContext::new(applied.id, applied.cluster_time);
        }
        for (query, holds) in &self.checks.end {
            let answer = decode_answer::<S>(&machine.query(&now, query)?)?;
            held("end", || holds(&answer, history))?;
        }
        Ok(())
    }
}

/// A machine as the simulator carries it.
struct Carried<S>(S);

impl<S: Shown> Machine for Carried<S> {
    fn apply(&mut self, context: &mut Context, call: &Call) -> Result<Vec<u8>, Wrong> {
        let bytes = match call {
            Call::Command(bytes) | Call::Query(bytes) => Bytes::copy_from_slice(bytes),
            Call::Timer(name) => return self.fire(context, *name),
        };
        let decoded = S::decode_command(&bytes).map_err(unreadable)?;
        let machine = &mut self.0;
        let shown = format!("{decoded:?}");
        let reply = catch_unwind(AssertUnwindSafe(|| machine.apply(context, decoded)))
            .map_err(|panic| panicked(&format!("the machine panics where it applies {shown}"), &*panic))?;
        if matches!(S::PUBLISHES, Publishes::Commands) {
            context.emitted = vec![bytes];
        }
        let encoded = S::encode_reply(&reply).map_err(unreadable)?;
        survives(&reply, &S::decode_reply(&encoded).map_err(unreadable)?)?;
        Ok(encoded.to_vec())
    }

    fn query(&self, context: &QueryContext, query: &[u8]) -> Result<Vec<u8>, Wrong> {
        let query = S::decode_query(&Bytes::copy_from_slice(query)).map_err(unreadable)?;
        let shown = format!("{query:?}");
        let answer = catch_unwind(AssertUnwindSafe(|| self.0.query(context, query)))
            .map_err(|panic| panicked(&format!("the machine panics where it answers {shown}"), &*panic))?;
        let encoded = S::encode_answer(&answer).map_err(unreadable)?;
        survives(&answer, &S::decode_answer(&encoded).map_err(unreadable)?)?;
        Ok(encoded.to_vec())
    }

    fn snapshot(&self) -> SaveState {
        Box::new(self.0.snapshot())
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.0.restore(from)
    }

    fn digest(&self) -> Option<[u8; 16]> {
        self.0.digest()
    }
}

impl<S: Shown> Carried<S> {
    fn fire(&mut self, context: &mut Context, name: u64) -> Result<Vec<u8>, Wrong> {
        let machine = &mut self.0;
        catch_unwind(AssertUnwindSafe(|| machine.on_timer(context, name)))
            .map_err(|panic| panicked(&format!("the machine panics where timer {name} fires"), &*panic))?;
        if matches!(S::PUBLISHES, Publishes::Commands) {
            context.emitted.clear();
        }
        Ok(Vec::new())
    }
}

/// A client as the simulator asks it.
struct Asking<S>(Box<dyn Client<S>>);

impl<S: Shown> Asker for Asking<S> {
    fn ask(&mut self, dice: &mut Dice) -> Result<Call, Wrong> {
        let client = &mut self.0;
        let asked = catch_unwind(AssertUnwindSafe(|| client.ask(&mut Draw(dice))));
        let asked = asked.map_err(|panic| panicked("a client panics where it asks", &*panic))?;
        let call = match &asked {
            Input::Command(command) => S::encode_command(command).map(|bytes| Call::Command(bytes.to_vec())),
            Input::Query(query) => S::encode_query(query).map(|bytes| Call::Query(bytes.to_vec())),
        };
        let call = call.map_err(unreadable)?;
        survives(&asked, &input::<S>(&call)?)?;
        match &call {
            Call::Command(bytes) | Call::Query(bytes) if bytes.len() > LARGEST => {
                let length = bytes.len();
                let detail =
                    format!("{asked:?} takes {length} bytes, and here at most {LARGEST} are allowed");
                Err(Wrong { rule: "encoding", detail })
            }
            _ => Ok(call),
        }
    }

    fn told(&mut self, call: &Call, told: Heard<'_>) -> Result<(), Wrong> {
        let input = input::<S>(call)?;
        let told = match told {
            Heard::Done(said) => Told::Done(output::<S>(call, said)?),
            Heard::NotDone => Told::NotDone,
            Heard::Unknown => Told::Unknown,
        };
        let client = &mut self.0;
        catch_unwind(AssertUnwindSafe(|| client.told(&input, told)))
            .map_err(|panic| panicked("a client panics where it is told what became of its call", &*panic))
    }
}

/// Whether a condition holds. One that panics does not.
fn held(rule: &'static str, holds: impl FnOnce() -> Result<(), String>) -> Result<(), Wrong> {
    let held = catch_unwind(AssertUnwindSafe(holds)).map_err(|panic| said(&*panic));
    held.unwrap_or_else(Err).map_err(|detail| Wrong { rule, detail })
}

fn input<S: Shown>(call: &Call) -> Result<InputOf<S>, Wrong> {
    let decoded = match call {
        Call::Command(bytes) => S::decode_command(&Bytes::copy_from_slice(bytes)).map(Input::Command),
        Call::Query(bytes) => S::decode_query(&Bytes::copy_from_slice(bytes)).map(Input::Query),
        Call::Timer(_) => return Err(no_call()),
    };
    decoded.map_err(unreadable)
}

fn output<S: Shown>(call: &Call, said: &[u8]) -> Result<OutputOf<S>, Wrong> {
    match call {
        Call::Command(_) => {
            S::decode_reply(&Bytes::copy_from_slice(said)).map(Output::Reply).map_err(unreadable)
        }
        Call::Query(_) => decode_answer::<S>(said).map(Output::Answer),
        Call::Timer(_) => Err(no_call()),
    }
}

fn decode_answer<S: Shown>(said: &[u8]) -> Result<S::Answer, Wrong> {
    S::decode_answer(&Bytes::copy_from_slice(said)).map_err(unreadable)
}

fn typed<S: Shown>(history: &History<Call, Vec<u8>>) -> Result<HistoryOf<S>, Wrong> {
    let operations = history.operations().iter().map(|it| {
        let outcome = match &it.outcome {
            Outcome::Unknown => Outcome::Unknown,
            Outcome::Refused => Outcome::Refused,
            Outcome::Returned { at, output: said } => {
                Outcome::Returned { at: *at, output: output::<S>(&it.input, said)? }
            }
        };
        Ok(Operation { client: it.client, input: input::<S>(&it.input)?, invoked: it.invoked, outcome })
    });
    Ok(History::from_operations(operations.collect::<Result<_, Wrong>>()?))
}

/// Whether what was encoded and decoded is what it was, as far as that shows. What has no order, as a `HashMap` in a command,
/// may come in another: the letters are the same.
fn survives<T: Debug>(before: &T, after: &T) -> Result<(), Wrong> {
    let (before, after) = (format!("{before:?}"), format!("{after:?}"));
    let letters = |text: &str| {
        let mut letters = text.as_bytes().to_vec();
        letters.sort_unstable();
        letters
    };
    if before == after || letters(&before) == letters(&after) {
        return Ok(());
    }
    Err(Wrong { rule: "encoding", detail: format!("{before} is {after} once it was encoded and decoded") })
}

/// What no client asks.
fn no_call() -> Wrong {
    Wrong { rule: "encoding", detail: "no client has a timer fire".to_owned() }
}

fn unreadable(error: CodecError) -> Wrong {
    Wrong { rule: "encoding", detail: error.0 }
}

fn panicked(what: &str, panic: &(dyn Any + Send)) -> Wrong {
    Wrong { rule: "panic", detail: format!("{what}: {}", said(panic)) }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
