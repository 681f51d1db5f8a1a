//! The tools of Redis, unmodified, and a look at the disk from outside.
//!
//! These need the Debian packages redis-tools and strace, so they are ignored unless asked for; `.ci/run`
//! installs the packages and asks.

mod support;

use coracle::Role;
use coracle::raft::NodeId;
use coracle_server::certs;
use coracle_server::client::Value;
use coracle_server::cluster::{Cluster, Interrupt, Place, Program, server};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use support::*;

/// Runs redis-cli on these words, or on these lines.
fn cli(place: &Place, arguments: &[&str], lines: &str) -> String {
    let port = place.client_addr.rsplit_once(':').unwrap().1;
    let mut child = Command::new("redis-cli")
        .args(["-p", port])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("redis-cli is in the package redis-tools");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    said(&output)
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text.into_owned()
}

#[test]
#[ignore = "needs the package redis-tools"]
fn redis_cli_says_who_it_is() {
    let (cluster, _directory) = formed(1, &[]);
    let place = &cluster.node(1).place;
    for (name, role) in [("root", "admin"), ("default", "read")] {
        let mut command = Command::new(CORACLE);
        command.args(["users", "add", name, "--role", role, "--to", &place.client_addr]);
        if name != "root" {
            command.args(["--user", "root"]);
        }
        command.envs([("CORACLE_PASSWORD", "sesame"), ("CORACLE_NEW_PASSWORD", "sesame")]);
        said(&command.output().unwrap());
    }
    assert_eq!(cli(place, &["--no-auth-warning", "-a", "sesame", "acl", "whoami"], ""), "default\n");
    assert_eq!(
        cli(place, &["--no-auth-warning", "--user", "root", "-a", "sesame", "-3", "set", "k", "v"], ""),
        "OK\n"
    );
    assert!(cli(place, &["--no-auth-warning", "-a", "sesame", "set", "k", "w"], "").starts_with("NOPERM"));
    assert!(cli(place, &["get", "k"], "").starts_with("NOAUTH"));
}

#[test]
#[ignore = "needs the package redis-tools"]
fn redis_cli_talks_to_any_node() {
    let (cluster, _directory) = formed(3, STEADY);
    let place = |id| &cluster.node(id).place;
    assert_eq!(cli(place(1), &["set", "k", "v"], ""), "OK\n");
    assert_eq!(cli(place(2), &["get", "k"], ""), "v\n");
    assert_eq!(cli(place(3), &["--no-raw", "-3", "get", "none"], ""), "(nil)\n");
    assert_eq!(cli(place(3), &["--no-raw", "incr", "n"], ""), "(integer) 1\n");
    assert_eq!(cli(place(1), &["-2", "mget", "k", "n"], ""), "v\n1\n");
    let conversation = "hello 3\nset a \"x\\x00y\"\nappend a z\nexists a k\ndel a k\nfoo\ncommand docs get\n";
    let answers = cli(place(2), &["--no-raw"], conversation);
    for expected in
        ["1# \"server\" => \"coracle\"", "(integer) 4", "(integer) 2", "ERR unknown command 'foo'"]
    {
        assert!(answers.contains(expected), "{expected}: {answers}");
    }
    assert!(cli(place(1), &["coracle", "status"], "").contains("\"members\":["));
}

