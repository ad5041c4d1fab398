//! From judged images to one answer: modes, failure modes, patch, message.

use std::collections::BTreeMap;

use super::{
    Admission, BreakGlass, Effect, ImageUse, Judged, ObjectError, Outcome, Passed, Pin,
    break_glass::{ANNOTATION, Asked},
    settings::{Class, FailureMode},
    weigh::{self, Weighed},
};
use crate::model::{Decision, policy::Mode};

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
        let Weighed { digest, verdict, mode } = found;
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
        Judged { image, uses, digest, pinned, verdict, mode, class, effect }
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
    warnings.extend(outcome.message.lines().map(str::to_owned));
    warnings.extend(outcome.warnings);
    let mut audit = outcome.audit;
    audit.insert("break-glass", format!("{}: {}", glass.user, glass.reason));
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

/// One image in an audit line.
pub(super) fn audit_image(image: &Judged) -> String {
    let codes: Vec<String> = image.verdict.reasons.iter().map(|reason| reason.code.to_string()).collect();
    let digest = image.digest.map_or_else(|| "-".to_owned(), |digest| digest.to_string());
    format!("{} {digest} {} [{}]", image.image, image.verdict.decision, codes.join(","))
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
