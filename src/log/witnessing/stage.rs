//! The stage: what is being cosigned, who waits for it, and what happens when it has its quorum.

use std::{collections::VecDeque, sync::Arc, sync::PoisonError, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Head, LogError, Mode, Ready, Shared, Snapshot, Witnessing,
    ask::{Asking, Event, Goal},
    record::Record,
};
use crate::{
    log::writer::Sealed,
    tlog::{Note, SignatureLine},
};

/// Reports of the witnesses' tasks that may wait.
const EVENTS: usize = 64;
/// Where nothing is required: the time from one head to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// The head that is being cosigned.
struct Target {
    goal: Arc<Goal>,
    /// Its checkpoint with the cosignatures so far.
    note: Note,
    /// By the witnesses' positions in the policy.
    cosigned: Vec<bool>,
}

/// A batch whose callers wait for a quorum.
struct Waiting {
    sealed: Sealed,
    deadline: Instant,
}

/// Owned by the thread that asks witnesses, alone.
pub(super) struct Stage {
    config: Witnessing,
    record: Record,
    shared: Arc<Shared>,
    /// The newest head that was committed and anchored.
    newest: Arc<Snapshot>,
    /// Told, by the deadline, whether the first head met the quorum; until then nothing may be shown.
    first: Option<(Ready, Instant)>,
    goals: watch::Sender<Option<Arc<Goal>>>,
    events: mpsc::Receiver<Event>,
    target: Option<Target>,
    /// In the order of their heads, and so of their deadlines.
    waiting: VecDeque<Waiting>,
    /// By position: what a witness answered last, if not a cosignature.
    problems: Vec<Option<String>>,
}

impl Stage {
    /// A stage with a task for each witness. Must be called in the runtime in which it will run.
    pub(super) fn new(
        config: Witnessing,
        record: Record,
        shared: Arc<Shared>,
        newest: Arc<Snapshot>,
        ready: Option<Ready>,
    ) -> Self {
        let (goals, receiver) = watch::channel(None);
        let (sender, events) = mpsc::channel(EVENTS);
        for witness in &config.asked {
            let asking = Asking::new(witness.clone(), &config, Arc::clone(&shared));
            tokio::spawn(asking.run(receiver.clone(), sender.clone()));
        }
        let first = ready.map(|ready| (ready, Instant::now() + config.timeout));
        let problems = vec![None; config.policy.witnesses().len()];
        config.metrics.quorum(config.mode.name(), false);
        Self { config, record, shared, newest, first, goals, events, target: None, waiting: VecDeque::new(), problems }
    }

    /// *Require*: publishes and answers what met the quorum, until no more batches come and nobody waits.
    pub(super) async fn require(mut self, mut batches: mpsc::Receiver<Vec<Sealed>>) {
        let mut open = true;
        while open || !self.waiting.is_empty() {
            let hidden = self.first.is_some() || self.newest.head.size > self.published().head.size;
            if hidden && self.target.is_none() && !self.shared.is_broken() {
                self.aim(Arc::clone(&self.newest));
            }
            let deadline = self.first.as_ref().map(|(_, deadline)| *deadline);
            let deadline = deadline.or_else(|| self.waiting.front().map(|waiting| waiting.deadline));
            tokio::select! {
                taken = batches.recv(), if open => match taken {
                    Some(batches) => batches.into_iter().for_each(|sealed| self.take(sealed)),
                    None => open = false,
                },
                Some(event) = self.events.recv() => self.on(event),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.expire(),
            }
        }
    }

