//! Token -> identity and claims -> proof of possession or certificate request -> certificate -> log entry -> chain.
//!
//! For callers who hold their own key, as Sigstore's clients do. [`Issuing::admit`] says whom a token speaks for; with
//! that, [`Issuing::issue`] checks that the caller holds the key, issues, and **logs the certificate before it answers**:
//! what is not in the log was never handed out, so the authority cannot issue in secret.
//!
//! The entry is an ordinary `hashedrekord` that proves the possession by itself: its verifier is the certificate, its
//! signature the caller's own, over the token's claim or over the certificate request. So everybody can verify it, and it
//! is found by the certificate's identity. It has no payload.
//!
//! A token may be used again while it is valid, and each use is another certificate and another entry, unless its issuer
//! has `single_use`. Then it is spent between the check of the key and the certificate: what was refused before did not use
//! it up, and what fails after did, as a certificate may exist by then. Whoever bounds how many one identity may have does so
//! between the two steps, where the identity is known and nothing was spent on it.
//! Not here: what tokens are (`identity`), the certificate's profile (`keys`), wire formats (the face).

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    identity::{Authenticator, Issuer, Principal, Refusal},
    keys::{KeyError, Keyring},
    log::{Draft, LogError, Logs},
    model::{
        Caller, Identity, LogRef, PublicKey, PublicKeyError, Role, Scheme,
        certificate_request::{CertificateRequest, CertificateRequestError},
        leaf::{self, Verifier},
        possession::{EncodedKey, Possession},
    },
};

/// A certificate that is in the log.
#[derive(Debug, Clone)]
pub struct Issued {
    /// In PEM: the certificate, the authority that signed it, and so on up to the root.
    pub chain: Vec<String>,
    /// The entry of its issuance.
    pub entry: LogRef,
}

/// Why no certificate was issued. Nothing is in the log then, except after [`LogError::Broken`] and
/// [`LogError::Unwitnessed`]: a certificate that nobody got may be.
#[derive(Debug, thiserror::Error)]
pub enum IssuingError {
    /// The token is not accepted.
    #[error(transparent)]
    Token(#[from] Refusal),
    /// A known caller without the role.
    #[error(
        "{0} may not have certificates: that needs the role builder; an admin can add a rule under [[identity.rules]]"
    )]
    Role(Identity),
    /// The key is not accepted.
    #[error("public key: {0}")]
    Key(#[from] PublicKeyError),
    /// The certificate request is not accepted.
    #[error(transparent)]
    Request(#[from] CertificateRequestError),
    /// The token has no claim that a proof could be over.
    #[error(
        "the token has neither of the claims email and sub, so nothing can prove possession; send a certificate request"
    )]
    NoChallenge,
    /// The signature is not by the key, or over something else.
    #[error(
        "proof of possession does not verify: it must be a signature by the key, with {hash}, over the token's claim {claims}"
    )]
    Proof {
        /// The hash that goes with the key, or what it is called that hashes by itself.
        hash: &'static str,
        /// The claims that are accepted.
        claims: String,
    },
    /// The authority refused or failed.
    #[error("no certificate can be issued")]
    Authority(#[from] KeyError),
    /// The log did not take the entry.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The worker was lost.
    #[error("issuing was interrupted")]
    Interrupted,
}

/// The service.
#[derive(Debug, Clone)]
pub struct Issuing {
    authenticator: Arc<Authenticator>,
    keyring: Arc<Keyring>,
    logs: Logs,
}

/// A key whose possession was shown: by a signature over something with this digest.
struct Shown {
    key: PublicKey,
    digest: Vec<u8>,
    signature: Vec<u8>,
}

struct Prepared {
    /// PEM: the certificate and those above it.
    chain: Vec<String>,
    leaf: Vec<u8>,
}

impl Issuing {
    /// A service that believes `authenticator`, issues with `keyring` and records in the present log.
    pub fn new(authenticator: Arc<Authenticator>, keyring: Arc<Keyring>, logs: impl Into<Logs>) -> Self {
        Self { authenticator, keyring, logs: logs.into() }
    }

