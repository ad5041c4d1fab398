//! What must be proven before the judge says yes: versioned YAML, parsed once into types.
//!
//! A [`PolicySet`] is one or several YAML documents (`apiVersion: countersign.dev/v1`). Each policy says what it
//! speaks about (`match`), what must hold (`require`) and what happens otherwise (`mode`). Everything that can be
//! wrong in a policy is refused here, at load, by a [`PolicyError`] that names the policy and the path: unknown
//! fields, duplicates, patterns and rules that do not compile, lists that are empty. *An empty list satisfies
//! nothing.* Not here: the decision, see [`super::judge`]. Design §5.
//!
//! How `match` reads: every dimension that is listed must match, and a question that does not state a dimension
//! (an admission without an environment) is not spoken about by a policy that lists it. Image globs are matched
//! against `registry/repository`, without tag or digest, as [`super::ImageName`] normalises it
//! (`nginx` is `docker.io/library/nginx`); `*` stays within one path element, `**` does not. `exclude` takes out what
//! matches in any of its dimensions. `noMatch` is asked when no policy matches at all: a policy in mode `warn` or
//! `audit` that matches everything also lets in what nothing else speaks about.

mod age;
mod compile;
mod document;
mod pattern;
mod rule;
mod signer;
mod vulnerability;

use serde::{Deserialize, Serialize};

pub use age::{Age, AgeError};
pub(crate) use compile::{SLSA_PROVENANCE_V0_2, type_of_alias};
pub use pattern::Globs;
pub use rule::Rule;
pub use signer::{SignerRule, Text, Who, anchored};
pub use vulnerability::{Finding, Ignored, Scan, Severity, VulnerabilityLimits};

use super::{digest::Digest, judge::Question, limits};

/// The `apiVersion` of the documents that this version reads.
pub const API_VERSION: &str = "countersign.dev/v1";

