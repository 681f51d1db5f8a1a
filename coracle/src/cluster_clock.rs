//! The cluster's clock, as one node keeps it.

/// The cluster's clock (D5.5.2): goes on from the newest time in the log by this node's monotonic clock, in
/// every role, so that it stands still for no election, never runs backwards, and no wall clock can make it
/// jump. Heartbeats pull it forward to the leader's, within bounds: who lies cannot make it race. To the millisecond: by
/// the core's ticks what is to last would end by up to a tick too early.
pub(crate) struct ClusterClock {
    /// What it showed at `at`.
    showed: u64,
    /// When that was by the monotonic clock, in milliseconds; none before the first event.
    at: Option<u64>,
}

impl ClusterClock {
    /// A clock that goes on from the newest time in the log.
    pub(crate) fn new(newest: u64) -> ClusterClock {
        ClusterClock { showed: newest, at: None }
    }

    /// It runs from the first event on.
    pub(crate) fn start(&mut self, now: u64) {
        self.at.get_or_insert(now);
    }

    /// It loses the time since it last showed one, for a mutant.
    pub(crate) fn stop(&mut self, now: u64) {
        self.at = Some(now);
    }

    fn since(&self, now: u64) -> u64 {
        self.at.map_or(0, |at| now.saturating_sub(at))
    }

    /// What it shows now.
    pub(crate) fn read(&self, now: u64) -> u64 {
        self.showed.saturating_add(self.since(now))
    }

    /// The log holds an entry of this time, so it is at least as late.
    pub(crate) fn saw(&mut self, now: u64, time: u64) {
        (self.showed, self.at) = (self.read(now).max(time), Some(now));
    }

    /// A leader says what its clock shows: believed at most 1.1 times as fast as this node's own runs.
    pub(crate) fn hear(&mut self, now: u64, time: u64) {
        let since = self.since(now);
        // A tenth of less is nothing, and would not add up.
        if since >= 10 {
            self.saw(now, time.min(self.showed.saturating_add(since.saturating_mul(11) / 10)));
        }
    }
}
