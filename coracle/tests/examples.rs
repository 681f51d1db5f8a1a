//! The programs in `examples/` that are three processes and a client, as they stand there: driven through a leader's death.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// For whatever a busy machine may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where cargo has put an example; it is built if it is not there.
fn program(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap();
    let path = path.parent().unwrap().parent().unwrap().join("examples").join(name);
    if !path.exists() {
        let built =
            Command::new(env!("CARGO")).args(["build", "-q", "-p", "coracle", "--example", name]).status();
        assert!(built.unwrap().success());
    }
    path
}

/// A free port below those that systems give to whoever connects, so that nobody takes it before it is listened on, or
/// while its node is down.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let port = || {
        10_000
            + (std::process::id().wrapping_mul(97) % 20_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000
    };
    let free = std::iter::repeat_with(|| port() as u16)
        .take(20_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("there are many")
}

/// Three processes of an example, on disks of their own. What they print goes to files.
struct Cluster {
    program: PathBuf,
    nodes: String,
    home: tempfile::TempDir,
    running: Vec<Option<Child>>,
}

impl Cluster {
    fn start(name: &str) -> Cluster {
        let nodes: Vec<_> = (0..3).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let home = tempfile::tempdir().unwrap();
        let mut cluster =
            Cluster { program: program(name), nodes: nodes.join(","), home, running: vec![None, None, None] };
        for id in 1..=3 {
            cluster.serve(id);
        }
        for id in 1..=3 {
            cluster.wait(id, "serves");
        }
        cluster
    }

