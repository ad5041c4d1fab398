//! The ways to show that one holds a key: each kind of key, over the claims that clients sign, and by request.

use countersign::{
    identity::SubjectForm,
    issuing::IssuingError,
    log::Draft,
    model::{
        Digest, Identity, Rejection, Scheme, Signer, Statement, Subject, TrustedRoot, bundle,
        certificate_request::{CertificateRequest, CertificateRequestError},
        leaf, limits,
        possession::{EncodedKey, Possession},
        predicate,
        verify::{verify, verify_with_key},
    },
};
use der::Encode as _;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::{House, Key, SUB, sub};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_key_gets_a_logged_certificate() {
    let house = House::new(SubjectForm::Uri).await;
    for scheme in Scheme::ALL {
        let key = Key::new(scheme);
        let issued = house.ask(sub(), key.proof(SUB)).await.unwrap();
        house.check(&issued.chain, issued.entry.index, &key, SUB.as_bytes());

        let der = Possession::Proof { key: EncodedKey::Der(key.spki.clone()), signature: key.sign(SUB.as_bytes()) };
        let issued = house.ask(sub(), der).await.unwrap();
        house.check(&issued.chain, issued.entry.index, &key, SUB.as_bytes());

        let request = key.request(|_| ());
        let by_request = house.ask(sub(), Possession::Request(super::csr(&request))).await;
        if scheme == Scheme::Ed25519Ph {
            let refused = by_request.unwrap_err();
            let unlogged = CertificateRequestError::NotPrehashed;
            assert!(matches!(&refused, IssuingError::Request(error) if *error == unlogged), "{refused:?}");
            continue;
        }
        let issued = by_request.unwrap();
        house.check(&issued.chain, issued.entry.index, &key, &request.info.to_der().unwrap());
    }
    assert_eq!(house.log.size(), 1 + 3 * 6 + 2, "an entry for each");
    assert_eq!(house.log.fsck(|_, _| {}).unwrap().findings, Vec::<String>::new());
}

/// Some clients sign the e-mail address wherever a token has one, others `sub` wherever they do not know the issuer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_may_be_over_either_claim_of_the_token() {
    let by_address = House::new(SubjectForm::Email).await;
    let by_uri = House::new(SubjectForm::Uri).await;
    let address = "alice@example.org";
    let claims = json!({ "sub": SUB, "email": address, "email_verified": true });
    let key = Key::p256();
    for house in [&by_address, &by_uri] {
        for text in [address, SUB] {
            let issued = house.ask(claims.clone(), key.proof(text)).await.unwrap();
            house.check(&issued.chain, issued.entry.index, &key, text.as_bytes());
        }
        for other in ["bob@example.org", "", "alice@example.org ", "Alice@example.org"] {
            let refused = house.ask(claims.clone(), key.proof(other)).await.unwrap_err();
            assert!(matches!(refused, IssuingError::Proof { .. }), "{other:?}: {refused:?}");
            assert!(refused.to_string().contains("email") && refused.to_string().contains("SHA-256"), "{refused}");
        }
    }
    // A token without either: nothing can be proven, so only a request is left.
    let house = House::new(SubjectForm::Gitlab).await;
    let claims = json!({ "ci_config_ref_uri": "gitlab.com/o/r//.gitlab-ci.yml@refs/heads/main" });
    let refused = house.ask(claims.clone(), key.proof("")).await.unwrap_err();
    assert!(matches!(refused, IssuingError::NoChallenge), "{refused:?}");
    house.ask(claims, Possession::Request(key.csr())).await.unwrap();
}

