//! Managed keys in their directory: the life of one, what is refused, and what a changed or torn directory comes to.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use countersign::{
    keys::{Custody, KekSource, KeyError, KeyRefusal, KeyState, ManagedKeys},
    model::{Digest, KeyName, PublicKey},
};

use super::{HOST, now};

fn source(dir: &Path, byte: u8) -> KekSource {
    let path = dir.join(format!("kek-{byte}"));
    fs::write(&path, hex::encode([byte; 32])).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    KekSource::File(path)
}

fn open(dir: &Path) -> Result<ManagedKeys, KeyError> {
    ManagedKeys::open(&dir.join("data"), source(dir, 7), Custody::default(), HOST)
}

fn house() -> (tempfile::TempDir, ManagedKeys) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    let keys = open(dir.path()).unwrap();
    (dir, keys)
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn with_release(dir: &Path) -> ManagedKeys {
    let keys = open(dir).unwrap();
    keys.commit(keys.create(&name("release"), now()).unwrap()).unwrap();
    keys
}

#[test]
fn a_key_lives_through_its_states_and_versions_and_reopens_as_it_was() {
    let (dir, keys) = house();
    let release = name("release");
    assert!(keys.list().is_empty());
    assert!(!dir.path().join("data/managed").exists(), "nothing is made before it is asked for");
    assert!(matches!(keys.signer(&release), Err(KeyRefusal::Unknown(_))));

    let planned = keys.create(&release, now()).unwrap();
    assert!(keys.list().is_empty() && !dir.path().join("data/managed").exists(), "planning changes nothing");
    let made = keys.commit(planned).unwrap();
    let first = keys.signer(&release).unwrap();
    assert_eq!((first.version(), made.newest().unwrap().key), (1, Digest::of(first.spki())));
    let digest = Digest::of(b"artifact");
    let signature = first.sign_digest(digest.as_bytes()).unwrap();
    let public = PublicKey::from_pem(&made.newest().unwrap().public_key).unwrap();
    public.verify_digest(digest.as_bytes(), &signature).unwrap();
    assert!(matches!(keys.create(&release, now()), Err(KeyRefusal::Exists(_))));

    keys.commit(keys.rotate(&release, now()).unwrap()).unwrap();
    let second = keys.signer(&release).unwrap();
    assert_eq!(second.version(), 2);
    assert_ne!(second.spki(), first.spki());
    let shown = keys.get(&release).unwrap();
    assert_eq!(
        shown.versions.iter().map(|version| version.key).collect::<Vec<_>>(),
        [Digest::of(first.spki()), Digest::of(second.spki())]
    );

    let again = open(dir.path()).unwrap();
    assert_eq!(again.list(), keys.list());
    assert_eq!(again.signer(&release).unwrap().spki(), second.spki());

    keys.commit(keys.disable(&release).unwrap()).unwrap();
    for keys in [&keys, &open(dir.path()).unwrap()] {
        assert!(matches!(keys.signer(&release), Err(KeyRefusal::Disabled(_))));
        assert!(matches!(keys.rotate(&release, now()), Err(KeyRefusal::Disabled(_))));
    }
    assert!(keys.disable(&release).unwrap().is_done, "and again is no change");
    keys.commit(keys.enable(&release).unwrap()).unwrap();
    assert_eq!(keys.signer(&release).unwrap().spki(), second.spki());

    keys.commit(keys.revoke(&release).unwrap()).unwrap();
    for keys in [&keys, &open(dir.path()).unwrap()] {
        assert!(matches!(keys.signer(&release), Err(KeyRefusal::Revoked(_))));
        assert!(matches!(keys.enable(&release), Err(KeyRefusal::Revoked(_))), "for good");
        assert!(matches!(keys.disable(&release), Err(KeyRefusal::Revoked(_))));
        assert!(matches!(keys.rotate(&release, now()), Err(KeyRefusal::Revoked(_))));
        assert!(matches!(keys.create(&release, now()), Err(KeyRefusal::Exists(_))), "the name is used up");
        assert_eq!(keys.get(&release).unwrap().state, KeyState::Revoked);
    }
    assert!(keys.revoke(&release).unwrap().is_done);
}

#[test]
fn a_change_that_was_planned_on_something_else_is_refused() {
    let (_dir, keys) = house();
    let (one, other) = (keys.create(&name("a"), now()).unwrap(), keys.create(&name("b"), now()).unwrap());
    keys.commit(one).unwrap();
    assert!(matches!(keys.commit(other), Err(KeyRefusal::Raced)));
    assert_eq!(keys.list().len(), 1);
}

