//! What the disk and the loopback network take by themselves.

use coracle::storage::StoreError;
use coracle::storage::disk::{DirDisk, Disk, DiskFile};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// The unit that the log writes in, in bytes.
pub const BLOCK: usize = 4096;

/// The blocks of a file that syncs are measured on: enough that each is an old one when it comes again.
const BLOCKS: usize = 256;

/// How many zeros are written at once, in bytes. The page cache keeps in one piece what was written at once,
/// and a sync of a block looks through its piece: with a megabyte that costs 25 us more.
const STRETCH: usize = 64 << 10;

/// A file of zeros that is on the disk already, as the log's are: to overwrite it changes no metadata.
/// It is made, or made anew, as `name` in this directory, which nobody else uses meanwhile.
pub fn zeros(directory: &Path, name: &str, len: u64) -> Result<Arc<dyn DiskFile>, String> {
    let disk = DirDisk::open(directory).map_err(|error: StoreError| coracle::in_full(&error))?;
    let make = || {
        let file = disk.create(name)?;
        for at in (0..len).step_by(STRETCH) {
            file.write_at(&vec![0; STRETCH.min((len - at) as usize)], at)?;
        }
        file.sync_data()?;
        disk.sync_dir()?;
        io::Result::Ok(file)
    };
    make().map_err(|error| format!("cannot fill {}: {error}", directory.join(name).display()))
}

/// A file whose blocks are overwritten and synced, one after the other.
pub struct Blocks {
    file: Arc<dyn DiskFile>,
    next: usize,
}

impl Blocks {
    /// On a new file in this directory.
    pub fn new(directory: &Path, name: &str) -> Result<Blocks, String> {
        Ok(Blocks { file: zeros(directory, name, (BLOCKS * BLOCK) as u64)?, next: 0 })
    }

    /// How long it takes to write the next block and to sync it.
    pub fn sync(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.file.write_at(&[self.next as u8; BLOCK], (self.next % BLOCKS * BLOCK) as u64)?;
        self.file.sync_data()?;
        self.next += 1;
        Ok(start.elapsed())
    }
}

/// Writes and syncs a block of each file at the same time, again and again. Returns for each time how long
/// the second took and how long the last.
pub fn sync_together(files: &mut [Blocks], times: usize) -> io::Result<Vec<(Duration, Duration)>> {
    let together = Barrier::new(files.len());
    let each: Vec<io::Result<Vec<Duration>>> = thread::scope(|scope| {
        let sync = |file: &mut Blocks| {
            // Nobody stops early: the others wait for everyone each time.
            let taken: Vec<_> = (0..times)
                .map(|_| {
                    together.wait();
                    file.sync()
                })
                .collect();
            taken.into_iter().collect()
        };
        let threads: Vec<_> = files.iter_mut().map(|file| scope.spawn(move || sync(file))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let each = each.into_iter().collect::<io::Result<Vec<_>>>()?;
    let order = |time: usize| {
        let mut taken: Vec<Duration> = each.iter().map(|file| file[time]).collect();
        taken.sort_unstable();
        (taken[1.min(taken.len() - 1)], taken[taken.len() - 1])
    };
    Ok((0..times).map(order).collect())
}

/// A connection to a thread that sends back each byte. It ends with the connection.
pub struct Echo(TcpStream);

impl Echo {
    /// Over the loopback interface.
    pub fn start() -> io::Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut other, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        other.set_nodelay(true)?;
        thread::spawn(move || {
            let mut byte = [0];
            while other.read_exact(&mut byte).and_then(|()| other.write_all(&byte)).is_ok() {}
        });
        Ok(Echo(stream))
    }

    /// How long one byte takes there and back.
    pub fn round_trip(&mut self) -> io::Result<Duration> {
        let start = Instant::now();
        self.0.write_all(b"x")?;
        self.0.read_exact(&mut [0])?;
        Ok(start.elapsed())
    }
}

/// The middle of several times; zero of none.
pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
