//! What a node did in the last minutes, second by second, and what happened to it: for the page, which shows it from the moment
//! on that it is opened.

use super::happenings::{Look, between};
use crate::report::Report;
use crate::session::About;
use coracle::{Histogram, Timings};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many seconds are kept.
const SECONDS: usize = 300;

/// How many happenings.
const HAPPENINGS: usize = 100;

/// One second.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Second {
    /// Its number since the start; the first is 1.
    pub(crate) number: u64,
    /// When it ended, in seconds since 1970.
    pub(crate) time: f64,
    /// Commands of clients.
    pub(crate) commands: f64,
    /// Entries that were committed.
    pub(crate) entries: f64,
    /// What writes of clients took, reads of them, and writes to the log; none if there were none.
    pub(crate) write: Option<Took>,
    pub(crate) read: Option<Took>,
    pub(crate) log: Option<Took>,
    /// At the leader: how many entries each other member lacks.
    pub(crate) lag: BTreeMap<u64, u64>,
}

/// How long things took, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Took {
    pub(crate) mean: f64,
    /// 99 of 100 took no longer; none if that is over the last bound.
    pub(crate) most: Option<f64>,
}

/// Something that happened.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Happening {
    /// In which second it was seen.
    pub(crate) number: u64,
    pub(crate) time: f64,
    pub(crate) what: String,
}

/// Sums since the start, of which differences are shown.
#[derive(Clone, Default)]
struct Sums {
    commands: u64,
    commit: u64,
    write: Counted,
    read: Counted,
    log: Counted,
}

#[derive(Clone, Default)]
struct Counted {
    micros: u64,
    buckets: Vec<(Option<u64>, u64)>,
}

impl Counted {
    fn of(histogram: &Histogram) -> Counted {
        let (micros, buckets) = histogram.seen();
        Counted { micros, buckets }
    }

    /// What came since an earlier look.
    fn since(&self, before: &Counted) -> Option<Took> {
        let old = |at: usize| before.buckets.get(at).map_or(0, |(_, count)| *count);
        let new: Vec<(Option<u64>, u64)> =
            self.buckets.iter().enumerate().map(|(at, (bound, count))| (*bound, count - old(at))).collect();
        let count: u64 = new.iter().map(|(_, count)| count).sum();
        if count == 0 {
            return None;
        }
        let mut seen = 0;
        let most = new.iter().find(|(_, many)| {
            seen += many;
            seen * 100 >= count * 99
        });
        let most = most.and_then(|(bound, _)| *bound).map(|bound| bound as f64 / 1e3);
        let mean = self.micros.saturating_sub(before.micros) as f64 / count as f64 / 1e3;
        Some(Took { mean, most })
    }
}

/// The last minutes.
#[derive(Default)]
pub(crate) struct History {
    seconds: VecDeque<Second>,
    happenings: VecDeque<Happening>,
    newest: u64,
    look: Option<Look>,
    before: Option<(f64, Sums)>,
}

impl History {
    /// A second is over; `look` is how the node stands, or why it does not say.
    pub(crate) fn note(
        &mut self,
        time: Duration,
        look: Result<Look, String>,
        about: &About,
        timings: &Timings,
    ) {
        self.newest += 1;
        let (number, time) = (self.newest, time.as_secs_f64());
        let look = match look {
            Ok(look) => look,
            Err(why) => return self.happened(time, why),
        };
        for what in between(self.look.as_ref(), &look) {
            self.happened(time, what);
        }
        let served = &about.served;
        let now = Sums {
            commands: served.commands.load(Ordering::Relaxed),
            commit: look.report.commit,
            write: Counted::of(&served.writes),
            read: Counted::of(&served.reads),
            log: Counted::of(&timings.log_write),
        };
        if let Some((then, before)) = &self.before {
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / (time - then).max(0.001);
            self.seconds.push_back(Second {
                number,
                time,
                commands: rate(now.commands, before.commands),
                entries: rate(now.commit, before.commit),
                write: now.write.since(&before.write),
                read: now.read.since(&before.read),
                log: now.log.since(&before.log),
                lag: look.report.peers.iter().map(|peer| (peer.id, peer.lag)).collect(),
            });
        }
        if self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
        (self.before, self.look) = (Some((time, now)), Some(look));
    }