/// Why a text is not a [`PolicySet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Over [`limits::DOCUMENT`].
    #[error("policy has {0} bytes; the limit is {limit}", limit = limits::DOCUMENT)]
    TooLarge(usize),
    /// Not the YAML of a policy set; the parser's message holds line and column.
    #[error("policy is not valid: {0}")]
    Yaml(String),
    /// No document, or no policy in any of them.
    #[error("no policies; list at least one under policies, or set noMatch alone in a file with policies elsewhere")]
    NoPolicies,
    /// Another version.
    #[error("apiVersion is {0:?}; this program reads {API_VERSION}")]
    ApiVersion(String),
    /// Twice the same name, or the same setting in two documents.
    #[error("{what} {name:?} is given twice")]
    Duplicate {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A list or the set is over its limit.
    #[error("policy {policy:?}: {path} has {count} entries; the limit is {limit}")]
    TooMany {
        /// The policy's name.
        policy: String,
        /// Where.
        path: String,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// An empty list.
    #[error("policy {policy:?}: {path} is an empty list, and an empty list satisfies nothing; leave it out or fill it")]
    EmptyList {
        /// The policy's name.
        policy: String,
        /// Where.
        path: String,
    },
    /// Anything else.
    #[error("policy {policy:?}: {path}: {problem}")]
    Invalid {
        /// The policy's name.
        policy: String,
        /// Where.
        path: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// What happens to a verdict that is not `Allow`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It passes, and the caller is told.
    Warn,
    /// It passes, and only the audit log is told.
    Audit,
}

/// What is said about a question that no policy matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoMatch {
    /// No.
    #[default]
    Deny,
    /// Yes.
    Allow,
    /// Yes, with a warning.
    Warn,
    /// Could not tell.
    Unknown,
}

/// All policies in force, parsed once; pure data.
#[derive(Debug)]
pub struct PolicySet {
    digest: Digest,
    no_match: NoMatch,
    policies: Vec<Policy>,
}

/// One policy.
#[derive(Debug)]
pub struct Policy {
    /// Its name, unique in the set.
    pub name: String,
    /// What happens when it does not hold.
    pub mode: Mode,
    /// What it speaks about.
    pub scope: Scope,
    /// What must hold, all of it.
    pub require: Require,
}

/// What a policy speaks about.
#[derive(Debug, Default)]
pub struct Scope {
    /// What it must be.
    pub include: Dimensions,
    /// What it must not be; any one dimension suffices.
    pub exclude: Dimensions,
}

/// Globs over what a question states; `None` says nothing about a dimension.
#[derive(Debug, Default)]
pub struct Dimensions {
    /// `registry/repository`.
    pub images: Option<Globs>,
    /// Kubernetes namespaces.
    pub namespaces: Option<Globs>,
    /// Environments.
    pub environments: Option<Globs>,
    /// Services.
    pub services: Option<Globs>,
}

/// Everything that must hold.
#[derive(Debug, Default)]
pub struct Require {
    /// The artifact's signers.
    pub signers: Option<Signers>,
    /// How old a signature may be.
    pub max_age: Option<Age>,
    /// Statements that must be there.
    pub predicates: Vec<Predicate>,
    /// People who must have said yes.
    pub approvals: Option<Approvals>,
    /// The reference must name a digest.
    pub digest_required: bool,
    /// CEL expressions.
    pub rules: Vec<Rule>,
    /// Everyone whom this policy names, in whatever role; only what they signed is shown to [`Rule`]s.
    pub known: Vec<SignerRule>,
}

/// N of these signers.
#[derive(Debug)]
pub struct Signers {
    /// How many different ones.
    pub threshold: usize,
    /// Who.
    pub any_of: Vec<SignerRule>,
    /// Predicate types that count as a signature.
    pub accept: Vec<String>,
}

/// A statement that must be there, by one of these signers.
#[derive(Debug)]
pub struct Predicate {
    /// Its predicate type, or several of which one suffices.
    pub types: Vec<String>,
    /// Who may have signed it.
    pub signers: Vec<SignerRule>,
    /// How old its signature may be.
    pub max_age: Option<Age>,
    /// What it must say.
    pub check: Check,
}

/// What a required statement must say.
#[derive(Debug)]
pub enum Check {
    /// Nothing more than that it is there.
    Present,
    /// SLSA provenance: builder, source and build type.
    Provenance(Provenance),
    /// A vulnerability scan: the newest one counts.
    Vulnerabilities(VulnerabilityLimits),
    /// A test result: the newest one counts, and it must say `PASSED`.
    Tests,
    /// A verification summary: the newest one of a listed verifier counts.
    Vsa(Vsa),
}

/// Which provenance is good enough.
#[derive(Debug, Default)]
pub struct Provenance {
    /// `builder.id`.
    pub builders: Option<Globs>,
    /// The source repository.
    pub sources: Option<Globs>,
    /// `buildType`.
    pub build_types: Option<Globs>,
}

/// Which verification summary is good enough.
#[derive(Debug)]
pub struct Vsa {
    /// `verifier.id`.
    pub verifiers: Globs,
    /// Levels that must all be verified; `SLSA_BUILD_LEVEL_3` is also met by a higher number.
    pub levels: Vec<String>,
    /// `resourceUri`.
    pub resources: Option<Globs>,
}

/// Who must have said yes.
#[derive(Debug)]
pub struct Approvals {
    /// How many different people.
    pub count: usize,
    /// The environments in which approval is asked for; `None` is all.
    pub environments: Option<Globs>,
    /// Who may approve.
    pub approvers: Vec<SignerRule>,
    /// How old an approval may be.
    pub max_age: Option<Age>,
    /// Whoever signed the provenance does not count.
    pub separate_duties: bool,
}

impl PolicySet {
    /// Parses one YAML text with one or several documents.
    ///
    /// # Errors
    /// The first [`PolicyError`]; it names the policy and the path inside it.
    pub fn parse(yaml: &str) -> Result<Self, PolicyError> {
        if yaml.len() > limits::DOCUMENT {
            return Err(PolicyError::TooLarge(yaml.len()));
        }
        let (no_match, policies) = compile::compile(document::read(yaml)?)?;
        Ok(Self { digest: Digest::of(yaml.as_bytes()), no_match, policies })
    }

    /// One policy for everything that wants one signer: what `verify` asks when it is given an identity or a key
    /// rather than policies.
    pub fn of_signer(signer: SignerRule, types: Vec<String>) -> Self {
        let digest = Digest::of(format!("{signer:?} {types:?}").as_bytes());
        let signers = Signers { threshold: 1, any_of: vec![signer], accept: types };
        let require = Require { signers: Some(signers), ..Require::default() };
        let policy = Policy { name: "given".to_owned(), mode: Mode::Enforce, scope: Scope::default(), require };
        Self { digest, no_match: NoMatch::Deny, policies: vec![policy] }
    }

    /// The digest of the text.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is said when no policy matches.
    pub fn no_match(&self) -> NoMatch {
        self.no_match
    }

    /// All policies, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.policies.iter()
    }

    /// The policies that speak about this question.
    pub fn select<'a>(&'a self, question: &'a Question<'_>) -> impl Iterator<Item = &'a Policy> {
        let image = question.image.map(|image| image.name.to_string());
        self.policies.iter().filter(move |policy| policy.scope.covers(image.as_deref(), question))
    }

    /// The first policy that would speak about this question in some namespace, when the question states none: without
    /// knowing the namespace nobody can say whether it holds.
    pub fn wants_namespace<'a>(&'a self, question: &Question<'_>) -> Option<&'a Policy> {
        let image = question.image.map(|image| image.name.to_string());
        let open = |policy: &&Policy| {
            let scope = &policy.scope;
            scope.include.namespaces.is_some() && scope.misses(image.as_deref(), question) == Some(1)
        };
        self.policies.iter().filter(|_policy| question.namespace.is_none()).find(open)
    }
}

impl Scope {
    /// Whether the policy speaks about this question; `image` is its image's `registry/repository`.
    fn covers(&self, image: Option<&str>, question: &Question<'_>) -> bool {
        self.misses(image, question) == Some(0)
    }

    /// How many of the listed dimensions do not fit; `None` when one takes the question out.
    fn misses(&self, image: Option<&str>, question: &Question<'_>) -> Option<usize> {
        let stated = [image, question.namespace, question.environment, question.service];
        let fits = |(globs, stated): &(&Globs, Option<&str>)| stated.is_some_and(|text| globs.matches(text));
        let is_excluded = self.exclude.pairs(stated).any(|pair| fits(&pair));
        (!is_excluded).then(|| self.include.pairs(stated).filter(|pair| !fits(pair)).count())
    }
}

impl Dimensions {
    /// Each dimension that is listed, beside what the question states of it.
    fn pairs<'a>(&'a self, stated: [Option<&'a str>; 4]) -> impl Iterator<Item = (&'a Globs, Option<&'a str>)> {
        [&self.images, &self.namespaces, &self.environments, &self.services]
            .into_iter()
            .zip(stated)
            .filter_map(|(globs, stated)| globs.as_ref().map(|globs| (globs, stated)))
    }
}
