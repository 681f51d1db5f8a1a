//! Changes of membership by command, with whole processes.

mod support;

use coracle_server::client::Value;
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

/// Starts a node with these words beside its addresses and its directory. Its client address, and its peer address.
fn serving(directory: &Path, words: &[&str]) -> (Ends, String, String) {
    let (clients, peers) = (address(), address());
    (serving_at(directory, words, &clients, &peers), clients, peers)
}

fn serving_at(directory: &Path, words: &[&str], clients: &str, peers: &str) -> Ends {
    let mut command = Command::new(CORACLE);
    command.arg("serve").args(words).args(["--client-addr", clients, "--peer-addr", peers]);
    command.arg("--data-dir").arg(directory).args(STEADY).stdout(Stdio::null());
    Ends(command.spawn().unwrap())
}

/// Whoever lives at these peer addresses, once all of them vote.
fn voters_at(to: &str, peers: &[&str]) -> Vec<u64> {
    wait("they vote", || {
        let members = report(to, LONG).ok()?.members;
        let id = |peers: &&str| {
            members.iter().find(|member| member.voter && member.address == **peers).map(|member| member.id)
        };
        peers.iter().map(id).collect()
    })
}

/// Two ask at once, by one command line each, and the same one serves their later starts. Nobody gets in, and nobody changes
/// who takes part, without the token.
#[test]
fn nodes_without_an_id_are_told_one_each_and_nobody_gets_in_without_the_token() {
    const TOKEN: [&str; 2] = ["--join-token", "open sesame"];
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (_first, first, first_peers) = serving(&at("first"), &[&["--id", "1"][..], &TOKEN].concat());
    let init = |words: &[&str]| {
        let list = format!("1={first_peers}");
        wait("the first node answers", || report(&first, LONG).ok());
        Command::new(CORACLE).args(["members", "init", "--to", &first, &list]).args(words).output().unwrap()
    };
    let refused = init(&[]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("give it, by --join-token"), "{refused:?}");
    said(&init(&TOKEN));

    let joins = [&["--join", first.as_str()][..], &TOKEN].concat();
    let (second, second_clients, second_peers) = serving(&at("second"), &joins);
    let (third, _, third_peers) = serving(&at("third"), &joins);
    let both = [second_peers.as_str(), third_peers.as_str()];
    let ids = voters_at(&first, &both);
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [2, 3]);

    // Killed, and started again by the same words: the same node.
    drop(second);
    let _second = serving_at(&at("second"), &joins, &second_clients, &second_peers);
    wait("it is who it was", || {
        let report = report(&second_clients, LONG).ok()?;
        (report.id == ids[0] && report.leader.is_some()).then_some(())
    });

    // A stranger has another token, or none.
    for words in [&[][..], &["--join-token", "sesame"][..]] {
        let refused = members(&first, &[&["remove", "3"][..], words].concat());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("NOAUTH"), "{refused:?}");
    }
    // Its disk is lost, and it comes back where it was, without a name: it takes its old place.
    drop(third);
    std::fs::remove_dir_all(at("third")).unwrap();
    let before = report(&first, LONG).unwrap().members;
    let disk = |of: &[coracle_server::report::ReportedMember], id: u64| {
        of.iter().find(|member| member.id == id).map(|member| member.incarnation.clone())
    };
    let third_clients = address();
    let _third = serving_at(&at("third"), &joins, &third_clients, &third_peers);
    wait("the new disk votes under the old id", || {
        let members = report(&first, LONG).ok()?.members;
        let votes = members.iter().any(|member| member.id == ids[1] && member.voter);
        (votes && disk(&members, ids[1]) != disk(&before, ids[1]) && members.len() == 3).then_some(())
    });
}