    /// *Attach later*: follows what is published, until the log is closed.
    pub(super) async fn attach_later(mut self, mut batches: mpsc::Receiver<Vec<Sealed>>) {
        let mut sizes = self.shared.sizes.subscribe();
        sizes.mark_changed();
        loop {
            tokio::select! {
                // Nothing is handed over in this mode: an end is all that can come.
                _ = batches.recv() => return,
                Some(event) = self.events.recv() => {
                    self.on(event);
                    continue;
                }
                changed = sizes.changed() => if changed.is_err() { return },
            }
            let begun = Instant::now();
            self.aim(self.published());
            let (late, next) = (begun + self.config.timeout, begun + INTERVAL);
            let mut end = late;
            while Instant::now() < end {
                tokio::select! {
                    _ = batches.recv() => return,
                    Some(event) = self.events.recv() => self.on(event),
                    () = sleep_until(end) => {}
                }
                if self.config.asked.iter().all(|asked| self.has_answered(asked.at)) {
                    end = next;
                }
            }
            if !self.is_met() {
                self.config.metrics.quorum(self.config.mode.name(), false);
            }
        }
    }

    fn published(&self) -> Arc<Snapshot> {
        self.shared.published()
    }

    /// Whether the witness at this position cosigned the target, or said why not.
    fn has_answered(&self, at: usize) -> bool {
        self.target.as_ref().is_some_and(|target| target.has(at)) || self.problems.get(at).is_some_and(Option::is_some)
    }

    /// Makes `snapshot` the target.
    fn aim(&mut self, snapshot: Arc<Snapshot>) {
        self.problems.fill(None);
        match Note::parse(&snapshot.head.checkpoint) {
            Ok(note) => {
                let goal = Arc::new(Goal { snapshot, note: note.clone() });
                let cosigned = vec![false; self.problems.len()];
                self.target = Some(Target { goal: Arc::clone(&goal), note, cosigned });
                self.goals.send_replace(Some(goal));
            }
            // We signed it ourselves, so memory is broken.
            Err(error) => self.shared.set_broken(&format!("the log's checkpoint is not a note: {error}")),
        }
    }

    /// Takes in a batch that is on disk and anchored.
    fn take(&mut self, sealed: Sealed) {
        if self.shared.is_broken() {
            return sealed.refuse(&self.shared.broken_reason());
        }
        if sealed.snapshot.head.size > self.newest.head.size {
            self.newest = Arc::clone(&sealed.snapshot);
        }
        let published = self.published();
        if self.first.is_none() && sealed.snapshot.head.size <= published.head.size {
            under(published, sealed).answer();
        } else {
            self.waiting.push_back(Waiting { sealed, deadline: Instant::now() + self.config.timeout });
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Cosigned { at, size, line } => self.cosigned(at, size, line),
            Event::Failed { at, problem } => self.set_problem(at, Some(problem)),
        }
    }

    fn set_problem(&mut self, at: usize, problem: Option<String>) {
        if let Some(known) = self.problems.get_mut(at) {
            *known = problem;
        }
    }

    fn is_met(&self) -> bool {
        self.target.as_ref().is_some_and(|target| self.config.policy.is_met(&target.cosigned))
    }

    fn cosigned(&mut self, at: usize, size: u64, line: SignatureLine) {
        self.set_problem(at, None);
        let aimed_at = self.target.as_mut().is_some_and(|target| target.add(at, size, &line));
        let met = aimed_at && self.is_met();
        if self.config.mode == Mode::AttachLater || !aimed_at {
            self.shared.attach(size, &line);
        }
        if met {
            self.config.metrics.quorum(self.config.mode.name(), true);
            match (self.config.mode, self.target.take()) {
                (Mode::Require, Some(target)) => self.publish(target),
                (_, target) => {
                    self.config.set_latest(target.as_ref().map_or_else(|| self.newest.head.clone(), Target::head));
                    self.target = target;
                }
            }
        }
    }

