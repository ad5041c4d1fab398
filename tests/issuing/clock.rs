//! A clock outside of the life of our certificates: nothing is issued, signed or stamped that nobody would believe, and
//! nothing of it is logged.

use std::{sync::Arc, time::Duration};

use countersign::{
    identity::SubjectForm,
    issuing::IssuingError,
    keys::KeyError,
    model::{Digest, Identity, stamp_refusal::Failure},
    registry::{Registry, Settings},
    signing::{Content, Signing, SigningError},
    sigstore::Refusal,
};
use jiff::{SignedDuration, Timestamp};
use tonic::Code;

use super::{House, Key, SUB, sub};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_that_nobody_would_believe() {
    let house = House::new(SubjectForm::Uri).await;
    let registry = Registry::new(Settings::default()).unwrap();
    let signing = Signing::new(Arc::clone(&house.keys), house.log.clone(), registry);
    let identity = Identity { subject: SUB.to_owned(), issuer: "https://issuer.example".to_owned() };
    let now = Timestamp::now();
    let principal = house.issuing.admit(&house.issuer.token(sub()), now).await.unwrap();
    let before = house.log.size();
    for outside in [now - SignedDuration::from_hours(24), now + SignedDuration::from_hours(24 * 3_660)] {
        let (key, asked) = (Key::p256(), principal.clone());
        let refused = house.issuing.issue(asked, key.proof(SUB), outside).await.unwrap_err();
        assert!(matches!(&refused, IssuingError::Authority(KeyError::OutOfLife { .. })), "{refused:?}");
        let refusal = Refusal::from(refused);
        assert_eq!((refusal.code(), refusal.reason()), (Code::Unavailable, "CLOCK_OUT_OF_RANGE"));
        assert!(refusal.to_string().contains("correct the clock"), "{refusal}");

        let refused = signing.sign(vec![Content::File(Digest::of(b"file"))], &identity, outside).await.unwrap_err();
        assert!(matches!(refused, SigningError::Key(KeyError::OutOfLife { whose: "signing", .. })), "{refused:?}");

        let refused = house.keys.timestamp(b"signature", outside).unwrap_err();
        assert!(matches!(refused, KeyError::OutOfLife { whose: "time-stamp", .. }), "{refused:?}");
        match house.keys.stamp_request(&query(), outside) {
            Err(KeyError::Request(refused)) => assert_eq!(refused.failure, Failure::TimeNotAvailable),
            other => panic!("{other:?}"),
        }
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(house.log.size(), before, "nothing of it was logged");
    house.issuing.issue(principal, Key::p256().proof(SUB), now).await.expect("now it is right");
}

/// A request for a stamp over SHA-256.
fn query() -> Vec<u8> {
    use der::Encode as _;
    let imprint = x509_tsp::MessageImprint {
        hash_algorithm: spki::AlgorithmIdentifierOwned {
            oid: "2.16.840.1.101.3.4.2.1".parse().unwrap(),
            parameters: None,
        },
        hashed_message: der::asn1::OctetString::new([7; 32]).unwrap(),
    };
    let request = x509_tsp::TimeStampReq {
        version: x509_tsp::TspVersion::V1,
        message_imprint: imprint,
        req_policy: None,
        nonce: None,
        cert_req: false,
        extensions: None,
    };
    request.to_der().unwrap()
}
