//! The frames of a connection itself: who is there, who is welcome, and why it ends.
//!
//! The one who dials says [`Hello`], the other answers [`Welcome`] or [`Refused`], and from then on both
//! send messages. [`Close`] is the last frame; a connection that ends without one was cut.

use super::convert::{cut, from_log_id, from_peer, to_log_id, to_peer};
use super::frame::{Type, seal};
use super::membership::MAX_ADDRESS;
use super::{WireError, proto};
use bytes::Bytes;
use coracle_core::{Boot, ClusterId, Incarnation, LogId, NodeId, Peer};
use std::fmt;

/// The longest list of boots, in numbers: half of what a frame of the handshake may take.
pub const MAX_BOOTS: usize = 512;

/// The longest metadata of a member, in bytes: a few names and labels, and no place for data.
pub const MAX_METADATA: usize = 1 << 10;

/// What a node says of itself in a handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The oldest and the newest protocol that it speaks.
    pub protocol: (u32, u32),
    /// Features, one bit each, without which it does not want to talk.
    pub required: u64,
    /// Features that it would use if the other has them too.
    pub optional: u64,
    /// The oldest and the newest feature level of the log that it can apply.
    pub levels: (u32, u32),
    /// Its cluster. None: it is blank, it was never told one.
    pub cluster: Option<ClusterId>,
    /// Its name and disk.
    pub from: Peer,
    /// Its boot: this life of its process.
    pub boot: Boot,
    /// The newest membership that it has.
    pub membership: LogId,
    /// The largest frame that it takes, in bytes.
    pub max_frame: u32,
    /// How often its directory was started, which is the number of this boot; 0 if it keeps no list.
    pub boot_number: u64,
    /// The newest boots of its directory, oldest first, this one last; empty if it keeps no list. At most
    /// [`MAX_BOOTS`].
    pub boots: Vec<Boot>,
    /// Where it is to be dialed, as `host:port`; empty if it does not know. At most [`MAX_ADDRESS`] bytes.
    pub address: String,
    /// What its newest membership says of the receiver: that one's name, on the disk that it names. None: the
    /// receiver is not in it, or there is no membership.
    pub names: Option<Peer>,
    /// What the application wants known of this member; the protocol does not look into it. At most
    /// [`MAX_METADATA`] bytes.
    pub metadata: Bytes,
    /// The version of its state machine; 0 if it does not say.
    pub machine: u16,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Messages of consensus and forwarded writes.
    Raft,
    /// To be introduced and no more: a bootstrap's question, which leaves no trace.
    Probe,
    /// One question about a list of members that may found a cluster, and its answer.
    Founding,
    /// Reserved: snapshots, apart from heartbeats.
    Bulk,
    /// Requests of a client, which is no node.
    Client,
    /// One that this version does not know.
    Other(u32),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Purpose::Raft => f.write_str("messages of consensus"),
            Purpose::Probe => f.write_str("introductions"),
            Purpose::Founding => f.write_str("questions about a founding"),
            Purpose::Bulk => f.write_str("connections for snapshots alone"),
            Purpose::Client => f.write_str("clients"),
            Purpose::Other(number) => {
                write!(f, "connections of purpose {number}, which this version does not know,")
            }
        }
    }
}

/// The first frame, from the one who dialed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Who dials.
    pub facts: Facts,
    /// Whom it expects.
    pub to: NodeId,
    /// On which disk, if it knows.
    pub to_incarnation: Option<Incarnation>,
    /// What for.
    pub purpose: Purpose,
}

/// The answer of one who is glad to talk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Who answers.
    pub facts: Facts,
}

/// The answer of one who is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
    /// The same for people.
    pub text: String,
    /// Who answers: a stranger at an address is a sign that the node expected there is gone.
    pub from: Peer,
    /// Which of its boots answers.
    pub boot: Boot,
}

/// Why a [`Hello`] was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum RefusedReason {
    /// No protocol that both speak.
    Protocol,
    /// A feature is required that the other does not have.
    Feature,
    /// The purpose is not served here.
    Purpose,
    /// The dialer belongs to another cluster.
    WrongCluster,
    /// Another node, or another disk of it, was expected here.
    WrongNode,
    /// The dialer uses the name of the node that it dialed.
    OwnName,
    /// The dialer's name is 0.
    BadName,
    /// The dialer belongs to no cluster, and so has nothing to say.
    Blank,
    /// Too many connections.
    Busy,
    /// The dialer's certificate is another's.
    Certificate,
    /// The dialer runs on a copy of its directory, or on an older state of it.
    Copy,
    /// A reason that this version does not know.
    Other(u32),
}

