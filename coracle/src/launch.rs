//! Starts a node: opens its store, puts its parts together on a thread and a runtime of its own, and hands out the
//! handle.

use crate::alarms;
use crate::clock;
use crate::config::Config;
use crate::driver::Driver;
use crate::error::{StartError, StopReason};
use crate::files::{self, SnapshotWriter};
use crate::inbox::{self, Limits};
use crate::inner::{Boxed, Handles, Inner};
use crate::joining;
use crate::machine::{self, Machine, Surroundings};
use crate::marking;
use crate::moving;
use crate::open::{Opened, newest_time, open, random, restore};
use crate::outstanding::Shared;
use crate::published::Published;
use crate::replacing;
use crate::replica::Replica;
use crate::requests::{Reader, Request, Writer};
use crate::runtime::{Parts, Runtime, Stopped, Told};
use crate::serving::{Serving, Understands};
use crate::storage::disk::Disk;
use crate::storage::identity::{Boots, KeptStop};
use crate::storage::snapshots::{Kept, Pace};
use crate::storage::{LogReader, LogStore, Recovered};
use crate::timings::{Measured, Timings};
use crate::transport::Inbound;
use crate::transport::tcp::{Local, Tcp, TcpConfig};
use crate::wire::frame_limit;
use crate::work::Caller;
use crate::writer;
use coracle_core::{Boot, ClusterId, Index, LogId, Membership, Peer, Raft, Restored};
use std::io;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

/// Messages that wait for consensus at most; more wait in the sockets.
const INBOUND: usize = 1024;

/// The replica of a real node.
type NodeReplica = Replica<Caller<Writer>, Reader>;

/// What knows of what type the machine is.
pub(crate) struct Typed {
    /// Starts the machine.
    pub(crate) start: Box<dyn FnOnce(Surroundings) -> io::Result<Machine> + Send>,
    /// Knows what clients say to it.
    pub(crate) understands: Arc<dyn Understands>,
}

/// What a start makes: the node, and what all its handles share.
pub(crate) type Started = Result<(Arc<Inner>, Handles), StartError>;

/// Judges the settings, and opens the store.
pub(crate) fn open_store(config: Config) -> Boxed<'static, Result<Opened, StartError>> {
    Box::pin(judge_and_open(config))
}

/// Starts a node on what its store held.
pub(crate) fn launch(config: Config, machine: Typed, opened: Opened) -> Boxed<'static, Started> {
    Box::pin(on_own_thread(config, machine, opened))
}

/// Off the runtime's threads, since it reads files.
async fn judge_and_open(config: Config) -> Result<Opened, StartError> {
    config.validate()?;
    // Otherwise every time limit would panic later.
    if catch_unwind(|| drop(sleep(Duration::ZERO))).is_err() {
        let source = io::Error::other("enable_time or enable_all on its Builder gives it some");
        return Err(StartError::System { action: "use a tokio runtime without timers", source });
    }
    let opened = tokio::task::spawn_blocking(move || open(&config)).await;
    opened
        .map_err(|error| StartError::System { action: "open the store", source: io::Error::other(error) })?
}

async fn on_own_thread(config: Config, machine: Typed, opened: Opened) -> Started {
    let (handed, node) = oneshot::channel();
    let callers = Handle::current();
    let name = format!("coracle-{}", config.id);
    let own = thread::Builder::new().name(name).spawn(move || {
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let own = match own {
            Ok(own) => own,
            Err(source) => {
                let action = "start the runtime of consensus";
                return drop(handed.send(Err(StartError::System { action, source })));
            }
        };
        own.block_on(async move {
            tell_of_machine(&config, opened.fenced, opened.found.stop.as_ref());
            let disk = opened.disk.clone();
            match assemble(config, machine, opened, callers).await {
                Err(error) => drop(handed.send(Err(error))),
                Ok((inner, runtime)) => {
                    // If nobody takes them, the handles are gone, and so it stops at once.
                    let handles = Handles(inner.stop.clone());
                    tokio::spawn(moving::look_after(Arc::clone(&inner)));
                    tokio::spawn(replacing::look_after(Arc::clone(&inner)));
                    tokio::spawn(marking::look_after(Arc::clone(&inner)));
                    tokio::spawn(joining::look_after(Arc::clone(&inner), disk));
                    drop(handed.send(Ok((inner, handles))));
                    // As a task: what wakes it then comes first to its turn, and only then what the system has to tell. How it ends
                    // is told by itself.
                    drop(tokio::spawn(runtime.run()).await);
                }
            }
        });
        // A read that hangs in the disk does not hold the thread.
        own.shutdown_background();
    });
    own.map_err(system("start the thread of consensus"))?;
    let lost =
        || StartError::System { action: "start the node", source: io::Error::other("its thread panicked") };
    node.await.map_err(|_| lost())?
}

