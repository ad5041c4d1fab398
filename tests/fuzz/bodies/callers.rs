//! Who calls: what client certificates say, and where issuers say that their keys are.

use countersign::model::{
    certificate::{describe, identity_of},
    discovery::Discovery,
    limits,
    peer::{PeerError, subject_of},
};
use der::Decode as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use url::{Host, Url};
use x509_cert::ext::pkix::{SubjectAltName, name::GeneralName};

use super::refused;

/// Client certificates: the subject is the one name of its kind, fit for a rule and a log, and whoever else reads a single
/// name reads the same; it counts from the first second of the certificate to the last.
pub fn peer(data: &[u8]) -> bool {
    let said = describe(data);
    let from = said.as_ref().map_or(Timestamp::UNIX_EPOCH, |said| said.not_before);
    let subject = match subject_of(data, from) {
        Ok(subject) => subject,
        Err(error) => return refused(&error),
    };
    assert!(subject.len() <= limits::URI && subject.bytes().all(|byte| byte.is_ascii_graphic()), "{subject:?}");
    is_the_only_name(data, &subject);
    let second = SignedDuration::from_secs(1);
    if let Some(said) = said {
        assert_eq!(subject_of(data, said.not_after), Ok(subject));
        if let Ok(after) = said.not_after.checked_add(second) {
            assert_eq!(subject_of(data, after), Err(PeerError::Expired));
        }
        if said.not_before > Timestamp::UNIX_EPOCH {
            assert_eq!(subject_of(data, said.not_before - second), Err(PeerError::NotYetValid));
        }
    }
    true
}

fn is_the_only_name(certificate: &[u8], subject: &str) {
    let tbs = x509_cert::Certificate::from_der(certificate).expect("it was read").tbs_certificate;
    let (_, SubjectAltName(names)) = tbs.get().expect("it was read").expect("it has names");
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in &names {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.as_str()),
            GeneralName::DnsName(host) => hosts.push(host.as_str()),
            _ => {}
        }
    }
    if let Some(host) = subject.strip_prefix("dns:") {
        assert!(uris.is_empty() && hosts.len() == 1 && hosts[0].eq_ignore_ascii_case(host), "{subject} of {names:?}");
        assert!(!host.is_empty() && !host.contains('*'), "{subject}");
    } else if subject.starts_with("spiffe:") {
        let claiming = uris.iter().filter(|uri| uri.to_ascii_lowercase().starts_with("spiffe:"));
        assert_eq!(claiming.collect::<Vec<_>>(), [&subject]);
    } else {
        assert_eq!(uris, [subject]);
    }
    if let (1, Some(identity)) = (names.len(), identity_of(certificate)) {
        assert_eq!(identity.subject, subject);
    }
}

const ISSUER: &str = "https://issuer.example.com";

/// Discovery documents: the issuer is the one that was asked, and its keys are where the document says, by HTTPS, or on this
/// machine where that is allowed.
pub fn discovery(data: &[u8]) -> bool {
    let strict = Discovery::parse(data, ISSUER, false);
    let read = match Discovery::parse(data, ISSUER, true) {
        Ok(read) => read,
        Err(problem) => {
            assert!(strict.is_err(), "{strict:?}");
            return refused(&problem);
        }
    };
    assert!(data.len() <= limits::JWKS && read.jwks_uri.len() <= limits::URI);
    // Fields that are passed over may hold what makes no value.
    if let Ok(document) = serde_json::from_slice::<Value>(data) {
        assert_eq!((&document["issuer"], &document["jwks_uri"]), (&json!(ISSUER), &json!(read.jwks_uri)));
    }
    let url: Url = read.jwks_uri.parse().expect("a URL");
    let here = match url.host().expect("a host") {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    assert!(url.scheme() == "https" || (url.scheme() == "http" && here), "{url}");
    assert_eq!(strict.is_ok(), url.scheme() == "https", "{url}");
    assert!(!read.jwks_uri.contains(['?', '#']) && url.username().is_empty() && url.password().is_none(), "{url}");
    let again = json!({ "jwks_uri": read.jwks_uri, "issuer": ISSUER }).to_string();
    assert_eq!(Discovery::parse(again.as_bytes(), ISSUER, true), Ok(read.clone()));
    assert!(Discovery::parse(data, "https://issuer.example.co", true).is_err());
    true
}
