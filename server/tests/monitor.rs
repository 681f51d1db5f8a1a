//! What a node tells on its admin address, with whole processes.

mod support;

use coracle_server::client::Value;
use coracle_server::cluster::{Cluster, Interrupt, Program, free_port};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;
use support::*;

/// Nodes with an admin address each, not formed yet; the addresses, by id less one.
fn watched(nodes: usize, arguments: &'static [&'static str]) -> (Cluster, tempfile::TempDir, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let admin: Vec<String> = (0..nodes).map(|_| format!("127.0.0.1:{}", free_port().unwrap())).collect();
    let program = |address: &String| -> Program {
        let (plain, address) = (server_with(arguments), address.clone());
        Arc::new(move |place| {
            let mut command = plain(place);
            command.args(["--admin-addr", &address]);
            command
        })
    };
    let programs = admin.iter().map(program).collect();
    (Cluster::start(directory.path(), programs, Interrupt::default()).unwrap(), directory, admin)
}

/// The status code and the body of the answer.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = raw(address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("{head:?}")), body.to_owned())
}

/// The value of a metric, with its labels as they stand there.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The names of all metrics, as they are declared.
fn names(text: &str) -> BTreeSet<String> {
    let declared = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    declared.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_node_tells_whether_it_lives_and_is_ready_and_why_not() {
    let (mut cluster, _directory, admin) = watched(3, &[]);
    for address in &admin {
        assert_eq!(get(address, "/healthz"), (200, "ok\n".to_owned()));
        let (code, why) = get(address, "/readyz");
        assert!(code == 503 && why.contains("it has no cluster yet"), "{why}");
        assert_eq!(value(&get(address, "/metrics").1, "coracle_ready"), Some(0.0));
        assert_eq!(get(address, "/nothing").0, 404);
    }
    cluster.form().unwrap();
    for address in &admin {
        wait("it is ready", || (get(address, "/readyz").0 == 200).then_some(()));
        let (code, status) = get(address, "/status");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!((code, status["members"].as_array().unwrap().len()), (200, 3));
    }
    // Without a majority it lives, and is not ready.
    cluster.kill(2);
    cluster.kill(3);
    let why = wait("it is not ready", || {
        let (code, why) = get(&admin[0], "/readyz");
        (code == 503).then_some(why)
    });
    assert!(why.contains("it knows no leader"), "{why}");
    assert_eq!(get(&admin[0], "/healthz").0, 200);
}

#[test]
fn the_metrics_are_those_of_the_document_and_tell_what_happens() {
    let (cluster, _directory, admin) = watched(3, STEADY);
    cluster.form().unwrap();
    let (leader, _) = cluster.leader().unwrap();
    let leads = &admin[leader as usize - 1];
    let mut client = cluster.node(leader).client().unwrap();
    for number in 0..20 {
        set(&mut client, &format!("key-{number}"), "value");
        assert_eq!(ask(&mut client, "GET key-0"), Value::Bulk(b"value".to_vec()));
    }
    ask(&mut client, "CORACLE SNAPSHOT");
    let text = wait("both followers hold everything", || {
        let text = get(leads, "/metrics").1;
        let lag = |peer| value(&text, &format!("coracle_peer_lag_entries{{peer=\"{peer}\"}}"));
        let others = (1..=3).filter(|id| *id != leader);
        others.clone().all(|peer| lag(peer) == Some(0.0)).then_some(text)
    });
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(value(&text, "coracle_up"), Some(1.0));
    assert_eq!(value(&text, "coracle_role{role=\"leader\"}"), Some(1.0));
    assert_eq!(value(&text, "coracle_leader_id"), Some(leader as f64));
    assert_eq!(value(&text, "coracle_voters"), Some(3.0));
    assert_eq!(value(&text, "coracle_write_seconds_count"), Some(20.0));
    assert_eq!(value(&text, "coracle_read_seconds_count"), Some(20.0));
    assert_eq!(value(&text, "coracle_write_seconds_bucket{le=\"+Inf\"}"), Some(20.0));
    assert_eq!(value(&text, "coracle_failed_batches_total"), Some(0.0));
    assert!(value(&text, "coracle_commit_index") > Some(20.0), "{text}");
    assert!(value(&text, "coracle_snapshot_index") > Some(20.0), "{text}");
    assert!(value(&text, "coracle_clients") >= Some(1.0), "{text}");
    assert!(value(&text, "coracle_process_open_fds") > Some(5.0), "{text}");
    // A follower counts what it serves, too.
    let follows = 1 + leader % 3;
    set(&mut cluster.node(follows).client().unwrap(), "key", "value");
    let text = get(&admin[follows as usize - 1], "/metrics").1;
    assert_eq!(value(&text, "coracle_role{role=\"follower\"}"), Some(1.0));
    assert_eq!(value(&text, "coracle_write_seconds_count"), Some(1.0));

    let document = include_str!("../../docs/metrics.md");
    let told: BTreeSet<String> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `coracle_")?.split('|');
            let (name, kind) = (cells.next()?.trim().trim_end_matches('`'), cells.next()?.trim());
            Some(format!("coracle_{name} {kind}"))
        })
        .collect();
    let leads = get(leads, "/metrics").1;
    let mut found = names(&leads);
    // Only where there are certificates.
    found.insert("coracle_certificate_expires_seconds gauge".to_owned());
    assert_eq!(told, found);
}

