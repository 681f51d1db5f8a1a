//! What befalls a server's process from outside: signals, limits, and a standard error that nobody reads.

mod support;

use coracle_server::client::{Client, Value};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{CORACLE, LONG, ask, wait};

fn serve(directory: &Path) -> Command {
    let mut command = Command::new(CORACLE);
    command.args(["serve", "--id", "1", "--peer-addr", "127.0.0.1:0", "--client-addr", "127.0.0.1:0"]);
    command.args(["--data-dir".as_ref(), directory.join("node").as_os_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).env_remove("RUST_LOG");
    command
}

/// Waits for the line that says where it serves, and makes it a cluster of its own.
fn founded(child: &mut Child) -> Client {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = |after: &str| {
        let rest = line.split(after).nth(1).unwrap_or_else(|| panic!("{line:?}"));
        rest.split([',', '\n']).next().unwrap().to_owned()
    };
    let (clients, peers) = (address("clients on "), address("peers on "));
    let mut client = Client::connect(&clients, LONG).unwrap();
    let founded = ask(&mut client, &format!("CORACLE MEMBERS INIT 1={peers}"));
    assert!(matches!(founded, Value::Simple(_)), "{founded:?}");
    client
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn ends(child: &mut Child) -> Option<i32> {
    wait("the server ends", || child.try_wait().unwrap()).code()
}

#[test]
fn a_hangup_is_told_and_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = serve(directory.path()).stderr(Stdio::piped()).spawn().unwrap();
    let mut client = founded(&mut child);
    send(&child, Signal::HUP);
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("ignored SIGHUP"), "{line}");
    assert_eq!(ask(&mut client, "SET boat coracle"), Value::Simple("OK".into()));
    send(&child, Signal::TERM);
    assert_eq!(ends(&mut child), Some(0));
}

/// A founder dials itself too, to see that its own address is right, and warns nobody of that.
#[test]
fn founding_a_cluster_leaves_no_warning() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = serve(directory.path()).stderr(Stdio::piped()).spawn().unwrap();
    drop(founded(&mut child));
    send(&child, Signal::TERM);
    assert_eq!(ends(&mut child), Some(0));
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(words, "");
}

/// A file that may not grow is an error with a name, and no death without a word.
#[test]
fn a_limit_of_file_sizes_is_told_with_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let plain = serve(directory.path());
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("ulimit -f 64; exec \"$0\" \"$@\"").arg(CORACLE).args(plain.get_args());
    let ended = limited.env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap();
    let words = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{words}");
    assert!(words.contains("File too large") && words.contains("node/"), "{words}");
}

/// SH-1: whoever reads standard error may stop: the server serves, and ends when it is asked to.
#[test]
fn sh_1_a_standard_error_that_nobody_reads_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, mut full) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&full).unwrap();
    fcntl_setfl(&full, flags | OFlags::NONBLOCK).unwrap();
    while full.write(&[b'x'; 512]).is_ok() {}
    fcntl_setfl(&full, flags).unwrap();
    let mut child = serve(directory.path()).args(["--log", "trace"]).stderr(full).spawn().unwrap();
    let mut client = founded(&mut child);
    for number in 0..100 {
        assert_eq!(ask(&mut client, &format!("SET key {number}")), Value::Simple("OK".into()));
    }
    send(&child, Signal::TERM);
    assert_eq!(ends(&mut child), Some(0));
    drop(reader);
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
}
