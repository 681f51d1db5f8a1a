//! What `coracle status` shows: a node as it sees itself, and at the leader how the others stand.

use crate::monitor::unready;
use coracle::raft::{self, PeerStatus, RoleName};
use coracle::{MemberStatus, Rebuilding, SnapshotStatus, SnapshotTransfer, Status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

/// The length of the core's tick, in milliseconds.
const TICK_MS: u64 = 10;

/// A node as it sees itself: what `CORACLE STATUS` answers, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The node's id.
    pub id: u64,
    /// leader, follower, candidate, learner or unconfigured.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// The node that it holds for the leader, if any.
    pub leader: Option<u64>,
    /// The newest index that it knows to be committed.
    pub commit: u64,
    /// The newest index that its machine has applied.
    pub applied: u64,
    /// The newest index of its log.
    pub last_index: u64,
    /// Its cluster.
    pub members: Vec<ReportedMember>,
    /// At the leader: how the other members stand.
    #[serde(default)]
    pub peers: Vec<ReportedPeer>,
    /// The digest of everything that it applied, at exactly `applied`: 32 hexadecimal digits. Two nodes
    /// that applied the same entries show the same.
    pub digest: String,
    /// The oldest index of its log.
    #[serde(default)]
    pub first_index: u64,
    /// Its newest snapshot, which stands for the log up to its index.
    #[serde(default)]
    pub snapshot: Option<ReportedSnapshot>,
    /// Whether another one is being taken, written and read back.
    #[serde(default)]
    pub taking_snapshot: bool,
    /// Snapshots that are sent to members which lack what is gone from the log.
    #[serde(default)]
    pub sending_snapshots: Vec<ReportedTransfer>,
    /// A snapshot that comes from the leader.
    #[serde(default)]
    pub receiving_snapshot: Option<ReportedTransfer>,
    /// Known to the leader: members whose version knows no snapshots.
    #[serde(default)]
    pub snapshots_unknown_to: Vec<u64>,
    /// Bytes that its log takes on disk, spare files included; 0 if it uses no disk.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Whether its machine has come, since the start, as far as the log was then. Until then reads may take long.
    #[serde(default)]
    pub ready: bool,
    /// Bytes of committed entries that its machine has not applied yet.
    #[serde(default)]
    pub unapplied_bytes: u64,
    /// Why its log has no room for more, while that is so: writes are refused as BUSY.
    #[serde(default)]
    pub no_space: Option<String>,
    /// Known to the leader: nodes whose machine is another one than that of a majority. They answer wrongly.
    #[serde(default)]
    pub diverged: Vec<u64>,
    /// Where this node's machine was found to differ from that of a majority. It answers nothing since.
    #[serde(default)]
    pub fenced: Option<u64>,
    /// What is being done to rebuild that.
    #[serde(default)]
    pub rebuilding: Option<String>,
    /// The entry before which its machine has stopped, since it cannot apply it, and why. It answers nothing since.
    #[serde(default)]
    pub machine_stopped: Option<ReportedStop>,
    /// Known to the leader: the entry before which the machine of each of these nodes has stopped.
    #[serde(default)]
    pub stopped_machines: BTreeMap<u64, String>,
    /// When its certificate is not valid any more, in seconds since 1970; none if its connections are not encrypted.
    #[serde(default)]
    pub certificate_expires: Option<u64>,
    /// Where it says that its peers reach it; empty if it does not know.
    #[serde(default)]
    pub address: String,
    /// Whether the membership says another address, where it is not.
    #[serde(default)]
    pub moved: bool,
}

/// How a node is, for whoever may not know who else there is: what `CORACLE HEALTH` answers, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Health {
    /// The node's id.
    pub id: u64,
    /// leader, follower, candidate, learner or unconfigured.
    pub role: String,
    /// The node that it holds for the leader, if any.
    pub leader: Option<u64>,
    /// The newest index that its machine has applied.
    pub applied: u64,
    /// Whether it can serve: it knows a leader, and its machine has caught up since the start, and answers.
    pub ready: bool,
}

