//! Replicated state machines with Raft: you write a [`StateMachine`], a [`Node`] gives you a cluster.
//!
//! Every node of a cluster runs your machine. [`Node::write`] replicates a command: once it is on the disks
//! of a majority, every node applies it, in the same order, and the caller gets the machine's reply.
//! [`Node::read`] asks the machine on any node, and never gets an older answer than any completed write
//! (linearizable). A cluster of 2f + 1 nodes goes on while any f of them are gone.
//!
//! ```
//! use coracle::snapshot::{self, Save};
//! use coracle::{Config, Context, Node, QueryContext, StateMachine, Storage};
//! use std::io;
//!
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     type Command = u64;
//!     type Reply = u64;
//!     type Query = ();
//!     type Answer = u64;
//!     fn apply(&mut self, _: &mut Context, by: u64) -> u64 {
//!         self.0 += by;
//!         self.0
//!     }
//!     fn query(&self, _: &QueryContext, (): ()) -> u64 {
//!         self.0
//!     }
//!     fn snapshot(&self) -> impl Save {
//!         snapshot::save(self.0)
//!     }
//!     fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
//!         snapshot::load(from).map(|saved| self.0 = saved)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::start(Config::new(1, "127.0.0.1:0", Storage::Memory), Counter(0)).await?;
//! node.set_configuration([(1, node.peer_addr().to_string())]).await?;
//! assert_eq!(node.write(5).await?, 5);
//! assert_eq!(node.read(()).await?, 5);
//! node.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! A cluster of three is on the first page of the README. What can go wrong is in [`WriteError`],
//! [`ReadError`], [`ConfigurationError`] and [`StartError`], grouped by what the caller can do next; the
//! settings are in [`Config`]; what to know before relying on it is in [`embedding`], and
//! how a program changes while its cluster goes on in [`upgrading`]. The consensus algorithm itself
//! is [`raft`], without I/O; [`storage`], [`transport`] and [`wire`] are public for tools and tests.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it gives |
//! | --- | --- |
//! | `tls` | [encrypted connections](Tls) between nodes and to clients, by whichever cryptography the process has installed in rustls |
//! | `ring`, `aws-lc-rs` | the same, with this cryptography |
//! | `sim` | the module `sim`: a simulator that runs whole clusters in one thread, from one seed and under every fault; `sim::kit` tests your machine in them, and `sim::history` judges whether what clients saw is linearizable |
//! | `contract` | the module `storage::contract`: what a log store must do, and a suite that tests any store by it |
//! | `mutants` | rules that `sim` can break by name, to show that it would notice; in no published binary |
//!
//! `cargo doc -p coracle --features sim,contract` shows them all.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod access;
mod alarms;
mod applier;
pub mod backup;
mod beginning;
mod bootstrap;
mod carrying;
mod changing;
pub mod client;
mod clock;
mod cluster_clock;
pub mod codec;
mod config;
mod courier;
#[cfg(test)]
mod courier_tests;
mod digests;
mod driver;
mod duties;
mod effects;
pub mod entry;
mod error;
mod events;
mod fencing;
mod files;
mod firing;
mod forwarding;
mod founding;
mod freshness;
mod given_up;
mod handover;
mod inbox;
#[cfg(test)]
mod inbox_tests;
mod inner;
mod joining;
mod lanes;
mod launch;
mod limits;
mod machine;
mod marking;
mod members;
mod mending;
mod moving;
#[cfg(feature = "mutants")]
mod mutants;
mod nesting;
mod node;
mod open;
mod outstanding;
mod own_disk;
mod pending;
mod place;
mod primitives;
mod proposal;
mod published;
mod put_off;
#[cfg(test)]
mod race;
mod reading;
pub mod rebuild;
mod rebuilding;
mod replacing;
mod replica;
mod replicated;
mod requests;
mod retrying;
mod rulings;
mod runtime;
mod serving;
mod session;
mod sessions;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
mod skipping;
mod slot;
pub mod snapshot;
#[cfg(test)]
mod snapshot_crashes;
mod snapshots;
mod state_machine;
mod status;
mod stopped_machines;
pub mod storage;
mod tail;
mod timers;
mod timings;
mod token;
mod transfer;
pub mod transport;
mod watching;
pub mod wire;
mod work;
mod writer;
#[cfg(test)]
mod writer_tests;
mod writing;

pub use access::Access;
pub use backup::{Backup, BackupError, BackupInfo};
pub use config::{Config, Lease, MachineThread, Storage};
pub use coracle_core as raft;
pub use duties::Effects;
pub use error::{
    Busy, Cause, ChangeError, ConfigurationError, EntryLookupError, Leader, ReadError, SessionError,
    SnapshotError, StartError, StopReason, TransferError, WatchError, WriteError, in_full,
};
pub use events::{Event, Position, Publishes};
pub use freshness::{Freshness, Seen};
pub use given_up::RebuildError;
pub use members::MemberChange;
pub use node::Node;
pub use outstanding::Effect;
pub use pending::{EffectError, EffectsFull, Token};
pub use replicated::Digest;
pub use rulings::{Ruling, RulingError, Verdict};
pub use session::Session;
pub use state_machine::{CodecError, Context, QueryContext, StateMachine};
pub use status::{
    MachineStopped, MemberStatus, Rebuilding, SnapshotStatus, SnapshotTransfer, Snapshots, Status,
};
pub use storage::{Engine, StoreError};
pub use timers::TimersFull;
pub use timings::{Histogram, Timings};
pub use token::JoinToken;
#[cfg(feature = "tls")]
pub use transport::{BlockingStream, Encrypted, TlsDialer, TlsError, TlsFiles, TlsMode};
pub use transport::{CertificateName, MemoryNetwork, Role, Tls};
pub use watching::Events;

// What the items above return or hold.
pub use bytes::Bytes;
pub use coracle_core::{
    ClusterId, GivenUp, Incarnation, Index, LogId, Member, Membership, NodeId, Peer, PeerStatus, RoleName,
    Run, Term,
};
pub use entry::{Entry, Kind, Stamp};
pub use proposal::{Numbered, Proposal};
pub use snapshot::Save;

#[doc = include_str!("../embedding.md")]
pub mod embedding {}

#[doc = include_str!("../upgrading.md")]
pub mod upgrading {}

#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
#[doc = include_str!("../testing-your-machine.md")]
pub mod testing_your_machine {}

/// The README's program, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
