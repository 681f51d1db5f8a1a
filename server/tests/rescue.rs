//! `coracle backup`, `restore` and `recover`, as an operator calls them.

mod support;

use coracle_server::client::{Client, Value};
use coracle_server::cluster::{Cluster, Interrupt, Program, free_port};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::log::{files, said, verify};
use support::*;
use tempfile::TempDir;

/// Runs the program to its end, without a terminal.
fn coracle(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(CORACLE);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn get(client: &mut Client, key: &str) -> String {
    match ask(client, &format!("GET {key}")) {
        Value::Bulk(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{key}: {other:?}"),
    }
}

/// A server on a directory that was rebuilt, at the address that it was rebuilt for.
fn serve(home: &Path, dir: &Path, id: u64, address: &str) -> Cluster {
    serve_on("wal", home, dir, id, address)
}

fn serve_on(store: &'static str, home: &Path, dir: &Path, id: u64, address: &str) -> Cluster {
    let (dir, address) = (dir.to_owned(), address.to_owned());
    let program: Program = Arc::new(move |place| {
        let mut command = Command::new(CORACLE);
        command.args(["serve", "--parent-pipe", "--id", &id.to_string(), "--peer-addr", &address]);
        command
            .args(["--store", store])
            .arg("--data-dir")
            .arg(&dir)
            .args(["--client-addr", &place.client_addr]);
        command
    });
    Cluster::start(&home.join("served"), vec![program], Interrupt::default()).unwrap()
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

fn to(cluster: &Cluster, id: u64) -> &str {
    &cluster.node(id).place.client_addr
}

/// Waits until a lone node answers, and gives its client.
fn lone(cluster: &Cluster) -> Client {
    let mut client = cluster.node(1).client().unwrap();
    wait("a leader of its own", || match ask(&mut client, "GET none") {
        Value::Null => Some(()),
        _ => None,
    });
    client
}

fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("served")).unwrap();
    home
}

/// A backup under writes, from any node: all that was acknowledged before is in it, and a new cluster of one serves it.
#[test]
fn a_cluster_under_writes_is_backed_up_and_restored() {
    let (cluster, _directory) = formed(3, &[]);
    let mut client = cluster.node(1).client().unwrap();
    let large = "x".repeat(700_000);
    set(&mut client, "large", &large);
    let (stop, counted) = (Arc::new(AtomicBool::new(false)), cluster.node(2).client().unwrap());
    let writer = {
        let (stop, mut client) = (stop.clone(), counted);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                ask(&mut client, "INCR count");
            }
        })
    };
    let home = home();
    for id in 1..=3 {
        let count = |client: &mut Client| match ask(client, "INCR count") {
            Value::Number(number) => number,
            other => panic!("{other:?}"),
        };
        let file = home.path().join(format!("{id}.backup"));
        let before = count(&mut client);
        let (code, told) = said(&coracle(&["backup", "--to", to(&cluster, id), text(&file)]));
        let after = count(&mut client);
        assert!(code == 0 && told.contains("written and verified"), "{told}");
        let (code, again) = said(&coracle(&["backup", "verify", text(&file)]));
        assert_eq!((code, again.replace("intact", "written and verified")), (0, told.clone()));
        for place in cluster.ids().into_iter().map(|id| cluster.node(id).place.clone()) {
            assert!(told.contains(&format!("{}={}", place.id, place.peer_addr)), "{told}");
        }
        let (dir, address) = (home.path().join(format!("new-{id}")), address());
        let restore =
            ["restore", text(&file), "--data-dir", text(&dir), "--id", "4", "--peer-addr", &address];
        let (code, told) = said(&coracle(&restore));
        assert!(code == 0 && told.contains("node 4 in"), "{told}");
        let (code, refused) = said(&coracle(&restore));
        assert!(code == 1 && refused.contains("is not empty"), "{refused}");
        let served = serve(home.path(), &dir, 4, &address);
        let mut restored = lone(&served);
        assert_eq!(get(&mut restored, "large"), large);
        let counted: i64 = get(&mut restored, "count").parse().unwrap();
        assert!((before..=after).contains(&counted), "{before} {counted} {after}");
        assert_eq!(ask(&mut restored, "SET more 1"), Value::Simple("OK".into()));
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    cluster.agree().unwrap();
}

