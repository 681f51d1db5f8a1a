//! What the tests of whole processes share.
#![allow(dead_code)]

pub(crate) mod log;
#[path = "../../../coracle/tests/common/patience.rs"]
pub(crate) mod patience;

use coracle_server::client::{Client, Value};
use coracle_server::cluster::{self, Cluster, Interrupt, Program};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) use patience::PATIENCE as LONG;

/// The program under test.
pub(crate) const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");

/// No leader is lost or elected but by founding the cluster, however late anything comes; and no request ends before it
/// is done.
pub(crate) const STEADY: &[&str] = &["--election-timeout", "60m-120m", "--timeout", "60m"];

/// The real server with more arguments.
pub(crate) fn server_with(arguments: &'static [&'static str]) -> Program {
    let plain = cluster::server(CORACLE);
    Arc::new(move |place| {
        let mut command = plain(place);
        command.args(arguments);
        command
    })
}

/// A cluster, formed and with a leader, and the directory that it lives in.
pub(crate) fn formed(nodes: usize, arguments: &'static [&'static str]) -> (Cluster, TempDir) {
    let (cluster, directory) = blank(nodes, arguments);
    cluster.form().unwrap();
    cluster.leader().unwrap();
    (cluster, directory)
}

/// Nodes that run and know nothing of each other.
pub(crate) fn blank(nodes: usize, arguments: &'static [&'static str]) -> (Cluster, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let programs = vec![server_with(arguments); nodes];
    let cluster = Cluster::start(directory.path(), programs, Interrupt::default()).unwrap();
    (cluster, directory)
}

/// Looks at something until it is there.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    cluster::wait(what, LONG, &Interrupt::default(), || Ok(look())).unwrap()
}

/// Asks with words.
pub(crate) fn ask(client: &mut Client, line: &str) -> Value {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    client.ask(&words).unwrap()
}

/// Sets a key, again and again while a leader is lost with it: setting it twice is the same.
pub(crate) fn set(client: &mut Client, key: &str, value: &str) {
    wait("setting a key", || match ask(client, &format!("SET {key} {value}")) {
        Value::Simple(_) => Some(()),
        other => {
            let text = error(other);
            assert!(text.starts_with("UNKNOWN "), "{text}");
            None
        }
    });
}

/// The text of an error.
pub(crate) fn error(value: Value) -> String {
    match value {
        Value::Error(error) => error,
        other => panic!("{other:?} is no error"),
    }
}

/// A connection without any client library.
pub(crate) fn raw(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends bytes and returns all that comes back until the server closes.
pub(crate) fn last_words(address: &str, bytes: &[u8]) -> String {
    let mut stream = raw(address);
    // The server may have had enough before all is sent.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
