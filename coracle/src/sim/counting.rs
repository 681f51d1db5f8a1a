//! Clusters without threads, clocks, sockets and disks, in which what a write costs can be counted: it is the same every time.

mod alone;
mod row;

pub use alone::Alone;
pub use row::Row;
