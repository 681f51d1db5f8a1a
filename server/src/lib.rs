//! A replicated key-value server that Redis clients can talk to, built on the [`coracle`] library.
//!
//! The program is `coracle`; this library is the same code with a handle for tests. Read it along the path
//! of a command: `connection` takes bytes from a client, `resp` finds the commands in them, `commands`
//! says what each one means, a batch of them goes through the log, `kv` applies it, and the outcomes go
//! back as replies.
#![forbid(unsafe_code)]

pub mod access;
pub mod accounts;
pub mod admin;
mod admission;
pub mod backups;
pub mod bench;
pub mod budget;
pub mod certs;
pub mod cli;
pub mod client;
pub mod clients;
pub mod cluster;
pub mod codec;
pub mod commands;
pub mod connection;
pub mod credentials;
pub mod demo;
pub mod descriptors;
pub mod diary;
pub mod doctor;
pub mod door;
pub mod entries;
mod failures;
pub mod fields;
pub mod figures;
mod fraction;
pub mod gate;
mod glob;
pub mod guests;
pub mod joining;
mod key;
pub mod kv;
pub mod log;
mod lookup;
pub mod members;
mod monitor;
mod operation;
pub mod passwords;
pub mod rebuild;
mod renewal;
pub mod report;
pub mod rescue;
pub mod resp;
pub mod roster;
pub mod secret;
pub mod serve;
pub mod session;
pub mod simulate;
pub mod store;
mod supervised;
mod transaction;
pub mod transfer;
mod user_commands;
pub mod users;
pub mod value;
pub mod waits;
