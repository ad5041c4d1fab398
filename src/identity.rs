//! Who is calling: OIDC tokens and mutual TLS; claims to roles.
//!
//! [`Authenticator::authenticate`] turns what a listener was given ([`Credentials`]) into a [`Caller`], or says why not
//! in a [`Refusal`]. A token wins over a client certificate: who sends one means it. An identity without a role is
//! refused like no identity. Whoever wants a certificate over a key of their own has a token, and
//! [`Authenticator::principal`] also says over which of its claims they may prove to hold the key.
//!
//! Tokens of an issuer with `single_use` count once: whoever turns one into a certificate or a signature spends it first
//! ([`SingleUse`], [`Principal::spend`]). Calls that sign nothing may be made with it again.
//!
//! Not here: what a role may do (the faces ask for roles), the TLS handshake (the server verifies the chain of a client
//! certificate before its leaf gets here), and signing certificates. Time is a parameter. Nothing of a token is ever
//! printed, in messages or logs: what a refusal names was configured here or was verified before.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

use crate::model::{
    Caller, Extensions, Identity, limits,
    token::{Claims, Unverified},
};

mod issuer;
mod mapping;
mod peer;
mod rules;
mod settings;
mod single_use;
mod subject;
mod token;

pub use peer::peer_identity;
pub use settings::{Issuer, Rule, Settings, SubjectForm};
pub use single_use::{SingleUse, Spent};

use issuer::Keys;
use mapping::Mapping;
use rules::Rules;

/// What a listener was given by a caller.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The token of an `authorization: Bearer …` header, without the scheme.
    pub bearer: Option<String>,
    /// The leaf certificate (DER) of a TLS client whose chain the handshake has verified.
    pub peer: Option<Vec<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("bearer", &self.bearer.as_ref().map(|_| "[redacted]"))
            .field("peer", &self.peer.as_ref().map(Vec::len))
            .finish()
    }
}

/// Why the settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// An issuer's entry is wrong.
    #[error("identity.issuers[{index}] ({url}): {problem}")]
    Issuer {
        /// Its place in the list, from 0.
        index: usize,
        /// Its URL, as written.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A rule is wrong.
    #[error("identity.rules[{index}]: {problem}")]
    Rule {
        /// Its place in the list, from 0.
        index: usize,
        /// The field, and what is wrong with it.
        problem: String,
    },
    /// The client CA file is wrong.
    #[error("identity.client_ca_file: {0}")]
    ClientCa(String),
    /// The mutual-TLS issuer is wrong.
    #[error("identity.mtls_issuer {0}")]
    MtlsIssuer(&'static str),
}

/// Why a caller was not let in: what was wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither token nor certificate.
    #[error(
        "no token and no client certificate were sent; send `authorization: Bearer <OIDC token>` or use mutual TLS"
    )]
    Missing,
    /// Over [`limits::TOKEN`].
    #[error("credentials are too large; a token may have {} bytes", limits::TOKEN)]
    TooLarge,
    /// Not a token that can be read.
    #[error("token is malformed: {0}; send the OIDC token as the issuer gave it")]
    Malformed(&'static str),
    /// The signature algorithm is not allowed, at all or for this key.
    #[error(
        "token's algorithm is not accepted, or not that of its key; \
         have it signed with RS256, RS384, RS512, PS256, ES256, ES384 or EdDSA"
    )]
    Algorithm,
    /// Nobody configured issued it.
    #[error("token is from an issuer that is not configured; an admin can add it under [[identity.issuers]]")]
    UnknownIssuer,
    /// The issuer has no such key.
    #[error("token names a key that its issuer does not publish; get a new token")]
    UnknownKey,
    /// The signature does not verify.
    #[error("token's signature does not verify; get a new token")]
    Signature,
    /// Its time is over.
    #[error("credentials have expired; get new ones")]
    Expired,
    /// Its time has not come.
    #[error("credentials are not valid yet; check this machine's clock and the issuer's")]
    NotYetValid,
    /// Meant for somebody else.
    #[error("token is for another audience; ask the issuer for one with audience {wanted:?}")]
    Audience {
        /// The audiences that are configured for this issuer.
        wanted: String,
    },
    /// A claim is missing or wrong.
    #[error("token's claim {claim:?} {problem}")]
    Claim {
        /// The claim's name.
        claim: String,
        /// What it must be, and what to do.
        problem: &'static str,
    },
    /// The client certificate does not say who it is.
    #[error("client certificate cannot be used: {0}; issue one with exactly one SPIFFE ID, URI or DNS name")]
    Certificate(&'static str),
    /// Somebody known, for whom no rule has a role.
    #[error("{identity} holds no role; an admin can add a rule for it under [[identity.rules]]")]
    NoRole {
        /// Who it is.
        identity: Identity,
    },
    /// It counts once, and was used.
    #[error(
        "token was used already, and each of this issuer counts for one certificate or call that signs (single_use); get a \
         new token for each"
    )]
    Replayed,
    /// It counts once, and no more can be remembered.
    #[error(
        "tokens of issuer {issuer} count once (single_use), and {room} that were used are remembered, which is the most; \
         try again when some of them have expired"
    )]
    TooManyTokens {
        /// The configured URL.
        issuer: String,
        /// How many are remembered.
        room: usize,
    },
    /// The issuer could not be asked for its keys.
    #[error("keys of issuer {issuer} cannot be fetched at the moment; try again, and check that the issuer answers")]
    IssuerUnavailable {
        /// The configured URL.
        issuer: String,
    },
}

