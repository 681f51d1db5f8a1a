//! A node's certificate, while it runs: new files are used without a restart, and the end of the old ones is told ahead.

use coracle::Tls;
use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long before its end it is told, once a day.
const AHEAD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads the files again, and says what came of it.
pub(crate) fn reload(tls: &Tls) {
    match tls.reload() {
        Ok(()) => tracing::info!("the certificate of {} was read again", tls.name()),
        Err(error) => tracing::error!("the certificate in use stays: {error}"),
    }
}

/// Looks at the files for ever, if there are any.
pub(crate) async fn watch(tls: Option<Tls>) -> Infallible {
    let Some(tls) = tls else { return pending().await };
    let mut seen = state(&tls);
    let mut told: Option<Instant> = None;
    loop {
        if told.is_none_or(|at| at.elapsed() >= DAY) && tell(&tls) {
            told = Some(Instant::now());
        }
        sleep(LOOK).await;
        let now = state(&tls);
        if now != seen {
            seen = now;
            reload(&tls);
            told = None;
        }
    }
}

/// Says so if it ends soon.
fn tell(tls: &Tls) -> bool {
    let name = tls.name();
    match tls.expires().duration_since(SystemTime::now()) {
        Ok(left) if left > AHEAD => return false,
        Ok(left) => tracing::warn!(
            "the certificate of {name}, or its authority's, is valid for {} days more: renew it (`coracle certs`)",
            left.as_secs() / DAY.as_secs()
        ),
        Err(_) => tracing::error!(
            "the certificate of {name}, or its authority's, is not valid any more: nobody takes new connections from \
             this node, and it takes none; renew it (`coracle certs`)"
        ),
    }
    true
}

/// What tells a file from another one in its place.
fn state(tls: &Tls) -> Vec<Option<(u64, i64, i64, u64)>> {
    let files = tls.files();
    let of = |path: &Path| {
        let about = fs::metadata(path).ok()?;
        Some((about.ino(), about.mtime(), about.mtime_nsec(), about.size()))
    };
    [&files.authority, &files.certificate, &files.key].map(|path| of(path)).to_vec()
}
