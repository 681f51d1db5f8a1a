//! The clients' port, encrypted: who gets in, what comes through, and a cluster that is run over nothing else.
//!
//! All connections that this process makes by the program's own client are encrypted, with one authority for all tests.

mod support;
#[path = "tls_clients/visitors.rs"]
mod visitors;

use coracle::Role;
use coracle::raft::NodeId;
use coracle_server::certs;
use coracle_server::cluster::{Cluster, Interrupt, Program, free_port};
use coracle_server::report::Report;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use support::log::said;
use support::*;
use visitors::{Visitor, all, east, sign_as};

/// The server with the certificate of its node in this directory.
fn secured(dir: &Path, more: &'static [&'static str]) -> Program {
    let (plain, dir) = (server_with(more), dir.to_owned());
    Arc::new(move |place| {
        let mut command = plain(place);
        command.args(certificate(&dir, &format!("node-{}", place.id)));
        command
    })
}

/// The words for a certificate.
fn certificate(dir: &Path, name: &str) -> Vec<String> {
    let at = |file: &str| dir.join(file).to_str().unwrap().to_owned();
    let (cert, key) = (at(&format!("{name}.pem")), at(&format!("{name}.key")));
    ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &at("ca.pem")].map(str::to_owned).to_vec()
}

fn alone(dir: &Path, certs: &Path, more: &'static [&'static str]) -> (Cluster, String) {
    fs::create_dir_all(dir).unwrap();
    let cluster = Cluster::start(dir, vec![secured(certs, more)], Interrupt::default()).unwrap();
    let address = cluster.node(1).place.client_addr.clone();
    (cluster, address)
}

#[test]
fn whoever_has_a_right_certificate_gets_in_and_nobody_with_a_wrong_one() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let east = east();
    certs::init(other.path(), "east", 10).unwrap();
    certs::sign(other.path(), Role::Client("ann".to_owned()), &[], 10, false).unwrap();
    let at = dir.path();
    for (name, days) in [("coracle://west/client/ann", (-1, 1)), ("coracle://east/client/ann", (-2, -1))] {
        sign_as(at, name, days);
    }
    let by = |dir: &Path, name: &str| Visitor::new(&east.join("ca.pem")).showing(dir, name);
    for mode in ["optional", "required"] {
        let optional: &[&str] = &["--client-tls", "require"];
        let required: &[&str] = &["--client-tls", "require", "--client-certs", "required"];
        let (cluster, address) =
            alone(&at.join(mode), &east, if mode == "optional" { optional } else { required });
        let log = || fs::read_to_string(cluster.node(1).log()).unwrap();
        for (visitor, gets_in) in [
            (Visitor::new(&east.join("ca.pem")), mode == "optional"),
            (by(&east, "client-ann"), true),
            (by(&east, "node-2"), true),
            (by(other.path(), "client-ann"), false),
            (by(at, "west-client-ann"), false),
            (by(at, "east-client-ann"), false),
        ] {
            let said = visitor.ping(&address);
            assert_eq!(said.is_ok(), gets_in, "{mode}: {said:?}, {visitor:?}, {}", log());
        }
        // Whoever comes believes it by its authority, and by its host's name.
        let misled = Visitor::new(&other.path().join("ca.pem")).ping(&address).unwrap_err().to_string();
        assert!(misled.contains("invalid peer certificate"), "{misled}");
        let elsewhere = Visitor::new(&east.join("ca.pem")).to("other.example").ping(&address);
        assert!(elsewhere.unwrap_err().to_string().contains("not valid for name"));
        wait("refusals are told", || log().contains("refused a client: ").then_some(()));
    }
}