    /// Shows a head that met the quorum, and answers everybody whom it covers.
    fn publish(&mut self, target: Target) {
        let head = target.head();
        // From here on everybody may see it: after a crash it must be shown again.
        if let Err(error) = self.record.write(&head.checkpoint) {
            self.shared.set_broken(&error.to_string());
            for waiting in std::mem::take(&mut self.waiting) {
                waiting.sealed.refuse(&self.shared.broken_reason());
            }
            return;
        }
        self.config.set_latest(head.clone());
        let published = Arc::new(Snapshot { head, partial: target.goal.snapshot.partial.clone() });
        self.shared.publish(Arc::clone(&published));
        if let Some((ready, _)) = self.first.take() {
            ready.send(Ok(())).unwrap_or_default();
        }
        let covered = |waiting: &&Waiting| waiting.sealed.snapshot.head.size <= published.head.size;
        let count = self.waiting.iter().take_while(covered).count();
        for waiting in self.waiting.drain(..count) {
            under(Arc::clone(&published), waiting.sealed).answer();
        }
    }

    /// Tells those whose time is up that their entries are recorded and not witnessed.
    fn expire(&mut self) {
        let now = Instant::now();
        let late = self.waiting.iter().take_while(|waiting| waiting.deadline <= now).count();
        let first_is_late = self.first.as_ref().is_some_and(|(_, deadline)| *deadline <= now);
        if late == 0 && !first_is_late {
            return;
        }
        self.config.metrics.quorum(self.config.mode.name(), false);
        let problem = self.why();
        if first_is_late && let Some((ready, _)) = self.first.take() {
            ready.send(Err(problem.clone())).unwrap_or_default();
        }
        for waiting in self.waiting.drain(..late) {
            for (reply, _) in waiting.sealed.replies {
                // A caller that went away needs no answer.
                drop(reply.send(Err(LogError::Unwitnessed(problem.clone()))));
            }
        }
    }

    /// One sentence about who cosigned and who did not.
    fn why(&self) -> String {
        let of = |asked: &super::Asked| {
            let cosigned = self.target.as_ref().is_some_and(|target| target.has(asked.at));
            let problem = self.problems.get(asked.at).and_then(Clone::clone);
            let said =
                if cosigned { "cosigned".to_owned() } else { problem.unwrap_or_else(|| "no answer yet".to_owned()) };
            format!("{}: {said}", asked.name)
        };
        let each: Vec<String> = self.config.asked.iter().map(of).collect();
        let (quorum, waited) = (self.config.policy.quorum(), self.config.timeout.as_millis());
        format!("the quorum {quorum} was not met within {waited} ms ({})", each.join("; "))
    }
}

impl Target {
    fn has(&self, at: usize) -> bool {
        self.cosigned.get(at).copied().unwrap_or(false)
    }

    /// Adds a cosignature, if it is of this head.
    fn add(&mut self, at: usize, size: u64, line: &SignatureLine) -> bool {
        let fits = self.goal.snapshot.head.size == size && self.note.add(line.clone()).is_ok();
        if fits && let Some(cosigned) = self.cosigned.get_mut(at) {
            *cosigned = true;
        }
        fits
    }

    /// The head with the cosignatures so far.
    fn head(&self) -> Head {
        let Head { size, root, .. } = self.goal.snapshot.head;
        Head { size, root, checkpoint: self.note.to_string().into() }
    }
}

/// The batch under a head that covers it. Its own head is not shown: it may not be cosigned.
fn under(published: Arc<Snapshot>, sealed: Sealed) -> Sealed {
    let delta = sealed.delta.filter(|_| sealed.snapshot.head.size == published.head.size);
    Sealed { snapshot: published, delta, ..sealed }
}

impl Shared {
    /// Attaches a cosignature to the served checkpoint, if that is still the one of `size`.
    fn attach(&self, size: u64, line: &SignatureLine) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        if published.head.size != size {
            return;
        }
        if let Ok(mut note) = Note::parse(&published.head.checkpoint)
            && note.add(line.clone()).is_ok()
        {
            let head = Head { checkpoint: note.to_string().into(), ..published.head.clone() };
            *published = Arc::new(Snapshot { head, partial: published.partial.clone() });
        }
    }
}
