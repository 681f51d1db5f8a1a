//! Where a simulated node is, where it says that it is, and what it knows of where the others are: production's own
//! rules and file, turned by the world instead of by sockets (D5.3.5).

use super::{Host, Running};
use crate::place::Place;
use crate::sim::plan::MS;
use crate::storage::disk::Disk;
use crate::storage::{StoreError, moved};
use crate::transport::certificate::Seen;
use crate::transport::places::Places;
use coracle_core::{Boot, Member, Membership, NodeId, Peer};
use std::collections::BTreeMap;

/// How often a node writes down where it found others.
const REMEMBERED: u64 = 1000 * MS;

/// How often a leader looks whether somebody has moved.
const LOOKS: u64 = 250 * MS;

/// Where a node is: this outlives its process.
#[derive(Default)]
pub(in crate::sim) struct Whereabouts {
    /// Where it listens.
    pub(in crate::sim) listens: String,
    /// Where it says that it listens.
    pub(in crate::sim) says: String,
    /// How often it moved.
    pub(in crate::sim) moves: u64,
    /// What its disk keeps of where others were found.
    pub(in crate::sim) kept: Vec<Place>,
}

impl Whereabouts {
    pub(in crate::sim) fn at(address: String) -> Whereabouts {
        Whereabouts { says: address.clone(), listens: address, ..Whereabouts::default() }
    }
}

/// How a node comes in under a name that the cluster never had.
pub(in crate::sim) struct Asks {
    /// It waits for its name.
    pub(in crate::sim) nameless: bool,
    /// In whose place it wants to vote.
    pub(in crate::sim) replaces: Option<NodeId>,
}

/// A connection, as one of its ends knows it.
pub(in crate::sim) struct Link {
    /// The run of the other end.
    pub(in crate::sim) run: u64,
    /// Which of all connections between the two.
    pub(in crate::sim) number: u64,
    /// The boot of the other end, and where it says that it is.
    pub(in crate::sim) boot: Boot,
    pub(in crate::sim) says: String,
    /// Whether this end has dialed, and whether the other has.
    pub(in crate::sim) dialed: bool,
    pub(in crate::sim) accepted: bool,
}

/// What a process knows of where the others are.
#[derive(Default)]
pub(in crate::sim) struct Standing {
    pub(in crate::sim) places: Places,
    pub(in crate::sim) links: BTreeMap<Peer, Link>,
    /// For which home it was looked at whether this node is there, and whether it is away from it.
    pub(in crate::sim) compared: Option<String>,
    pub(in crate::sim) away: bool,
    /// When it last wrote down what it knows, and looked whether somebody has moved.
    pub(super) saved: u64,
    pub(super) looked: u64,
    /// The certificates that members have shown; the connections on which it has believed one, by node, with the disk, the run
    /// and the number of each; and when it last looked after them.
    pub(in crate::sim) shown: Seen,
    pub(in crate::sim) believed: BTreeMap<usize, (Peer, u64, u64)>,
    compared_marks: u64,
}

impl Standing {
    /// The membership says this of where all are.
    pub(super) fn settle(&mut self, me: Peer, membership: &Membership, leaving: &[Member]) {
        let home = membership.members.get(&me.id).map(|member| member.address.clone());
        for peer in self.places.settle(home, &Places::wanted(me.id, membership, leaving)) {
            // The connection that the other one made stays.
            if let Some(link) = self.links.get_mut(&peer) {
                link.dialed = false;
            }
        }
    }

    /// Whether it is time to look after the addresses of others, as a leader does.
    pub(in crate::sim) fn looks(&mut self, now: u64) -> bool {
        let due = now >= self.looked + LOOKS;
        if due {
            self.looked = now;
        }
        due
    }

    /// Whether it is time to look after certificates.
    pub(in crate::sim) fn looks_at_marks(&mut self, now: u64) -> bool {
        let due = now >= self.compared_marks + LOOKS;
        if due {
            self.compared_marks = now;
        }
        due
    }

    /// Members that say that they are elsewhere, and this node itself.
    pub(in crate::sim) fn claims(&self, me: Peer, boot: Boot, says: &str) -> Vec<Place> {
        let of = |(peer, link): (&Peer, &Link)| self.places.claim(*peer, link.boot, &link.says);
        let own = Place { peer: me, boot, address: says.to_owned() };
        self.links.iter().filter_map(of).chain(self.away.then_some(own)).collect()
    }
}

impl Host {
    /// What a start finds of where others are.
    pub(super) fn stand(&self, disk: &dyn Disk, membership: &Membership) -> Result<Standing, StoreError> {
        let places = Places::new(&moved::load(disk)?, self.broken);
        let mut standing = Standing { places, ..Standing::default() };
        standing.settle(self.me, membership, &[]);
        Ok(standing)
    }

    /// This boot of it.
    pub(in crate::sim) fn boot(&self) -> Boot {
        self.boots.newest.last().copied().unwrap_or_default()
    }

    /// Writes down where it found others, now and then. (Where that fails nothing is lost but the hint.)
    pub(in crate::sim) fn remember(&mut self, now: u64) {
        let Some(up) = self.up.as_mut().filter(|up| now >= up.standing.saved + REMEMBERED) else { return };
        // It goes through the queue of the log, and so comes after the memberships that it goes by.
        if !up.is_idle() {
            return;
        }
        up.standing.saved = now;
        let found: Vec<Place> = up.standing.places.found().cloned().collect();
        if found != self.at.kept && !self.faulty && moved::save(&self.disk, &found).is_ok() {
            self.at.kept = found;
        }
    }

    /// Whether its log, and where it found others, are on its disk.
    pub(in crate::sim) fn has_written_all(&self) -> bool {
        let kept = |up: &Running| up.is_idle() && up.standing.places.found().eq(&self.at.kept);
        self.up.as_ref().is_some_and(kept)
    }

    /// It comes back on an empty disk, which is another one.
    pub(in crate::sim) fn wipe(&mut self) {
        let (id, at) = (self.me.id.0, std::mem::take(&mut self.at));
        let incarnation = self.me.incarnation.0 + 10;
        let fresh = Host::new(id);
        let Host { run, newest_run, broken, .. } = *self;
        let fails = std::mem::take(&mut self.fails);
        let clock = std::mem::replace(&mut self.clock, crate::sim::clock::Clock::new());
        let guests = self.guests.take();
        *self = Host { run, newest_run, clock, broken, guests, fails, ..fresh };
        self.me.incarnation.0 = incarnation;
        self.at = Whereabouts { kept: Vec::new(), ..at };
        self.wiped = true;
    }
}

impl Running {
    /// Whether the disk has done all writes of the log that it was given.
    fn is_idle(&self) -> bool {
        self.writing.is_none() && self.reported >= self.raft().newest_write()
    }
}