/// What came in part goes on where it was, on the same node; from another one it begins anew.
#[test]
fn a_backup_that_broke_off_goes_on() {
    let (cluster, _directory) = formed(3, STEADY);
    let mut client = cluster.node(1).client().unwrap();
    for key in 0..4 {
        set(&mut client, &format!("k{key}"), &"y".repeat(300_000));
    }
    let home = home();
    let file = home.path().join("first");
    assert!(coracle(&["backup", "--to", to(&cluster, 1), text(&file)]).status.success());
    let whole = fs::read(&file).unwrap();
    for (name, half, node) in [("same", 500_000, 1), ("other", 500_000, 2), ("little", 50, 1)] {
        let file = home.path().join(name);
        // If it began anew, the part that is not right would be written again.
        let mut part = whole[..half].to_vec();
        part[half - 1] ^= 1;
        fs::write(home.path().join(format!("{name}.partial")), part).unwrap();
        let run = ["backup", "--to", to(&cluster, node), text(&file)];
        let (code, told) = said(&coracle(&run));
        if name == "same" {
            assert!(code == 1 && told.contains("damaged"), "it went on from there: {told}");
            fs::write(home.path().join("same.partial"), &whole[..half]).unwrap();
            assert_eq!(said(&coracle(&run)).0, 0);
            assert_eq!(fs::read(&file).unwrap(), whole);
        } else {
            assert_eq!(code, 0, "{told}");
        }
        assert!(!home.path().join(format!("{name}.partial")).exists());
    }
    let (code, told) = said(&coracle(&["backup", "--to", to(&cluster, 1), text(&file)]));
    assert!(code == 1 && told.contains("no backup is written over"), "{told}");
    assert_eq!(fs::read(&file).unwrap(), whole);
}

#[test]
fn a_server_gives_out_a_few_backups_at_a_time_in_pieces() {
    let (cluster, _directory) = formed(1, STEADY);
    let mut client = cluster.node(1).client().unwrap();
    set(&mut client, "k", &"z".repeat(900_000));
    let refused = |client: &mut Client, words: &str| error(ask(client, words));
    assert!(refused(&mut client, "CORACLE BACKUP READ 0").starts_with("ERR begin a backup first"));
    assert!(refused(&mut client, "CORACLE BACKUP SAME 1 1 1").starts_with("GONE "));
    for wrong in
        ["CORACLE BACKUP READ", "CORACLE BACKUP READ x", "CORACLE BACKUP SAME 1", "CORACLE BACKUP NONE 1"]
    {
        assert!(refused(&mut client, wrong).starts_with("ERR "), "{wrong}");
    }
    let begin = |client: &mut Client| {
        wait("a backup", || match ask(client, "CORACLE BACKUP") {
            Value::Null => None,
            other => Some(other),
        })
    };
    let mut clients: Vec<Client> = (0..4).map(|_| cluster.node(1).client().unwrap()).collect();
    for client in &mut clients {
        assert!(matches!(begin(client), Value::Bulk(_)));
        // Another on the same connection takes the place of the one before.
        assert!(matches!(begin(client), Value::Bulk(_)));
    }
    assert!(error(begin(&mut client)).starts_with("BUSY "));
    let mut offset = 0;
    loop {
        let Value::Bulk(piece) = ask(&mut clients[0], &format!("CORACLE BACKUP READ {offset}")) else {
            panic!()
        };
        assert!(piece.len() <= 256 << 10);
        offset += piece.len();
        if piece.is_empty() {
            break;
        }
    }
    assert!(offset > 900_000);
    drop(clients);
    wait("a free place", || matches!(begin(&mut client), Value::Bulk(_)).then_some(()));
}

