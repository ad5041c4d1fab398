//! One policy before one question, and which statements count in it.

use std::collections::BTreeSet;

use super::{Question, entries};
use crate::model::{
    Evidence, LogRef, Reason, Revocation, Revocations, Signer, Verified,
    policy::{Age, Policy, SignerRule},
    predicate,
    verdict::Code,
};

/// One policy, one question, and what is known.
pub(super) struct Case<'a> {
    pub policy: &'a Policy,
    pub question: &'a Question<'a>,
    pub evidence: &'a Evidence,
    pub revocations: &'a Revocations,
}

/// What came of one requirement.
#[derive(Debug)]
pub(super) enum Finding {
    /// It holds.
    Holds(Reason),
    /// It is known not to hold, whatever else might be found.
    Fails(Reason),
    /// Nothing that was found meets it.
    Missing(Reason),
    /// It cannot be told.
    Undecided(Reason),
}

/// A statement whose signer was revoked, with the revocation.
#[derive(Clone, Copy)]
pub(super) struct Void<'a> {
    pub statement: &'a Verified,
    pub code: Code,
    pub revocation: &'a Revocation,
    pub at: &'a LogRef,
}

/// The statements of some types, by what they are worth; each list oldest first.
pub(super) struct Sorted<'a> {
    /// By a wanted signer, and not void.
    pub live: Vec<&'a Verified>,
    /// By a wanted signer, and void.
    pub void: Vec<Void<'a>>,
    /// By somebody else.
    pub others: Vec<&'a Verified>,
}

impl<'a> Case<'a> {
    /// The statements about the digest in question of one of these types, oldest first.
    pub(super) fn of_types<'t, T: AsRef<str>>(
        &self,
        types: &'t [T],
    ) -> impl Iterator<Item = &'a Verified> + use<'a, 't, T> {
        let digest = self.question.digest;
        self.evidence.statements.iter().map(AsRef::as_ref).filter(move |one: &&Verified| {
            let statement = one.statement();
            statement.names(&digest)
                && types.iter().any(|wanted| predicate::matches(wanted.as_ref(), statement.predicate_type()))
        })
    }

    /// The revocation that voids a statement.
    pub(super) fn void(&self, statement: &'a Verified) -> Option<Void<'a>> {
        let (code, revocation, at) = self.revocations.signer(statement)?;
        Some(Void { statement, code, revocation, at })
    }

    /// Sorts the statements of these types by what they are worth as signed by `signers`.
    pub(super) fn sorted<T: AsRef<str>>(&self, types: &[T], signers: &[SignerRule]) -> Sorted<'a> {
        let mut sorted = Sorted { live: Vec::new(), void: Vec::new(), others: Vec::new() };
        for statement in self.of_types(types) {
            if !signers.iter().any(|signer| signer.signed(statement)) {
                sorted.others.push(statement);
            } else if let Some(void) = self.void(statement) {
                sorted.void.push(void);
            } else {
                sorted.live.push(statement);
            }
        }
        sorted
    }

    /// Whether a statement was signed within `age`. Without a signed time it was not.
    pub(super) fn fresh(&self, statement: &Verified, age: Option<Age>) -> bool {
        age.is_none_or(|age| statement.signed_at().is_some_and(|at| age.covers(at, self.question.now)))
    }

    /// A requirement that holds, resting on these.
    pub(super) fn holds<'s>(
        &self,
        what: &str,
        statements: impl IntoIterator<Item = &'s Verified, IntoIter: Clone>,
    ) -> Finding {
        let statements = statements.into_iter();
        let message = format!("policy {}: {what} by {}", self.policy.name, signers(statements.clone()));
        Finding::Holds(Reason::new(Code::Satisfied, message, "").with_evidence(entries(statements)))
    }

    /// A reason that begins with the policy's name.
    pub(super) fn reason(&self, code: Code, message: impl AsRef<str>, remedy: impl Into<String>) -> Reason {
        Reason::new(code, format!("policy {}: {}", self.policy.name, message.as_ref()), remedy)
    }

    /// What would have met the requirement was signed by a revoked key or identity.
    pub(super) fn voided(&self, what: &str, void: Void<'_>) -> Reason {
        let message = format!(
            "{what} by {} does not count: revoked since {}: {}",
            signer(void.statement.signer()),
            void.revocation.since,
            void.revocation.reason
        );
        self.reason(void.code, message, "sign again with a key or identity that is not revoked")
            .with_evidence(vec![void.at.clone()])
    }

    /// What met the requirement is too old.
    pub(super) fn stale(&self, code: Code, what: &str, newest: &Verified, age: Option<Age>) -> Reason {
        let when = newest.signed_at().map_or_else(|| "without a verified time".to_owned(), |at| format!("of {at}"));
        let most = age.map_or_else(String::new, |age| format!("; the policy takes {age} at most"));
        self.reason(code, format!("the newest {what} is {when}{most}"), format!("record a new {what}"))
            .with_evidence(entries([newest]))
    }
}

/// The newest by signed time; of equals, the last.
pub(super) fn newest<'a>(statements: impl IntoIterator<Item = &'a Verified>) -> Option<&'a Verified> {
    statements.into_iter().max_by_key(|one| one.signed_at())
}

/// The signer, for people.
pub(super) fn signer(signer: &Signer) -> String {
    match signer {
        Signer::Identity(identity) => identity.to_string(),
        Signer::Key(key) => format!("key {key}"),
    }
}

/// All different signers, for people; a few of many.
pub(super) fn signers<'a>(statements: impl IntoIterator<Item = &'a Verified>) -> String {
    const SHOWN: usize = 5;
    let all: BTreeSet<String> = statements.into_iter().map(|one| signer(one.signer())).collect();
    let more = all.len().saturating_sub(SHOWN);
    let text = all.into_iter().take(SHOWN).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}
