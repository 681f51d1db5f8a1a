//! Who is there: what a node says of itself when it connects, and what it learns of the other.

use crate::place::Place;
use crate::storage::met::Met;
use crate::wire::Facts;
use bytes::Bytes;
use coracle_core::{Boot, ClusterId, LogId, Peer};

/// What a node says of itself when it connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// Its name and disk.
    pub peer: Peer,
    /// This run of its process.
    pub boot: Boot,
    /// Its cluster; none while it is blank.
    pub cluster: Option<ClusterId>,
    /// The newest membership that it has.
    pub membership: LogId,
    /// How often its directory was started, which is the number of this boot; 0 if no list is kept.
    pub boot_number: u64,
    /// The newest boots of its directory, oldest first, this one last; empty if no list is kept. Of a list longer
    /// than [`crate::wire::MAX_BOOTS`] the newest are told.
    pub boots: Vec<Boot>,
    /// In which runs earlier runs of this one met the disks of other members.
    pub met: Vec<Met>,
    /// Where earlier runs of this one found members away from where the membership says.
    pub places: Vec<Place>,
    /// Where others dial it, as `host:port`, at most [`crate::wire::MAX_ADDRESS`] bytes. Empty:
    /// where it listens, unless that is every address of the host.
    pub address: String,
    /// What the application wants known of this member, at most
    /// [`crate::wire::MAX_METADATA`] bytes.
    pub metadata: Bytes,
    /// The version of its state machine; 0: it does not say.
    pub machine: u16,
}

impl Local {
    /// A node that has no list of boots and no metadata, and is to be dialed where it listens.
    pub fn new(peer: Peer, boot: Boot, cluster: Option<ClusterId>, membership: LogId) -> Local {
        let (boots, met, places) = (Vec::new(), Vec::new(), Vec::new());
        let (address, metadata) = (String::new(), Bytes::new());
        Local {
            peer,
            boot,
            cluster,
            membership,
            boot_number: 0,
            boots,
            met,
            places,
            address,
            metadata,
            machine: 0,
        }
    }
}

/// What another node said of itself, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    /// Its name and disk.
    pub peer: Peer,
    /// The run of its process.
    pub boot: Boot,
    /// Its cluster, if it has one.
    pub cluster: Option<ClusterId>,
    /// The newest membership that it had when it said so.
    pub membership: LogId,
    /// Where it says it is to be dialed; empty if it does not know.
    pub address: String,
    /// What that membership says of this node: its name, on the disk that it names.
    pub names: Option<Peer>,
    /// The features that both sides offer: the ones that may be used on this connection.
    pub features: u64,
    /// What its application wants known of it.
    pub metadata: Bytes,
    /// The version of its state machine; 0: it does not say.
    pub machine: u16,
    /// Whether the connection is encrypted, and so whoever is there has shown the certificate for its name.
    pub encrypted: bool,
}

impl Introduction {
    /// What came of these facts, to one who offers these features.
    pub(super) fn new(facts: &Facts, features: u64, encrypted: bool) -> Introduction {
        Introduction {
            peer: facts.from,
            boot: facts.boot,
            cluster: facts.cluster,
            membership: facts.membership,
            address: facts.address.clone(),
            names: facts.names,
            features: features & (facts.required | facts.optional),
            metadata: facts.metadata.clone(),
            machine: facts.machine,
            encrypted,
        }
    }

    /// Whether the node was never told a cluster.
    pub fn is_blank(&self) -> bool {
        self.cluster.is_none()
    }
}