    fn happened(&mut self, time: f64, what: String) {
        let number = self.newest;
        // The same trouble, second after second, is told once.
        if self.happenings.back().is_some_and(|last| last.what == what) {
            return;
        }
        self.happenings.push_back(Happening { number, time, what });
        if self.happenings.len() > HAPPENINGS {
            self.happenings.pop_front();
        }
    }

    /// What came after this second, as a page wants it: JSON on one line; and the number of the newest.
    pub(crate) fn after(&self, number: u64) -> (u64, String) {
        #[derive(Serialize)]
        struct News<'a> {
            report: Option<&'a Report>,
            unready: &'a [String],
            seconds: Vec<&'a Second>,
            happenings: Vec<&'a Happening>,
        }
        // A number of before the server was started anew.
        let number = if number > self.newest { 0 } else { number };
        let news = News {
            report: self.look.as_ref().map(|look| &look.report),
            unready: self.look.as_ref().map_or(&[], |look| &look.unready),
            seconds: self.seconds.iter().filter(|second| second.number > number).collect(),
            happenings: self.happenings.iter().filter(|happening| happening.number > number).collect(),
        };
        (self.newest, serde_json::to_string(&news).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::Account;

    fn about() -> About {
        About::new(1, true, 6379, std::sync::Arc::new(Account::new(10, 1 << 20, 1 << 20)))
    }

    fn look(commit: u64) -> Result<Look, String> {
        let json = format!(
            r#"{{"id":1,"role":"leader","term":1,"leader":1,"commit":{commit},"applied":5,"last_index":9,"members":[],"digest":"",
              "peers":[{{"id":2,"matched":5,"lag":4,"applied":5,"state":"replicate","silent_ms":0}}]}}"#
        );
        Ok(Look { report: serde_json::from_str(&json).unwrap(), unready: Vec::new() })
    }

    #[test]
    fn a_second_is_what_came_since_the_one_before() {
        let (mut history, about, timings) = (History::default(), about(), Timings::default());
        history.note(Duration::from_secs(100), look(5), &about, &timings);
        about.served.commands.fetch_add(30, Ordering::Relaxed);
        for _ in 0..99 {
            about.served.writes.observe(400);
        }
        about.served.writes.observe(60_000);
        history.note(Duration::from_secs(102), look(25), &about, &timings);
        let (newest, json) = history.after(0);
        let news: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((newest, news["seconds"].as_array().unwrap().len()), (2, 1));
        let second = &news["seconds"][0];
        assert_eq!(
            (&second["commands"], &second["entries"], &second["lag"]["2"]),
            (&15.0.into(), &10.0.into(), &4.into())
        );
        assert_eq!((&second["write"]["mean"], &second["write"]["most"]), (&0.996.into(), &0.5.into()));
        assert!(second["read"].is_null() && second["log"].is_null());
        assert_eq!(news["happenings"][0]["what"], "node 1 is looked at: it is a leader, in term 1");
        // Whoever has seen that is told nothing twice; and whoever has seen more than there is, all of it.
        let count = |after| {
            let news: serde_json::Value = serde_json::from_str(&history.after(after).1).unwrap();
            (news["seconds"].as_array().unwrap().len(), news["happenings"].as_array().unwrap().len())
        };
        assert_eq!((count(1), count(2), count(9)), ((1, 0), (0, 0), (1, 1)));
    }

    #[test]
    fn the_last_minutes_are_kept_and_no_more() {
        let (mut history, about, timings) = (History::default(), about(), Timings::default());
        for second in 0..1000 {
            let look = if second % 2 == 0 { look(5) } else { Err(format!("no answer {second}")) };
            history.note(Duration::from_secs(second), look, &about, &timings);
        }
        assert_eq!((history.seconds.len(), history.happenings.len()), (SECONDS, HAPPENINGS));
    }
}
