//! The same log in another process: with another hash seed, other addresses, and in another second of the clock.
//!
//! The program is started once more, and comes to the same call of [`simulate`](super::simulate). There it finds the log, has
//! a machine apply it, tells what that showed, and ends.

use super::failure::Failure;
use crate::codec::message_pack;
use crate::sim::guest::{Applied, Call, Outcome, Program, Replay, alike, outcome};
use bytes::Bytes;
use coracle_core::LogId;
use serde::{Deserialize, Serialize};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the other process finds the log.
const VARIABLE: &str = "CORACLE_KIT_LOG";

/// Allocations of odd sizes, so that the machine's own lie elsewhere.
const BALLAST: usize = 1000;

/// An entry: term, index; the cluster's clock, the wall clock, the machine's version; and the command, or else the timer that fires.
type Line = (u64, u64, (u64, u64, u16), Result<Vec<u8>, u64>);

/// What is handed over.
#[derive(Serialize, Deserialize)]
struct Question {
    site: String,
    second: u64,
    log: Vec<Line>,
}

/// What is shown of an entry: reply, events, state, digest, and digests of timers and effects; or what is wrong.
type Shown = Result<(Vec<u8>, Vec<Vec<u8>>, Option<Vec<u8>>, Option<[u8; 16]>, [[u8; 16]; 2]), String>;

/// The longest log, and when it was applied.
pub(super) struct Again {
    seed: u64,
    second: u64,
    log: Vec<Applied>,
}

impl Again {
    pub(super) fn new() -> Again {
        Again { seed: 0, second: 0, log: Vec::new() }
    }

    pub(super) fn keep(&mut self, seed: u64, log: Vec<Applied>) {
        if log.len() > self.log.len() {
            *self = Again { seed, second: second(), log };
        }
    }

    /// Starts this program with these arguments, and compares what it shows of the log.
    pub(super) fn ask(
        self,
        site: &str,
        arguments: &[String],
        program: &Arc<dyn Program>,
    ) -> Result<(), Box<Failure>> {
        if env::var_os(VARIABLE).is_some() {
            // This one was started for another call.
            return Ok(());
        }
        let Again { seed, second, log } = self;
        let line = |it: &Applied| {
            let call = match &it.call {
                Call::Command(command) | Call::Query(command) => Ok(command.clone()),
                Call::Timer(name) => Err(*name),
            };
            (it.id.term.0, it.id.index.0, (it.cluster_time, it.wall_time, it.version), call)
        };
        let question = Question { site: site.to_owned(), second, log: log.iter().map(line).collect() };
        let failed = |detail| Box::new(Failure::new(seed, "processes", detail));
        let shown = in_another_process(&question, arguments)
            .map_err(|error| failed(format!("no other process did it: {error}")))?;
        for (one, other) in log.iter().zip(&shown) {
            let call = one.call.clone();
            let same = match other.clone() {
                Ok((reply, emitted, state, digest, [timers, effects])) => {
                    let other = Outcome { reply, emitted, state, digest, timers, effects };
                    alike(&**program, &call, &one.outcome, &other, "processes", "that of another process")
                        .map_err(|wrong| wrong.detail)
                }
                Err(problem) => Err(format!("in another process: {problem}")),
            };
            same.map_err(|detail| {
                let command = Some(program.call(&call));
                Box::new(Failure { entry: Some(one.id), command, ..*failed(detail) })
            })?;
        }
        Ok(())
    }
}

/// If this process was started to apply a log here, does that and ends.
pub(super) fn answer(site: &str, program: &dyn Program) {
    let Some(path) = env::var_os(VARIABLE).map(PathBuf::from) else { return };
    let question = fs::read(&path).ok().and_then(|bytes| message_pack::decode(&Bytes::from(bytes)).ok());
    let Some(Question { site: of, second: before, log }) = question else { return };
    if of != site {
        return;
    }
    let shown = apply(before, &log, program);
    let told = message_pack::encode(&shown).map(|bytes| fs::write(beside(&path), bytes));
    process::exit(i32::from(!matches!(told, Ok(Ok(())))));
}

fn apply(before: u64, log: &[Line], program: &dyn Program) -> Vec<Shown> {
    let mut ballast: Vec<Vec<u8>> = (0..BALLAST).map(|at| vec![0; 16 + at * 7 % 500]).collect();
    let mut at = 0;
    ballast.retain(|_| {
        at += 1;
        at % 3 != 0
    });
    // Whoever reads whole seconds is to read another one.
    while second() == before {
        thread::sleep(Duration::from_millis(10));
    }
    let mut machine = program.machine();
    let mut shown = Vec::new();
    let mut replay = Replay::default();
    for (term, index, (cluster_time, wall_time, version), call) in log {
        let applied = Applied {
            id: LogId::new(*term, *index),
            cluster_time: *cluster_time,
            wall_time: *wall_time,
            version: *version,
            call: call.clone().map_or_else(Call::Timer, Call::Command),
            outcome: Outcome::default(),
        };
        let mut context = replay.context(&applied);
        let outcome = outcome(program, &mut *machine, &mut context, &applied.call);
        replay.took(context);
        let wrong = outcome.is_err();
        shown.push(
            outcome
                .map_err(|wrong| wrong.detail)
                .map(|it| (it.reply, it.emitted, it.state, it.digest, [it.timers, it.effects])),
        );
        if wrong {
            break;
        }
    }
    drop(ballast);
    shown
}

/// Has this program apply the log in a process of its own.
fn in_another_process(question: &Question, arguments: &[String]) -> io::Result<Vec<Shown>> {
    let bytes = message_pack::encode(question).map_err(|error| io::Error::other(error.0))?;
    let path = fresh(&bytes)?;
    let run = || {
        let status = Command::new(env::current_exe()?)
            .args(arguments)
            .env(VARIABLE, &path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        let told = fs::read(beside(&path)).map_err(|_| {
            io::Error::other(format!(
                "this program, started with {arguments:?}, ended with {status} and did not come here again"
            ))
        })?;
        message_pack::decode(&Bytes::from(told)).map_err(|error| io::Error::other(error.0))
    };
    let shown = run();
    let _ = (fs::remove_file(&path), fs::remove_file(beside(&path)));
    shown
}

/// A new file with these bytes.
fn fresh(bytes: &[u8]) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let path = env::temp_dir().join(format!("coracle-kit-{}-{number}", process::id()));
        match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => return file.write_all(bytes).map(|()| path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Where the answer lies.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("told")
}

fn second() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