/// Puts a node together, on its own thread and runtime. `callers` is the runtime that it was started on.
async fn assemble(
    config: Config,
    machine: Typed,
    opened: Opened,
    callers: Handle,
) -> Result<(Arc<Inner>, Runtime), StartError> {
    let Opened { store, recovered, disk, incarnation, cluster, boots, .. } = opened;
    let Opened { fenced, found, met, places, promise, files, snapshot, stands, .. } = opened;
    let (me, start) = (Peer { id: config.id, incarnation }, boots.count);
    let boot = boots.newest.last().copied().unwrap_or_default();
    let (reader, timings): (Arc<dyn LogReader>, Arc<Timings>) = (Arc::from(store.reader()), Arc::default());
    let replica = replica(&config, me, boot, &*reader, recovered, snapshot.as_ref(), stands)?;
    let local = Local { met, places, ..local(me, boots, cluster, replica.raft().membership_id()) };
    let (transport, inbound) = listen(&config, local, replica.raft().membership()).await?;
    let (writer, reports) =
        log_writer(&config, store, disk.clone(), &timings).map_err(system("start the log's thread"))?;
    let (requests_out, requests) = requests(&config);
    let ((told, (leader, office, directory)), (stop_out, stop)) = (Told::channels(), watch::channel(false));
    let ((ending_out, ending), (stopped_out, stopped)) = (watch::channel(None), watch::channel(None));
    let (files, snapshots, filed) = snapshot_worker(&config, files)?;
    let (around, machine_reports) =
        around(&config, callers.clone(), &transport, &disk, &ending, snapshots.clone(), &timings);
    let inner = Arc::new(Inner {
        config: config.clone(),
        me,
        peer_addr: transport.local_addr(),
        requests: requests_out,
        lanes: Default::default(),
        transport: transport.clone(),
        timings,
        confirmed: Default::default(),
        machine_version: Arc::new(AtomicU16::new(1)),
        published: around.published.clone(),
        outstanding: around.outstanding.clone(),
        leader,
        times_led: told.times_led.clone(),
        office,
        directory,
        stop: stop_out,
        ending,
        stopped,
    });
    let machine_started = (machine.start)(around).map_err(system("start the machine's thread"))?;
    let serving = Serving::new(inner.clone(), machine.understands, callers);
    let driver = Driver::new(replica, cluster, boot, &config).remembering(promise, start).fenced_at(fenced);
    let driver = driver.starting_from(snapshot, log_bytes(&*reader, &config)).knowing_rulings(found);
    let parts = Parts {
        driver,
        machine: machine_started,
        machine_reports,
        config,
        transport,
        writer,
        reports,
        files,
        filed,
        snapshots,
        reader,
        disk,
        requests,
        inbound,
        serving,
        told,
        stop,
        ending: ending_out,
        stopped: Stopped(stopped_out),
        machine_version: inner.machine_version.clone(),
    };
    Ok((inner, Runtime::new(parts)))
}

/// Says that the machine is not used, if it is not.
fn tell_of_machine(config: &Config, fenced: Option<Index>, stop: Option<&KeptStop>) {
    if let Some(KeptStop { stop, why }) = stop {
        tracing::error!(node = %config.id, entry = %stop.at, "{}", alarms::machine_stopped(stop.at, why));
    }
    fenced.inspect(|index| tracing::error!(node = %config.id, %index, "{}", alarms::FENCED));
}

