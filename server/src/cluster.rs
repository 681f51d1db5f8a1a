//! Servers as child processes: what the demo, the failover script and the tests stand on.
//!
//! A child never outlives its parent. Dropping it kills it; and should the parent itself be killed, the
//! child sees the pipe on its standard input close (`--parent-pipe`) and stops. What a child says on
//! standard error goes to a file beside its data directory, so that the reason of a failed start can be
//! shown.

use crate::client::{Client, Value};
use crate::report::{Health, Report};
use crate::store::Store;
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long a node may take to start, reading its log included. This and the next only bound hanging: minutes, so that
/// a machine that has other things to do fails nobody.
pub const START_LIMIT: Duration = Duration::from_secs(120);

/// How long one request of this file waits: longer than any server does.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long forming a cluster may take: the server waits up to 15 s for the nodes, and again for the entry.
pub const INIT_LIMIT: Duration = Duration::from_secs(60);

/// The pause between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// Ports are taken from here: below the range that systems give to outgoing connections, so that nobody
/// takes a node's port while it is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Where a node lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its id.
    pub id: u64,
    /// Its data directory.
    pub directory: PathBuf,
    /// The address for its peers.
    pub peer_addr: String,
    /// The address for clients.
    pub client_addr: String,
}

impl Place {
    /// A place with data in `directory/nodeN`, on free ports.
    fn free(directory: &Path, id: u64) -> Result<Place, String> {
        let directory = directory.join(format!("node{id}"));
        let [peer_addr, client_addr] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
        Ok(Place { id, directory, peer_addr, client_addr })
    }
}

/// Makes the command that runs a node.
pub type Program = Arc<dyn Fn(&Place) -> Command + Send + Sync>;

/// The real server: `program serve …`.
pub fn server(program: impl Into<PathBuf>) -> Program {
    server_on(program, Store::Wal)
}

/// The real server, with its log in this store.
pub fn server_on(program: impl Into<PathBuf>, store: Store) -> Program {
    let program = program.into();
    Arc::new(move |place| {
        let mut command = Command::new(&program);
        command.args(["serve", "--parent-pipe", "--id", &place.id.to_string()]);
        if store != Store::Wal {
            command.args(["--store", store.name()]);
        }
        command.arg("--data-dir").arg(&place.directory);
        command.args(["--peer-addr", &place.peer_addr, "--client-addr", &place.client_addr]);
        command
    })
}

/// Becomes true when somebody wants everything to end; every wait of this file then fails.
pub type Interrupt = Arc<AtomicBool>;

/// Looks at something again and again until it is there.
pub fn wait<T>(
    what: &str,
    limit: Duration,
    interrupt: &Interrupt,
    mut look: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        if interrupt.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(format!("{what} took more than {limit:?}"));
        }
        std::thread::sleep(LOOK);
    }
}

/// Three servers, or as many as asked for. Dropping it kills them.
pub struct Cluster {
    nodes: Vec<Node>,
    /// The newest id that a node was given.
    given: u64,
    interrupt: Interrupt,
}

/// One server, running or not.
pub struct Node {
    /// Where it lives.
    pub place: Place,
    program: Program,
    child: Option<Running>,
}

/// A child process. Dropping it kills it.
pub(crate) struct Running {
    process: Child,
    /// The lines of its standard output.
    said: mpsc::Receiver<String>,
    name: String,
    /// The file with its standard error.
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where the child has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Running {
    /// Starts a program whose standard error goes to a file, and waits for a line with ` ready: ` in what it
    /// says. Returns what follows in that line. A program that ends before is an error with its last words.
    pub(crate) fn start(
        name: &str,
        command: Command,
        log: &Path,
        interrupt: &Interrupt,
    ) -> Result<(Running, String), String> {
        let mut running = Running::spawn(name, command, log)?;
        let rest = running.ready(interrupt)?;
        Ok((running, rest))
    }

    /// Starts it without waiting.
    fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Running, String> {
        let cannot = |error: io::Error| format!("cannot start {name}: {error}");
        let file = File::options().create(true).append(true).open(log).map_err(cannot)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut process = command.spawn().map_err(cannot)?;
        let stdout = process.stdout.take().expect("the child's standard output is a pipe");
        let (tell, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Ok(Running { process, said, name: name.to_owned(), log: log.to_owned() })
    }

    /// Waits for the line with ` ready: `.
    fn ready(&mut self, interrupt: &Interrupt) -> Result<String, String> {
        let Running { process, said, name, log } = self;
        let ready = |line: String| line.split_once(" ready: ").map(|(_, rest)| rest.to_owned());
        let result = wait(&format!("starting {name}"), START_LIMIT, interrupt, || {
            match said.try_iter().find_map(ready) {
                Some(rest) => Ok(Some(rest)),
                None => match process.try_wait().map_err(|error| format!("{name}: {error}"))? {
                    None => Ok(None),
                    Some(status) => Err(format!("{name} did not start ({status})")),
                },
            }
        });
        result.map_err(|error| format!("{error}: {}", last_line(log)))
    }
}

impl Cluster {
    /// Starts a node for each program, with ids from 1 on and data in `directory/nodeN`, on free ports.
    pub fn start(directory: &Path, programs: Vec<Program>, interrupt: Interrupt) -> Result<Cluster, String> {
        let mut cluster = Cluster { nodes: Vec::new(), given: 0, interrupt };
        for program in programs {
            cluster.add(directory, program)?;
        }
        for id in cluster.ids() {
            cluster.restart(id)?;
        }
        Ok(cluster)
    }

    /// The client addresses of all nodes.
    pub fn client_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.place.client_addr.clone()).collect()
    }

