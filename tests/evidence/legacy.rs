//! Signatures and attestations as cosign 1 and 2 wrote them: read where nothing better is there, verified as all others,
//! and refused by name.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    keys::EphemeralKey,
    model::{
        Rejection,
        legacy::{Kind, Legacy},
        verify,
    },
};
use proptest::{
    prelude::Strategy as _,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use serde_json::Value;

use super::*;
use crate::mutation::mutated;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const ENTRY: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";

/// The document that cosign 2 signs.
fn document(image: &Digest) -> Value {
    json!({
        "critical": {
            "identity": {"docker-reference": "registry.example.com/team/app"},
            "image": {"docker-manifest-digest": image},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

/// A key with a certificate, as a client of Fulcio has it for a few minutes.
struct Signer<'a> {
    house: &'a House,
    key: EphemeralKey,
    certificate: String,
    now: Timestamp,
}

impl<'a> Signer<'a> {
    fn of(house: &'a House) -> Self {
        let (key, now) = (EphemeralKey::generate().unwrap(), Timestamp::now());
        let identity =
            Identity { subject: "spiffe://their.test/ci".to_owned(), issuer: "https://their.test".to_owned() };
        let der = house.keyring.issue(&identity, &key.spki(), now).unwrap();
        let body = STANDARD.encode(der);
        let certificate = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        Self { house, key, certificate, now }
    }

    /// The annotation with what Rekor v1 answers to an entry: the entry, and the log's promise.
    fn entry(&self, body: &Value) -> String {
        let log = self.house.keyring.log_key();
        let payload = json!({
            "body": STANDARD.encode(body.to_string()),
            "integratedTime": self.now.as_second(),
            "logID": hex(&self.house.keyring.public().log_id()),
            "logIndex": 4711,
        });
        let promise = STANDARD.encode(log.sign(payload.to_string().as_bytes()).unwrap());
        json!({"SignedEntryTimestamp": promise, "Payload": payload}).to_string()
    }

    fn annotations(&self, entry: String) -> BTreeMap<String, String> {
        let chain = self.house.keyring.public().ca_chain(self.now).concat();
        let all = [(CERTIFICATE, self.certificate.clone()), (CHAIN, chain), (ENTRY, entry)];
        all.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }

    /// A layer of `.sig` with this document.
    fn signature(&self, document: &Value) -> Legacy {
        let payload = document.to_string().into_bytes();
        let signature = STANDARD.encode(self.key.sign(&payload).unwrap());
        let body = json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": Digest::of(&payload).hex()}},
                "signature": {"content": signature, "publicKey": {"content": STANDARD.encode(&self.certificate)}},
            },
        });
        let mut annotations = self.annotations(self.entry(&body));
        annotations.insert(SIGNATURE.to_owned(), signature);
        layer(Kind::Signature, payload, annotations)
    }

    /// A layer of `.att` with this statement.
    fn attestation(&self, statement: &Statement) -> Legacy {
        let payload = statement.to_json();
        let signature = STANDARD.encode(self.key.sign(&countersign::model::bundle::pae(&payload)).unwrap());
        let envelope = json!({
            "payloadType": "application/vnd.in-toto+json", "payload": STANDARD.encode(&payload),
            "signatures": [{"keyid": "", "sig": signature}],
        });
        let envelope = envelope.to_string().into_bytes();
        let body = json!({
            "apiVersion": "0.0.1", "kind": "dsse",
            "spec": {
                "envelopeHash": {"algorithm": "sha256", "value": Digest::of(&envelope).hex()},
                "payloadHash": {"algorithm": "sha256", "value": Digest::of(&payload).hex()},
                "signatures": [{"signature": signature, "verifier": STANDARD.encode(&self.certificate)}],
            },
        });
        let mut annotations = self.annotations(self.entry(&body));
        annotations.insert(SIGNATURE.to_owned(), String::new());
        layer(Kind::Attestation, envelope, annotations)
    }
}

fn layer(kind: Kind, payload: Vec<u8>, annotations: BTreeMap<String, String>) -> Legacy {
    Legacy { kind, layer: Digest::of(&payload).to_string(), payload, annotations, problem: None }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts layers at a legacy tag of an image.
fn push(fake: &FakeRegistry, image: &Digest, suffix: &str, layers: &[Legacy]) {
    let config = fake.put_blob(REPO, b"{}");
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let digest = fake.put_blob(REPO, &layer.payload);
            json!({"mediaType": layer.kind.media_type(), "digest": digest, "size": layer.payload.len(),
                "annotations": layer.annotations})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": layers,
    });
    let tag = format!("sha256-{}.{suffix}", image.hex());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    fake.put_manifest(REPO, Some(&tag), media_type, manifest.to_string().as_bytes());
}

