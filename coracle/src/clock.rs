//! The clocks of a running node, read in one place.

use crate::replica::Moment;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now. The monotonic clock is the one that runs while the computer sleeps: a lease that ended meanwhile
/// must be seen to have ended.
pub(crate) fn now() -> Moment {
    let millis = since_boot().as_millis() as u64;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    Moment::new(millis, wall)
}

/// The processor's time that this thread has had.
pub(crate) fn of_this_thread() -> Duration {
    let had = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(had.tv_sec as u64, had.tv_nsec as u32)
}

/// The time since the computer started, asleep or not.
pub(crate) fn since_boot() -> Duration {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(boot.tv_sec as u64, boot.tv_nsec as u32)
}
