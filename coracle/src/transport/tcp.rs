//! The transport over TCP.
//!
//! Every node dials every other member, and a connection carries messages both ways; so between two nodes
//! there are usually two. A message leaves on the one that this node dialed, or else on the newest one that it
//! accepted: so a blank node, which knows no addresses yet, can answer whoever talks to it.
//!
//! Nothing here ever waits for a peer: [`Tcp::send`] queues or drops. What peers send waits for the node, in
//! a queue that is bounded in messages and in bytes, and when that is full the peers wait.
//!
//! The pieces: `accept` and `dial` make connections, `introduction` is what both sides say of themselves,
//! `handshake` has the rules of who may talk, `link` is a connection, `outbox` what waits to be written to it, `shared`
//! knows them all, and `conversation` carries messages over each.

use super::accept::{Listener, accept};
use super::dial::{DialError, dial, keep};
use super::founding;
use super::places::Places;
use super::secure::Tls;
use super::shared::Shared;
use super::{Inbound, PeerMessage};
use crate::place::Place;
use crate::storage::met::Met;
use crate::wire::{self, Answer, Ask, CloseReason, Hello, Purpose, RefusedReason, WireError};
use coracle_core::{Boot, ClusterId, LogId, Mark, Member, Membership, NodeId, Peer};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use super::config::{MAX_FRAME, TcpConfig};
pub use super::introduction::{Introduction, Local};

/// Why a [`Tcp::probe`] met no node, or not the right one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Nothing listens there.
    #[error("nothing listens at {0}")]
    Nobody(String),
    /// The address cannot be resolved or reached.
    #[error("cannot connect to {address}: {problem}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system said.
        problem: String,
    },
    /// No connection, or no answer, in time.
    #[error("{address} did not answer within {limit:?}")]
    Timeout {
        /// The address.
        address: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// Another node is there.
    #[error("node {found} is at {address}, not node {expected}")]
    WrongNode {
        /// The address.
        address: String,
        /// Who was asked for.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// The node is there, and refuses to be introduced.
    #[error("the node at {address} refused: {text}")]
    Refused {
        /// The address.
        address: String,
        /// Why.
        reason: RefusedReason,
        /// The same in its own words.
        text: String,
    },
    /// Something that is not a node answers there.
    #[error("what listens at {address} is not a node: {error}")]
    NotANode {
        /// The address.
        address: String,
        /// What was wrong with the answer.
        error: WireError,
    },
}

/// What happened since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Messages queued for a peer.
    pub sent: u64,
    /// Messages not sent: no connection, too large for the peer, or no room in the outbox.
    pub unsent: u64,
    /// Messages handed to the node.
    pub received: u64,
    /// Messages dropped because they name another sender than the handshake, or another receiver.
    pub misaddressed: u64,
    /// Connections refused in their handshake.
    pub refused: u64,
    /// Connections that the system could not accept.
    pub accept_errors: u64,
    /// Alarms about copies of a directory and the like, those that were not logged again included.
    pub alarms: u64,
    /// Attempts to connect.
    pub dials: u64,
    /// Connections that are up now.
    pub links: u64,
}