/// Whoever is told to leads, at once and by any node's word; asked for again it is done already; and every write is there.
#[test]
fn leadership_goes_to_whom_it_is_given_to_by_command() {
    let (cluster, _directory) = formed(3, STEADY);
    let all = cluster.client_addresses().join(",");
    for round in 0..4 {
        let (leader, _) = cluster.leader().unwrap();
        let next = 1 + leader % 3;
        support::set(&mut cluster.node(leader).client().unwrap(), &format!("key-{round}"), "value");
        let words = ["transfer", "--to-node", &next.to_string()];
        let told = said(&members(&all, &words));
        assert!(told.contains(&format!("node {next}")), "{told}");
        assert_eq!(cluster.leader().unwrap().0, next);
        assert_eq!(said(&members(&all, &words)), told);
    }
    let nobody = members(&all, &["transfer", "--to-node", "9"]);
    assert!(!nobody.status.success(), "{nobody:?}");
    for node in 1..=3 {
        let mut client = cluster.node(node).client().unwrap();
        for round in 0..4 {
            assert_eq!(ask(&mut client, &format!("GET key-{round}")), Value::Bulk(b"value".to_vec()));
        }
    }
}

/// A node of a cluster that forms by itself. Its command line is the same at each start, but for its peer address.
struct Member {
    id: u64,
    child: Option<Ends>,
    clients: String,
    peers: String,
    directory: std::path::PathBuf,
}

impl Member {
    fn start(&mut self, join: &str) {
        // The election timeouts are those that an operator has: whoever has died is to be replaced.
        let child = Command::new(CORACLE)
            .args([
                "serve",
                "--id",
                &self.id.to_string(),
                "--join",
                join,
                "--expect",
                "3",
                "--timeout",
                "60m",
            ])
            .args(["--client-addr", &self.clients, "--peer-addr", &self.peers])
            .arg("--data-dir")
            .arg(&self.directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(Ends(child));
    }

    /// Kills it, and starts it at another peer address.
    fn move_on(&mut self, join: &str) {
        self.child = None;
        self.peers = format!("127.0.0.1:{}", free_port().unwrap());
        self.start(join);
    }
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

fn set(to: &str, key: &str) {
    wait("the write is done", || {
        let mut client = coracle_server::client::Client::connect(to, LONG).ok()?;
        match client.ask(&[b"SET", key.as_bytes(), b"1"]) {
            Ok(Value::Simple(_)) => Some(()),
            _ => None,
        }
    });
}

/// Nobody calls `members init`; then a wiped disk is led back in, and two move before the third dies.
#[test]
fn three_form_a_cluster_by_themselves_and_come_back_wiped_and_moved_by_the_same_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut nodes: Vec<Member> = (1..=3)
        .map(|id| {
            let place = directory.path().join(id.to_string());
            Member { id, child: None, clients: address(), peers: address(), directory: place }
        })
        .collect();
    let join = nodes.iter().map(|member| member.clients.clone()).collect::<Vec<_>>().join(",");
    for at in [2, 0, 1] {
        nodes[at].start(&join);
    }
    let first = nodes[0].clients.clone();
    set(&first, "formed");
    let incarnation = |to: &str, id: u64| {
        let report = report(to, LONG).ok()?;
        let member = report.members.into_iter().find(|member| member.id == id && member.voter)?;
        Some(member.incarnation)
    };
    let old = wait("node 3 votes", || incarnation(&first, 3));
    nodes[2].child = None;
    std::fs::remove_dir_all(&nodes[2].directory).unwrap();
    nodes[2].start(&join);
    wait("the wiped node votes on its new disk", || incarnation(&first, 3).filter(|new| *new != old));
    wait("it knows that", || incarnation(&nodes[2].clients, 3).filter(|new| *new != old));
    set(&first, "wiped");
    // Both at once, so that neither finds the other where it was.
    let [one, two, three] = &mut nodes[..] else { unreachable!() };
    (one.child, two.child) = (None, None);
    one.move_on(&join);
    two.move_on(&join);
    set(&one.clients, "moved");
    three.child = None;
    set(&two.clients, "without the third");
    // By hand it is done already, and done again.
    let to = format!("{},{}", one.clients, two.clients);
    let done = said(&members_move(&to, "1", &one.peers));
    assert_eq!(done, "done: voters 1 2 3");
    let listed = said(&members_of(&one.clients));
    assert!(listed.contains(&format!("1={}", one.peers)), "{listed}");
    three.start(&join);
    wait("the third is back", || report(&three.clients, LONG).ok()?.leader);
    assert!(!report(&one.clients, LONG).unwrap().moved);
}

fn members_move(to: &str, id: &str, address: &str) -> Output {
    members(to, &["move", id, "--address", address])
}

fn members_of(to: &str) -> Output {
    members(to, &["list"])
}