    /// Whom a token speaks for, if it may have certificates.
    ///
    /// # Errors
    /// [`IssuingError::Token`] or [`IssuingError::Role`].
    pub async fn admit(&self, token: &str, now: Timestamp) -> Result<Principal, IssuingError> {
        let principal = self.authenticator.principal(token, now).await?;
        if principal.caller().may(&[Role::Builder]) {
            Ok(principal)
        } else {
            Err(IssuingError::Role(principal.caller().identity.clone()))
        }
    }

    /// Issues a certificate for `principal` over the key that is shown, and logs it.
    ///
    /// # Errors
    /// An [`IssuingError`]; the certificate, if there was one already, is forgotten.
    pub async fn issue(
        &self,
        principal: Principal,
        possession: Possession,
        now: Timestamp,
    ) -> Result<Issued, IssuingError> {
        let keyring = Arc::clone(&self.keyring);
        let Prepared { chain, leaf } =
            tokio::task::spawn_blocking(move || prepare(&keyring, &principal, possession, now))
                .await
                .map_err(|_lost| IssuingError::Interrupted)??;
        let drafts = || vec![Draft { leaf: leaf.clone(), payload: Vec::new() }];
        let (log, receipts) = self.logs.append(drafts).await?;
        let index = receipts.first().map(|receipt| receipt.index).ok_or(IssuingError::Interrupted)?;
        Ok(Issued { chain, entry: LogRef { origin: log.origin().to_owned(), index } })
    }

    /// The chains that issued certificates verify with, oldest first, each in PEM, the root last.
    pub fn trust_bundle(&self) -> Vec<Vec<String>> {
        self.keyring.public().ca_chains().map(<[String]>::to_vec).collect()
    }

    /// The issuers whose tokens are accepted.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.authenticator.issuers()
    }
}

fn prepare(
    keyring: &Keyring,
    principal: &Principal,
    possession: Possession,
    now: Timestamp,
) -> Result<Prepared, IssuingError> {
    let Shown { key, digest, signature } = show(principal, possession)?;
    principal.spend(now)?;
    let Caller { identity, extensions, .. } = principal.caller();
    let issued = keyring.issue_saying(identity, extensions, key.spki(), now)?;
    let leaf = leaf::entry(key.scheme(), &digest, &signature, Verifier::Certificate(&issued.certificate));
    let certificate = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &issued.certificate)
        .map_err(|_source| KeyError::Crypto("write PEM"))?;
    let chain = std::iter::once(certificate).chain(issued.chain.iter().cloned()).collect();
    Ok(Prepared { chain, leaf })
}

/// Checks that whoever has the token holds the key.
fn show(principal: &Principal, possession: Possession) -> Result<Shown, IssuingError> {
    let (key, signature) = match possession {
        Possession::Request(pem) => {
            let request = CertificateRequest::from_pem(&pem)?;
            let (digest, signature) = (request.digest().to_vec(), request.signature().to_vec());
            return Ok(Shown { key: request.key().clone(), digest, signature });
        }
        Possession::Proof { key: EncodedKey::Pem(pem), signature } => (PublicKey::from_pem(&pem)?, signature),
        Possession::Proof { key: EncodedKey::Der(der), signature } => (PublicKey::from_spki(&der)?, signature),
    };
    if principal.challenges().is_empty() {
        return Err(IssuingError::NoChallenge);
    }
    for (_, text) in principal.challenges() {
        let digest = key.scheme().digest(text.as_bytes());
        if key.verify_digest(&digest, &signature).is_ok() {
            return Ok(Shown { key, digest, signature });
        }
    }
    let names: Vec<_> = principal.challenges().iter().map(|(name, _)| *name).collect();
    Err(IssuingError::Proof { hash: hash_of(key.scheme()), claims: names.join(" or ") })
}

const fn hash_of(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::P384Sha384 => "SHA-384",
        Scheme::P521Sha512 => "SHA-512",
        Scheme::Ed25519Ph => "Ed25519ph",
        Scheme::P256Sha256 | Scheme::Rsa2048Sha256 | Scheme::Rsa3072Sha256 | Scheme::Rsa4096Sha256 => "SHA-256",
    }
}