#[test]
fn a_load_is_encrypted_too() {
    let dir = tempfile::tempdir().unwrap();
    let required = &["--client-tls", "require", "--client-certs", "required"];
    let (cluster, address) = alone(&dir.path().join("load"), &east(), required);
    let member = format!("1={}", cluster.node(1).place.peer_addr);
    let form = ["members", "init", "--to", &address, &member];
    assert!(
        Command::new(CORACLE).args(form).args(certificate(&east(), "node-1")).status().unwrap().success()
    );
    let bench = |shown: &[String]| {
        let words = ["bench", "--to", &address, "--clients", "3", "--connections", "2", "--seconds", "1"];
        Command::new(CORACLE).args(words).args(shown).output().unwrap()
    };
    // However busy the computer is, there is a second in which something is answered.
    wait("the load is answered", || bench(&certificate(&east(), "node-1")).status.success().then_some(()));
    let run = bench(&[]);
    assert_eq!(run.status.code(), Some(1), "a plain one: {run:?}");
}

#[test]
fn plain_and_encrypted_connections_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let visitor = Visitor::new(&east().join("ca.pem"));
    let (_cluster, address) = alone(&dir.path().join("require"), &east(), &["--client-tls", "require"]);
    for plain in [&b"PING\r\n"[..], b"*1\r\n$4\r\nPING\r\n", &[b'*'; 1 << 20]] {
        let words = last_words(&address, plain);
        assert_eq!(words, "-ERR this port takes only encrypted connections (TLS)\r\n");
    }
    visitor.ping(&address).unwrap();
    let (_cluster, address) = alone(&dir.path().join("prefer"), &east(), &["--client-tls", "prefer"]);
    assert_eq!(last_words(&address, b"PING\r\nQUIT\r\n"), "+PONG\r\n+OK\r\n");
    visitor.ping(&address).unwrap();
    let (_cluster, address) = alone(&dir.path().join("off"), &east(), &[]);
    for _ in 0..3 {
        let said = visitor.ping(&address).unwrap_err();
        assert_eq!(said.kind(), ErrorKind::InvalidData, "{said}");
        assert_eq!(last_words(&address, b"PING\r\nQUIT\r\n"), "+PONG\r\n+OK\r\n");
    }
}

#[test]
fn half_a_handshake_holds_up_nobody_and_keeps_no_place_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let visitor = Visitor::new(&east().join("ca.pem"));
    // As many as would take longer than anybody waits, were they served one after the other.
    let (_cluster, address) = alone(&dir.path().join("many"), &east(), &["--client-tls", "require"]);
    let begin = |bytes: &[u8], address: &str| {
        let mut stream = raw(address);
        stream.write_all(bytes).unwrap();
        stream
    };
    let halves: Vec<_> = (0..40).map(|_| begin(b"\x16\x03\x01\x02\x00\x01", &address)).collect();
    visitor.ping(&address).unwrap();
    drop(halves);
    let few = &["--client-tls", "require", "--max-clients", "1", "--half-command-limit", "1s"];
    for (at, bytes) in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"].into_iter().enumerate() {
        // The first one that comes has the only place.
        let (_cluster, address) = alone(&dir.path().join(at.to_string()), &east(), few);
        let mut half = begin(bytes, &address);
        match half.read_to_end(&mut Vec::new()) {
            Ok(0) => {}
            // What it said was not taken.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("it is closed in silence: {other:?}"),
        }
        wait("the place is free", || visitor.ping(&address).ok());
    }
}