fn test_result(image: Digest) -> Statement {
    let subject = Subject { name: "app".to_owned(), digest: image };
    Statement::new(vec![subject], "https://example.com/reviewed/v1", json!({"by": "two"})).unwrap()
}

/// Whatever stands in a layer and beside it, it is verified or refused; and nothing that was changed says anything new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_a_legacy_layer_is_refused() {
    let world = World::new().await;
    let signer = Signer::of(&world.theirs);
    let image = Digest::of(b"image");
    let root = TrustedRoot::parse(&world.theirs.keyring.trusted_root()).unwrap();
    let mut runner = TestRunner::new(Config::default());
    for layer in [signer.signature(&document(&image)), signer.attestation(&test_result(image))] {
        let honest = verify::verify_legacy(&layer, &image, &root).unwrap();
        let parts = [SIGNATURE, CERTIFICATE, CHAIN, ENTRY, "the payload"];
        for part in parts {
            let seed = layer.annotations.get(part).map_or(layer.payload.clone(), |text| text.clone().into_bytes());
            let inputs = mutated(vec![seed]);
            let mut refused = 0;
            for _ in 0..300 {
                let input = inputs.new_tree(&mut runner).unwrap().current();
                let mut layer = layer.clone();
                match layer.annotations.get_mut(part) {
                    Some(text) => *text = String::from_utf8_lossy(&input).into_owned(),
                    None => layer.payload = input,
                }
                match verify::verify_legacy(&layer, &image, &root) {
                    Ok(verified) => assert_eq!(verified.statement(), honest.statement(), "{part}"),
                    Err(_named) => refused += 1,
                }
            }
            // Of an attestation the envelope holds the signature, and the annotation nothing.
            let counts = !(layer.kind == Kind::Attestation && part == SIGNATURE);
            assert!(!counts || refused > 50, "{:?} {part}: {refused} refused", layer.kind);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_signatures_and_attestations_are_evidence() {
    let world = World::new().await;
    let digest = world.fake.push_image(REPO, "v1", &[b"layer"]);
    let signer = Signer::of(&world.theirs);
    push(&world.fake, &digest, "sig", &[signer.signature(&document(&digest))]);
    push(&world.fake, &digest, "att", &[signer.attestation(&test_result(digest))]);
    for mode in [Referrers::Native, Referrers::Missing, Referrers::AlwaysEmpty] {
        world.fake.set(Knob::Referrers(mode));
        let evidence = world.gather(&world.evidence(60, 60), digest, at(0), soon()).await;
        assert_eq!((&evidence.rejected, evidence.gap()), (&Vec::new(), None), "{mode:?}");
        let types: Vec<&str> =
            evidence.statements.iter().map(|verified| verified.statement().predicate_type()).collect();
        assert_eq!(types, [predicate::SIGN, "https://example.com/reviewed/v1"], "{mode:?}");
        let signature = &evidence.statements[0];
        assert!(signature.statement().names(&digest));
        assert_eq!(signature.statement().subjects()[0].name, "registry.example.com/team/app");
        assert_eq!(signature.signed_at(), Some(Timestamp::from_second(signer.now.as_second()).unwrap()));
        assert_eq!(signature.log().map(|log| log.index), Some(4711));
        let countersign::model::Signer::Identity(identity) = signature.signer() else { panic!("{signature:?}") };
        assert_eq!(identity.subject, "spiffe://their.test/ci");
    }
}

/// Only where nothing else was proven, and then for one more round trip.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_tags_are_asked_last() {
    let world = World::new().await;
    let digest = world.signed(b"one").await;
    let signer = Signer::of(&world.theirs);
    push(&world.fake, &digest, "sig", &[signer.signature(&document(&digest))]);
    world.fake.clear_requests();
    let evidence = world.gather(&world.evidence(60, 60), digest, at(0), soon()).await;
    assert_eq!((evidence.statements.len(), world.count(".sig"), world.count(".att")), (1, 0, 0));
    // A bundle that is there and proves nothing does not hide the rest.
    let other = world.fake.push_image(REPO, "v2", &[b"two"]);
    let attach = world.ours.registry.attach(&world.name, &other, b"{}", predicate::SIGN, Timestamp::now(), soon());
    attach.await.unwrap();
    push(&world.fake, &other, "sig", &[signer.signature(&document(&other))]);
    world.fake.clear_requests();
    let service = world.evidence(60, 60);
    let evidence = world.gather(&service, other, at(0), soon()).await;
    assert_eq!((evidence.statements.len(), evidence.rejected.len()), (1, 1), "{:?}", evidence.rejected);
    assert_eq!((world.count(".sig"), world.count(".att")), (1, 1));
    world.gather(&service, other, at(1), soon()).await;
    assert_eq!((world.count(".sig"), world.count(".att")), (1, 1), "the listing is kept as a whole");
    // A registry that does not say whether there is something is a gap.
    let third = world.fake.push_image(REPO, "v3", &[b"three"]);
    let bundles = world.ours.registry.bundles(&world.name, &third, soon()).await.unwrap();
    assert!(bundles.is_empty());
    world.fake.set(Knob::Status { code: 418, times: 4 });
    assert!(world.gather(&world.evidence(0, 0), third, at(0), soon()).await.gap().is_some());
}

/// What is wrong with a layer, and the refusal that names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flaw_has_its_refusal() {
    let world = World::new().await;
    let image = Digest::of(b"image");
    let (signer, stranger) = (Signer::of(&world.theirs), Signer::of(&world.ours));
    let good = signer.signature(&document(&image));
    let attestation = signer.attestation(&test_result(image));
    let verify = |layer: &Legacy| verify::verify_legacy(layer, &image, &world.theirs.root);
    assert!(verify(&good).is_ok(), "{:?}", verify(&good));
    assert!(verify(&attestation).is_ok(), "{:?}", verify(&attestation));
    let edit = |layer: &Legacy, change: &dyn Fn(&mut Legacy)| {
        let mut layer = layer.clone();
        change(&mut layer);
        layer
    };
    let without = |name: &str| edit(&good, &|layer| drop(layer.annotations.remove(name)));
    let with = |name: &str, text: String| {
        edit(&good, &move |layer| drop(layer.annotations.insert(name.to_owned(), text.clone())))
    };
    let entry: Value = serde_json::from_str(&good.annotations[ENTRY]).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut entry = entry.clone();
        *entry.pointer_mut(pointer).unwrap() = value;
        with(ENTRY, entry.to_string())
    };
    let mut misnamed = document(&image);
    misnamed["critical"]["type"] = json!("a poem");
    let mut undigested = document(&image);
    undigested["critical"]["image"]["docker-manifest-digest"] = json!("sha512:00");
    let other_body = STANDARD.encode(json!({"apiVersion": "0.0.1", "kind": "rpm", "spec": {}}).to_string());
    let mut two: Value = serde_json::from_slice(&attestation.payload).unwrap();
    let signature = two["signatures"][0].clone();
    two["signatures"] = json!([signature, signature]);
    let cases: Vec<(&str, Legacy, &str)> = vec![
        ("signed by a key", without(CERTIFICATE), "legacy signature without a certificate"),
        ("not logged", without(ENTRY), "legacy signature without a log entry"),
        ("no signature", without(SIGNATURE), "legacy signature without the annotation dev.cosignproject"),
        ("certificate", with(CERTIFICATE, "x".to_owned()), "whose certificate is not PEM"),
        ("chain", with(CHAIN, "-----BEGIN CERTIFICATE-----\n!\n-----END".to_owned()), "whose chain is not PEM"),
        ("long chain", with(CHAIN, signer.certificate.repeat(9)), "whose chain has 9 certificates"),
        ("huge", with(CHAIN, "x".repeat(limits::LEGACY + 1)), "bytes (at most"),
        ("entry", with(ENTRY, "{}".to_owned()), "whose annotation dev.sigstore.cosign/bundle cannot be read"),
        ("nested", with(ENTRY, "[".repeat(100)), "nested"),
        ("signature text", with(SIGNATURE, "?".to_owned()), "whose signature cannot be read"),
        ("timestamp", with(TIMESTAMP, "{}".to_owned()), "rfc3161timestamp cannot be read"),
        ("kind of entry", changed("/Payload/body", json!(other_body)), "a log entry of the kind \"rpm 0.0.1\""),
        ("log id", changed("/Payload/logID", json!("00")), "its log id"),
        ("document", signer.signature(&json!({})), "whose document cannot be read"),
        ("type of document", signer.signature(&misnamed), "it calls itself \"a poem\""),
        ("digest of document", signer.signature(&undigested), "its digest"),
        ("another image", signer.signature(&document(&Digest::of(b"another"))), "it was signed for sha256:"),
        ("another time", changed("/Payload/integratedTime", json!(signer.now.as_second() - 1)), "SET"),
        ("another index", changed("/Payload/logIndex", json!(1)), "SET"),
        ("another promise", changed("/SignedEntryTimestamp", json!(STANDARD.encode([1; 64]))), "SET"),
        ("somebody else's certificate", with(CERTIFICATE, stranger.certificate.clone()), ""),
        ("somebody else's signature", with(SIGNATURE, STANDARD.encode(stranger.key.sign(&good.payload).unwrap())), ""),
        ("another house", stranger.signature(&document(&image)), ""),
        ("changed document", edit(&good, &|layer| layer.payload.push(b' ')), ""),
        ("two signatures", edit(&attestation, &|layer| layer.payload = two.to_string().into_bytes()), "exactly one"),
        ("envelope", edit(&attestation, &|layer| layer.payload = b"{}".to_vec()), "whose envelope cannot be read"),
        ("statement about another", signer.attestation(&test_result(Digest::of(b"another"))), ""),
        (
            "unreadable",
            edit(&good, &|layer| layer.problem = Some("whose payload is gone".to_owned())),
            "legacy signature whose payload is gone",
        ),
    ];
    for (case, layer, problem) in cases {
        let rejection = verify(&layer).map(|verified| panic!("{case}: {verified:?}")).unwrap_err();
        assert!(rejection.to_string().contains(problem), "{case}: {rejection}");
    }
}

