//! From judged images to one answer: modes, failure modes, patch, message.

use std::collections::BTreeMap;

use super::{
    Admission, BreakGlass, Effect, ImageUse, Judged, ObjectError, Outcome, Passed, Pin,
    break_glass::{ANNOTATION, Asked, Recorded},
    settings::{Class, FailureMode},
    weigh::{self, Weighed},
};
use crate::model::{Decision, policy::Mode, verdict::Code};

impl Admission {
    /// Passed without a judgement.
    pub(super) fn pass(&self, passed: Passed) -> Outcome {
        Outcome {
            allowed: true,
            decision: Decision::Allow,
            mode: self.settings.mode,
            class: None,
            passed: Some(passed),
            break_glass: None,
            images: Vec::new(),
            patch: Vec::new(),
            warnings: Vec::new(),
            message: String::new(),
            audit: BTreeMap::from([("decision", "passed".to_owned()), ("reason", passed.sentence().to_owned())]),
        }
    }

    /// The object's images could not be read, so nothing can be said for it.
    pub(super) fn unreadable(&self, error: &ObjectError) -> Outcome {
        let message = format!("MALFORMED_OBJECT {error}");
        Outcome {
            allowed: self.settings.mode != Mode::Enforce,
            decision: Decision::Deny,
            mode: self.settings.mode,
            class: Some(Class::Denied),
            passed: None,
            break_glass: None,
            images: Vec::new(),
            patch: Vec::new(),
            warnings: if self.settings.mode == Mode::Warn { vec![message.clone()] } else { Vec::new() },
            audit: self.annotations(Decision::Deny),
            message,
        }
    }

    /// One image, with what becomes of it.
    pub(super) fn judged(&self, image: String, uses: Vec<ImageUse>, found: Weighed) -> Judged {
        let Weighed { digest, verdict, mode, audited, evidence } = found;
        let class = weigh::class(&verdict);
        let mode = milder(mode, self.settings.mode);
        let effect = match (class, mode) {
            (None, _) => Effect::Admit,
            (Some(_), Mode::Audit) => Effect::Note,
            (Some(_), Mode::Warn) => Effect::Warn,
            (Some(class), Mode::Enforce) => match self.settings.on_failure.of(class) {
                FailureMode::Closed => Effect::Refuse,
                FailureMode::Open => Effect::Warn,
            },
        };
        let pinned = digest.filter(|_| !image.contains('@')).map(|digest| format!("{image}@{digest}"));
        Judged { image, uses, digest, pinned, verdict, mode, class, effect, audited, evidence }
    }

    /// All images together.
    pub(super) fn conclude(&self, images: Vec<Judged>, pins: bool) -> Outcome {
        let decision = images.iter().fold(Decision::Allow, |all, image| all.and(image.verdict.decision));
        let mode = images.iter().map(|image| image.mode).fold(Mode::Audit, stricter);
        let refused: Vec<String> =
            images.iter().filter(|image| image.effect == Effect::Refuse).map(weigh::sentence).collect();
        let patch = if pins { images.iter().flat_map(pins_of).collect() } else { Vec::new() };
        Outcome {
            allowed: refused.is_empty(),
            decision,
            mode,
            class: images.iter().filter_map(|image| image.class).max(),
            passed: None,
            break_glass: None,
            warnings: images.iter().flat_map(warnings_of).collect(),
            patch: if refused.is_empty() { patch } else { Vec::new() },
            message: refused.join("\n"),
            audit: self.annotations(decision),
            images,
        }
    }

    fn annotations(&self, decision: Decision) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("decision", decision.to_string()), ("policy", self.parts.policy.to_string())])
    }
}

/// The pins of an image. Mode `audit` changes nothing, so it pins nothing either.
fn pins_of(image: &Judged) -> Vec<Pin> {
    match &image.pinned {
        Some(pinned) if image.mode != Mode::Audit => {
            let pin = |place: &ImageUse| Pin { pointer: place.pointer.clone(), image: pinned.clone() };
            image.uses.iter().map(pin).collect()
        }
        _ => Vec::new(),
    }
}

