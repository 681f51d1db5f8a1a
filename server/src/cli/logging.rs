//! The log of a server: what is told of, how it is written, and how both change while it runs.

use crate::diary::Diary;
use clap::ValueEnum;
use std::io;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// One JSON object in each line
    Json,
}

/// The log. Clones are the same.
#[derive(Clone)]
pub(super) struct Logging {
    diary: Diary,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl Logging {
    /// Everything that is told of from now on, by this program and its libraries, goes to standard error.
    pub(super) fn start(filter: Option<&str>, format: Format) -> Result<Logging, String> {
        let diary = Diary::new(io::stderr());
        let (filter, handle) = reload::Layer::new(read(filter)?);
        let lines = fmt::layer().with_writer(diary.clone()).with_ansi(false);
        let lines = match format {
            Format::Text => lines.boxed(),
            Format::Json => lines.json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).init();
        Ok(Logging { diary, handle })
    }

    /// From now on this filter says what is told of.
    pub(super) fn follow(&self, filter: Option<&str>) -> Result<(), String> {
        self.handle.reload(read(filter)?).map_err(|error| error.to_string())
    }

    /// Waits until everything so far is written, but not for long.
    pub(super) fn finish(&self) {
        self.diary.finish();
    }
}

/// What `--log` says, or RUST_LOG if it says nothing.
fn read(filter: Option<&str>) -> Result<EnvFilter, String> {
    match filter {
        Some(filter) => EnvFilter::try_new(filter).map_err(|error| format!("--log {filter}: {error}")),
        None => Ok(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"))),
    }
}
