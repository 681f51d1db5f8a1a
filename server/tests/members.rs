//! Changes of membership by command, with whole processes.

mod support;

use coracle_server::cluster::{free_port, report};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use support::*;

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn members(to: &str, words: &[&str]) -> Output {
    let (change, rest) = words.split_first().unwrap();
    Command::new(CORACLE).args(["members", change, "--to", to]).args(rest).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Starts a node that asks to be taken in. Its client address, and its peer address.
fn joining(id: u64, directory: &Path, join: &str) -> (Ends, String, String) {
    let [clients, peers] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port().unwrap()));
    let child = Command::new(CORACLE)
        .args([
            "serve",
            "--id",
            &id.to_string(),
            "--join",
            join,
            "--client-addr",
            &clients,
            "--peer-addr",
            &peers,
        ])
        .arg("--data-dir")
        .arg(directory)
        .args(STEADY)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (Ends(child), clients, peers)
}

#[test]
fn a_blank_node_joins_by_itself_and_members_are_changed_by_command() {
    let (cluster, directory) = formed(3, STEADY);
    let all = cluster.client_addresses().join(",");
    let first = cluster.node(1).place.client_addr.clone();
    let place = directory.path().join("joins");
    let (child, own, peers) = joining(4, &place, &all);
    let votes = |address: &str| {
        wait("the new node votes", || {
            let report = report(address, LONG).ok()?;
            report.members.iter().any(|member| member.id == 4 && member.voter).then_some(())
        });
    };
    votes(&first);
    votes(&own);
    let listed = said(&members(&own, &["list"]));
    assert!(listed.lines().any(|line| line == format!("4={peers} voter, connected")), "{listed}");
    assert_eq!(said(&members(&all, &["demote", "4"])), "done: voters 1 2 3, learners 4");
    assert_eq!(said(&members(&all, &["add", &format!("4={peers}")])), "done: voters 1 2 3, learners 4");
    assert_eq!(said(&members(&own, &["promote", "4"])), "done: voters 1 2 3 4");
    // Any node is asked, and each time the leader is found.
    for id in cluster.ids() {
        let to = &cluster.node(id).place.client_addr;
        assert_eq!(said(&members(to, &["remove", "4"])), "done: voters 1 2 3");
    }
    let refused = members(&all, &["promote", "4"]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("node 4 is no member"), "{why}");
    drop(child);
}
