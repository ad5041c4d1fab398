//! Signing certificates in the profile of Fulcio: the extensions below 1.3.6.1.4.1.57264.1, and what a certificate says.
//!
//! An [`Extension`] carries one claim of the token that vouched for the holder; its number and encoding are those of
//! Fulcio's `oid-info`. The numbers 1 and 8 are the issuer, which every certificate has, and 7 is the type of a subject
//! alternative name; so they are no [`Extension`]. Not here: how claims become extensions (`identity`), the rest of the
//! profile and the signature (`keys`).

use std::{collections::BTreeMap, str::FromStr};

use const_oid::ObjectIdentifier;
use der::{
    Decode as _, Encode as _, Reader as _, SliceReader,
    asn1::{BitStringRef, Utf8StringRef},
};
use jiff::Timestamp;
use spki::AlgorithmIdentifierRef;
use x509_cert::{
    TbsCertificate,
    ext::pkix::{SubjectAltName, name::GeneralName},
    time::Time,
};

use super::{Digest, Identity, limits, public_key::PublicKey};

/// Below it stand all of them.
const FULCIO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1");
/// The issuer that vouched, raw bytes: deprecated, and still read by some clients.
pub const ISSUER_V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
/// The type of an `otherName` that is a user name, as in `alice!example.org`; its value is a `UTF8String`.
pub const USER_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.7");
/// The issuer that vouched, DER `UTF8String`.
pub const ISSUER_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");

/// An extension that carries a claim. Ordered by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extension {
    /// 2: what triggered a GitHub workflow. Deprecated, as are all up to 6, and still read.
    WorkflowTrigger,
    /// 3: the commit that a GitHub workflow ran for.
    WorkflowSha,
    /// 4: the name of a GitHub workflow.
    WorkflowName,
    /// 5: the repository of a GitHub workflow, `owner/name`.
    WorkflowRepository,
    /// 6: the git ref that a GitHub workflow ran for.
    WorkflowRef,
    /// 9: the build instructions that sign.
    BuildSignerUri,
    /// 10: their version.
    BuildSignerDigest,
    /// 11: whose machine it ran on, as in `github-hosted` and `self-hosted`.
    RunnerEnvironment,
    /// 12: the source repository.
    SourceRepositoryUri,
    /// 13: the commit that was built.
    SourceRepositoryDigest,
    /// 14: the ref that was built, as in `refs/heads/main`.
    SourceRepositoryRef,
    /// 15: the repository's lasting identifier.
    SourceRepositoryIdentifier,
    /// 16: the repository's owner.
    SourceRepositoryOwnerUri,
    /// 17: the owner's lasting identifier.
    SourceRepositoryOwnerIdentifier,
    /// 18: the build instructions that it began with.
    BuildConfigUri,
    /// 19: their version.
    BuildConfigDigest,
    /// 20: what triggered the build.
    BuildTrigger,
    /// 21: the run.
    RunInvocationUri,
    /// 22: whether the repository was public when the certificate was issued.
    SourceRepositoryVisibility,
    /// 23: the environment that the job deploys to.
    DeploymentEnvironment,
    /// 24: the token's `sub` as it was.
    TokenSubject,
}

impl Extension {
    /// All of them, by number.
    pub const ALL: [Self; 21] = [
        Self::WorkflowTrigger,
        Self::WorkflowSha,
        Self::WorkflowName,
        Self::WorkflowRepository,
        Self::WorkflowRef,
        Self::BuildSignerUri,
        Self::BuildSignerDigest,
        Self::RunnerEnvironment,
        Self::SourceRepositoryUri,
        Self::SourceRepositoryDigest,
        Self::SourceRepositoryRef,
        Self::SourceRepositoryIdentifier,
        Self::SourceRepositoryOwnerUri,
        Self::SourceRepositoryOwnerIdentifier,
        Self::BuildConfigUri,
        Self::BuildConfigDigest,
        Self::BuildTrigger,
        Self::RunInvocationUri,
        Self::SourceRepositoryVisibility,
        Self::DeploymentEnvironment,
        Self::TokenSubject,
    ];

    /// The last number of its object identifier.
    pub const fn number(self) -> u32 {
        self.entry().0
    }

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        self.entry().1
    }

    /// Whether its value is the bytes of the text as they are, instead of a DER `UTF8String`.
    pub const fn is_raw(self) -> bool {
        self.number() < 8
    }

    /// Its object identifier.
    pub const fn oid(self) -> ObjectIdentifier {
        match FULCIO.push_arc(self.number()) {
            Ok(oid) => oid,
            // One more arc always has room below an identifier that short.
            Err(_) => FULCIO,
        }
    }

    const fn entry(self) -> (u32, &'static str) {
        match self {
            Self::WorkflowTrigger => (2, "workflow_trigger"),
            Self::WorkflowSha => (3, "workflow_sha"),
            Self::WorkflowName => (4, "workflow_name"),
            Self::WorkflowRepository => (5, "workflow_repository"),
            Self::WorkflowRef => (6, "workflow_ref"),
            Self::BuildSignerUri => (9, "build_signer_uri"),
            Self::BuildSignerDigest => (10, "build_signer_digest"),
            Self::RunnerEnvironment => (11, "runner_environment"),
            Self::SourceRepositoryUri => (12, "source_repository_uri"),
            Self::SourceRepositoryDigest => (13, "source_repository_digest"),
            Self::SourceRepositoryRef => (14, "source_repository_ref"),
            Self::SourceRepositoryIdentifier => (15, "source_repository_identifier"),
            Self::SourceRepositoryOwnerUri => (16, "source_repository_owner_uri"),
            Self::SourceRepositoryOwnerIdentifier => (17, "source_repository_owner_identifier"),
            Self::BuildConfigUri => (18, "build_config_uri"),
            Self::BuildConfigDigest => (19, "build_config_digest"),
            Self::BuildTrigger => (20, "build_trigger"),
            Self::RunInvocationUri => (21, "run_invocation_uri"),
            Self::SourceRepositoryVisibility => (22, "source_repository_visibility"),
            Self::DeploymentEnvironment => (23, "deployment_environment"),
            Self::TokenSubject => (24, "token_subject"),
        }
    }
}