#[test]
fn what_is_sent_at_once_comes_through_in_order_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, address) = alone(dir.path(), &east(), &["--client-tls", "require", "--timeout", "60m"]);
    cluster.form().unwrap();
    cluster.leader().unwrap();
    let mut stream = Visitor::new(&east().join("ca.pem")).connect(&address).unwrap();
    let many = 5000;
    stream.write_all("INCR n\r\n".repeat(many).as_bytes()).unwrap();
    let counted: String = (1..=many).map(|n| format!(":{n}\r\n")).collect();
    expect(&mut stream, counted.as_bytes());
    // The largest command, and its values back, which are taken late.
    let value = vec![b'x'; (1 << 20) - 100];
    let set = (0..8).flat_map(|n| [format!("k{n}").into_bytes(), value.clone()]);
    stream.write_all(&command([b"MSET".to_vec()].into_iter().chain(set))).unwrap();
    expect(&mut stream, b"+OK\r\n");
    let names = (0..8).map(|n| format!("k{n}").into_bytes());
    stream.write_all(&command([b"MGET".to_vec()].into_iter().chain(names))).unwrap();
    let bulk = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
    expect(&mut stream, &[&b"*8\r\n"[..], &bulk.repeat(8)].concat());
    // One that is too large is refused, and the connection goes on.
    stream.write_all(&command(vec![b"MGET".to_vec(), vec![b'x'; 9 << 20]].into_iter())).unwrap();
    stream.write_all(b"PING\r\nQUIT\r\n").unwrap();
    let mut rest = String::new();
    // Not cut off: the end is told.
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("-ERR ") && rest.ends_with("\r\n+PONG\r\n+OK\r\n"), "{rest}");
}

fn command(words: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let words: Vec<_> = words.collect();
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

fn expect(stream: &mut impl Read, what: &[u8]) {
    let mut came = vec![0; what.len()];
    stream.read_exact(&mut came).unwrap();
    let differs = came.iter().zip(what).position(|(one, other)| one != other);
    assert_eq!(differs, None, "{:?}", String::from_utf8_lossy(&came[..came.len().min(100)]));
}

#[test]
fn a_renewed_certificate_is_shown_to_whoever_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("certs");
    fs::create_dir(&own).unwrap();
    for file in ["ca.pem", "ca.key", "node-1.pem", "node-1.key"] {
        fs::copy(east().join(file), own.join(file)).unwrap();
    }
    let (cluster, address) = alone(dir.path(), &own, &["--client-tls", "require"]);
    let visitor = Visitor::new(&own.join("ca.pem"));
    let shown = || {
        let stream = visitor.connect(&address).unwrap();
        stream.conn.peer_certificates().unwrap().to_vec()
    };
    let mut before = visitor.connect(&address).unwrap();
    let old = shown();
    certs::sign(&own, Role::Node(NodeId(1)), &[], 100, true).unwrap();
    assert_eq!(shown(), old);
    let pid = cluster.node(1).pid().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    wait("the new one is shown", || (shown() != old).then_some(()));
    before.write_all(b"PING\r\n").unwrap();
    expect(&mut before, b"+PONG\r\n");
}

/// Whoever shows a client's certificate is the user of that name, if there is one.
#[test]
fn a_certificate_names_a_user_and_that_of_a_node_is_an_administrators() {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, address) = alone(dir.path(), &east(), ONLY);
    cluster.form().unwrap();
    cluster.leader().unwrap();
    let add = |name: &str, role: &str| {
        let mut command = Command::new(CORACLE);
        command
            .args(["users", "add", name, "--role", role, "--to", &address])
            .args(certificate(&east(), "node-2"));
        let (code, text) = said(&command.env("CORACLE_PASSWORD", "sesame").output().unwrap());
        assert_eq!(code, 0, "{text}");
    };
    let mut ann =
        Visitor::new(&east().join("ca.pem")).showing(&east(), "client-ann").connect(&address).unwrap();
    let mut node = Visitor::new(&east().join("ca.pem")).showing(&east(), "node-3").connect(&address).unwrap();
    let mut asks = |line: &str, answer: &str| {
        ann.write_all(line.as_bytes()).unwrap();
        expect(&mut ann, answer.as_bytes());
    };
    asks("SET k v\r\n", "+OK\r\n");
    add("root", "admin");
    asks("GET k\r\n", "-NOAUTH Authentication required.\r\n");
    add("ann", "read");
    asks("GET k\r\nACL WHOAMI\r\nSET k w\r\n", "$1\r\nv\r\n$3\r\nann\r\n-NOPERM User ann has no permissions");
    node.write_all(b"SET k w\r\nCORACLE USERS REMOVE ann\r\n").unwrap();
    expect(&mut node, b"+OK\r\n+OK\r\n");
    ann.write_all(b"GET k\r\nQUIT\r\n").unwrap();
    let mut rest = String::new();
    ann.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("-NOAUTH Authentication required.\r\n+OK\r\n"), "{rest}");
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ONLY: &[&str] = &[
    "--client-tls",
    "require",
    "--client-certs",
    "required",
    "--election-timeout",
    "60m-120m",
    "--timeout",
    "60m",
];

