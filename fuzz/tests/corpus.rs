//! Every target over the files that are kept for it: no panic, at most a second of the processor, at most 64 MiB more memory.

use coracle_fuzz::TARGETS;
use rustix::time::{ClockId, clock_gettime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One file may take so long, on the thread's own clock.
const TIME: Duration = Duration::from_secs(1);

/// And so much memory, in bytes.
const MEMORY: usize = 64 << 20;

/// Counts what is allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator is unsafe to implement; it passes everything on")]
// SAFETY: everything is the system's allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn spent() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// One test for all, so that nobody else allocates meanwhile.
#[test]
fn every_target_lives_through_its_corpus_in_time_and_in_bounds() {
    for (name, target) in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let files =
            std::fs::read_dir(&directory).unwrap_or_else(|_| panic!("{} is missing", directory.display()));
        // What a target keeps for all its calls is made by the first.
        target(&[]);
        let mut ran = 0;
        for file in files {
            let path = file.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            let (began, held) = (spent(), NOW.load(Ordering::Relaxed));
            MOST.store(held, Ordering::Relaxed);
            target(&data);
            let took = spent() - began;
            let more = MOST.load(Ordering::Relaxed).saturating_sub(held);
            assert!(took <= TIME, "{} takes {took:?}", path.display());
            assert!(more <= MEMORY, "{} takes {more} bytes", path.display());
            ran += 1;
        }
        assert!(ran > 0, "{} is empty", directory.display());
    }
}
