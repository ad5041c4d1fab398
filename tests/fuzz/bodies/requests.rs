//! What clients of the Sigstore faces send: entries, certificate requests, requests for a time-stamp.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use const_oid::db::rfc5912::{ID_SHA_256, ID_SHA_384, ID_SHA_512};
use countersign::model::{
    certificate_request::CertificateRequest,
    limits,
    possession::{EncodedKey, Possession, PossessionError},
    public_key::PublicKey,
    stamp_refusal::Failure,
    stamp_request::{self, POLICY, StampJsonError, StampRequest},
    submission::{Key, Signed, Submission},
};
use der::{
    Decode as _, Encode as _,
    asn1::{Int, OctetString},
};
use serde_json::{Value, json};
use x509_tsp::TimeStampReq;

use super::refused;

/// RFC 2986: a request that is accepted is signed by the key in it, and says no other key. DER and PEM are one request.
pub fn certificate_request(data: &[u8]) -> bool {
    let request = match CertificateRequest::from_der(data) {
        Ok(request) => request,
        Err(error) => return refused(&error),
    };
    let key = PublicKey::from_spki(request.key().spki()).expect("a key that was read");
    assert_eq!(key.verify_digest(request.digest(), request.signature()), Ok(()));
    assert!(data.windows(key.spki().len()).any(|part| part == key.spki()));
    if let Ok(pem) = der::pem::encode_string("CERTIFICATE REQUEST", der::pem::LineEnding::CRLF, data)
        && pem.len() <= limits::CERTIFICATE_REQUEST
    {
        assert_eq!(CertificateRequest::from_pem(pem.as_bytes()), Ok(request));
    }
    true
}

/// What the keys of the golden requests signed: a file, and the envelope of a statement with this text.
const FILE: &[u8] = b"artifact";
const ENVELOPE: (&str, &[u8]) = ("application/vnd.in-toto+json", b"{\"_type\":\"https://in-toto.io/Statement/v1\"}");

/// Rekor v2: whichever way a request is spelled, it is the same; and only what somebody signed becomes a leaf, which says
/// just that.
pub fn entry_request(data: &[u8]) -> bool {
    let submission = match Submission::from_json(data) {
        Ok(submission) => submission,
        Err(error) => return refused(&error),
    };
    for again in [entry_as_documented(&submission), entry_as_libraries_do(&submission)] {
        assert_eq!(Submission::from_json(again.to_string().as_bytes()).as_ref(), Ok(&submission));
    }
    let leaf = match submission.leaf() {
        Ok(leaf) => leaf,
        Err(error) => {
            refused(&error);
            return true;
        }
    };
    let scheme = submission.scheme();
    let digest = scheme.digest(&match submission.signed() {
        Signed::Digest(_) => FILE.to_vec(),
        Signed::Envelope { .. } => sigstore_types::pae(ENVELOPE.0, ENVELOPE.1),
    });
    let (kind, der) = match submission.key() {
        Key::Certificate(der) => ("x509Certificate", der),
        Key::Public(der) => ("publicKey", der),
    };
    let wanted = json!({
        "apiVersion": "0.0.2", "kind": "hashedrekord",
        "spec": { "hashedRekordV002": {
            "data": { "algorithm": scheme.hash(), "digest": STANDARD.encode(digest) },
            "signature": {
                "content": STANDARD.encode(submission.signature()),
                "verifier": { "keyDetails": scheme.details(), kind: { "rawBytes": STANDARD.encode(der) } },
            },
        } },
    });
    assert_eq!(serde_json::from_slice::<Value>(&leaf).expect("a leaf is JSON"), wanted);
    true
}

/// Names in camel case, base64 with padding, the scheme by its name.
fn entry_as_documented(submission: &Submission) -> Value {
    let (kind, der) = match submission.key() {
        Key::Certificate(der) => ("x509Certificate", der),
        Key::Public(der) => ("publicKey", der),
    };
    let verifier = json!({ "keyDetails": submission.scheme().details(), kind: { "rawBytes": STANDARD.encode(der) } });
    let signature = STANDARD.encode(submission.signature());
    match submission.signed() {
        Signed::Digest(digest) => json!({ "hashedRekordRequestV002": {
            "digest": STANDARD.encode(digest), "signature": { "content": signature, "verifier": verifier },
        } }),
        Signed::Envelope { kind, payload } => json!({ "dsseRequestV002": {
            "envelope": {
                "payloadType": kind, "payload": STANDARD.encode(payload), "signatures": [{ "sig": signature }],
            },
            "verifiers": [verifier],
        } }),
    }
}

/// Names in snake case, base64 for URLs, the scheme by its number, and fields that nobody knows.
fn entry_as_libraries_do(submission: &Submission) -> Value {
    let (kind, der) = match submission.key() {
        Key::Certificate(der) => ("x509_certificate", der),
        Key::Public(der) => ("public_key", der),
    };
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let verifier =
        json!({ "key_details": submission.scheme().number(), kind: { "raw_bytes": encode(der), "new": [1] } });
    let signature = encode(submission.signature());
    match submission.signed() {
        Signed::Digest(digest) => json!({ "new": {}, "hashed_rekord_request_v002": {
            "digest": encode(digest), "signature": { "content": signature, "verifier": verifier },
        } }),
        Signed::Envelope { kind, payload } => json!({ "new": null, "dsse_request_v002": {
            "envelope": {
                "payload_type": kind, "payload": encode(payload), "signatures": [{ "sig": signature, "keyid": "" }],
            },
            "verifiers": [verifier],
        } }),
    }
}