impl Health {
    /// Tells as much of a status.
    pub fn new(status: &Status) -> Health {
        let Report { id, role, leader, applied, .. } = Report::new(status);
        Health { id, role, leader, applied, ready: unready(status).is_empty() }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health { id, role, leader, ready, .. } = self;
        match leader {
            Some(leader) if leader == id => write!(f, "node {id} is the leader")?,
            Some(leader) => write!(f, "node {id} is a {role}, node {leader} leads")?,
            None => write!(f, "node {id} is a {role}, and knows no leader")?,
        }
        f.write_str(if *ready { ", and ready" } else { ", and not ready" })
    }
}

/// A machine that has stopped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedStop {
    /// The entry: its index, a point, and its term.
    pub entry: String,
    /// Why it cannot be applied.
    pub why: String,
}

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedSnapshot {
    /// The newest entry that it stands for.
    pub index: u64,
    /// The bytes of its file.
    pub bytes: u64,
}

/// A snapshot on its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedTransfer {
    /// To or from which node.
    pub peer: u64,
    /// The newest entry that it stands for.
    pub index: u64,
    /// How many bytes of its file are there.
    pub done: u64,
    /// The bytes of its file.
    pub bytes: u64,
}

/// One member of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedMember {
    /// Its id.
    pub id: u64,
    /// Where its peers reach it.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether there is a connection to it now; so too for the node itself.
    #[serde(default)]
    pub reachable: bool,
    /// Whether that connection is encrypted.
    #[serde(default)]
    pub encrypted: bool,
    /// At the leader: the newest index that it is known to hold durably.
    #[serde(default)]
    pub matched: Option<u64>,
    /// Its disk, as 16 hexadecimal digits.
    #[serde(default)]
    pub incarnation: String,
}

/// Another member as its leader knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedPeer {
    /// Its id.
    pub id: u64,
    /// The newest index that it is known to hold durably, as the leader has it.
    pub matched: u64,
    /// How many entries of the leader it is not known to hold.
    pub lag: u64,
    /// How far its machine has applied, as it last said.
    pub applied: u64,
    /// `probe`: the leader looks for the place where the two logs part. `replicate`: entries are sent ahead.
    /// `snapshot`: it is sent one. `distrusted`: it lost entries that it had acknowledged, and does not count in this term.
    pub state: String,
    /// How long ago it last answered in this term, or, if it never did, since when this node leads; in milliseconds.
    pub silent_ms: u64,
}

impl Report {
    /// Tells what operators want to know of a status.
    pub fn new(status: &Status) -> Report {
        let raft = &status.raft;
        Report {
            id: raft.me.id.0,
            role: raft.role.to_string(),
            term: raft.term.0,
            leader: raft.leader.map(|leader| leader.0),
            commit: raft.commit.0,
            applied: status.applied.index.0,
            last_index: raft.last.index.0,
            members: status.members.iter().map(|member| ReportedMember::new(member, raft)).collect(),
            peers: raft.peers.iter().map(|peer| ReportedPeer::new(peer, raft.last.index.0)).collect(),
            digest: status.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            first_index: raft.purged.index.0 + 1,
            snapshot: status.snapshots.newest.as_ref().map(ReportedSnapshot::new),
            taking_snapshot: status.snapshots.taking,
            sending_snapshots: status.snapshots.sending.iter().map(ReportedTransfer::new).collect(),
            receiving_snapshot: status.snapshots.receiving.as_ref().map(ReportedTransfer::new),
            snapshots_unknown_to: status.snapshots.unknown_to.iter().map(|id| id.0).collect(),
            disk_bytes: status.disk_bytes,
            ready: status.caught_up,
            unapplied_bytes: status.unapplied_bytes,
            no_space: status.no_space.clone(),
            diverged: status.diverged.keys().map(|id| id.0).collect(),
            fenced: status.fenced.map(|index| index.0),
            rebuilding: status.rebuilding.map(|it| match it {
                Rebuilding::Asks(after) => format!("asks the leader for a snapshot from after entry {after}"),
                _ => "takes the state that came".to_owned(),
            }),
            machine_stopped: status
                .machine_stopped
                .as_ref()
                .map(|stopped| ReportedStop { entry: stopped.entry.to_string(), why: stopped.why.clone() }),
            stopped_machines: status.stopped_machines.iter().map(|(id, at)| (id.0, at.to_string())).collect(),
            certificate_expires: status.certificate_expires.map(|end| end.as_secs()),
            address: status.address.clone(),
            moved: status.moved,
        }
    }
}