/// What a browser gets of `/live`, from after that second on, for as long as one answer goes on.
fn live(address: &str, seen: u64) -> Vec<serde_json::Value> {
    let mut stream = raw(address);
    write!(stream, "GET /live HTTP/1.1\r\nHost: {address}\r\nLast-Event-ID: {seen}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("content-type: text/event-stream"), "{answer}");
    let events = answer.lines().filter_map(|line| line.strip_prefix("data: "));
    events.map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// What the page shows comes from this node alone, and goes on from where it was; what a browser makes of it, `scripts/page`
/// looks at.
#[test]
fn the_page_is_whole_and_tells_what_happens_once() {
    let (mut cluster, _directory, admin) = watched(3, &[]);
    for (path, kind) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let mut stream = raw(&admin[0]);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", admin[0]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("content-type: {kind}")),
            "{path}"
        );
        assert!(answer.contains("content-security-policy: default-src 'self'"), "{path}");
        assert!(!answer.contains("http://") && !answer.contains("https://"), "{path} names another place");
    }
    assert_eq!((get(&admin[0], "/uPlot.js").0, get(&admin[0], "/uPlot.css").0), (200, 200));
    cluster.form().unwrap();
    let (leader, _) = cluster.leader().unwrap();
    set(&mut cluster.node(leader).client().unwrap(), "key", "value");
    let watching = 1 + leader % 3;
    let watching = &admin[watching as usize - 1];
    let happened = |events: &[serde_json::Value]| -> Vec<String> {
        let all = events.iter().flat_map(|event| event["happenings"].as_array().unwrap().clone());
        all.map(|one| one["what"].as_str().unwrap().to_owned()).collect()
    };
    let mut first = Vec::new();
    wait("it has seen the leader", || {
        first = live(watching, 0);
        happened(&first)
            .contains(&format!("node {leader} leads, in term {}", first[0]["report"]["term"]))
            .then_some(())
    });
    let seconds: Vec<u64> = first
        .iter()
        .flat_map(|event| event["seconds"].as_array().unwrap().clone())
        .map(|second| second["number"].as_u64().unwrap())
        .collect();
    assert!(seconds.is_sorted_by(|one, next| one < next), "each second once: {seconds:?}");
    cluster.kill(leader);
    let mut seen = *seconds.last().unwrap();
    let mut after = Vec::new();
    wait("it tells that the leader is gone, and who leads now", || {
        let events = live(watching, seen);
        let newest = events.iter().flat_map(|event| event["seconds"].as_array().unwrap().clone());
        seen = newest.map(|second| second["number"].as_u64().unwrap()).max().unwrap_or(seen);
        after.extend(happened(&events));
        let lost = after.contains(&format!("the connection to node {leader} is lost"));
        let next =
            after.iter().any(|what| what.contains(" leads, in term") || what.contains(", leads, in term"));
        (lost && next).then_some(())
    });
    assert!(!after.iter().any(|what| what.contains("is looked at")), "nothing is told twice: {after:?}");
}

#[test]
fn whoever_says_nothing_on_the_admin_address_keeps_its_place_for_a_moment() {
    let (_cluster, _directory, admin) = watched(1, &[]);
    // More than there are places, some with half a request.
    let mut silent: Vec<_> = (0..60).map(|_| raw(&admin[0])).collect();
    for stream in silent.iter_mut().step_by(2) {
        stream.write_all(b"GET /metrics HTT").unwrap();
    }
    let (code, text) = get(&admin[0], "/metrics");
    assert!(code == 200 && value(&text, "coracle_up") == Some(1.0), "{text}");
    // And a head without an end is refused.
    let mut long = raw(&admin[0]);
    let _ = long.write_all(&[b'x'; 100_000]);
    let mut answer = Vec::new();
    let _ = long.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
    assert_eq!(get(&admin[0], "/healthz").0, 200);
    drop(silent);
}
