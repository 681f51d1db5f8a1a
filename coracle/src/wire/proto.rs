//! The metas of the frames, as `prost` sees them.
//!
//! The tags are the protocol: one that was ever used is never given another meaning. Numbers that are random
//! bits are `fixed64`, the others varints, and what is zero takes no space. Fields that matter even when they
//! are zero are optional, so that "absent" is not mistaken for them. Reserved tags are listed in
//! `docs/wire-format.md`.

use bytes::Bytes;
use prost::Message;

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct LogId {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(uint64, tag = "2")]
    pub(super) index: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Peer {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) incarnation: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ClusterId {
    #[prost(fixed64, tag = "1")]
    pub(super) high: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) low: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Range {
    #[prost(uint32, tag = "1")]
    pub(super) min: u32,
    #[prost(uint32, tag = "2")]
    pub(super) max: u32,
}

// The handshake.

#[derive(Clone, PartialEq, Message)]
pub(super) struct Facts {
    #[prost(message, optional, tag = "1")]
    pub(super) protocol: Option<Range>,
    #[prost(fixed64, tag = "2")]
    pub(super) required: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) optional: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) levels: Option<Range>,
    #[prost(message, optional, tag = "5")]
    pub(super) cluster: Option<ClusterId>,
    #[prost(message, optional, tag = "6")]
    pub(super) from: Option<Peer>,
    #[prost(fixed64, tag = "7")]
    pub(super) boot: u64,
    #[prost(message, optional, tag = "8")]
    pub(super) membership: Option<LogId>,
    #[prost(uint32, tag = "9")]
    pub(super) max_frame: u32,
    #[prost(uint64, tag = "10")]
    pub(super) boot_number: u64,
    #[prost(fixed64, repeated, tag = "11")]
    pub(super) boots: Vec<u64>,
    #[prost(string, tag = "12")]
    pub(super) address: String,
    #[prost(message, optional, tag = "13")]
    pub(super) names: Option<Peer>,
    #[prost(bytes = "bytes", tag = "14")]
    pub(super) metadata: Bytes,
    #[prost(uint32, tag = "15")]
    pub(super) machine: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Hello {
    #[prost(message, optional, tag = "1")]
    pub(super) facts: Option<Facts>,
    #[prost(uint64, tag = "2")]
    pub(super) to: u64,
    #[prost(fixed64, optional, tag = "3")]
    pub(super) to_incarnation: Option<u64>,
    #[prost(uint32, tag = "4")]
    pub(super) purpose: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Welcome {
    #[prost(message, optional, tag = "1")]
    pub(super) facts: Option<Facts>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Refused {
    #[prost(uint32, tag = "1")]
    pub(super) reason: u32,
    #[prost(string, tag = "2")]
    pub(super) text: String,
    #[prost(message, optional, tag = "3")]
    pub(super) from: Option<Peer>,
    #[prost(fixed64, tag = "4")]
    pub(super) boot: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Close {
    #[prost(uint32, tag = "1")]
    pub(super) reason: u32,
    #[prost(string, tag = "2")]
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Ping {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Alarm {
    #[prost(uint32, tag = "1")]
    pub(super) reason: u32,
    #[prost(fixed64, tag = "2")]
    pub(super) boot: u64,
    #[prost(uint64, tag = "3")]
    pub(super) number: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Place {
    #[prost(message, optional, tag = "1")]
    pub(super) peer: Option<Peer>,
    #[prost(fixed64, tag = "2")]
    pub(super) boot: u64,
    #[prost(string, tag = "3")]
    pub(super) address: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Places {
    #[prost(message, repeated, tag = "1")]
    pub(super) places: Vec<Place>,
}

// Before there is a cluster.

#[derive(Clone, PartialEq, Message)]
pub(super) struct FoundingAsk {
    #[prost(uint32, tag = "1")]
    pub(super) step: u32,
    #[prost(uint64, tag = "2")]
    pub(super) round: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) token: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FoundingAnswer {
    #[prost(uint32, tag = "1")]
    pub(super) outcome: u32,
    #[prost(uint64, tag = "2")]
    pub(super) node: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) cluster: Option<ClusterId>,
    #[prost(string, tag = "4")]
    pub(super) text: String,
}

// Consensus. Every message starts with a route, in tag 1.

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Route {
    #[prost(message, optional, tag = "1")]
    pub(super) from: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    pub(super) to: Option<Peer>,
    #[prost(message, optional, tag = "3")]
    pub(super) membership: Option<LogId>,
}

/// A leader that gave way, in RequestVote.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct HandedOver {
    #[prost(message, optional, tag = "1")]
    pub(super) by: Option<Peer>,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct RequestVote {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) campaign: u64,
    #[prost(bool, tag = "3")]
    pub(super) pre: bool,
    #[prost(message, optional, tag = "4")]
    pub(super) handed_over: Option<HandedOver>,
    #[prost(message, optional, tag = "5")]
    pub(super) last: Option<LogId>,
    #[prost(fixed64, tag = "6")]
    pub(super) question: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct RequestVoteReply {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) campaign: u64,
    #[prost(bool, tag = "3")]
    pub(super) pre: bool,
    #[prost(uint64, tag = "4")]
    pub(super) term: u64,
    #[prost(bool, tag = "5")]
    pub(super) granted: bool,
    #[prost(uint32, tag = "6")]
    pub(super) refusal: u32,
    #[prost(uint64, tag = "7")]
    pub(super) leader: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) question: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct AppendEntries {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) prev: Option<LogId>,
    #[prost(uint64, tag = "4")]
    pub(super) count: u64,
    #[prost(uint64, tag = "5")]
    pub(super) commit: u64,
    #[prost(uint64, tag = "6")]
    pub(super) round: u64,
    #[prost(uint64, tag = "7")]
    pub(super) lease: u64,
    #[prost(uint64, tag = "8")]
    pub(super) persisted: u64,
    #[prost(uint64, tag = "9")]
    pub(super) disk_age: u64,
    #[prost(uint64, tag = "10")]
    pub(super) time: u64,
    #[prost(message, optional, tag = "11")]
    pub(super) agreed: Option<Digest>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct AppendEntriesReply {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(uint64, tag = "3")]
    pub(super) round: u64,
    #[prost(uint64, tag = "4")]
    pub(super) promised: u64,
    #[prost(uint64, tag = "5")]
    pub(super) matched: u64,
    #[prost(uint64, tag = "6")]
    pub(super) last: u64,
    #[prost(message, optional, tag = "7")]
    pub(super) conflict: Option<LogId>,
    #[prost(uint64, tag = "8")]
    pub(super) applied: u64,
    #[prost(uint64, tag = "10")]
    pub(super) disk_age: u64,
    #[prost(message, optional, tag = "12")]
    pub(super) digest: Option<Digest>,
    #[prost(message, optional, tag = "13")]
    pub(super) stop: Option<MachineStop>,
    #[prost(uint64, optional, tag = "14")]
    pub(super) wants: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct MachineStop {
    #[prost(message, optional, tag = "1")]
    pub(super) at: Option<LogId>,
    #[prost(uint64, tag = "2")]
    pub(super) after: u64,
}

/// The digest is 16 bytes: `low` is the first eight, `high` the others, both little-endian.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Digest {
    #[prost(uint64, tag = "1")]
    pub(super) index: u64,
    #[prost(uint32, tag = "2")]
    pub(super) format: u32,
    #[prost(uint32, tag = "3")]
    pub(super) version: u32,
    #[prost(fixed64, tag = "4")]
    pub(super) low: u64,
    #[prost(fixed64, tag = "5")]
    pub(super) high: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ReadIndex {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) boot: u64,
    #[prost(uint64, tag = "4")]
    pub(super) sequence: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct ReadIndexReply {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) boot: u64,
    #[prost(uint64, tag = "4")]
    pub(super) sequence: u64,
    #[prost(uint64, optional, tag = "5")]
    pub(super) index: Option<u64>,
}

/// Type 22.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InstallSnapshot {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) snapshot: Option<LogId>,
    #[prost(fixed64, tag = "4")]
    pub(super) file: u64,
    #[prost(uint64, tag = "5")]
    pub(super) length: u64,
    #[prost(uint64, tag = "6")]
    pub(super) offset: u64,
}

/// Type 23.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InstallSnapshotReply {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) snapshot: Option<LogId>,
    #[prost(fixed64, tag = "4")]
    pub(super) file: u64,
    #[prost(uint64, tag = "5")]
    pub(super) next: u64,
}

/// Type 24.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct TimeoutNow {
    #[prost(message, optional, tag = "1")]
    pub(super) route: Option<Route>,
    #[prost(uint64, tag = "2")]
    pub(super) term: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) last: Option<LogId>,
}

