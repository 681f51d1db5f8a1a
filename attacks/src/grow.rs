//! `scripts/grow`: a cluster that changes under load, from one node to five, all of them replaced, one moved to another
//! port, down to three.
//!
//! Writers are at work all the time, and from three voters on leaders are killed at random moments of a change. In the
//! end nothing that was acknowledged may be lost, all nodes must agree, and at no time may writes have been refused for
//! longer than an election takes. That last is a criterion of time: it counts only where the computer had time for
//! those who measure, and otherwise everything is done again.

#[path = "../../coracle/tests/common/patience.rs"]
mod patience;

use coracle_attacks::dice::Dice;
use coracle_attacks::in_a_directory;
use coracle_server::cluster::{Cluster, Interrupt, Place, Program, random, report, server, wait};
use coracle_server::demo::{Acknowledged, Writer, read_back};
use patience::{Control, STARVED, TRIES};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// Twice the maximum election timeout that servers have by default.
const GAP: Duration = Duration::from_millis(1200);

/// At once at work.
const WRITERS: usize = 2;

/// Acknowledged between two steps at least.
const WRITES: usize = 100;

/// A leader is killed at a random moment of so long after a change began, in milliseconds.
const MOMENT: u64 = 400;

/// How long a step may take. This bounds hanging only.
const LIMIT: Duration = Duration::from_secs(300);

/// From so many voters on, a leader may die.
const SAFE: usize = 3;

/// How large the cluster becomes.
const LARGEST: u64 = 5;

