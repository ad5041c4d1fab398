//! What an entry says: read from its leaf and its payload, and believed by nobody.
//!
//! Nothing here verifies. Of our own log the facts were true when they were written; whoever needs to know checks the
//! bundle (`countersign verify`). What cannot be parsed says nothing: such an entry is found by its index alone.
//!
//! **The time of an entry** is the earliest RFC 3161 time in its payload, in whole seconds. The time at which the
//! sequencer committed would cover every entry, but nobody could check it, it is not in the log, and so it could not be
//! rebuilt from it; the validity of the certificate is whatever a stranger's authority wrote. An entry without a
//! timestamp, or whose payload was erased, has *no known time*: it is neither inside nor outside of a range of times.
//! Times need not grow with the index, as clocks are set back.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use const_oid::{ObjectIdentifier, db::rfc5911::ID_SIGNED_DATA};
use der::{
    AnyRef, Decode as _, Reader as _, SliceReader,
    asn1::{GeneralizedTime, OctetStringRef},
};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    certificate,
    digest::Digest,
    identity::Identity,
    image::{ImageName, ImageRef},
    json::check_json_depth,
    limits, predicate,
    statement::{PAYLOAD_TYPE, Statement, Subject},
};

/// `id-ct-TSTInfo`.
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
/// Timestamps of one payload that are looked at.
const TIMESTAMPS: usize = 4;

/// What an entry says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// What it speaks about; empty when the payload is not there or cannot be read.
    pub subjects: Vec<Subject>,
    /// What kind of statement it is; a message signature counts as an image signature.
    pub predicate_type: Option<String>,
    /// Whom the certificate in the leaf names. Part of the tree: it stays when the payload is erased.
    pub signer: Option<Identity>,
    /// The time of the entry.
    pub time: Option<Timestamp>,
    /// The digest that the leaf records as signed: of a file, or of the pre-authentication encoding of an envelope.
    /// Part of the tree.
    pub recorded: Option<Digest>,
    /// Service and environment, in records of our own services.
    pub place: Option<(String, String)>,
    /// Whether the judge may rest on it. Our own records about a digest (where it ran, how it was, what we answered) are
    /// found by service and environment; there may be so many that they would bury the signatures.
    pub is_evidence: bool,
}

impl Facts {
    /// Reads an entry. The payload is a Sigstore bundle v0.3 without log entries; `None` or empty when there is none.
    pub fn of(leaf: &[u8], payload: Option<&[u8]>) -> Self {
        let mut facts = Self::default();
        facts.read_leaf(leaf);
        if let Some(payload) = payload.filter(|payload| !payload.is_empty()) {
            facts.read_payload(payload);
        }
        facts
    }

    /// What was signed, as far as it can be read.
    fn read_leaf(&mut self, leaf: &[u8]) -> Option<()> {
        let spec = serde_json::from_slice::<Leaf<'_>>(leaf).ok()?.spec.entry?;
        self.recorded = spec.data.digest.as_deref().and_then(digest_of);
        let certificate = spec.signature.verifier.certificate?;
        self.signer = certificate::identity_of(&decode(&certificate.raw_bytes)?);
        Some(())
    }

    fn read_payload(&mut self, payload: &[u8]) -> Option<()> {
        let bundle = parse(payload)?;
        if let Some(envelope) = &bundle.dsse_envelope {
            self.read_statement(&envelope.statement()?);
        } else {
            let digest = digest_of(&bundle.message_signature.as_ref()?.message_digest.digest)?;
            self.subjects = vec![Subject { name: String::new(), digest }];
            self.predicate_type = Some(predicate::SIGN.to_owned());
            self.is_evidence = true;
        }
        let timestamps = bundle.verification_material?.timestamp_verification_data?.rfc3161_timestamps;
        let times = timestamps.iter().take(TIMESTAMPS);
        self.time = times.filter_map(|stamp| time_of(&decode(&stamp.signed_timestamp)?)).min();
        Some(())
    }

    fn read_statement(&mut self, statement: &Statement) {
        self.subjects = statement.subjects().to_vec();
        self.predicate_type = Some(statement.predicate_type().to_owned());
        self.is_evidence = match statement.predicate_type() {
            predicate::DEPLOYMENT
            | predicate::HEALTH
            | predicate::READINESS
            | predicate::REVOCATION
            | predicate::ERASURE
            | predicate::MANAGED_KEY
            | predicate::BREAK_GLASS => false,
            predicate::VSA => statement.predicate().get(predicate::READINESS).is_none(),
            _ => true,
        };
        let ours = [predicate::DEPLOYMENT, predicate::HEALTH, predicate::APPROVAL, predicate::READINESS];
        let field = |name: &str| statement.predicate().get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
        if ours.contains(&statement.predicate_type()) {
            self.place = field("service").zip(field("environment"));
        }
    }
}

/// The repository of a subject's name that is an image reference with its registry spelled out, as in
/// `registry.example.com/team/app:v1`. A plain file name is not taken for an image on Docker Hub.
pub fn repository(name: &str) -> Option<ImageName> {
    let (registry, _) = name.split_once('/')?;
    let spelled_out = registry.contains(['.', ':']) || registry == "localhost";
    spelled_out.then(|| name.parse::<ImageRef>().ok()).flatten().map(|image| image.name)
}

