//! `coracle sim` and `coracle history check`: the simulator and the judge of histories at the command line.
//!
//! A simulation is decided by its seed, so a violation comes with the one command that replays it.

use clap::{Args, Subcommand};
use coracle::sim::{self, Campaign, Options, Report, history};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the progress line changes.
const PROGRESS: Duration = Duration::from_millis(200);

/// How long a failure is shrunk at most.
const SHRINKING: Duration = Duration::from_secs(60);

/// Run simulated clusters of this code under faults, each decided by a seed
#[derive(Args)]
pub struct Sim {
    /// Simulate this seed only
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Number of seeds to simulate [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// First seed; random, and printed, if omitted
    #[arg(long, value_name = "SEED", requires = "seeds")]
    from: Option<u64>,
    /// Number of nodes, 3 to 7; drawn from each seed if omitted
    #[arg(long, value_parser = clap::value_parser!(u64).range(3..=7))]
    nodes: Option<u64>,
    /// Number of steps of each seed before its faults end
    #[arg(long, default_value_t = 2000)]
    steps: u64,
    /// Replay a shrunk run: only these faults and requests happen, and every step is printed. Of `-`, they are read from
    /// standard input: a command line has room for some thousands only
    #[arg(long, value_name = "DECISIONS", requires = "seed")]
    only: Option<String>,
    /// Number of seeds to simulate at once; as many as there are cores if omitted. Changes nothing in the result
    #[arg(long, value_name = "COUNT")]
    jobs: Option<NonZeroUsize>,
    /// Break this rule, to see that it is noticed; only in a build with the feature `mutants`
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Check recorded client histories for linearizability
#[derive(Subcommand)]
pub enum History {
    /// Check whether each history is linearizable. Exit code: 2 if
    /// any file cannot be read, else 1 if any is not linearizable, else 3 if any is undecided, else 0
    Check {
        /// Histories, in either of the two known formats
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

impl Sim {
    /// Runs the seeds. An error if an invariant was broken.
    pub fn run(&self) -> Result<(), String> {
        let count = self.seeds.unwrap_or(1);
        let first = self.seed.or(self.from).unwrap_or_else(random_seed);
        if !self.json {
            say(format_args!("seeds {first} to {}", first.wrapping_add(count - 1)));
        }
        // What panics is told like any other violation.
        std::panic::set_hook(Box::new(|_| {}));
        let began = Instant::now();
        let (mut sum, mut shown) = (Campaign::new(), began);
        let options = self.options(first)?;
        let runs = (0..count).map(|n| Options { seed: first.wrapping_add(n), ..options.clone() });
        let end = sim::on_cores(self.jobs.unwrap_or_else(sim::cores), runs, sim::run, |report| {
            sum.add(&report);
            if shown.elapsed() > PROGRESS && io::stderr().is_terminal() {
                shown = Instant::now();
                progress(&sum, count, began);
            }
            for line in &report.story {
                say(format_args!("{line}"));
            }
            let enough = count == 1 || report.violation.is_some();
            if enough { ControlFlow::Break(report) } else { ControlFlow::Continue(()) }
        });
        if let ControlFlow::Break(report) = end {
            if let Some(violation) = &report.violation {
                return self.violated(options, &report, violation);
            }
            self.show_one(&report, began);
            return Ok(());
        }
        self.show_all(&sum, first, began);
        let wrong = sum.verdict();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// What is to be run. Asked for once: it may read standard input.
    fn options(&self, seed: u64) -> Result<Options, String> {
        let mut options = Options::new(seed);
        options.nodes = self.nodes.map(|nodes| nodes as usize);
        options.steps = self.steps;
        if let Some(only) = &self.only {
            let read = || io::read_to_string(io::stdin()).map_err(|error| format!("standard input: {error}"));
            let only = if only == "-" { &read()? } else { only };
            let decisions = only.split_whitespace().map(str::parse);
            options.only = Some(decisions.collect::<Result<_, _>>()?);
            options.story = !self.json;
        }
        if let Some(name) = &self.mutant {
            choose_mutant(&mut options, name)?;
        }
        Ok(options)
    }

    /// The one command that does it again.
    fn replay(&self, options: &Options) -> String {
        let mut command = format!("coracle sim --seed {} --steps {}", options.seed, options.steps);
        if let Some(nodes) = options.nodes {
            command += &format!(" --nodes {nodes}");
        }
        if let Some(name) = &self.mutant {
            command += &format!(" --mutant {name}");
        }
        if let Some(only) = &options.only {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            command += &format!(" --only \"{}\"", only.join(" "));
        }
        command
    }

    /// Tells what was broken and how to see it again, and then makes it small.
    fn violated(&self, options: Options, report: &Report, violation: &sim::Violation) -> Result<(), String> {
        let options = Options { seed: report.seed, ..options };
        let replay = self.replay(&options);
        if !self.json {
            say(format_args!("seed {} breaks {}: {}", report.seed, violation.invariant, violation.detail));
            say(format_args!("replay: {replay}"));
        }
        // What was shrunk before is small already.
        let shrunk = self.only.is_none().then(|| sim::shrink(&options, &mut patience())).flatten();
        if let (false, Some(shrunk)) = (self.json, &shrunk) {
            say(format_args!("{shrunk}replay it alone: {}", self.replay(&shrunk.options)));
        }
        if self.json {
            let shrunk = shrunk.map(|shrunk| {
                json!({
                    "seed": shrunk.options.seed,
                    "nodes": shrunk.options.nodes,
                    "steps": shrunk.options.steps,
                    "decisions": shrunk.decisions.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "decisions_before": shrunk.before,
                    "runs": shrunk.runs,
                    "detail": shrunk.violation.detail,
                    "story": shrunk.conversation(),
                    "keep": shrunk.to_keep(),
                    "replay": self.replay(&shrunk.options),
                })
            });
            let shown = json!({
                "seed": report.seed,
                "trace_hash": format!("{:016x}", report.trace_hash),
                "violation": { "invariant": violation.invariant, "detail": violation.detail },
                "replay": replay,
                "shrunk": shrunk,
            });
            say(format_args!("{shown}"));
        }
        Err(format!("seed {} breaks {}", report.seed, violation.invariant))
    }

    fn show_one(&self, report: &Report, began: Instant) {
        if self.json {
            let shown = json!({
                "seed": report.seed,
                "steps": report.steps,
                "messages": report.messages,
                "committed": report.committed,
                "operations": report.operations,
                "simulated_ms": report.sim_millis,
                "trace_hash": format!("{:016x}", report.trace_hash),
                "undecided": report.undecided,
                "counts": report.counts,
                "faults": report.faults,
                "violation": null,
            });
            say(format_args!("{shown}"));
            return;
        }
        say(format_args!(
            "{} steps in {:.1} simulated seconds, {} entries committed, {} client operations, {:.0} steps per second",
            report.steps,
            report.sim_millis as f64 / 1000.0,
            report.committed,
            report.operations,
            report.steps as f64 / began.elapsed().as_secs_f64(),
        ));
        say(format_args!("trace hash {:016x}; every invariant held", report.trace_hash));
    }

    fn show_all(&self, sum: &Campaign, first: u64, began: Instant) {
        let rate = sum.steps as f64 / began.elapsed().as_secs_f64();
        let per_1000 = sum.committed as f64 * 1000.0 / sum.steps.max(1) as f64;
        if self.json {
            let shown = json!({
                "first": first,
                "seeds": sum.seeds,
                "steps": sum.steps,
                "steps_per_second": rate as u64,
                "committed": sum.committed,
                "committed_per_1000_steps": per_1000,
                "operations": sum.operations,
                "trace_hash": format!("{:016x}", sum.trace_hash),
                "undecided": sum.undecided,
                "counts": sum.counts,
                "faults": sum.faults,
                "paces": sum.paces.iter().map(|(name, pace)| (*name, pace.mean())).collect::<BTreeMap<_, _>>(),
                "violation": null,
            });
            say(format_args!("{shown}"));
            return;
        }
        say(format_args!("decided by chance, so many times:"));
        for (what, times) in &sum.faults {
            say(format_args!("{times:>12}  {what}"));
        }
        say(format_args!("paces, on average, and what they may be:"));
        for (name, most, meaning) in sim::PACES {
            let mean = sum.paces.get(name).map_or(0, |pace| pace.mean());
            say(format_args!("{mean:>12} of {most:>4}  {name}: {meaning}"));
        }
        say(format_args!("situations, so many times:"));
        for (what, meaning) in sim::SITUATIONS {
            match sum.counts.get(what) {
                None | Some(0) => say(format_args!("       never  {what}: {meaning}")),
                Some(times) => say(format_args!("{times:>12}  {what}")),
            }
        }
        say(format_args!(
            "{} seeds, {} steps, {rate:.0} steps per second, {} entries committed ({per_1000:.1} per 1,000 steps), \
             {} client operations; every invariant held; {} histories were too hard to judge",
            sum.seeds, sum.steps, sum.committed, sum.operations, sum.undecided,
        ));
    }
}

impl History {
    /// Judges the files; the exit code says the worst.
    pub fn run(&self) -> ExitCode {
        let History::Check { files } = self;
        let (mut unreadable, mut broken, mut undecided) = (false, false, false);
        for file in files {
            let name = file.display();
            let verdict = match std::fs::read_to_string(file) {
                Ok(text) => history::check_text(&text).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match verdict {
                Ok(history::Verdict::Linearizable) => say(format_args!("{name}: linearizable")),
                Ok(history::Verdict::NotLinearizable(why)) => {
                    broken = true;
                    say(format_args!("{name}: not linearizable\n{why}"));
                }
                Ok(history::Verdict::Undecided) => {
                    undecided = true;
                    say(format_args!("{name}: undecided"));
                }
                Err(problem) => {
                    unreadable = true;
                    eprintln!("coracle: {name}: {}", problem.replace('\n', " "));
                }
            }
        }
        match (unreadable, broken, undecided) {
            (true, ..) => ExitCode::from(2),
            (_, true, _) => ExitCode::from(1),
            (_, _, true) => ExitCode::from(3),
            _ => ExitCode::SUCCESS,
        }
    }
}

/// Gives a shrinker its time, and shows how far it is.
fn patience() -> impl FnMut(sim::Shrinking) -> bool {
    let (began, mut shown) = (Instant::now(), Instant::now());
    move |sim::Shrinking { runs, left, before }| {
        if shown.elapsed() > PROGRESS && io::stderr().is_terminal() {
            shown = Instant::now();
            // Only for eyes, as below.
            drop(write!(io::stderr(), "\rshrinking: {left} decisions of {before}, {runs} runs\x1b[K\r"));
        }
        began.elapsed() < SHRINKING
    }
}

/// Writes a line to standard output. Whoever has read enough may close it: the exit code still says how it went.
fn say(line: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("coracle: cannot write: {error}");
            std::process::exit(2);
        }
        _ => {}
    }
}

fn progress(sum: &Campaign, count: u64, began: Instant) {
    let rate = sum.steps as f64 / began.elapsed().as_secs_f64();
    let line = format!("{} of {count} seeds, {} steps, {rate:.0} steps per second", sum.seeds, sum.steps);
    // Only for eyes; the outcome is told on standard output.
    drop(write!(io::stderr(), "\r{line}\x1b[K\r"));
}

/// Nobody has tried it before, most likely.
fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(32)) % 1_000_000_000
}

#[cfg(feature = "mutants")]
fn choose_mutant(options: &mut Options, name: &str) -> Result<(), String> {
    let known = sim::MUTANTS.iter().find(|mutant| mutant.name == name);
    options.mutant = Some(
        known.ok_or_else(|| format!("there is no mutant {name}; docs/testing.md has their names"))?.name,
    );
    Ok(())
}

#[cfg(not(feature = "mutants"))]
fn choose_mutant(_: &mut Options, _: &str) -> Result<(), String> {
    Err("this build keeps all its rules: for --mutant, build with --features mutants".to_owned())
}
