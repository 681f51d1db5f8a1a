//! The contract of a log store: our stores keep it, and stores that are wrong on purpose are found out.

mod map;
mod room;
mod stores;
mod wrong;
mod wrong_kinds;
