//! `serve --join`: how a node finds its cluster, whichever start this is of it. The same command line serves the first
//! one and each restart.
//!
//! The addresses are those of clients. Every node that answers there says who it is, what it knows of the cluster, and
//! where its peers reach it. From that:
//!
//! - A node that *has* a cluster looks for the members that it meets where they say that they are: so a node that was
//!   moved finds others that were moved too. Once it knows a leader there is nothing left to do.
//! - A blank node that meets a cluster asks it in: it learns, and then votes. That it asked is noted in its directory,
//!   so that a restart in between goes on; what an operator demoted is left alone. If the cluster knows its id on another
//!   disk, its disk was wiped: the old one is removed first, and nothing that it has forgotten is counted again.
//! - With `--expect`, nodes that are all blank form a cluster: the one of the lowest id founds it, once exactly as many as
//!   are expected have answered. That no two are founded is the founding's own work.

use crate::cluster;
use crate::kv::Machine;
use crate::members::{CHANGE_LIMIT, ask};
use crate::report::{Report, ReportedMember};
use crate::secret::Secret;
use coracle::{Node, Status, Storage, in_full};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use tokio::runtime::Handle;

/// The pause between two looks around.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// How long another node may take to say who it is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// After how many looks in vain the log says again why.
pub(crate) const SAID: u32 = 20;

/// The file that says that this node asked to be taken in, and does not vote yet.
pub(crate) const MARKER: &str = "joining";

/// Notes in a directory that its node asked to be taken in, and does not vote yet.
pub(crate) fn mark(dir: &Path, text: &str) -> io::Result<()> {
    let new = dir.join(format!("{MARKER}.tmp"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, dir.join(MARKER))?;
    File::open(dir)?.sync_all()
}

/// Whom to join, and how.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Join {
    /// Client addresses of nodes; none: the node waits until somebody tells it its cluster.
    pub to: Vec<String>,
    /// Whether the addresses are those of all nodes of a cluster that is still to be formed.
    pub expect: bool,
    /// Whether a blank disk may take the place of another one of the same id, wherever that was.
    pub rejoin: bool,
    /// What all nodes of the cluster have in common, and whoever changes who takes part must know, if anything.
    pub token: Option<Secret>,
}

/// Goes on, on a thread of its own, until the node has its place and knows a leader.
pub(crate) fn start<M: Machine>(join: Join, node: Node<M>) {
    let runtime = Handle::current();
    let dir = match &node.config().storage {
        Storage::Dir(dir) | Storage::Engine { dir, .. } => Some(dir.clone()),
        Storage::Memory => None,
    };
    let joiner = Joiner { join, node, runtime, dir };
    std::thread::spawn(move || joiner.run());
}

/// What a look around came to.
#[derive(PartialEq, Eq, Debug)]
enum Next {
    /// Nothing is left to do.
    Over,
    /// Wait, for this reason.
    Wait(String),
}

/// What a blank node asks of a cluster.
#[derive(PartialEq, Eq, Debug)]
enum Plea {
    /// To be added, and to vote once it has caught up.
    Add,
    /// It is a member already, and only votes not.
    Promote,
    /// Its disk is another one than the cluster knows: to take its place.
    Replace,
}

struct Joiner<M: Machine> {
    join: Join,
    node: Node<M>,
    runtime: Handle,
    /// Where it is noted that it asked.
    dir: Option<PathBuf>,
}

impl<M: Machine> Joiner<M> {
    fn run(self) {
        let mut vain: u32 = 0;
        let mut said = String::new();
        loop {
            let Ok(status) = self.runtime.block_on(self.node.status()) else { return };
            match self.look(&status) {
                Ok(Next::Over) => return,
                Ok(Next::Wait(why)) | Err(why) => {
                    if why != said || vain.is_multiple_of(SAID) {
                        tracing::info!(node = status.raft.me.id.0, "joining: {why}");
                        said = why;
                    }
                }
            }
            vain += 1;
            sleep(PAUSE);
        }
    }

