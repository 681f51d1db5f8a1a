//! What a leader knows of one member, and how much it sends ahead.
//!
//! Entries are pipelined: `next` moves on when a message leaves, not when it is answered, and moves back
//! when the follower says that it misses something. A window of messages and bytes bounds what is under
//! way. While the two logs have not been matched yet, the window is a single message.
//!
//! The leader keeps such a record of itself as well, so that whoever asks a quorum asks all members alike.

use crate::rules::Rules;
use crate::{AppendEntriesReply, Index, LogId, Round, Settings, Tick};
use alloc::collections::VecDeque;

/// A member as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    /// Where it stands.
    state: State,
    /// The newest index known to be durable there and equal to ours (Figure 2, `matchIndex`).
    pub(crate) matched: Index,
    /// The index of the next entry to send (Figure 2, `nextIndex`); always above `matched`.
    pub(crate) next: Index,
    /// The `prev` of the [`Replicate`](crate::Replicate) that the driver has not reported on yet.
    pub(crate) open: Option<LogId>,
    /// When the driver could not send: nothing more for one heartbeat interval from then.
    pub(crate) paused: Option<Tick>,
    /// The messages under way: the last index and the bytes of each.
    in_flight: VecDeque<(Index, u64)>,
    in_flight_bytes: u64,
    /// The newest round that it has echoed.
    pub(crate) round: Round,
    /// The oldest heartbeat that it has not answered, or else the newest: its round, and `matched` as it was then.
    heartbeat: (Round, Index),
    /// Until when, by the leader's clock, it certainly deposes nobody (D5.4.3).
    promised: Tick,
    /// When it last answered in this term.
    heard: Tick,
    /// The round in which it catches up (thesis, section 4.2.1): where the log ended when that began, and when that was.
    catching_up: (Index, Tick),
    /// How long the round before took, in ticks.
    last_round: Option<u64>,
    /// How far its machine has applied.
    pub(crate) applied: Index,
    /// Where its log ends, durable or not, as it last said.
    pub(crate) last: Index,
}

/// Where a member stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The leader itself: its log is the leader's, and nothing is sent to it.
    Own,
    /// Another node, on this way to the leader's log.
    Trusted(Way),
    /// It lost entries that it had acknowledged. It is brought up again, but nothing that it says of its disk counts in
    /// this term any more.
    Distrusted(Way),
}

/// How a member comes to hold the leader's log.
///
/// ```text
///             no conflict
///     Probe  <----------->  Replicate
///        |     conflict       ^   |
///        | purged   installed |   | purged
///        +---->  Snapshot ----+<--+
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The logs are being matched, so that one message at a time is enough.
    Probe(Probe),
    /// The logs match: messages are sent ahead.
    Replicate,
    /// It lacks entries that the leader has no more: it is sent a snapshot, and no entries.
    Snapshot,
}

/// A search for the place where two logs part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Probe {
    /// Where the logs could match at most when it last had to go back, and the newest round at that time.
    backed_off: Option<(Index, Round)>,
}

impl Probe {
    const NEW: Probe = Probe { backed_off: None };
}

impl Progress {
    /// A member that the leader has sent nothing yet.
    pub(crate) fn new(next: Index, now: Tick) -> Progress {
        Progress {
            state: State::Trusted(Way::Probe(Probe::NEW)),
            matched: Index::ZERO,
            next,
            open: None,
            paused: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            round: Round(0),
            heartbeat: (Round(0), Index::ZERO),
            promised: Tick::default(),
            heard: now,
            catching_up: (next.prev(), now),
            last_round: None,
            applied: Index::ZERO,
            last: Index::ZERO,
        }
    }

    /// The leader's record of itself, whose log is durable up to `matched`.
    pub(crate) fn own(matched: Index, now: Tick) -> Progress {
        Progress { state: State::Own, matched, ..Progress::new(matched.next(), now) }
    }

    /// Whether this is another node, to which messages are sent.
    pub(crate) fn is_peer(&self) -> bool {
        self.state != State::Own
    }

    /// Whether the logs are still being matched.
    pub(crate) fn is_probing(&self) -> bool {
        self.probe().is_some()
    }

    /// Whether it lost entries that it had acknowledged.
    pub(crate) fn is_distrusted(&self) -> bool {
        matches!(self.state, State::Distrusted(_))
    }

    /// Whether it lacks entries that the leader has no more.
    pub(crate) fn needs_snapshot(&self) -> bool {
        self.way() == Some(Way::Snapshot)
    }

    fn way(&self) -> Option<Way> {
        match self.state {
            State::Own => None,
            State::Trusted(way) | State::Distrusted(way) => Some(way),
        }
    }