// Forwarded writes.

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Forward {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) time_left: u64,
    #[prost(uint64, tag = "3")]
    pub(super) session: u64,
    #[prost(uint64, tag = "4")]
    pub(super) sequence: u64,
    #[prost(uint64, tag = "5")]
    pub(super) term: u64,
    #[prost(uint32, tag = "6")]
    pub(super) what: u32,
    #[prost(uint32, tag = "7")]
    pub(super) lane: u32,
    #[prost(uint64, tag = "8")]
    pub(super) acknowledged: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ForwardReply {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) failure: Option<Failure>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Failure {
    #[prost(uint32, tag = "1")]
    pub(super) code: u32,
    #[prost(string, tag = "2")]
    pub(super) text: String,
    #[prost(uint64, tag = "3")]
    pub(super) leader: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) stop: Option<Stop>,
    #[prost(uint32, tag = "5")]
    pub(super) needs: u32,
    #[prost(uint32, tag = "6")]
    pub(super) all_have: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Stop {
    #[prost(uint32, tag = "1")]
    pub(super) code: u32,
    #[prost(string, tag = "2")]
    pub(super) text: String,
    #[prost(string, tag = "3")]
    pub(super) at: String,
    #[prost(message, optional, tag = "4")]
    pub(super) id: Option<LogId>,
}

