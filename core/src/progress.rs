//! What a leader knows of one follower, and how much it sends ahead.
//!
//! Entries are pipelined: `next` moves on when a message leaves, not when it is answered, and moves back
//! when the follower says that it misses something. A window of messages and bytes bounds what is under
//! way. While the two logs have not been matched yet, the window is a single message.

use crate::{Index, LogId, Round, Settings, Tick};
use alloc::collections::VecDeque;

/// A follower, or learner, as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    /// The newest index known to be durable there and equal to ours (Figure 2, `matchIndex`).
    pub(crate) matched: Index,
    /// The index of the next entry to send (Figure 2, `nextIndex`); always above `matched`.
    pub(crate) next: Index,
    /// Whether the logs are still being matched, so that one message at a time is enough.
    pub(crate) probing: bool,
    /// The `prev` of the [`Replicate`](crate::Replicate) that the driver has not reported on yet.
    pub(crate) open: Option<LogId>,
    /// Where the logs could match at most when it last had to go back, and the newest round at that time.
    backed_off: (Index, Round),
    /// When the driver could not send: nothing more for one heartbeat interval from then.
    pub(crate) paused: Option<Tick>,
    /// The messages under way: the last index and the bytes of each.
    in_flight: VecDeque<(Index, u64)>,
    in_flight_bytes: u64,
    /// The newest round that it has echoed.
    pub(crate) round: Round,
    /// The oldest heartbeat that it has not answered, or else the newest: its round, and `matched` as it was then.
    pub(crate) heartbeat: (Round, Index),
    /// When it last answered in this term.
    pub(crate) heard: Tick,
    /// Whether it has lost entries that it had acknowledged. Its acknowledgements count no more.
    pub(crate) lost_entries: bool,
    /// How far its machine has applied.
    pub(crate) applied: Index,
    /// Where its log ends, durable or not, as it last said.
    pub(crate) last: Index,
}

impl Progress {
    pub(crate) fn new(next: Index, now: Tick) -> Progress {
        Progress {
            matched: Index::ZERO,
            next,
            probing: true,
            backed_off: (Index(u64::MAX), Round(0)),
            open: None,
            paused: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            round: Round(0),
            heartbeat: (Round(0), Index::ZERO),
            heard: now,
            lost_entries: false,
            applied: Index::ZERO,
            last: Index::ZERO,
        }
    }

    /// What counts towards the commit index.
    pub(crate) fn counted(&self) -> Index {
        if self.lost_entries { Index::ZERO } else { self.matched }
    }

    /// How many bytes may leave now; none if the window is full or the driver is busy with this follower.
    pub(crate) fn budget(&self, settings: &Settings) -> Option<u64> {
        let window = if self.probing { 1 } else { settings.inflight_messages };
        let bytes = settings.inflight_bytes.saturating_sub(self.in_flight_bytes);
        let free = self.open.is_none() && self.paused.is_none() && self.in_flight.len() < window && bytes > 0;
        free.then(|| bytes.min(settings.message_bytes))
    }

    /// The open request left as a message.
    pub(crate) fn on_sent(&mut self, prev: LogId, last: Index, bytes: u64) {
        let asked = self.open.take();
        // The follower may have asked to go back since; what left is then only a harmless extra.
        if asked == Some(prev) && prev.index.next() == self.next && last >= self.next {
            self.next = last.next();
            self.in_flight.push_back((last, bytes));
            self.in_flight_bytes += bytes;
        }
    }

    /// The open request was given up.
    pub(crate) fn on_unsent(&mut self, now: Tick) {
        self.open = None;
        self.paused = Some(now);
    }

