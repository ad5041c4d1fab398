//! Looks for private keys in the bytes of a directory. What to look for comes out of the sealed files, opened by their
//! documented format and without our code.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A private key: the whole structure, and the scalar or seed in it.
pub struct Secret {
    pub name: String,
    pub pkcs8: Vec<u8>,
    pub scalar: Vec<u8>,
}

/// What every sealed file below `data` holds, by role.
pub fn unsealed(data: &Path, kek: &str) -> Vec<(String, Vec<u8>)> {
    let kek = STANDARD.decode(kek.trim()).unwrap();
    let mut found = Vec::new();
    for folder in ["keys", "managed"] {
        let Ok(entries) = fs::read_dir(data.join(folder)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_none_or(|ending| ending != "key") {
                continue;
            }
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let role =
                if folder == "managed" { format!("managed/{}", stem.replacen('.', "/", 1)) } else { stem.to_owned() };
            found.push((role.clone(), unseal(&kek, &role, &fs::read(&path).unwrap())));
        }
    }
    found.sort();
    found
}

/// The private keys among them; what names a key on a token is none.
pub fn secrets(data: &Path, kek: &str) -> Vec<Secret> {
    let private = |(_, body): &(String, Vec<u8>)| !body.starts_with(b"pkcs11:");
    unsealed(data, kek).into_iter().filter(private).map(|(name, pkcs8)| secret(name, pkcs8)).collect()
}

fn secret(name: String, pkcs8: Vec<u8>) -> Secret {
    // The scalar or seed starts after a fixed header, as an OCTET STRING.
    let scalar = match pkcs8.len() {
        48 => &pkcs8[16..48],
        138 => &pkcs8[36..68],
        185 => &pkcs8[35..83],
        length => panic!("{name} has {length} bytes"),
    };
    let tagged = [&[4, scalar.len() as u8], scalar].concat();
    assert!(pkcs8.windows(tagged.len()).any(|part| part == tagged), "{name}: an OCTET STRING starts there");
    let scalar = scalar.to_vec();
    Secret { name, pkcs8, scalar }
}

/// AES-256-GCM under HKDF-SHA256 of the key-encryption key, with the role in both.
pub fn unseal(kek: &[u8], role: &str, sealed: &[u8]) -> Vec<u8> {
    use aws_lc_rs::{aead, hkdf};
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let (magic, rest) = sealed.split_at(8);
    assert_eq!(magic, b"csealed\x01");
    let mut key = [0; 32];
    let purpose = format!("seal {role}");
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"countersign sealed keys v1").extract(kek);
    secret.expand(&[purpose.as_bytes()], Length).unwrap().fill(&mut key).unwrap();
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).unwrap());
    let mut body = rest[12..].to_vec();
    let nonce = aead::Nonce::try_assume_unique_for_key(&rest[..12]).unwrap();
    let associated = [magic, role.as_bytes()].concat();
    key.open_in_place(nonce, aead::Aad::from(associated), &mut body).unwrap().to_vec()
}

/// How a secret could stand in a file: as bytes, in hexadecimal of either case, in base64 of any alignment.
pub fn forms(secret: &Secret) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for bytes in [&secret.pkcs8, &secret.scalar] {
        forms.push(bytes.clone());
        forms.push(hex::encode(bytes).into_bytes());
        forms.push(hex::encode_upper(bytes).into_bytes());
        for skipped in 0..3 {
            // The characters at the ends depend on the neighbours; those between are the same wherever it stands.
            let text = STANDARD.encode(&bytes[skipped..]);
            forms.push(text.as_bytes()[..text.len() - 4].to_vec());
        }
    }
    forms
}

/// Which of them stand in which file below `data`.
pub fn found(data: &Path, secrets: &[Secret]) -> Vec<String> {
    let wanted: Vec<(&str, Vec<u8>)> =
        secrets.iter().flat_map(|secret| forms(secret).into_iter().map(|form| (secret.name.as_str(), form))).collect();
    // One pass for all: a database has many megabytes.
    let literal = |form: &[u8]| form.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let any = wanted.iter().map(|(_, form)| literal(form)).collect::<Vec<_>>().join("|");
    let any = regex::bytes::RegexBuilder::new(&any).unicode(false).size_limit(64 << 20).build().unwrap();
    let (mut folders, mut found, mut files) = (vec![data.to_owned()], Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            // A running database may take a file away meanwhile.
            let Ok(bytes) = fs::read(entry.path()) else { continue };
            files += 1;
            for hit in any.find_iter(&bytes) {
                let names = wanted.iter().filter(|(_, form)| form == hit.as_bytes()).map(|(name, _)| name);
                found.extend(names.map(|name| format!("{name} in {}", entry.path().display())));
            }
        }
    }
    assert!(files > 0, "nothing was searched");
    found.sort();
    found.dedup();
    found
}