/// The statement in the payload of an entry; `None` when there is none that can be read.
pub fn statement_in(payload: &[u8]) -> Option<Statement> {
    parse(payload)?.dsse_envelope?.statement()
}

/// The digest that the payload's signature is over: of the DSSE pre-authentication encoding, or of the file.
pub fn signed_digest(payload: &[u8]) -> Option<Digest> {
    let bundle = parse(payload)?;
    let Some(envelope) = bundle.dsse_envelope else {
        return digest_of(&bundle.message_signature?.message_digest.digest);
    };
    Some(Digest::of(&sigstore_types::pae(&envelope.payload_type, &decode(&envelope.payload)?)))
}

/// The digest that a hashedrekord leaf records.
pub fn recorded_digest(leaf: &[u8]) -> Option<Digest> {
    digest_of(&serde_json::from_slice::<Leaf<'_>>(leaf).ok()?.spec.entry?.data.digest?)
}

/// The signing certificate in a hashedrekord leaf, DER.
pub fn certificate_in(leaf: &[u8]) -> Option<Vec<u8>> {
    let entry = serde_json::from_slice::<Leaf<'_>>(leaf).ok()?.spec.entry?;
    decode(&entry.signature.verifier.certificate?.raw_bytes)
}

fn parse(payload: &[u8]) -> Option<Bundle<'_>> {
    check_json_depth(payload, limits::JSON_DEPTH).ok()?;
    serde_json::from_slice(payload).ok()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn digest_of(base64: &str) -> Option<Digest> {
    Some(Digest::from_bytes(decode(base64)?.try_into().ok()?))
}

/// The `genTime` of an RFC 3161 response. Reads what stands before it and no more: who signed it is not asked here.
fn time_of(response: &[u8]) -> Option<Timestamp> {
    let mut response = contents(AnyRef::from_der(response).ok()?)?;
    let _status = AnyRef::decode(&mut response).ok()?;
    let mut token = contents(AnyRef::decode(&mut response).ok()?)?;
    if ObjectIdentifier::decode(&mut token).ok()? != ID_SIGNED_DATA {
        return None;
    }
    let mut tagged = contents(AnyRef::decode(&mut token).ok()?)?;
    let mut signed = contents(AnyRef::decode(&mut tagged).ok()?)?;
    let _version = AnyRef::decode(&mut signed).ok()?;
    let _algorithms = AnyRef::decode(&mut signed).ok()?;
    let mut encapsulated = contents(AnyRef::decode(&mut signed).ok()?)?;
    if ObjectIdentifier::decode(&mut encapsulated).ok()? != TST_INFO {
        return None;
    }
    let mut tagged = contents(AnyRef::decode(&mut encapsulated).ok()?)?;
    let info = OctetStringRef::decode(&mut tagged).ok()?;
    let mut info = contents(AnyRef::from_der(info.as_bytes()).ok()?)?;
    for _version_policy_imprint_serial in 0..4 {
        AnyRef::decode(&mut info).ok()?;
    }
    let at = GeneralizedTime::decode(&mut info).ok()?.to_unix_duration().as_secs();
    Timestamp::from_second(i64::try_from(at).ok()?).ok()
}

/// What stands inside a constructed value.
fn contents(value: AnyRef<'_>) -> Option<SliceReader<'_>> {
    SliceReader::new(value.value()).ok().filter(|reader| !reader.is_finished())
}

#[derive(Deserialize)]
struct Leaf<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(borrow, rename = "hashedRekordV002")]
    entry: Option<HashedRekord<'a>>,
}

#[derive(Deserialize)]
struct HashedRekord<'a> {
    #[serde(borrow)]
    data: Data<'a>,
    #[serde(borrow)]
    signature: Signature<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    digest: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Signature<'a> {
    #[serde(borrow)]
    verifier: Verifier<'a>,
}

#[derive(Deserialize)]
struct Verifier<'a> {
    #[serde(borrow, rename = "x509Certificate")]
    certificate: Option<RawBytes<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBytes<'a> {
    #[serde(borrow)]
    raw_bytes: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    #[serde(borrow)]
    verification_material: Option<Material<'a>>,
    #[serde(borrow)]
    dsse_envelope: Option<Envelope<'a>>,
    #[serde(borrow)]
    message_signature: Option<MessageSignature<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material<'a> {
    #[serde(borrow)]
    timestamp_verification_data: Option<TimestampData<'a>>,
}

#[derive(Deserialize)]
struct TimestampData<'a> {
    #[serde(borrow, default, rename = "rfc3161Timestamps")]
    rfc3161_timestamps: Vec<SignedTimestamp<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignedTimestamp<'a> {
    #[serde(borrow)]
    signed_timestamp: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    payload_type: Cow<'a, str>,
}

impl Envelope<'_> {
    fn statement(&self) -> Option<Statement> {
        let is_statement = self.payload_type == PAYLOAD_TYPE;
        is_statement.then(|| Statement::parse(&decode(&self.payload)?).ok()).flatten()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature<'a> {
    #[serde(borrow)]
    message_digest: MessageDigest<'a>,
}

#[derive(Deserialize)]
struct MessageDigest<'a> {
    #[serde(borrow)]
    digest: Cow<'a, str>,
}