/// What writes the log: a thread, if the store may wait for something.
fn log_writer(
    config: &Config,
    store: Box<dyn LogStore>,
    disk: Option<Arc<dyn Disk>>,
    timings: &Arc<Timings>,
) -> io::Result<(writer::Writer, mpsc::UnboundedReceiver<writer::Report>)> {
    let store = Box::new(Measured { store, timings: timings.clone() });
    let (reports_out, reports) = mpsc::unbounded_channel();
    let writer = if disk.is_none() && store.never_waits() {
        writer::Writer::here(store, reports_out, config.broken)
    } else {
        let name = format!("coracle-log-{}", config.id);
        writer::Writer::start(name, store, disk, reports_out, config.broken)?
    };
    Ok((writer, reports))
}

/// The system refused this.
fn system(action: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { action, source }
}

/// What this node says of itself.
fn local(me: Peer, boots: Boots, cluster: Option<ClusterId>, membership: LogId) -> Local {
    let boot = boots.newest.last().copied().unwrap_or_default();
    let (boot_number, boots) = (boots.count, boots.newest);
    Local { boot_number, boots, ..Local::new(me, boot, cluster, membership) }
}

/// Consensus and its log, as they were when the node stopped.
fn replica(
    config: &Config,
    me: Peer,
    boot: Boot,
    reader: &dyn LogReader,
    recovered: Recovered,
    snapshot: Option<&Kept>,
    stands: Option<LogId>,
) -> Result<NodeReplica, StartError> {
    let newest = newest_time(reader, &recovered)?.max(snapshot.map_or(0, |kept| kept.meta.cluster_time));
    Ok(Replica::new(core(config, me, boot, restore(recovered, snapshot, stands)?)?, config, newest))
}

/// Starts the thread that works on the files of snapshots.
fn snapshot_worker(config: &Config, files: Arc<dyn Disk>) -> Result<files::Worker, StartError> {
    let pace = Pace::at_most(config.snapshot_bytes_per_second);
    files::start(format!("coracle-snap-{}", config.id), files, pace)
        .map_err(system("start the thread for snapshots"))
}

/// About how many bytes the log has: files that are kept to be used again are not the log.
fn log_bytes(reader: &dyn LogReader, config: &Config) -> u64 {
    reader.disk_bytes().saturating_sub(4 * config.segment_bytes)
}

/// The way to consensus for whoever asks something.
fn requests(config: &Config) -> (inbox::Sender<Request>, inbox::Receiver<Request>) {
    let bytes = config.max_unproposed_bytes as usize;
    inbox::bounded(Limits { questions: config.max_pending, bytes }, Request::bytes)
}

/// The consensus core, as it was when the node stopped.
fn core(config: &Config, me: Peer, boot: Boot, restored: Restored) -> Result<Raft, StartError> {
    #[cfg_attr(not(feature = "mutants"), expect(unused_mut))]
    let mut raft = Raft::new(me, boot, config.core(), random()?, restored, clock::now().tick)
        .map_err(|bad| StartError::Config { setting: bad.setting, problem: bad.to_string() })?;
    #[cfg(feature = "mutants")]
    raft.break_rule(config.broken);
    Ok(raft)
}

/// What the machine needs besides itself, and what it will report.
fn around(
    config: &Config,
    runtime: Handle,
    transport: &Arc<Tcp>,
    disk: &Option<Arc<dyn Disk>>,
    ending: &watch::Receiver<Option<StopReason>>,
    snapshots: SnapshotWriter,
    timings: &Arc<Timings>,
) -> (Surroundings, mpsc::UnboundedReceiver<machine::Report>) {
    let (reports, reported) = mpsc::unbounded_channel();
    let around = Surroundings {
        on: config.machine_thread,
        runtime,
        name: format!("coracle-app-{}", config.id),
        transport: transport.clone(),
        reports,
        snapshots,
        published: Arc::new(Published::new(config.events_bytes)),
        outstanding: Arc::new(Shared::default()),
        ending: ending.clone(),
        disk: disk.clone(),
        timings: timings.clone(),
        unapplied: config.max_unapplied_bytes,
    };
    (around, reported)
}

