//! One store under test: every step is taken by the store and by the model, and they must agree.

use super::model::{Model, Step, read_all};
use super::{Clause, Violation, files};
use crate::storage::{Engine, Identity, LogReader, LogStore, ReadLogError, Recovered, StoreError};
use coracle_core::{Incarnation, Index, NodeId};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose the stores are.
pub(super) const IDENTITY: Identity =
    Identity { node: NodeId(3), incarnation: Incarnation(0x00c0_ffee), cluster: None };

pub(super) type Verdict = Result<(), Violation>;

/// A store, what was done to it, and what it must hold.
pub(super) struct Case<'a> {
    engine: &'a dyn Engine,
    clause: Clause,
    /// The store's directory; made by the engine, removed at the end.
    pub(super) dir: PathBuf,
    store: Option<Box<dyn LogStore>>,
    pub(super) model: Model,
    steps: Vec<String>,
    /// Whether entries were truncated, purged or reset: then a wrong hard state is maintenance's fault.
    maintained: bool,
    /// Whether the directory is the caller's and stays.
    stays: bool,
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        self.store = None;
        if !self.stays {
            files::remove(&self.dir);
        }
    }
}

impl<'a> Case<'a> {
    pub(super) fn new(engine: &'a dyn Engine, parent: &Path, clause: Clause) -> Case<'a> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("{clause:?}-{}-{number}", std::process::id()).to_lowercase());
        let mut case = Case::of(engine, &dir, clause);
        case.stays = false;
        case
    }

    /// A store that is there already.
    pub(super) fn of(engine: &'a dyn Engine, dir: &Path, clause: Clause) -> Case<'a> {
        Case {
            engine,
            clause,
            dir: dir.to_owned(),
            store: None,
            model: Model::default(),
            steps: Vec::new(),
            maintained: false,
            stays: true,
        }
    }

    /// Takes down what is done.
    pub(super) fn note(&mut self, step: impl Into<String>) {
        self.steps.push(step.into());
    }

    pub(super) fn broken<T>(&self, detail: impl Into<String>) -> Result<T, Violation> {
        self.broken_by(self.clause, detail)
    }

    pub(super) fn broken_by<T>(&self, clause: Clause, detail: impl Into<String>) -> Result<T, Violation> {
        let (engine, steps) = (self.engine.name().to_owned(), self.steps.clone());
        Err(Violation { engine, clause, detail: detail.into(), steps })
    }

    /// Opens and loads a store in some directory, for somebody.
    pub(super) fn try_open(
        &self,
        dir: &Path,
        identity: Identity,
    ) -> Result<(Box<dyn LogStore>, Recovered), StoreError> {
        let mut store = self.engine.open(dir, identity)?;
        let recovered = store.load(&mut |_| {})?;
        Ok((store, recovered))
    }

    /// Whether the engine sees a log in the directory.
    pub(super) fn exists(&self) -> Result<bool, Violation> {
        self.engine.exists(&self.dir).or_else(|error| self.broken(format!("exists() failed: {error}")))
    }

    /// Opens the store, which must hold what the model does.
    pub(super) fn open(&mut self) -> Verdict {
        self.note("open");
        match self.try_open(&self.dir, IDENTITY) {
            Ok((store, recovered)) => {
                let result = self.compare(&recovered, &*store.reader());
                self.store = Some(store);
                result
            }
            Err(error) => self.broken(format!("the opening failed: {error}")),
        }
    }

    /// Drops the store.
    pub(super) fn close(&mut self) {
        self.note("drop");
        self.store = None;
    }

    pub(super) fn reopen(&mut self) -> Verdict {
        self.close();
        self.open()
    }

    pub(super) fn store(&mut self) -> &mut dyn LogStore {
        &mut **self.store.as_mut().expect("the case opened it")
    }

    pub(super) fn reader(&self) -> Box<dyn LogReader> {
        self.store.as_ref().expect("the case opened it").reader()
    }

    /// Takes a step that the store must take too, and looks at the result through a reader.
    pub(super) fn run(&mut self, step: Step) -> Verdict {
        self.run_unread(step)?;
        self.compare_entries(&*self.reader())
    }

    /// Takes a step without reading.
    pub(super) fn run_unread(&mut self, step: Step) -> Verdict {
        self.note(step.to_string());
        if let Err(error) = step.run(self.store()) {
            return self.broken(format!("the step failed: {error}"));
        }
        let before = (self.model.entries.len(), self.model.purged);
        self.model.apply(&step);
        self.maintained |= self.model.entries.len() < before.0 || self.model.purged != before.1;
        Ok(())
    }

    /// Takes a step that the store must refuse, and which changes nothing.
    pub(super) fn refuse(&mut self, step: &Step, why: &str) -> Verdict {
        self.note(format!("{step} ({why})"));
        match step.run(self.store()) {
            Err(StoreError::Refused(_)) => self.compare_entries(&*self.reader()),
            Err(error) => self.broken(format!("it failed, and not with Refused: {error}")),
            Ok(()) => self.broken("it was accepted"),
        }
    }

    /// Whether a store holds what the model does.
    pub(super) fn compare(&self, recovered: &Recovered, reader: &dyn LogReader) -> Verdict {
        let want = self.model.recovered();
        if recovered.hard_state != want.hard_state {
            let clause = if self.maintained { Clause::HardState } else { self.clause };
            let (have, want) = (recovered.hard_state, want.hard_state);
            return self.broken_by(clause, format!("the hard state is {have:?} instead of {want:?}"));
        }
        if (recovered.purged, recovered.last) != (want.purged, want.last) {
            return self.broken(format!(
                "load says that the log goes from after {} to {} instead of from after {} to {}",
                recovered.purged, recovered.last, want.purged, want.last
            ));
        }
        self.compare_entries(reader)?;
        if recovered.runs != want.runs {
            let detail = format!("load tells the runs {:?} instead of {:?}", recovered.runs, want.runs);
            return self.broken_by(Clause::Outline, detail);
        }
        if recovered.memberships != want.memberships {
            let ids = |list: &Recovered| list.memberships.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            let (have, want) = (ids(recovered), ids(&want));
            let detail =
                format!("load tells the memberships {have:?} instead of {want:?}, or other payloads");
            return self.broken_by(Clause::Outline, detail);
        }
        Ok(())
    }

    /// Whether a reader gives what the model holds, and nothing else.
    pub(super) fn compare_entries(&self, reader: &dyn LogReader) -> Verdict {
        let first = self.model.purged.index.next();
        match read_all(reader, first, 1 << 20) {
            Ok(entries) if entries == self.model.entries => {}
            Ok(entries) => return self.broken(differ(&entries, &self.model)),
            Err(error) => return self.broken(format!("reading from {first} on failed: {error}")),
        }
        match reader.entries(self.model.purged.index, Index(u64::MAX), 1) {
            Err(ReadLogError::Purged) => Ok(()),
            Ok(_) => self.broken(format!("entry {} can be read, and is purged", self.model.purged)),
            Err(error) => {
                let detail = format!("entry {} is not Purged: {error}", self.model.purged);
                self.broken_by(Clause::Reading, detail)
            }
        }
    }
}

/// The first difference between what was read and what should have been.
fn differ(entries: &[crate::entry::Entry], model: &Model) -> String {
    let pair = entries.iter().zip(&model.entries).find(|(have, want)| have != want);
    match pair {
        Some((have, want)) if have.id() == want.id() => format!("entry {} has other bytes", want.id()),
        Some((have, want)) => format!("entry {} lies where {} should be", have.id(), want.id()),
        None => format!("{} entries can be read instead of {}", entries.len(), model.entries.len()),
    }
}
