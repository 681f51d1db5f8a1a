//! The disk of one node is full, now the leader's and now a follower's.

use crate::load::{self, Bulk, Load};
use crate::{Failure, Target};
use coracle_server::cluster::{Cluster, wait};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The size of the small disk: room for the logs of all rounds, and no more than a computer has to spare.
const DISK: &str = "2g";

/// How long a node may take to notice.
const LIMIT: Duration = Duration::from_secs(120);

const CAUSE: &str = "No space left on device";

/// So many times as a follower, and as often as the leader.
pub(crate) fn rounds(target: &Target, rounds: u64) -> Result<(), Failure> {
    let directory = target.subdirectory("full")?;
    let small = SmallDisk::mount(&target.subdirectory("small")?)?;
    let (roomy, cramped) = (target.program(&directory), target.program(&small.path));
    let patient = target.patient(&directory);
    let programs = vec![cramped, roomy.clone(), roomy.clone()];
    let started = Cluster::start(&directory, programs, target.interrupt.clone());
    let mut cluster = started.map_err(Failure::Trouble)?;
    cluster.form().map_err(Failure::Trouble)?;
    let mut ledger = load::Ledger::default();
    let mut leaders = 0;
    for round in 1..=2 * rounds {
        let leading = round % 2 == 0;
        let found = |problem: String| Failure::Found(format!("full disk, round {round}: {problem}"));
        cluster.kill_all();
        for id in [2, 3] {
            cluster.set_program(id, if leading { patient.clone() } else { roomy.clone() });
        }
        // One that starts later follows.
        for id in if leading { [1, 2, 3] } else { [2, 3, 1] } {
            cluster.restart(id).map_err(found)?;
        }
        let (leader, _) = cluster.leader().map_err(found)?;
        leaders += u64::from(leader == 1);
        let load = Load::start(&cluster, round, target.seed ^ round);
        let bulk = Bulk::start(&cluster);
        small.fill().map_err(Failure::Trouble)?;
        // Nothing is in doubt: it stays, and says which file has no room.
        let says = || {
            let words = cluster.node(1).last_words();
            let named = words.contains(&small.path.display().to_string()) && words.contains(CAUSE);
            Ok((named && words.contains("writes are refused as busy")).then_some(()))
        };
        wait("the word that writes are refused", LIMIT, &target.interrupt, says).map_err(found)?;
        bulk.stop();
        let before = load.acknowledged();
        wait("the others going on", LIMIT, &target.interrupt, || {
            Ok((load.acknowledged() > before + 10).then_some(()))
        })
        .map_err(found)?;
        if let Some(status) = cluster.ended(1).map_err(found)? {
            return Err(found(format!("it ended with {status}: {}", cluster.node(1).last_words())));
        }
        // It goes on by itself.
        small.clear().map_err(Failure::Trouble)?;
        let seen = load.stop();
        cluster.leader().and_then(|_| ledger.judge(&cluster, seen, false)).map_err(found)?;
    }
    println!(
        "full disk {} times, {leaders} times the leader's: the node waited each time, with the file and the cause, and \
         went on by itself once there was room; the others went on; {ledger}",
        2 * rounds
    );
    if leaders == 0 {
        return Err(Failure::Trouble("it was never the leader's".into()));
    }
    ledger.is_enough(2 * rounds)
}

/// A file system of a fixed size. Dropping it unmounts it.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path) -> Result<SmallDisk, Failure> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK}"), "coracle-attack"]).arg(path);
        match mount.status() {
            Ok(status) if status.success() => Ok(SmallDisk { path: path.to_owned() }),
            _ => Err(Failure::NotPermitted("a tmpfs cannot be mounted".into())),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Leaves no room.
    fn fill(&self) -> Result<(), String> {
        let mut file = File::create(self.ballast()).map_err(|error| error.to_string())?;
        for size in [1 << 20, 4096] {
            let zeros = vec![0; size];
            while file.write_all(&zeros).is_ok() {}
        }
        Ok(())
    }

    /// Makes room again.
    fn clear(&self) -> Result<(), String> {
        fs::remove_file(self.ballast()).map_err(|error| error.to_string())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        match Command::new("umount").arg(&self.path).status() {
            Ok(status) if status.success() => {}
            other => eprintln!("attack: cannot unmount {}: {other:?}", self.path.display()),
        }
    }
}
