//! Nodes on RocksDB compact their logs, and catch up by snapshots.

#[path = "../../compaction.rs"]
mod compaction;

use coracle_rocksdb::RocksDb;

#[tokio::test]
async fn a_log_in_rocksdb_is_compacted_and_a_follower_catches_up_by_a_snapshot() {
    let engine = RocksDb { write_buffer_bytes: 64 << 10, ..RocksDb::default() };
    compaction::a_log_is_compacted_and_a_follower_catches_up(engine).await;
}
