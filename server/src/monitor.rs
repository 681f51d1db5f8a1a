//! A node as the tools of its operator see it, by HTTP on an address of its own: whether it lives, whether it can serve, how
//! it stands, and its metrics.
//!
//! Nothing is changed through it, and nobody has to say who it is: it listens on loopback unless it is told otherwise. It
//! has few places, each for a short time and one request, so that whoever takes them all harms only others like it.

mod happenings;
mod history;
mod metrics;
mod page;
mod process;
mod readiness;
mod served;

pub(crate) use metrics::Scrape;
pub(crate) use readiness::unready;
pub(crate) use served::{Refused, Served};

pub(crate) use process::Process;

use crate::kv::Machine;
use crate::report::Report;
use crate::session::About;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use coracle::{Node, Status, StopReason, Timings};
use happenings::Look;
use history::History;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How many are served at a time; others wait in the system's queue.
const PLACES: usize = 16;

/// How long a request may take to come, and everything from the connection on until the answer is taken.
const HEAD: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(15);

/// The longest head of a request, in bytes: hyper takes no smaller buffer.
const MAX_HEAD: usize = 8 << 10;

/// How long consensus may take to answer before the node counts as hung.
const ANSWER: Duration = Duration::from_secs(5);

/// The pause after the system gave no connection.
const PAUSE: Duration = Duration::from_millis(100);

type Asked = Pin<Box<dyn Future<Output = Result<Status, StopReason>> + Send>>;

/// What is looked at.
pub(crate) struct Monitor {
    status: Box<dyn Fn() -> Asked + Send + Sync>,
    about: Arc<About>,
    timings: Arc<Timings>,
    /// How often another node has become the leader, as far as this one heard.
    leader_changes: AtomicU64,
    history: Mutex<History>,
    /// Told when a second is over.
    seconds: watch::Sender<()>,
}

impl Monitor {
    /// Of a node and its server.
    pub(crate) fn new<M: Machine>(node: &Node<M>, about: Arc<About>) -> Arc<Monitor> {
        let (asked, mut leader) = (node.clone(), node.leader_changed());
        let status = Box::new(move || -> Asked {
            let node = asked.clone();
            Box::pin(async move { node.status().await })
        });
        let monitor = Arc::new(Monitor {
            status,
            about,
            timings: node.timings(),
            leader_changes: AtomicU64::new(0),
            history: Mutex::default(),
            seconds: watch::Sender::new(()),
        });
        tokio::spawn(note_seconds(Arc::downgrade(&monitor)));
        let counting = Arc::downgrade(&monitor);
        tokio::spawn(async move {
            let mut last = None;
            while leader.changed().await.is_ok() {
                let now = leader.borrow_and_update().as_ref().map(|leader| leader.id);
                let Some(monitor) = counting.upgrade() else { return };
                if now.is_some() && now != last {
                    last = now;
                    monitor.leader_changes.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        monitor
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the node stands, or why nobody can tell.
    async fn ask(&self) -> Result<Status, String> {
        match timeout(ANSWER, (self.status)()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(reason)) => Err(format!("the node has stopped: {}", coracle::in_full(&reason))),
            Err(_) => Err(format!("consensus has not answered for {} s", ANSWER.as_secs())),
        }
    }
}

/// Notes each second for as long as somebody may want to see it.
async fn note_seconds(monitor: Weak<Monitor>) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        let Some(monitor) = monitor.upgrade() else { return };
        let status = monitor.ask().await;
        let look = status.map(|status| Look { report: Report::new(&status), unready: unready(&status) });
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        monitor.history().note(now, look, &monitor.about, &monitor.timings);
        monitor.seconds.send_replace(());
    }
}

/// Answers for ever.
pub(crate) async fn serve(listener: &TcpListener, monitor: &Arc<Monitor>) -> Infallible {
    let router = Router::new()
        .route("/healthz", get(lives))
        .route("/readyz", get(is_ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .merge(page::routes())
        .with_state(monitor.clone());
    let places = Arc::new(Semaphore::new(PLACES));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            // Nobody closes it.
            std::future::pending().await
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // Whoever is too slow is cut off, and may ask again.
                    drop(timeout(WHOLE, answer(stream, router)).await);
                });
            }
            Err(error) => {
                tracing::debug!("cannot take a connection on the admin address: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One request of one connection.
async fn answer(stream: TcpStream, router: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD).keep_alive(false);
    let served = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!("a request on the admin address failed: {error}");
    }
}

async fn lives(State(monitor): State<Arc<Monitor>>) -> (StatusCode, String) {
    match monitor.ask().await {
        Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn is_ready(State(monitor): State<Arc<Monitor>>) -> (StatusCode, String) {
    let why = match monitor.ask().await {
        Ok(status) => unready(&status),
        Err(why) => vec![why],
    };
    match why.is_empty() {
        true => (StatusCode::OK, "ready\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, why.join("\n") + "\n"),
    }
}

async fn status(State(monitor): State<Arc<Monitor>>) -> impl IntoResponse {
    let json = monitor
        .ask()
        .await
        .and_then(|status| serde_json::to_string(&Report::new(&status)).map_err(|error| error.to_string()));
    match json {
        Ok(json) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], json + "\n"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "text/plain")], why + "\n"),
    }
}

async fn metrics(State(monitor): State<Arc<Monitor>>) -> impl IntoResponse {
    // A node that does not answer has metrics all the same: those of its process, and that it is down.
    let status = monitor.ask().await.ok();
    let leader_changes = monitor.leader_changes.load(Ordering::Relaxed);
    let (about, timings) = (monitor.about.clone(), monitor.timings.clone());
    let scrape = Scrape { status, about, timings, leader_changes };
    (StatusCode::OK, [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], scrape.text())
}
