//! Which key on which token: a PKCS#11 URI (RFC 7512), with the public key beside it.
//!
//! ```text
//! pkcs11:token=ca%20token;object=countersign:sign.example.org:ca;id=%8a%01…;type=private?x-spki=MHYw…
//! ```
//!
//! Where a key is on a token, this stands in its sealed file in place of the private key. The public key is there so
//! that a keyring can be opened without the token, and so that another key under the same name is noticed. Module and PIN
//! are not in it: they belong to the machine, and change with it. Only what is written here is read here; it is not a
//! parser for URIs from elsewhere.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// What the text begins with. No PKCS#8 structure does.
pub const SCHEME: &str = "pkcs11:";

/// One private key on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUri {
    /// The token's label.
    pub token: String,
    /// `CKA_LABEL`.
    pub object: String,
    /// `CKA_ID`.
    pub id: Vec<u8>,
    /// The public side, a `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
}

impl KeyUri {
    /// Reads what [`fmt::Display`] writes, and nothing else: what parses prints back the same.
    pub fn parse(whole: &[u8]) -> Option<Self> {
        let text = str::from_utf8(whole).ok()?.strip_prefix(SCHEME)?;
        let (path, query) = text.split_once('?')?;
        let mut parts = path.split(';');
        let mut part = |name: &str| decode(parts.next()?.strip_prefix(name)?.strip_prefix('=')?);
        let (token, object, id) = (part("token")?, part("object")?, part("id")?);
        if part("type")? != b"private" || parts.next().is_some() {
            return None;
        }
        let spki = URL_SAFE_NO_PAD.decode(query.strip_prefix("x-spki=")?).ok()?;
        let uri = Self { token: String::from_utf8(token).ok()?, object: String::from_utf8(object).ok()?, id, spki };
        // Percent signs could be spelled in other ways.
        (uri.to_string().as_bytes() == whole).then_some(uri)
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id: String = self.id.iter().map(|byte| format!("%{byte:02x}")).collect();
        let (token, object) = (encode(&self.token), encode(&self.object));
        let spki = URL_SAFE_NO_PAD.encode(&self.spki);
        write!(f, "{SCHEME}token={token};object={object};id={id};type=private?x-spki={spki}")
    }
}

/// Percent-encodes what RFC 7512 does not let stand in a value of the path.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,=&".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            decoded.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}