impl ReportedSnapshot {
    /// Tells of a snapshot.
    pub fn new(snapshot: &SnapshotStatus) -> ReportedSnapshot {
        ReportedSnapshot { index: snapshot.last.index.0, bytes: snapshot.bytes }
    }
}

/// For people.
impl fmt::Display for ReportedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {}, {}", self.index, mebibytes(self.bytes))
    }
}

impl ReportedTransfer {
    fn new(transfer: &SnapshotTransfer) -> ReportedTransfer {
        let SnapshotTransfer { peer, last, done, bytes, .. } = transfer;
        ReportedTransfer { peer: peer.0, index: last.index.0, done: *done, bytes: *bytes }
    }
}

/// For people.
impl fmt::Display for ReportedTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.done.saturating_mul(100).checked_div(self.bytes).unwrap_or(0);
        write!(f, "up to {}: {percent} % of {}", self.index, mebibytes(self.bytes))
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl ReportedMember {
    fn new(member: &MemberStatus, raft: &raft::Status) -> ReportedMember {
        let peer = raft.peers.iter().find(|peer| peer.id == member.id).map(|peer| peer.matched);
        let own = (raft.role == RoleName::Leader && raft.me.id == member.id).then_some(raft.persisted);
        ReportedMember {
            matched: peer.or(own).map(|index| index.0),
            id: member.id.0,
            address: member.address.clone(),
            voter: member.voter,
            reachable: member.connected,
            encrypted: member.encrypted,
            incarnation: format!("{:016x}", member.incarnation.0),
        }
    }
}

impl ReportedPeer {
    fn new(peer: &PeerStatus, last: u64) -> ReportedPeer {
        let state = match peer {
            PeerStatus { lost_entries: true, .. } => "distrusted",
            PeerStatus { receives_snapshot: true, .. } => "snapshot",
            PeerStatus { probing: true, .. } => "probe",
            _ => "replicate",
        };
        ReportedPeer {
            id: peer.id.0,
            matched: peer.matched.0,
            lag: last.saturating_sub(peer.matched.0),
            applied: peer.applied.0,
            state: state.to_owned(),
            silent_ms: peer.silent_for.saturating_mul(TICK_MS),
        }
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node {} {}", self.id, self.role())?;
        let on_disk = mebibytes(self.disk_bytes);
        let newest = self.snapshot.as_ref().map_or("none".to_owned(), ReportedSnapshot::to_string);
        let snapshot = if self.taking_snapshot { format!("{newest}; one is being taken") } else { newest };
        let ready = match self.ready {
            true => "yes".to_owned(),
            false => {
                "no: it still applies what the log held at its start, and reads may take long".to_owned()
            }
        };
        for (name, value) in [
            ("last index", self.last_index.to_string()),
            ("first index", self.first_index.to_string()),
            ("commit", self.commit.to_string()),
            ("applied", format!("{}, {} bytes wait", self.applied, self.unapplied_bytes)),
            ("ready", ready),
            ("digest", self.digest.clone()),
            ("on disk", on_disk),
            ("snapshot", snapshot),
        ] {
            writeln!(f, "  {name:<12}{value}")?;
        }
        self.certificate(f)?;
        if let Some(transfer) = &self.receiving_snapshot {
            writeln!(f, "  receives    a snapshot from node {}, {transfer}", transfer.peer)?;
        }
        if self.moved {
            writeln!(
                f,
                "  moved       to {}: the leader takes that over when it has found this node there",
                self.address
            )?;
        }
        for transfer in &self.sending_snapshots {
            writeln!(f, "  sends       a snapshot to node {}, {transfer}", transfer.peer)?;
        }
        for id in &self.snapshots_unknown_to {
            writeln!(
                f,
                "  old version node {id} knows no snapshots: the log is kept for it, for a while; upgrade it"
            )?;
        }
        if let Some(why) = &self.no_space {
            writeln!(f, "  no space    writes are refused, and reads go on: {why}")?;
        }
        self.machines(f)?;
        self.members.iter().try_for_each(|member| self.member(f, member))
    }
}

