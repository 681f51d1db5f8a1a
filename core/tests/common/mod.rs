//! A cluster in a glass box: nothing happens in it unless a script says so.
//!
//! Every message waits in the mailbox of its link until it is delivered, dropped, repeated or handed over
//! out of order. Every disk write waits until it is [persisted](Cluster::persist); a [crash](Cluster::crash)
//! leaves a node with exactly what was durable. Each node has a clock of its own.
//!
//! The box carries out an [`Output`] as its documentation demands and no better. It also remembers what no
//! node does: who led which term, who voted for whom, which entry was created where, what was committed.
//! After every single step it judges the node that stepped by that memory, and panics with the number of
//! the invariant (S1, S2, ...) that was broken.
//!
//! Reading the scripts: nodes are `A`, `B`, `C`, ...; a log is written as the terms of its entries, so
//! `"1 1 2"` has three entries, the last one of term 2. The first entry is always the membership.

#![allow(dead_code)]

mod driver;
mod image;
mod judge;
mod script;
mod snapshots;
mod transcript;
pub(crate) mod votes;

pub(crate) use image::*;

use coracle_core::*;
use judge::History;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) const A: u64 = 1;
pub(crate) const B: u64 = 2;
pub(crate) const C: u64 = 3;
pub(crate) const D: u64 = 4;
pub(crate) const E: u64 = 5;

/// An entry with its bytes, which here are a number that no other entry has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) content: u64,
    pub(crate) membership: Option<Box<Membership>>,
}

/// A message on its way, with the bytes of the entries that it carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mail {
    pub(crate) envelope: Envelope,
    pub(crate) entries: Vec<Entry>,
    /// When it was posted, on the wall's clock.
    posted: u64,
}

/// A write in the queue of a node's log writer.
struct Job {
    write: Write,
    entries: Vec<Entry>,
}

/// A message that waits for the disk.
struct Waiting {
    until: WriteId,
    term: Term,
    mail: Mail,
}

pub(crate) struct Node {
    pub(crate) peer: Peer,
    boot: u64,
    /// None while the node is down.
    pub(crate) raft: Option<Raft>,
    pub(crate) clock: u64,
    /// What the node has in memory.
    pub(crate) memory: Image,
    /// What a power loss would leave.
    pub(crate) disk: Image,
    /// Its newest durable snapshot.
    pub(crate) snapshot: Option<Snapshot>,
    jobs: VecDeque<Job>,
    done: WriteId,
    held: Vec<Waiting>,
    /// Entries that the core wants sent and that the script has not reported on.
    pub(crate) open: Vec<Replicate>,
    /// What the last input brought about.
    pub(crate) out: Output,
    /// What it has taken into its log for those who asked.
    pub(crate) accepted: Vec<(Ticket, LogId)>,
    pub(crate) reads: Vec<ReadGrant>,
    pub(crate) refused: Vec<Refused>,
    /// What became of transfers of leadership that were asked for here.
    pub(crate) transfers: Vec<(Ticket, TransferEnd)>,
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) dropped: Vec<Dropped>,
    pub(crate) members: Option<Membership>,
}

/// What happens to an [`Output::replicate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    /// It leaves in the same turn, and the core is told.
    AtOnce,
    /// As above, but where the link is cut the connection is known to be broken, and the core is told.
    Connected,
    /// It waits for the script.
    ByHand,
}

pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<u64, Node>,
    links: BTreeMap<(u64, u64), VecDeque<Mail>>,
    cut: BTreeSet<(u64, u64)>,
    pub(crate) settings: Settings,
    pub(crate) sending: Sending,
    /// Ticks since the beginning, for those scripts in which time passes everywhere at once.
    pub(crate) wall: u64,
    /// How long a message takes in [`pass`](Cluster::pass), in ticks of the wall.
    pub(crate) latency: u64,
    seed: u64,
    contents: u64,
    tickets: u64,
    history: History,
    /// What is said and done, where a script has it written down.
    transcript: Option<String>,
}

pub(crate) fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: Incarnation(100 + id) }
}

pub(crate) fn member(id: u64) -> Member {
    Member { id: NodeId(id), incarnation: peer(id).incarnation, address: format!("node-{id}:1") }
}

pub(crate) fn ids(of: &[u64]) -> BTreeSet<NodeId> {
    of.iter().map(|id| NodeId(*id)).collect()
}

/// A membership by hand: who votes, who voted before (if it is joint), who only learns.
pub(crate) fn membership(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
    let all = voters.iter().chain(outgoing).chain(learners);
    Membership {
        cluster: ClusterId(7),
        members: all.map(|id| (NodeId(*id), member(*id))).collect(),
        voters: ids(voters),
        outgoing: outgoing.iter().map(|id| (NodeId(*id), member(*id))).collect(),
        ..Membership::default()
    }
}

impl Cluster {
    /// Nodes 1 to `size`, all voters, whose logs hold the first membership and nothing else. All are up and
    /// follow nobody.
    pub(crate) fn of(size: u64) -> Cluster {
        Cluster::with_logs(&vec!["1"; size as usize])
    }

    /// The same with other settings.
    pub(crate) fn with_settings(size: u64, settings: Settings) -> Cluster {
        Cluster::build(settings, 1, &Cluster::voters(size), &vec!["1"; size as usize])
    }

