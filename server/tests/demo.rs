//! The demo holds, and fails where it should: when acknowledged entries are gone, and when one replica
//! applies something else.

mod support;

use coracle::snapshot::Save;
use coracle::{CodecError, Config, Context, QueryContext, StateMachine, Storage};
use coracle_server::cli::run_server;
use coracle_server::cluster::{Interrupt, Place, Program, server};
use coracle_server::connection::Limits;
use coracle_server::demo::Demo;
use coracle_server::kv::{Found, Kv, Lookup, Operation, Outcome};
use coracle_server::serve::Options;
use std::fs::{self, File};
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::*;

fn demo() -> Demo {
    Demo {
        programs: vec![server(CORACLE); 3],
        while_dead: Box::new(|_| {}),
        keep: false,
        interrupt: Interrupt::default(),
    }
}

/// Runs a demo that must fail; returns its story and why it failed. What it kept is removed.
fn failing(demo: Demo) -> (String, String) {
    let mut story = Vec::new();
    let problem = demo.run(&mut story).expect_err("the demo should have failed");
    let kept = problem.split("are kept in ").nth(1).unwrap().trim_end_matches(')').to_owned();
    assert!(Path::new(&kept).is_dir());
    fs::remove_dir_all(kept).unwrap();
    (String::from_utf8(story).unwrap(), problem)
}

#[test]
fn the_demo_holds() {
    let output = Command::new(CORACLE).arg("demo").output().unwrap();
    let story = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{story}\n{}", String::from_utf8_lossy(&output.stderr));
    let last = story.lines().last().unwrap();
    assert_eq!(last, "Everything held: the cluster lost its leader and nothing else.");
    let directory = story.lines().next().unwrap().split("data in ").nth(1).unwrap().trim_end_matches(':');
    assert!(!Path::new(directory).exists(), "it tidies up");
}

/// The file of the directory that was written most, looking into subdirectories.
fn fullest_file(directory: &Path) -> PathBuf {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => directories.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    let used = |path: &PathBuf| fs::read(path).unwrap().iter().filter(|byte| **byte != 0).count();
    files.into_iter().max_by_key(used).unwrap()
}

#[test]
fn the_demo_fails_when_acknowledged_entries_are_damaged() {
    let damage = |place: &Place| {
        let path = fullest_file(&place.directory);
        let bytes = fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        let middle = used / 2 / 4096 * 4096;
        File::options().write(true).open(&path).unwrap().write_all_at(&[0; 4096], middle as u64).unwrap();
    };
    let (story, problem) = failing(Demo { while_dead: Box::new(damage), ..demo() });
    assert!(story.contains("Killed the leader"), "{story}");
    assert!(problem.contains("did not start") && problem.contains("is damaged at offset"), "{problem}");
}

/// A machine that applies something else now and then.
struct Liar(Kv);

impl StateMachine for Liar {
    const SELF_DESCRIBING: bool = false;
    type Command = Vec<Operation>;
    type Reply = Vec<Outcome>;
    type Query = Vec<Lookup>;
    type Answer = Vec<Found>;

    fn apply(&mut self, context: &mut Context, mut batch: Vec<Operation>) -> Vec<Outcome> {
        if let Some(Operation::Set { value, .. }) = batch.first_mut()
            && context.id.index.0.is_multiple_of(50)
        {
            *value = [&value[..], b"!"].concat().into();
        }
        self.0.apply(context, batch)
    }

    fn query(&self, context: &QueryContext, query: Vec<Lookup>) -> Vec<Found> {
        self.0.query(context, query)
    }

    fn snapshot(&self) -> impl Save {
        self.0.snapshot()
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        self.0.restore(from)
    }

    fn digest(&self) -> Option<[u8; 16]> {
        self.0.digest()
    }

    fn encode_command(command: &Vec<Operation>) -> Result<bytes::Bytes, CodecError> {
        Kv::encode_command(command)
    }

    fn decode_command(bytes: &bytes::Bytes) -> Result<Vec<Operation>, CodecError> {
        Kv::decode_command(bytes)
    }