#[test]
fn the_directory_is_tight_and_says_what_was_changed() {
    let (dir, _) = house();
    drop(with_release(dir.path()));
    let managed = dir.path().join("data/managed");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&managed), 0o700);
    let files: Vec<_> = fs::read_dir(&managed).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3);
    for file in &files {
        assert_eq!(mode(file), 0o600);
        let whole = fs::read(file).unwrap();
        // One bit of every byte of the manifest; of the others, whose digest stands there, one will do.
        let places: Vec<usize> =
            if file.ends_with("manifest.json") { (0..whole.len()).collect() } else { vec![whole.len() / 2] };
        for at in places {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(file, &changed).unwrap();
            match open(dir.path()) {
                Err(KeyError::Damaged { .. } | KeyError::WrongKek(_) | KeyError::Format { .. }) => {}
                // White space, and the case of a hexadecimal digit of the MAC, say the same.
                Ok(same) => {
                    assert_eq!(same.list().len(), 1, "byte {at} of {}", file.display());
                    let as_json = |bytes: &[u8]| {
                        let mut value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                        value["mac"] = value["mac"].as_str().unwrap().to_lowercase().into();
                        value
                    };
                    assert_eq!(as_json(&changed), as_json(&whole), "byte {at} of {}", file.display());
                }
                Err(other) => panic!("byte {at} of {}: {other}", file.display()),
            }
        }
        fs::remove_file(file).unwrap();
        let missing = open(dir.path()).unwrap_err();
        assert!(matches!(missing, KeyError::Damaged { problem: "is missing", .. }), "{}: {missing}", file.display());
        fs::write(file, whole).unwrap();
    }
    assert!(open(dir.path()).is_ok());
    let other = ManagedKeys::open(&dir.path().join("data"), source(dir.path(), 8), Custody::default(), HOST);
    assert!(matches!(other, Err(KeyError::WrongKek(_))));
}

/// The sealed file of one version does not open as another's, although the key-encryption key is the same.
#[test]
fn sealed_files_cannot_be_exchanged() {
    let (dir, _) = house();
    let keys = with_release(dir.path());
    keys.commit(keys.create(&name("other"), now()).unwrap()).unwrap();
    let managed = dir.path().join("data/managed");
    let (sealed, pem) =
        (fs::read(managed.join("other.1.key")).unwrap(), fs::read(managed.join("other.1.pem")).unwrap());
    fs::write(managed.join("release.1.key"), sealed).unwrap();
    fs::write(managed.join("release.1.pem"), pem).unwrap();
    assert!(matches!(open(dir.path()), Err(KeyError::Damaged { .. })));
}

/// What a crash leaves before the manifest is in place: the keys are as they were, and the next change goes through.
#[test]
fn an_interrupted_change_leaves_the_keys_as_they_were() {
    let (dir, _) = house();
    let managed = dir.path().join("data/managed");
    fs::create_dir(&managed).unwrap();
    fs::write(managed.join("manifest.json.new"), "{").unwrap();
    let keys = with_release(dir.path());
    let before = keys.list();
    for (name, bytes) in [("release.2.key", "half"), ("release.2.pem", ""), ("manifest.json.new", "{\"format\"")] {
        fs::write(managed.join(name), bytes).unwrap();
    }
    let keys = open(dir.path()).unwrap();
    assert_eq!(keys.list(), before);
    assert_eq!(keys.signer(&name("release")).unwrap().version(), 1);
    keys.commit(keys.rotate(&name("release"), now()).unwrap()).unwrap();
    assert_eq!(open(dir.path()).unwrap().signer(&name("release")).unwrap().version(), 2);
}

#[test]
fn nothing_of_a_key_is_printed() {
    let (dir, _) = house();
    let keys = with_release(dir.path());
    let signer = keys.signer(&name("release")).unwrap();
    let change = keys.rotate(&name("release"), now()).unwrap();
    let printed = format!("{keys:?} {signer:?} {:?}", keys.list());
    for secret in ["csealed", "PRIVATE", "pkcs8", "Document"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    drop(change);
}

#[test]
fn names_that_could_be_mistaken_are_refused() {
    for good in ["release", "a", "0", "ci-2", "a_b", &"a".repeat(64)] {
        assert_eq!(good.parse::<KeyName>().unwrap().to_string(), good);
    }
    for bad in ["", "-a", "_a", "A", "a/b", "a.b", "..", "a b", "ä", "a\n", "a\0", &"a".repeat(65)] {
        let refused = bad.parse::<KeyName>().unwrap_err().to_string();
        assert!(refused.contains("as in release"), "{bad:?}: {refused}");
        assert!(serde_json::from_value::<KeyName>(bad.into()).is_err());
    }
}
