//! The suite is tested: each store here is wrong in one way, and the suite says by which clause.

use crate::map::MapEngine;
use crate::wrong_kinds::{WrongReader, WrongStore};
use coracle::raft::{Incarnation, NodeId};
use coracle::storage::contract::{Clause, Contract};
use coracle::storage::{Engine, Identity, LogReader, LogStore, StoreError};
use std::path::Path;

/// What is wrong with a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    // In the map below the store.
    NoLock,
    WriteBehind,
    CommitLost,
    DeletesForgotten,
    PurgeForgotten,
    SeenInParts,
    DamageIsTheEnd,
    // In opening.
    AlwaysExists,
    NeverExists,
    AnyIdentity,
    // In writing.
    TruncationIgnored,
    TruncatesOneMore,
    PurgeIgnored,
    PurgesOneMore,
    ResetTruncates,
    HardStateOnlyAlone,
    VoteOnlyOnce,
    PurgeLosesHardState,
    TruncationLosesHardState,
    TruncatesFirst,
    OneByOne,
    RefusalsSwallowed,
    FinishedByRefusal,
    EmptyAppendTruncates,
    SmallEntriesOnly,
    SmallBatchesOnly,
    // In loading.
    OneRunMissing,
    OldMembershipMissing,
    // In reading.
    LimitIgnored,
    LimitCountsPayloads,
    MissingForPurged,
    LastIgnored,
    StaleReader,
}

const FLAWS: &[(Flaw, Clause)] = &[
    (Flaw::NoLock, Clause::Exclusive),
    (Flaw::WriteBehind, Clause::Killed),
    (Flaw::CommitLost, Clause::Durable),
    (Flaw::DeletesForgotten, Clause::Truncation),
    (Flaw::PurgeForgotten, Clause::Purge),
    (Flaw::SeenInParts, Clause::Beside),
    (Flaw::DamageIsTheEnd, Clause::Damage),
    (Flaw::AlwaysExists, Clause::Empty),
    (Flaw::NeverExists, Clause::Empty),
    (Flaw::AnyIdentity, Clause::Bound),
    (Flaw::TruncationIgnored, Clause::Truncation),
    (Flaw::TruncatesOneMore, Clause::Truncation),
    (Flaw::PurgeIgnored, Clause::Purge),
    (Flaw::PurgesOneMore, Clause::Purge),
    (Flaw::ResetTruncates, Clause::Reset),
    (Flaw::HardStateOnlyAlone, Clause::Durable),
    (Flaw::VoteOnlyOnce, Clause::Durable),
    (Flaw::PurgeLosesHardState, Clause::HardState),
    (Flaw::TruncationLosesHardState, Clause::HardState),
    (Flaw::TruncatesFirst, Clause::Order),
    (Flaw::OneByOne, Clause::Atomic),
    (Flaw::RefusalsSwallowed, Clause::Refused),
    (Flaw::FinishedByRefusal, Clause::Refused),
    (Flaw::EmptyAppendTruncates, Clause::Random),
    (Flaw::SmallEntriesOnly, Clause::Limits),
    (Flaw::SmallBatchesOnly, Clause::Limits),
    (Flaw::OneRunMissing, Clause::Outline),
    (Flaw::OldMembershipMissing, Clause::Outline),
    (Flaw::LimitIgnored, Clause::Reading),
    (Flaw::LimitCountsPayloads, Clause::Reading),
    (Flaw::MissingForPurged, Clause::Reading),
    (Flaw::LastIgnored, Clause::Reading),
    (Flaw::StaleReader, Clause::Beside),
];

/// A right store with a flaw.
struct WrongEngine(Flaw);

impl Engine for WrongEngine {
    fn name(&self) -> &str {
        "wrong"
    }

    fn exists(&self, dir: &Path) -> Result<bool, StoreError> {
        match self.0 {
            Flaw::AlwaysExists => Ok(true),
            Flaw::NeverExists => Ok(false),
            _ => MapEngine::default().exists(dir),
        }
    }

    fn open(&self, dir: &Path, mut identity: Identity) -> Result<Box<dyn LogStore>, StoreError> {
        if self.0 == Flaw::AnyIdentity {
            identity = Identity { node: NodeId(1), incarnation: Incarnation(1), cluster: None };
        }
        let store = MapEngine { flaw: Some(self.0) }.open(dir, identity)?;
        Ok(Box::new(WrongStore::new(self.0, store)))
    }
}

pub(crate) fn wrap(flaw: Flaw, reader: Box<dyn LogReader>) -> Box<dyn LogReader> {
    Box::new(WrongReader::new(flaw, reader))
}

/// Tests run it side by side: most of the time goes into syncs.
fn judge(flaw: Flaw, clause: Clause) {
    let dir = tempfile::tempdir().unwrap();
    match Contract::new(&WrongEngine(flaw), dir.path()).check() {
        Ok(()) => panic!("{flaw:?} was not found"),
        Err(broken) => {
            assert_eq!(broken.clause, clause, "{flaw:?}: {broken}");
            assert!(!broken.steps.is_empty() || flaw == Flaw::AlwaysExists, "{flaw:?}: {broken}");
            assert!(broken.to_string().contains(&format!("breaks {clause:?}: ")), "{broken}");
        }
    }
}

#[test]
fn every_wrong_store_is_found_by_the_clause_that_it_breaks() {
    std::thread::scope(|scope| {
        for (flaw, clause) in FLAWS {
            scope.spawn(|| judge(*flaw, *clause));
        }
    });
}
