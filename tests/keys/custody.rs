//! Directories and key-encryption keys: made, opened, refused.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    keys::{Kek, KekSource, KeyError, Keyring, Public, check_host},
    model::{Digest, TrustedRoot, verify::verify},
};

use super::{Content, HOST, builder, bundle, kek, keyring, now};
use crate::key_service::search::unseal;

#[test]
fn the_directory_is_tight_and_is_never_made_twice() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("keys")), 0o700);
    let files: Vec<_> = fs::read_dir(dir.path().join("keys")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 19);
    assert!(files.iter().all(|file| mode(file) == 0o600));
    assert!(matches!(Keyring::create(dir.path(), &kek(), HOST, now()), Err(KeyError::Exists(_))));

    keys.require_host(HOST).unwrap();
    assert!(matches!(keys.require_host("other.example.org"), Err(KeyError::WrongHost { .. })));
    let public = Public::open(dir.path()).unwrap();
    assert_eq!(public.trusted_root(), &*keys.trusted_root());
    assert_eq!(public.expiries(now()).len(), 5);
    assert_eq!(format!("{keys:?} {:?}", kek()), r#"Keyring { host: "sign.example.org", .. } Kek(..)"#);
}

#[test]
fn directories_that_cannot_be_opened_say_why() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::Missing(_))));
    let keys = dir.path().join("keys");
    drop(keyring(dir.path(), now()));
    let other = Kek::parse(&[200; 32]).unwrap();
    assert!(matches!(Keyring::open(dir.path(), &other), Err(KeyError::WrongKek(_))));

    // Every file, with one byte changed in its middle, cut short, or gone.
    let files: Vec<_> = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in files.iter().filter(|file| !file.ends_with("manifest.json")) {
        let whole = fs::read(file).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        for bytes in [&changed, &whole[..whole.len() - 1]] {
            fs::write(file, bytes).unwrap();
            let refused = Keyring::open(dir.path(), &kek()).unwrap_err();
            assert!(matches!(refused, KeyError::Damaged { .. }), "{}: {refused}", file.display());
        }
        fs::remove_file(file).unwrap();
        assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::Damaged { .. })));
        fs::write(file, whole).unwrap();
    }
    // A manifest that names another host, and one of a later format.
    let manifest = fs::read_to_string(keys.join("manifest.json")).unwrap();
    fs::write(keys.join("manifest.json"), manifest.replace(HOST, "evil.example.org")).unwrap();
    assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::Damaged { problem: "was changed", .. })));
    fs::write(keys.join("manifest.json"), manifest.replace(r#""format": 1"#, r#""format": 2"#)).unwrap();
    assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::Format { found: 2, .. })));
    fs::write(keys.join("manifest.json"), &manifest).unwrap();
    Keyring::open(dir.path(), &kek()).unwrap();

    fs::remove_file(keys.join("manifest.json")).unwrap();
    assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::HalfMade(_))));
    assert!(matches!(Keyring::create(dir.path(), &kek(), HOST, now()), Err(KeyError::HalfMade(_))));
}

/// Directories of every released format open for ever. This one was sealed with a key-encryption key of 32 times 7.
#[test]
fn directories_of_format_1_open() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keys-v1");
    let keys = Keyring::open(&dir, &kek()).unwrap();
    assert_eq!(*keys.trusted_root(), *fs::read_to_string(dir.join("trusted_root.json")).unwrap());
    let root = TrustedRoot::parse(&keys.trusted_root()).unwrap();
    let bundle = bundle(&keys, &builder(), &Content::File(b"artifact"), now()).to_string();
    verify(bundle.as_bytes(), &Digest::of(b"artifact"), &root).unwrap();
}

#[test]
fn no_private_key_lies_open_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    drop(keyring(dir.path(), now()));
    let files: Vec<(String, Vec<u8>)> = fs::read_dir(dir.path().join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect();
    let mut secrets = Vec::new();
    for (name, sealed) in files.iter().filter(|(name, _)| Path::new(name).extension().is_some_and(|end| end == "key")) {
        let pkcs8 = unseal(&[7; 32], name.trim_end_matches(".key"), sealed);
        // The scalar or seed: the last 32 or 48 bytes of the private part, which starts after a fixed header.
        let scalar = match pkcs8.len() {
            48 => &pkcs8[16..48],
            138 => &pkcs8[36..68],
            185 => &pkcs8[35..83],
            length => panic!("{name} has {length} bytes"),
        };
        let before =
            pkcs8.windows(scalar.len() + 2).any(|part| part[..2] == [4, scalar.len() as u8] && &part[2..] == scalar);
        assert!(before, "an OCTET STRING of that length starts there");
        secrets.push(scalar.to_vec());
        secrets.push(pkcs8);
    }
    assert_eq!(secrets.len(), 18);
    let contains = |whole: &[u8], part: &[u8]| whole.windows(part.len()).any(|window| window == part);
    for secret in &secrets {
        assert!(contains(&secrets.concat(), secret), "the search finds what is there");
        for (name, bytes) in &files {
            let text = String::from_utf8_lossy(bytes);
            assert!(!contains(bytes, secret), "{name}");
            assert!(!text.contains(&hex::encode(secret)) && !text.contains(&STANDARD.encode(secret)), "{name}");
        }
    }
}

