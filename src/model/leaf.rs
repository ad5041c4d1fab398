//! Log leaves: the canonical Rekor v2 `hashedrekord` 0.0.2 entry.
//!
//! Stock clients rebuild these bytes from a bundle and hash them, so they are exactly the JCS (RFC 8785) form: sorted
//! keys, no white space. All values are base64 or fixed words, so that nothing needs escaping. P-256 with SHA-256
//! only, which is what this program signs with.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::Digest;

/// The key type that every leaf of ours names.
const KEY_DETAILS: &str = "PKIX_ECDSA_P256_SHA_256";

/// The leaf of a signature by the holder of a certificate.
///
/// `digest` is what was signed: of the DSSE pre-authentication encoding, or of the file. `signature` is the ASN.1
/// DER signature, `certificate_der` the signing certificate.
pub fn hashedrekord(digest: &Digest, signature: &[u8], certificate_der: &[u8]) -> Vec<u8> {
    let verifier = format!(r#""x509Certificate":{{"rawBytes":"{}"}}"#, STANDARD.encode(certificate_der));
    leaf(digest, signature, &verifier)
}

/// The leaf of a signature by a bare key; `spki_der` is its SubjectPublicKeyInfo.
pub fn hashedrekord_with_key(digest: &Digest, signature: &[u8], spki_der: &[u8]) -> Vec<u8> {
    let verifier = format!(r#""publicKey":{{"rawBytes":"{}"}}"#, STANDARD.encode(spki_der));
    leaf(digest, signature, &verifier)
}

fn leaf(digest: &Digest, signature: &[u8], verifier: &str) -> Vec<u8> {
    // "keyDetails" sorts before both "publicKey" and "x509Certificate".
    format!(
        concat!(
            r#"{{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{{"hashedRekordV002":{{"#,
            r#""data":{{"algorithm":"SHA2_256","digest":"{}"}},"#,
            r#""signature":{{"content":"{}","verifier":{{"keyDetails":"{}",{}}}}}}}}}}}"#
        ),
        STANDARD.encode(digest.as_bytes()),
        STANDARD.encode(signature),
        KEY_DETAILS,
        verifier
    )
    .into_bytes()
}