    fn encode_reply(reply: &Vec<Outcome>) -> Result<bytes::Bytes, CodecError> {
        Kv::encode_reply(reply)
    }

    fn decode_reply(bytes: &bytes::Bytes) -> Result<Vec<Outcome>, CodecError> {
        Kv::decode_reply(bytes)
    }
}

/// Where the parent of [`a_node_that_lies`] says what to run.
const PLACE: [&str; 4] = ["CORACLE_LIAR_ID", "CORACLE_LIAR_DIR", "CORACLE_LIAR_PEER", "CORACLE_LIAR_CLIENT"];

/// Not a test: a program for the tests below, which start this executable once more. Does nothing else.
#[test]
#[ignore = "a program for other tests"]
fn a_node_that_lies() {
    let Ok([id, directory, peer, client]): Result<[String; 4], _> =
        PLACE.iter().filter_map(|name| std::env::var(name).ok()).collect::<Vec<_>>().try_into()
    else {
        return;
    };
    let options = Options {
        join: Default::default(),
        config: Config::new(id.parse().unwrap(), peer, Storage::Dir(directory.into())),
        client_addr: client,
        client_tls: None,
        admin_addr: None,
        roster: Default::default(),
        figures: Default::default(),
        open_without_users: false,
        timeout: Duration::from_secs(2),
        limits: Limits::default(),
    };
    run_server(options, Liar(Kv::new()), true, || false).unwrap();
}

fn liar() -> Program {
    Arc::new(|place| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_node_that_lies", "--ignored", "--nocapture"]);
        let values =
            [&place.id.to_string(), place.directory.to_str().unwrap(), &place.peer_addr, &place.client_addr];
        command.envs(PLACE.into_iter().zip(values.map(str::to_owned)));
        command
    })
}

#[test]
fn the_demo_fails_when_one_replica_applies_something_else() {
    for at in [0, 2] {
        let mut programs = vec![server(CORACLE); 3];
        programs[at] = liar();
        let (story, problem) = failing(Demo { programs, ..demo() });
        assert!(story.contains("Restarted node"), "{story}: {problem}");
        assert!(problem.contains("was acknowledged"), "{problem}");
    }
}

#[test]
fn digests_tell_what_reading_does_not() {
    use coracle_server::cluster::Cluster;
    let directory = tempfile::tempdir().unwrap();
    let programs = vec![server(CORACLE), server(CORACLE), liar()];
    let cluster = Cluster::start(directory.path(), programs, Interrupt::default()).unwrap();
    cluster.form().unwrap();
    let mut client = cluster.node(1).client().unwrap();
    for i in 0..100 {
        ask(&mut client, &format!("SET k {i}"));
    }
    // The last value is the same everywhere again, but the history differs.
    let problem = cluster.agree().unwrap_err();
    assert!(problem.contains("came to different states"), "{problem}");
}

#[test]
fn a_kept_demo_says_what_to_do_next_and_stops_its_children_on_ctrl_c() {
    let mut child = Command::new(CORACLE).args(["demo", "--keep"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let next = lines.find(|line| line.contains("coracle status --to")).unwrap();
    let address = next.split_whitespace().last().unwrap().to_owned();
    let report = coracle_server::cluster::report(&address, LONG).unwrap();
    assert_eq!(report.members.len(), 3);
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    wait("the end of the demo", || child.try_wait().unwrap());
    wait("the end of its children", || std::net::TcpStream::connect(&address).is_err().then_some(()));
}

#[test]
fn children_do_not_outlive_a_demo_that_is_killed() {
    let mut child = Command::new(CORACLE).args(["demo", "--keep"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = io::BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let next = lines.find(|line| line.contains("coracle status --to")).unwrap();
    let address = next.split_whitespace().last().unwrap().to_owned();
    child.kill().unwrap();
    child.wait().unwrap();
    wait("the end of its children", || std::net::TcpStream::connect(&address).is_err().then_some(()));
    let _ = fs::remove_dir_all(first.split("data in ").nth(1).unwrap().trim_end_matches(':'));
}
