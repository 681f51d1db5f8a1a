//! How a node without `--id` gets one: from the leader of the cluster that it joins, once that has committed it.
//!
//! It draws the name of its disk at random and writes it down before it asks, so that whoever asks again, after a crash in
//! between, is told the same id. The node is made only then. From there on it joins as any other ([`joining`](crate::joining)).

use crate::cluster;
use crate::joining::{Join, MARKER, PATIENCE, PAUSE, SAID, mark};
use crate::members::{CHANGE_LIMIT, ask};
use coracle::raft::{Incarnation, NodeId};
use coracle::storage::disk::ReadOnlyDir;
use coracle::storage::identity::{self, IDENTITY};
use coracle::{Config, Storage, in_full};
use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread::sleep;
use tokio::sync::oneshot;

/// Who a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Name {
    pub(crate) id: NodeId,
    /// What its disk is called, if it is blank and was admitted by that.
    pub(crate) incarnation: Option<Incarnation>,
}

/// Finds out, on a thread of its own, who the node with these settings is: by its directory, or else by what the cluster
/// says, which it asks until it is told, or the receiver is dropped.
pub(crate) fn start(config: &Config, join: &Join) -> Result<oneshot::Receiver<Result<Name, String>>, String> {
    let (Storage::Dir(dir) | Storage::Engine { dir, .. }) = &config.storage else {
        return Err(
            "a node that keeps nothing on disk would be another one at each start: give it an --id".into()
        );
    };
    let address = if config.advertised.is_empty() { &config.peer_addr } else { &config.advertised };
    let (dir, address, join) = (dir.clone(), address.clone(), join.clone());
    let nowhere = |it: SocketAddr| it.ip().is_unspecified() || it.port() == 0;
    if address.parse().is_ok_and(nowhere) {
        return Err(format!(
            "others cannot dial {address}: say by --advertise HOST:PORT where they are to dial this node, or give it an --id"
        ));
    }
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let name = match known(&dir) {
            Ok(None) => admitted(&dir, &address, &join, || tell.is_closed()).transpose(),
            known => known.transpose(),
        };
        if let Some(name) = name {
            // Nobody may want it any more.
            drop(tell.send(name));
        }
    });
    Ok(told)
}

/// Who a directory belongs to, if it belongs to a node.
fn known(dir: &Path) -> Result<Option<Name>, String> {
    if !dir.join(IDENTITY).exists() {
        return Ok(None);
    }
    let (identity, _) =
        ReadOnlyDir::open(dir).and_then(|disk| identity::inspect(&disk)).map_err(|error| in_full(&error))?;
    Ok(Some(Name { id: identity.node, incarnation: None }))
}

/// Asks until the cluster has committed an id, or nobody wants it any more.
fn admitted(
    dir: &Path,
    address: &str,
    join: &Join,
    unwanted: impl Fn() -> bool,
) -> Result<Option<Name>, String> {
    let cannot = |error: io::Error| format!("cannot note in {} who is to join: {error}", dir.display());
    let incarnation = disk_name(dir).map_err(cannot)?;
    let mut vain: u32 = 0;
    while !unwanted() {
        match look(incarnation, address, join) {
            Ok(name) => return Ok(Some(name)),
            Err(why) if vain.is_multiple_of(SAID) => {
                tracing::warn!("this node has no id yet, and goes on asking for one: {why}");
            }
            Err(_) => {}
        }
        vain += 1;
        sleep(PAUSE);
    }
    Ok(None)
}

/// One attempt.
fn look(incarnation: Incarnation, address: &str, join: &Join) -> Result<Name, String> {
    let reports: Vec<_> = join.to.iter().filter_map(|to| cluster::report(to, PATIENCE).ok()).collect();
    let newest =
        reports.iter().filter(|report| !report.members.is_empty()).max_by_key(|report| report.commit);
    let Some(newest) = newest else {
        return Err(format!("no node of a cluster answers at {}", join.to.join(", ")));
    };
    let disk = format!("{:016x}", incarnation.0);
    let before = newest.members.iter().find(|member| member.address == address && member.incarnation != disk);
    match before {
        // Its disk was wiped, and it comes back where it was.
        Some(member) if !member.reachable => Ok(Name { id: NodeId(member.id), incarnation: None }),
        Some(member) => Err(format!("node {} answers at {address} already", member.id)),
        None => {
            let words = ["ADMIT".to_owned(), disk, address.to_owned()];
            let said = ask(&join.to, &words, CHANGE_LIMIT)?;
            let id =
                said.parse::<u64>().map_err(|_| format!("the leader answered '{said}', which is no id"))?;
            Ok(Name { id: NodeId(id), incarnation: Some(incarnation) })
        }
    }
}

/// The name of the disk that is to join: as it was written down, or a new one that is written down now.
fn disk_name(dir: &Path) -> io::Result<Incarnation> {
    let path = dir.join(MARKER);
    match fs::read_to_string(&path) {
        Ok(text) => {
            if let Ok(known) = u64::from_str_radix(text.trim(), 16) {
                return Ok(Incarnation(known));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let drawn = cluster::random();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    mark(dir, &format!("{drawn:016x}\n"))?;
    Ok(Incarnation(drawn))
}