    /// The ids of all nodes.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.place.id).collect()
    }

    /// A node.
    pub fn node(&self, id: u64) -> &Node {
        self.nodes.iter().find(|node| node.place.id == id).expect("an id of a node of this cluster")
    }

    fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.place.id == id).expect("an id of a node of this cluster")
    }

    /// One more node, with an id that none had and data in `directory/nodeN`, on free ports. It is not started, and is
    /// no member of anything.
    pub fn add(&mut self, directory: &Path, program: Program) -> Result<u64, String> {
        let id = self.given + 1;
        self.nodes.push(Node { place: Place::free(directory, id)?, program, child: None });
        self.given = id;
        Ok(id)
    }

    /// A node is to listen to the others at another address from its next start on.
    pub fn relocate(&mut self, id: u64) -> Result<(), String> {
        self.node_mut(id).place.peer_addr = format!("127.0.0.1:{}", free_port()?);
        Ok(())
    }

    /// A node is no longer one of these. Its process is killed.
    pub fn retire(&mut self, id: u64) {
        self.nodes.retain(|node| node.place.id != id);
    }

    /// Makes the nodes a cluster.
    pub fn form(&self) -> Result<(), String> {
        let words: Vec<_> =
            self.nodes.iter().map(|node| format!("{}={}", node.place.id, node.place.peer_addr)).collect();
        let mut command: Vec<&[u8]> = vec![b"CORACLE", b"MEMBERS", b"INIT"];
        command.extend(words.iter().map(String::as_bytes));
        let failed = |error: io::Error| format!("the cluster could not be formed: {error}");
        let mut client = Client::connect(&self.node(1).place.client_addr, INIT_LIMIT).map_err(failed)?;
        match client.ask(&command).map_err(failed)? {
            Value::Simple(_) => Ok(()),
            other => Err(format!("the cluster could not be formed: {other:?}")),
        }
    }

    /// Waits until a running node leads, in the eyes of all that run. Returns it and its term.
    pub fn leader(&self) -> Result<(u64, u64), String> {
        wait("electing a leader", START_LIMIT, &self.interrupt, || {
            let mut seen = Vec::new();
            for node in self.nodes.iter().filter(|node| node.child.is_some()) {
                match node.report() {
                    Ok(report) => seen.push((report.leader, report.term)),
                    Err(_) => return Ok(None),
                }
            }
            let running = |id: u64| self.node(id).child.is_some();
            match seen.first() {
                Some(&(Some(leader), term)) if running(leader) && seen.iter().all(|one| *one == seen[0]) => {
                    Ok(Some((leader, term)))
                }
                _ => Ok(None),
            }
        })
    }

    /// Kills a node with SIGKILL and waits until it is gone. Returns when the signal was sent.
    pub fn kill(&mut self, id: u64) -> Instant {
        let at = Instant::now();
        self.node_mut(id).child = None;
        at
    }

    /// Kills all nodes with SIGKILL, as near to one moment as can be, and waits until they are gone.
    pub fn kill_all(&mut self) {
        for running in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            // It fails only where the child has ended already.
            let _ = running.process.kill();
        }
        self.nodes.iter_mut().for_each(|node| node.child = None);
    }

    /// Starts a node that does not run, and waits until it accepts clients.
    pub fn restart(&mut self, id: u64) -> Result<(), String> {
        self.spawn(id)?;
        self.ready(id)
    }

    /// Starts a node that does not run, and does not wait for it.
    pub fn spawn(&mut self, id: u64) -> Result<(), String> {
        self.node_mut(id).spawn()
    }

    /// Waits until a node that was spawned accepts clients.
    pub fn ready(&mut self, id: u64) -> Result<(), String> {
        let interrupt = self.interrupt.clone();
        self.node_mut(id).ready(&interrupt)
    }

    /// From its next start on, the node is run by this program.
    pub fn set_program(&mut self, id: u64, program: Program) {
        self.node_mut(id).program = program;
    }

    /// How a node ended by itself; nothing while it runs, or once it was killed.
    pub fn ended(&mut self, id: u64) -> Result<Option<ExitStatus>, String> {
        match &mut self.node_mut(id).child {
            Some(running) => running.process.try_wait().map_err(|error| format!("node {id}: {error}")),
            None => Ok(None),
        }
    }

    /// Stops a node's process in its tracks (SIGSTOP), or lets it go on (SIGCONT).
    pub fn freeze(&self, id: u64, frozen: bool) -> Result<(), String> {
        let node = self.node(id);
        let pid = node.pid().and_then(|pid| Pid::from_raw(pid as i32)).ok_or("the node does not run")?;
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        kill_process(pid, signal).map_err(|error| format!("cannot signal node {id}: {error}"))
    }

    /// Waits until all nodes have applied the same entries, and checks that they came to the same digest.
    /// Returns the index and the digest.
    pub fn agree(&self) -> Result<(u64, String), String> {
        let reports = wait("applying the same entries everywhere", START_LIMIT, &self.interrupt, || {
            let reports = self.nodes.iter().map(Node::report).collect::<Result<Vec<_>, _>>()?;
            let first = &reports[0];
            let level =
                reports.iter().all(|one| one.applied == first.applied && one.applied == one.last_index);
            Ok(level.then_some(reports))
        })?;
        let first = &reports[0];
        match reports.iter().find(|other| other.digest != first.digest) {
            None => Ok((first.applied, first.digest.clone())),
            Some(other) => Err(format!(
                "nodes {} and {} applied the same entries up to {} and came to different states: \
                 digest {} against {}",
                first.id, other.id, first.applied, first.digest, other.digest
            )),
        }
    }
}