/// For operators: one word, the same each time.
impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RefusedReason::Protocol => "protocol",
            RefusedReason::Feature => "feature",
            RefusedReason::Purpose => "purpose",
            RefusedReason::WrongCluster => "wrong-cluster",
            RefusedReason::WrongNode => "wrong-node",
            RefusedReason::OwnName => "own-name",
            RefusedReason::BadName => "bad-name",
            RefusedReason::Blank => "blank",
            RefusedReason::Busy => "busy",
            RefusedReason::Certificate => "certificate",
            RefusedReason::Copy => "copy",
            RefusedReason::Other(number) => return write!(f, "unknown-{number}"),
        })
    }
}

/// The last frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Close {
    /// Why the connection ends.
    pub reason: CloseReason,
    /// The same for people; may be empty.
    pub text: String,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Close { reason, text } = self;
        if text.is_empty() { write!(f, "{reason}") } else { write!(f, "{reason}: {text}") }
    }
}

/// Why a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The sender's process stops.
    Stopping,
    /// A newer connection of the same node took its place.
    Replaced,
    /// The receiver said something that the sender could not accept.
    Protocol,
    /// The sender has joined another cluster.
    WrongCluster,
    /// The receiver is no member any more, or has moved.
    Unneeded,
    /// The receiver, a client, does not read the answers to what it asks.
    Slow,
    /// A reason that this version does not know.
    Other(u32),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Stopping => "the other side stops",
            CloseReason::Replaced => "a newer connection took its place",
            CloseReason::Protocol => "the other side cannot accept what it was sent",
            CloseReason::WrongCluster => "the other side has joined another cluster",
            CloseReason::Unneeded => "the other side does not need it any more",
            CloseReason::Slow => "answers were not read",
            CloseReason::Other(number) => {
                return write!(f, "for the reason {number}, which this version does not know");
            }
        })
    }
}

/// Something is wrong with the receiver's disk, the sender holds. The connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// What.
    pub reason: AlarmReason,
    /// The receiver's boot that plays a part: the one that its list lacks, or another one of it.
    pub boot: Boot,
    /// The number of that boot; 0 if it plays no part.
    pub number: u64,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum AlarmReason {
    /// The list of its boots lacks one in which it was met: it is a copy, or an older state of it was put back.
    Copy,
    /// The boot in which it was met last is older than all that it lists.
    Forgotten,
    /// Two boots answer for it at once.
    TwoRuns,
    /// A reason that this version does not know.
    Other(u32),
}

/// The frame that asks for a sign of life. The answer has the same number.
pub(crate) fn ping(number: u64) -> Bytes {
    seal(Type::Ping, &proto::Ping { number }, Vec::new(), []).head
}

/// The frame that is one.
pub(crate) fn pong(number: u64) -> Bytes {
    seal(Type::Pong, &proto::Ping { number }, Vec::new(), []).head
}

impl Alarm {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Bytes {
        let meta = proto::Alarm { reason: self.reason.number(), boot: self.boot.0, number: self.number };
        seal(Type::Alarm, &meta, Vec::new(), []).head
    }
}

impl Hello {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Bytes {
        let meta = proto::Hello {
            facts: Some((&self.facts).into()),
            to: self.to.0,
            to_incarnation: self.to_incarnation.map(|i| i.0),
            purpose: self.purpose.number(),
        };
        seal(Type::Hello, &meta, Vec::new(), []).head
    }
}

impl Welcome {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Bytes {
        let meta = proto::Welcome { facts: Some((&self.facts).into()) };
        seal(Type::Welcome, &meta, Vec::new(), []).head
    }
}

impl Refused {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Bytes {
        let meta = proto::Refused {
            reason: self.reason.number(),
            text: cut(&self.text),
            from: Some(from_peer(self.from)),
            boot: self.boot.0,
        };
        seal(Type::Refused, &meta, Vec::new(), []).head
    }
}

impl Close {
    /// Encodes it as a frame.
    pub fn encode(&self) -> Bytes {
        let meta = proto::Close { reason: self.reason.number(), text: cut(&self.text) };
        seal(Type::Close, &meta, Vec::new(), []).head
    }
}

/// Numbers for the named variants of an enum; every other number is its `Other`.
macro_rules! numbered {
    ($name:ident { $($variant:ident = $number:literal),* $(,)? }) => {
        impl $name {
            fn number(self) -> u32 {
                match self {
                    $($name::$variant => $number,)*
                    $name::Other(number) => number,
                }
            }

            fn from_number(number: u32) -> $name {
                match number {
                    $($number => $name::$variant,)*
                    other => $name::Other(other),
                }
            }
        }
    };
}

