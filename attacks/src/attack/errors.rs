//! System calls of the disk fail, by strace, in a program that knows nothing of it.
//!
//! A node whose log cannot be written or synced has to stop, and to say which file and why. What it had not
//! synced it must not have acknowledged; the others go on; and once the cause is gone it starts as if
//! nothing had been.

use crate::load::{self, Load};
use crate::{Failure, Target};
use coracle_server::cluster::{Cluster, Program, wait};
use coracle_server::demo::Writer;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long a call is waited for that may never come, and a node that has to stop.
const REACHED: Duration = Duration::from_secs(4);
const STOPPED: Duration = Duration::from_secs(60);

/// What fails, with which error, and how the program words it.
struct Fault {
    call: &'static str,
    error: &'static str,
    words: &'static str,
}

const IO: &str = "Input/output error";
const FULL: &str = "No space left on device";

/// All of them end a node: it cannot know any more what its disk holds.
const FAULTS: &[Fault] = &[
    Fault { call: "fdatasync", error: "EIO", words: IO },
    Fault { call: "pwrite64", error: "EIO", words: IO },
    Fault { call: "pwrite64", error: "ENOSPC", words: FULL },
    Fault { call: "fsync", error: "EIO", words: IO },
    Fault { call: "rename", error: "EIO", words: IO },
    Fault { call: "fdatasync", error: "ENOSPC", words: FULL },
];

/// Runs all parts; `many` is how many of the first syncs fail, one after the other.
pub(crate) fn all(target: &Target, many: u64) -> Result<(), Failure> {
    alone(target, many)?;
    among_others(target, many)
}

/// One member and one client, so that every reply stands for a sync: after the one that fails, none may come.
fn alone(target: &Target, many: u64) -> Result<(), Failure> {
    let directory = target.subdirectory("errors-alone")?;
    let trace = directory.join("trace");
    let plain = target.program(&directory);
    let started = Cluster::start(&directory, vec![plain.clone()], target.interrupt.clone());
    let mut cluster = started.map_err(Failure::Trouble)?;
    cluster.form().map_err(Failure::Trouble)?;
    let address = cluster.node(1).place.client_addr.clone();
    let mut acknowledged = Vec::new();
    let (mut stopped, mut refused) = (0, 0);
    // All of the first ones, and then some later ones.
    for number in (1..=many).chain((1..=many / 10).map(|n| many + 17 * n)) {
        let found = |problem: String| Failure::Found(format!("alone, fdatasync {number} fails: {problem}"));
        let fault = &FAULTS[0];
        cluster.kill(1);
        cluster.set_program(1, from_start(&plain, fault, number, &trace));
        cluster.spawn(1).map_err(Failure::Trouble)?;
        let writer = Writer::start(vec![address.clone()], 0);
        let end = wait("the end of the node", STOPPED, &target.interrupt, || cluster.ended(1));
        let written = writer.stop().acknowledged;
        let status = end.map_err(found)?;
        let words = cluster.node(1).last_words();
        says(&words, fault, &directory).map_err(found)?;
        if status.code() != Some(1) {
            return Err(found(format!("it ended with {status}")));
        }
        let trace = fs::read_to_string(&trace).map_err(|error| Failure::Trouble(error.to_string()))?;
        let (_, after) = trace.split_once("(INJECTED)").ok_or_else(|| found("no call failed".into()))?;
        if after.contains("\"+OK") {
            return Err(found("it acknowledged a write after that".into()));
        }
        *if written.is_empty() { &mut refused } else { &mut stopped } += 1;
        acknowledged.extend(written);
        cluster.kill(1);
        cluster.set_program(1, plain.clone());
        cluster.restart(1).map_err(found)?;
        coracle_server::demo::read_back(&cluster, 1, &acknowledged).map_err(found)?;
    }
    println!(
        "one member, fdatasync fails once at each of its first {many} calls and at {} later ones: it refused \
         to start or stopped before its first write {refused} times and stopped later {stopped} times, each \
         time with the file and the cause, never with an acknowledgement after; all {} acknowledged writes \
         are there",
        many / 10,
        acknowledged.len()
    );
    Ok(())
}

/// One of three, now the leader and now not, from its start on or while it works.
fn among_others(target: &Target, many: u64) -> Result<(), Failure> {
    let directory = target.subdirectory("errors")?;
    let plain = target.program(&directory);
    let started = Cluster::start(&directory, vec![plain.clone(); 3], target.interrupt.clone());
    let mut three = Three {
        target,
        trace: directory.join("trace"),
        directory,
        plain,
        cluster: started.map_err(Failure::Trouble)?,
        ledger: load::Ledger::default(),
        round: 0,
        stops: 0,
        quiet: 0,
        leaders: 0,
    };
    three.cluster.form().map_err(Failure::Trouble)?;
    let each = (many / 5).clamp(1, 20);
    for fault in FAULTS {
        for number in 1..=each {
            // The first calls one by one, then wider apart.
            let when = if number <= 5 { number } else { number * number / 2 };
            three.fail_one(fault, when)?;
        }
    }
    let Three { round, stops, quiet, leaders, ledger, .. } = three;
    println!(
        "one of three, {round} times with {} kinds of failing call: it stopped {stops} times ({leaders} times as \
         the leader) with the file and the cause while the others went on, and {quiet} times no call that \
         matters came; {ledger}",
        FAULTS.len()
    );
    if stops < round / 3 {
        return Err(Failure::Trouble("so few calls failed that this shows little".into()));
    }
    ledger.is_enough(round)
}