/// Two of three nodes are lost. The third becomes a cluster of its own, once that is wanted.
#[test]
fn a_survivor_is_recovered_once_that_is_wanted() {
    let (mut cluster, directory) = formed(3, &[]);
    let mut client = cluster.node(1).client().unwrap();
    for key in 0..100 {
        set(&mut client, &format!("k{key}"), &key.to_string());
    }
    cluster.agree().unwrap();
    let place = cluster.node(1).place.clone();
    let dir = place.directory.clone();
    let run = ["recover", "--data-dir", text(&dir)];
    let (code, told) = said(&coracle(&run));
    assert!(code == 1 && told.contains("in use"), "{told}");
    cluster.kill_all();
    let (code, told) = said(&coracle(&run));
    assert!(code == 1 && told.contains("nothing was done: there is no terminal"), "{told}");
    let other = &cluster.node(2).place;
    assert!(told.contains(&format!("other members: {}={}", other.id, other.peer_addr)), "{told}");
    assert!(!dir.with_file_name("node1.before-recovery").exists());
    let (code, told) = said(&coracle(&[&run[..], &["--yes"]].concat()));
    assert!(code == 0 && told.contains("node 1 in") && told.contains(&place.peer_addr), "{told}");
    assert!(told.contains("node1.before-recovery"), "{told}");
    assert_eq!(verify(&dir).0, 0);
    assert_eq!(verify(&dir.with_file_name("node1.before-recovery")).0, 0);

    // The same command line as before starts it, and the old nodes start too.
    for id in 1..=3 {
        cluster.restart(id).unwrap();
    }
    let mut client = lone(&cluster);
    for key in 0..100 {
        assert_eq!(get(&mut client, &format!("k{key}")), key.to_string());
    }
    assert_eq!(ask(&mut client, "SET k0 new"), Value::Simple("OK".into()));
    let mut old = cluster.node(2).client().unwrap();
    wait("the old nodes have a leader of their own", || {
        matches!(ask(&mut old, "SET k1 old"), Value::Simple(_)).then_some(())
    });
    assert_eq!((get(&mut old, "k0"), get(&mut client, "k1")), ("0".to_owned(), "1".to_owned()));
    assert_eq!(cluster.node(1).report().unwrap().members.len(), 1);
    drop(directory);
}

/// A backup is of no store: it can be restored into any, and whatever kept the log, a survivor is recovered with it.
#[test]
#[cfg(feature = "lmdb")]
fn another_store_is_restored_into_and_recovered() {
    let (cluster, _directory) = formed(1, STEADY);
    set(&mut cluster.node(1).client().unwrap(), "k", "v");
    let home = home();
    let (file, dir, address) = (home.path().join("b"), home.path().join("node"), address());
    assert!(coracle(&["backup", "--to", to(&cluster, 1), text(&file)]).status.success());
    let restore = ["restore", text(&file), "--data-dir", text(&dir), "--id", "2", "--peer-addr", &address];
    let (code, told) = said(&coracle(&[&restore[..], &["--store", "lmdb"]].concat()));
    assert!(code == 0 && told.contains("--store lmdb"), "{told}");
    let served = serve_on("lmdb", home.path(), &dir, 2, &address);
    set(&mut lone(&served), "l", "w");
    drop(served);
    let (code, told) = said(&coracle(&["recover", "--data-dir", text(&dir), "--yes"]));
    assert!(code == 0 && told.contains("--store lmdb"), "{told}");
    assert_eq!(verify(&dir).0, 0);
    let served = serve_on("lmdb", home.path(), &dir, 2, &address);
    let mut client = lone(&served);
    assert_eq!((get(&mut client, "k"), get(&mut client, "l")), ("v".to_owned(), "w".to_owned()));
}