impl Node {
    /// A client of this node.
    pub fn client(&self) -> io::Result<Client> {
        Client::connect(&self.place.client_addr, REQUEST_LIMIT)
    }

    /// What it says of itself.
    pub fn report(&self) -> Result<Report, String> {
        report(&self.place.client_addr, REQUEST_LIMIT)
            .map_err(|error| format!("node {} does not answer: {error}", self.place.id))
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| child.process.id())
    }

    /// Where its standard error goes.
    pub fn log(&self) -> PathBuf {
        self.place.directory.with_extension("log")
    }

    fn spawn(&mut self) -> Result<(), String> {
        let command = (self.program)(&self.place);
        let name = format!("node {}", self.place.id);
        // The old process, if any, is gone before the new one starts.
        self.child = None;
        self.child = Some(Running::spawn(&name, command, &self.log())?);
        Ok(())
    }

    fn ready(&mut self, interrupt: &Interrupt) -> Result<(), String> {
        let running = self.child.as_mut().ok_or_else(|| format!("node {} was not started", self.place.id))?;
        let result = running.ready(interrupt);
        if result.is_err() {
            self.child = None;
        }
        result.map(drop)
    }

    /// The last line that it wrote on standard error.
    pub fn last_words(&self) -> String {
        last_line(&self.log())
    }
}

fn last_line(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    log.lines().last().unwrap_or("it said nothing").to_owned()
}

/// Asks a server for its status.
pub fn report(address: &str, limit: Duration) -> Result<Report, String> {
    asked(address, limit, b"STATUS")
}

/// Asks a server how it is.
pub fn health(address: &str, limit: Duration) -> Result<Health, String> {
    asked(address, limit, b"HEALTH")
}

fn asked<T: DeserializeOwned>(address: &str, limit: Duration, what: &[u8]) -> Result<T, String> {
    let mut client = Client::connect(address, limit).map_err(|error| error.to_string())?;
    match client.ask(&[b"CORACLE", what]).map_err(|error| error.to_string())? {
        Value::Bulk(json) => serde_json::from_slice(&json).map_err(|error| error.to_string()),
        Value::Error(error) => Err(error),
        other => Err(format!("it answered {other:?}")),
    }
}

/// A port that nobody listens on now, and another one each time: a node may be down when the next cluster is started.
pub fn free_port() -> Result<u16, String> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..1000 {
        let port = PORTS.start + (random() % u64::from(PORTS.end - PORTS.start)) as u16;
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return Ok(port);
        }
    }
    Err("no free port was found".into())
}

/// The standard library seeds its hash maps at random; that is random enough for names and ports.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