/// What may be said of a request for a certificate that cannot be read: fixed words, a line and a column. So no token is
/// ever in it.
fn says_nothing_of_the_body(error: PossessionError) -> bool {
    let fixed = match error {
        PossessionError::NotJson { line, column } => {
            format!("the body is not JSON (line {line}, column {column})")
        }
        PossessionError::Kind { line, column } => {
            format!("the body has a field of the wrong kind (line {line}, column {column})")
        }
        PossessionError::Both => {
            "both publicKeyRequest and certificateSigningRequest are given; send one of them".to_owned()
        }
        PossessionError::Neither => {
            "neither publicKeyRequest nor certificateSigningRequest is given; send one of them".to_owned()
        }
        PossessionError::NeitherV1 => {
            "neither publicKey.content nor certificateSigningRequest is given; send one of them".to_owned()
        }
        PossessionError::NoKey => "publicKeyRequest.publicKey.content is missing; send the key in PEM".to_owned(),
    };
    assert_eq!(error.to_string(), fixed);
    refused(&error)
}

/// What is shown has a length that can have been sent, and a key that can be read is one key in both its forms.
fn is_shown(possession: &Possession, data: &[u8]) {
    match possession {
        Possession::Request(csr) => {
            assert!(!csr.is_empty() && csr.len() < data.len());
            if let Err(error) = CertificateRequest::from_pem(csr) {
                refused(&error);
            }
        }
        Possession::Proof { key, signature } => {
            assert!(signature.len() < data.len());
            let read = match key {
                EncodedKey::Pem(pem) => PublicKey::from_pem(pem),
                EncodedKey::Der(der) => PublicKey::from_spki(der),
            };
            match read {
                Ok(key) => assert_eq!(PublicKey::from_spki(key.spki()), Ok(key)),
                Err(error) => _ = refused(&error),
            }
        }
    }
}

/// Fulcio, version 2: whichever way a request is spelled, it is the same; a token is not empty, and no refusal shows one.
pub fn possession(data: &[u8]) -> bool {
    let (token, possession) = match Possession::from_json(data) {
        Ok(read) => read,
        Err(error) => return says_nothing_of_the_body(error),
    };
    assert!(token.as_ref().is_none_or(|token| !token.is_empty() && token.len() < data.len()));
    is_shown(&possession, data);
    let camel = match &possession {
        Possession::Request(csr) => json!({
            "credentials": { "oidcIdentityToken": token }, "certificateSigningRequest": STANDARD.encode(csr),
        }),
        Possession::Proof { key, signature } => json!({
            "credentials": { "oidcIdentityToken": token },
            "publicKeyRequest": {
                "publicKey": { "algorithm": "ECDSA", "content": content(key, |der| STANDARD.encode(der)) },
                "proofOfPossession": STANDARD.encode(signature),
            },
            "certificateSigningRequest": "",
        }),
    };
    let snake = match &possession {
        Possession::Request(csr) => json!({
            "credentials": { "oidc_identity_token": token }, "certificate_signing_request": URL_SAFE_NO_PAD.encode(csr),
        }),
        Possession::Proof { key, signature } => json!({
            "new": 1,
            "credentials": { "oidc_identity_token": token },
            "public_key_request": {
                "public_key": { "content": content(key, |der| URL_SAFE_NO_PAD.encode(der)) },
                "proof_of_possession": URL_SAFE_NO_PAD.encode(signature),
            },
        }),
    };
    let wanted = (token, possession);
    for again in [camel, snake] {
        assert_eq!(Possession::from_json(again.to_string().as_bytes()).as_ref(), Ok(&wanted));
    }
    true
}

fn content(key: &EncodedKey, encode: impl Fn(&[u8]) -> String) -> String {
    match key {
        EncodedKey::Pem(pem) => pem.clone(),
        EncodedKey::Der(der) => encode(der),
    }
}

/// Fulcio, version 1: as for [`possession`].
pub fn possession_v1(data: &[u8]) -> bool {
    let possession = match Possession::from_json_v1(data) {
        Ok(possession) => possession,
        Err(error) => return says_nothing_of_the_body(error),
    };
    is_shown(&possession, data);
    let (camel, snake) = match &possession {
        Possession::Request(csr) => (
            json!({ "certificateSigningRequest": STANDARD.encode(csr), "signedEmailAddress": "" }),
            json!({ "certificate_signing_request": URL_SAFE_NO_PAD.encode(csr), "new": [] }),
        ),
        Possession::Proof { key, signature } => {
            let key = match key {
                EncodedKey::Pem(pem) => pem.as_bytes(),
                EncodedKey::Der(der) => der,
            };
            (
                json!({
                    "publicKey": { "content": STANDARD.encode(key) }, "signedEmailAddress": STANDARD.encode(signature),
                }),
                json!({
                    "public_key": { "content": URL_SAFE_NO_PAD.encode(key), "algorithm": "ecdsa" },
                    "signed_email_address": URL_SAFE_NO_PAD.encode(signature),
                }),
            )
        }
    };
    for again in [camel, snake] {
        assert_eq!(Possession::from_json_v1(again.to_string().as_bytes()).as_ref(), Ok(&possession));
    }
    true
}

