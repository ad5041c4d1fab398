//! Power cuts on a lossy disk, at any operation that changes or syncs something: [`super::disk`] says what survives.

use std::{fs, path::Path};

use super::{
    disk::{Disk, Failure, Lies, Moment},
    ledger::Ledger,
    mount::Mount,
    process::{Kill, Process},
    run::{Ground, Run},
    seed::Seed,
    worker::{Append, Guards, Work},
};

/// Power cuts in the life of one log.
const CUTS: u64 = 5;

/// Whether a file system of our own can be mounted here.
pub fn probe() -> Result<(), String> {
    let home = tempfile::tempdir().unwrap();
    let (empty, at) = (home.path().join("empty"), home.path().join("at"));
    fs::create_dir(&empty).and_then(|()| fs::create_dir(&at)).unwrap();
    match Mount::new(Disk::load(&empty, Lies::None, None), &at) {
        Ok(mount) => {
            mount.end();
            Ok(())
        }
        Err(error) => Err(format!("no file system can be mounted here, which needs /dev/fuse and root: {error}")),
    }
}

/// Honest disks: whatever was acknowledged survives every cut, and the log opens.
pub fn run(ground: &Ground, seed: u64, guards: Guards) -> Run {
    let (mut run, mut random) = (Run::new("power", seed), Seed::new(seed));
    let home = ground.in_memory();
    let (image, mut ledger) = (home.path().join("image"), Ledger::new(seed));
    fs::create_dir(&image).unwrap();
    for round in 0..CUTS {
        let failure = match random.below(10) {
            0..6 => Failure::Cut,
            6 | 7 => Failure::Dropped,
            8 => Failure::Refused,
            _ => Failure::Reported,
        };
        let planned = (moment(&mut random), failure);
        let create = round == 0;
        cut(home.path(), Lies::None, planned, &mut ledger, &mut random, &mut run, |orders| Append {
            create,
            guards,
            ..orders
        });
        let dir = image.join("log");
        if create {
            run.settle(&dir, &ledger, Guards::AWAY);
        }
        let findings = run.audit_with(&dir, &mut ledger, &mut random, Guards::AWAY);
        run.wrong.extend(findings.all());
        if !run.wrong.is_empty() {
            run.wrong.push(format!("(cut {round} of the run, planned: {planned:?})"));
            break;
        }
    }
    run.keep(ground, &image.join("log"), &ledger);
    run
}

/// While opening, appending or closing; half of them where data waits to be synced.
fn moment(random: &mut Seed) -> Moment {
    match random.below(4) {
        0 => Moment::Operation(1 + random.scaled(300)),
        1 => Moment::Operation(1 + random.below(700)),
        _ => Moment::Sync(1 + random.below(140)),
    }
}

/// A disk whose syncs are lies: nothing can save what it loses, but the log must say that it is lost.
pub fn lying(ground: &Ground, seed: u64, lies: Lies, guards: Guards) -> Run {
    let (mut run, mut random) = (Run::new("lies", seed), Seed::new(seed));
    let home = ground.in_memory();
    let (image, mut ledger) = (home.path().join("image"), Ledger::new(seed));
    fs::create_dir(&image).unwrap();
    let dir = image.join("log");
    super::audit::create(&dir).unwrap();
    let planned = (Moment::Sync(20 + random.scaled(200)), Failure::Cut);
    cut(home.path(), lies, planned, &mut ledger, &mut random, &mut run, |orders| Append { guards, ..orders });
    run.injected(format!("sync that lies ({lies:?})").to_lowercase());
    let findings = run.audit_with(&dir, &mut ledger, &mut random, guards);
    run.wrong.extend(findings.wrong);
    run.keep(ground, &dir, &ledger);
    run
}

/// Appends on a lossy disk until the power goes, and leaves in `home/image` what survived.
fn cut(
    home: &Path,
    lies: Lies,
    planned: (Moment, Failure),
    ledger: &mut Ledger,
    random: &mut Seed,
    run: &mut Run,
    change: impl FnOnce(Append) -> Append,
) {
    let (image, at, survived) = (home.join("image"), home.join("at"), home.join("survived"));
    fs::create_dir_all(&at).unwrap();
    let mount = Mount::new(Disk::load(&image, lies, Some(planned)), &at).unwrap();
    let orders = change(Append { dawdle_us: 0, ..Append::new(at.join("log"), ledger, random) });
    let process = Process::start(Work::Append(orders), &[]);
    let mut story = process.listen(Kill::Never, ledger, || mount.disk().is_cut);
    let disk = mount.end();
    let failure = planned.1;
    if !disk.failed {
        story.expect_no_failure();
    } else if failure != Failure::Cut {
        run.injected(format!("disk: operation {failure:?}").to_lowercase());
    }
    // Whatever happened before, it ends with the power gone.
    run.injected("disk: power cut");
    run.heard(&mut story);
    disk.survive(random, &survived);
    fs::remove_dir_all(&image).and_then(|()| fs::rename(&survived, &image)).unwrap();
}