    /// The follower holds our log up to `matched` for good. True if that is news.
    pub(crate) fn on_matched(&mut self, matched: Index) -> bool {
        while let Some((last, bytes)) = self.in_flight.front()
            && *last <= matched
        {
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
        if matched <= self.matched {
            return false;
        }
        self.matched = matched;
        self.next = self.next.max(matched.next());
        true
    }

    /// The follower's log can match at most up to `limit`; it says so knowing round `heard`, while the
    /// newest is `newest`. False if that is an old answer, or one of many to messages that left together.
    pub(crate) fn on_conflict(&mut self, limit: Index, heard: Round, newest: Round) -> bool {
        let (backed_off, since) = self.backed_off;
        let repeated = self.probing && limit >= backed_off && heard <= since;
        if limit < self.matched || limit.next() > self.next || repeated {
            return false;
        }
        self.backed_off = (limit, newest);
        self.next = limit.next();
        self.probing = true;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        true
    }

    /// The follower's log ends at `last`, before what it had acknowledged. It is brought up again from there,
    /// but nothing that it says of its disk counts in this term any more.
    pub(crate) fn on_lost_entries(&mut self, last: Index) {
        self.lost_entries = true;
        self.matched = Index::ZERO;
        self.next = last.next();
        self.probing = true;
        self.backed_off = (Index(u64::MAX), Round(0));
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    pub(crate) fn in_flight(&self) -> (usize, u64) {
        (self.in_flight.len(), self.in_flight_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched_up_to(index: u64) -> Progress {
        let mut progress = Progress::new(Index(index + 1), Tick(0));
        progress.on_matched(Index(index));
        progress.probing = false;
        progress
    }

    fn send(progress: &mut Progress, last: u64, bytes: u64) {
        let prev = LogId { index: progress.next.prev(), ..LogId::ZERO };
        progress.open = Some(prev);
        progress.on_sent(prev, Index(last), bytes);
    }

    #[test]
    fn the_window_closes_by_messages_and_by_bytes_and_opens_with_acknowledgements() {
        let settings =
            Settings { inflight_messages: 2, inflight_bytes: 10, message_bytes: 6, ..Settings::default() };
        let mut progress = matched_up_to(1);
        assert_eq!(progress.budget(&settings), Some(6));
        send(&mut progress, 2, 6);
        assert_eq!(progress.budget(&settings), Some(4), "what the bytes under way leave");
        send(&mut progress, 3, 1);
        assert_eq!(progress.budget(&settings), None, "two messages");
        progress.on_matched(Index(2));
        assert_eq!((progress.in_flight(), progress.budget(&settings)), ((1, 1), Some(6)));
        send(&mut progress, 4, 50);
        progress.on_matched(Index(3));
        assert_eq!(progress.budget(&settings), None, "a single entry may be larger than the window");
        progress.on_matched(Index(4));
        assert_eq!((progress.in_flight(), progress.budget(&settings)), ((0, 0), Some(6)));
    }

    #[test]
    fn one_request_is_open_at_a_time() {
        let settings = Settings::default();
        let mut progress = matched_up_to(1);
        progress.open = Some(LogId::new(0, 1));
        assert_eq!(progress.budget(&settings), None);
        progress.on_unsent(Tick(5));
        assert_eq!((progress.open, progress.paused, progress.budget(&settings)), (None, Some(Tick(5)), None));
        progress.paused = None;
        assert!(progress.budget(&settings).is_some());
    }

    #[test]
    fn a_report_moves_next_only_where_it_continues_the_log() {
        let mut progress = matched_up_to(1);
        let prev = LogId::new(0, 1);
        for (open, reported) in [(None, prev), (Some(prev), LogId::new(0, 2)), (Some(LogId::new(0, 2)), prev)]
        {
            progress.open = open;
            progress.on_sent(reported, Index(9), 1);
            assert_eq!((progress.next, progress.open), (Index(2), None));
        }
        progress.open = Some(prev);
        progress.on_sent(prev, Index(1), 0);
        assert_eq!((progress.next, progress.in_flight()), (Index(2), (0, 0)), "an empty one moves nothing");
    }

    #[test]
    fn a_conflict_goes_back_but_never_below_what_is_matched_nor_forward() {
        let limit = |index| LogId::new(1, index).index;
        let mut progress = matched_up_to(3);
        send(&mut progress, 9, 1);
        assert!(!progress.on_conflict(limit(2), Round(1), Round(1)), "below what is matched: an old answer");
        assert!(!progress.on_conflict(limit(10), Round(1), Round(1)), "ahead of what was sent");
        assert!(progress.on_conflict(limit(6), Round(1), Round(1)));
        assert_eq!((progress.next, progress.probing, progress.in_flight()), (Index(7), true, (0, 0)));
        assert!(!progress.on_conflict(limit(6), Round(1), Round(1)), "one of many that left together");
        assert!(progress.on_conflict(limit(5), Round(1), Round(1)), "further back is news");
        assert!(progress.on_conflict(limit(5), Round(2), Round(2)), "and so is the same, a round later");
    }
}