#[test]
fn key_encryption_keys_are_read_or_refused() {
    let hex = "ab".repeat(32);
    let base64 = STANDARD.encode([0xfb; 32]);
    let url_safe = base64.replace('+', "-").replace('/', "_");
    let good: [&[u8]; 5] =
        [hex.as_bytes(), base64.as_bytes(), url_safe.trim_end_matches('=').as_bytes(), &[0xfb; 32], b"  \n"];
    for bytes in &good[..4] {
        Kek::parse(bytes).unwrap();
        if bytes.len() != 32 {
            Kek::parse(&[bytes, b"\n".as_slice()].concat()).unwrap();
        }
    }
    for bytes in [
        b"".as_slice(),
        good[4],
        &[0xfb; 31],
        &[0xfb; 33],
        b"0123456789abcdef0123456789abcdef",
        b"correct horse",
        &hex.as_bytes()[..62],
    ] {
        assert!(Kek::parse(bytes).is_err(), "{bytes:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kek");
    drop(Kek::generate_to_file(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    Kek::from_file(&path).unwrap();
    let problem = |error: KeyError| match error {
        KeyError::Kek { problem, .. } => problem,
        other => panic!("{other}"),
    };
    assert!(problem(Kek::generate_to_file(&path).unwrap_err()).contains("exists already"));
    for mode in [0o640, 0o604, 0o660, 0o622] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(problem(Kek::from_file(&path).unwrap_err()).contains("chmod 600"));
    }
    assert!(problem(Kek::from_file(dir.path()).unwrap_err()).contains("not a file"));
    assert!(problem(Kek::from_file(&dir.path().join("none")).unwrap_err()).contains("cannot be read"));
    assert!(problem(Kek::from_env("COUNTERSIGN_TEST_UNSET").unwrap_err()).contains("is not set"));
    assert!(problem(Kek::from_env("PATH").unwrap_err()).contains("openssl rand"));
    assert!(problem(Kek::from_credential("../kek").unwrap_err()).contains("is not a name"));
    let settings: toml::Table = toml::from_str("[kek]\nfile = \"/etc/kek\"").unwrap();
    let source: KekSource = settings["kek"].clone().try_into().unwrap();
    assert_eq!(source, KekSource::File("/etc/kek".into()));
}

/// The environment of a process is its own: the reader runs in a child, which is this test again.
#[test]
fn credentials_and_variables_are_read() {
    if std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| dir.to_string_lossy().contains("countersign")) {
        Kek::from_credential("kek").unwrap();
        Kek::from_env("COUNTERSIGN_TEST_KEK").unwrap();
        assert!(matches!(Kek::from_credential("none"), Err(KeyError::Kek { .. })));
        return;
    }
    let dir = tempfile::Builder::new().prefix("countersign").tempdir().unwrap();
    fs::write(dir.path().join("kek"), "07".repeat(32)).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "keys::custody::credentials_and_variables_are_read"])
        .env("CREDENTIALS_DIRECTORY", dir.path())
        .env("COUNTERSIGN_TEST_KEK", STANDARD.encode([7; 32]))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
fn host_names_that_clients_could_not_use_are_refused() {
    for host in ["sign.example.org", "localhost", "127.0.0.1", "a-b.c"] {
        check_host(host).unwrap();
    }
    let long = format!("{}.org", "a".repeat(61));
    for host in [
        "",
        "https://sign.example.org",
        "sign.example.org:8443",
        "sign.example.org/log",
        "log - 123",
        "Sign.example.org",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a-",
        "a+b",
        "sígn.org",
        &long,
        "[::1]",
    ] {
        let refused = check_host(host);
        assert!(matches!(refused, Err(KeyError::Host { .. })), "{host:?}");
        let dir = tempfile::tempdir().unwrap();
        assert!(Keyring::create(dir.path(), &kek(), host, now()).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made for {host:?}");
    }
}
