//! Client certificates: the names that count, and those that do not.

use countersign::identity::peer_identity;
use der::{Encode as _, asn1::BitString, asn1::Ia5String, asn1::OctetString, oid::AssociatedOid as _};
use x509_cert::{
    Certificate, TbsCertificate, Version,
    ext::{
        Extension,
        pkix::{SubjectAltName, name::GeneralName},
    },
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, ObjectIdentifier, SubjectPublicKeyInfoOwned},
    time::Validity,
};

use super::{Authenticator, Credentials, Issuer, Refusal, Role, Rule, Settings, Timestamp, after, json, trusting};

/// A leaf as TLS hands it over: verified there, so that its signature does not matter here.
fn leaf(names: Option<Vec<GeneralName>>) -> Vec<u8> {
    let algorithm =
        AlgorithmIdentifierOwned { oid: ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), parameters: None };
    let extensions = names.map(|names| {
        vec![Extension {
            extn_id: SubjectAltName::OID,
            critical: true,
            extn_value: OctetString::new(SubjectAltName(names).to_der().unwrap()).unwrap(),
        }]
    });
    let key = BitString::from_bytes(&[0; 65]).unwrap();
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::from(1_u8),
        signature: algorithm.clone(),
        issuer: "CN=Clients".parse().unwrap(),
        validity: Validity::from_now(std::time::Duration::from_hours(1)).unwrap(),
        subject: "CN=admin.example.com".parse().unwrap(),
        subject_public_key_info: SubjectPublicKeyInfoOwned {
            algorithm: algorithm.clone(),
            subject_public_key: key.clone(),
        },
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions,
    };
    Certificate { tbs_certificate, signature_algorithm: algorithm, signature: key }.to_der().unwrap()
}

/// A leaf that names a SPIFFE ID.
pub fn a_leaf() -> Vec<u8> {
    leaf(Some(vec![uri("spiffe://example.org/ci")]))
}

fn uri(text: &str) -> GeneralName {
    GeneralName::UniformResourceIdentifier(Ia5String::new(text).unwrap())
}

fn dns(text: &str) -> GeneralName {
    GeneralName::DnsName(Ia5String::new(text).unwrap())
}

#[test]
fn names_of_a_certificate() {
    let email = GeneralName::Rfc822Name(Ia5String::new("jo@example.com").unwrap());
    let table: Vec<(Option<Vec<GeneralName>>, Option<&str>)> = vec![
        (Some(vec![uri("spiffe://example.org/ci")]), Some("spiffe://example.org/ci")),
        (
            Some(vec![dns("a.example.com"), uri("spiffe://example.org/ci"), uri("https://x/y")]),
            Some("spiffe://example.org/ci"),
        ),
        (Some(vec![uri("https://ci.example.com/job")]), Some("https://ci.example.com/job")),
        (Some(vec![uri("https://ci.example.com/job"), dns("a.example.com")]), Some("https://ci.example.com/job")),
        (Some(vec![dns("CI.example.com")]), Some("dns:ci.example.com")),
        (Some(vec![dns("ci.example.com"), email.clone()]), Some("dns:ci.example.com")),
        (Some(vec![uri("spiffe://example.org/a"), uri("spiffe://example.org/b")]), None),
        (Some(vec![uri("spiffe://example.org/a"), uri("SPIFFE://example.org/b")]), None),
        (Some(vec![uri("spiffe://example.org"), dns("a.example.com")]), None),
        (Some(vec![uri("https://a"), uri("https://b")]), None),
        (Some(vec![uri("https://a"), uri("https://b"), dns("a.example.com")]), None),
        (Some(vec![dns("a.example.com"), dns("b.example.com")]), None),
        (Some(vec![dns("*.example.com")]), None),
        (Some(vec![dns("")]), None),
        (Some(vec![uri("no scheme")]), None),
        // It would be taken for the host.
        (Some(vec![uri("dns:ci.example.com")]), None),
        (Some(vec![uri("DNS:ci.example.com")]), None),
        (Some(vec![email]), None),
        (Some(vec![]), None),
        (None, None),
    ];
    for (names, wanted) in table {
        let answer = peer_identity(&leaf(names.clone()), "urn:x", Timestamp::now());
        match (answer, wanted) {
            (Ok(identity), Some(subject)) => {
                assert_eq!((identity.subject.as_str(), identity.issuer.as_str()), (subject, "urn:x"));
            }
            (Err(Refusal::Certificate(_)), None) => {}
            (answer, wanted) => panic!("{names:?}: {answer:?}, wanted {wanted:?}"),
        }
    }
}

#[test]
fn times_and_bytes_of_a_certificate() {
    let now = Timestamp::now();
    let leaf = leaf(Some(vec![uri("spiffe://example.org/ci")]));
    peer_identity(&leaf, "urn:x", after(now, 3_500)).unwrap();
    assert_eq!(peer_identity(&leaf, "urn:x", after(now, 3_700)), Err(Refusal::Expired));
    assert_eq!(peer_identity(&leaf, "urn:x", after(now, -60)), Err(Refusal::NotYetValid));
    for bytes in [&leaf[..leaf.len() - 1], &[leaf.as_slice(), &[0]].concat(), b"", b"hunter2"] {
        assert!(matches!(peer_identity(bytes, "urn:x", now), Err(Refusal::Certificate(_))));
    }
    assert_eq!(peer_identity(&vec![0; 70_000], "urn:x", now), Err(Refusal::TooLarge));
}

#[tokio::test]
async fn a_token_wins_over_a_certificate() {
    let issuer = Issuer::start().await;
    let mut settings: Settings = trusting(&issuer);
    settings.rules.push(Rule {
        issuer: settings.mtls_issuer.clone(),
        subject: "spiffe://example.org/ci".to_owned(),
        claims: [].into(),
        roles: vec![Role::Auditor],
        keys: vec![],
    });
    settings.rules[0].issuer = issuer.url().to_owned();
    let authenticator = Authenticator::new(&settings).unwrap();
    let peer = Some(leaf(Some(vec![uri("spiffe://example.org/ci")])));
    let bearer = |sub: &str| Some(issuer.token(json!({ "sub": sub })));
    let now = Timestamp::now();
    let ask = |credentials| authenticator.authenticate(credentials, now);

    let caller = ask(Credentials { bearer: None, peer: peer.clone() }).await.unwrap();
    assert_eq!(
        (caller.identity.issuer.as_str(), caller.roles.contains(&Role::Auditor)),
        ("urn:countersign:mtls", true)
    );
    let caller = ask(Credentials { bearer: bearer("spiffe://example.org/x"), peer: peer.clone() }).await.unwrap();
    assert_eq!(caller.identity.issuer, issuer.url());
    let answer = ask(Credentials { bearer: Some("bad".to_owned()), peer }).await;
    assert!(matches!(answer, Err(Refusal::Malformed(_))), "a bad token is not rescued by a good certificate");
    let other = leaf(Some(vec![dns("other.example.com")]));
    let answer = ask(Credentials { bearer: None, peer: Some(other) }).await;
    assert!(matches!(answer, Err(Refusal::NoRole { .. })), "{answer:?}");
}
