//! What the system says of this process.

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use std::fs;

/// As far as it can be found out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Process {
    /// Bytes of its memory that are in the computer's.
    pub(crate) resident_bytes: u64,
    /// Files that it has open, sockets among them.
    pub(super) open_files: u64,
    /// How many it may have open.
    pub(super) max_files: u64,
    /// Seconds of processor that it has used.
    pub(super) cpu_seconds: f64,
}

impl Process {
    /// Looks. None where there is no `/proc`.
    pub(crate) fn look() -> Option<Process> {
        let pages = fs::read_to_string("/proc/self/statm").ok()?;
        let pages: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // After the name, which may hold anything: the third field is the first here.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let used = ticks(11)? + ticks(12)?;
        Some(Process {
            resident_bytes: pages * page_size() as u64,
            // The directory itself is open while it is read.
            open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
            max_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            cpu_seconds: used as f64 / clock_ticks_per_second() as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let before = Process::look().unwrap();
        assert!(before.resident_bytes > 100_000 && before.open_files > 2, "{before:?}");
        assert!(before.max_files >= before.open_files, "{before:?}");
        let held: Vec<_> = (0..20).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let after = Process::look().unwrap();
        assert!(after.open_files >= before.open_files.max(20), "{after:?}");
        assert!(after.cpu_seconds >= before.cpu_seconds, "{after:?}");
        drop(held);
    }
}
