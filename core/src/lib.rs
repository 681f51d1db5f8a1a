//! The Raft consensus algorithm as a pure function: *the core moves indexes; the shell moves bytes.*
//!
//! [`Raft::step`] takes one [`Input`] and a moment, and returns an [`Output`]: what to send, what to
//! write, what is committed. It knows no disk, no network, no clock and no thread, and holds no payloads:
//! of the log it keeps only the runs of terms, the memberships and the marks. So the same core runs in
//! production, in a simulator and in a model checker, and everything it ever did can be replayed.
//!
//! §5.1 is a section of "In Search of an Understandable Consensus Algorithm (Extended Version)", the "paper";
//! "thesis" is Ongaro's "Consensus: Bridging Theory and Practice"; D5.1.3 is a rule of this design, in
//! `docs/design-rules.md`. The rest of this page tells Raft as this code does it, for somebody who knows neither. It
//! names the file to read at each step; `rules.rs` has the rules on one page (those of reads and leases on pages of their
//! own), and `tests/conversations/` shows nodes talking.
//!
//! # What it is for
//!
//! Several computers keep copies of the same data, so that it survives the loss of some of them. They must
//! agree on every change, and on the order of the changes, although messages get lost and computers stop at
//! any moment. If each copy starts out empty and takes the same changes in the same order, the copies are equal. So
//! all that must be agreed on is a list: the *log*. Its entries are numbered from 1, and the number of an entry is its
//! [`Index`]. The copy that takes the changes is the *state machine*; it lies outside of this crate, as do the entries'
//! bytes.
//!
//! A log entry is *committed* when it can never be lost or replaced any more: then, and not before, the
//! state machine may take it and the client may be told. Raft's promise is that no two nodes ever take
//! different committed entries at the same index (*State Machine Safety*), as long as disks keep what they
//! confirmed. That holds whatever the network does. To get anything done, more than half of the nodes must be up and
//! reach each other.
//!
//! # Terms, and one leader in each (§5.1)
//!
//! Time is cut into terms, numbered by [`Term`]. In each term at most one node *leads*: it alone decides
//! what is appended, and everybody else copies its log. A node that hears of a newer term enters it at once,
//! and stops leading if it led an older one. What is said in an older term is refused. So of two nodes that
//! both believe that they lead, the one of the older term is found out by the first message that matters
//! (`raft.rs`, where every message comes in).
//!
//! Every node is in one of three roles: a follower (`follower.rs`), a candidate (`candidate.rs`) or the
//! leader (`leader.rs`). `raft.rs` alone changes the role, as the role's own code decides; what all roles
//! have in common is in `shared.rs`.
//!
//! # Elections (§5.2; `candidate.rs`)
//!
//! The leader sends heartbeats. A follower that has heard none for its *election timeout* concludes that
//! there is no leader. It asks all others whether they would vote for it in the next term (`PreVote`, thesis,
//! section 9.6), which changes nothing anywhere. If a majority would, it enters the next term, votes for
//! itself, and asks them for their votes (`RequestVote`). With the votes of a majority it leads. Since any
//! two majorities have a node in common, and each node votes once in a term, no term has two leaders. A node
//! remembers on its disk which term it is in and whom it voted for ([`HardState`]): a vote that were forgotten
//! in a crash could be given twice.
//!
//! If two ask at once, the votes may split, and nobody is elected. Each timeout is drawn at random, so
//! that one node is first the next time. A node that hears a leader answers no to everybody (thesis, section
//! 4.2.3): one with a broken link cannot disturb a cluster that works.
//!
//! # Copying the log (§5.3; `leader.rs`, `follower.rs`, `log.rs`)
//!
//! The leader appends what it is [asked to](Input::Propose) and sends it on (`AppendEntries`). Each message
//! names the entry just before those that it carries, by index *and* term ([`LogId`]). A follower takes the
//! entries only if its own log holds that very entry. By induction, logs that agree on one entry agree on all
//! before it (*Log Matching*), so no contents need comparing.
//!
//! If the follower does not hold that entry, its log is shorter than the leader thought, or holds entries of an
//! older leader that were never committed. It says how far the two logs can agree at most; the leader tries
//! from there, further back each time, until it finds the place. What the follower has after it that
//! contradicts the leader's log is cut off. What the leader knows of each member is in `progress.rs`: how far
//! the logs agree (`matched`), what to send next (`next`), and whether it is still searching for the place
//! (`Probe`) or sends ahead without waiting for answers (`Replicate`).
//!
//! The follower answers with how far its log is durable *and* agrees with the leader's. Writing takes time: `disk.rs`
//! knows what is under way. In the meantime the node goes on hearing and answering.
//!
//! # Commitment (§5.4)
//!
//! An entry that a majority holds durably is committed, if it is of the leader's own term; and so is everything before
//! it. The leader counts itself as one of the majority, once its own disk has the entry. It tells the others with the
//! next message. Why must the entry be of its own term? Because an older one on a majority may still be replaced
//! (Figure 8; `tests/conversations/figure-8-d.txt`). A new leader therefore first appends an empty entry of its own.
//!
//! Nothing that is committed is lost in an election: voters refuse a candidate whose log is less up-to-date
//! than theirs, where a later last term wins, and then the longer log (§5.4.1). The committed entry is on a
//! majority, the candidate needs the votes of a majority, and so somebody would refuse who holds it.
//!
//! # Who takes part (§6; `membership.rs`, `leader/change.rs`)
//!
//! The list of nodes, the [`Membership`], is itself an entry of the log, the first one of every cluster
//! ([`Input::Bootstrap`]). It counts from the moment it is in the log, committed or not; if that entry is cut off, the
//! list before it counts again. Voters are disks rather than names: one whose disk was lost has forgotten its votes and
//! comes back as another [`Incarnation`], a stranger. A member without a vote, a *learner*, is sent the log like any other.
//!
//! To change the list, its leader appends another one ([`Input::ChangeMembership`]). If the same disks vote in both, that
//! is all. But if the voters differ, nodes that have the new list and nodes that do not could elect two leaders, each by
//! a majority of its own list. So a *joint* list comes between: while it is in force, whatever needs a majority needs one
//! of the old voters and one of the new voters. Once it is committed, whoever leads by then appends the new list alone.
//! One change goes on at a time, and none begins before the leader has committed an entry of its own term. Who is to vote
//! is a learner first and catches up, so that the cluster does not stop to wait for it.
//!
//! A leader that does not vote in the new list leads until that is committed, does not count itself meanwhile, and then
//! leaves. The others that lost their votes are told when it is certain, and then forgotten.
//!
//! # Snapshots (§7; `raft/install.rs`)
//!
//! The log would grow for ever. So the shell saves the state machine now and then, as it is after some entry: a
//! *snapshot*, which stands for all entries up to that one. When it is durable, the core lets the log go up to there
//! ([`Input::SnapshotSaved`], [`Output::purge`]); it remembers which entry was the last to go, since the next message may
//! follow it.
//!
//! A follower that lacks an entry which its leader has no more cannot be helped by entries. Its leader sees that in its
//! progress (`Snapshot`), and the shell sends the file of a snapshot, piece by piece (`InstallSnapshot`). Each piece is
//! judged by its term like any other message. When the file is whole and durable ([`Input::SnapshotReceived`]) there are
//! two cases. If the follower's log holds the snapshot's last entry, then it holds the leader's log up to there: all of it
//! is committed, and nothing else happens. If not, the log is reset: the writer drops every entry, and only when that is
//! durable does the log begin after the snapshot, the machine take its state from there ([`Output::installed`]), and the
//! leader hear of it. Until then the follower appends nothing and does not campaign. If it spoke earlier and lost its
//! power, it would start with neither its old log nor the new state.
//!
//! # Handing over (thesis, section 3.10; `leader/transfer.rs`, `raft/transfer.rs`)
//!
//! A leader can be told to let another voter lead ([`Input::TransferLeadership`]); it does so by itself when its disk
//! hangs, and when it does not vote any more. First its target catches up, while commands are taken as always. Then it
//! takes none, until the target's disk has all that its own log has, and whoever waited for an answer has one. Then it
//! sends `TimeoutNow`: the target campaigns at once and without asking first. Voters that hear a leader would refuse it,
//! so its request for votes names the leader that gave way, in its term. That leader steps down when it hears of the new
//! term. If that does not come about within an election timeout, it leads on and takes commands again.
//!
//! # Reading (thesis, section 6.4; `read.rs`)
//!
//! A leader that answers from its own copy may have been replaced without knowing. So it starts a
//! *round*: heartbeats with a new number. When a majority has echoed the number, it still led after the read arrived;
//! the round is confirmed, and the read may be served as soon as the machine has applied what was committed at the
//! start of the round. Followers serve reads too, at an index that they ask the leader for (`ReadIndex`).
//!
//! With a *lease* (`lease.rs`) it need not ask: its followers promise in their answers to depose nobody for a time, and as
//! long as a majority is bound nobody else can have committed anything. This alone trusts clocks, and is off by default.
//!
//! # What the shell has to do
//!
//! Give the core everything that happens, and carry out each [`Output`] as its fields say. Two of its rules carry the
//! proof. What is in [`Output::send_after_sync`] must not leave before the writes that were handed out until then are
//! durable; and a write is reported [done](Input::Persisted) when a power failure cannot undo it.
//!
//! ```
//! use coracle_core::{
//!     Boot, ClusterId, Incarnation, Index, Input, Member, Membership, NodeId, Peer, Raft, Restored, Settings, Tick, Ticket,
//! };
//!
//! let me = Peer { id: NodeId(1), incarnation: Incarnation(7) };
//! let mut node = Raft::new(me, Boot(1), Settings::default(), 42, Restored::default(), Tick(0)).unwrap();
//!
//! // Alone in its cluster, a node elects itself as soon as its vote is on the disk.
//! let member = Member { id: me.id, incarnation: me.incarnation, address: String::new() };
//! let membership = Membership::of_voters(ClusterId(1), [member]);
//! let written = node.step(Tick(0), Input::Bootstrap { ticket: Ticket(1), membership }).write.unwrap();
//! node.step(Tick(1), Input::Persisted(written.id));
//! let vote = node.step(Tick(2), Input::Tick).write.unwrap();
//! let noop = node.step(Tick(3), Input::Persisted(vote.id)).write.unwrap();
//! let done = node.step(Tick(4), Input::Persisted(noop.id));
//! assert_eq!(done.commit, Some(Index(2)));
//! assert!(node.is_leader());
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod candidate;
mod config;
mod disk;
mod display;
mod follower;
mod leader;
mod lease;
mod log;
mod membership;
mod message;
mod mutants;
mod output;
mod progress;
mod raft;
mod read;
mod rng;
mod rules;
mod shared;
mod status;
mod types;

pub use config::{BadSetting, Settings};
pub use membership::{Membership, Tally};
pub use message::{
    AppendEntries, AppendEntriesReply, Carried, Digest, Envelope, HandedOver, InstallSnapshot,
    InstallSnapshotReply, MachineStop, Message, ReadIndex, ReadIndexReply, Refusal, RequestVote,
    RequestVoteReply, TimeoutNow,
};
#[doc(hidden)]
pub use mutants::Broken;
pub use output::{
    Alarm, Dropped, GivenUp, Held, Input, Output, ReadGrant, Refused, RefusedReason, Replicate, TailChange,
    TransferEnd, Write,
};
pub use raft::{Raft, Restored};
pub use rules::MAX_VOTERS;
pub use status::{PeerStatus, RoleName, Status};
pub use types::{
    Boot, ClusterId, HardState, Incarnation, Index, LogId, Mark, Member, NodeId, Peer, Round, Run, Term,
    Tick, Ticket, WriteId,
};