/// What cosign 3.1.3 writes with a key, `--new-bundle-format=false` and `--tlog-upload=false`: read as it is, and refused
/// for what it lacks alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cosign_wrote_with_a_key_is_refused_for_that() {
    let world = World::new().await;
    let payload = br#"{"critical":{"identity":{"docker-reference":"127.0.0.1:5911/team/app"},"image":{"docker-manifest-digest":"sha256:3bb3b9e7faa330284dc5281ab61fa0d7d5446ede01c1c94731389c4f68fa11c9"},"type":"cosign container image signature"},"optional":null}"#;
    let signature = "MEUCIQDRA0zsK6EY0b/YWczItFOTJ1RqXJ3Wvk5/JGKYh7BHJQIgEf8w7qEj/YASGXFBWjDLaNeKUxSjOTC8EqCKWtQ/CeQ=";
    let manifest = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":233,"digest":"sha256:ca3b4c2328d6f82ea21c2b77edaf2cf86b87571f0784400d3149be2e8c39be9c"},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","size":239,"digest":"sha256:56cc055a8aab6de933b19de80f5d6a92c9faa1718c5bbe31fa87e8fc6adafdca","annotations":{"dev.cosignproject.cosign/signature":"MEUCIQDRA0zsK6EY0b/YWczItFOTJ1RqXJ3Wvk5/JGKYh7BHJQIgEf8w7qEj/YASGXFBWjDLaNeKUxSjOTC8EqCKWtQ/CeQ="}}]}"#;
    let image: Digest = "sha256:3bb3b9e7faa330284dc5281ab61fa0d7d5446ede01c1c94731389c4f68fa11c9".parse().unwrap();
    world.fake.put_blob(REPO, payload);
    let tag = format!("sha256-{}.sig", image.hex());
    world.fake.put_manifest(REPO, Some(&tag), "application/vnd.oci.image.manifest.v1+json", manifest);
    let found = world.ours.registry.legacy(&world.name, &image, soon()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].payload.as_slice(), &found[0].annotations[SIGNATURE]),
        (payload.as_slice(), &signature.to_owned())
    );
    let evidence = world.gather(&world.evidence(0, 0), image, at(0), soon()).await;
    assert_eq!((evidence.statements.len(), evidence.gap()), (0, None));
    let reason = evidence.rejected[0].reason.to_string();
    assert!(reason.starts_with("legacy signature without a certificate: a key signed it"), "{reason}");
}

