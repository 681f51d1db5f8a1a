//! Runs beside each other, one on each core. A run knows nothing of the others, so they change nothing in it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// How many runs this machine can do at once.
pub fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Does `work` on the items, so many at once, and hands over what came of them in the order of the items, until
/// none is left or `take` breaks off. What was begun by then is finished and forgotten.
pub fn on_cores<T, R: Send, B>(
    jobs: NonZeroUsize,
    items: impl IntoIterator<Item = T, IntoIter: Send>,
    work: impl Fn(T) -> R + Sync,
    mut take: impl FnMut(R) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let items = Mutex::new(items.into_iter().enumerate());
    // Whoever is fast waits here for whoever takes.
    let (done, results) = mpsc::sync_channel(jobs.get());
    thread::scope(|scope| {
        for _ in 0..jobs.get() {
            let (items, work, done) = (&items, &work, done.clone());
            scope.spawn(move || {
                let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some((number, item)) = next() {
                    if done.send((number, work(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let (mut early, mut turn) = (BTreeMap::new(), 0);
        for (number, result) in results {
            early.insert(number, result);
            while let Some(result) = early.remove(&turn) {
                turn += 1;
                take(result)?;
            }
        }
        ControlFlow::Continue(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn jobs(jobs: usize) -> NonZeroUsize {
        NonZeroUsize::new(jobs).unwrap()
    }

    #[test]
    fn results_come_in_the_order_of_the_items_whoever_is_done_first() {
        for jobs in [1, 2, 5].map(jobs) {
            let mut taken = Vec::new();
            let slow_at_first = |n: u64| {
                thread::sleep(Duration::from_micros(300 - 3 * n));
                n
            };
            let end = on_cores(jobs, 0..100, slow_at_first, |n| {
                taken.push(n);
                ControlFlow::<()>::Continue(())
            });
            assert_eq!((end, taken), (ControlFlow::Continue(()), (0..100).collect()));
        }
    }

    #[test]
    fn nothing_is_taken_after_the_break_and_an_endless_work_ends() {
        let mut taken = Vec::new();
        let end = on_cores(
            jobs(3),
            0..,
            |n| n,
            |n| {
                taken.push(n);
                if n == 7 { ControlFlow::Break(n) } else { ControlFlow::Continue(()) }
            },
        );
        assert_eq!((end, taken), (ControlFlow::Break(7), (0..=7).collect()));
    }
}
