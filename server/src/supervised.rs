//! Whoever started the server: systemd, which is told that it is ready and that it lives, and an operator, who asks by SIGUSR1.

use crate::kv::Machine;
use crate::report::Report;
use crate::session::About;
use coracle::{Node, in_full};
use sd_notify::NotifyState;
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// How often it is looked whether the machine has caught up since the start.
const LOOK: Duration = Duration::from_millis(50);

/// Tells systemd, if that started the server.
pub(crate) fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("systemd, which started this server, cannot be told how it is: {error}");
    }
}

/// Does, for ever, what whoever started the server wants of it.
pub(crate) async fn attend<M: Machine>(node: &Node<M>, about: &About) -> Infallible {
    tokio::select! {
        never = watchdog(node) => never,
        never = answer_signals(node) => never,
        never = loading(node, about) => never,
    }
}

/// Tells systemd, if it wants to hear that, that the node lives: not only this thread, which tells it.
async fn watchdog<M: Machine>(node: &Node<M>) -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else { return pending().await };
    loop {
        // A node that does not answer in time is not told to live.
        if matches!(timeout(limit / 2, node.status()).await, Ok(Ok(_))) {
            tell(NotifyState::Watchdog);
        }
        sleep(limit / 4).await;
    }
}

/// Answers SIGUSR1 with the state of the node, in its log, whatever is told of there.
async fn answer_signals<M: Machine>(node: &Node<M>) -> Infallible {
    let mut asked = match signal(SignalKind::user_defined1()) {
        Ok(asked) => asked,
        Err(error) => {
            tracing::warn!("SIGUSR1 is not answered: {error}");
            return pending().await;
        }
    };
    while asked.recv().await.is_some() {
        match node.status().await {
            Ok(status) => {
                let report = Report::new(&status).to_string();
                let lines: Vec<&str> = report.lines().map(str::trim).collect();
                tracing::warn!("SIGUSR1: {}", lines.join("; "));
            }
            Err(reason) => tracing::warn!("SIGUSR1: the node has stopped: {}", in_full(&reason)),
        }
    }
    pending().await
}

/// Says of the server that it is loading, until the machine has caught up with what its log held at the start.
async fn loading<M: Machine>(node: &Node<M>, about: &About) -> Infallible {
    while let Ok(status) = node.status().await {
        // Without a leader that is what it waits for, and says so.
        let loading = !status.caught_up && status.raft.leader.is_some();
        about.loading.store(loading, Ordering::Relaxed);
        if status.caught_up {
            break;
        }
        sleep(LOOK).await;
    }
    pending().await
}