/// The string is not the name of an extension.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an extension; they are {names}", names = Extension::ALL.map(Extension::name).join(", "))]
pub struct UnknownExtension(String);

impl FromStr for Extension {
    type Err = UnknownExtension;

    fn from_str(text: &str) -> Result<Self, UnknownExtension> {
        Self::ALL
            .into_iter()
            .find(|extension| extension.name() == text)
            .ok_or_else(|| UnknownExtension(text.chars().take(64).collect()))
    }
}

/// Why a text cannot stand in an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// Over [`limits::URI`].
    #[error("has {0} bytes; a certificate takes {limit}", limit = limits::URI)]
    TooLong(usize),
    /// A line end, an escape character and the like.
    #[error("has control characters")]
    Control,
}

/// What a certificate says of the token that vouched for its holder: at most one text for each extension, each bounded
/// and without control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions(BTreeMap<Extension, String>);

impl Extensions {
    /// Sets one of them.
    ///
    /// # Errors
    /// An [`ExtensionError`]; nothing is set then.
    pub fn set(&mut self, extension: Extension, text: String) -> Result<(), ExtensionError> {
        if text.is_empty() {
            return Err(ExtensionError::Empty);
        }
        if text.len() > limits::URI {
            return Err(ExtensionError::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(ExtensionError::Control);
        }
        self.0.insert(extension, text);
        Ok(())
    }

    /// The text of one of them.
    pub fn get(&self, extension: Extension) -> Option<&str> {
        self.0.get(&extension).map(String::as_str)
    }

    /// All that are set, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Extension, &str)> {
        self.0.iter().map(|(extension, text)| (*extension, text.as_str()))
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a signing certificate says. Nothing is verified: see [`is_signed_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Whom it names; `None` when it names nobody, or no issuer.
    pub identity: Option<Identity>,
    /// The serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// The digest of its key (SubjectPublicKeyInfo, DER).
    pub key: Digest,
    /// The digest of the whole certificate.
    pub fingerprint: Digest,
}

/// Reads a certificate, DER; `None` if it cannot be read.
pub fn describe(der: &[u8]) -> Option<Described> {
    let tbs = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
    Some(Described {
        identity: identity(&tbs),
        serial: hex::encode(tbs.serial_number.as_bytes()),
        not_before: timestamp(tbs.validity.not_before)?,
        not_after: timestamp(tbs.validity.not_after)?,
        key: Digest::of(&tbs.subject_public_key_info.to_der().ok()?),
        fingerprint: Digest::of(der),
    })
}

/// Subject alternative name and issuer of a signing certificate, DER.
pub fn identity_of(der: &[u8]) -> Option<Identity> {
    identity(&x509_cert::Certificate::from_der(der).ok()?.tbs_certificate)
}

fn identity(tbs: &TbsCertificate) -> Option<Identity> {
    let (_, names) = tbs.get::<SubjectAltName>().ok()??;
    let subject = names.0.iter().find_map(|name| match name {
        GeneralName::Rfc822Name(name) | GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::OtherName(other) if other.type_id == USER_NAME => other.value.decode_as::<String>().ok(),
        _ => None,
    })?;
    let extensions = tbs.extensions.as_ref()?;
    let issuer = extensions.iter().find(|extension| extension.extn_id == ISSUER_V2)?;
    let issuer = Utf8StringRef::from_der(issuer.extn_value.as_bytes()).ok()?.as_str().to_owned();
    Some(Identity { subject, issuer })
}

/// What a signing certificate, DER, says of a token.
pub fn extensions_of(der: &[u8]) -> Option<Extensions> {
    let tbs = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
    let mut said = Extensions::default();
    for found in tbs.extensions.unwrap_or_default() {
        let known = Extension::ALL.into_iter().find(|extension| extension.oid() == found.extn_id);
        let Some(extension) = known else { continue };
        let value = found.extn_value.as_bytes();
        let text = if extension.is_raw() {
            str::from_utf8(value).ok()?.to_owned()
        } else {
            Utf8StringRef::from_der(value).ok()?.as_str().to_owned()
        };
        said.set(extension, text).ok()?;
    }
    Some(said)
}

/// Whether the certificate's signature is by the key of `authority`, both DER. Names and validity are not looked at.
pub fn is_signed_by(certificate: &[u8], authority: &[u8]) -> bool {
    let parts = || -> der::Result<(&[u8], BitStringRef<'_>)> {
        let mut outer = SliceReader::new(certificate)?;
        let parts = outer.sequence(|inner| {
            let signed = inner.tlv_bytes()?;
            AlgorithmIdentifierRef::decode(inner)?;
            Ok((signed, BitStringRef::decode(inner)?))
        })?;
        outer.finish(parts)
    };
    let (Ok((signed, signature)), Ok(key)) = (parts(), PublicKey::from_certificate(authority)) else { return false };
    signature.as_bytes().is_some_and(|signature| key.verify(signed, signature).is_ok())
}

fn timestamp(time: Time) -> Option<Timestamp> {
    let seconds = time.to_unix_duration().as_secs();
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}