    fn probe(&self) -> Option<Probe> {
        match self.way() {
            Some(Way::Probe(probe)) => Some(probe),
            _ => None,
        }
    }

    /// Goes another way, and is trusted as before.
    fn go(&mut self, way: Way) {
        self.state = match self.state {
            State::Own => State::Own,
            State::Trusted(_) => State::Trusted(way),
            State::Distrusted(_) => State::Distrusted(way),
        };
    }

    /// What counts towards the commit index.
    pub(crate) fn counted(&self) -> Index {
        if self.is_distrusted() { Index::ZERO } else { self.matched }
    }

    /// When it was last known to follow. One that does not help to commit does not help its leader to stay either:
    /// a new term trusts it anew.
    pub(crate) fn heard(&self, now: Tick) -> Tick {
        match self.state {
            State::Own => now,
            State::Distrusted(_) => Tick::default(),
            State::Trusted(_) => self.heard,
        }
    }

    /// Until when it certainly deposes nobody. The leader itself does not while it leads.
    pub(crate) fn promised(&self) -> Tick {
        match self.state {
            State::Own => Tick(u64::MAX),
            State::Distrusted(_) => Tick::default(),
            State::Trusted(_) => self.promised,
        }
    }

    /// It has promised to depose nobody until then.
    pub(crate) fn on_promise(&mut self, until: Tick) {
        self.promised = self.promised.max(until);
    }

    /// Whether it has answered an AppendEntries in this term: the first round of a leader is not 0.
    pub(crate) fn has_answered(&self) -> bool {
        !self.is_peer() || self.round > Round(0)
    }

    /// For how long it has not answered.
    pub(crate) fn silent_for(&self, now: Tick) -> u64 {
        now.since(self.heard)
    }

    /// Whether it answers, and can be brought up to date from the log.
    pub(crate) fn is_reachable(&self, now: Tick, election_min: u64) -> bool {
        self.silent_for(now) < election_min && !self.needs_snapshot() && !self.is_distrusted()
    }

    /// How many bytes may leave now; none if the window is full or the driver is busy with this follower.
    pub(crate) fn budget(&self, rules: Rules, settings: &Settings) -> Option<u64> {
        let window = if self.is_probing() { 1 } else { settings.inflight_messages };
        let bytes = settings.inflight_bytes.saturating_sub(self.in_flight_bytes);
        let free = !self.needs_snapshot()
            && self.open.is_none()
            && self.paused.is_none()
            && rules.window_is_open(self.in_flight.len(), window, bytes);
        free.then(|| bytes.min(settings.message_bytes))
    }

    /// The open request left as a message.
    pub(crate) fn on_sent(&mut self, rules: Rules, prev: LogId, last: Index, bytes: u64) {
        let wanted = self.wants(prev);
        self.open = rules.open_after_report(self.open);
        if rules.moves_next(wanted, last, self.next) {
            self.next = last.next();
            self.in_flight.push_back((last, bytes));
            self.in_flight_bytes += bytes;
        }
    }

    /// Whether the open request, the one after `prev`, still asks for what goes next. The follower may have asked to
    /// go back since, or what left before it may not have left after all.
    pub(crate) fn wants(&self, prev: LogId) -> bool {
        self.open == Some(prev) && prev.index.next() == self.next
    }

    /// The request after `prev` was given up: the open one, or one that was said to have left. What it would have
    /// brought is sent again, with all that left after it, and which its receiver cannot use.
    pub(crate) fn on_unsent(&mut self, now: Tick, prev: LogId) {
        if self.open == Some(prev) {
            let wanted = self.wants(prev);
            self.open = None;
            if !wanted {
                return;
            }
        }
        while let Some((last, bytes)) = self.in_flight.back()
            && *last > prev.index
        {
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_back();
        }
        self.next = self.next.min(prev.index.next()).max(self.matched.next());
        self.paused = Some(now);
    }

    /// A heartbeat of `round` was sent, and the leader has echoed its own at once. The oldest unanswered one is kept:
    /// constant reads start rounds faster than they are answered.
    pub(crate) fn on_round(&mut self, round: Round) {
        if self.round >= self.heartbeat.0 {
            self.heartbeat = (round, self.matched);
        }
        if self.state == State::Own {
            self.round = round;
        }
    }

    /// It answered. What it has lost, if it has lost what it had
    /// acknowledged before the heartbeat that it answers left.
    pub(crate) fn on_answer(&mut self, rules: Rules, now: Tick, reply: &AppendEntriesReply) -> Option<Index> {
        let AppendEntriesReply { round, applied, last, .. } = *reply;
        self.heard = now;
        self.round = self.round.max(round);
        self.applied = self.applied.max(applied);
        self.last = last;
        let (of, acknowledged) = self.heartbeat;
        let lost = rules.has_lost_entries(round >= of, last, acknowledged) && !self.is_distrusted();
        if lost {
            self.on_lost_entries(last);
        }
        lost.then_some(acknowledged)
    }

