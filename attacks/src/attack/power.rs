//! The power of the whole cluster is cut, again and again, under load and while it starts.

use crate::disk::PowerDisk;
use crate::load::{Bulk, Ledger, Load, at_rest};
use crate::{Failure, Target};
use coracle_attacks::dice::Dice;
use coracle_server::cluster::{Cluster, wait};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest time of load before a cut.
const LOAD_MILLIS: u64 = 500;

/// The most operations of the disk before a cut, where they are counted: about as long.
const LOAD_OPERATIONS: u64 = 3000;

/// How often the load takes the log through several segments, in percent.
const BULK: u64 = 10;

/// The same while the nodes start, how often that happens, in percent, and how many such cuts there may be in a row.
const START_OPERATIONS: u64 = 60;
const START_CUTS: u64 = 35;
const NESTED: u32 = 3;

/// What happened, for the report.
#[derive(Default)]
struct Sum {
    nested: u64,
    longest_start: Duration,
}

/// So many cuts under load, and some while starting.
pub(crate) fn cuts(target: &Target, cuts: u64) -> Result<(), Failure> {
    let mount = target.subdirectory("disk")?;
    let mut disk = PowerDisk::mount(&target.powercut()?, &mount)?;
    let result = campaign(target, &mut disk, &mount, cuts);
    if result.is_err() {
        keep(&mount, &target.directory.join("kept"));
    }
    result
}

fn campaign(target: &Target, disk: &mut PowerDisk, mount: &Path, cuts: u64) -> Result<(), Failure> {
    let mut dice = Dice::new(target.seed);
    let programs = vec![target.program(mount); 3];
    let start = Cluster::start(&target.directory, programs, target.interrupt.clone());
    let mut cluster = start.map_err(Failure::Trouble)?;
    cluster.form().and_then(|()| cluster.leader()).map_err(Failure::Trouble)?;
    // A start makes durable what it finds. So a program that never syncs loses writes, and not its membership.
    cluster.agree().map_err(Failure::Trouble)?;
    cluster.kill_all();
    cluster.ids().into_iter().try_for_each(|id| cluster.restart(id)).map_err(Failure::Trouble)?;
    cluster.leader().map_err(Failure::Trouble)?;
    let (mut sum, mut ledger) = (Sum::default(), Ledger::default());
    for cut in 1..=cuts {
        let load = Load::start(&cluster, cut, dice.next());
        let bulk = dice.chance(BULK).then(|| Bulk::start(&cluster));
        let load = moment(target, disk, load, &mut dice).map_err(Failure::Trouble)?;
        cluster.kill_all();
        bulk.into_iter().for_each(Bulk::stop);
        let seen = load.stop();
        restart(&mut cluster, disk, &mut dice, &mut sum)?;
        cluster
            .leader()
            .and_then(|_| ledger.judge(&cluster, seen, cut == cuts))
            .map_err(|problem| Failure::Found(format!("after cut {cut}: {problem}")))?;
    }
    let snapshots = with_snapshots(&cluster).map_err(Failure::Trouble)?;
    println!(
        "power cut {cuts} times under load and {} times while starting: {ledger}; the slowest start took {} ms; \
         {snapshots} of 3 nodes have a snapshot and began their logs after one; {} disk operations",
        sum.nested,
        sum.longest_start.as_millis(),
        disk.status().map_err(Failure::Trouble)?.operations
    );
    if snapshots == 0 && cuts >= 20 {
        return Err(Failure::Trouble("no node took snapshots, so this shows nothing of them".into()));
    }
    ledger.is_enough(cuts)
}

/// How many nodes have taken snapshots, and have purged their logs after one.
fn with_snapshots(cluster: &Cluster) -> Result<usize, String> {
    let reports = cluster.ids().into_iter().map(|id| cluster.node(id).report());
    let reports = reports.collect::<Result<Vec<_>, _>>()?;
    Ok(reports.iter().filter(|report| report.snapshot.is_some() && report.first_index > 1).count())
}

/// Cuts the power at some time under load, or at some operation of the disk.
fn moment(target: &Target, disk: &mut PowerDisk, load: Load, dice: &mut Dice) -> Result<Load, String> {
    let limit = Duration::from_secs(30);
    wait("the first write", limit, &target.interrupt, || Ok((load.acknowledged() > 0).then_some(())))?;
    if dice.chance(50) {
        std::thread::sleep(dice.millis(LOAD_MILLIS));
        let load = at_rest(load, dice);
        return disk.cut().map(|()| load);
    }
    disk.cut_after(1 + dice.below(LOAD_OPERATIONS))?;
    wait("the cut", limit, &target.interrupt, || Ok(disk.status()?.off.then_some(())))?;
    Ok(load)
}

/// The power comes back, and the nodes with it; or it goes again while they start.
fn restart(
    cluster: &mut Cluster,
    disk: &mut PowerDisk,
    dice: &mut Dice,
    sum: &mut Sum,
) -> Result<(), Failure> {
    for depth in 0.. {
        // Now everything unsynced is lost, now some of it, now nearly all is kept.
        let percent = if dice.chance(40) { 0 } else { dice.below(101) };
        disk.restore(percent, dice.next()).map_err(Failure::Trouble)?;
        let again = depth < NESTED && dice.chance(START_CUTS);
        if again {
            disk.cut_after(1 + dice.below(START_OPERATIONS)).map_err(Failure::Trouble)?;
        }
        let began = Instant::now();
        let mut started = cluster.ids().into_iter().try_for_each(|id| cluster.spawn(id));
        for id in cluster.ids() {
            started = started.and_then(|()| cluster.ready(id));
        }
        if !again {
            started.map_err(Failure::Found)?;
            sum.longest_start = sum.longest_start.max(began.elapsed());
            return Ok(());
        }
        if let (Err(problem), false) = (started, disk.status().map_err(Failure::Trouble)?.off) {
            return Err(Failure::Found(problem));
        }
        disk.cut().map_err(Failure::Trouble)?;
        cluster.kill_all();
        sum.nested += 1;
    }
    Ok(())
}

/// Copies what is on the disk to where it can be looked at later.
fn keep(from: &Path, to: &Path) {
    if let Err(error) = copy(from, to) {
        eprintln!("attack: cannot keep what is on the disk: {error}");
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for item in fs::read_dir(from)? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            copy(&item.path(), &target)?;
        } else {
            fs::copy(item.path(), target)?;
        }
    }
    Ok(())
}
