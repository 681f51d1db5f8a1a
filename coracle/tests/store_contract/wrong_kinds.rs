//! Around a right store: calls that are made differently.

use crate::wrong::{Flaw, wrap};
use coracle::entry::{Entry, HEADER};
use coracle::raft::{HardState, Index, LogId, Term};
use coracle::storage::{Change, LogReader, LogStore, ReadLogError, Recovered, StoreError, WriteBatch};

/// A store whose calls are flawed.
pub(crate) struct WrongStore {
    flaw: Flaw,
    store: Box<dyn LogStore>,
    last: LogId,
    /// The newest term whose hard state was written.
    term: Term,
    refused: bool,
}

impl WrongStore {
    pub(crate) fn new(flaw: Flaw, store: Box<dyn LogStore>) -> WrongStore {
        WrongStore { flaw, store, last: LogId::ZERO, term: Term::ZERO, refused: false }
    }

    /// The batch as this store understands it.
    fn misread(&mut self, batch: &WriteBatch) -> WriteBatch {
        let mut batch = batch.clone();
        let mut changes = Vec::new();
        for change in std::mem::take(&mut batch.changes) {
            match (self.flaw, change) {
                (Flaw::TruncationIgnored, Change::Truncate(_)) => {}
                (Flaw::TruncatesOneMore, Change::Truncate(last)) => {
                    changes.push(Change::Truncate(last.prev()));
                }
                (Flaw::TruncationLosesHardState, Change::Truncate(last)) => {
                    batch.hard_state = batch.hard_state.or(Some(HardState::default()));
                    changes.push(Change::Truncate(last));
                }
                (Flaw::ResetTruncates, Change::Reset(to)) if to.index <= self.last.index => {
                    changes.push(Change::Truncate(to.index));
                }
                (Flaw::TruncatesFirst, Change::Truncate(last)) => changes.insert(0, Change::Truncate(last)),
                (Flaw::EmptyAppendTruncates, Change::Append(entries)) if entries.is_empty() => {
                    changes.push(Change::Truncate(self.last.index.prev()));
                }
                (_, change) => changes.push(change),
            }
        }
        batch.changes = changes;
        if self.flaw == Flaw::HardStateOnlyAlone && !batch.changes.is_empty() {
            batch.hard_state = None;
        }
        if let Some(state) = batch.hard_state {
            let again = std::mem::replace(&mut self.term, state.term) == state.term;
            batch.hard_state = (!again || self.flaw != Flaw::VoteOnlyOnce).then_some(state);
        }
        batch
    }

    fn too_much(&self, batch: &WriteBatch) -> bool {
        batch.changes.iter().any(|change| match (self.flaw, change) {
            (Flaw::SmallEntriesOnly, Change::Append(entries)) => entries.iter().any(|e| e.len() > 1 << 20),
            (Flaw::SmallBatchesOnly, Change::Append(entries)) => entries.len() > 1000,
            _ => false,
        })
    }
}

impl LogStore for WrongStore {
    fn load(&mut self, progress: &mut dyn FnMut(f32)) -> Result<Recovered, StoreError> {
        let mut recovered = self.store.load(progress)?;
        self.last = recovered.last;
        self.term = recovered.hard_state.term;
        if self.flaw == Flaw::OneRunMissing && recovered.runs.len() > 3 {
            recovered.runs.remove(1);
        }
        if self.flaw == Flaw::OldMembershipMissing {
            recovered.memberships.retain(|(id, _)| id.index > recovered.purged.index);
        }
        Ok(recovered)
    }

    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        if self.too_much(batch) || self.refused {
            return Err(StoreError::Refused("no more".into()));
        }
        let misread = self.misread(batch);
        let result = if self.flaw == Flaw::OneByOne {
            let WriteBatch { hard_state, changes } = misread;
            let hard_state = std::iter::once(WriteBatch { hard_state, changes: vec![] });
            let changes =
                changes.into_iter().map(|change| WriteBatch { hard_state: None, changes: vec![change] });
            hard_state.chain(changes).try_for_each(|one| self.store.write(&one))
        } else {
            self.store.write(&misread)
        };
        for change in &batch.changes {
            match change {
                Change::Reset(to) => self.last = *to,
                Change::Truncate(last) => self.last.index = self.last.index.min(*last),
                Change::Append(entries) => self.last = entries.last().map_or(self.last, Entry::id),
            }
        }
        match (self.flaw, result) {
            (Flaw::RefusalsSwallowed, Err(StoreError::Refused(_))) => Ok(()),
            (Flaw::FinishedByRefusal, Err(error)) => {
                self.refused = true;
                Err(error)
            }
            (_, result) => result,
        }
    }

    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        match self.flaw {
            Flaw::PurgeIgnored => Ok(()),
            Flaw::PurgesOneMore => {
                let more = LogId { index: upto.index.next(), ..upto };
                self.store.purge(more).or_else(|_| self.store.purge(upto))
            }
            Flaw::PurgeLosesHardState => {
                self.store.purge(upto)?;
                self.store.write(&WriteBatch { hard_state: Some(HardState::default()), changes: vec![] })
            }
            _ => self.store.purge(upto),
        }
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        self.store.idle()
    }

    fn reader(&self) -> Box<dyn LogReader> {
        wrap(self.flaw, self.store.reader())
    }
}

/// A reader whose answers are flawed.
pub(crate) struct WrongReader {
    flaw: Flaw,
    reader: Box<dyn LogReader>,
    /// What the log held when the reader was made.
    old: Option<Vec<Entry>>,
}

impl WrongReader {
    pub(crate) fn new(flaw: Flaw, reader: Box<dyn LogReader>) -> WrongReader {
        let old = (flaw == Flaw::StaleReader).then(|| {
            // The log may begin anywhere.
            let read = |first| reader.entries(Index(first), Index(u64::MAX), usize::MAX).ok();
            (1..200).find_map(read).unwrap_or_default()
        });
        WrongReader { flaw, reader, old }
    }
}

impl LogReader for WrongReader {
    fn entries(&self, first: Index, last: Index, max_bytes: usize) -> Result<Vec<Entry>, ReadLogError> {
        match self.flaw {
            Flaw::LimitIgnored => self.reader.entries(first, last, usize::MAX),
            Flaw::LimitCountsPayloads => {
                let entries = self.reader.entries(first, last, usize::MAX)?;
                let mut bytes = 0;
                let fits = entries.iter().take_while(|entry| {
                    bytes += entry.len() - HEADER;
                    bytes <= max_bytes || entry.index() == first
                });
                Ok(fits.cloned().collect())
            }
            Flaw::MissingForPurged => match self.reader.entries(first, last, max_bytes) {
                Err(ReadLogError::Purged) => Err(ReadLogError::Missing),
                other => other,
            },
            Flaw::LastIgnored => self.reader.entries(first, Index(u64::MAX), max_bytes),
            Flaw::StaleReader => {
                let now = self.reader.entries(first, last, max_bytes)?;
                let old = self.old.as_deref().unwrap_or_default();
                let known: Vec<Entry> = now.into_iter().filter(|entry| old.contains(entry)).collect();
                if known.is_empty() { Err(ReadLogError::Missing) } else { Ok(known) }
            }
            _ => self.reader.entries(first, last, max_bytes),
        }
    }
}