    /// One voter for each log, which is written as the terms of its entries.
    pub(crate) fn with_logs(logs: &[&str]) -> Cluster {
        Cluster::build(Settings::default(), 1, &Cluster::voters(logs.len() as u64), logs)
    }

    /// Memberships at the given indexes of the given logs.
    pub(crate) fn with_memberships(memberships: &[(u64, Membership)], logs: &[&str]) -> Cluster {
        Cluster::build(Settings::default(), 1, memberships, logs)
    }

    pub(crate) fn voters(size: u64) -> Vec<(u64, Membership)> {
        let all: Vec<u64> = (1..=size).collect();
        vec![(1, membership(&all, &[], &[]))]
    }

    /// As above, with everything by hand. A log of `"-"` is a blank node.
    pub(crate) fn build(
        settings: Settings,
        seed: u64,
        memberships: &[(u64, Membership)],
        logs: &[&str],
    ) -> Cluster {
        let images = logs.iter().map(|text| {
            let log = if *text == "-" { Vec::new() } else { parse_log(text, memberships) };
            let term = log.last().map_or(Term(0), |entry: &Entry| entry.term);
            Image { hard_state: HardState { term, vote: None, promised: 0 }, log, ..Image::default() }
        });
        Cluster::from_images(settings, seed, images.collect())
    }

    pub(crate) fn from_images(settings: Settings, seed: u64, images: Vec<Image>) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            settings,
            sending: Sending::AtOnce,
            wall: 0,
            latency: 0,
            seed,
            contents: 0,
            tickets: 0,
            history: History::default(),
            transcript: None,
        };
        for (at, image) in images.into_iter().enumerate() {
            cluster.add(at as u64 + 1, image);
        }
        cluster
    }

    /// Adds a node that starts with `image` on its disk.
    pub(crate) fn add(&mut self, id: u64, image: Image) {
        self.note_entries(&image, image.purged.index.next());
        let node = Node {
            peer: peer(id),
            boot: 0,
            raft: None,
            clock: 1000 * id,
            memory: Image::default(),
            disk: image,
            snapshot: None,
            jobs: VecDeque::new(),
            done: WriteId(0),
            held: Vec::new(),
            open: Vec::new(),
            out: Output::default(),
            accepted: Vec::new(),
            reads: Vec::new(),
            refused: Vec::new(),
            transfers: Vec::new(),
            alarms: Vec::new(),
            dropped: Vec::new(),
            members: None,
        };
        self.nodes.insert(id, node);
        self.restart(id);
    }

    // What a script asks.

    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn raft(&self, id: u64) -> &Raft {
        self.nodes[&id].raft.as_ref().expect("the node is up")
    }

    pub(crate) fn is_up(&self, id: u64) -> bool {
        self.nodes[&id].raft.is_some()
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn role(&self, id: u64) -> RoleName {
        self.raft(id).role_name()
    }

    pub(crate) fn term(&self, id: u64) -> u64 {
        self.raft(id).term().0
    }

    pub(crate) fn vote(&self, id: u64) -> Option<u64> {
        self.raft(id).status().vote.map(|peer| peer.id.0)
    }

    pub(crate) fn commit(&self, id: u64) -> u64 {
        self.raft(id).commit().0
    }

    pub(crate) fn last(&self, id: u64) -> u64 {
        self.raft(id).last().index.0
    }

    /// Whom the node takes for the leader.
    pub(crate) fn leader_of(&self, id: u64) -> Option<u64> {
        self.raft(id).leader().map(|id| id.0)
    }

    /// The terms of the log, such as `"1 1 2"`.
    pub(crate) fn log(&self, id: u64) -> String {
        self.nodes[&id].memory.terms()
    }

    pub(crate) fn progress(&self, leader: u64, of: u64) -> PeerStatus {
        let peers = self.raft(leader).status().peers;
        peers.into_iter().find(|peer| peer.id.0 == of).expect("a leader knows every member")
    }

    /// The node that leads the newest term that anybody leads.
    pub(crate) fn leader(&self) -> Option<u64> {
        let up = self.nodes.iter().filter_map(|(id, node)| node.raft.as_ref().map(|raft| (id, raft)));
        up.filter(|(_, raft)| raft.is_leader()).max_by_key(|(_, raft)| raft.term()).map(|(id, _)| *id)
    }

    /// What waits on a link.
    pub(crate) fn mail(&self, from: u64, to: u64) -> Vec<Message> {
        let link = self.links.get(&(from, to));
        link.into_iter().flatten().map(|mail| mail.envelope.message.clone()).collect()
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.links.values().all(VecDeque::is_empty)
    }

    /// The newest index that is committed anywhere.
    pub(crate) fn committed(&self) -> u64 {
        self.history.committed.last_key_value().map_or(0, |(index, _)| index.0)
    }

    /// Reads that nobody has answered yet.
    pub(crate) fn unanswered_reads(&self) -> usize {
        self.history.reads.len()
    }

    /// Where a ticket's read was granted.
    pub(crate) fn granted(&self, id: u64, ticket: Ticket) -> Option<u64> {
        self.nodes[&id].reads.iter().find(|grant| grant.ticket == ticket).map(|grant| grant.index.0)
    }

    pub(crate) fn refused(&self, id: u64, ticket: Ticket) -> Option<RefusedReason> {
        self.nodes[&id].refused.iter().find(|refused| refused.ticket == ticket).map(|refused| refused.reason)
    }
}