/// The way to the peers, and what comes from them.
async fn listen(
    config: &Config,
    local: Local,
    membership: &Membership,
) -> Result<(Arc<Tcp>, mpsc::Receiver<Inbound>), StartError> {
    let (inbox, inbound) = mpsc::channel(INBOUND);
    let newest = local.membership;
    let (address, metadata) = (config.advertised.clone(), config.metadata.clone().into());
    let local = Local { address, metadata, machine: config.machine.0, ..local };
    let transport = TcpConfig {
        tls: config.tls.clone(),
        network: config.network.clone(),
        max_clients: config.max_clients,
        max_sockets: config.max_peer_sockets,
        client_frame: frame_limit(config.max_command_bytes),
        features: config.features,
        ..TcpConfig::default()
    };
    let transport = Tcp::bind(&config.peer_addr, transport, local, inbox)
        .await
        .map_err(|source| StartError::Listen { address: config.peer_addr.clone(), source })?;
    transport.set_membership(newest, membership, &[]);
    Ok((Arc::new(transport), inbound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Storage;
    use crate::replica::{Event, Moment};
    use crate::storage::Change;
    use crate::storage::memory::MemoryStore;
    use crate::storage::snapshots::Meta;
    use crate::wire::encode_membership;
    use coracle_core::{HardState, Incarnation, Member, NodeId, Peer, Term};

    /// A log that was reset to a snapshot knows neither the time nor the membership: a start has both from the snapshot.
    #[test]
    fn a_start_from_a_snapshot_alone_knows_the_cluster_time_and_the_membership() {
        let (me, id) = (Peer { id: NodeId(1), incarnation: Incarnation(11) }, LogId::new(3, 70));
        let member = Member { id: me.id, incarnation: me.incarnation, address: "a:1".to_owned() };
        let membership = Membership::of_voters(ClusterId(1), [member]);
        let payload = encode_membership(&membership);
        let meta = Meta {
            id,
            digest: [7; 16],
            cluster_time: 90_000,
            machine_version: 0,
            compared: None,
            membership: (LogId::new(2, 5), payload.clone()),
            level: 0,
            sessions: bytes::Bytes::new(),
            timers: bytes::Bytes::new(),
            entries_version: 0,
            rulings: bytes::Bytes::new(),
            effects: bytes::Bytes::new(),
        };
        let kept = Kept { meta, file: 1, bytes: 500 };
        let recovered = Recovered {
            hard_state: HardState { term: Term(3), vote: None, promised: 0 },
            purged: id,
            last: id,
            memberships: vec![(LogId::new(2, 5), payload)],
            ..Recovered::default()
        };
        let config = Config::new(1, "127.0.0.1:0", Storage::Memory);
        let reader = MemoryStore::new().reader();
        let mut replica = replica(&config, me, Boot(1), &*reader, recovered, Some(&kept), None).unwrap();
        assert_eq!(replica.raft().membership(), &membership);
        // Alone in its cluster, it leads with its first tick, and writes its first entry.
        let mut times = Vec::new();
        for tick in 0..200 {
            let now = clock::now().tick.0 + tick;
            replica.on_event(Moment::new(10 * now, 0), Event::Tick);
            replica.on_event(Moment::new(10 * now, 0), Event::Persisted(replica.raft().newest_write()));
            for (_, batch) in replica.take().writes {
                for change in batch.changes {
                    let Change::Append(entries) = change else { continue };
                    times.extend(entries.iter().map(|entry| entry.stamp().cluster_time));
                }
            }
        }
        assert!(!times.is_empty() && times.iter().all(|time| *time >= 90_000), "{times:?}");
    }
}
