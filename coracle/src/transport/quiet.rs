//! Says a thing once in a while.
//!
//! A misconfigured peer dials again and again, and a port scanner never tires; the operator should hear of
//! each once, and again if it goes on for long. What was said is forgotten when the remote turns out well, so that
//! its next trouble is heard. Strangers of ever new addresses can neither fill the memory nor mute what is said of
//! others for longer than a window: of each kind of trouble a bounded number of lines is said in one, and how many
//! were not said comes with the first line of the next.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many remotes and reasons are remembered. 256: more than most clusters have members. For one more the one
/// that was said longest ago is forgotten.
const REMEMBERED: usize = 256;
/// After how long the same is said again. 10 minutes: who looks into a log at all sees it in the part of today.
const AGAIN: Duration = Duration::from_secs(600);
/// How long a window is. A minute.
const WINDOW: Duration = Duration::from_secs(60);
/// How many lines of one reason are said in a window. 32: all members of a usual cluster at once.
const LINES: u64 = 32;
/// How many reasons are told apart. 32: there are fewer; a peer that invents more shares a window.
const REASONS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Quiet {
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// When each was said, by remote and reason.
    last: BTreeMap<(String, String), Instant>,
    /// The present window of each reason.
    windows: BTreeMap<String, Window>,
}

#[derive(Debug)]
struct Window {
    start: Instant,
    /// Lines that were said, and that were not.
    said: u64,
    unsaid: u64,
}

impl Quiet {
    /// Warns, unless the same was said of this remote a while ago. `reason` tells kinds of trouble apart.
    pub(super) fn warn(&self, remote: &str, reason: &str, text: &dyn std::fmt::Display) {
        match self.admit(remote, reason) {
            None => {}
            Some(0) => tracing::warn!(remote, reason, "{text}"),
            Some(unsaid) => tracing::warn!(remote, reason, unsaid, "{text}"),
        }
    }

    /// Whether it is to be said, and how many lines of its kind were not said before it.
    pub(super) fn admit(&self, remote: &str, reason: &str) -> Option<u64> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now(), remote, reason)
    }

    /// Forgets what was said of a remote.
    pub(super) fn forget(&self, remote: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.last.retain(|(known, _), _| known != remote);
    }
}

impl Said {
    fn admit(&mut self, now: Instant, remote: &str, reason: &str) -> Option<u64> {
        let key = (remote.to_owned(), reason.to_owned());
        if self.last.get(&key).is_some_and(|last| now.saturating_duration_since(*last) < AGAIN) {
            return None;
        }
        let known = self.windows.len() < REASONS || self.windows.contains_key(reason);
        let reason = if known { reason } else { "" };
        let window =
            self.windows.entry(reason.to_owned()).or_insert(Window { start: now, said: 0, unsaid: 0 });
        let over = now.saturating_duration_since(window.start) >= WINDOW;
        if !over && window.said >= LINES {
            window.unsaid += 1;
            return None;
        }
        let unsaid = if over { window.unsaid } else { 0 };
        if over {
            *window = Window { start: now, said: 0, unsaid: 0 };
        }
        window.said += 1;
        if self.last.len() >= REMEMBERED
            && !self.last.contains_key(&key)
            && let Some(oldest) = self.last.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
        {
            self.last.remove(&oldest);
        }
        self.last.insert(key, now);
        Some(unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_and_again_after_a_while() {
        let (mut said, start) = (Said::default(), Instant::now());
        assert_eq!(said.admit(start, "a", "garbage"), Some(0));
        assert_eq!(said.admit(start + AGAIN / 2, "a", "garbage"), None);
        assert_eq!(said.admit(start + AGAIN / 2, "a", "cluster"), Some(0), "another trouble");
        assert_eq!(said.admit(start + AGAIN / 2, "b", "garbage"), Some(0), "another remote");
        assert_eq!(said.admit(start + AGAIN, "a", "garbage"), Some(0));
    }

    /// 100,000 sources of garbage: a bounded number of lines, in bounded memory, and nothing else is muted.
    #[test]
    fn ever_new_sources_neither_fill_the_memory_nor_mute_others() {
        let (mut said, start) = (Said::default(), Instant::now());
        let lines =
            (0..100_000).filter(|n| said.admit(start, &format!("host {n}"), "garbage").is_some()).count();
        assert_eq!(lines as u64, LINES);
        assert_eq!(said.admit(start, "peer", "WrongCluster"), Some(0), "another kind is heard at once");
        let late = start + WINDOW;
        assert_eq!(
            said.admit(late, "peer", "garbage"),
            Some(100_000 - LINES),
            "the same kind a minute later"
        );
        for minute in 1..200 {
            for n in 0..100 {
                said.admit(start + minute * WINDOW, &format!("host {minute} {n}"), "garbage");
            }
            assert!(said.last.len() <= REMEMBERED);
        }
        let reasons =
            (0..10_000).filter(|n| said.admit(late, "peer", &format!("Other({n})")).is_some()).count();
        assert!(reasons < REASONS * LINES as usize && said.windows.len() <= REASONS + 1, "{reasons}");
    }

    #[test]
    fn what_turned_out_well_is_heard_of_again() {
        let quiet = Quiet::default();
        assert_eq!([quiet.admit("a", "x"), quiet.admit("a", "x")], [Some(0), None]);
        quiet.forget("a");
        assert_eq!(quiet.admit("a", "x"), Some(0));
    }
}
