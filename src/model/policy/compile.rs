//! From the YAML as written to policies that make sense.

use std::{collections::BTreeMap, fmt::Display};

use jiff::Timestamp;
use sigstore_types::DerPublicKey;

use super::{
    API_VERSION, Age, Approvals, Check, Dimensions, Globs, Ignored, NoMatch, Policy, PolicyError, Predicate,
    Provenance, Require, Rule, Scope, Severity, SignerRule, Signers, Text, Vsa, VulnerabilityLimits, Who, document,
};
use crate::model::{Digest, limits, predicate};

/// SLSA provenance, version 0.2; its fields are found under other names.
pub(crate) const SLSA_PROVENANCE_V0_2: &str = "https://slsa.dev/provenance/v0.2";

/// Joins the documents and compiles each policy.
pub(super) fn compile(documents: Vec<document::Document>) -> Result<(NoMatch, Vec<Policy>), PolicyError> {
    let (mut no_match, mut identities, mut written) = (None, Vec::new(), Vec::new());
    for document in documents {
        if document.api_version != API_VERSION {
            return Err(PolicyError::ApiVersion(document.api_version.chars().take(64).collect()));
        }
        if document.kind.as_deref().is_some_and(|kind| kind != "PolicySet") {
            return Err(PolicyError::Yaml("kind is PolicySet, or left out".to_owned()));
        }
        if let Some(setting) = document.no_match
            && no_match.replace(setting).is_some()
        {
            return Err(PolicyError::Duplicate { what: "setting", name: "noMatch".to_owned() });
        }
        identities.extend(document.identities.unwrap_or_default());
        written.extend(document.policies.unwrap_or_default());
    }
    if written.is_empty() {
        return Err(PolicyError::NoPolicies);
    }
    let set = Place { policy: "(all)" };
    set.count("policies", written.len(), limits::POLICIES)?;
    let identities = set.signers("identities", identities, &Names::default())?;
    let identities: Names = identities.into_iter().map(|signer| (signer.name.clone(), signer)).collect();
    let mut policies: Vec<Policy> = Vec::with_capacity(written.len());
    for policy in written {
        if policies.iter().any(|known| known.name == policy.name) {
            return Err(PolicyError::Duplicate { what: "policy", name: limits::quoted(&policy.name) });
        }
        policies.push(compile_policy(policy, &identities)?);
    }
    Ok((no_match.unwrap_or_default(), policies))
}

type Names = BTreeMap<String, SignerRule>;

fn compile_policy(policy: document::Policy, identities: &Names) -> Result<Policy, PolicyError> {
    let place = Place { policy: &policy.name };
    place.text("name", &policy.name)?;
    let scope = policy.scope;
    let include = place.dimensions("match", scope.images, scope.namespaces, scope.environments, scope.services)?;
    let exclude = match scope.exclude {
        Some(out) => place.dimensions("match.exclude", out.images, out.namespaces, out.environments, out.services)?,
        None => Dimensions::default(),
    };
    let require = place.require(policy.require, identities)?;
    Ok(Policy { mode: policy.mode, scope: Scope { include, exclude }, require, name: policy.name })
}

/// Which policy is being compiled; makes the errors.
#[derive(Clone, Copy)]
struct Place<'a> {
    policy: &'a str,
}