/// Starts a node that finds its cluster by itself.
fn joining(dir: &Path, id: u64, clients: &str, words: &[&str]) -> Ends {
    started(dir, id, clients, &[words, ONLY].concat())
}

fn started(dir: &Path, id: u64, clients: &str, words: &[&str]) -> Ends {
    let mut command = Command::new(CORACLE);
    let peers = format!("127.0.0.1:{}", free_port().unwrap());
    command.args(["serve", "--id", &id.to_string(), "--client-addr", clients, "--peer-addr", &peers]);
    command.args(words).args(certificate(&east(), &format!("node-{id}")));
    command.arg("--data-dir").arg(dir.join(format!("joined{id}"))).stdout(Stdio::null());
    Ends(command.spawn().unwrap())
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

fn votes(report: &Report) -> Vec<u64> {
    report.members.iter().filter(|member| member.voter).map(|member| member.id).collect()
}

#[test]
fn a_cluster_is_formed_changed_and_saved_by_commands_over_encrypted_connections_only() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), vec![secured(&east(), ONLY); 3], Interrupt::default()).unwrap();
    let to = cluster.client_addresses().join(",");
    let first = cluster.node(1).place.client_addr.clone();
    let run = |words: &[&str], secure: &[String]| {
        let mut command = Command::new(CORACLE);
        command.args(words).args(secure).current_dir(dir.path());
        said(&command.output().unwrap())
    };
    let secure = certificate(&east(), "client-ann");
    let peers: Vec<String> = (1..=3).map(|id| format!("{id}={}", cluster.node(id).place.peer_addr)).collect();
    let init = ["members", "init", "--to", &first, &peers[0], &peers[1], &peers[2]];
    for (wrong, told) in [
        (vec![], "only encrypted connections"),
        (secure[4..].to_vec(), "CertificateRequired"),
        (certificate(&visitors::west(), "client-ann"), "invalid peer certificate"),
    ] {
        let (code, text) = run(&init, &wrong);
        assert!(code == 1 && text.contains(told), "{wrong:?}: {text}");
    }
    assert_eq!(run(&init, &secure), (0, "the cluster has 3 members\n".to_owned()));
    cluster.leader().unwrap();
    set(&mut cluster.node(2).client().unwrap(), "k", "v");
    // A fourth one finds them by its own certificate.
    let clients = address();
    let _fourth = joining(dir.path(), 4, &clients, &["--join", &to]);
    wait("it votes", || (votes(&cluster.node(1).report().ok()?) == [1, 2, 3, 4]).then_some(()));
    for (words, told) in [
        (vec!["status", "--to", &clients], "certificate valid for"),
        (vec!["members", "list", "--to", &first], " voter, connected, encrypted"),
        (vec!["members", "demote", "--to", &to, "4"], "done: voters 1 2 3, learners 4"),
        (vec!["members", "remove", "--to", &to, "4"], "done: voters 1 2 3"),
        (vec!["members", "transfer", "--to", &to, "--to-node", "2"], "done: "),
        (vec!["snapshot", "--to", &first], "a snapshot is on disk"),
        (vec!["backup", "--to", &first, "saved"], "written and verified"),
    ] {
        let (code, text) = run(&words, &secure);
        assert!(code == 0 && text.contains(told), "{words:?}: {text}");
    }
    // The same is said by the environment, which what needs no connection does not mind.
    for words in [&["status", "--to", &first][..], &["backup", "verify", "saved"]] {
        let mut command = Command::new(CORACLE);
        command.args(words).current_dir(dir.path());
        for (name, file) in [("CERT", &secure[1]), ("KEY", &secure[3]), ("CA", &secure[5])] {
            command.env(format!("CORACLE_TLS_{name}"), file);
        }
        let (code, text) = said(&command.output().unwrap());
        assert_eq!(code, 0, "{words:?}: {text}");
    }
    let (code, text) = run(&["entry", "skip", "--to", &to, "1.1"], &secure);
    assert!(code == 1 && !text.contains("does not answer"), "it is told that no machine stopped: {text}");
    // Who leads has nobody to rebuild it from; the others have.
    let (code, text) = run(&["rebuild", "--to", &cluster.node(3).place.client_addr], &secure);
    assert!(code == 0 && text.contains("the machine is rebuilt"), "{text}");
}

