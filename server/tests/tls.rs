//! Encrypted connections between real servers: certificates made by the program, a cluster that goes over node by node, and
//! certificates renewed while it runs.

mod support;

use coracle::Role;
use coracle::raft::NodeId;
use coracle_server::certs;
use coracle_server::client::{Client, Value};
use coracle_server::cluster::{Cluster, Interrupt, Program};
use coracle_server::report::Report;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use support::log::said;
use support::*;

/// The server with the certificate of its node, if a mode is said.
fn secured(dir: &Path, mode: Option<&'static str>) -> Program {
    let (plain, dir) = (server_with(STEADY), dir.to_owned());
    Arc::new(move |place| {
        let mut command = plain(place);
        if let Some(mode) = mode {
            let at = |file: String| dir.join(file);
            command.arg("--tls-cert").arg(at(format!("node-{}.pem", place.id)));
            command.arg("--tls-key").arg(at(format!("node-{}.key", place.id)));
            command.arg("--tls-ca").arg(at("ca.pem".to_owned())).args(["--tls", mode]);
        }
        command
    })
}

fn coracle(words: &[&str]) -> (i32, String) {
    said(&Command::new(CORACLE).args(words).output().unwrap())
}

/// A directory with the certificates of three nodes, made by the commands.
fn certificates(dir: &Path) -> PathBuf {
    let certs = dir.join("certs");
    let at = certs.to_str().unwrap();
    let (code, text) = coracle(&["certs", "init", "--cluster", "east", "--dir", at]);
    assert!(code == 0 && text.contains("ca.pem"), "{text}");
    for id in ["1", "2", "3"] {
        let (code, text) = coracle(&["certs", "node", id, "--dir", at]);
        assert!(code == 0 && text.contains(&format!("node-{id}.key")), "{text}");
    }
    certs
}

fn start(dir: &Path, certs: &Path, mode: Option<&'static str>) -> Cluster {
    Cluster::start(dir, vec![secured(certs, mode); 3], Interrupt::default()).unwrap()
}

/// Whether a certificate that was just made shows in the status with its days.
fn days_left(status: &str, days: u32) -> bool {
    [days, days - 1].iter().any(|days| status.contains(&format!("  certificate valid for {days} days\n")))
}

/// All that a node has logged.
fn said_by(cluster: &Cluster, id: u64) -> String {
    fs::read_to_string(cluster.node(id).log()).unwrap_or_default()
}

/// Whether each node's connections to the others are encrypted.
fn encrypted(cluster: &Cluster, id: u64) -> Option<bool> {
    let Report { members, .. } = cluster.node(id).report().ok()?;
    let mut others = members.iter().filter(|member| member.id != id);
    others.clone().all(|member| member.reachable).then(|| others.all(|member| member.encrypted))
}

#[test]
fn a_cluster_with_certificates_talks_to_none_but_its_members() {
    let dir = tempfile::tempdir().unwrap();
    let certs = certificates(dir.path());
    let mut cluster = start(dir.path(), &certs, Some("require"));
    cluster.form().unwrap();
    let (leader, _) = cluster.leader().unwrap();
    let mut client = cluster.node(leader).client().unwrap();
    set(&mut client, "k", "v");
    for id in 1..=3 {
        assert!(wait("all are connected", || encrypted(&cluster, id)));
    }
    let (_, status) = coracle(&["status", "--to", &cluster.node(1).place.client_addr]);
    assert!(days_left(&status, 365), "{status}");
    assert_eq!(status.matches("votes, is connected, encrypted\n").count(), 2, "{status}");
    // One that comes back without its certificate is none of them, and is told why.
    let other = leader % 3 + 1;
    cluster.kill(other);
    cluster.set_program(other, secured(&certs, None));
    cluster.restart(other).unwrap();
    // Other words may have come after it.
    let said = || fs::read_to_string(cluster.node(other).log()).unwrap();
    wait("it is refused", || said().contains("none but encrypted ones").then_some(()));
    set(&mut client, "k", "w");
    cluster.kill(other);
    cluster.set_program(other, secured(&certs, Some("require")));
    cluster.restart(other).unwrap();
    cluster.agree().unwrap();
    // The certificate of another node is refused at the start.
    let key = certs.join(format!("node-{other}.key"));
    let certificate = certs.join(format!("node-{other}.pem"));
    cluster.kill(other);
    fs::copy(certs.join(format!("node-{leader}.key")), &key).unwrap();
    fs::copy(certs.join(format!("node-{leader}.pem")), &certificate).unwrap();
    let _ = cluster.spawn(other);
    wait("it does not start", || {
        said_by(&cluster, other)
            .contains(&format!("the certificate is that of coracle://east/node/{leader}"))
            .then_some(())
    });
}

