//! What `coracle doctor` finds of clusters that something was done to.

mod support;

use coracle_server::cluster::Cluster;
use std::process::Command;
use support::*;

/// What it finds, by name and in the order of the names, and its exit code. All nodes are asked.
fn doctor(cluster: &Cluster, more: &[&str]) -> (Vec<String>, i32) {
    let to = cluster.client_addresses().join(",");
    let output = Command::new(CORACLE).args(["doctor", "--json", "--to", &to]).args(more).output().unwrap();
    let findings: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let name = |finding: &serde_json::Value| finding["name"].as_str().unwrap().to_owned();
    let mut names: Vec<_> = findings.as_array().unwrap().iter().map(name).collect();
    names.sort();
    (names, output.status.code().unwrap())
}

fn finds(cluster: &Cluster, names: &[&str], code: i32) {
    let mut names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    let wanted = (names, code);
    let mut last = None;
    let found = coracle_server::cluster::wait("what is found", LONG, &Default::default(), || {
        let now = doctor(cluster, &[]);
        let same = now == wanted;
        last = Some(now);
        Ok(same.then_some(()))
    });
    assert!(found.is_ok(), "{wanted:?} was not found, but {last:?}");
}

#[test]
fn nodes_without_a_cluster_a_dead_one_and_a_lost_majority_are_named() {
    let (mut cluster, _directory) = blank(3, &["--timeout", "60m"]);
    finds(&cluster, &["no-cluster", "no-cluster", "no-cluster"], 3);
    cluster.form().unwrap();
    cluster.leader().unwrap();
    finds(&cluster, &[], 0);
    let (leader, _) = cluster.leader().unwrap();
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    cluster.kill(others[0]);
    // After three seconds its leader takes it for dead.
    finds(&cluster, &["no-answer", "no-spare", "silent", "member-away", "member-away"], 3);
    cluster.kill(others[1]);
    finds(&cluster, &["no-answer", "no-answer", "no-majority", "member-away", "member-away"], 3);
    for id in others {
        cluster.restart(id).unwrap();
    }
    finds(&cluster, &[], 0);
}

#[test]
fn a_frozen_member_and_a_machine_that_stopped_are_named() {
    let (cluster, _directory) = formed(3, &["--timeout", "1s", "--fail-on", "poison"]);
    let (leader, _) = cluster.leader().unwrap();
    let mut client = cluster.node(leader).client().unwrap();
    // Nobody can apply it.
    ask(&mut client, "SET k poison");
    wait("that it is found", || {
        doctor(&cluster, &[]).0.iter().any(|name| name == "machine-stopped").then_some(())
    });
    let other = if leader == 1 { 2 } else { 1 };
    cluster.freeze(other, true).unwrap();
    wait("that it is found", || {
        let (names, _) = doctor(&cluster, &[]);
        (names.contains(&"silent".to_owned()) && names.contains(&"no-spare".to_owned())).then_some(())
    });
    cluster.freeze(other, false).unwrap();
}

#[test]
fn whoever_may_not_ask_is_told_so() {
    let (cluster, directory) = formed(1, &[]);
    let to = &cluster.node(1).place.client_addr;
    assert_eq!(doctor(&cluster, &[]), (vec!["alone".to_owned()], 0));
    let file = directory.path().join("password");
    std::fs::write(&file, "sesame\n").unwrap();
    let added = Command::new(CORACLE)
        .args(["users", "add", "root", "--role", "admin", "--to", to, "--new-password-file"])
        .arg(&file)
        .status()
        .unwrap();
    assert!(added.success());
    assert_eq!(doctor(&cluster, &[]), (vec!["not-permitted".to_owned()], 0));
    let as_root = ["--user", "root", "--password-file", file.to_str().unwrap()];
    assert_eq!(doctor(&cluster, &as_root), (vec!["alone".to_owned()], 0));
}