impl Refusal {
    /// The reason in upper case, for `google.rpc.ErrorInfo`.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "CREDENTIALS_MISSING",
            Self::TooLarge => "CREDENTIALS_TOO_LARGE",
            Self::Malformed(_) => "TOKEN_MALFORMED",
            Self::Algorithm => "TOKEN_ALGORITHM",
            Self::UnknownIssuer => "ISSUER_UNKNOWN",
            Self::UnknownKey => "KEY_UNKNOWN",
            Self::Signature => "TOKEN_SIGNATURE",
            Self::Expired => "CREDENTIALS_EXPIRED",
            Self::NotYetValid => "CREDENTIALS_NOT_YET_VALID",
            Self::Audience { .. } => "TOKEN_AUDIENCE",
            Self::Claim { .. } => "TOKEN_CLAIM",
            Self::Certificate(_) => "CERTIFICATE_UNUSABLE",
            Self::NoRole { .. } => "ROLE_NONE",
            Self::Replayed => "TOKEN_REPLAYED",
            Self::TooManyTokens { .. } => "TOKENS_TOO_MANY",
            Self::IssuerUnavailable { .. } => "ISSUER_UNAVAILABLE",
        }
    }

    fn claim(claim: &str, problem: &'static str) -> Self {
        Self::Claim { claim: claim.to_owned(), problem }
    }
}

/// Whom a verified token speaks for.
///
/// Only [`Authenticator::principal`] makes one, so holding one is the evidence that the token was good.
#[derive(Debug, Clone)]
pub struct Principal {
    caller: Caller,
    challenges: Vec<(&'static str, String)>,
    single_use: Option<SingleUse>,
}

impl Principal {
    /// Who it is and what it may do.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The claims over which its holder may prove to hold a key, with their values; the usual one first.
    pub fn challenges(&self) -> &[(&'static str, String)] {
        &self.challenges
    }

    /// Uses the token, if its issuer's count once; see [`SingleUse::spend`].
    ///
    /// # Errors
    /// Those of [`SingleUse::spend`].
    pub fn spend(&self, now: Timestamp) -> Result<(), Refusal> {
        self.single_use.as_ref().map_or(Ok(()), |token| token.spend(now))
    }
}

/// A configured issuer.
#[derive(Debug)]
struct Known {
    settings: Issuer,
    keys: Keys,
    mapping: Mapping,
    /// The tokens that were used, if each counts once.
    spent: Option<Arc<Spent>>,
}

/// A token that was verified, with what it says.
struct Bearer<'a> {
    issuer: &'a Known,
    identity: Identity,
    claims: Claims,
    single_use: Option<SingleUse>,
}

/// Knows the issuers and the rules.
#[derive(Debug)]
pub struct Authenticator {
    issuers: Vec<Known>,
    mtls_issuer: String,
    rules: Rules,
}

impl Authenticator {
    /// Checks the settings and reads the files that they name. Nothing is fetched yet: an issuer that is down does not
    /// keep the service from starting.
    ///
    /// # Errors
    /// An [`IdentityError`] that names the first entry that is wrong.
    pub fn new(settings: &Settings) -> Result<Self, IdentityError> {
        // The first to come sets the provider of the process; all of us want this one, and none may be guessed.
        if jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default().is_err() {
            tracing::trace!("the token library's cryptography is set already");
        }
        if settings.mtls_issuer.is_empty() || settings.mtls_issuer.len() > limits::URI {
            return Err(IdentityError::MtlsIssuer("is empty or too long; leave it out for the default"));
        }
        if let Some(path) = &settings.client_ca_file {
            let pem = issuer::read(path).map_err(IdentityError::ClientCa)?;
            let certificates = x509_cert::Certificate::load_pem_chain(&pem).map_err(|source| source.to_string());
            if certificates.map_err(IdentityError::ClientCa)?.is_empty() {
                return Err(IdentityError::ClientCa(format!("{} holds no certificate", path.display())));
            }
        }
        let mut issuers: Vec<Known> = Vec::new();
        for (index, entry) in settings.issuers.iter().enumerate() {
            let wrong = |problem: String| IdentityError::Issuer { index, url: entry.url.clone(), problem };
            if entry.url == settings.mtls_issuer {
                return Err(wrong("is also the mtls_issuer; tokens and certificates would be mixed up".to_owned()));
            }
            if issuers.iter().any(|known| known.settings.url == entry.url) {
                return Err(wrong("is listed twice".to_owned()));
            }
            if entry.audience.is_empty() || entry.audience.iter().any(String::is_empty) {
                return Err(wrong("audience is empty; leave it out for the default".to_owned()));
            }
            subject::check(entry).map_err(wrong)?;
            let mapping = Mapping::compile(entry).map_err(wrong)?;
            let (keys, spent) = (Keys::open(entry).map_err(wrong)?, entry.single_use.then(|| Spent::of(&entry.url)));
            issuers.push(Known { settings: entry.clone(), keys, mapping, spent });
        }
        Ok(Self { issuers, mtls_issuer: settings.mtls_issuer.clone(), rules: Rules::compile(&settings.rules)? })
    }

