//! How a client's connection begins: as it is, or encrypted.
//!
//! Who is believed is the library's matter ([`Tls`]); here is what a port does with it. A client has its place among the clients
//! from its first byte on, and a connection that is to be encrypted and never becomes so keeps it for a short time only. Each
//! handshake goes on in the connection's own task, so that nobody who comes after it waits for it to end.

use crate::connection::{self, Limits, Newcomer, Shared};
use crate::kv::Machine;
use coracle::{Encrypted, Role, Tls};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// How long a handshake may take, if half a command may take no less.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often refused clients are told of at most.
const REPORT: Duration = Duration::from_secs(10);

/// What an encrypted connection begins with; no command does.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a plain client hears where there are none.
const PLAIN: &[u8] = b"-ERR this port takes only encrypted connections (TLS)\r\n";

/// Which of the client port's connections are encrypted, and who gets in.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// The own certificate, and whom it believes.
    pub tls: Tls,
    /// Whether plain connections are taken as well: while the clients go over. It keeps nobody out.
    pub plain: bool,
    /// Whether each client must show a certificate of the cluster; otherwise it may.
    pub certified: bool,
}

/// The same at work.
#[derive(Debug)]
pub struct Door {
    rules: ClientTls,
    /// When a refusal was told last, and how many were not since.
    told: Mutex<(Option<Instant>, u64)>,
}

/// A connection that may talk.
enum Greeted {
    Plain(TcpStream),
    /// Whoever showed a certificate is named by it.
    Encrypted(Encrypted, Option<Role>),
}

impl Door {
    /// At first.
    pub fn new(rules: ClientTls) -> Door {
        Door { rules, told: Mutex::default() }
    }

    /// The connection, if it is one that may talk.
    async fn greet(&self, stream: TcpStream, limits: &Limits) -> io::Result<Greeted> {
        let limit = HANDSHAKE.min(limits.half_command);
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let mut first = [0];
        if self.rules.plain {
            // A client may be connected for long before it says anything.
            stream.peek(&mut first).await?;
        } else {
            timeout(limit, stream.peek(&mut first)).await.map_err(late)??;
        }
        if first != [TLS_HANDSHAKE] {
            return Ok(Greeted::Plain(stream));
        }
        let accepted = self.rules.tls.accept_client(stream, self.rules.certified);
        let (stream, shown) = timeout(limit, accepted).await.map_err(late)??;
        Ok(Greeted::Encrypted(stream, shown.map(|name| name.role)))
    }

    /// Says that somebody was refused, but not for each of many.
    fn refused(&self, from: IpAddr, why: &dyn fmt::Display) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0.is_some_and(|at| at.elapsed() < REPORT) {
            told.1 += 1;
            return;
        }
        let others = std::mem::take(&mut told.1);
        told.0 = Some(Instant::now());
        drop(told);
        tracing::warn!(%from, others, "refused a client: {why}");
    }
}

/// Serves a client from its first byte until it leaves or the server stops.
pub(crate) async fn serve<M: Machine>(
    door: Option<Arc<Door>>,
    mut stream: TcpStream,
    mut newcomer: Newcomer,
    shared: Arc<Shared<M>>,
) {
    if let Some(door) = door {
        let mut stopping = shared.stopping.clone();
        let greeted = tokio::select! {
            biased;
            // Over soon, and large, as the encrypted connection is: plain ones, which are the same task, have no room for them.
            greeted = Box::pin(door.greet(stream, &shared.limits)) => greeted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match greeted {
            Ok(Greeted::Encrypted(stream, shown)) => {
                newcomer.shown = shown;
                return Box::pin(connection::serve(stream, newcomer, shared)).await;
            }
            Ok(Greeted::Plain(plain)) => stream = plain,
            Err(error) => {
                let from = newcomer.from.ip();
                if error.kind() == io::ErrorKind::PermissionDenied {
                    door.refused(from, &error);
                } else {
                    tracing::debug!(%from, %error, "a client ended before its handshake");
                }
                return;
            }
        }
        if !door.rules.plain {
            if matches!(timeout(HANDSHAKE, stream.write_all(PLAIN)).await, Ok(Ok(()))) {
                connection::farewell(&mut stream).await;
            }
            return;
        }
    }
    connection::serve(stream, newcomer, shared).await;
}
