//! Log leaves: the canonical Rekor v2 `hashedrekord` 0.0.2 entry.
//!
//! Stock clients rebuild these bytes from a bundle and hash them, so they are exactly the JCS (RFC 8785) form: sorted
//! keys, no white space. All values are base64 or fixed words, so that nothing needs escaping.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Digest, public_key::Scheme};

/// By what an entry's signature verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verifier<'a> {
    /// A signing certificate, DER.
    Certificate(&'a [u8]),
    /// A `SubjectPublicKeyInfo`, DER.
    Key(&'a [u8]),
}

/// The leaf of a signature by the holder of a certificate over a P-256 key.
///
/// `digest` is what was signed: of the DSSE pre-authentication encoding, or of the file. `signature` is the ASN.1
/// DER signature, `certificate_der` the signing certificate.
pub fn hashedrekord(digest: &Digest, signature: &[u8], certificate_der: &[u8]) -> Vec<u8> {
    entry(Scheme::P256Sha256, digest.as_bytes(), signature, Verifier::Certificate(certificate_der))
}

/// The leaf of a signature by a bare P-256 key; `spki_der` is its SubjectPublicKeyInfo.
pub fn hashedrekord_with_key(digest: &Digest, signature: &[u8], spki_der: &[u8]) -> Vec<u8> {
    entry(Scheme::P256Sha256, digest.as_bytes(), signature, Verifier::Key(spki_der))
}

/// The leaf of any signature: `digest` is by the hash of `scheme`, `signature` as the scheme writes it.
pub fn entry(scheme: Scheme, digest: &[u8], signature: &[u8], verifier: Verifier<'_>) -> Vec<u8> {
    let (kind, der) = match verifier {
        Verifier::Certificate(der) => ("x509Certificate", der),
        Verifier::Key(der) => ("publicKey", der),
    };
    // "keyDetails" sorts before both "publicKey" and "x509Certificate".
    format!(
        concat!(
            r#"{{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{{"hashedRekordV002":{{"#,
            r#""data":{{"algorithm":"{}","digest":"{}"}},"#,
            r#""signature":{{"content":"{}","verifier":{{"keyDetails":"{}","{}":{{"rawBytes":"{}"}}}}}}}}}}}}"#
        ),
        scheme.hash(),
        STANDARD.encode(digest),
        STANDARD.encode(signature),
        scheme.details(),
        kind,
        STANDARD.encode(der),
    )
    .into_bytes()
}