numbered!(Purpose { Raft = 1, Probe = 2, Bulk = 3, Client = 4, Founding = 5 });
numbered!(RefusedReason {
    Protocol = 1,
    Feature = 2,
    Purpose = 3,
    WrongCluster = 4,
    WrongNode = 5,
    OwnName = 6,
    BadName = 7,
    Blank = 8,
    Busy = 9,
    Certificate = 10,
    Copy = 11,
});
numbered!(AlarmReason { Copy = 1, Forgotten = 2, TwoRuns = 3 });
numbered!(CloseReason { Stopping = 1, Replaced = 2, Protocol = 3, WrongCluster = 4, Unneeded = 5, Slow = 6 });

impl From<&Facts> for proto::Facts {
    fn from(facts: &Facts) -> proto::Facts {
        let range = |(min, max)| Some(proto::Range { min, max });
        proto::Facts {
            protocol: range(facts.protocol),
            required: facts.required,
            optional: facts.optional,
            levels: range(facts.levels),
            cluster: facts.cluster.map(Into::into),
            from: Some(from_peer(facts.from)),
            boot: facts.boot.0,
            membership: Some(from_log_id(facts.membership)),
            max_frame: facts.max_frame,
            boot_number: facts.boot_number,
            boots: facts.boots.iter().map(|boot| boot.0).collect(),
            address: facts.address.clone(),
            names: facts.names.map(from_peer),
            metadata: facts.metadata.clone(),
            machine: facts.machine.into(),
        }
    }
}

fn to_facts(facts: Option<proto::Facts>) -> Result<Facts, WireError> {
    let facts = facts.ok_or(WireError::Invalid("a handshake without the facts of its sender"))?;
    let range = |range: Option<proto::Range>| range.map_or((0, 0), |range| (range.min, range.max));
    if facts.address.len() > MAX_ADDRESS {
        return Err(WireError::Invalid("a handshake with too long an address"));
    }
    if facts.metadata.len() > MAX_METADATA {
        return Err(WireError::Invalid("a handshake with too much metadata"));
    }
    if facts.boots.len() > MAX_BOOTS || facts.boots.len() as u64 > facts.boot_number {
        return Err(WireError::Invalid("a handshake with too many boots"));
    }
    if facts.boots.last().is_some_and(|newest| *newest != facts.boot) {
        return Err(WireError::Invalid("a handshake whose boot is not the newest of its list"));
    }
    Ok(Facts {
        protocol: range(facts.protocol),
        required: facts.required,
        optional: facts.optional,
        levels: range(facts.levels),
        cluster: facts.cluster.map(Into::into),
        from: to_peer(facts.from.ok_or(WireError::Invalid("a handshake without a name"))?),
        boot: Boot(facts.boot),
        membership: to_log_id(facts.membership),
        max_frame: facts.max_frame,
        boot_number: facts.boot_number,
        boots: facts.boots.into_iter().map(Boot).collect(),
        address: facts.address,
        names: facts.names.map(to_peer),
        metadata: facts.metadata,
        // One above all that this version can count is newer than any.
        machine: u16::try_from(facts.machine).unwrap_or(u16::MAX),
    })
}

impl TryFrom<proto::Hello> for Hello {
    type Error = WireError;

    fn try_from(hello: proto::Hello) -> Result<Hello, WireError> {
        Ok(Hello {
            facts: to_facts(hello.facts)?,
            to: NodeId(hello.to),
            to_incarnation: hello.to_incarnation.map(Incarnation),
            purpose: Purpose::from_number(hello.purpose),
        })
    }
}

impl TryFrom<proto::Welcome> for Welcome {
    type Error = WireError;

    fn try_from(welcome: proto::Welcome) -> Result<Welcome, WireError> {
        Ok(Welcome { facts: to_facts(welcome.facts)? })
    }
}

impl From<proto::Refused> for Refused {
    fn from(refused: proto::Refused) -> Refused {
        Refused {
            reason: RefusedReason::from_number(refused.reason),
            text: refused.text,
            from: refused.from.map(to_peer).unwrap_or_default(),
            boot: Boot(refused.boot),
        }
    }
}

impl From<proto::Alarm> for Alarm {
    fn from(alarm: proto::Alarm) -> Alarm {
        let reason = AlarmReason::from_number(alarm.reason);
        Alarm { reason, boot: Boot(alarm.boot), number: alarm.number }
    }
}

impl From<proto::Close> for Close {
    fn from(close: proto::Close) -> Close {
        Close { reason: CloseReason::from_number(close.reason), text: close.text }
    }
}
