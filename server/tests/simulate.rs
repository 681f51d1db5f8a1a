//! The simulator and the judge of histories, at the command line.

use std::io::{Seek, Write};
use std::process::{Command, Output};

fn coracle(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coracle")).args(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn s_24_a_seed_gives_the_same_hash_in_every_process() {
    let run = || coracle(&["sim", "--seed", "7", "--json"]);
    let (one, two) = (run(), run());
    assert!(one.status.success(), "{}", text(&one.stderr));
    let shown: serde_json::Value = serde_json::from_slice(&one.stdout).expect("one line of JSON");
    assert_eq!(shown["trace_hash"].as_str().map(str::len), Some(16));
    assert_eq!(one.stdout, two.stdout);
    let other = coracle(&["sim", "--seed", "8", "--json"]);
    assert_ne!(one.stdout, other.stdout);
}

#[test]
fn a_campaign_says_where_it_began_and_what_it_saw() {
    let run = coracle(&["sim", "--seeds", "3", "--steps", "500"]);
    let told = text(&run.stdout);
    assert!(run.status.success(), "{told}");
    assert!(told.starts_with("seeds ") && told.contains("3 seeds, "), "{told}");
    assert!(told.contains("every invariant held"), "{told}");
}

#[test]
fn wrong_numbers_are_refused() {
    for wrong in
        [&["sim", "--nodes", "2"][..], &["sim", "--seed", "1", "--seeds", "2"], &["sim", "--from", "1"]]
    {
        let run = coracle(wrong);
        assert_eq!(run.status.code(), Some(2), "{wrong:?}");
        assert_eq!(text(&run.stderr).lines().count(), 1, "one line: {}", text(&run.stderr));
    }
}

#[test]
fn the_exit_code_of_a_history_check_says_the_worst() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    };
    let read = |value: &str| {
        format!(
            "{{:process 0, :type :invoke, :f :put, :key \"k\", :value \"new\"}}\n\
             {{:process 0, :type :ok, :f :put, :key \"k\", :value \"new\"}}\n\
             {{:process 1, :type :invoke, :f :get, :key \"k\", :value nil}}\n\
             {{:process 1, :type :ok, :f :get, :key \"k\", :value \"{value}\"}}\n"
        )
    };
    let (good, stale, junk) =
        (write("good", &read("new")), write("stale", &read("")), write("junk", "what?"));
    let code = |files: &[&str]| coracle(&[&["history", "check"][..], files].concat()).status.code();
    assert_eq!(code(&[&good]), Some(0));
    assert_eq!(code(&[&good, &stale]), Some(1));
    assert_eq!(code(&[&stale, &junk, &good]), Some(2));
    assert_eq!(code(&["not-there"]), Some(2));
}

#[test]
fn a_shrunk_run_is_told_line_by_line() {
    let run = coracle(&["sim", "--seed", "7", "--steps", "50", "--only", "ask:0:0 ask:0:1"]);
    let told = text(&run.stdout);
    assert!(run.status.success() && told.contains(" asks node "), "{told}");
    let mut given = tempfile::tempfile().expect("a file");
    given.write_all(b"ask:0:0\nask:0:1\n").and_then(|()| given.rewind()).expect("a file");
    let mut from_input = Command::new(env!("CARGO_BIN_EXE_coracle"));
    from_input.args(["sim", "--seed", "7", "--steps", "50", "--only", "-"]).stdin(given);
    let told_again = text(&from_input.output().expect("the program starts").stdout);
    let hash = |told: &str| told.lines().find(|line| line.starts_with("trace hash")).map(str::to_owned);
    assert_eq!((hash(&told_again), told_again.lines().count()), (hash(&told), told.lines().count()));
    assert!(hash(&told).is_some(), "{told}");
    let wrong = coracle(&["sim", "--seed", "7", "--only", "crush:0:0"]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("crush:0:0"), "{wrong:?}");
}
