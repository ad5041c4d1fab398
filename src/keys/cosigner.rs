//! The keys of a witness: Ed25519 and ML-DSA-44 under one name, sealed like the keys of an instance.
//!
//! ```text
//! DIR/keys/                          0700, each file 0600
//!   cosigner.key       cosigner.pem        Ed25519; cosigns nothing but as this witness
//!   cosigner-pq.key    cosigner-pq.pem     ML-DSA-44
//!   manifest.json                          written last; its host is the witness's name
//! ```

use std::{fmt, path::Path};

use aws_lc_rs::{
    encoding::AsDer as _,
    signature::{Ed25519KeyPair, KeyPair as _, ML_DSA_44_SIGNING, PqdsaKeyPair},
};
use jiff::Timestamp;

use super::{Kek, KeyError, public_key, trust, vault::Vault};
use crate::tlog::{CosignerKey, NoteError, SignatureLine};

const ED25519: &str = "cosigner";
const ML_DSA_44: &str = "cosigner-pq";

/// The opened keys of one witness.
pub struct Cosigner {
    ed25519: Ed25519KeyPair,
    ml_dsa_44: PqdsaKeyPair,
    keys: [CosignerKey; 2],
}

impl Cosigner {
    /// Makes the keys of a new witness in `dir/keys`. `name` is a key name of `signed-note`, and can never change.
    ///
    /// # Errors
    /// [`KeyError::Host`] for a name that cannot be one, [`KeyError::Exists`], or an input/output failure.
    pub fn create(dir: &Path, kek: &Kek, name: &str, now: Timestamp) -> Result<(), KeyError> {
        let fresh = KeyError::Crypto("generate the witness's keys");
        let (Ok(ed25519), Ok(ml_dsa_44)) = (Ed25519KeyPair::generate(), PqdsaKeyPair::generate(&ML_DSA_44_SIGNING))
        else {
            return Err(fresh);
        };
        let keys = Self::keys_of(name, &ed25519, &ml_dsa_44)?;
        let mut vault = match Vault::create(dir, kek) {
            Err(KeyError::HalfMade(path)) => return Err(KeyError::NoCosigner(path)),
            made => made?,
        };
        let written = |_source| KeyError::Crypto("write the witness's keys");
        vault.put_key(ED25519, ed25519.to_pkcs8v1().map_err(written)?.as_ref())?;
        vault.put_public(ED25519, "PUBLIC KEY", &trust::ed25519_spki(&public_key(&ed25519)?))?;
        vault.put_key(ML_DSA_44, ml_dsa_44.to_pkcs8v1().map_err(written)?.as_ref())?;
        vault.put_public(ML_DSA_44, "PUBLIC KEY", ml_dsa_44.public_key().as_der().map_err(written)?.as_ref())?;
        vault.finish(keys.first().map_or(name, CosignerKey::name), now)
    }

    /// Opens the keys in `dir/keys`.
    ///
    /// # Errors
    /// [`KeyError::NoCosigner`], [`KeyError::WrongKek`], [`KeyError::Damaged`].
    pub fn open(dir: &Path, kek: &Kek) -> Result<Self, KeyError> {
        let vault = match Vault::open(dir, kek) {
            Err(KeyError::Missing(path) | KeyError::HalfMade(path)) => return Err(KeyError::NoCosigner(path)),
            opened => opened?,
        };
        let ed25519 = Ed25519KeyPair::from_pkcs8(&vault.key(ED25519)?)
            .map_err(|_source| vault.damaged(ED25519, "is not an Ed25519 key"))?;
        let ml_dsa_44 = PqdsaKeyPair::from_pkcs8(&ML_DSA_44_SIGNING, &vault.key(ML_DSA_44)?)
            .map_err(|_source| vault.damaged(ML_DSA_44, "is not an ML-DSA-44 key"))?;
        let keys = Self::keys_of(vault.host(), &ed25519, &ml_dsa_44)?;
        Ok(Self { ed25519, ml_dsa_44, keys })
    }

    fn keys_of(name: &str, ed25519: &Ed25519KeyPair, ml_dsa_44: &PqdsaKeyPair) -> Result<[CosignerKey; 2], KeyError> {
        let refuse = |_source| KeyError::Host {
            host: name.to_owned(),
            problem: "the name of a witness has 1 to 255 bytes, no spaces and no '+', as in witness.example.com/w1",
        };
        Ok([
            CosignerKey::ed25519(name, public_key(ed25519)?).map_err(refuse)?,
            CosignerKey::ml_dsa_44(name, ml_dsa_44.public_key().as_ref()).map_err(refuse)?,
        ])
    }

    /// The public sides: Ed25519 and ML-DSA-44.
    pub const fn keys(&self) -> &[CosignerKey; 2] {
        &self.keys
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        let [key, _] = &self.keys;
        key.name()
    }

    /// Cosigns the text of a checkpoint at `time`, in seconds since 1970, with each key.
    ///
    /// A checkpoint with extension lines is cosigned with Ed25519 alone: ML-DSA-44 does not sign them.
    pub fn cosign(&self, text: &str, time: u64) -> Result<Vec<SignatureLine>, NoteError> {
        let [ed25519, ml_dsa_44] = &self.keys;
        let plain = ed25519.cosign(text, time, |message| Some(self.ed25519.sign(message).as_ref().to_vec()))?;
        let post_quantum = ml_dsa_44.message(text, time).is_ok().then(|| {
            ml_dsa_44.cosign(text, time, |message| {
                let mut signature = vec![0; ML_DSA_44_SIGNING.signature_len()];
                self.ml_dsa_44.sign(message, &mut signature).is_ok().then_some(signature)
            })
        });
        Ok([Some(plain), post_quantum.transpose()?].into_iter().flatten().collect())
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cosigner").field("keys", &self.keys).finish_non_exhaustive()
    }
}