// Clients.

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Query {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) time_left: u64,
    #[prost(uint32, tag = "3")]
    pub(super) mode: u32,
    #[prost(uint64, tag = "4")]
    pub(super) bound: u64,
    #[prost(uint32, tag = "5")]
    pub(super) number: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QueryReply {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) failure: Option<Failure>,
    #[prost(message, optional, tag = "3")]
    pub(super) applied: Option<LogId>,
    #[prost(uint64, optional, tag = "4")]
    pub(super) age: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Watched {
    #[prost(message, repeated, tag = "1")]
    pub(super) events: Vec<Event>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) compacted: Option<u64>,
    #[prost(bool, tag = "3")]
    pub(super) off: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(uint64, tag = "1")]
    pub(super) index: u64,
    #[prost(uint32, tag = "2")]
    pub(super) number: u32,
    #[prost(uint64, tag = "3")]
    pub(super) cluster_time: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) payload: Bytes,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Directory {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) leader: Option<Peer>,
    #[prost(message, optional, tag = "3")]
    pub(super) newest: Option<LogId>,
    #[prost(uint32, tag = "4")]
    pub(super) machine: u32,
}

// The payload of an entry of kind Membership.

#[derive(Clone, PartialEq, Message)]
pub(super) struct Membership {
    #[prost(message, optional, tag = "1")]
    pub(super) cluster: Option<ClusterId>,
    #[prost(message, repeated, tag = "2")]
    pub(super) members: Vec<Member>,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) voters: Vec<u64>,
    #[prost(message, repeated, tag = "4")]
    pub(super) outgoing: Vec<Member>,
    #[prost(message, repeated, tag = "5")]
    pub(super) marks: Vec<Mark>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Mark {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) issued: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Member {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) incarnation: u64,
    #[prost(string, tag = "3")]
    pub(super) address: String,
}
