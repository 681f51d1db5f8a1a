//! A disk that loses what was not synced when its power is cut.
//!
//! `kill -9` leaves the page cache in place, and so it cannot find a missing sync. This disk lives in the memory
//! of this process and is mounted by FUSE: `powercut DIRECTORY`. What is written to it can be read and mapped
//! at once, but only what was synced is sure to be there after the power was cut and came back. It is told
//! what to do on standard input, line by line, and answers each line with one that begins with `ok` or
//! `error`:
//!
//! | line | what happens |
//! | --- | --- |
//! | `status` | tells `on` or `off`, and how many operations that change something were done |
//! | `cut` | the power goes off: every operation fails from now on |
//! | `cut-after N` | it goes off after `N` more operations that change something |
//! | `restore PERCENT SEED` | unmounts, comes back with what survived, and mounts anew: each unsynced sector, length and name survives with this probability; all files must be closed |
//! | `slow MICROSECONDS` | each sync of a file takes that much longer from now on; `slow 0` undoes it |
//!
//! It unmounts and ends when standard input does.
#![forbid(unsafe_code)]

mod file;
mod mount;
mod state;

use self::mount::Served;
use self::state::State;
use fuser::{BackgroundSession, Config, MountOption};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A mounted disk.
struct Disk {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// An empty disk, mounted at this directory.
    fn mount(path: &Path) -> io::Result<Disk> {
        let mut disk =
            Disk { state: Arc::new(Mutex::new(State::new())), path: path.to_owned(), session: None };
        disk.attach()?;
        Ok(disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&mut self) -> io::Result<()> {
        let mut config = Config::default();
        let name = MountOption::FSName("powercut".into());
        config.mount_options = vec![name, MountOption::NoAtime, MountOption::NoDev, MountOption::NoSuid];
        self.session = Some(fuser::spawn_mount(Served(self.state.clone()), &self.path, &config)?);
        Ok(())
    }

    /// Unmounts. What the kernel still held is written first, as if it had been in time.
    ///
    /// A request that the kernel was about to hand over as it unmounted (a file was closed just before) ends the
    /// session with `ECONNABORTED`. There is nothing mounted any more then, as after any other end.
    fn detach(&mut self) -> io::Result<()> {
        match self.session.take().map_or(Ok(()), BackgroundSession::umount_and_join) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
            result => result,
        }
    }

    /// Brings the power back.
    fn restore(&mut self, percent: u64, seed: u64) -> io::Result<()> {
        self.detach()?;
        let mut random = Random(seed);
        self.state().restore(|| random.next() % 100 < percent);
        self.attach()
    }

    /// Does what a line says.
    fn obey(&mut self, line: &str) -> Result<String, String> {
        let number = |word: &str| word.parse::<u64>().map_err(|error| format!("{word}: {error}"));
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["status"] => {
                let state = self.state();
                let power = if state.is_off() { "off" } else { "on" };
                return Ok(format!("{power} {}", state.operations()));
            }
            ["cut"] => self.state().cut_after(0),
            ["cut-after", operations] => self.state().cut_after(number(operations)?),
            ["slow", microseconds] => {
                self.state().slow(Duration::from_micros(number(microseconds)?));
            }
            ["restore", percent, seed] => {
                let (percent, seed) = (number(percent)?, number(seed)?);
                self.restore(percent, seed).map_err(|error| error.to_string())?;
            }
            _ => return Err(format!("unknown: {line}")),
        }
        Ok(String::new())
    }
}

/// Random bits of a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: powercut DIRECTORY");
        return ExitCode::from(2);
    };
    match serve(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("powercut: {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &Path) -> io::Result<()> {
    let mut disk = Disk::mount(path)?;
    let mut out = io::stdout();
    writeln!(out, "ok mounted")?;
    for line in io::stdin().lock().lines() {
        match disk.obey(&line?) {
            Ok(answer) => writeln!(out, "ok {answer}")?,
            Err(problem) => writeln!(out, "error {problem}")?,
        }
        out.flush()?;
    }
    disk.detach()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_as_slow_as_it_was_told_last() {
        let state = Arc::new(Mutex::new(State::new()));
        let mut disk = Disk { state, path: PathBuf::new(), session: None };
        assert_eq!(disk.state().slower(), Duration::ZERO);
        disk.obey("slow 20000").unwrap();
        disk.state().cut_after(0);
        disk.state().restore(|| false);
        assert_eq!(disk.state().slower(), Duration::from_millis(20), "the power was off in between");
        disk.obey("slow 0").unwrap();
        assert_eq!(disk.state().slower(), Duration::ZERO);
        for wrong in ["slow", "slow -1", "slow 1 2", "slow soon"] {
            assert!(disk.obey(wrong).is_err(), "{wrong}");
        }
    }
}