/// A cluster of which one node at a time has a call fail.
struct Three<'a> {
    target: &'a Target,
    directory: PathBuf,
    /// Where the failing calls are written down.
    trace: PathBuf,
    /// The program, with no call failing.
    plain: Program,
    cluster: Cluster,
    ledger: load::Ledger,
    /// How many calls were made to fail.
    round: u64,
    /// How many nodes stopped.
    stops: u64,
    /// How often no call came.
    quiet: u64,
    /// How many that stopped led.
    leaders: u64,
}

impl Three<'_> {
    /// Has this call fail on one node, under load, and judges what comes of it.
    fn fail_one(&mut self, fault: &'static Fault, when: u64) -> Result<(), Failure> {
        self.round += 1;
        let found = |problem: String| {
            Failure::Found(format!("{} number {when} fails with {}: {problem}", fault.call, fault.error))
        };
        let load = Load::start(&self.cluster, self.round, self.target.seed ^ self.round);
        let (leader, _) = self.cluster.leader().map_err(Failure::Trouble)?;
        let (victim, tracer) = self.inject(leader, fault, when)?;
        let failed = || fs::read_to_string(&self.trace).is_ok_and(|trace| trace.lines().any(is_missed));
        let reached = wait("the call", REACHED, &self.target.interrupt, || Ok(failed().then_some(())));
        if reached.is_ok() {
            self.judge_end(victim, fault, &load).map_err(found)?;
            self.stops += 1;
            self.leaders += u64::from(victim == leader);
        } else {
            self.quiet += 1;
        }
        self.cluster.kill(victim);
        drop(tracer);
        self.cluster.set_program(victim, self.plain.clone());
        self.cluster.restart(victim).map_err(found)?;
        let seen = load.stop();
        self.cluster.leader().and_then(|_| self.ledger.judge(&self.cluster, seen, false)).map_err(found)
    }

    /// Has the call fail: at work, of the leader every other time, or from the start on, of another node.
    fn inject(
        &mut self,
        leader: u64,
        fault: &'static Fault,
        when: u64,
    ) -> Result<(u64, Option<Tracer>), Failure> {
        if self.round.is_multiple_of(2) {
            let victim = if self.round.is_multiple_of(4) { leader } else { leader % 3 + 1 };
            return Ok((victim, Some(Tracer::attach(&self.cluster, victim, fault, when, &self.trace)?)));
        }
        let victim = leader % 3 + 1;
        self.cluster.kill(victim);
        self.cluster.set_program(victim, from_start(&self.plain, fault, when, &self.trace));
        self.cluster.spawn(victim).map_err(Failure::Trouble)?;
        Ok((victim, None))
    }

    /// The node ends, says why, and the others go on.
    fn judge_end(&mut self, victim: u64, fault: &Fault, load: &Load) -> Result<(), String> {
        let interrupt = &self.target.interrupt;
        let status = wait("the end of the node", STOPPED, interrupt, || self.cluster.ended(victim))?;
        let words = self.cluster.node(victim).last_words();
        says(&words, fault, &self.directory)?;
        if status.code() != Some(1) {
            return Err(format!("it ended with {status}"));
        }
        let before = load.acknowledged();
        wait("the others going on", STOPPED, interrupt, || {
            Ok((load.acknowledged() > before + 10).then_some(()))
        })
    }
}

/// Whether a line of the trace tells of a failed call that a node must not go on after. RocksDB's messages and the copy of its
/// options hold nothing that was written to it.
fn is_missed(line: &str) -> bool {
    line.contains("(INJECTED)") && !["/LOG", "/OPTIONS-"].iter().any(|name| line.contains(name))
}

/// Whether these are the words of a node that says what failed, where and why.
fn says(words: &str, fault: &Fault, directory: &Path) -> Result<(), String> {
    let named = words.contains(&directory.display().to_string());
    if named && words.contains(fault.words) && words.starts_with("coracle: ") {
        Ok(())
    } else {
        Err(format!("its last words name no file or not the cause: {words}"))
    }
}

/// What strace is told, but for the process.
fn strace(fault: &Fault, when: u64, trace: &Path) -> Command {
    let Fault { call, error, .. } = fault;
    let mut command = Command::new("strace");
    command.args(["-f", "-s", "16", "-o"]).arg(trace);
    command.args(["-e", &format!("trace={call},sendto,writev,write")]);
    command.args(["-e", &format!("inject={call}:error={error}:when={when}")]);
    command
}

/// A program of which the call with this number fails, in each of its threads that comes so far.
fn from_start(plain: &Program, fault: &'static Fault, when: u64, trace: &Path) -> Program {
    let (plain, trace) = (plain.clone(), trace.to_owned());
    let _ = fs::remove_file(&trace);
    Arc::new(move |place| {
        let inner = plain(place);
        let mut command = strace(fault, when, &trace);
        // -D: the tracer is the grandchild, so that the parent sees how the program ends.
        command.args(["-D", "-qq"]).arg(inner.get_program()).args(inner.get_args());
        command
    })
}

/// A tracer of a running node.
struct Tracer(Child);

impl Tracer {
    fn attach(
        cluster: &Cluster,
        id: u64,
        fault: &Fault,
        when: u64,
        trace: &PathBuf,
    ) -> Result<Tracer, Failure> {
        let _ = fs::remove_file(trace);
        let pid = cluster.node(id).pid().ok_or_else(|| Failure::Trouble("the node does not run".into()))?;
        let mut command = strace(fault, when, trace);
        command.args(["-qq", "-p", &pid.to_string()]).stdin(Stdio::null());
        let child = command.spawn().map_err(|error| {
            Failure::Trouble(format!("cannot run strace (it is in the package strace): {error}"))
        })?;
        Ok(Tracer(child))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It ends with the node; both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