    /// The follower holds our log up to `matched` for good. True if that is news.
    pub(crate) fn on_matched(&mut self, rules: Rules, matched: Index) -> bool {
        while let Some((last, bytes)) = self.in_flight.front()
            && *last <= matched
        {
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
        let news = matched > self.matched;
        self.matched = rules.match_index(self.matched, matched);
        self.next = self.next.max(self.matched.next());
        news
    }

    /// Ends its round of catching up, if it has come so far, and begins the next, up to `last`.
    pub(crate) fn on_round_of_catching_up(&mut self, rules: Rules, now: Tick, last: Index) {
        let (upto, began) = self.catching_up;
        if rules.ends_round_of_catching_up(self.counted(), upto) {
            self.last_round = Some(now.since(began));
            self.catching_up = (last, now);
        }
    }

    /// Whether the newest rounds were short: it has all but what came within so many ticks.
    pub(crate) fn is_caught_up(&self, rules: Rules, now: Tick, limit: u64) -> bool {
        let (_, began) = self.catching_up;
        !self.needs_snapshot() && rules.is_caught_up(self.last_round, now.since(began), limit)
    }

    /// The follower's log can match at most up to `limit`; it says so knowing round `heard`, while the
    /// newest is `newest`. False if that is an old answer, or one of many to messages that left together.
    pub(crate) fn on_conflict(&mut self, rules: Rules, limit: Index, heard: Round, newest: Round) -> bool {
        let backed_off = self.probe().and_then(|probe| probe.backed_off);
        let repeated = backed_off.is_some_and(|(at, since)| limit >= at && heard <= since);
        if self.needs_snapshot() || !rules.may_back_up(limit, self.matched, self.next) || repeated {
            return false;
        }
        self.next = limit.next();
        self.go(Way::Probe(Probe { backed_off: Some((limit, newest)) }));
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        true
    }

    /// The follower took what it was sent: the logs match.
    pub(crate) fn on_no_conflict(&mut self) {
        if self.is_probing() {
            self.go(Way::Replicate);
        }
    }

    /// What it lacks next is not in the log any more.
    pub(crate) fn on_purged(&mut self) {
        self.go(Way::Snapshot);
        self.open = None;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// It holds a snapshot that reaches the log, or came that far otherwise.
    pub(crate) fn on_installed(&mut self) {
        self.next = self.matched.next();
        self.go(Way::Replicate);
    }

    /// It answered something else than an AppendEntries.
    pub(crate) fn on_contact(&mut self, now: Tick) {
        self.heard = now;
    }

    /// The follower's log ends at `last`, before what it had acknowledged. It is brought up again from there.
    fn on_lost_entries(&mut self, last: Index) {
        self.state = State::Distrusted(Way::Probe(Probe::NEW));
        self.matched = Index::ZERO;
        self.next = last.next();
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
        progress.on_matched(Rules::default(), Index(index));
        progress.on_no_conflict();
        progress
    }

    fn send(progress: &mut Progress, last: u64, bytes: u64) {
        let prev = LogId { index: progress.next.prev(), ..LogId::ZERO };
        progress.open = Some(prev);
        progress.on_sent(Rules::default(), prev, Index(last), bytes);
    }

    #[test]
    fn the_window_closes_by_messages_and_by_bytes_and_opens_with_acknowledgements() {
        let settings =
            Settings { inflight_messages: 2, inflight_bytes: 10, message_bytes: 6, ..Settings::default() };
        let mut progress = matched_up_to(1);
        assert_eq!(progress.budget(Rules::default(), &settings), Some(6));
        send(&mut progress, 2, 6);
        assert_eq!(progress.budget(Rules::default(), &settings), Some(4), "what the bytes under way leave");
        send(&mut progress, 3, 1);
        assert_eq!(progress.budget(Rules::default(), &settings), None, "two messages");
        progress.on_matched(Rules::default(), Index(2));
        assert_eq!((progress.in_flight(), progress.budget(Rules::default(), &settings)), ((1, 1), Some(6)));
        send(&mut progress, 4, 50);
        progress.on_matched(Rules::default(), Index(3));
        assert_eq!(
            progress.budget(Rules::default(), &settings),
            None,
            "a single entry may be larger than the window"
        );
        progress.on_matched(Rules::default(), Index(4));
        assert_eq!((progress.in_flight(), progress.budget(Rules::default(), &settings)), ((0, 0), Some(6)));
    }

    #[test]
    fn one_request_is_open_at_a_time() {
        let settings = Settings::default();
        let mut progress = matched_up_to(1);
        progress.open = Some(LogId::new(0, 1));
        assert_eq!(progress.budget(Rules::default(), &settings), None);
        progress.on_unsent(Tick(5), LogId::new(0, 1));
        assert_eq!(
            (progress.open, progress.paused, progress.budget(Rules::default(), &settings)),
            (None, Some(Tick(5)), None)
        );
        progress.paused = None;
        assert!(progress.budget(Rules::default(), &settings).is_some());
    }

    /// LT-2: a message that the transport refuses after all is sent again, and what follows it too.
    #[test]
    fn what_was_said_to_have_left_and_did_not_is_sent_again() {
        let mut progress = matched_up_to(1);
        send(&mut progress, 4, 5);
        send(&mut progress, 6, 3);
        send(&mut progress, 9, 2);
        progress.open = Some(LogId::new(0, 9));
        progress.on_unsent(Tick(5), LogId::new(0, 4));
        assert_eq!((progress.next, progress.in_flight()), (Index(5), (1, 5)));
        assert_eq!((progress.open, progress.paused), (Some(LogId::new(0, 9)), Some(Tick(5))));
        progress.on_sent(Rules::default(), LogId::new(0, 9), Index(11), 7);
        assert_eq!(
            (progress.next, progress.in_flight()),
            (Index(5), (1, 5)),
            "the other one is a harmless extra"
        );
        progress.on_matched(Rules::default(), Index(9));
        progress.on_unsent(Tick(6), LogId::new(0, 6));
        assert_eq!(
            (progress.next, progress.in_flight()),
            (Index(10), (0, 0)),
            "it came after all, by another way"
        );
    }

    /// A load takes its time. If what left before it was refused meanwhile, it is not wanted any more: as an extra that
    /// is counted nowhere, one after the other would be under way beyond the window.
    #[test]
    fn what_was_loaded_for_a_place_that_is_left_does_not_leave_and_does_not_pause() {
        let settings = Settings::default();
        let mut progress = matched_up_to(1);
        send(&mut progress, 4, 5);
        progress.open = Some(LogId::new(0, 4));
        assert!(progress.wants(LogId::new(0, 4)));
        progress.on_unsent(Tick(5), LogId::new(0, 1));
        assert!(!progress.wants(LogId::new(0, 4)), "what it would follow is not there");
        progress.paused = None;
        progress.on_unsent(Tick(6), LogId::new(0, 4));
        assert_eq!((progress.open, progress.paused, progress.next), (None, None, Index(2)));
        assert!(progress.budget(Rules::default(), &settings).is_some(), "it goes on from where it stands");
    }

    #[test]
    fn a_report_moves_next_only_where_it_continues_the_log() {
        let mut progress = matched_up_to(1);
        let prev = LogId::new(0, 1);
        for (open, reported) in [(None, prev), (Some(prev), LogId::new(0, 2)), (Some(LogId::new(0, 2)), prev)]
        {
            progress.open = open;
            progress.on_sent(Rules::default(), reported, Index(9), 1);
            assert_eq!((progress.next, progress.open), (Index(2), None));
        }
        progress.open = Some(prev);
        progress.on_sent(Rules::default(), prev, Index(1), 0);
        assert_eq!((progress.next, progress.in_flight()), (Index(2), (0, 0)), "an empty one moves nothing");
    }

    #[test]
    fn a_conflict_goes_back_but_never_below_what_is_matched_nor_forward() {
        let limit = |index| LogId::new(1, index).index;
        let mut progress = matched_up_to(3);
        send(&mut progress, 9, 1);
        assert!(
            !progress.on_conflict(Rules::default(), limit(2), Round(1), Round(1)),
            "below what is matched: an old answer"
        );
        assert!(
            !progress.on_conflict(Rules::default(), limit(10), Round(1), Round(1)),
            "ahead of what was sent"
        );
        assert!(progress.on_conflict(Rules::default(), limit(6), Round(1), Round(1)));
        assert_eq!((progress.next, progress.is_probing(), progress.in_flight()), (Index(7), true, (0, 0)));
        assert!(
            !progress.on_conflict(Rules::default(), limit(6), Round(1), Round(1)),
            "one of many that left together"
        );
        assert!(progress.on_conflict(Rules::default(), limit(5), Round(1), Round(1)), "further back is news");
        assert!(
            progress.on_conflict(Rules::default(), limit(5), Round(2), Round(2)),
            "and so is the same, a round later"
        );
    }
}
