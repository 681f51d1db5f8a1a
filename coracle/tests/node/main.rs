//! Whole nodes, several in this process, over real sockets and disks: what a program that embeds the library meets.
//!
//! One binary, since each would have the whole of a node in it. What counts this process's threads or descriptors
//! stands beside it, alone.

#[path = "../common/mod.rs"]
mod common;

mod api;
#[path = "../common/authority.rs"]
mod authority;
mod client;
mod client_doors;
mod client_reads;
mod cluster;
mod costs;
mod divergence;
mod effects;
mod encoding;
mod events;
mod founding;
mod joining;
mod leases;
mod machine;
mod marks;
mod members;
mod mending;
mod moves;
mod network;
mod office;
mod own_disk;
mod reads;
mod rebuild;
mod sessions;
mod snapshots;
mod stops;
mod timers;
mod transfer;
mod upgrade;
