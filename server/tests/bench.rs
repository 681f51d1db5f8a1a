//! `coracle bench`: it measures what is there, and says so where nothing is.

mod support;

use coracle_server::client::{Client, Value};
use coracle_server::cluster::free_port;
use serde_json::Value as Json;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::*;

fn bench(arguments: &[&str]) -> Output {
    Command::new(CORACLE).arg("bench").args(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn number(json: &Json, path: &str) -> f64 {
    json.pointer(path).and_then(Json::as_f64).unwrap_or_else(|| panic!("{path} in {json}"))
}

#[test]
fn a_cluster_is_measured_at_its_leader() {
    let (cluster, _directory) = formed(3, STEADY);
    let all: Vec<_> = cluster.client_addresses();
    let (leader, _) = cluster.leader().unwrap();
    let before = cluster.agree().unwrap().0;
    let words = "--clients 5 --connections 2 --value-size 100 --reads 50 --seconds 1 --json";
    let words: Vec<_> = words.split(' ').collect();
    let run = bench(&[&["--to", &all.join(",")], &words[..]].concat());
    assert!(run.status.success(), "{}", text(&run.stderr));
    let seen = json(&run);
    let (writes, reads) = (number(&seen, "/writes/count"), number(&seen, "/reads/count"));
    assert!(writes > 0.0 && reads > 0.0, "{seen}");
    // Both are drawn for each request.
    assert!((writes / (writes + reads) - 0.5).abs() < 0.25, "{seen}");
    assert!((number(&seen, "/per_second") - writes - reads).abs() < 1.0, "{seen}");
    assert!(number(&seen, "/writes/p50_us") <= number(&seen, "/writes/p999_us"), "{seen}");
    assert_eq!(number(&seen, "/failed"), 0.0);
    assert_eq!(number(&seen, "/under_way_at_end"), 5.0);
    let applied = cluster.agree().unwrap().0;
    assert!(applied > before, "the writes went through the log");

    // One node alone is enough, and passes writes on.
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let run = bench(&["--to", &all[follower as usize - 1], "--clients", "3", "--seconds", "1"]);
    let told = text(&run.stdout);
    assert!(run.status.success() && told.contains("3 clients on 3 connections"), "{told}{run:?}");
}

#[test]
fn so_many_keys_are_in_play_as_are_asked_for() {
    let (cluster, _directory) = formed(1, STEADY);
    let address = cluster.node(1).place.client_addr.clone();
    let run = bench(&["--to", &address, "--clients", "4", "--keys", "3", "--seconds", "1", "--json"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert_eq!(number(&json(&run), "/keys"), 3.0);
    let mut client = Client::connect(&address, Duration::from_secs(10)).unwrap();
    assert_eq!(ask(&mut client, "DBSIZE"), Value::Number(3));
}

#[test]
fn nobody_there_and_nobody_who_leads_are_errors() {
    let free = format!("127.0.0.1:{}", free_port().unwrap());
    let run = bench(&["--to", &free, "--seconds", "1"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).starts_with(&format!("coracle: {free} does not answer: ")), "{run:?}");

    let (cluster, _directory) = blank(1, &[]);
    let address = cluster.node(1).place.client_addr.clone();
    let run = bench(&["--to", &format!("{address},{free}"), "--seconds", "1"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("none of the addresses is a leader's: "), "{run:?}");
}

/// A server that works on one request at a time, 20 ms on each or longer: nothing here depends on how much longer.
#[test]
fn what_a_slow_server_costs_is_what_is_told() {
    const WORK: Duration = Duration::from_millis(20);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = Arc::new(AtomicU64::new(0));
    let serving = served.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut out = stream.try_clone().unwrap();
            let commands = BufReader::new(stream).lines().map_while(Result::ok);
            for _ in commands.filter(|line| line.starts_with('*')) {
                std::thread::sleep(WORK);
                if out.write_all(b"+OK\r\n").is_err() {
                    break;
                }
                serving.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for clients in [1, 3] {
        let of = clients.to_string();
        let before = served.load(Ordering::Relaxed);
        let run =
            bench(&["--to", &address, "--clients", &of, "--connections", "1", "--seconds", "1", "--json"]);
        let all = (served.load(Ordering::Relaxed) - before) as f64;
        let seen = json(&run);
        let (count, p50) = (number(&seen, "/writes/count"), number(&seen, "/writes/p50_us"));
        // Each waits for those before it on the same connection. A computer may be late, but never early.
        let least = 20_000.0 * f64::from(clients);
        assert!(p50 >= 0.99 * least, "{clients}: {seen}");
        assert!((1.0..=51.0).contains(&count) && count < all, "the warm-up does not count: {all}, {seen}");
        // The clients waited for a second and for the request in which it ended, each; half of the requests at least
        // took as long as the median.
        let slowest = number(&seen, "/writes/max_us");
        let waited = f64::from(clients) * (1e6 + slowest);
        assert!(slowest >= p50 && 0.5 * p50 * count <= 1.01 * waited, "{clients}: {seen}");
    }
}

#[test]
fn failures_are_counted_by_kind_and_are_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // A server that refuses every other request. A command of two or three strings has as many lines with $.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut out = stream.try_clone().unwrap();
            let commands = BufReader::new(stream).lines().map_while(Result::ok);
            for (i, _) in commands.filter(|line| line.starts_with('*')).enumerate() {
                let answer: &[u8] = if i % 2 == 0 { b"+OK\r\n" } else { b"-BUSY too much\r\n" };
                if out.write_all(answer).is_err() {
                    break;
                }
            }
        }
    });
    let run = bench(&["--to", &address, "--clients", "1", "--seconds", "1", "--json"]);
    assert_eq!(run.status.code(), Some(1));
    let seen = json(&run);
    let busy = number(&seen, "/errors/BUSY");
    assert!(busy > 0.0 && busy == number(&seen, "/failed"), "{seen}");
    assert!((busy - number(&seen, "/writes/count")).abs() <= 1.0, "an error is no answer: {seen}");
    assert!(text(&run.stderr).contains("requests failed"), "{run:?}");
}

#[test]
fn a_server_that_hangs_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let run = bench(&["--to", &address, "--clients", "2", "--seconds", "1", "--json"]);
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(number(&json(&run), "/under_way_at_end"), 2.0);
    assert!(number(&json(&run), "/oldest_under_way_us") > 900_000.0);
    assert!(text(&run.stderr).contains("answered no request in 1s"), "{run:?}");
}

#[test]
fn the_probe_compares_and_tidies_up() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().to_str().unwrap();
    let run = bench(&["--probe", "--rounds", "1", "--seconds", "1", "--dir", dir, "--json"]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let seen = json(&run);
    for clients in ["1", "50", "256"] {
        for figure in ["latency_ratio", "throughput_ratio"] {
            assert!(number(&seen, &format!("/medians/clients/{clients}/{figure}/median")) > 0.0, "{seen}");
        }
    }
    for figure in ["fdatasync_us", "fdatasync_of_three_us/last", "round_trip_us"] {
        assert!(number(&seen, &format!("/medians/{figure}")) > 0.0, "{seen}");
    }
    assert_eq!(seen["rounds"].as_array().map(Vec::len), Some(1));
    assert_eq!(directory.path().read_dir().unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn wrong_words_are_refused() {
    for wrong in [
        &[][..],
        &["--to", "a:1", "--probe"],
        &["--to", "a:1", "--clients", "0"],
        &["--to", "a:1", "--reads", "101"],
        &["--to", "a:1", "--value-size", "8388609"],
        &["--to", "a:1", "--keys", "0"],
        &["--to", "a:1", "--rounds", "2"],
        &["--probe", "--clients", "2"],
        &["--probe", "--keys", "2"],
    ] {
        let run = bench(wrong);
        assert_eq!(run.status.code(), Some(2), "{wrong:?}: {run:?}");
        assert_eq!(text(&run.stderr).lines().count(), 1, "{run:?}");
    }
    let run = bench(&["--to", "127.0.0.1:1", "--clients", "2", "--connections", "3"]);
    assert_eq!(run.status.code(), Some(1));
    assert!(text(&run.stderr).contains("3 connections are more than 2 clients can use"), "{run:?}");
}
