//! Other stores than the default: the demo on each that this program was built with, and directories that
//! stay with the store that made them.

mod support;

use coracle_server::cluster::server_on;
use coracle_server::demo::Demo;
use coracle_server::store::Store;
use std::process::{Command, Stdio};
use support::*;

/// The stores on disk beside the default that this program was built with.
fn engines() -> Vec<Store> {
    let mut engines = vec![];
    if cfg!(feature = "lmdb") {
        engines.push(Store::Lmdb);
    }
    if cfg!(feature = "rocksdb") {
        engines.push(Store::Rocksdb);
    }
    engines
}

#[test]
fn the_demo_passes_on_each_store() {
    for store in engines() {
        let programs = vec![server_on(CORACLE, store); 3];
        let demo =
            Demo { programs, while_dead: Box::new(|_| {}), keep: false, interrupt: Default::default() };
        let mut story = Vec::new();
        demo.run(&mut story).unwrap_or_else(|problem| panic!("{store:?}: {problem}"));
        assert!(String::from_utf8(story).unwrap().contains("Everything held"), "{store:?}");
    }
}

/// Starts a server that is expected to refuse; returns what it says.
fn refused(store: &str, data_dir: &std::path::Path) -> String {
    let mut command = Command::new(CORACLE);
    command.args(["serve", "--id", "1", "--peer-addr", "127.0.0.1:0", "--client-addr", "127.0.0.1:0"]);
    command.args(["--store", store, "--data-dir"]).arg(data_dir).arg("--parent-pipe");
    // Should it start after all, the end of its input stops it.
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{store} starts");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_directory_stays_with_the_store_that_made_it() {
    let all = [vec![Store::Wal], engines()].concat();
    for made_by in &all {
        let directory = tempfile::tempdir().unwrap();
        let place = coracle_server::cluster::Place {
            id: 1,
            directory: directory.path().join("node"),
            peer_addr: "127.0.0.1:0".into(),
            client_addr: "127.0.0.1:0".into(),
        };
        let start = || server_on(CORACLE, *made_by)(&place).stdin(Stdio::null()).output().unwrap().status;
        assert!(start().success(), "{made_by:?}");
        for other in all.iter().filter(|other| *other != made_by) {
            let said = refused(other.name(), &place.directory);
            let (kept, wanted) = (made_by.name(), other.name());
            let want = format!("is kept by the store {kept}, not by {wanted}; start the node with {kept}");
            assert!(said.contains(&want), "{said}");
        }
        assert!(start().success(), "a refusal changes nothing");
        // Without its identity the directory is nobody's, and not a new one.
        std::fs::remove_file(place.directory.join("identity")).unwrap();
        for store in &all {
            let said = refused(store.name(), &place.directory);
            assert!(said.contains("it is missing, but there is a log"), "{made_by:?}, {store:?}: {said}");
        }
    }
}

#[test]
fn a_store_that_the_program_was_built_without_says_how_to_build_it() {
    let directory = tempfile::tempdir().unwrap();
    for (store, built) in [("lmdb", cfg!(feature = "lmdb")), ("rocksdb", cfg!(feature = "rocksdb"))] {
        if !built {
            let said = refused(store, directory.path());
            assert!(said.contains(&format!("--features {store}")), "{said}");
        }
    }
    let output = Command::new(CORACLE).args(["demo", "--store", "memory"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("choose a store on disk"));
}