/// What is in the certificate is enough for the rest of the way: the holder signs, logs, and everybody verifies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_holder_signs_verifies() {
    for (form, claims, subject) in [
        (SubjectForm::Uri, sub(), SUB),
        (
            SubjectForm::Email,
            json!({ "sub": "1", "email": "alice@example.org", "email_verified": true }),
            "alice@example.org",
        ),
        (SubjectForm::Username, json!({ "sub": "alice" }), "alice!example.org"),
    ] {
        let house = House::with(|settings| {
            settings.subject = form;
            settings.subject_domain = (form == SubjectForm::Username).then(|| "example.org".to_owned());
        })
        .await;
        let key = Key::p256();
        let issued = house.ask(claims, Possession::Request(key.csr())).await.unwrap();
        let certificate = super::unpem(&issued.chain[0]);
        let digest = Digest::of(b"artifact");
        let signature = key.sign(b"artifact");
        let stamp = house.keys.timestamp(&signature, Timestamp::now()).unwrap();
        let leaf = leaf::hashedrekord(&digest, &signature, &certificate);
        let unlogged = bundle::of_file(&digest, signature, certificate, stamp);
        let receipts = house.log.append(vec![Draft { leaf: leaf.clone(), payload: Vec::new() }]).await.unwrap();
        let bundle = house.log.complete(unlogged, leaf, &receipts[0]).unwrap();
        let root = TrustedRoot::parse(&house.keys.trusted_root()).unwrap();
        let verified = verify(&bundle, &digest, &root).unwrap();
        let wanted = Identity { subject: subject.to_owned(), issuer: house.issuer.url().to_owned() };
        assert_eq!(*verified.signer(), Signer::Identity(wanted));
    }
}

/// Of two kinds of key the verifier knows nothing: that is what it says, and not that the signature is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_holder_of_any_key_signs_verifies_or_is_said_not_to_be_known() {
    let house = House::new(SubjectForm::Uri).await;
    let root = TrustedRoot::parse(&house.keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    let subject = Subject { name: "artifact".to_owned(), digest };
    let statement = Statement::new(vec![subject], predicate::SIGN, json!({})).unwrap().to_json();
    let encoded = bundle::pae(&statement);
    for scheme in Scheme::ALL {
        let key = Key::new(scheme);
        let issued = house.ask(sub(), key.proof(SUB)).await.unwrap();
        let certificate = super::unpem(&issued.chain[0]);
        let signature = key.sign(&encoded);
        let stamp = house.keys.timestamp(&signature, Timestamp::now()).unwrap();
        let hint = bundle::Material::Key { hint: "any".to_owned() };
        for (verifier, material) in [
            (leaf::Verifier::Certificate(&certificate), bundle::Material::Certificate(certificate.clone())),
            (leaf::Verifier::Key(&key.spki), hint),
        ] {
            let by_key = matches!(verifier, leaf::Verifier::Key(_));
            let leaf = leaf::entry(scheme, &scheme.digest(&encoded), &signature, verifier);
            let unlogged = bundle::of_statement(statement.clone(), signature.clone(), material, stamp.clone());
            let receipts = house.log.append(vec![Draft { leaf: leaf.clone(), payload: Vec::new() }]).await.unwrap();
            let bundle = house.log.complete(unlogged, leaf, &receipts[0]).unwrap();
            let verified = if by_key {
                verify_with_key(&bundle, &digest, &root, &key.pem())
            } else {
                verify(&bundle, &digest, &root)
            };
            match (scheme, verified) {
                (Scheme::P521Sha512 | Scheme::Ed25519Ph, Err(Rejection::Unsupported(said))) => {
                    assert!(said.contains(scheme.details()), "{said}");
                }
                (Scheme::P521Sha512 | Scheme::Ed25519Ph, other) => panic!("{scheme:?}, by key {by_key}: {other:?}"),
                (_, verified) => assert_eq!(verified.unwrap().key(), Digest::of(&key.spki), "{scheme:?}"),
            }
        }
    }
}

/// A token is good for its whole life: each use is a certificate and an entry of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_may_be_used_again() {
    let house = House::new(SubjectForm::Uri).await;
    let token = house.issuer.token(sub());
    let key = Key::p256();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let now = Timestamp::now();
        let principal = house.issuing.admit(&token, now).await.unwrap();
        let issued = house.issuing.issue(principal, key.proof(SUB), now).await.unwrap();
        house.check(&issued.chain, issued.entry.index, &key, SUB.as_bytes());
        assert!(seen.insert(issued.chain[0].clone()) && seen.insert(issued.entry.to_string()));
    }
}