#[test]
fn a_cluster_goes_over_to_encrypted_connections_node_by_node_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let certs = certificates(dir.path());
    let mut cluster = start(dir.path(), &certs, None);
    cluster.form().unwrap();
    cluster.leader().unwrap();
    let mut counted = 0;
    let mut count = |cluster: &Cluster, by: u64| {
        let mut client = Client::connect(&cluster.node(by).place.client_addr, LONG).unwrap();
        assert_eq!(ask(&mut client, "INCR counter"), Value::Number(counted + 1));
        counted += 1;
    };
    for mode in ["prefer", "require"] {
        for id in 1..=3 {
            cluster.kill(id);
            cluster.set_program(id, secured(&certs, Some(mode)));
            cluster.restart(id).unwrap();
            // Whoever follows is written through as well, so that all are met.
            for by in 1..=3 {
                count(&cluster, by);
            }
            assert!(wait("all are connected", || encrypted(&cluster, id)) || mode == "prefer");
        }
    }
    for id in 1..=3 {
        assert!(wait("all are connected", || encrypted(&cluster, id)));
    }
    cluster.agree().unwrap();
}

#[test]
fn certificates_are_renewed_while_the_cluster_runs() {
    let dir = tempfile::tempdir().unwrap();
    let certs = certificates(dir.path());
    let cluster = start(dir.path(), &certs, Some("require"));
    cluster.form().unwrap();
    let (leader, term) = cluster.leader().unwrap();
    let expires = |id| cluster.node(id).report().unwrap().certificate_expires.unwrap();
    let mut client = cluster.node(leader).client().unwrap();
    for (id, days, by_signal) in [(1, 100, true), (2, 200, false)] {
        let before = expires(id);
        certs::sign(&certs, Role::Node(NodeId(id)), &[], days, true).unwrap();
        if by_signal {
            let pid = cluster.node(id).pid().unwrap().to_string();
            assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        }
        wait("it is read again", || {
            set(&mut client, "k", "v");
            (expires(id) < before).then_some(())
        });
        let (_, status) = coracle(&["status", "--to", &cluster.node(id).place.client_addr]);
        assert!(days_left(&status, days), "{status}");
    }
    assert_eq!(cluster.leader().unwrap(), (leader, term), "nobody was disturbed");
}

#[test]
fn what_a_server_cannot_use_is_refused_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let certs = certificates(dir.path());
    let serve = |more: &[&str]| {
        let data = dir.path().join("data");
        let mut words =
            vec!["serve", "--id", "1", "--peer-addr", "127.0.0.1:0", "--client-addr", "127.0.0.1:0"];
        words.extend(["--data-dir", data.to_str().unwrap()]);
        words.extend(more);
        coracle(&words)
    };
    let at = |file: &str| certs.join(file).to_str().unwrap().to_owned();
    let (cert, key, ca) = (at("node-1.pem"), at("node-1.key"), at("ca.pem"));
    for (words, told) in [
        (vec!["--tls-cert", &cert], "--tls-key"),
        (vec!["--tls", "prefer"], "--tls-cert"),
        (
            vec!["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca, "--tls", "perhaps"],
            "prefer or require",
        ),
        (vec!["--tls-cert", &cert, "--tls-key", &at("node-2.key"), "--tls-ca", &ca], "cannot be used"),
        (vec!["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &at("none.pem")], "none.pem"),
        (vec!["--tls-cert", &ca, "--tls-key", &at("ca.key"), "--tls-ca", &ca], "no name of the form"),
    ] {
        let (code, text) = serve(&words);
        assert!(code != 0 && text.contains(told), "{words:?}: {code} {text}");
    }
    let (code, text) = coracle(&["certs", "node", "1", "--dir", certs.to_str().unwrap()]);
    assert!(code == 1 && text.contains("there already"), "{text}");
}