    /// Who is calling, and what they may do.
    ///
    /// # Errors
    /// A [`Refusal`], which is a result to report to the caller, not a failure of ours.
    pub async fn authenticate(&self, credentials: Credentials, now: Timestamp) -> Result<Caller, Refusal> {
        self.recognise(credentials, now).await.map(|(caller, _token)| caller)
    }

    /// The same, with the token to be spent by calls that sign, if it counts once.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn recognise(
        &self,
        credentials: Credentials,
        now: Timestamp,
    ) -> Result<(Caller, Option<SingleUse>), Refusal> {
        match (credentials.bearer, credentials.peer) {
            (Some(token), _) => {
                let Bearer { issuer, identity, claims, single_use } = self.bearer(&token, now).await?;
                Ok((self.caller(identity, &claims, issuer.mapping.extensions(&claims)?)?, single_use))
            }
            (None, Some(leaf)) => {
                let identity = peer_identity(&leaf, &self.mtls_issuer, now)?;
                Ok((self.caller(identity, &Claims::new(), Extensions::default())?, None))
            }
            (None, None) => Err(Refusal::Missing),
        }
    }

    /// Whom a token speaks for.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn principal(&self, token: &str, now: Timestamp) -> Result<Principal, Refusal> {
        let Bearer { issuer, identity, claims, single_use } = self.bearer(token, now).await?;
        let challenges = subject::challenges(issuer.settings.subject, &claims);
        let caller = self.caller(identity, &claims, issuer.mapping.extensions(&claims)?)?;
        Ok(Principal { caller, challenges, single_use })
    }

    /// The configured issuers.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.issuers.iter().map(|known| &known.settings)
    }

    fn caller(&self, identity: Identity, claims: &Claims, extensions: Extensions) -> Result<Caller, Refusal> {
        let roles = self.rules.roles(&identity, claims);
        if roles.is_empty() {
            return Err(Refusal::NoRole { identity });
        }
        let keys = self.rules.keys(&identity, claims);
        Ok(Caller { identity, roles, extensions, keys })
    }

    async fn bearer(&self, token: &str, now: Timestamp) -> Result<Bearer<'_>, Refusal> {
        let token = Unverified::parse(token)?;
        let url = token.issuer().ok_or_else(|| Refusal::claim("iss", "must be the issuer's URL"))?;
        let issuer = self.issuers.iter().find(|known| known.settings.url == url).ok_or(Refusal::UnknownIssuer)?;
        let key = issuer.keys.key(token.kid.as_deref(), token.algorithm, now).await?;
        let digest = token.digest();
        let claims = token.verify(&key)?;
        let ends = token::check_claims(&claims, &issuer.settings, now)?;
        let subject = subject::subject(&issuer.settings, &claims)?;
        let identity = Identity { subject, issuer: issuer.settings.url.clone() };
        let single_use = issuer.spent.as_ref().map(|spent| spent.token(digest, ends));
        Ok(Bearer { issuer, identity, claims, single_use })
    }
}