    fn look(&self, status: &Status) -> Result<Next, String> {
        let own = status.raft.me.id.0;
        let mut silent = Vec::new();
        let mut ask = |to: &String| {
            cluster::report(to, PATIENCE).map_err(|error| silent.push(format!("{to}: {error}"))).ok()
        };
        let all: Vec<Report> = self.join.to.iter().filter_map(&mut ask).collect();
        let others: Vec<&Report> = all.iter().filter(|report| report.id != own).collect();
        if status.cluster.is_some() {
            return self.find_members(status, &others);
        }
        if others.iter().any(|report| !report.members.is_empty()) {
            return self.ask_in(status, &others);
        }
        if !self.join.expect {
            let why = if silent.is_empty() { String::new() } else { format!(" ({})", silent.join("; ")) };
            return Ok(Next::Wait(format!("none of {} has a cluster{why}", self.join.to.join(", "))));
        }
        match founders(&all, self.join.to.len(), own)? {
            None => Ok(Next::Wait("the node of the lowest id founds the cluster".to_owned())),
            Some(list) => {
                let founding = self.node.set_configuration(list);
                self.runtime.block_on(founding).map_err(|error| in_full(&error))?;
                Ok(Next::Wait("a leader is to be elected".to_owned()))
            }
        }
    }

    /// A node of a cluster: whom it meets it looks for where that one is.
    fn find_members(&self, status: &Status, others: &[&Report]) -> Result<Next, String> {
        for report in others.iter().filter(|report| !report.address.is_empty()) {
            if let Err(error) = self.runtime.block_on(self.node.meet(&report.address)) {
                tracing::debug!("nobody was met at {}: {error}", report.address);
            }
        }
        if self.asked() {
            return self.ask_in(status, others);
        }
        let (id, membership) = (status.raft.membership_id, &status.raft.membership);
        if !membership.contains(status.raft.me) && id.index <= status.raft.commit {
            tracing::warn!(
                "this node was removed from its cluster: stop it, or empty its directory so that it joins as a new one"
            );
            return Ok(Next::Over);
        }
        match status.raft.leader {
            Some(_) => Ok(Next::Over),
            None => Ok(Next::Wait("no leader is known yet".to_owned())),
        }
    }

    /// Whether this node has asked to be taken in, in this start or an earlier one, and does not vote yet.
    fn asked(&self) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.join(MARKER).exists())
    }

    fn ask_in(&self, status: &Status, others: &[&Report]) -> Result<Next, String> {
        let (own, address) = (status.raft.me.id.0, &status.address);
        if address.is_empty() {
            return Err(
                "this node listens on every address of its host, and must be told by --advertise where \
                        the others are to dial it"
                    .to_owned(),
            );
        }
        let incarnation = format!("{:016x}", status.raft.me.incarnation.0);
        let plea = plea(others, own, &incarnation, address, self.join.rejoin)?;
        if let Some(dir) = self.dir.as_ref().filter(|_| !self.asked()) {
            mark(dir, "").map_err(|error| format!("cannot write {MARKER} in {}: {error}", dir.display()))?;
        }
        let member = format!("{own}={address}");
        let own = own.to_string();
        let ask = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            ask(&self.join.to, &words, CHANGE_LIMIT)
        };
        let done = match plea {
            Plea::Add => {
                ask(&["ADD", &member])?;
                ask(&["PROMOTE", &own])?
            }
            Plea::Promote => ask(&["PROMOTE", &own])?,
            Plea::Replace => {
                tracing::warn!(
                    "the cluster knows node {own} on another disk: that one is removed, and this one learns, and then votes"
                );
                ask(&["REPLACE", &own, &member])?
            }
        };
        if let Some(dir) = &self.dir {
            fs::remove_file(dir.join(MARKER))
                .map_err(|error| format!("cannot remove {MARKER} in {}: {error}", dir.display()))?;
        }
        tracing::info!("joined the cluster: {done}");
        Ok(Next::Over)
    }
}