/// Whatever byte of a layer changes, it is refused or says the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_is_never_more_evidence() {
    let world = World::new().await;
    let image = Digest::of(b"image");
    let good = Signer::of(&world.theirs).signature(&document(&image));
    let first = verify::verify_legacy(&good, &image, &world.theirs.root).unwrap();
    for at in 0..good.payload.len() {
        let mut layer = good.clone();
        layer.payload[at] ^= 1;
        assert!(verify::verify_legacy(&layer, &image, &world.theirs.root).is_err(), "byte {at} of the document");
    }
    for (name, text) in good.annotations.iter().filter(|(name, _)| *name != CHAIN) {
        for at in (0..text.len()).step_by(7) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let mut layer = good.clone();
            layer.annotations.insert(name.clone(), String::from_utf8(bytes).unwrap());
            if let Ok(verified) = verify::verify_legacy(&layer, &image, &world.theirs.root) {
                let (one, other) = ((verified.signer(), verified.signed_at()), (first.signer(), first.signed_at()));
                assert_eq!(one, other, "byte {at} of {name}");
            }
        }
    }
}

/// Layers that the registry cannot give are named, those beside them count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_layers_are_told_and_lists_are_bounded() {
    let world = World::new().await;
    let digest = world.fake.push_image(REPO, "v1", &[b"layer"]);
    let signer = Signer::of(&world.theirs);
    let good = signer.signature(&document(&digest));
    let lost = signer.signature(&json!({"critical": {"type": "lost"}}));
    let large = layer(Kind::Signature, vec![b' '; limits::LEGACY + 1], BTreeMap::new());
    let strange = layer(Kind::Attestation, b"{}".to_vec(), BTreeMap::new());
    push(&world.fake, &digest, "sig", &[lost.clone(), large, strange, good.clone()]);
    world.fake.delete_blob(REPO, &Digest::of(&lost.payload));
    let evidence = world.gather(&world.evidence(0, 0), digest, at(0), soon()).await;
    assert_eq!((evidence.statements.len(), evidence.gap()), (1, None));
    let reasons: Vec<String> = evidence.rejected.iter().map(|rejected| rejected.reason.to_string()).collect();
    for (reason, wanted) in
        reasons.iter().zip(["whose payload is not in the registry", "bytes (at most", "of the type"])
    {
        assert!(reason.starts_with("legacy signature") && reason.contains(wanted), "{reasons:?}");
    }
    assert_eq!(reasons.len(), 3);
    assert!(evidence.rejected.iter().all(|rejected| matches!(rejected.reason, Rejection::Legacy(_))));
    push(&world.fake, &digest, "sig", &vec![good; limits::REFERRERS + 1]);
    let evidence = world.gather(&world.evidence(0, 0), digest, at(1), soon()).await;
    let (_, why) = evidence.gap().unwrap();
    assert!(why.contains("has 65 signatures (at most 64)"), "{why}");
    let index = json!({"schemaVersion": 2, "manifests": []}).to_string();
    let tag = format!("sha256-{}.sig", digest.hex());
    let media_type = "application/vnd.oci.image.index.v1+json";
    world.fake.put_manifest(REPO, Some(&tag), media_type, index.as_bytes());
    let evidence = world.gather(&world.evidence(0, 0), digest, at(2), soon()).await;
    assert!(evidence.gap().unwrap().1.contains("is not a list of signatures"), "{evidence:?}");
}