#[test]
fn what_cannot_be_recovered_or_restored_is_told() {
    let home = tempfile::tempdir().unwrap();
    let none = home.path().join("none");
    for (words, told) in [
        (vec!["recover", "--data-dir", text(&none), "--yes"], "cannot read"),
        (vec!["backup", "verify", text(&none)], "cannot find"),
        (vec!["backup", "--to", "127.0.0.1:1", text(&none)], "does not answer"),
        (
            vec!["restore", text(&none), "--data-dir", text(&none), "--id", "1", "--peer-addr", "a:1"],
            "cannot find",
        ),
        (
            vec!["restore", text(&none), "--data-dir", text(&none), "--id", "1", "--peer-addr", "a:0"],
            "host:port",
        ),
        (vec!["restore", text(&none), "--data-dir", text(&none), "--id", "0", "--peer-addr", "a:1"], "id"),
    ] {
        let (code, said) = said(&coracle(&words));
        assert!(code == 1 && said.contains(told) && said.lines().count() == 1, "{words:?}: {said}");
        assert!(!none.exists(), "{words:?}");
    }
    let (code, told) = said(&coracle(&["backup", "x"]));
    assert!(code == 2 && told.contains("--to"), "{told}");
}

/// Runs it, and kills it after a time that grows until it gets through. Calls `look` after each kill.
fn killed_ever_later(words: &[&str], mut look: impl FnMut()) {
    let mut after = Duration::from_micros(500);
    loop {
        let mut child = command(words).spawn().unwrap();
        // No wait for anything: where the kill comes is the point.
        std::thread::sleep(after);
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        if ended.is_some() {
            assert!(output.status.success(), "{output:?}");
            return;
        }
        look();
        after = after.mul_f64(1.05);
        assert!(after < LONG, "it never gets through");
    }
}

/// `kill -9` at any moment of a restore leaves no directory in its place or the whole, and the next attempt gets through.
#[test]
fn a_restore_that_is_killed_leaves_nothing_or_the_whole() {
    let (cluster, _directory) = formed(1, STEADY);
    let mut client = cluster.node(1).client().unwrap();
    set(&mut client, "k", "v");
    let home = home();
    let (file, dir, address) = (home.path().join("b"), home.path().join("node"), address());
    assert!(coracle(&["backup", "--to", to(&cluster, 1), text(&file)]).status.success());
    let words = ["restore", text(&file), "--data-dir", text(&dir), "--id", "2", "--peer-addr", &address];
    let mut whole = 0;
    killed_ever_later(&words, || {
        if dir.exists() {
            assert_eq!(verify(&dir).0, 0);
            whole += 1;
            fs::remove_dir_all(&dir).unwrap();
        }
    });
    assert!(!home.path().join("node.restoring").exists());
    let served = serve(home.path(), &dir, 2, &address);
    assert_eq!(get(&mut lone(&served), "k"), "v");
    println!("{whole} attempts were killed after they were done");
}

/// `kill -9` at any moment of a recovery leaves the old directory or the new one, and the next attempt gets through.
#[test]
fn a_recovery_that_is_killed_leaves_the_old_or_the_new() {
    let (mut cluster, _directory) = formed(3, &[]);
    let mut client = cluster.node(1).client().unwrap();
    set(&mut client, "k", "v");
    cluster.agree().unwrap();
    let dir: PathBuf = cluster.node(1).place.directory.clone();
    cluster.kill_all();
    let (before, new) = (dir.with_file_name("node1.before-recovery"), dir.with_file_name("node1.recovering"));
    let words = ["recover", "--data-dir", text(&dir), "--yes"];
    let mut recovered = false;
    killed_ever_later(&words, || {
        recovered |= before.exists();
        if dir.exists() {
            assert_eq!(verify(&dir).0, 0);
        } else {
            assert_eq!((verify(&before).0, verify(&new).0), (0, 0), "the new one was whole before");
        }
    });
    assert!(before.exists() && !new.exists() && !files(&before).is_empty());
    cluster.restart(1).unwrap();
    assert_eq!(get(&mut lone(&cluster), "k"), "v");
    println!("an earlier attempt had got through: {recovered}");
}