impl Place<'_> {
    /// The policy's name, as errors say it.
    fn shown(self) -> String {
        self.policy.chars().take(64).collect()
    }

    fn invalid(self, path: impl Into<String>, problem: impl Display) -> PolicyError {
        PolicyError::Invalid { policy: self.shown(), path: path.into(), problem: format!("{problem}") }
    }

    fn count(self, path: &str, count: usize, limit: usize) -> Result<(), PolicyError> {
        if count <= limit {
            return Ok(());
        }
        Err(PolicyError::TooMany { policy: self.shown(), path: path.to_owned(), count, limit })
    }

    /// The list, if it is neither empty nor too long.
    fn list<T>(self, path: &str, list: Vec<T>) -> Result<Vec<T>, PolicyError> {
        if list.is_empty() {
            return Err(PolicyError::EmptyList { policy: self.shown(), path: path.to_owned() });
        }
        self.count(path, list.len(), limits::POLICY_LIST)?;
        Ok(list)
    }

    fn optional_list<T>(self, path: &str, list: Option<Vec<T>>) -> Result<Vec<T>, PolicyError> {
        list.map_or(Ok(Vec::new()), |list| self.list(path, list))
    }

    fn text(self, path: &str, text: &str) -> Result<(), PolicyError> {
        if text.trim().is_empty() || text.len() > limits::TEXT || text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(self.invalid(path, format!("must be a text of 1 to {} characters", limits::TEXT)));
        }
        Ok(())
    }

    fn age(self, path: &str, text: Option<String>) -> Result<Option<Age>, PolicyError> {
        text.map(|text| text.parse().map_err(|source| self.invalid(path, source))).transpose()
    }

    fn globs(self, path: &str, list: Option<Vec<String>>) -> Result<Option<Globs>, PolicyError> {
        let Some(list) = list else { return Ok(None) };
        let list = self.list(path, list)?;
        Globs::new(list).map(Some).map_err(|problem| self.invalid(path, problem))
    }

    fn dimensions(
        self,
        path: &str,
        images: Option<Vec<String>>,
        namespaces: Option<Vec<String>>,
        environments: Option<Vec<String>>,
        services: Option<Vec<String>>,
    ) -> Result<Dimensions, PolicyError> {
        for image in images.iter().flatten() {
            if image.contains('@') || (!image.contains('/') && image != "**") {
                return Err(self.invalid(
                    format!("{path}.images"),
                    format!(
                        "{:?} can match no image name; write registry/repository without digest, \
                         as in docker.io/library/nginx or registry.example.com/**, or ** for all",
                        limits::quoted(image)
                    ),
                ));
            }
        }
        Ok(Dimensions {
            images: self.globs(&format!("{path}.images"), images)?,
            namespaces: self.globs(&format!("{path}.namespaces"), namespaces)?,
            environments: self.globs(&format!("{path}.environments"), environments)?,
            services: self.globs(&format!("{path}.services"), services)?,
        })
    }

    /// Compiles signers; one that has only a name is looked up in `known`.
    fn signers(self, path: &str, list: Vec<document::Signer>, known: &Names) -> Result<Vec<SignerRule>, PolicyError> {
        let mut signers: Vec<SignerRule> = Vec::with_capacity(list.len());
        self.count(path, list.len(), limits::POLICY_LIST)?;
        for (index, signer) in list.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            self.text(&format!("{path}.name"), &signer.name)?;
            if signers.iter().any(|known| known.name == signer.name) {
                return Err(PolicyError::Duplicate { what: "signer", name: limits::quoted(&signer.name) });
            }
            let who = match self.who(&path, &signer)? {
                Some(who) => who,
                None => known.get(&signer.name).map(|known| known.who.clone()).ok_or_else(|| {
                    self.invalid(&path, format!("no identity is called {:?}", limits::quoted(&signer.name)))
                })?,
            };
            signers.push(SignerRule { name: signer.name, who });
        }
        Ok(signers)
    }

    fn who(self, path: &str, signer: &document::Signer) -> Result<Option<Who>, PolicyError> {
        let text = |name: &str, exact: &Option<String>, pattern: &Option<String>| {
            Text::of(name, exact.as_deref(), pattern.as_deref()).map_err(|problem| self.invalid(path, problem))
        };
        let issuer = text("issuer", &signer.issuer, &signer.issuer_regexp)?;
        let subject = text("subject", &signer.subject, &signer.subject_regexp)?;
        match (issuer, subject, &signer.key) {
            (None, None, None) => Ok(None),
            (None, None, Some(key)) => self.key(path, key).map(Some),
            (Some(issuer), Some(subject), None) => Ok(Some(Who::Identity { issuer, subject })),
            (_, _, Some(_)) => Err(self.invalid(path, "give issuer and subject, or key, not both")),
            _ => Err(self.invalid(
                path,
                "needs issuer and subject together: any issuer can vouch for a subject, and an issuer for anyone",
            )),
        }
    }

    fn key(self, path: &str, key: &str) -> Result<Who, PolicyError> {
        let path = format!("{path}.key");
        if key.trim_start().starts_with("-----BEGIN") {
            let key = DerPublicKey::from_pem(key).map_err(|source| self.invalid(path, source))?;
            return Ok(Who::Key(Digest::of(key.as_bytes())));
        }
        key.parse().map(Who::Key).map_err(|source| {
            self.invalid(path, format!("must be a PEM public key, or the digest of its SubjectPublicKeyInfo: {source}"))
        })
    }

    fn require(self, require: document::Require, identities: &Names) -> Result<Require, PolicyError> {
        let mut names = identities.clone();
        let signers = match require.signers {
            Some(signers) => Some(self.artifact_signers(signers, identities)?),
            None => None,
        };
        for signer in signers.iter().flat_map(|signers| &signers.any_of) {
            names.insert(signer.name.clone(), signer.clone());
        }
        let max_age = self.age("require.maxAge", require.max_age)?;
        if max_age.is_some() && signers.is_none() {
            return Err(self.invalid("require.maxAge", "is the age of signatures; it needs signers"));
        }
        let default = signers.as_ref().map(|signers| signers.any_of.as_slice()).unwrap_or_default();
        let written = self.optional_list("require.predicates", require.predicates)?;
        let predicates = written
            .into_iter()
            .enumerate()
            .map(|(index, predicate)| {
                self.predicate(&format!("require.predicates[{index}]"), predicate, default, &names)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let approvals = require.approvals.map(|approvals| self.approvals(approvals, &names)).transpose()?;
        let mut known: Vec<SignerRule> = default.to_vec();
        known.extend(predicates.iter().flat_map(|predicate| predicate.signers.iter().cloned()));
        known.extend(approvals.iter().flat_map(|approvals| approvals.approvers.iter().cloned()));
        let rules = self.rules(self.optional_list("require.rules", require.rules)?, &known)?;
        let digest_required = require.digest_required;
        if signers.is_none() && predicates.is_empty() && approvals.is_none() && rules.is_empty() && !digest_required {
            return Err(self.invalid("require", "requires nothing; take what it matches out of other policies instead"));
        }
        Ok(Require { signers, max_age, predicates, approvals, digest_required, rules, known })
    }

    fn artifact_signers(self, signers: document::Signers, identities: &Names) -> Result<Signers, PolicyError> {
        let any_of = self.list("require.signers.anyOf", signers.any_of)?;
        let any_of = self.signers("require.signers.anyOf", any_of, identities)?;
        let threshold = signers.threshold.unwrap_or(1);
        if threshold == 0 || threshold > any_of.len() {
            return Err(self.invalid(
                "require.signers.threshold",
                format!("is {threshold}; with {} signers it must be 1 to {}", any_of.len(), any_of.len()),
            ));
        }
        let accept = self.optional_list("require.signers.accept", signers.accept)?;
        let mut types = Vec::new();
        for kind in accept {
            match kind {
                document::Accept::Sign => types.push(predicate::SIGN.to_owned()),
                document::Accept::Provenance => types.push(predicate::SLSA_PROVENANCE.to_owned()),
            }
        }
        if types.is_empty() {
            types.push(predicate::SIGN.to_owned());
        }
        Ok(Signers { threshold, any_of, accept: types })
    }

    fn predicate(
        self,
        path: &str,
        written: document::Predicate,
        default: &[SignerRule],
        names: &Names,
    ) -> Result<Predicate, PolicyError> {
        let signers = match written.signers {
            None if default.is_empty() => {
                return Err(
                    self.invalid(path, "names no signers, and the policy has none either; anyone could sign it")
                );
            }
            None => default.to_vec(),
            Some(list) => self
                .list(&format!("{path}.signers"), list)?
                .into_iter()
                .map(|name| {
                    let found = names.get(&name).cloned();
                    found.ok_or_else(|| {
                        self.invalid(
                            format!("{path}.signers"),
                            format!("no signer or identity is called {:?}", limits::quoted(&name)),
                        )
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        let max_age = self.age(&format!("{path}.maxAge"), written.max_age)?;
        let mut checks: Vec<(Check, Vec<String>, Option<Age>)> = Vec::new();
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        if let Some(provenance) = written.provenance {
            let check = Check::Provenance(self.provenance(path, provenance)?);
            checks.push((check, own(&[predicate::SLSA_PROVENANCE, SLSA_PROVENANCE_V0_2]), None));
        }
        if let Some(limits) = written.vulnerabilities {
            let check = Check::Vulnerabilities(self.vulnerabilities(&format!("{path}.vulnerabilities"), limits)?);
            checks.push((check, own(&[predicate::VULNS]), None));
        }
        if let Some(tests) = written.tests {
            let age = self.age(&format!("{path}.tests.maxAge"), tests.max_age)?;
            checks.push((Check::Tests, own(&[predicate::TEST_RESULT]), age));
        }
        if let Some(vsa) = written.vsa {
            checks.push((Check::Vsa(self.vsa(&format!("{path}.vsa"), vsa)?), own(&[predicate::VSA]), None));
        }
        if let Some(sbom) = written.sbom {
            let formats = self.list(&format!("{path}.sbom.formats"), sbom.formats)?;
            let types = formats.into_iter().map(|format| match format {
                document::SbomFormat::Spdx => predicate::SPDX.to_owned(),
                document::SbomFormat::Cyclonedx => predicate::CYCLONEDX.to_owned(),
            });
            checks.push((Check::Present, types.collect(), None));
        }
        self.joined(
            path,
            written.kind.as_deref(),
            checks,
            Predicate { types: Vec::new(), signers, max_age, check: Check::Present },
        )
    }

    /// Brings the written type and the one built-in check together.
    fn joined(
        self,
        path: &str,
        written: Option<&str>,
        mut checks: Vec<(Check, Vec<String>, Option<Age>)>,
        base: Predicate,
    ) -> Result<Predicate, PolicyError> {
        if checks.len() > 1 {
            return Err(self.invalid(path, "has more than one built-in check; write one entry for each"));
        }
        let written = written.map(type_of_alias);
        match (written, checks.pop()) {
            (None, None) => {
                Err(self.invalid(path, "needs a type, or one of provenance, vulnerabilities, sbom, tests, vsa"))
            }
            (Some(uri), None) if !uri.contains(':') || uri.len() > limits::URI => Err(self.invalid(
                format!("{path}.type"),
                format!("{:?} is neither a URI nor a known alias", limits::quoted(&uri)),
            )),
            (Some(uri), None) => Ok(Predicate { types: vec![uri.to_owned()], ..base }),
            (None, Some((check, types, age))) => Ok(Predicate { types, check, max_age: base.max_age.or(age), ..base }),
            (Some(uri), Some((check, types, age))) => {
                if !types.iter().any(|known| predicate::matches(known, uri)) {
                    return Err(self.invalid(
                        format!("{path}.type"),
                        format!(
                            "{} has not the fields of this check; it reads {}",
                            limits::quoted(&uri),
                            types.join(" or ")
                        ),
                    ));
                }
                Ok(Predicate { types: vec![uri.to_owned()], check, max_age: base.max_age.or(age), ..base })
            }
        }
    }

    fn provenance(self, path: &str, written: document::Provenance) -> Result<Provenance, PolicyError> {
        Ok(Provenance {
            builders: self.globs(&format!("{path}.provenance.builders"), written.builders)?,
            sources: self.globs(&format!("{path}.provenance.sources"), written.sources)?,
            build_types: self.globs(&format!("{path}.provenance.buildTypes"), written.build_types)?,
        })
    }

    fn vsa(self, path: &str, written: document::Vsa) -> Result<Vsa, PolicyError> {
        let verifiers = self.list(&format!("{path}.verifiers"), written.verifiers)?;
        Ok(Vsa {
            verifiers: Globs::new(verifiers).map_err(|problem| self.invalid(format!("{path}.verifiers"), problem))?,
            levels: self.list(&format!("{path}.levels"), written.levels)?,
            resources: self.globs(&format!("{path}.resources"), written.resources)?,
        })
    }

    fn vulnerabilities(
        self,
        path: &str,
        written: document::Vulnerabilities,
    ) -> Result<VulnerabilityLimits, PolicyError> {
        let mut most = BTreeMap::new();
        if let Some(worst) = written.max_severity {
            most.extend(Severity::ALL.into_iter().filter(|severity| worst.forbids(*severity)).map(|one| (one, 0)));
        }
        if let Some(counts) = written.max_counts {
            let each = [counts.low, counts.medium, counts.high, counts.critical, counts.unrated];
            let given: Vec<_> =
                Severity::ALL.into_iter().zip(each).filter_map(|(severity, count)| Some((severity, count?))).collect();
            // Whoever limits critical findings has not allowed findings of which nobody says how bad they are.
            if counts.unrated.is_none() && counts.critical.is_some() {
                most.entry(Severity::Unrated).or_insert(0);
            }
            most.extend(given);
        }
        if most.is_empty() {
            return Err(self.invalid(path, "limits nothing; give maxSeverity or maxCounts"));
        }
        let mut ignore: Vec<Ignored> = Vec::new();
        for (index, entry) in self.optional_list(&format!("{path}.ignore"), written.ignore)?.into_iter().enumerate() {
            let place = format!("{path}.ignore[{index}]");
            self.text(&format!("{place}.id"), &entry.id)?;
            if ignore.iter().any(|known| known.id == entry.id) {
                return Err(PolicyError::Duplicate { what: "ignored finding", name: limits::quoted(&entry.id) });
            }
            let until = day_or_time(&entry.until)
                .ok_or_else(|| self.invalid(format!("{place}.until"), "must be a date or an RFC 3339 time"))?;
            ignore.push(Ignored { id: entry.id, until });
        }
        Ok(VulnerabilityLimits {
            most,
            ignore,
            max_age: self.age(&format!("{path}.maxAge"), written.max_age)?,
            max_database_age: self.age(&format!("{path}.maxDatabaseAge"), written.max_database_age)?,
        })
    }

    fn approvals(self, written: document::Approvals, names: &Names) -> Result<Approvals, PolicyError> {
        let approvers = self.list("require.approvals.approvers", written.approvers)?;
        let approvers = self.signers("require.approvals.approvers", approvers, names)?;
        let count = written.count.unwrap_or(1);
        if count == 0 || count > limits::POLICY_LIST {
            return Err(self.invalid("require.approvals.count", "must be at least 1, and at most the people you have"));
        }
        Ok(Approvals {
            count,
            environments: self.globs("require.approvals.environments", written.environments)?,
            approvers,
            max_age: self.age("require.approvals.maxAge", written.max_age)?,
            separate_duties: written.separate_duties,
        })
    }

    fn rules(self, written: Vec<document::Rule>, known: &[SignerRule]) -> Result<Vec<Rule>, PolicyError> {
        let mut rules: Vec<Rule> = Vec::with_capacity(written.len());
        for (index, rule) in written.into_iter().enumerate() {
            let path = format!("require.rules[{index}]");
            self.text(&format!("{path}.name"), &rule.name)?;
            self.text(&format!("{path}.message"), &rule.message)?;
            if rules.iter().any(|known| known.name == rule.name) {
                return Err(PolicyError::Duplicate { what: "rule", name: limits::quoted(&rule.name) });
            }
            let path = format!("{path}.expression");
            let rule = Rule::compile(&rule.name, &rule.expression, &rule.message, &rule.remedy)
                .map_err(|problem| self.invalid(&path, problem))?;
            if rule.reads_evidence() && known.is_empty() {
                return Err(self.invalid(path, "reads attestations, and the policy names no signers whose to show it"));
            }
            rules.push(rule);
        }
        Ok(rules)
    }
}

/// The type that a short name stands for (cosign's names, and ours); anything else is returned as it is.
pub(crate) fn type_of_alias(text: &str) -> &str {
    match text {
        "sign" => predicate::SIGN,
        "slsaprovenance1" | "provenance" => predicate::SLSA_PROVENANCE,
        "slsaprovenance" | "slsaprovenance02" => SLSA_PROVENANCE_V0_2,
        "spdx" | "spdxjson" => predicate::SPDX,
        "cyclonedx" => predicate::CYCLONEDX,
        "vulns" => predicate::VULNS,
        "test-result" => predicate::TEST_RESULT,
        "vsa" => predicate::VSA,
        other => other,
    }
}

/// A time, or the end of a day (UTC).
fn day_or_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let day: jiff::civil::Date = text.parse().ok()?;
    day.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}
