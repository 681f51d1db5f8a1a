//! A server as its operator starts it, tells it things, and looks at it.

mod support;

use coracle_server::client::Value;
use coracle_server::cluster::{self, Cluster, Interrupt, Program, free_port};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use support::*;

/// A server that has all of its settings from a file, and is started with these variables.
fn of_file(file: &Path, variables: &[(&str, &str)]) -> Program {
    let file = file.to_owned();
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(move |place| {
        let mut command = Command::new(CORACLE);
        command.args(["serve", "--parent-pipe", "--config"]).arg(&file);
        command.args(["--peer-addr", &place.peer_addr, "--client-addr", &place.client_addr]);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command
    })
}

fn started(directory: &Path, program: Program) -> Cluster {
    Cluster::start(directory, vec![program], Interrupt::default()).unwrap()
}

fn send(cluster: &Cluster, signal: Signal) {
    let pid = cluster.node(1).pid().unwrap();
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Waits until the log of the first node has this.
fn logged(cluster: &Cluster, text: &str) {
    wait(text, || fs::read_to_string(cluster.node(1).log()).unwrap().contains(text).then_some(()));
}

fn coracle(arguments: &[&str]) -> Output {
    Command::new(CORACLE).args(arguments).output().unwrap()
}

#[test]
fn a_server_starts_from_a_file_and_follows_it_on_sighup() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("coracle.toml");
    let data = directory.path().join("data");
    let write = |more: &str| fs::write(&file, format!("id = 1\ndata-dir = {data:?}\n{more}")).unwrap();
    write("log = \"error\"\ntimeout = \"60m\"\n");
    let cluster = started(directory.path(), of_file(&file, &[("CORACLE_LOG_FORMAT", "json")]));
    cluster.form().unwrap();
    write("log = \"info\"\ntimeout = \"59m\"\n");
    send(&cluster, Signal::HUP);
    logged(&cluster, "was read again");
    logged(&cluster, "timeout in ");
    let log = || fs::read_to_string(cluster.node(1).log()).unwrap();
    send(&cluster, Signal::USR1);
    logged(&cluster, "SIGUSR1: node 1 leads in term");
    write("log = \"info\"\nnonsense = 1\n");
    send(&cluster, Signal::HUP);
    logged(&cluster, "line 4: there is no setting 'nonsense'");
    for line in log().lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["level"].is_string() && value["message"].is_string(), "{line}");
    }
    let mut client = cluster.node(1).client().unwrap();
    assert_eq!(ask(&mut client, "SET k v"), Value::Simple("OK".into()), "it goes on");
}

#[test]
fn systemd_hears_when_a_server_is_ready_lives_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("notify");
    let heard = UnixDatagram::bind(&socket).unwrap();
    heard.set_read_timeout(Some(LONG)).unwrap();
    let next = || {
        let mut bytes = [0; 4096];
        let length = heard.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let file = directory.path().join("coracle.toml");
    fs::write(&file, format!("id = 1\ndata-dir = {:?}\n", directory.path().join("data"))).unwrap();
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let mut cluster = started(directory.path(), of_file(&file, &variables));
    assert_eq!(next().trim(), "READY=1");
    (0..3).for_each(|_| assert_eq!(next().trim(), "WATCHDOG=1"));
    send(&cluster, Signal::TERM);
    wait("that it stops", || next().contains("STOPPING=1").then_some(()));
    let ended = wait("its end", || cluster.ended(1).unwrap());
    assert!(ended.success());
}

#[test]
fn a_status_ends_with_what_it_found() {
    let (mut cluster, _directory) = blank(2, &[]);
    let to = cluster.node(1).place.client_addr.clone();
    let status = || {
        let output = coracle(&["status", "--to", &to]);
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(status().0, 5);
    cluster.form().unwrap();
    wait("that it serves", || (status().0 == 0).then_some(()));
    cluster.kill(2);
    // Alone it has no majority.
    wait("that it knows no leader", || (status().0 == 3).then_some(()));
    cluster.kill(1);
    assert_eq!(status().0, 1, "it does not answer");
}

#[test]
fn a_node_comes_to_be_by_init_and_its_file_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("conf");
    let data = directory.path().join("data");
    let [peers, clients] =
        [free_port().unwrap(), free_port().unwrap()].map(|port| format!("127.0.0.1:{port}"));
    let words =
        ["init", conf.to_str().unwrap(), "--id", "4", "--peer-addr", &peers, "--client-addr", &clients];
    let made = coracle(&[&words[..], &["--data-dir", data.to_str().unwrap()]].concat());
    assert!(made.status.success(), "{made:?}");
    let file = conf.join("coracle.toml");
    let check = || coracle(&["config", "check", file.to_str().unwrap()]);
    assert!(check().status.success());
    let shown = coracle(&["config", "show", file.to_str().unwrap()]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).lines().any(|line| line.starts_with("id = \"4\"")),
        "{shown:?}"
    );
    let mut child = Command::new(CORACLE).args(["serve", "--config"]).arg(&file).spawn().unwrap();
    let report = wait("its start", || cluster::report(&clients, LONG).ok());
    assert_eq!((report.id, report.role.as_str()), (4, "unconfigured"));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(&file, "id = 4\nclient-adr = \"x\"\n").unwrap();
    let wrong = check();
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("line 2: there is no setting 'client-adr'"),
        "{wrong:?}"
    );
    // The server itself says the same, and so does it of a value that is wrong.
    let refused = coracle(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("line 2: there is no setting"), "{refused:?}");
}