    fn serve(&mut self, id: usize) {
        let out = File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join(format!("out-{id}")))
            .unwrap();
        let mut command = Command::new(&self.program);
        command.args(["serve", &id.to_string(), &self.nodes]).arg(self.home.path().join(id.to_string()));
        self.running[id - 1] =
            Some(command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap());
    }

    /// The lines that a node has printed.
    fn printed(&self, id: usize) -> Vec<String> {
        let out = File::open(self.home.path().join(format!("out-{id}"))).unwrap();
        BufReader::new(out).lines().map(Result::unwrap).collect()
    }

    fn wait(&self, id: usize, text: &str) {
        eventually(text, || self.printed(id).iter().any(|line| line.contains(text)).then_some(()));
    }

    fn kill(&mut self, id: usize) {
        let mut child = self.running[id - 1].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs a client to its end.
    fn run(&self, args: &[&str]) -> Vec<String> {
        let output = Command::new(&self.program).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// Has each node killed once and started again, whoever leads, with this done in between.
    fn kill_each(&mut self, mut between: impl FnMut(&Cluster, usize)) {
        for id in 1..=3 {
            self.kill(id);
            between(self, id);
            // Once it serves again, the cluster can spare the next one.
            let serves = |cluster: &Cluster| {
                cluster.printed(id).iter().filter(|line| line.ends_with("serves")).count()
            };
            let before = serves(self);
            self.serve(id);
            eventually("it serves again", || (serves(self) > before).then_some(()));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A lock has one holder at a time through the deaths of all nodes, tokens only grow, and who dies is waited for.
#[test]
fn a_lock_has_one_holder_at_a_time() {
    let mut cluster = Cluster::start("lock");
    let nodes = cluster.nodes.clone();
    let token = |lines: &[String]| -> u64 {
        let held = lines.iter().find(|line| line.contains("is held by")).expect("it was held");
        held.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // All members have met before the first of them goes.
    cluster.run(&["hold", "backup", &nodes, "0"]);
    let mut newest = 0;
    cluster.kill_each(|cluster, _| {
        let lines = cluster.run(&["hold", "backup", &nodes, "0"]);
        assert!(lines.is_empty(), "held for no time");
        let lines = cluster.run(&["hold", "backup", &nodes, "1"]);
        assert!(token(&lines) > newest, "{lines:?}");
        newest = token(&lines);
    });
    assert_eq!(cluster.run(&["holder", "backup", &nodes]), ["None"]);
    // A holder that dies keeps it for a while, and nobody else has it meanwhile.
    let dead = Command::new(&cluster.program)
        .args(["hold", "backup", &nodes, "1000"])
        .stdout(Stdio::piped())
        .spawn();
    let mut dead = dead.unwrap();
    let mut said = BufReader::new(dead.stdout.take().unwrap()).lines();
    let held = token(&[said.next().unwrap().unwrap()]);
    assert!(held > newest);
    dead.kill().unwrap();
    dead.wait().unwrap();
    let holder = cluster.run(&["holder", "backup", &nodes]);
    assert!(holder[0].contains(&held.to_string()) || holder == ["None"], "{holder:?}");
    let lines = cluster.run(&["hold", "backup", &nodes, "1"]);
    assert!(token(&lines) > held);
}

/// Each job is done, those of dead workers too, and each push is one job.
#[test]
fn a_queue_has_every_job_done() {
    let mut cluster = Cluster::start("queue");
    let nodes = cluster.nodes.clone();
    let mut pushed = vec!["job 0".to_owned()];
    cluster.run(&["push", "job 0", &nodes]);
    cluster.kill_each(|cluster, id| {
        for number in 0..5 {
            pushed.push(format!("job {id}.{number}"));
            cluster.run(&["push", pushed.last().unwrap(), &nodes]);
        }
    });
    // One worker is killed with a job in its hands, at whatever moment.
    let dead = Command::new(&cluster.program).args(["work", &nodes]).stdout(Stdio::piped()).spawn();
    let mut dead = dead.unwrap();
    let first = BufReader::new(dead.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    dead.kill().unwrap();
    dead.wait().unwrap();
    let mut done = cluster.run(&["work", &nodes]);
    done.insert(0, first);
    let mut names: Vec<_> = done.iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect();
    names.sort();
    names.dedup();
    pushed.sort();
    // What the dead one has done besides its first job, nobody printed.
    let missing: Vec<_> = pushed.iter().filter(|job| !names.contains(job)).collect();
    assert!(missing.len() <= 1, "{missing:?}");
    assert!(names.iter().all(|name| pushed.contains(name)));
    assert!(cluster.run(&["work", &nodes]).is_empty(), "nothing is left");
}

/// Every node prints every change in the same order, whoever dies: a node that was away prints the state once, and goes on.
#[test]
fn a_configuration_store_tells_of_each_change() {
    let mut cluster = Cluster::start("config_store");
    let nodes = cluster.nodes.clone();
    cluster.run(&["set", "begin", "now", &nodes]);
    cluster.kill_each(|cluster, id| {
        for number in 0..4 {
            cluster.run(&["set", &format!("key{number}"), &format!("{id}"), &nodes]);
            // The same value is no change.
            cluster.run(&["set", &format!("key{number}"), &format!("{id}"), &nodes]);
        }
    });
    cluster.run(&["set", "end", "reached", &nodes]);
    let get = cluster.run(&["get", "key2", &nodes]);
    assert_eq!(get, [r#"{"key2": "3"}"#]);
    let mut all = Vec::new();
    for id in 1..=3 {
        cluster.wait(id, r#""end""#);
        // From the last start on: the state, and each change after it.
        let printed = cluster.printed(id);
        let start = printed.iter().rposition(|line| line.starts_with("node")).unwrap();
        let changes: Vec<_> = printed[start..]
            .iter()
            .filter_map(|line| line.strip_prefix("changed: "))
            .map(str::to_owned)
            .collect();
        all.push(changes);
    }
    let longest = all.iter().max_by_key(|changes| changes.len()).unwrap().clone();
    for changes in all {
        assert!(longest.ends_with(&changes), "{changes:?} is no end of {longest:?}");
    }
}

/// Two binaries, node by node, under load: no deposit fails, withdrawals are taken once all members know them, and an old program
/// that meets one stops with a sentence.
#[test]
fn an_account_is_upgraded_while_it_is_used() {
    let (old, new) = (program("account_v1"), program("account_v2"));
    let mut cluster = Cluster::start("account_v1");
    let nodes = cluster.nodes.clone();
    // The clients of both versions keep using it.
    let deposits = [&old, &new].map(|program| {
        Command::new(program).args(["deposit", "1", "400", &nodes]).stdout(Stdio::null()).spawn().unwrap()
    });
    let serves =
        |cluster: &Cluster, id| cluster.printed(id).iter().filter(|line| line.ends_with("serves")).count();
    for id in [2, 3, 1] {
        let early = Command::new(&new).args(["withdraw", "1", "1", &nodes]).output().unwrap();
        assert!(!early.status.success());
        let said = String::from_utf8_lossy(&early.stderr).into_owned();
        assert!(said.contains("NotYet"), "{said}");
        cluster.kill(id);
        let before = serves(&cluster, id);
        cluster.program.clone_from(&new);
        cluster.serve(id);
        eventually("it serves again", || (serves(&cluster, id) > before).then_some(()));
    }
    for mut client in deposits {
        assert!(client.wait().unwrap().success(), "a deposit failed");
    }
    eventually("all members are known to have version 2", || {
        let taken = Command::new(&new).args(["withdraw", "300", "1", &nodes]).output().unwrap();
        taken.status.success().then_some(())
    });
    assert_eq!(cluster.run(&["balance", &nodes]), ["500"]);
    assert_eq!(cluster.run(&["withdraw", "100", "2", &nodes]), ["balance: 400", "balance: 300"]);
    // Its disk has a withdrawal.
    cluster.kill(3);
    cluster.program.clone_from(&old);
    cluster.serve(3);
    eventually("a sentence", || {
        let printed = cluster.printed(3);
        printed.iter().any(|line| line.contains("upgrade the program")).then_some(())
    });
    cluster.program.clone_from(&new);
    assert_eq!(cluster.run(&["balance", &nodes]), ["300"]);
}
