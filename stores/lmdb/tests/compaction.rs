//! Nodes on LMDB compact their logs, and catch up by snapshots.

#[path = "../../compaction.rs"]
mod compaction;

use coracle_lmdb::Lmdb;

#[tokio::test]
async fn a_log_in_lmdb_is_compacted_and_a_follower_catches_up_by_a_snapshot() {
    let engine = Lmdb { map_bytes: 64 << 10, ..Lmdb::default() };
    compaction::a_log_is_compacted_and_a_follower_catches_up(engine).await;
}
