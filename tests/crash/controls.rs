//! Negative controls: with a guard off, the programme must find violations. One that stays green would show that the
//! programme proves nothing.

use std::time::{Duration, Instant};

use super::{
    disk::Lies,
    power,
    run::{Ground, Run},
    seed::Seed,
    steps,
    worker::Guards,
};

/// So long a control may take to turn red.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A guard that is off.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    pub name: &'static str,
    pub needs_mount: bool,
    run: fn(&Ground, u64) -> Run,
}

pub const CONTROLS: [Control; 4] = [
    Control {
        name: "batches are not synced",
        needs_mount: true,
        run: |ground, seed| power::run(ground, seed, Guards { sync: false, ..Guards::AWAY }),
    },
    Control {
        name: "the anchor is not held against the database",
        needs_mount: true,
        run: |ground, seed| power::lying(ground, seed, Lies::Database, Guards { anchor: false, ..Guards::AWAY }),
    },
    Control {
        name: "leaves are not hashed again",
        needs_mount: false,
        run: |ground, seed| steps::memory(ground, seed, Guards { recompute: false, ..Guards::ON }),
    },
    // Not a guard of ours: it shows that the ledger notices what nothing else can.
    Control {
        name: "the disk lies about every sync",
        needs_mount: true,
        run: |ground, seed| power::lying(ground, seed, Lies::All, Guards::AWAY),
    },
];

impl Control {
    /// Runs until the first violation; `None` if there was none in time.
    pub fn turn_red(&self, ground: &Ground, seed: u64) -> Option<(Duration, Run)> {
        let (started, mut random) = (Instant::now(), Seed::new(seed));
        while started.elapsed() < PATIENCE {
            let run = (self.run)(ground, random.next());
            if !run.wrong.is_empty() {
                return Some((started.elapsed(), run));
            }
        }
        None
    }
}
