//! What the tests of whole processes share.
#![allow(dead_code)]

pub(crate) mod log;

use coracle_server::client::{Client, Value};
use coracle_server::cluster::{self, Cluster, Interrupt, Program};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The program under test.
pub(crate) const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");

/// Longer than anything should take, for what must happen at some time.
pub(crate) const LONG: Duration = Duration::from_secs(30);

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
