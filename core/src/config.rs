//! The settings of the core, in its own units, and the one place that judges them.

use core::fmt;

/// How the core behaves. Times are in ticks of 10 ms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The pause between two heartbeats of an idle leader. At least 1.
    pub heartbeat: u64,
    /// Every election timeout is longer than this. At least twice the heartbeat, so that one lost heartbeat
    /// elects nobody.
    pub election_min: u64,
    /// No election timeout is longer than this; greater than `election_min`, so that timeouts differ.
    pub election_max: u64,
    /// For how long a leader asks its followers to depose nobody, so that it may answer reads without asking
    /// (D5.4.3). 0: it does not ask. At most `election_max`.
    pub lease: u64,
    /// By how much, in thousandths, the clock of a leader may be slower than that of any follower. Less than 1000. Of no
    /// meaning without a lease.
    pub clock_drift: u64,
    /// Entries in one AppendEntries at most. At least 1.
    pub message_entries: u64,
    /// Bytes of entries in one AppendEntries at most; a single entry may exceed it. At least 1.
    pub message_bytes: u64,
    /// AppendEntries under way to one follower at most. At least 1.
    pub inflight_messages: usize,
    /// Bytes of entries under way to one follower at most. At least 1.
    pub inflight_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            heartbeat: 5,
            election_min: 30,
            election_max: 60,
            lease: 0,
            clock_drift: 100,
            message_entries: 1024,
            message_bytes: 1 << 20,
            inflight_messages: 64,
            inflight_bytes: 8 << 20,
        }
    }
}

/// A setting that makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BadSetting {
    /// Which field of [`Settings`].
    pub setting: &'static str,
    /// What it must be.
    pub must: &'static str,
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.setting, self.must)
    }
}

impl Settings {
    /// Judges every field.
    pub fn validate(&self) -> Result<(), BadSetting> {
        let rules = [
            ("heartbeat", self.heartbeat >= 1, "at least one tick of 10 ms"),
            (
                "election_min",
                self.election_min >= self.heartbeat.saturating_mul(2),
                "at least twice the heartbeat",
            ),
            ("election_max", self.election_max > self.election_min, "greater than the minimum"),
            ("lease", self.lease <= self.election_max, "at most the longest election timeout"),
            ("clock_drift", self.clock_drift < 1000, "less than 1000 thousandths"),
            ("message_entries", self.message_entries >= 1, "at least 1"),
            ("message_bytes", self.message_bytes >= 1, "at least 1"),
            ("inflight_messages", self.inflight_messages >= 1, "at least 1"),
            ("inflight_bytes", self.inflight_bytes >= 1, "at least 1"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((setting, _, must)) => Err(BadSetting { setting, must }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One setting that breaks its rule, among defaults that keep theirs.
    fn complaint(break_it: impl FnOnce(&mut Settings)) -> Option<&'static str> {
        let mut settings = Settings::default();
        break_it(&mut settings);
        settings.validate().err().map(|bad| bad.setting)
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Settings::default().validate(), Ok(()));
    }

    #[test]
    fn every_rule_has_a_setting_that_breaks_it() {
        assert_eq!(complaint(|s| s.heartbeat = 0), Some("heartbeat"));
        assert_eq!(complaint(|s| s.election_min = 9), Some("election_min"));
        assert_eq!(complaint(|s| s.election_max = 30), Some("election_max"));
        assert_eq!(complaint(|s| s.lease = 61), Some("lease"));
        assert_eq!(complaint(|s| s.clock_drift = 1000), Some("clock_drift"));
        assert_eq!(complaint(|s| s.message_entries = 0), Some("message_entries"));
        assert_eq!(complaint(|s| s.message_bytes = 0), Some("message_bytes"));
        assert_eq!(complaint(|s| s.inflight_messages = 0), Some("inflight_messages"));
        assert_eq!(complaint(|s| s.inflight_bytes = 0), Some("inflight_bytes"));
    }

    #[test]
    fn every_rule_has_a_setting_that_just_keeps_it() {
        let least = |s: &mut Settings| {
            *s = Settings {
                heartbeat: 1,
                election_min: 2,
                election_max: 3,
                lease: 0,
                clock_drift: 0,
                message_entries: 1,
                message_bytes: 1,
                inflight_messages: 1,
                inflight_bytes: 1,
            }
        };
        let most = |s: &mut Settings| {
            *s = Settings {
                heartbeat: u64::MAX / 4,
                election_min: u64::MAX - 1,
                election_max: u64::MAX,
                lease: u64::MAX,
                clock_drift: 999,
                message_entries: u64::MAX,
                message_bytes: u64::MAX,
                inflight_messages: usize::MAX,
                inflight_bytes: u64::MAX,
            }
        };
        assert_eq!((complaint(least), complaint(most)), (None, None));
        assert_eq!(complaint(|s| s.heartbeat = u64::MAX), Some("election_min"), "without an overflow");
    }
}