/// The TCP transport of one node; with [`TcpConfig::network`] the same over streams in memory. Dropping it ends all its tasks and frees its port, without a goodbye.
#[derive(Debug)]
pub struct Tcp {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Tcp {
    /// Listens on `address` (`host:port`; port 0 lets the system choose) and serves peers from then on, on
    /// the runtime that this is called in. Everything heard goes to `inbound`, which should be short: it is
    /// a bound on what waits for the node.
    pub async fn bind(
        address: &str,
        mut config: TcpConfig,
        mut local: Local,
        inbound: mpsc::Sender<Inbound>,
    ) -> io::Result<Tcp> {
        if local.address.len() > wire::MAX_ADDRESS || local.metadata.len() > wire::MAX_METADATA {
            let problem = format!(
                "an address may take {} bytes, and metadata {}",
                wire::MAX_ADDRESS,
                wire::MAX_METADATA
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let (listener, at) = Listener::bind(address, config.network.as_ref()).await?;
        config.network = config.network.map(|network| network.seen_from(at));
        let (given, address) = (address, at);
        if local.address.is_empty() && !address.ip().is_unspecified() {
            // A name says more than the address that it has now; but port 0 is no address.
            let named = given.ends_with(&format!(":{}", address.port())) && given.len() <= wire::MAX_ADDRESS;
            local.address = if named { given.to_owned() } else { address.to_string() };
        }
        let shared = Arc::new(Shared::new(config, local, inbound));
        let accepting = tokio::spawn(accept(Arc::clone(&shared), listener));
        Ok(Tcp { shared, address, accepting: Mutex::new(Some(accepting)) })
    }

    /// When the first of the certificates is not valid any more that this node shows or believes, in time since 1970.
    pub fn certificate_expires(&self) -> Option<Duration> {
        let end = self.shared.config.tls.as_ref().map(Tls::expires)?;
        Some(end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Sets whom to dial: the members of this membership but for the node itself, and those that are leaving it.
    /// `newest` names the membership in later handshakes. Connections to members who stay as they were are kept; dialing
    /// starts once the node has a cluster.
    pub fn set_membership(&self, newest: LogId, membership: &Membership, leaving: &[Member]) {
        let wanted = Places::wanted(self.shared.me.id, membership, leaving);
        for target in self.shared.set_targets(newest, membership, &wanted) {
            self.shared.spawn(keep(Arc::clone(&self.shared), target));
        }
    }

    /// A blank node has joined a cluster: connections that talk in the name of another one end.
    pub fn set_cluster(&self, cluster: ClusterId) {
        self.shared.set_cluster(cluster);
    }

    /// Queues a message for a peer. Never blocks. False: certainly not sent, because there is no connection,
    /// the outbox is full or the message larger than the peer takes. True is no promise that it arrives.
    ///
    /// # Panics
    ///
    /// If the message is an AppendEntries with other entries than it names; see [`wire::encode`].
    pub fn send(&self, to: Peer, message: PeerMessage) -> bool {
        self.shared.send(to, message)
    }

    /// Asks who is at an address, as the bootstrap does. Leaves no trace there. Cancel safe.
    pub async fn probe(&self, address: &str, id: NodeId) -> Result<Introduction, ProbeError> {
        let hello =
            Hello { facts: self.shared.facts(id).1, to: id, to_incarnation: None, purpose: Purpose::Probe };
        match dial(&self.shared, address, &hello).await {
            Ok((stream, welcome)) => {
                let encrypted = stream.certificate.is_some();
                Ok(Introduction::new(&welcome.facts, self.shared.config.features, encrypted))
            }
            Err(error) => Err(probe_error(address, id, error)),
        }
    }

    /// Asks a node a question about a list of members that may found a cluster. It may take as long as an attempt
    /// to found one. Cancel safe, though the question may have been heard.
    pub async fn ask(&self, address: &str, to: Peer, ask: &Ask) -> Result<Answer, ProbeError> {
        let (facts, to_incarnation) = (self.shared.facts(to.id).1, Some(to.incarnation));
        let hello = Hello { facts, to: to.id, to_incarnation, purpose: Purpose::Founding };
        let answer = founding::ask(&self.shared, address, &hello, ask).await;
        answer.map_err(|error| probe_error(address, to.id, error))
    }

    /// What a peer said of itself on the connection that a message to it would take now. None: there is no
    /// connection.
    pub fn peer(&self, peer: Peer) -> Option<Introduction> {
        self.shared.peer(peer)
    }

    /// The own certificate, and the newest that members have shown. None if a member that is connected knows of no marks, or
    /// nothing is encrypted.
    pub(crate) fn marks(&self) -> Option<BTreeMap<NodeId, Mark>> {
        self.shared.marks()
    }

    /// The newest certificate that this member has shown.
    pub(crate) fn shown_by(&self, id: NodeId) -> Option<Mark> {
        self.shared.shown_by(id)
    }

    /// In which boots the disks of the members were met last, by id.
    pub fn met(&self) -> Vec<Met> {
        self.shared.met()
    }

    /// Where members were found that are not where the membership says, by id.
    pub fn places(&self) -> Vec<Place> {
        self.shared.places()
    }

    /// This boot of the node.
    pub(crate) fn boot(&self) -> Boot {
        self.shared.boot
    }

    /// Whether the leader may put this place into the membership, where this one answered there.
    pub(crate) fn is_there(&self, place: &Place, who: Option<(Peer, Boot)>) -> bool {
        self.shared.is_there(place, who)
    }

    /// Where this node says that it is to be dialed; empty if it does not know.
    pub fn advertised(&self) -> String {
        self.shared.local().address
    }

    /// Where the newest membership says that this node is, if that differs from what it says itself.
    pub fn other_home(&self) -> Option<String> {
        self.shared.other_home()
    }

    /// Notes whether this node was looked for where the membership says that it is, and is not there.
    pub(crate) fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::Relaxed);
    }

    /// Whether this node is not where the membership says: it was looked for.
    pub fn is_away(&self) -> bool {
        self.shared.away.load(Ordering::Relaxed) && self.other_home().is_some()
    }

    /// Where connected members say that they are, if the membership says something else and they were not met there.
    pub fn claims(&self) -> Vec<Place> {
        self.shared.claims()
    }

    /// Looks for a member at this place too, from now on. Whether it is one that is dialed.
    pub fn look_for(&self, place: Place) -> bool {
        self.shared.look_for(place)
    }

    /// Asks who is at an address, whoever that is. Leaves no trace there. Cancel safe.
    pub async fn who_is_at(&self, address: &str) -> Result<(Peer, Boot), ProbeError> {
        let nobody = NodeId(0);
        let facts = self.shared.facts(nobody).1;
        let hello = Hello { facts, to: nobody, to_incarnation: None, purpose: Purpose::Probe };
        match dial(&self.shared, address, &hello).await {
            Ok((_, welcome)) => Ok((welcome.facts.from, welcome.facts.boot)),
            // Nobody has that name, and whoever says so says who it is.
            Err(DialError::Refused(refused)) if refused.reason == RefusedReason::WrongNode => {
                Ok((refused.from, refused.boot))
            }
            Err(error) => Err(probe_error(address, nobody, error)),
        }
    }

    /// What happened since the start.
    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        Counts {
            sent: counters.sent.load(Ordering::Relaxed),
            unsent: counters.unsent.load(Ordering::Relaxed),
            received: counters.received.load(Ordering::Relaxed),
            misaddressed: counters.misaddressed.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            accept_errors: counters.accept_errors.load(Ordering::Relaxed),
            alarms: counters.alarms.load(Ordering::Relaxed),
            dials: counters.dials.load(Ordering::Relaxed),
            links: self.shared.links() as u64,
        }
    }

    /// Says on every connection that this node stops, and ends everything; the port is free when it returns,
    /// within `close_timeout` and a little. The node is told nothing from here on. Calling it again does
    /// nothing more.
    pub async fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            let _ = accepting.await;
        }
        self.shared.close(CloseReason::Stopping, "the node stops");
        let _ = timeout(self.shared.config.close_timeout, async {
            loop {
                let ended = self.shared.ended.notified();
                if self.shared.links() == 0 {
                    return;
                }
                ended.await;
            }
        })
        .await;
        self.shared.take_tasks().shutdown().await;
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        if let Some(accepting) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            accepting.abort();
        }
        drop(self.shared.take_tasks());
    }
}

fn probe_error(address: &str, expected: NodeId, error: DialError) -> ProbeError {
    let address = address.to_owned();
    match error {
        DialError::Nobody => ProbeError::Nobody(address),
        DialError::Resolve(error) | DialError::Connect(error) => {
            ProbeError::Unreachable { address, problem: error.to_string() }
        }
        DialError::Cut(problem) | DialError::TurnedAway(problem) | DialError::Insecure(problem) => {
            ProbeError::Unreachable { address, problem }
        }
        DialError::ConnectTimeout(limit) | DialError::HandshakeTimeout(limit) => {
            ProbeError::Timeout { address, limit }
        }
        DialError::Protocol(error) => ProbeError::NotANode { address, error },
        DialError::Refused(refused) if refused.reason == RefusedReason::WrongNode => {
            ProbeError::WrongNode { address, expected, found: refused.from.id }
        }
        DialError::Refused(refused) => {
            ProbeError::Refused { address, reason: refused.reason, text: refused.text }
        }
        DialError::Unfit { reason: RefusedReason::WrongNode, welcome, .. } => {
            ProbeError::WrongNode { address, expected, found: welcome.facts.from.id }
        }
        DialError::Unfit { reason, text, .. } => ProbeError::Refused { address, reason, text },
    }
}
