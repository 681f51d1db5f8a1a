//! `COMMAND`: what there is to ask for.

use crate::commands::{COMMANDS, Known, find, unknown_subcommand};
use crate::resp::{Command, Replies};

/// `COMMAND`, `COMMAND COUNT`, `COMMAND INFO name…`, `COMMAND LIST`, `COMMAND DOCS name…` and `COMMAND GETKEYS command…`.
pub(super) fn answer(command: &Command, replies: &mut Replies) {
    if command.len() == 1 {
        replies.array(COMMANDS.len());
        COMMANDS.iter().for_each(|known| describe(known, replies));
    } else if command.is(1, "count") && command.len() == 2 {
        replies.number(COMMANDS.len() as i64);
    } else if command.is(1, "list") && command.len() == 2 {
        replies.array(COMMANDS.len());
        COMMANDS.iter().for_each(|known| replies.bulk(known.name.as_bytes()));
    } else if command.is(1, "info") {
        replies.array(command.len() - 2);
        for i in 2..command.len() {
            match find(command.argument(i)) {
                Some(known) => describe(known, replies),
                None => replies.null(),
            }
        }
    } else if command.is(1, "docs") {
        let named: Vec<_> = if command.len() == 2 {
            COMMANDS.iter().collect()
        } else {
            (2..command.len()).filter_map(|at| find(command.argument(at))).collect()
        };
        replies.map(named.len());
        named.into_iter().for_each(|known| tell(known, replies));
    } else if command.is(1, "getkeys") && command.len() > 2 {
        keys(command, replies);
    } else {
        replies.error(&unknown_subcommand(command));
    }
}

fn describe(known: &Known, replies: &mut Replies) {
    replies.array(10);
    replies.bulk(known.name.as_bytes());
    replies.number(known.arity);
    replies.set(known.flags.len());
    known.flags.iter().for_each(|flag| replies.simple(flag));
    replies.number(known.keys.0);
    replies.number(known.keys.1);
    replies.number(known.keys.2);
    // Its categories in ACL, tips, key specifications and subcommands, of which nothing is told here.
    replies.set(0);
    (0..3).for_each(|_| replies.array(0));
}

fn tell(known: &Known, replies: &mut Replies) {
    replies.bulk(known.name.as_bytes());
    replies.map(2);
    for (key, value) in [("summary", known.summary), ("group", known.group)] {
        replies.bulk(key.as_bytes());
        replies.bulk(value.as_bytes());
    }
}

fn keys(command: &Command, replies: &mut Replies) {
    let Some(known) = find(command.argument(2)) else {
        return replies.error("ERR Invalid command specified");
    };
    let count = command.len() as i64 - 2;
    if if known.arity < 0 { count < -known.arity } else { count != known.arity } {
        return replies.error("ERR Invalid number of arguments specified for command");
    }
    let (first, last, step) = known.keys;
    let last = if last < 0 { count + last } else { last };
    if first == 0 || last < first || last >= count {
        return replies.error("ERR The command has no key arguments");
    }
    let keys: Vec<_> = (first..=last).step_by(step as usize).collect();
    replies.array(keys.len());
    keys.into_iter().for_each(|key| replies.bulk(command.argument(key as usize + 2)));
}