/// What to ask of the cluster that these nodes know.
fn plea(
    others: &[&Report],
    own: u64,
    incarnation: &str,
    address: &str,
    rejoin: bool,
) -> Result<Plea, String> {
    // The newest word is the leader's.
    let newest = others.iter().filter(|report| !report.members.is_empty()).max_by_key(|report| report.commit);
    let known = newest.and_then(|report| report.members.iter().find(|member| member.id == own));
    match known {
        None => Ok(Plea::Add),
        Some(member) if member.incarnation == incarnation => Ok(Plea::Promote),
        Some(ReportedMember { reachable: true, .. }) => Err(format!(
            "the cluster knows node {own} on another disk, which answers: two nodes have the same id. Give this one another"
        )),
        Some(member) if member.address != address && !rejoin => Err(format!(
            "the cluster knows node {own} on another disk, at {}, and this one is at {address}. If that disk is lost, start \
             with --rejoin; otherwise give this node another id",
            member.address
        )),
        Some(_) => Ok(Plea::Replace),
    }
}

/// Whom to found a cluster with, if that is this node's part.
fn founders(all: &[Report], expected: usize, own: u64) -> Result<Option<BTreeMap<u64, String>>, String> {
    if all.len() < expected {
        return Err(format!("{} of {expected} nodes answer", all.len()));
    }
    let list: BTreeMap<u64, String> = all.iter().map(|report| (report.id, report.address.clone())).collect();
    if list.len() < expected {
        return Err("two of the nodes have the same id, or one is named twice".to_owned());
    }
    if !list.contains_key(&own) {
        return Err("this node is not among those of --join".to_owned());
    }
    if let Some((id, _)) = list.iter().find(|(_, address)| address.is_empty()) {
        return Err(format!("node {id} must be told by --advertise where the others are to dial it"));
    }
    Ok((list.keys().next() == Some(&own)).then_some(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node 1, which knows node 3 like that.
    fn report(id: u64, known: Option<(&str, &str, bool)>) -> Report {
        let mut report: Report = serde_json::from_str(
            r#"{"id":1,"role":"leader","term":1,"leader":1,"commit":5,"applied":5,"last_index":5,"members":[],"digest":""}"#,
        )
        .unwrap();
        (report.id, report.address) = (id, format!("host-{id}:1"));
        let member = |id, incarnation: &str, address: &str, connected| ReportedMember {
            id,
            address: address.to_owned(),
            voter: true,
            reachable: connected,
            encrypted: false,
            matched: None,
            incarnation: incarnation.to_owned(),
        };
        if let Some((incarnation, address, connected)) = known {
            report.members =
                vec![member(1, "a", "host-1:1", true), member(3, incarnation, address, connected)];
        }
        report
    }

    #[test]
    fn rs_1_a_wiped_disk_is_led_back_in_and_a_second_node_of_its_id_is_not() {
        let asks = |known, rejoin| plea(&[&report(1, known)], 3, "c", "host-3:1", rejoin);
        assert_eq!(asks(Some(("c", "host-3:1", true)), false), Ok(Plea::Promote));
        assert_eq!(asks(Some(("b", "host-3:1", false)), false), Ok(Plea::Replace));
        let both = asks(Some(("b", "host-3:1", true)), true).unwrap_err();
        assert!(both.contains("two nodes have the same id"), "{both}");
        let elsewhere = asks(Some(("b", "host-9:1", false)), false).unwrap_err();
        assert!(elsewhere.contains("start with --rejoin"), "{elsewhere}");
        assert_eq!(asks(Some(("b", "host-9:1", false)), true), Ok(Plea::Replace));
        assert_eq!(plea(&[&report(1, Some(("b", "x:1", true)))], 4, "d", "host-4:1", false), Ok(Plea::Add));
    }

    #[test]
    fn the_lowest_of_exactly_as_many_as_are_expected_founds() {
        let all = |ids: &[u64]| ids.iter().map(|id| report(*id, None)).collect::<Vec<_>>();
        let list = founders(&all(&[2, 1, 3]), 3, 1).unwrap().unwrap();
        assert_eq!(list.into_iter().collect::<Vec<_>>()[2], (3, "host-3:1".to_owned()));
        assert_eq!(founders(&all(&[2, 1, 3]), 3, 2), Ok(None));
        assert!(founders(&all(&[1, 2]), 3, 1).unwrap_err().contains("2 of 3 nodes answer"));
        assert!(founders(&all(&[1, 2, 2]), 3, 1).unwrap_err().contains("the same id"));
        assert!(founders(&all(&[1, 2, 3]), 3, 4).unwrap_err().contains("not among those"));
    }
}
