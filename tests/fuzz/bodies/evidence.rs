//! What is found as evidence, and where: bundles, cosign's legacy layout, statements, certificates; whom we believe; images
//! and what their registries ask.

use std::sync::OnceLock;

use countersign::model::{
    bundle as bundles,
    certificate::{describe, extensions_of, identity_of, is_signed_by},
    challenge::Challenge,
    digest::Digest,
    facts::{self, Facts},
    identity::Identity,
    image::{ImageName, ImageRef},
    legacy::{Kind, Legacy},
    limits,
    statement::Statement,
    trusted_root::TrustedRoot,
    verify::{self, Signer, Verified, parse_bundle, verify_legacy},
};
use serde_json::Value;
use sigstore_types::Bundle;

use super::{refused, text};

/// The root under which the golden signatures were made, by [`SIGNER`] and about [`IMAGE`] alone.
const ROOT: &str = include_str!("../../golden/model/trusted_root/ours.json");
const SIGNER: (&str, &str) = ("spiffe://countersign.test/ci", "https://countersign.test");
const IMAGE: &[u8] = b"image";

fn root() -> &'static TrustedRoot {
    static PARSED: OnceLock<TrustedRoot> = OnceLock::new();
    PARSED.get_or_init(|| TrustedRoot::parse(ROOT).expect("a root"))
}

