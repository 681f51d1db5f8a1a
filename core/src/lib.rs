//! The Raft consensus algorithm as a pure function: *the core moves indexes; the shell moves bytes.*
//!
//! [`Raft::step`] takes one [`Input`] and a moment, and returns an [`Output`]: what to send, what to
//! write, what is committed. It knows no disk, no network, no clock and no thread, and holds no payloads:
//! of the log it keeps only the runs of terms, the memberships and the marks. So the same core runs in
//! production, in a simulator and in a model checker, and everything it ever did can be replayed.
//!
//! Section numbers are those of "In Search of an Understandable Consensus Algorithm (Extended Version)";
//! "thesis" is Ongaro's "Consensus: Bridging Theory and Practice".
//!
//! ```
//! use coracle_core::*;
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
pub use message::*;
#[doc(hidden)]
pub use mutants::Broken;
pub use output::*;
pub use raft::{Raft, Restored};
pub use status::{PeerStatus, RoleName, Status};
pub use types::*;
