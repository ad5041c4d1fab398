//! Private keys that never leave their token: a hardware module, a smart card or `SoftHSM`, through PKCS#11 (OASIS, 2.40
//! and later).
//!
//! A key is made on the token (`CKA_SENSITIVE`, not `CKA_EXTRACTABLE`), found again by label and id, and signs there:
//! ECDSA on P-256 and P-384 (`CKM_ECDSA` over a digest that we compute), and Ed25519 (`CKM_EDDSA`) where the module has it.
//! What comes back is verified before it is used, so that a token that signs with another key, or errs, is an error here
//! and not a signature that nobody can verify. In the sealed directory stands a [`KeyUri`] in place of the private key.
//!
//! Not here: which keys are on a token (`custody`), backup and cloning of tokens (their makers' tools), and a bound on
//! the time of one operation: a module that hangs holds up to [`sessions`]' number of threads, and everybody else is
//! refused after two seconds.

mod module;
mod pin;
mod sessions;

use std::{fmt, path::PathBuf, sync::Arc};

use aws_lc_rs::rand;
use const_oid::{
    ObjectIdentifier,
    db::rfc5912::{ID_EC_PUBLIC_KEY, SECP_256_R_1, SECP_384_R_1},
};
use cryptoki::{
    mechanism::{
        Mechanism, MechanismType,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
};
use der::{
    Any, Decode as _, Encode as _, Sequence,
    asn1::{BitString, OctetString, UintRef},
};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use self::sessions::{Open, Sessions, Trouble};
use super::{KeyError, ec::Curve, trust};
use crate::model::key_uri::KeyUri;
pub use pin::PinSource;

/// `edwards25519` as PKCS#11 v3.0 §2.3.10 names the curve, and its object identifier (RFC 8410); modules know one of them.
const EDWARDS25519: [&[u8]; 2] = [b"\x13\x0cedwards25519", b"\x06\x03\x2b\x65\x70"];

/// Which token, and how to get at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// The module's file, an absolute path.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// Where the PIN of the token's user comes from.
    pub pin: PinSource,
}

/// A token; clones are the same one.
#[derive(Clone)]
pub struct Token(Arc<Sessions>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("settings", self.0.settings()).finish_non_exhaustive()
    }
}

/// What a new key is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ecdsa(Curve),
    Ed25519,
}