fn main() -> ExitCode {
    let program = std::env::args_os().nth(1).map(PathBuf::from);
    let Some(program) = program else {
        eprintln!("usage: grow PROGRAM");
        return ExitCode::FAILURE;
    };
    in_a_directory("grow", &program, |directory, interrupt| attempts(&program, directory, &interrupt))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn attempts(program: &Path, directory: &Path, interrupt: &Interrupt) -> Result<(), String> {
    for attempt in 1..=TRIES {
        let place = directory.join(attempt.to_string());
        fs::create_dir_all(&place).map_err(text)?;
        let seed = random();
        let gap = Growing::start(program, &place, seed, interrupt)
            .and_then(Growing::run)
            .map_err(|problem| format!("{problem} (seed {seed})"))?;
        match gap {
            Gap::Short => return Ok(()),
            Gap::Inconclusive => println!("the computer was too busy to judge times: again"),
        }
    }
    Err(format!("the computer was too busy to judge times, {TRIES} times"))
}

/// What can be said of the longest time without an acknowledged write.
enum Gap {
    Short,
    Inconclusive,
}

/// A cluster that changes.
struct Growing {
    program: PathBuf,
    directory: PathBuf,
    cluster: Cluster,
    members: Vec<u64>,
    acknowledged: Vec<Acknowledged>,
    longest: Duration,
    inconclusive: bool,
    killed: usize,
    dice: Dice,
    interrupt: Interrupt,
}

impl Growing {
    /// One node is a cluster.
    fn start(program: &Path, directory: &Path, seed: u64, interrupt: &Interrupt) -> Result<Growing, String> {
        let cluster = Cluster::start(directory, vec![serves(program, &[])], interrupt.clone())?;
        cluster.form()?;
        Ok(Growing {
            program: program.to_owned(),
            directory: directory.to_owned(),
            members: cluster.ids(),
            cluster,
            acknowledged: Vec::new(),
            longest: Duration::ZERO,
            inconclusive: false,
            killed: 0,
            dice: Dice::new(seed),
            interrupt: interrupt.clone(),
        })
    }

    fn run(mut self) -> Result<Gap, String> {
        while self.members.len() < LARGEST as usize {
            self.under_load("joins by itself", Growing::join)?;
        }
        for old in self.members.clone() {
            self.under_load("takes a member's place", |growing| growing.replace(old))?;
        }
        self.under_load("moves to another port", Growing::relocate)?;
        while self.members.len() > SAFE {
            self.under_load("a member leaves", Growing::remove)?;
        }
        let (applied, _) = self.cluster.agree()?;
        for id in self.cluster.ids() {
            read_back(&self.cluster, id, &self.acknowledged)?;
        }
        println!(
            "one node became five, all were replaced, one moved, and three are left: none of {} acknowledged writes was lost, {} \
             leaders were killed, all nodes applied {applied} entries and agree; the longest time without an \
             acknowledged write was {} ms",
            self.acknowledged.len(),
            self.killed,
            self.longest.as_millis()
        );
        Ok(if self.inconclusive { Gap::Inconclusive } else { Gap::Short })
    }

    /// A step while writers are at work, and what they saw in it.
    fn under_load(
        &mut self,
        what: &str,
        step: impl FnOnce(&mut Growing) -> Result<(), String>,
    ) -> Result<(), String> {
        let addresses = self.cluster.client_addresses();
        let control = Control::start();
        let writers: Vec<_> = (0..WRITERS).map(|first| Writer::start(addresses.clone(), first)).collect();
        let written = || writers.iter().map(|writer| writer.record().acknowledged.len()).sum::<usize>();
        let reach = |least: usize, interrupt: &Interrupt| {
            wait("writing", LIMIT, interrupt, || Ok((written() >= least).then_some(())))
        };
        reach(WRITES, &self.interrupt)?;
        step(self).map_err(|problem| format!("{what}: {problem}"))?;
        reach(written() + WRITES, &self.interrupt)?;
        let mut writes: Vec<_> = writers.into_iter().flat_map(|writer| writer.stop().acknowledged).collect();
        let starved = control.end() > STARVED;
        writes.sort_by_key(|write| write.answered);
        let gaps = writes.windows(2).map(|pair| pair[1].answered - pair[0].answered);
        let gap = gaps.max().unwrap_or_default();
        println!(
            "{what}: members {:?}; {} writes, the longest time without one {} ms",
            self.members,
            writes.len(),
            gap.as_millis()
        );
        if gap > GAP && starved {
            self.inconclusive = true;
        } else if gap > GAP {
            return Err(format!("{what}: {gap:?} without an acknowledged write, where {GAP:?} are allowed"));
        }
        self.longest = self.longest.max(gap);
        // Each member knows all of it.
        for id in self.members.clone() {
            read_back(&self.cluster, id, &writes)?;
        }
        self.acknowledged.extend(writes);
        Ok(())
    }

    /// A blank node asks to be taken in.
    fn join(&mut self) -> Result<(), String> {
        let join = self.cluster.client_addresses().join(",");
        let program = serves(&self.program, &["--join", &join]);
        let id = self.cluster.add(&self.directory, program)?;
        self.cluster.spawn(id)?;
        self.blow()?;
        self.cluster.ready(id)?;
        let address = self.cluster.node(id).place.client_addr.clone();
        wait("a vote for who joins", LIMIT, &self.interrupt, || {
            let Ok(report) = report(&address, LIMIT) else { return Ok(None) };
            Ok(report.members.iter().any(|member| member.id == id && member.voter).then_some(()))
        })?;
        self.members.push(id);
        // The same command line serves each later start; this one would ask nodes that are gone.
        self.cluster.set_program(id, serves(&self.program, &[]));
        Ok(())
    }

    /// A blank node takes a member's place.
    fn replace(&mut self, old: u64) -> Result<(), String> {
        let new = self.cluster.add(&self.directory, serves(&self.program, &[]))?;
        self.cluster.restart(new)?;
        let place = format!("{new}={}", self.cluster.node(new).place.peer_addr);
        let command = self.members_command(&["replace"], &[&old.to_string(), &place])?;
        self.blow()?;
        self.done(command)?;
        self.cluster.retire(old);
        self.members.retain(|id| *id != old);
        self.members.push(new);
        Ok(())
    }

    /// A member is started again where nobody looks for it, and found.
    fn relocate(&mut self) -> Result<(), String> {
        let id = self.any_member();
        self.cluster.kill(id);
        self.cluster.relocate(id)?;
        self.cluster.restart(id)?;
        self.blow()?;
        let moved = self.cluster.node(id).place.peer_addr.clone();
        wait("the members to know where it is", LIMIT, &self.interrupt, || {
            let knows = |of: &u64| {
                let members = self.cluster.node(*of).report().ok()?.members;
                members.iter().any(|member| member.id == id && member.address == moved).then_some(())
            };
            Ok(self.members.iter().map(knows).collect::<Option<()>>())
        })
    }

    /// A member leaves, perhaps the leader.
    fn remove(&mut self) -> Result<(), String> {
        let id = self.any_member();
        let command = self.members_command(&["remove"], &[&id.to_string()])?;
        self.blow()?;
        self.done(command)?;
        self.cluster.retire(id);
        self.members.retain(|member| *member != id);
        Ok(())
    }

    /// Starts `coracle members …`, asked of all members.
    fn members_command(&self, change: &[&str], rest: &[&str]) -> Result<Child, String> {
        let addresses = self.members.iter().map(|id| self.cluster.node(*id).place.client_addr.clone());
        let to = addresses.collect::<Vec<_>>().join(",");
        let mut command = Command::new(&self.program);
        command.arg("members").args(change).args(["--to", &to]).args(rest);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| format!("cannot start {}: {error}", self.program.display()))
    }

    fn done(&self, command: Child) -> Result<(), String> {
        let output = command.wait_with_output().map_err(text)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("a change failed: {}", said.trim())) }
    }

    /// Whoever leads dies at a random moment, and comes back.
    fn blow(&mut self) -> Result<(), String> {
        if self.members.len() < SAFE {
            return Ok(());
        }
        sleep(self.dice.millis(MOMENT));
        let asked = self.any_member();
        let leader = self.cluster.node(asked).report().ok().and_then(|report| report.leader);
        let Some(leader) = leader.filter(|id| self.members.contains(id)) else { return Ok(()) };
        self.cluster.kill(leader);
        self.killed += 1;
        self.cluster.restart(leader)
    }

    fn any_member(&mut self) -> u64 {
        let at = self.dice.below(self.members.len() as u64);
        self.members[at as usize]
    }
}

/// The server, with more arguments.
fn serves(program: &Path, more: &[&str]) -> Program {
    let plain = server(program);
    let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
    Arc::new(move |place: &Place| {
        let mut command = plain(place);
        // Snapshots are many: newcomers are sent one, and logs are purged.
        command.args(["--snapshot-entries", "1000"]).args(&more);
        command
    })
}
