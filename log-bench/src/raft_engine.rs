//! The crate raft-engine on the same bytes.
//!
//! Once with its defaults and once set up to be as fast as it can be, with files that are filled beforehand and
//! recycled. Both do not compress (the entries cannot be), and get an entry as the bytes that it has already,
//! without another encoding around them.

use crate::Failure;
use crate::contender::Contender;
use coracle::entry::Entry;
use coracle::raft::LogId;
use coracle::storage::{Change, WriteBatch};
use protobuf::reflect::MessageDescriptor;
use protobuf::{Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields};
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::any::Any;
use std::path::Path;

/// The log's only group.
const GROUP: u64 = 1;

/// An entry as raft-engine wants to see it.
#[derive(Clone, PartialEq, Debug, Default)]
struct Encoded {
    entry: Option<Entry>,
    /// Always empty; the trait asks for it.
    unknown: UnknownFields,
}

impl Encoded {
    fn bytes(&self) -> &[u8] {
        self.entry.as_ref().map_or(&[], |entry| entry.bytes())
    }
}

impl Clear for Encoded {
    fn clear(&mut self) {
        self.entry = None;
    }
}

impl Message for Encoded {
    fn descriptor(&self) -> &'static MessageDescriptor {
        unreachable!("nobody looks into an entry here")
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, _: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        unreachable!("nobody reads an entry here")
    }

    fn write_to_with_cached_sizes(&self, out: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        out.write_raw_bytes(self.bytes())
    }

    fn compute_size(&self) -> u32 {
        self.bytes().len() as u32
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Encoded {
        Encoded::default()
    }

    fn default_instance() -> &'static Encoded {
        static NONE: Encoded = Encoded { entry: None, unknown: UnknownFields { fields: None } };
        &NONE
    }
}

struct Entries;

impl MessageExt for Entries {
    type Entry = Encoded;

    fn index(encoded: &Encoded) -> u64 {
        encoded.entry.as_ref().map_or(0, |entry| entry.index().0)
    }
}

/// An engine, and the batch that is on its way.
pub(crate) struct RaftEngine {
    name: &'static str,
    engine: Engine,
    batch: LogBatch,
    prepared: Vec<Encoded>,
}

impl RaftEngine {
    /// With recycled files from the start, and within a gigabyte.
    pub(crate) fn prefilled(directory: &Path) -> Result<RaftEngine, Failure> {
        let config = Config {
            purge_threshold: ReadableSize::mb(512),
            prefill_for_recycle: true,
            prefill_limit: Some(ReadableSize::mb(768)),
            ..RaftEngine::config(directory)
        };
        RaftEngine::start("raft-engine, prefilled", config)
    }

    /// With its defaults.
    pub(crate) fn open(directory: &Path) -> Result<RaftEngine, Failure> {
        RaftEngine::start("raft-engine", RaftEngine::config(directory))
    }

    fn config(directory: &Path) -> Config {
        Config {
            dir: directory.to_string_lossy().into_owned(),
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        }
    }

    fn start(name: &'static str, config: Config) -> Result<RaftEngine, Failure> {
        std::fs::create_dir_all(&config.dir)?;
        Ok(RaftEngine {
            name,
            engine: Engine::open(config)?,
            batch: LogBatch::default(),
            prepared: Vec::new(),
        })
    }

    /// The newest index.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.engine.last_index(GROUP)
    }
}

impl Contender for RaftEngine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&mut self, batch: &WriteBatch) {
        self.prepared.clear();
        for change in &batch.changes {
            if let Change::Append(entries) = change {
                let encoded = |entry: &Entry| Encoded { entry: Some(entry.clone()), ..Encoded::default() };
                self.prepared.extend(entries.iter().map(encoded));
            }
        }
    }

    fn write(&mut self, _: &WriteBatch) -> Result<(), Failure> {
        self.batch.add_entries::<Entries>(GROUP, &self.prepared)?;
        self.engine.write(&mut self.batch, true)?;
        Ok(())
    }

    fn forget(&mut self, upto: LogId) -> Result<(), Failure> {
        self.engine.compact_to(GROUP, upto.index.0 + 1);
        self.engine.purge_expired_files()?;
        Ok(())
    }
}