impl Report {
    /// Machines that are not as they should be: its own, and those that it knows of.
    fn machines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.fenced {
            writeln!(
                f,
                "  fenced      its machine differed from that of a majority at index {index}, or was given up there: it \
                 answers nothing and does not lead, but stores and votes"
            )?;
        }
        if let Some(what) = &self.rebuilding {
            writeln!(f, "  rebuilt     its machine {what}")?;
        }
        if let Some(ReportedStop { entry, why }) = &self.machine_stopped {
            writeln!(f, "  stopped     its machine cannot apply entry {entry}, and answers nothing: {why}")?;
        }
        for (id, entry) in &self.stopped_machines {
            writeln!(f, "  stopped     the machine of node {id}, before entry {entry}")?;
        }
        for id in &self.diverged {
            writeln!(
                f,
                "  diverged    the machine of node {id} differs from that of a majority: have it rebuilt"
            )?;
        }
        Ok(())
    }

    /// What it does, in words.
    fn role(&self) -> String {
        let term = self.term;
        match (self.role.as_str(), self.leader) {
            ("leader", _) => format!("leads in term {term}"),
            ("candidate", _) => format!("asks to be elected, and knows no leader in term {term}"),
            ("unconfigured", _) => {
                "has no cluster yet: make it part of a new one by 'coracle members init', or restart it with '--join'".to_owned()
            }
            ("learner", Some(leader)) => format!("has no vote, and follows node {leader} in term {term}"),
            ("learner", None) => format!("has no vote, and knows no leader in term {term}"),
            (_, Some(leader)) => format!("follows node {leader} in term {term}"),
            (_, None) => format!("knows no leader in term {term}"),
        }
    }

    fn certificate(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(expires) = self.certificate_expires else { return Ok(()) };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = expires.saturating_sub(now.as_secs()) / 86_400;
        writeln!(f, "  certificate valid for {left} days")
    }

    fn member(&self, f: &mut fmt::Formatter<'_>, member: &ReportedMember) -> fmt::Result {
        let vote = if member.voter { "votes" } else { "does not vote" };
        let here = match member.reachable {
            _ if member.id == self.id => "is this node",
            true if member.encrypted => "is connected, encrypted",
            true => "is connected",
            false => "is not connected",
        };
        writeln!(f, "  member {:<5}{}  {vote}, {here}", member.id, member.address)?;
        let Some(peer) = self.peers.iter().find(|peer| peer.id == member.id) else { return Ok(()) };
        let state = match peer.state.as_str() {
            "replicate" => "entries are sent as they come",
            "probe" => "its log is being compared with this one",
            "snapshot" => "it is sent a snapshot",
            _ => "it lost entries that it had acknowledged, and does not count in this term: check its disk",
        };
        let ReportedPeer { matched, lag, applied, silent_ms, .. } = peer;
        writeln!(
            f,
            "              holds {matched}, lags by {lag}, has applied {applied}, answered {silent_ms} ms ago; {state}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let member = |id| ReportedMember {
            encrypted: false,
            id,
            address: format!("host{id}:7000"),
            voter: id < 4,
            reachable: id != 3,
            matched: None,
            incarnation: "b".into(),
        };
        let peer = |id, state: &str| ReportedPeer {
            id,
            matched: 100 + id,
            lag: 20 - id,
            applied: 90,
            state: state.to_owned(),
            silent_ms: 10 * id,
        };
        Report {
            certificate_expires: None,
            id: 1,
            role: "leader".to_owned(),
            term: 7,
            leader: Some(1),
            commit: 118,
            applied: 117,
            last_index: 120,
            members: (1..=4).map(member).collect(),
            peers: vec![peer(2, "replicate"), peer(3, "probe"), peer(4, "distrusted")],
            digest: "ab".repeat(16),
            first_index: 101,
            snapshot: Some(ReportedSnapshot { index: 110, bytes: 1 << 19 }),
            taking_snapshot: false,
            sending_snapshots: vec![],
            receiving_snapshot: None,
            snapshots_unknown_to: vec![],
            disk_bytes: 3 << 19,
            ready: true,
            unapplied_bytes: 512,
            no_space: None,
            diverged: vec![],
            fenced: None,
            rebuilding: None,
            machine_stopped: None,
            stopped_machines: BTreeMap::new(),
            address: "host1:7000".to_owned(),
            moved: false,
        }
    }

    #[test]
    fn a_leader_shows_how_the_others_stand() {
        let expected = "\
node 1 leads in term 7
  last index  120
  first index 101
  commit      118
  applied     117, 512 bytes wait
  ready       yes
  digest      abababababababababababababababab
  on disk     1.5 MiB
  snapshot    up to 110, 0.5 MiB
  member 1    host1:7000  votes, is this node
  member 2    host2:7000  votes, is connected
              holds 102, lags by 18, has applied 90, answered 20 ms ago; entries are sent as they come
  member 3    host3:7000  votes, is not connected
              holds 103, lags by 17, has applied 90, answered 30 ms ago; its log is being compared with this one
  member 4    host4:7000  does not vote, is connected
              holds 104, lags by 16, has applied 90, answered 40 ms ago; it lost entries that it had acknowledged, and \
              does not count in this term: check its disk
";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn what_is_wrong_with_a_node_stands_in_its_status() {
        let no_space = Some("no room to make log-9".to_owned());
        let wrong = Report {
            ready: false,
            no_space,
            diverged: vec![3],
            fenced: Some(1024),
            rebuilding: Some("takes the state that came".to_owned()),
            ..report()
        }
        .to_string();
        for line in [
            "  ready       no: it still applies what the log held at its start, and reads may take long\n",
            "  no space    writes are refused, and reads go on: no room to make log-9\n",
            "  fenced      its machine differed from that of a majority at index 1024, or was given up there: it answers nothing",
            "  rebuilt     its machine takes the state that came\n",
            "  diverged    the machine of node 3 differs from that of a majority: have it rebuilt\n",
        ] {
            assert!(wrong.contains(line), "{line} is not in {wrong}");
        }
    }

    #[test]
    fn what_is_under_way_with_snapshots_is_shown() {
        let transfer = |peer| ReportedTransfer { peer, index: 110, done: 1 << 19, bytes: 2 << 20 };
        let shown = Report {
            snapshot: None,
            taking_snapshot: true,
            sending_snapshots: vec![transfer(2), transfer(3)],
            receiving_snapshot: Some(transfer(4)),
            snapshots_unknown_to: vec![3],
            ..report()
        };
        let shown = shown.to_string();
        for line in [
            "  snapshot    none; one is being taken\n",
            "  receives    a snapshot from node 4, up to 110: 25 % of 2.0 MiB\n",
            "  sends       a snapshot to node 3, up to 110: 25 % of 2.0 MiB\n",
            "  old version node 3 knows no snapshots: the log is kept for it, for a while; upgrade it\n",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
    }

    #[test]
    fn a_role_is_a_sentence() {
        let said = |role: &str, leader| Report { role: role.to_owned(), leader, ..report() }.role();
        assert_eq!(said("follower", Some(3)), "follows node 3 in term 7");
        assert_eq!(said("follower", None), "knows no leader in term 7");
        assert_eq!(said("candidate", None), "asks to be elected, and knows no leader in term 7");
        assert_eq!(said("learner", Some(3)), "has no vote, and follows node 3 in term 7");
        assert_eq!(
            said("unconfigured", None),
            "has no cluster yet: make it part of a new one by 'coracle members init', or restart it with '--join'"
        );
    }
}
