//! The program's log on standard error, written so that nobody who reads it can stop the program.
//!
//! Lines wait in a bounded queue for a thread that writes them. Whoever stops reading, a full pipe or a
//! stopped terminal, stops that thread and nothing else: what does not fit into the queue is lost, counted, and
//! said once there is room again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most.
const LINES: usize = 4096;

/// How long the end of the program waits for the lines that are left.
const PATIENCE: Duration = Duration::from_millis(200);

/// The one line with which the program ends, on standard error. Gives up where nobody takes it.
pub fn last_words(problem: &str) {
    let line = format!("coracle: {}\n", problem.replace('\n', " "));
    let (tell, told) = sync_channel(1);
    let written = thread::Builder::new().spawn(move || {
        drop(io::stderr().write_all(line.as_bytes()));
        let _: Result<_, _> = tell.send(());
    });
    if written.is_ok() {
        let _: Result<(), RecvTimeoutError> = told.recv_timeout(PATIENCE);
    }
}

enum Order {
    Line(Vec<u8>),
    /// Tell when everything before this is written.
    Flush(SyncSender<()>),
}

/// Where lines are handed in.
#[derive(Clone)]
pub struct Diary {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Diary {
    /// A diary that writes to `out`, on a thread of its own.
    pub fn new(out: impl Write + Send + 'static) -> Diary {
        let (orders, inbox) = sync_channel(LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let missing = lost.clone();
        // Without the thread every line is lost, which is no reason not to run.
        drop(
            thread::Builder::new().name("coracle-stderr".into()).spawn(move || write(out, &inbox, &missing)),
        );
        Diary { orders, lost }
    }

    /// Waits until everything so far is written, but not for long.
    pub fn finish(&self) {
        let (tell, told) = sync_channel(1);
        let until = Instant::now() + PATIENCE;
        // The queue may be full of lines that are being written.
        while self.orders.try_send(Order::Flush(tell.clone())).is_err() {
            if Instant::now() >= until {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let left = until.saturating_duration_since(Instant::now());
        let _: Result<(), RecvTimeoutError> = told.recv_timeout(left);
    }
}

fn write(mut out: impl Write, inbox: &Receiver<Order>, lost: &AtomicU64) {
    for order in inbox {
        // Where writing fails there is nobody left to tell.
        if let Order::Line(line) = &order {
            drop(out.write_all(line));
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(out, "{lost} lines of this log were lost, since nobody read them"));
        }
        if let Order::Flush(tell) = order {
            // One who gave up listens no more, and the channel has room for one.
            let _: Result<_, _> = tell.try_send(());
        }
    }
}

impl<'a> MakeWriter<'a> for Diary {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { diary: self, bytes: Vec::new() }
    }
}

/// A line that is handed in as a whole when it is dropped.
pub struct Line<'a> {
    diary: &'a Diary,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if self.diary.orders.try_send(Order::Line(line)).is_err() {
            self.diary.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    /// Takes nothing until it is let.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<State>, Condvar)>);

    /// Whether it takes anything, and what it took.
    type State = (bool, Vec<u8>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let state = self.0.0.lock().unwrap();
            let mut state = self.0.1.wait_while(state, |(open, _)| !*open).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_no_waiting() {
        let pipe = Pipe::default();
        let diary = Diary::new(pipe.clone());
        for number in 0..2 * LINES {
            writeln!(diary.make_writer(), "line {number}").unwrap();
        }
        // It gives up by itself.
        diary.finish();
        pipe.0.0.lock().unwrap().0 = true;
        pipe.0.1.notify_all();
        loop {
            diary.finish();
            let text = String::from_utf8(pipe.0.0.lock().unwrap().1.clone()).unwrap();
            if let Some(at) = text.find("lines of this log were lost") {
                assert!(text.starts_with("line 0\n"), "{text}");
                let written = text.lines().filter(|line| line.starts_with("line ")).count();
                let lost: usize = text[..at].lines().last().unwrap().trim().parse().unwrap();
                if written + lost == 2 * LINES {
                    break;
                }
            }
            thread::yield_now();
        }
    }
}
