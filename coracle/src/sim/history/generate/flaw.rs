//! One operation too many, whose answer nothing explains.
//!
//! All written values are unique: a value that is seen names the one operation that made it, and the key holds
//! it only from there to the next change. "Certain" means that the client was answered.

use bytes::Bytes;

use super::super::kv::{Command, Output};
use super::Object;
use super::play::{Act, Effect, Event, Play};

/// What is wrong with a broken history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// A read sees `a`, though `a` was answered before the write `b` was invoked, and `b` was answered before
    /// the read was invoked.
    Stale,
    /// A read sees `b`; a later one sees `a`, which was answered before `b` was invoked.
    Backwards,
    /// A read sees what nobody wrote.
    Phantom,
    /// Two compare-and-sets succeed from the same value, which was written once.
    SwappedTwice,
    /// A read sees the same append twice.
    AppendedTwice,
    /// A read sees two appends in an order in which they cannot have been made.
    Reordered,
}

/// An operation to add, in the events from `earliest` on.
struct Extra {
    key: Bytes,
    command: Command,
    output: Output,
    earliest: usize,
}

/// Adds one of the flaws, whichever the history offers the material for.
pub(super) fn inject(object: Object, play: &mut Play) -> Flaw {
    let flaws = match object {
        Object::Register => &[Flaw::Stale, Flaw::Backwards, Flaw::SwappedTwice, Flaw::Phantom][..],
        Object::KeyValue => &[
            Flaw::Stale,
            Flaw::Backwards,
            Flaw::SwappedTwice,
            Flaw::AppendedTwice,
            Flaw::Reordered,
            Flaw::Phantom,
        ],
    };
    let first = play.dice.below(flaws.len() as u64) as usize;
    let extra = (0..flaws.len()).find_map(|step| {
        let flaw = flaws[(first + step) % flaws.len()];
        Some((flaw, extra(flaw, play)?))
    });
    let (flaw, extra) = extra.unwrap_or_else(|| (Flaw::Phantom, phantom(play)));
    add(play, extra);
    flaw
}

/// Always possible: a value that nobody wrote.
fn phantom(play: &mut Play) -> Extra {
    let key = play.acts.first().map_or_else(|| Bytes::from_static(b"k"), |act| act.key.clone());
    let output = Output::Value(Some(play.value()));
    Extra { key, command: Command::Get, output, earliest: 0 }
}

/// A writer whose value can be told: where it was invoked and answered, and what the key held after it.
struct Write {
    at: usize,
    invoked: usize,
    returned: Option<usize>,
    after: Option<Bytes>,
}

fn extra(flaw: Flaw, play: &mut Play) -> Option<Extra> {
    if flaw == Flaw::Phantom {
        return Some(phantom(play));
    }
    let spans = spans(play);
    let writes: Vec<Write> = (0..play.acts.len())
        .filter_map(|at| {
            let effect = play.acts[at].effect.as_ref().filter(|effect| effect.writer == Some(at))?;
            let changes = !matches!(play.acts[at].command, Command::Get);
            let (invoked, returned) = spans[at];
            changes.then(|| Write { at, invoked, returned, after: effect.after.clone() })
        })
        .collect();
    let start = play.dice.below(writes.len() as u64) as usize;
    rotated(&writes, start).find_map(|n| after_write(flaw, play, &spans, &writes, n))
}

/// The places of all writes, from this one on and around.
fn rotated(writes: &[Write], start: usize) -> impl Iterator<Item = usize> + use<> {
    let count = writes.len();
    (0..count).map(move |n| (start + n) % count)
}

fn read(key: &Bytes, value: Bytes, earliest: usize) -> Extra {
    Extra { key: key.clone(), command: Command::Get, output: Output::Value(Some(value)), earliest }
}

/// An answer that is wrong because of this write, if it allows for one.
fn after_write(
    flaw: Flaw,
    play: &mut Play,
    spans: &[(usize, Option<usize>)],
    writes: &[Write],
    n: usize,
) -> Option<Extra> {
    let a = &writes[n];
    let (value, returned) = (a.after.as_ref()?, a.returned?);
    if let (Flaw::SwappedTwice, Command::Cas { from: Some(from), .. }) = (flaw, &play.acts[a.at].command) {
        let (from, key) = (Some(from.clone()), play.acts[a.at].key.clone());
        let command = Command::Cas { from, to: play.value() };
        return Some(Extra { key, command, output: Output::Swapped(true), earliest: a.invoked });
    }
    let act = &play.acts[a.at];
    // Writes of the same key that certainly came after this one.
    let later = || {
        let all = rotated(writes, n).map(|n| &writes[n]);
        all.filter(|b| play.acts[b.at].key == act.key && b.invoked > returned)
    };
    match flaw {
        Flaw::Stale => later().find_map(|b| b.returned).map(|over| read(&act.key, value.clone(), over + 1)),
        Flaw::Backwards => later().find_map(|b| {
            let seen = |(at, act): (usize, &Act)| {
                let saw = act.command == Command::Get
                    && act.effect.as_ref().is_some_and(|effect| effect.writer == Some(b.at));
                spans[at].1.filter(|_| saw)
            };
            b.after.as_ref()?; // that a key is absent tells nobody who deleted it
            let over = play.acts.iter().enumerate().find_map(seen)?;
            Some(read(&act.key, value.clone(), over + 1))
        }),
        Flaw::AppendedTwice => match &act.command {
            Command::Append(tail) => Some(read(&act.key, [&value[..], tail].concat().into(), returned + 1)),
            _ => None,
        },
        Flaw::Reordered => later().find_map(|b| {
            let (Command::Append(first), Command::Append(second)) = (&act.command, &play.acts[b.at].command)
            else {
                return None;
            };
            // Only where the second one's value still holds the first, right before it.
            let both = [&value[..], second].concat();
            let kept = value.len() - first.len();
            let swapped = [&value[..kept], second, first].concat();
            (b.after.as_deref() == Some(&both)).then(|| read(&act.key, swapped.into(), b.invoked))
        }),
        Flaw::SwappedTwice | Flaw::Phantom => None,
    }
}

/// For each act, the places of its question and its answer among the events.
fn spans(play: &Play) -> Vec<(usize, Option<usize>)> {
    let mut spans = vec![(0, None); play.acts.len()];
    for (place, event) in play.events.iter().enumerate() {
        match *event {
            Event::Invoke(at) => spans[at].0 = place,
            Event::Return(at) => spans[at].1 = Some(place),
        }
    }
    spans
}

/// A client of its own asks and is answered, at random places from the earliest on.
fn add(play: &mut Play, extra: Extra) {
    let Extra { key, command, output, earliest } = extra;
    let client = play.acts.iter().map(|act| act.client + 1).max().unwrap_or(0);
    let at = play.acts.len();
    play.acts.push(Act { client, key, command, effect: Some(Effect { output, after: None, writer: None }) });
    let invoked = earliest + play.dice.below((play.events.len() - earliest + 1) as u64) as usize;
    play.events.insert(invoked, Event::Invoke(at));
    let returned = invoked + 1 + play.dice.below((play.events.len() - invoked) as u64) as usize;
    play.events.insert(returned, Event::Return(at));
}
