//! Three nodes of openraft, put together as its own benchmark of clusters is: the log a tree of entries in memory, messages passed
//! by calls, and that benchmark's settings.

use super::Cluster;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage, RaftStateMachine, Snapshot};
use openraft::{
    Config, Entry, EntryPayload, LogId, OptionalSend, Raft, RaftSnapshotBuilder, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership, Vote,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Cursor;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

openraft::declare_raft_types!(
    /// Numbers that are added.
    pub(super) Types: D = u64, R = u64, Node = (),
);

type Membership = StoredMembership<u64, ()>;
type Stored<T> = Result<T, StorageError<u64>>;
type Answered<T, E = RaftError<u64>> = Result<T, RPCError<u64, (), E>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Log {
    vote: Option<Vote<u64>>,
    entries: BTreeMap<u64, Entry<Types>>,
    purged: Option<LogId<u64>>,
}

#[derive(Clone, Default)]
struct LogStore(Arc<Mutex<Log>>);

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        Ok(lock(&self.0).entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        let log = lock(&self.0);
        let last = log.entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last.or(log.purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        lock(&self.0).vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        Ok(lock(&self.0).vote)
    }

    async fn append<I>(&mut self, entries: I, done: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        lock(&self.0).entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        done.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Stored<()> {
        lock(&self.0).entries.split_off(&from.index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Stored<()> {
        let mut log = lock(&self.0);
        log.purged = Some(upto);
        log.entries = log.entries.split_off(&(upto.index + 1));
        Ok(())
    }
}

#[derive(Clone, Default)]
struct State {
    sum: u64,
    applied: Option<LogId<u64>>,
    membership: Membership,
}

/// The machine. A snapshot is the sum.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<State>>);

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        let State { sum, applied, membership } = lock(&self.0).clone();
        let meta = SnapshotMeta {
            last_log_id: applied,
            last_membership: membership,
            snapshot_id: format!("{:?}", applied.map(|id| id.index)),
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(sum.to_le_bytes().to_vec())) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, Membership)> {
        let state = lock(&self.0);
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = lock(&self.0);
        let mut sums = Vec::new();
        for entry in entries {
            state.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(number) => state.sum += number,
                EntryPayload::Membership(members) => {
                    state.membership = StoredMembership::new(Some(entry.log_id), members);
                }
            }
            sums.push(state.sum);
        }
        Ok(sums)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, ()>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Stored<()> {
        let bytes = snapshot.into_inner();
        let sum =
            <[u8; 8]>::try_from(&bytes[..]).map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        let membership = meta.last_membership.clone();
        *lock(&self.0) = State { sum: u64::from_le_bytes(sum), applied: meta.last_log_id, membership };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        self.build_snapshot().await.map(Some)
    }
}

/// All nodes, once they are there.
#[derive(Clone, Default)]
struct Router(Arc<OnceLock<Vec<Raft<Types>>>>);

/// The way to one of them.
struct Connection {
    router: Router,
    target: u64,
}

impl RaftNetworkFactory<Types> for Router {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, (): &()) -> Connection {
        Connection { router: self.clone(), target }
    }
}

impl Connection {
    fn node(&self) -> &Raft<Types> {
        &self.router.0.wait()[self.target as usize]
    }
}

impl RaftNetwork<Types> for Connection {
    async fn append_entries(
        &mut self,
        ask: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Answered<AppendEntriesResponse<u64>> {
        let answer = self.node().append_entries(ask).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }

    async fn install_snapshot(
        &mut self,
        ask: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Answered<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>> {
        let answer = self.node().install_snapshot(ask).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }

    async fn vote(&mut self, ask: VoteRequest<u64>, _: RPCOption) -> Answered<VoteResponse<u64>> {
        let answer = self.node().vote(ask).await;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

struct Nodes(Router);

/// Starts three nodes, and waits for a leader.
pub(super) async fn three() -> Result<impl Cluster, String> {
    let config = Config {
        election_timeout_min: 200,
        election_timeout_max: 2000,
        purge_batch_size: 1024,
        ..Config::default()
    };
    let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
    let router = Router::default();
    let mut nodes = Vec::new();
    for id in 0..3 {
        let node =
            Raft::new(id, config.clone(), router.clone(), LogStore::default(), Machine::default()).await;
        nodes.push(node.map_err(|error| error.to_string())?);
    }
    let first = nodes[0].clone();
    drop(router.0.set(nodes));
    first.initialize(BTreeSet::from([0, 1, 2])).await.map_err(|error| error.to_string())?;
    let elected = first.wait(Some(Duration::from_secs(30))).current_leader(0, "the first one leads").await;
    elected.map_err(|error| error.to_string())?;
    Ok(Nodes(router))
}

impl Cluster for Nodes {
    async fn add(&self, number: u64) -> Result<u64, String> {
        let written = self.0.0.wait()[0].client_write(number).await;
        written.map(|written| written.data).map_err(|error| error.to_string())
    }

    async fn stop(self) {
        for node in self.0.0.wait() {
            drop(node.shutdown().await);
        }
    }
}
