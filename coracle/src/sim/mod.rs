//! The simulator: whole clusters of the production code in one thread, from one seed.

pub mod history;