/// The log takes nothing: so nothing is handed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_certificate_is_answered_that_is_not_in_the_log() {
    let house = House::new(SubjectForm::Uri).await;
    house.log.close();
    let refused = house.ask(sub(), Key::p256().proof(SUB)).await.unwrap_err();
    assert!(matches!(refused, IssuingError::Log(_)), "{refused:?}");
    assert_eq!(house.log.size(), 1);
}

/// Every bit of a request counts, or is not part of it: what still parses says the same.
#[test]
fn every_changed_byte_of_a_request_is_refused() {
    let key = Key::p256();
    let der = key.request(|_| ()).to_der().unwrap();
    let whole = CertificateRequest::from_der(&der).unwrap();
    assert_eq!((whole.key().spki(), whole.digest().len()), (key.spki.as_slice(), 32));
    let mut reasons = std::collections::BTreeMap::<String, usize>::new();
    for at in 0..der.len() {
        for bit in 0..8 {
            let mut changed = der.clone();
            changed[at] ^= 1 << bit;
            match CertificateRequest::from_der(&changed) {
                Ok(_) => panic!("byte {at}, bit {bit} is not noticed"),
                Err(refused) => {
                    let name = format!("{refused:?}");
                    *reasons.entry(name.split('(').next().unwrap().to_owned()).or_default() += 1;
                }
            }
        }
    }
    let names: Vec<_> = reasons.keys().map(String::as_str).collect();
    assert_eq!(names, ["Algorithm", "Key", "Malformed", "Signature"], "{reasons:?}");
    for cut in 0..der.len() {
        assert!(CertificateRequest::from_der(&der[..cut]).is_err());
    }
    let trailing = [der.as_slice(), &[0]].concat();
    assert_eq!(CertificateRequest::from_der(&trailing), Err(CertificateRequestError::Malformed));
}

/// What stands in the wrong place, although the key's holder signed it there.
#[test]
fn a_request_has_its_parts_in_their_places() {
    let key = Key::p256();
    let sequence = |parts: &[&[u8]]| der::Any::new(der::Tag::Sequence, parts.concat()).unwrap().to_der().unwrap();
    let signed = |version: u8, subject: &[u8], attributes: &[u8]| {
        let info = sequence(&[&[0x02, 0x01, version], subject, &key.spki, attributes]);
        let signature = der::asn1::BitString::from_bytes(&key.sign(&info)).unwrap().to_der().unwrap();
        let algorithm = key.request(|_| ()).algorithm.to_der().unwrap();
        CertificateRequest::from_der(&sequence(&[&info, &algorithm, &signature]))
    };
    let (nobody, none) = ([0x30, 0x00], [0xa0, 0x00]);
    signed(0, &nobody, &none).unwrap();
    for (version, subject, attributes) in [
        (1, nobody, none),
        (0, [0x31, 0x00], none),
        (0, [0x05, 0x00], none),
        (0, nobody, [0xa1, 0x00]),
        (0, nobody, [0x80, 0x00]),
        (0, nobody, [0x31, 0x00]),
    ] {
        assert_eq!(signed(version, &subject, &attributes), Err(CertificateRequestError::Malformed));
    }
    assert_eq!(signed(0, &nobody, &[]), Err(CertificateRequestError::Malformed));
    assert_eq!(signed(0, &nobody, &[0xa0, 0x00, 0x05, 0x00]), Err(CertificateRequestError::Malformed));
    let large = vec![0x30; limits::CERTIFICATE_REQUEST + 1];
    assert_eq!(CertificateRequest::from_der(&large), Err(CertificateRequestError::TooLarge(large.len())));
}

proptest! {
    #[test]
    fn strange_requests(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(CertificateRequest::from_der(&bytes).is_err());
        prop_assert!(CertificateRequest::from_pem(&bytes).is_err());
        let framed = super::pem("CERTIFICATE REQUEST", &bytes);
        prop_assert!(CertificateRequest::from_pem(framed.as_bytes()).is_err());
    }
}
