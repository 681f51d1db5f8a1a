//! The program `powercut`: a mounted disk whose power can be cut.

use crate::Failure;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A disk that loses what was not synced. Dropping it unmounts it.
pub(crate) struct PowerDisk {
    process: Child,
    /// None once it is told to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// How the disk stands.
pub(crate) struct Status {
    /// Whether the power is off.
    pub(crate) off: bool,
    /// How many operations that change something were done.
    pub(crate) operations: u64,
}

impl PowerDisk {
    /// An empty disk, mounted at this directory.
    pub(crate) fn mount(program: &Path, at: &Path) -> Result<PowerDisk, Failure> {
        let trouble = |error: io::Error| Failure::Trouble(format!("{}: {error}", program.display()));
        let mut command = Command::new(program);
        command.arg(at).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(trouble)?;
        let (orders, stdout) = (process.stdin.take(), process.stdout.take().expect("a pipe"));
        let mut disk = PowerDisk { process, orders, answers: BufReader::new(stdout) };
        match disk.answer() {
            Ok(_) => Ok(disk),
            Err(_) => Err(Failure::NotPermitted("a file system cannot be mounted".into())),
        }
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| format!("powercut: {error}"))?;
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("ok", answer) => Ok(answer.to_owned()),
            _ => Err(format!("powercut says {:?}", line.trim())),
        }
    }

    fn order(&mut self, line: &str) -> Result<String, String> {
        let orders = self.orders.as_mut().ok_or("powercut has ended")?;
        writeln!(orders, "{line}").map_err(|error| format!("powercut: {error}"))?;
        self.answer()
    }

    /// How it stands.
    pub(crate) fn status(&mut self) -> Result<Status, String> {
        let answer = self.order("status")?;
        let (power, operations) = answer.split_once(' ').unwrap_or_default();
        let operations = operations.parse().map_err(|_| format!("powercut says {answer:?}"))?;
        Ok(Status { off: power == "off", operations })
    }

    /// Cuts the power: from now on every operation fails.
    pub(crate) fn cut(&mut self) -> Result<(), String> {
        self.order("cut").map(drop)
    }

    /// The power goes off after so many more operations that change something.
    pub(crate) fn cut_after(&mut self, operations: u64) -> Result<(), String> {
        self.order(&format!("cut-after {operations}")).map(drop)
    }

    /// Brings the power back. Of the unsynced changes each survives with this probability. No process may
    /// have a file open: the kernel's cache goes too.
    pub(crate) fn restore(&mut self, percent: u64, seed: u64) -> Result<(), String> {
        self.order(&format!("restore {percent} {seed}")).map(drop)
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        self.orders = None;
        match self.process.wait() {
            Ok(status) if status.success() => {}
            other => eprintln!("attack: the disk was not unmounted: {other:?}"),
        }
    }
}