/// `ECDSA-Sig-Value` (RFC 3279 §2.2.3).
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl Token {
    /// Loads the module and logs in once, so that what is wrong is said now.
    ///
    /// # Errors
    /// [`KeyError::Module`], [`KeyError::Pin`] or [`KeyError::Token`].
    pub fn open(settings: TokenSettings) -> Result<Self, KeyError> {
        let token = Self(Arc::new(Sessions::new(settings)?));
        token.0.with("be opened", |_open| Ok(()))?;
        Ok(token)
    }

    /// The token's label.
    pub fn label(&self) -> &str {
        &self.0.settings().token
    }

    /// Refuses unless the token makes Ed25519 keys and signs with them.
    pub(super) fn require_ed25519(&self) -> Result<(), KeyError> {
        let mechanisms = self.0.module().get_mechanism_list(self.0.slot()?);
        let mechanisms = mechanisms.map_err(|error| self.0.refuse(format!("does not say what it can do: {error}")))?;
        let wanted = [MechanismType::EDDSA, MechanismType::ECC_EDWARDS_KEY_PAIR_GEN];
        if wanted.iter().all(|wanted| mechanisms.contains(wanted)) {
            return Ok(());
        }
        Err(self.0.refuse(
            "does not sign with Ed25519 (CKM_EDDSA), which the log's key must be; leave `log` out of the keys that are \
             to be on the token, and it is sealed in a file",
        ))
    }

    /// Makes a key that cannot leave the token.
    pub(super) fn generate(&self, kind: Kind, object: &str) -> Result<KeyUri, KeyError> {
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(|_source| KeyError::Crypto("draw random bytes"))?;
        let _hold = self.0.hold();
        let session = self.0.writing()?;
        let failed = |error| self.0.refuse(format!("cannot make a key: {error}"));
        let (public, private) = match kind {
            Kind::Ecdsa(curve) => {
                make(&session, &Mechanism::EccKeyPairGen, oid(curve).to_der()?, object, &id).map_err(failed)?
            }
            Kind::Ed25519 => {
                self.require_ed25519()?;
                let [name, oid] = EDWARDS25519;
                let mechanism = Mechanism::EccEdwardsKeyPairGen;
                make(&session, &mechanism, name.to_vec(), object, &id)
                    .or_else(|_unknown| make(&session, &mechanism, oid.to_vec(), object, &id))
                    .map_err(failed)?
            }
        };
        let kept = session.get_attributes(private, &[AttributeType::Sensitive, AttributeType::Extractable]);
        let kept = kept.map_err(failed)?;
        if !kept.contains(&Attribute::Sensitive(true)) || !kept.contains(&Attribute::Extractable(false)) {
            return Err(self.0.refuse("made a key that could leave it, although it was told not to; it is not used"));
        }
        let spki = self.public_key(&session, public, kind)?;
        Ok(KeyUri { token: self.label().to_owned(), object: object.to_owned(), id: id.to_vec(), spki })
    }

    /// Refuses unless the key is there, with the public key that it was made with.
    pub(super) fn check(&self, kind: Kind, key: &KeyUri) -> Result<(), KeyError> {
        self.0.with("look for a key", |open| {
            self.find(open, ObjectClass::PRIVATE_KEY, key)?;
            let public = self.find(open, ObjectClass::PUBLIC_KEY, key)?;
            if self.public_key(&open.session, public, kind)? == key.spki {
                return Ok(());
            }
            Err(self
                .0
                .refuse(format!("has another key under the name {:?}; bring back the one that was made", key.object))
                .into())
        })
    }

    /// ECDSA over a digest, in ASN.1 DER.
    pub(super) fn sign_digest(&self, key: &KeyUri, digest: &[u8]) -> Result<Vec<u8>, KeyError> {
        let raw = self.sign(key, &Mechanism::Ecdsa, digest)?;
        let (r, s) = raw.split_at_checked(raw.len() / 2).unwrap_or_default();
        Ok(EcdsaSignature { r: UintRef::new(r)?, s: UintRef::new(s)? }.to_der()?)
    }

    /// Ed25519 (RFC 8032) over a message.
    pub(super) fn sign_ed25519(&self, key: &KeyUri, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sign(key, &Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), message)
    }

    /// The refusal of a signature that does not verify.
    pub(super) fn signed_wrongly(&self, key: &KeyUri) -> KeyError {
        self.0.refuse(format!("gave a signature that is not by the key {:?}; it is not used", key.object))
    }

    fn sign(&self, key: &KeyUri, mechanism: &Mechanism<'_>, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.with("sign", |open| {
            let handle = match open.handles.get(&key.id) {
                Some(known) => *known,
                None => self.find(open, ObjectClass::PRIVATE_KEY, key)?,
            };
            let signature = open.session.sign(mechanism, handle, data)?;
            open.handles.insert(key.id.clone(), handle);
            Ok(signature)
        })
    }

    /// The one object of this class under the key's label and id.
    fn find(&self, open: &Open, class: ObjectClass, key: &KeyUri) -> Result<ObjectHandle, Trouble> {
        let template = [
            Attribute::Class(class),
            Attribute::Token(true),
            Attribute::Label(key.object.as_bytes().to_vec()),
            Attribute::Id(key.id.clone()),
        ];
        match open.session.find_objects(&template)?.as_slice() {
            [found] => Ok(*found),
            [] => {
                let problem = format!("has no key {:?}; bring it back, or the right token", key.object);
                Err(Trouble::Gone(self.0.refuse(problem)))
            }
            _ => Err(self.0.refuse(format!("has the key {:?} more than once", key.object)).into()),
        }
    }

    /// A public key of the token as `SubjectPublicKeyInfo`, DER.
    fn public_key(&self, session: &Session, handle: ObjectHandle, kind: Kind) -> Result<Vec<u8>, KeyError> {
        let attributes = session.get_attributes(handle, &[AttributeType::EcPoint]);
        let attributes = attributes.map_err(|error| self.0.refuse(format!("does not show a public key: {error}")))?;
        let Some(Attribute::EcPoint(point)) = attributes.into_iter().next() else {
            return Err(self.0.refuse("does not show a public key"));
        };
        // An OCTET STRING by the standard; some modules give what is in it.
        let point = OctetString::from_der(&point).map_or(point.clone(), OctetString::into_bytes);
        spki_of(kind, &point)?.ok_or_else(|| self.0.refuse("shows a public key of another kind than was asked for"))
    }
}

fn make(
    session: &Session,
    mechanism: &Mechanism<'_>,
    curve: Vec<u8>,
    object: &str,
    id: &[u8],
) -> Result<(ObjectHandle, ObjectHandle), cryptoki::error::Error> {
    let named = [Attribute::Token(true), Attribute::Label(object.as_bytes().to_vec()), Attribute::Id(id.to_vec())];
    let mut public = named.to_vec();
    public.extend([Attribute::Private(false), Attribute::Verify(true), Attribute::EcParams(curve)]);
    let mut private = named.to_vec();
    private.extend([
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
    ]);
    session.generate_key_pair(mechanism, &public, &private)
}

const fn oid(curve: Curve) -> ObjectIdentifier {
    match curve {
        Curve::P256 => SECP_256_R_1,
        Curve::P384 => SECP_384_R_1,
    }
}

/// `None` when the point has not the form of its kind.
fn spki_of(kind: Kind, point: &[u8]) -> Result<Option<Vec<u8>>, KeyError> {
    let (curve, length) = match kind {
        Kind::Ed25519 => return Ok(point.try_into().ok().map(trust::ed25519_spki)),
        Kind::Ecdsa(Curve::P256) => (Curve::P256, 65),
        Kind::Ecdsa(Curve::P384) => (Curve::P384, 97),
    };
    if point.len() != length || point.first() != Some(&4) {
        return Ok(None);
    }
    let algorithm =
        AlgorithmIdentifierOwned { oid: ID_EC_PUBLIC_KEY, parameters: Some(Any::encode_from(&oid(curve))?) };
    Ok(Some(SubjectPublicKeyInfoOwned { algorithm, subject_public_key: BitString::from_bytes(point)? }.to_der()?))
}
