//! What the judge knows of reads that may be older than they are asked: when what was committed, and what the machine held at
//! each entry.

use super::ghost::{Verdict, broken};
use super::machine::Ask;
use crate::freshness::{Begun, Confirmed, Freshness};
use crate::work::RequestId;
use coracle_core::{Broken, Index};
use std::collections::BTreeMap;
use std::time::Duration;

/// Reads of a running node, and what it knows of how fresh its machine is.
#[derive(Debug)]
pub(super) struct Reading {
    confirmed: Confirmed,
    begun: BTreeMap<RequestId, Begun>,
}

impl Reading {
    /// Of code that breaks this rule.
    pub(super) fn new(broken: Broken) -> Reading {
        Reading { confirmed: Confirmed::breaking(broken), begun: BTreeMap::new() }
    }

    /// A read begins at this time, in microseconds. The entry that the machine must have applied, if no node is asked.
    pub(super) fn begin(&mut self, request: RequestId, freshness: Freshness, now: u64) -> Option<Index> {
        let begun = self.confirmed.begin(freshness, Duration::from_micros(now));
        self.begun.insert(request, begun);
        begun.from
    }

    /// It is answered, by a machine that has applied this. How old the answer is.
    pub(super) fn end(&mut self, request: RequestId, applied: Index, now: u64) -> Option<Duration> {
        let begun = self.begun.remove(&request)?;
        let confirmed = begun.from.is_none().then_some(applied);
        let now = Duration::from_micros(now);
        let since = self.confirmed.end(&begun, confirmed, || now)?;
        Some(now.saturating_sub(since))
    }
}

/// What an answer has to be like.
#[derive(Debug)]
pub(super) struct Wants<'a> {
    /// What was asked for.
    pub(super) freshness: Freshness,
    /// The newest entry that it has to reflect, as was known when it was asked for.
    pub(super) least: Index,
    /// What a key is said to hold, if that is to be judged here.
    pub(super) stood: Option<(u8, Option<&'a str>)>,
}

/// What a key held, from an entry on.
type Version = (Index, Option<String>);

/// What was true when.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// How far entries were committed at the time, each time that it changed.
    commits: Vec<(u64, Index)>,
    keys: BTreeMap<u8, Vec<Version>>,
    /// The newest entry that is in that.
    applied: Index,
}

impl Past {
    /// At this time everything up to there is committed.
    pub(super) fn on_committed(&mut self, now: u64, committed: Index) {
        if self.commits.last().is_none_or(|(_, before)| *before < committed) {
            self.commits.push((now, committed));
        }
    }

    /// How far entries were committed so long before now, at least.
    pub(super) fn committed(&self, now: u64, before: Duration) -> Index {
        let then = Duration::from_micros(now).checked_sub(before).map_or(0, |then| then.as_micros() as u64);
        self.commits.iter().rfind(|(at, _)| *at <= then).map_or(Index::ZERO, |(_, index)| *index)
    }

    /// A machine applies this: the first one that does, if it is the next.
    pub(super) fn on_applied(&mut self, index: Index, ask: &Ask) {
        if index <= self.applied {
            return;
        }
        self.applied = index;
        let held = |key: &u8| self.value(*key, index);
        let (key, value) = match ask {
            Ask::Put(key, text) => (*key, text.clone()),
            Ask::Append(key, text) => (*key, held(key).unwrap_or_default() + text),
            Ask::Cas(key, expected, text) if held(key) == *expected => (*key, text.clone()),
            Ask::Cas(..) | Ask::Guest(..) | Ask::Settle(_) => return,
        };
        self.keys.entry(key).or_default().push((index, Some(value)));
    }

    /// Judges an answer of a machine that had applied this, which is said to be so old, at this time.
    pub(super) fn judge(
        &self,
        request: RequestId,
        wants: Wants<'_>,
        applied: Index,
        age: Option<Duration>,
        now: u64,
    ) -> Verdict {
        let (number, Wants { freshness, least, stood }) = (request.0, wants);
        let least = least.max(age.map_or(Index::ZERO, |age| self.committed(now, age)));
        if applied < least {
            let detail = format!(
                "read {number} ({freshness:?}) was answered at {applied}, {age:?} old, but has to reflect {least}"
            );
            return broken("S19", detail);
        }
        match stood {
            Some((key, value)) if value != self.value(key, applied).as_deref() => {
                let detail =
                    format!("read {number} saw {value:?}, which is not what stood there at {applied}");
                broken("S19", detail)
            }
            _ => Ok(()),
        }
    }

    /// What the key held once this entry was applied.
    pub(super) fn value(&self, key: u8, at: Index) -> Option<String> {
        let versions = self.keys.get(&key)?;
        versions.iter().rfind(|(index, _)| *index <= at).and_then(|(_, value)| value.clone())
    }
}