/// RFC 3161: what is acceptable is short, asks for a stamp on a digest that fits its hash, and carries these bytes; with
/// one thing changed it is not acceptable. What is not is answered with a rejection, in DER, that says so.
pub fn stamp_request(data: &[u8]) -> bool {
    let read = StampRequest::from_der(data).and_then(|request| Ok((request.imprint()?, request)));
    let (imprint, request) = match read {
        Ok(read) => read,
        Err(refusal) => {
            let reply = refusal.reply().expect("a reply");
            // A sequence in a sequence, and then the status: rejection.
            assert_eq!((reply[0], reply[2], &reply[4..7]), (0x30, 0x30, [2, 1, 2].as_slice()));
            assert!(reply.windows(refusal.problem.len()).any(|part| part == refusal.problem.as_bytes()));
            return refused(&refusal);
        }
    };
    assert!(data.len() <= limits::STAMP_REQUEST);
    let length = match imprint.hash() {
        ID_SHA_256 => 32,
        ID_SHA_384 => 48,
        ID_SHA_512 => 64,
        other => panic!("{other} is no hash"),
    };
    assert_eq!(imprint.digest().len(), length);
    assert!(data.windows(length).any(|part| part == imprint.digest()));
    if let Some(nonce) = request.nonce() {
        assert!((1..=limits::NONCE).contains(&nonce.as_bytes().len()), "{nonce:?}");
        assert!(data.windows(nonce.as_bytes().len()).any(|part| part == nonce.as_bytes()));
    }
    for (failure, changed) in spoiled(&TimeStampReq::from_der(data).expect("a request")) {
        let der = changed.to_der().expect("DER");
        let read = StampRequest::from_der(&der).and_then(|request| request.imprint());
        assert_eq!(read.map_err(|refusal| refusal.failure), Err(failure));
    }
    true
}

/// A request with one thing changed, each time another, and what is wrong with it then.
fn spoiled(request: &TimeStampReq) -> [(Failure, TimeStampReq); 4] {
    let [mut nonce, mut policy, mut digest, mut hash] = [(); 4].map(|()| request.clone());
    nonce.nonce = Some(Int::new(&[1; limits::NONCE + 1]).expect("a number"));
    policy.req_policy = Some(ID_SHA_256);
    let longer = [digest.message_imprint.hashed_message.as_bytes(), b"x"].concat();
    digest.message_imprint.hashed_message = OctetString::new(longer).expect("octets");
    hash.message_imprint.hash_algorithm.oid = POLICY;
    [
        (Failure::BadRequest, nonce),
        (Failure::UnacceptedPolicy, policy),
        (Failure::BadDataFormat, digest),
        (Failure::BadAlgorithm, hash),
    ]
}

/// The same in JSON: the DER that it becomes asks for what the JSON says, and is refused for its policy or its digest
/// alone.
pub fn stamp_request_json(data: &[u8]) -> bool {
    let query = match stamp_request::der_of_json(data) {
        Ok(query) => query,
        Err(StampJsonError::Asn1(error)) => panic!("a failure of ours: {error}"),
        Err(error) => return refused(&error),
    };
    // Fields that are passed over may hold what makes no value: a number out of range, half of a character.
    let Ok(said) = serde_json::from_slice::<Value>(data) else { return true };
    let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
    let hash = text("hashAlgorithm").to_ascii_lowercase();
    let length = hash.strip_prefix("sha").and_then(|bits| bits.parse::<usize>().ok()).expect("a hash") / 8;
    let digest = text("artifactHash").trim_end_matches('=').replace('+', "-").replace('/', "_");
    let digest = URL_SAFE_NO_PAD.decode(digest);
    let policy = text("tsaPolicyOID");
    let fits = digest.as_ref().is_ok_and(|digest| digest.len() == length);
    let ours = policy.is_empty() || policy == POLICY.to_string();
    let request = StampRequest::from_der(&query);
    assert_eq!(request.is_ok(), ours && query.len() <= limits::STAMP_REQUEST, "{request:?}");
    let Ok(request) = request else { return false };
    assert_eq!(request.imprint().is_ok(), fits);
    assert_eq!(request.wants_certificate(), said.get("certificates").and_then(Value::as_bool).unwrap_or_default());
    let nonce = said.get("nonce").and_then(Value::as_u64);
    let repeated =
        request.nonce().map(|nonce| nonce.as_bytes().iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
    assert_eq!(repeated, nonce);
    let Ok(imprint) = request.imprint() else { return false };
    assert_eq!(Ok(imprint.digest()), digest.as_deref());
    stamp_request(&query)
}
