//! The whole programme, as `scripts/crash` runs it: the parts by turns until the time is over, then the controls.

use std::{
    collections::BTreeMap,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    controls::CONTROLS,
    disk::Lies,
    kill, power, rot,
    run::{Ground, Run},
    seed::Seed,
    steps, syscalls,
    worker::Guards,
};

/// One part of the programme.
#[derive(Clone, Copy)]
struct Part {
    name: &'static str,
    /// What it needs that may not be there.
    probe: fn() -> Result<(), String>,
    run: fn(&Ground, u64) -> Run,
    /// Its share of the time.
    share: u32,
}

const PARTS: [Part; 7] = [
    Part { name: "kill", probe: || Ok(()), run: kill::run, share: 4 },
    Part { name: "steps", probe: || Ok(()), run: steps::run, share: 2 },
    Part { name: "memory", probe: || Ok(()), run: |ground, seed| steps::memory(ground, seed, Guards::ON), share: 1 },
    Part { name: "syscalls", probe: syscalls::probe, run: syscalls::run, share: 3 },
    Part { name: "power", probe: power::probe, run: |ground, seed| power::run(ground, seed, Guards::AWAY), share: 4 },
    Part {
        name: "lies",
        probe: power::probe,
        run: |ground, seed| power::lying(ground, seed, Lies::Database, Guards::AWAY),
        share: 1,
    },
    Part { name: "rot", probe: || Ok(()), run: rot::run, share: 2 },
];

/// What was asked for, by environment.
struct Wanted {
    time: Duration,
    /// The first run's seed; the next ones follow from it.
    seed: u64,
    part: Option<String>,
    /// Runs of the part, instead of a time.
    runs: Option<u64>,
    home: PathBuf,
}

impl Wanted {
    fn read() -> Self {
        let read = |name: &str| env::var(format!("COUNTERSIGN_CRASH_{name}")).ok().filter(|value| !value.is_empty());
        let number = |name: &str| read(name).map(|text| parse(&text).unwrap_or_else(|| panic!("{name}: {text}?")));
        Self {
            time: Duration::from_secs_f64(60.0 * read("MINUTES").map_or(30.0, |text| text.parse().unwrap())),
            seed: number("SEED").unwrap_or_else(|| u64::from(std::process::id()) << 32 | now_us()),
            part: read("PART"),
            runs: number("RUNS"),
            home: read("HOME").map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("crash"), PathBuf::from),
        }
    }
}

fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn now_us() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_micros().into())
}

/// What all runs came to; `target/crash/report.json`.
#[derive(Debug, Default, Serialize)]
struct Report {
    seed: String,
    seconds: u64,
    runs: BTreeMap<&'static str, u64>,
    kills: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    acknowledged: u64,
    audits: u64,
    skipped: BTreeMap<String, String>,
    violations: Vec<String>,
    /// Seconds until each negative control turned red; none if it stayed green.
    controls: BTreeMap<&'static str, Option<f64>>,
}

impl Report {
    fn add(&mut self, run: Run) {
        *self.runs.entry(run.part).or_default() += 1;
        for (what, count) in run.kills {
            *self.kills.entry(what).or_default() += count;
        }
        for (what, count) in run.faults {
            *self.faults.entry(what).or_default() += count;
        }
        self.acknowledged += run.acknowledged;
        self.audits += run.audits;
        self.violations.extend(run.wrong.iter().map(|wrong| format!("{} {:#x}: {wrong}", run.part, run.seed)));
    }

    fn table(&self) -> String {
        let mut text = format!("\n== {} s from seed {}\n", self.seconds, self.seed);
        let mut row = |what: &str, count: u64| text += &format!("{count:>9}  {what}\n");
        for (part, runs) in &self.runs {
            row(&format!("runs of {part}"), *runs);
        }
        row("entries acknowledged", self.acknowledged);
        row("audits", self.audits);
        for (what, count) in &self.kills {
            row(&format!("kills {what}"), *count);
        }
        row("KILLS", self.kills.values().sum());
        for (what, count) in &self.faults {
            row(&format!("faults: {what}"), *count);
        }
        row("INJECTED FAULTS", self.faults.values().sum());
        row("VIOLATIONS", self.violations.len() as u64);
        for (what, why) in &self.skipped {
            text += &format!("  skipped  {what}: {why}\n");
        }
        for (what, seconds) in &self.controls {
            text += &match seconds {
                Some(seconds) => format!("{seconds:>8.1}s  until red, as it must be: {what}\n"),
                None => format!("    GREEN  and must be red: {what}\n"),
            };
        }
        for violation in &self.violations {
            text += &format!("VIOLATED {violation}\n");
        }
        text
    }

    fn is_good(&self) -> bool {
        self.violations.is_empty() && self.controls.values().all(Option::is_some)
    }
}

/// One run; a panic in it is a violation.
fn run_once(part: &Part, ground: &Ground, seed: u64) -> Run {
    let run = catch_unwind(AssertUnwindSafe(|| (part.run)(ground, seed)));
    run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
        Run { wrong: vec![format!("panicked: {text}")], ..Run::new(part.name, seed) }
    })
}

/// Runs everything. Panics unless all is as it must be.
pub fn main() {
    let wanted = Wanted::read();
    let ground = Ground::new(&wanted.home);
    let mut report = Report { seed: format!("{:#x}", wanted.seed), ..Report::default() };
    let (started, mut parts) = (Instant::now(), Vec::new());
    for part in PARTS.iter().filter(|part| wanted.part.as_deref().is_none_or(|name| name == part.name)) {
        match (part.probe)() {
            Ok(()) => parts.push(*part),
            Err(why) => {
                report.skipped.insert(format!("part {}", part.name), why);
            }
        }
    }
    assert!(!parts.is_empty(), "there is no such part, or it cannot run here: {:?}", report.skipped);
    let mut random = Seed::new(wanted.seed);
    let (mut seed, mut spent) = (wanted.seed, vec![Duration::ZERO; parts.len()]);
    loop {
        let is_over = match wanted.runs {
            Some(runs) => parts.iter().all(|part| report.runs.get(part.name).is_some_and(|done| *done >= runs)),
            None => started.elapsed() >= wanted.time,
        };
        if is_over {
            break;
        }
        // The part that is furthest behind its share of the time.
        let next = (0..parts.len()).min_by_key(|at| spent[*at] / parts[*at].share).unwrap();
        let began = Instant::now();
        let run = run_once(&parts[next], &ground, seed);
        println!("{}", run.line());
        report.add(run);
        seed = random.next();
        spent[next] += began.elapsed();
    }
    if wanted.part.is_none() && wanted.runs.is_none() {
        control(&ground, &mut random, &mut report);
    }
    report.seconds = started.elapsed().as_secs();
    print!("{}", report.table());
    fs::write(wanted.home.join("report.json"), serde_json::to_vec_pretty(&report).unwrap()).unwrap();
    assert!(report.is_good(), "see above; what violations left is in {}", wanted.home.join("kept").display());
}

fn control(ground: &Ground, random: &mut Seed, report: &mut Report) {
    for control in CONTROLS {
        if let Err(why) = if control.needs_mount { power::probe() } else { Ok(()) } {
            report.skipped.insert(format!("control: {}", control.name), why);
            continue;
        }
        let red = control.turn_red(ground, random.next());
        match &red {
            Some((_, run)) => println!("control   {}: red, as it must be: {}", control.name, run.line()),
            None => println!("control   {}: GREEN, and must be red", control.name),
        }
        report.controls.insert(control.name, red.map(|(after, _)| after.as_secs_f64()));
    }
}
