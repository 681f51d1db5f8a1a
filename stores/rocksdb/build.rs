//! Refuses to be built against a RocksDB whose files were not tested.
//!
//! After a loss of power, what RocksDB left is looked at before RocksDB sees it (`src/power.rs`). That reads its own
//! formats, which belong to its version.

use std::{env, fs, path::Path};

/// The version that everything was tested with, as `src/power.rs` has it too.
const TESTED: (&str, &str) = ("7", "8");

fn main() {
    for name in ["ROCKSDB_INCLUDE_DIR", "ROCKSDB_LIB_DIR"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let (major, minor) = TESTED;
    let (Ok(include), Ok(_)) = (env::var("ROCKSDB_INCLUDE_DIR"), env::var("ROCKSDB_LIB_DIR")) else {
        println!(
            "cargo::error=set ROCKSDB_INCLUDE_DIR and ROCKSDB_LIB_DIR to those of RocksDB {major}.{minor}, the version \
             that coracle-rocksdb is tested with (Debian 12: librocksdb-dev); see its README"
        );
        return;
    };
    let header = Path::new(&include).join("rocksdb/version.h");
    println!("cargo::rerun-if-changed={}", header.display());
    let text = fs::read_to_string(&header).unwrap_or_default();
    let defined = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)).map_or("?", str::trim)
    };
    let found = (defined("ROCKSDB_MAJOR "), defined("ROCKSDB_MINOR "));
    if found != TESTED {
        println!(
            "cargo::error={} is of RocksDB {}.{}, and coracle-rocksdb is tested with {major}.{minor} alone; see its README",
            header.display(),
            found.0,
            found.1,
        );
    }
}