/// Nobody forges: what verifies is what the golden signer said.
fn is_golden(verified: &Verified) {
    let signer = Identity { subject: SIGNER.0.to_owned(), issuer: SIGNER.1.to_owned() };
    assert_eq!(verified.signer(), &Signer::Identity(signer));
    let statement = verified.statement();
    assert!(statement.subjects().iter().all(|subject| subject.digest == Digest::of(IMAGE)), "{statement:?}");
    let (kind, said) = (statement.predicate_type(), statement.predicate().to_string());
    let known = [("https://example.com/reviewed/v1", r#"{"by":"two"}"#), (countersign::model::predicate::SIGN, "{}")];
    assert!(known.contains(&(kind, said.as_str())), "{statement:?}");
    assert!(verified.log().is_some() && verified.signed_at().is_some());
}

/// What a bundle may be verified about, by its own words.
fn subject_of(bundle: &Bundle) -> Digest {
    let said = verify::unverified_statement(bundle).ok();
    said.and_then(|said| Some(said.subjects().first()?.digest)).unwrap_or_else(|| Digest::of(IMAGE))
}

/// Sigstore bundles: what parses is written as one that parses to the same, and verifies only if it is a golden one.
pub fn bundle(data: &[u8]) -> bool {
    let read = match parse_bundle(data) {
        Ok(read) => read,
        Err(rejection) => return refused(&rejection),
    };
    // What the library reads and does not write (a number out of range) is a matter of its own.
    if let Ok(printed) = bundles::to_json(&read) {
        let again = parse_bundle(&printed).expect("what was written can be read");
        assert_eq!(bundles::to_json(&again).as_ref(), Ok(&printed));
    }
    match verify::verify(data, &subject_of(&read), root()) {
        Ok(verified) => is_golden(&verified),
        Err(rejection) => _ = refused(&rejection),
    }
    true
}

/// One layer: a line with `signature` or `attestation`, a line with the annotations in JSON, and the payload.
fn layer(data: &[u8]) -> Option<Legacy> {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let kind = match parts.next()? {
        b"signature" => Kind::Signature,
        b"attestation" => Kind::Attestation,
        _ => return None,
    };
    let annotations = serde_json::from_slice(parts.next()?).ok()?;
    let payload = parts.next()?.to_vec();
    Some(Legacy { kind, layer: Digest::of(&payload).to_string(), payload, annotations, problem: None })
}

/// Cosign's legacy layout: a layer that holds enough becomes a bundle that others can read; its document is read as any
/// reader of JSON would; and it verifies only if it is a golden one.
pub fn legacy(data: &[u8]) -> bool {
    let Some(layer) = layer(data) else { return false };
    let claim = layer.claim();
    match &claim {
        Ok(claim) => {
            // Fields that are passed over may hold what makes no value: a number out of range, half of a character.
            if let Ok(document) = serde_json::from_slice::<Value>(&layer.payload) {
                let digest = document.pointer("/critical/image/docker-manifest-digest").and_then(Value::as_str);
                assert_eq!(digest, Some(claim.digest.to_string().as_str()));
            }
        }
        Err(rejection) => _ = refused(rejection),
    }
    let bundle = match layer.bundle() {
        Ok(bundle) => bundle,
        Err(rejection) => return refused(&rejection),
    };
    let printed = bundles::to_json(&bundle).expect("a bundle");
    let again = parse_bundle(&printed).expect("what was written can be read");
    assert_eq!(bundles::to_json(&again), Ok(printed));
    let subject = match (layer.kind, &claim) {
        (Kind::Signature, Ok(claim)) => claim.digest,
        _ => subject_of(&bundle),
    };
    match verify_legacy(&layer, &subject, root()) {
        Ok(verified) => is_golden(&verified),
        Err(rejection) => _ = refused(&rejection),
    }
    true
}

/// In-toto statements: what parses is written as one that parses to the same, within the limits.
pub fn statement(data: &[u8]) -> bool {
    let statement = match Statement::parse(data) {
        Ok(statement) => statement,
        Err(error) => return refused(&error),
    };
    assert_eq!(Statement::parse(&statement.to_json()).as_ref(), Ok(&statement));
    assert!((1..=limits::SUBJECTS).contains(&statement.subjects().len()));
    for subject in statement.subjects() {
        assert!(subject.name.len() <= limits::NAME && statement.names(&subject.digest));
    }
    assert!(statement.predicate().is_object() && statement.predicate_type().len() <= limits::URI);
    true
}

/// Certificates: all that reads one says the same of it, what it says is bounded, and the golden authority signed none but
/// its own.
pub fn certificate(data: &[u8]) -> bool {
    let Some(said) = describe(data) else {
        assert_eq!(identity_of(data), None);
        return false;
    };
    assert_eq!((said.identity, said.fingerprint), (identity_of(data), Digest::of(data)));
    assert!(said.serial.len().is_multiple_of(2) && said.serial.bytes().all(|digit| digit.is_ascii_hexdigit()));
    for (_, text) in extensions_of(data).unwrap_or_default().iter() {
        assert!(!text.is_empty() && text.len() <= limits::URI && !text.chars().any(char::is_control), "{text:?}");
    }
    let golden = include_bytes!("../../golden/model/certificate/ours.der");
    for authority in root().authorities() {
        assert!(!is_signed_by(data, authority) || signed_part(data) == signed_part(golden));
    }
    true
}

/// The first element of the outer sequence of a certificate that can be read.
fn signed_part(certificate: &[u8]) -> Option<Vec<u8>> {
    use der::{Decode as _, Encode as _};
    x509_cert::Certificate::from_der(certificate).ok()?.tbs_certificate.to_der().ok()
}

/// Trusted roots: what parses stands in the document, and the document's digest is its name.
pub fn trusted_root(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let root = match TrustedRoot::parse(text) {
        Ok(root) => root,
        Err(error) => return refused(&error),
    };
    assert_eq!(root.digest(), Digest::of(data));
    assert!(data.len() <= limits::DOCUMENT);
    let document: Value = serde_json::from_str(text).expect("it was read as JSON");
    let authorities = document.get("certificateAuthorities").and_then(Value::as_array).map_or(0, Vec::len);
    assert!(root.authorities().len() <= authorities, "more authorities than the document has");
    let golden = include_bytes!("../../golden/model/bundle/ours.json");
    if let Ok(verified) = verify::verify(golden, &Digest::of(IMAGE), &root) {
        assert_eq!(verified.root(), root.digest());
        is_golden(&verified);
    }
    true
}

/// Image references: what parses prints as one that parses to the same, and pinning keeps the name.
pub fn image(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let image: ImageRef = match text.parse() {
        Ok(image) => image,
        Err(error) => return refused(&error),
    };
    let printed = image.to_string();
    // What is left out of a reference is printed (`docker.io/library/`), so a long one may get too long.
    if printed.len() <= limits::NAME {
        assert_eq!(printed.parse().as_ref(), Ok(&image));
    }
    let ImageName { registry, repository } = &image.name;
    assert!(!registry.is_empty() && !repository.is_empty() && image.tag.is_some() | image.digest.is_some());
    let pinned = image.pinned(Digest::of(b""));
    assert_eq!((&pinned.name, &pinned.tag, pinned.digest), (&image.name, &image.tag, Some(Digest::of(b""))));
    true
}

/// Challenges, a header's value in each line: what is asked stands there, and asked for again, as a careful registry
/// writes it, it is the same.
pub fn challenge(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let Some(challenge) = Challenge::parse(text.split('\n')) else { return false };
    let quoted = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let again = match &challenge {
        Challenge::Basic => "basic realm=\"x\"".to_owned(),
        Challenge::Bearer { realm, service } => {
            assert!(realm.len() <= text.len());
            let service =
                service.as_deref().map_or_else(String::new, |service| format!(",service={}", quoted(service)));
            format!("Bearer scope=\"a,realm=b\", realm={}{service}", quoted(realm))
        }
    };
    assert_eq!(Challenge::parse(["Negotiate", &again]).as_ref(), Some(&challenge));
    true
}

/// Log entries: a payload changes nothing of what the leaf says, a leaf alone says no more than its own, each reader of it
/// says the same, and the limits hold.
pub fn facts(data: &[u8]) -> bool {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (leaf, payload) = (&data[..at], data.get(at + 1..));
    let whole = Facts::of(leaf, payload);
    let alone = Facts::of(leaf, None);
    assert_eq!((&whole.signer, whole.recorded), (&alone.signer, alone.recorded));
    assert_eq!(whole.recorded, facts::recorded_digest(leaf));
    let named = facts::certificate_in(leaf).and_then(|der| identity_of(&der));
    assert_eq!(whole.signer, named);
    if let Some(statement) = payload.and_then(facts::statement_in) {
        assert_eq!(
            (&whole.subjects[..], whole.predicate_type.as_deref()),
            (statement.subjects(), Some(statement.predicate_type()))
        );
    }
    assert!(whole.subjects.len() <= limits::SUBJECTS);
    assert!(
        alone.subjects.is_empty() && alone.predicate_type.is_none() && alone.time.is_none() && alone.place.is_none()
    );
    whole != Facts::default()
}
