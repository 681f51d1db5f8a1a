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
    let count = writes.len();
    let rotated = |start: usize| (0..count).map(move |n| (start + n) % count);
    let read = |key: &Bytes, value: Bytes, earliest: usize| Extra {
        key: key.clone(),
        command: Command::Get,
        output: Output::Value(Some(value)),
        earliest,
    };
    for (n, a) in rotated(start).map(|n| (n, &writes[n])) {
        let (act, Some(value), Some(returned)) = (&play.acts[a.at], &a.after, a.returned) else { continue };
        // Writes of the same key that certainly came after this one.
        let later = || {
            rotated(n).map(|n| &writes[n]).filter(|b| play.acts[b.at].key == act.key && b.invoked > returned)
        };
        let found = match flaw {
            Flaw::Stale => {
                later().find_map(|b| b.returned).map(|over| read(&act.key, value.clone(), over + 1))
            }
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
            Flaw::SwappedTwice => match &act.command {
                Command::Cas { from: Some(from), .. } => {
                    let (from, key) = (Some(from.clone()), act.key.clone());
                    let command = Command::Cas { from, to: play.value() };
                    return Some(Extra { key, command, output: Output::Swapped(true), earliest: a.invoked });
                }
                _ => None,
            },
            Flaw::AppendedTwice => match &act.command {
                Command::Append(tail) => {
                    Some(read(&act.key, [&value[..], tail].concat().into(), returned + 1))
                }
                _ => None,
            },
            Flaw::Reordered => later().find_map(|b| {
                let (Command::Append(first), Command::Append(second)) =
                    (&act.command, &play.acts[b.at].command)
                else {
                    return None;
                };
                // Only where the second one's value still holds the first, right before it.
                let both = [&value[..], second].concat();
                let kept = value.len() - first.len();
                let swapped = [&value[..kept], second, first].concat();
                (b.after.as_deref() == Some(&both)).then(|| read(&act.key, swapped.into(), b.invoked))
            }),
            Flaw::Phantom => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
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