#[test]
#[ignore = "needs the package redis-tools"]
fn redis_cli_talks_over_encrypted_connections() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    certs::init(&certs, "east", 10).unwrap();
    certs::sign(&certs, Role::Node(NodeId(1)), &[], 10, false).unwrap();
    certs::sign(&certs, Role::Client("ann".to_owned()), &[], 10, false).unwrap();
    let at = |file: &str| certs.join(file).to_str().unwrap().to_owned();
    let (cert, key, ca) = (at("node-1.pem"), at("node-1.key"), at("ca.pem"));
    let words = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca].map(str::to_owned);
    let plain = server_with(&["--client-tls", "require", "--client-certs", "required", "--timeout", "60m"]);
    let program: Program = Arc::new(move |place| {
        let mut command = plain(place);
        command.args(&words);
        command
    });
    let cluster = Cluster::start(dir.path(), vec![program], Interrupt::default()).unwrap();
    let place = &cluster.node(1).place;
    let (cert, key) = (at("client-ann.pem"), at("client-ann.key"));
    let mut init = Command::new(CORACLE);
    init.args(["members", "init", "--to", &place.client_addr, &format!("1={}", place.peer_addr)]);
    said(&init.args(["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca]).output().unwrap());
    let secure = ["--tls", "--cacert", &ca, "--cert", &cert, "--key", &key];
    let run = |words: &[&str], lines: &str| cli(place, &[&secure[..], words].concat(), lines);
    assert_eq!(run(&["set", "k", "v"], ""), "OK\n");
    assert_eq!(run(&["get", "k"], ""), "v\n");
    let set = |n| format!("*3\r\n$3\r\nSET\r\n$5\r\n{n:05}\r\n$1\r\nx\r\n");
    let answers = run(&["--pipe"], &(0..20_000).map(set).collect::<String>());
    assert!(answers.contains("errors: 0, replies: 20000"), "{answers}");
}

#[test]
#[ignore = "needs the package redis-tools"]
fn redis_cli_pipes_commands_in_bulk() {
    let (cluster, _directory) = formed(3, STEADY);
    let commands: String = (0..2000).map(|i| format!("SET key{i} {i}\r\n")).collect();
    let answer = cli(&cluster.node(2).place, &["--pipe"], &commands);
    assert!(answer.contains("errors: 0, replies: 2000"), "{answer}");
    assert_eq!(cli(&cluster.node(3).place, &["get", "key1999"], ""), "1999\n");
}

#[test]
#[ignore = "needs the package redis-tools"]
fn redis_benchmark_ends_without_an_error_on_any_node() {
    let (cluster, _directory) = formed(3, STEADY);
    for id in cluster.ids() {
        let port = cluster.node(id).place.client_addr.rsplit_once(':').unwrap().1;
        let words =
            ["-p", port, "-t", "ping,set,get,incr,mset", "-n", "2000", "-c", "20", "-P", "4", "--csv"];
        let output =
            Command::new("redis-benchmark").args(words).output().expect("it is in the package redis-tools");
        let text = said(&output);
        assert!(!text.to_lowercase().contains("err") && !text.contains("WARNING"), "{text}");
        for test in ["PING_INLINE", "SET", "GET", "INCR", "MSET"] {
            assert!(text.contains(&format!("\"{test}")), "{text}");
        }
    }
    cluster.agree().unwrap();
}

/// A server whose system calls of interest are written to a file, with their times.
fn traced(trace: PathBuf) -> Program {
    let plain = server(CORACLE);
    Arc::new(move |place| {
        let inner = plain(place);
        let mut command = Command::new("strace");
        // -D: the tracer is the grandchild, so that the parent kills and signals the server itself.
        command.args([
            "-D",
            "-f",
            "-ttt",
            "-T",
            "-yy",
            "-s",
            "64",
            "-e",
            "trace=fdatasync,fsync,write,sendto,writev",
        ]);
        command.arg("-o").arg(&trace).arg(inner.get_program()).args(inner.get_args());
        command
    })
}

/// When each system call whose line contains all of this ended, in seconds.
fn ends(trace: &str, parts: &[&str]) -> Vec<f64> {
    let mut ends = Vec::new();
    for line in trace.lines().filter(|line| parts.iter().all(|part| line.contains(part))) {
        let number = |text: &str| text.parse::<f64>().ok();
        let start = line.split_whitespace().nth(1).and_then(number);
        let took = line.rsplit_once('<').and_then(|(_, took)| number(took.trim_end_matches('>')));
        if let (Some(start), Some(took)) = (start, took) {
            // The line of a call that was resumed starts when it ended.
            ends.push(if line.contains("resumed>") { start } else { start + took });
        }
    }
    ends
}

#[test]
#[ignore = "needs the package strace"]
fn the_reply_to_one_set_follows_an_fdatasync_on_two_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let traces: Vec<PathBuf> = (1..=3).map(|id| directory.path().join(format!("trace{id}"))).collect();
    let programs = traces.iter().cloned().map(traced).collect();
    let cluster = Cluster::start(directory.path(), programs, Interrupt::default()).unwrap();
    cluster.form().unwrap();
    let (leader, _) = cluster.leader().unwrap();
    let mut client = cluster.node(leader).client().unwrap();
    assert_eq!(ask(&mut client, "SET before this"), Value::Simple("OK".into()));
    cluster.agree().unwrap();
    // Nothing is under way, and logs that fell idle have sealed what they hold: nothing is in doubt.
    for id in cluster.ids() {
        let directory = &cluster.node(id).place.directory;
        wait("the seal", || Some(()).filter(|()| !log::verify(directory).1.contains("were written last")));
    }
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let syncs = || traces.iter().map(|path| ends(&read(path), &["fdatasync"]).len()).collect::<Vec<_>>();
    let mut last = (syncs(), std::time::Instant::now());
    wait("the disks falling silent", || {
        let now = syncs();
        if now != last.0 {
            last = (now, std::time::Instant::now());
        }
        (last.1.elapsed() > std::time::Duration::from_millis(300)).then_some(())
    });
    let asked = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert_eq!(ask(&mut client, "SET traced value"), Value::Simple("OK".into()));

    // The reply is the leader's newest write of "+OK".
    let reply = wait("the trace of the reply", || {
        let starts = read(&traces[leader as usize - 1]);
        let line = starts.lines().rfind(|line| line.contains("\"+OK\\r\\n\""))?;
        let start: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
        (start > asked).then_some(start)
    });
    let synced = traces
        .iter()
        .filter(|path| ends(&read(path), &["fdatasync"]).iter().any(|end| (asked..reply).contains(end)))
        .count();
    assert!(synced >= 2, "{synced} of three nodes had synced between {asked} and {reply}");
}

/// What a replicated write is compared with: three processes, of which two have to sync.
#[test]
#[ignore = "needs the package strace"]
fn the_probes_processes_sync_what_they_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut children = Vec::new();
    let mut start = |name: &str, role: &[&str]| {
        let home = directory.path().join(name);
        std::fs::create_dir(&home).unwrap();
        let trace = directory.path().join(format!("trace-{name}"));
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-qq", "-e", "trace=fdatasync", "-o"]).arg(&trace);
        command.args([CORACLE, "bench", "--bare"]).args(role).arg("--dir").arg(home);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = said.find_map(|line| Some(line.split_once(" ready: ")?.1.to_owned())).unwrap();
        children.push(child);
        (address, trace)
    };
    let followers = [start("follower-1", &["follower"]), start("follower-2", &["follower"])];
    let addresses = format!("{},{}", followers[0].0, followers[1].0);
    let (address, trace) = start("first", &["first", "--followers", &addresses]);
    let syncs = |trace: &PathBuf| {
        let text = std::fs::read_to_string(trace).unwrap();
        text.lines().filter(|line| line.contains("fdatasync") && line.contains("= 0")).count() as f64
    };
    let mut before = 0.0;
    for (clients, least) in [(1.0, 1.0), (20.0, 0.05)] {
        let run = Command::new(CORACLE)
            .args(["bench", "--to", &address, "--clients", &clients.to_string(), "--seconds", "1", "--json"])
            .output()
            .unwrap();
        let seen: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        let answered = seen.pointer("/writes/count").unwrap().as_f64().unwrap();
        assert!(answered > 20.0, "{seen}");
        let own = syncs(&trace) - before;
        let passed_on = followers.iter().map(|follower| syncs(&follower.1)).fold(0.0, f64::max);
        // One client's writes are synced one by one; the warm-up's, too. Many share syncs, at most all of them.
        assert!(own >= least * answered, "{clients}: {own} syncs of the first for {answered}");
        assert!(clients > 1.0 || own < 2.5 * answered, "{clients}: {own} syncs of the first for {answered}");
        assert!(passed_on >= own / 2.0, "{passed_on} syncs of a follower, {own} of the first");
        before = syncs(&trace);
    }
    for mut child in children {
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

/// ST-1: a process that made its directory may have been killed before it synced the name.
#[test]
#[ignore = "needs the package strace"]
fn st_1_each_start_syncs_the_directory_into_its_parent() {
    let home = tempfile::tempdir().unwrap();
    let parent = home.path().join("data");
    for start in ["first", "second"] {
        let trace = home.path().join(start);
        let mut command = Command::new("strace");
        command
            .args(["-f", "-yy", "-e", "trace=fsync", "-o"])
            .arg(&trace)
            .args([CORACLE, "serve", "--id", "1"]);
        command.args([
            "--peer-addr",
            "127.0.0.1:0",
            "--client-addr",
            "127.0.0.1:0",
            "--parent-pipe",
            "--data-dir",
        ]);
        // The end of its input stops it.
        let status =
            command.arg(parent.join("node")).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
        let said = std::fs::read_to_string(trace).unwrap();
        let synced = format!("<{}>", parent.canonicalize().unwrap().display());
        assert!(said.lines().any(|line| line.contains(&synced) && line.contains("= 0")), "{start}: {said}");
    }
}
