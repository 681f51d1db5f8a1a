//! `coracle bench --count`: so many writes in this process alone, without sockets, disks and other threads, so that the
//! instructions of one can be counted (`bench/run --only instructions`).

use crate::commands::{Request, answer_write, parse};
use crate::kv::{Kv, Operation, Outcome, When};
use crate::resp::{Parser, Replies};
use bytes::Bytes;
use clap::ValueEnum;
use coracle::raft::LogId;
use coracle::sim::counting::{Alone, Row};
use coracle::{Context, StateMachine};
use std::hint::black_box;

/// So many keys are written, again and again.
const KEYS: usize = 500;

/// The length of a value, in bytes.
const VALUE: usize = 256;

/// So many writes come at once, where many do.
const AT_ONCE: usize = 50;

/// What does the writes.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Count {
    /// The cores of three nodes, a write at a time
    Core,
    /// The same, 50 at a time
    CoreAtOnce,
    /// Three nodes with this server's machine, a write at a time
    Nodes,
    /// The same, 50 at a time
    NodesAtOnce,
    /// This server's machine
    Machine,
    /// From the bytes of a command to an operation, and from an outcome to the bytes of an answer
    Commands,
}

/// Does that many writes, or a few more.
pub(super) fn run(what: Count, writes: usize) {
    match what {
        Count::Core => core(writes, 1),
        Count::CoreAtOnce => core(writes, AT_ONCE),
        Count::Nodes => nodes(writes, 1),
        Count::NodesAtOnce => nodes(writes, AT_ONCE),
        Count::Machine => machine(writes),
        Count::Commands => commands(writes),
    }
}

fn core(writes: usize, at_once: usize) {
    let mut cluster = Alone::elected();
    for _ in 0..writes.div_ceil(at_once) {
        cluster.commit((0..at_once).map(|_| vec![7; VALUE]).collect());
    }
    cluster.settle();
    let done = (writes.div_ceil(at_once) * at_once) as u64;
    assert_eq!(cluster.committed(), [done; 3]);
}

fn nodes(writes: usize, at_once: usize) {
    let mut row = Row::elected(Kv::new);
    for first in (0..writes).step_by(at_once) {
        black_box(row.write((first..first + at_once).map(|number| vec![set(number)]).collect()));
    }
}

fn machine(writes: usize) {
    let mut machine = Kv::new();
    for number in 0..writes {
        let mut context = Context::new(LogId::ZERO, 0, 0);
        context.version = Kv::VERSION;
        black_box(machine.apply(&mut context, vec![set(number)]));
    }
}

fn commands(writes: usize) {
    let (mut parser, mut sent) = (Parser::new(), b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$256\r\n".to_vec());
    sent.extend([7; VALUE]);
    sent.extend(b"\r\n");
    for _ in 0..writes {
        let mut input = &sent[..];
        let command = parser.next(&mut input).ok().flatten().expect("it is a whole command");
        let Request::Write(operation, phrase) = parse(command) else { unreachable!("SET is a write") };
        let mut replies = Replies::default();
        answer_write(&Outcome::Done, &phrase, &mut replies);
        black_box((operation, replies));
    }
}

fn set(number: usize) -> Operation {
    let key = Bytes::from(format!("bench:{:08}", number % KEYS));
    Operation::Set { key, value: Bytes::from(vec![7; VALUE]), when: When::Always, get: false }
}