#[test]
fn three_find_each_other_over_encrypted_connections_only() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = [address(), address(), address()];
    let all = addresses.join(",");
    let words = ["--expect", "3", "--join", &all];
    let _nodes: Vec<Ends> =
        (1..=3).map(|id| joining(dir.path(), id, &addresses[id as usize - 1], &words)).collect();
    wait("they are a cluster", || {
        let report = coracle_server::cluster::report(&addresses[0], LONG).ok()?;
        (votes(&report) == [1, 2, 3] && report.leader.is_some()).then_some(())
    });
}

#[test]
fn who_goes_over_joins_those_who_have_not_begun_and_those_who_are_done() {
    for (mode, secure) in [("off", vec![]), ("require", certificate(&east(), "client-ann"))] {
        let dir = tempfile::tempdir().unwrap();
        let more: &[&str] = match mode {
            "off" => STEADY,
            _ => &["--client-tls", "require", "--election-timeout", "60m-120m", "--timeout", "60m"],
        };
        let (cluster, address) = alone(dir.path(), &east(), more);
        let run = |words: &[&str]| said(&Command::new(CORACLE).args(words).args(&secure).output().unwrap());
        let first = format!("1={}", cluster.node(1).place.peer_addr);
        assert_eq!(run(&["members", "init", "--to", &address, &first]).0, 0);
        let clients = self::address();
        let prefer = ["--join", &address, "--client-tls", "prefer"];
        let _second = started(dir.path(), 2, &clients, &[&prefer[..], STEADY].concat());
        wait("it votes", || {
            let (_, text) = run(&["members", "list", "--to", &clients]);
            (text.matches(" voter").count() == 2).then_some(())
        });
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    assert!(all(&["serve", "--client-tls", "require"]).contains("--tls-cert"));
    let secure = certificate(&east(), "node-1");
    let words = ["serve", "--id", "1", "--peer-addr", "127.0.0.1:0", "--client-addr", "127.0.0.1:0"];
    let words: Vec<&str> = words.into_iter().chain(secure.iter().map(String::as_str)).collect();
    let with = |more: &[&str]| all(&[&words[..], &["--store", "memory"], more].concat());
    assert!(with(&["--client-certs", "required"]).contains("--client-tls require"));
    let prefer = with(&["--client-tls", "prefer", "--client-certs", "required"]);
    assert!(prefer.contains("--client-tls require"), "{prefer}");
    assert!(all(&["status", "--to", "127.0.0.1:1", "--tls-cert", &secure[1]]).contains("--tls-key"));
    let exposed = tempfile::tempdir().unwrap();
    let dir = exposed.path();
    for file in ["ca.pem", "client-ann.pem", "client-ann.key"] {
        fs::copy(east().join(file), dir.join(file)).unwrap();
    }
    let key = dir.join("client-ann.key");
    fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let status: Vec<String> = certificate(dir, "client-ann");
    let status: Vec<&str> =
        ["status", "--to", "127.0.0.1:1"].into_iter().chain(status.iter().map(String::as_str)).collect();
    assert!(all(&status).contains("others may read the key"));
}
