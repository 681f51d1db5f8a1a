//! The TCP transport over loopback: who may talk to whom, and what happens when somebody stops talking.
//!
//! Nothing here sleeps to let something happen: each test waits for the event itself, for as long as a test may
//! take. The names of hazards (TR-2 and the like) say which failures of other systems a test is about.

#[path = "../common/authority.rs"]
mod authority;
mod binding;
#[path = "../common/mod.rs"]
mod common;
mod copies;
mod failures;
mod kit;
mod limits;
mod memory;
mod moves;
mod refusals;
mod secure;
mod talk;