fn warnings_of(image: &Judged) -> Vec<String> {
    let not_allowed = (image.effect == Effect::Warn).then(|| weigh::sentence(image));
    let aside = image.verdict.warnings.iter();
    let aside = aside.map(|reason| format!("image {}: {} {}", image.image, reason.code, reason.message));
    not_allowed.into_iter().chain(aside).collect()
}

/// Admits against the verdict, loudly.
pub(super) fn with_glass(outcome: Outcome, glass: BreakGlass) -> Outcome {
    let mut warnings = vec![format!("BREAK-GLASS by {}: {} (until {:.0})", glass.user, glass.reason, glass.expires)];
    let mut audit = outcome.audit;
    audit.insert("break-glass", format!("{}: {}", glass.user, glass.reason));
    match &glass.recorded {
        Recorded::NotYet => {}
        Recorded::At(entry) => {
            audit.insert("break-glass-entry", entry.to_string());
        }
        Recorded::Failed(problem) => {
            audit.insert("break-glass-entry", format!("none: {problem}"));
            warnings.push(format!("the broken glass is NOT in the log ({problem}); tell whoever runs countersign"));
        }
    }
    warnings.extend(outcome.message.lines().map(str::to_owned));
    warnings.extend(outcome.warnings);
    Outcome { allowed: true, warnings, audit, message: String::new(), break_glass: Some(glass), ..outcome }
}

/// Refused, with a word on why the annotation did not help.
pub(super) fn without_glass(mut outcome: Outcome, asked: &Asked) -> Outcome {
    let why = match asked {
        Asked::No | Asked::Yes(_) => return outcome,
        Asked::NotEntitled => "this user is not among those whom the configuration lets break the glass",
        Asked::TooLong => "its reason is too long",
    };
    outcome.message = format!("{}\nannotation {ANNOTATION} was not honoured: {why}", outcome.message);
    outcome
}

/// What weighed most, for metrics: the code of the first reason of the gravest image, or why nothing was judged.
pub(super) fn weightiest(outcome: &Outcome) -> String {
    if let Some(passed) = outcome.passed {
        return passed.as_str().to_owned();
    }
    let gravest = outcome.images.iter().find(|image| image.class == outcome.class);
    let reason = gravest.and_then(|image| image.verdict.reasons.first());
    let fallback = if outcome.images.is_empty() { Code::MalformedObject } else { Code::Satisfied };
    reason.map_or(fallback, |reason| reason.code).to_string()
}

/// What became of an object, for metrics.
pub(super) fn effect(outcome: &Outcome) -> &'static str {
    if outcome.break_glass.is_some() {
        return "break-glass";
    }
    if !outcome.allowed {
        return "refuse";
    }
    let is = |effect| outcome.images.iter().any(|image| image.effect == effect);
    // An object that could not be read has no images, and passes in these modes only.
    let unreadable = outcome.images.is_empty() && outcome.passed.is_none();
    if is(Effect::Warn) || (unreadable && outcome.mode == Mode::Warn) {
        "warn"
    } else if is(Effect::Note) || unreadable {
        "note"
    } else {
        "admit"
    }
}

/// One image in an audit line.
pub(super) fn audit_image(image: &Judged) -> String {
    let codes: Vec<String> = image.verdict.reasons.iter().map(|reason| reason.code.to_string()).collect();
    let digest = image.digest.map_or_else(|| "-".to_owned(), |digest| digest.to_string());
    format!("{} {digest} {} [{}]", image.image, image.verdict.decision, codes.join(","))
}

/// What policies in mode `audit` object to of one image, one line each.
pub(super) fn audited(image: &Judged) -> impl Iterator<Item = String> {
    image.audited.iter().map(|reason| format!("{}: {} {}", image.image, reason.code, reason.message))
}

const fn rank(mode: Mode) -> u8 {
    match mode {
        Mode::Audit => 0,
        Mode::Warn => 1,
        Mode::Enforce => 2,
    }
}

const fn milder(one: Mode, other: Mode) -> Mode {
    if rank(one) <= rank(other) { one } else { other }
}

const fn stricter(one: Mode, other: Mode) -> Mode {
    if rank(one) >= rank(other) { one } else { other }
}
