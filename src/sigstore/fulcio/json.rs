//! The parts of answers that are more than one field. Requests in JSON are read in [`crate::model::possession`].

use serde_json::{Value, json};

use super::v2;

/// An issuer; what is empty is left out, as in proto3 JSON.
pub(super) fn issuer(issuer: v2::OidcIssuer) -> Value {
    let url = match issuer.issuer {
        Some(v2::oidc_issuer::Issuer::IssuerUrl(url)) => ("issuerUrl", url),
        Some(v2::oidc_issuer::Issuer::WildcardIssuerUrl(url)) => ("wildcardIssuerUrl", url),
        None => ("issuerUrl", String::new()),
    };
    let fields = [
        url,
        ("audience", issuer.audience),
        ("challengeClaim", issuer.challenge_claim),
        ("spiffeTrustDomain", issuer.spiffe_trust_domain),
        ("issuerType", issuer.issuer_type),
        ("subjectDomain", issuer.subject_domain),
    ];
    let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
    given.map(|(name, text)| (name.to_owned(), json!(text))).collect::<serde_json::Map<_, _>>().into()
}
