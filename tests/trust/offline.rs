//! The TUF root key elsewhere: everything goes on but a new root, and a new root comes in from outside.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use countersign::{
    keys::{Kek, KeyError, Keyring, Rotating, TufRoot, bring_tuf_root_back, take_tuf_root_offline},
    model::tuf::{Kind, Metadata, canonical, renewed_root},
    tuf::{Repository, TufError},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{DAY, HOUR, NONE, repository, repository::Client, rotate};
use crate::keys::{kek, keyring, now};

/// What is done to a file, and what is said of it then.
type Change<'a> = (&'a dyn Fn(&mut Value), &'a str);

struct House {
    /// The data directory, and beside it where the key is taken to.
    _dir: tempfile::TempDir,
    data: std::path::PathBuf,
    stick: std::path::PathBuf,
    keys: Arc<Keyring>,
    repository: Repository,
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let keys = Arc::new(keyring(&data, now()));
    let repository = repository(&data, &keys);
    repository.refresh(now()).unwrap();
    let stick = dir.path().join("stick.json");
    House { data, stick, keys, repository, _dir: dir }
}

#[test]
fn without_the_root_key_everything_goes_on_but_a_new_root() {
    let House { data, stick, keys, repository, _dir } = house();
    let mut client = Client::new(&repository);
    take_tuf_root_offline(&data, &kek(), &stick).unwrap();
    assert_eq!(fs::metadata(&stick).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!data.join("keys/tuf-root.key").exists() && data.join("keys/tuf-root.pem").exists());
    assert!(!repository.root_key_is_here());
    let opened = Keyring::open(&data, &kek()).unwrap();
    assert_eq!(opened.public().tuf(), keys.public().tuf());

    for (hours, rotated) in (1..).zip([(Rotating::Ca, true), (Rotating::Sct, false), (Rotating::Tsa, false)]) {
        let at = now() + HOUR * hours;
        rotate(&keys, &data, rotated, NONE, at).unwrap();
        assert!(repository.refresh(at).unwrap());
        assert_eq!(client.update(&repository, at).unwrap(), *keys.trusted_root());
    }
    for days in [8, 400, 2_000, 3_000] {
        let at = now() + DAY * days;
        assert!(repository.refresh(at).unwrap(), "day {days}");
        client.update(&repository, at).unwrap();
    }
    // A year before its end somebody hears of it, and how to go on.
    assert_eq!(repository.warnings(now() + DAY * 3_000), Vec::<String>::new());
    let at = now() + DAY * 3_400;
    repository.refresh(at).unwrap();
    let warnings = repository.warnings(at);
    assert!(warnings[0].contains("trust tuf sign-root --key FILE"), "{warnings:?}");

    let before = fs::read(data.join("keys/manifest.json")).unwrap();
    for new_root in [false, true] {
        let refused = rotate(&keys, &data, (Rotating::Tuf, new_root), NONE, now()).unwrap_err();
        let said = refused.to_string();
        assert!(
            matches!(refused, KeyError::TufRoot(_)) && said.contains("sign-root") && said.contains("bring-root-back"),
            "{said}"
        );
    }
    assert_eq!(fs::read(data.join("keys/manifest.json")).unwrap(), before);
    assert!(matches!(TufRoot::open(&data, &kek()), Err(KeyError::TufRoot(_))));

    bring_tuf_root_back(&data, &kek(), &stick).unwrap();
    assert!(repository.root_key_is_here());
    rotate(&keys, &data, (Rotating::Tuf, true), NONE, at).unwrap();
    repository.refresh(at).unwrap();
    client.update(&repository, at).unwrap();
}

/// The next root, signed where the key is.
fn next(present: &Metadata, signer: &TufRoot, now: Timestamp, change: impl FnOnce(&mut Value)) -> Metadata {
    let mut body = renewed_root(present, Kind::Root.expires(now).unwrap()).unwrap();
    change(&mut body);
    let signatures = signer.sign(&canonical(&body).unwrap(), &present.keys_of(Kind::Root).unwrap()).unwrap();
    Metadata::new(body, signatures).unwrap()
}

#[test]
fn a_root_that_was_signed_offline_comes_in_and_no_other() {
    let House { data, stick, keys: _, repository, _dir } = house();
    let mut client = Client::new(&repository);
    take_tuf_root_offline(&data, &kek(), &stick).unwrap();
    let signer = TufRoot::from_file(&stick, &kek()).unwrap();
    let present = Metadata::parse(&repository.file("root.json").unwrap()).unwrap();
    let at = now() + DAY * 3_000;
    let stranger = {
        let dir = tempfile::tempdir().unwrap();
        drop(keyring(dir.path(), now()));
        TufRoot::open(dir.path(), &kek()).unwrap()
    };
    let whole = next(&present, &signer, at, |_| ());
    let mut torn: Value = serde_json::from_slice(whole.bytes()).unwrap();
    torn["signatures"][0]["sig"] = "00".into();
    let unsigned = Metadata::new(renewed_root(&present, Kind::Root.expires(at).unwrap()).unwrap(), Vec::new()).unwrap();
    for (refused, because) in [
        (present.clone(), "version is not the one after"),
        (next(&present, &signer, at, |body| body["version"] = 3.into()), "version is not the one after"),
        (next(&present, &signer, now() - DAY, |_| ()), "does not expire later"),
        (next(&present, &signer, at, |body| body["roles"]["timestamp"]["threshold"] = 0.into()), "other keys"),
        (next(&present, &signer, at, |body| body["keys"] = json!({})), "other keys"),
        (next(&present, &signer, at, |body| body["consistent_snapshot"] = false.into()), "other keys"),
        (Metadata::parse(torn.to_string().as_bytes()).unwrap(), "not signed by the root key"),
        (unsigned, "not signed by the root key"),
        (Metadata::parse(&repository.file("timestamp.json").unwrap()).unwrap(), "is no root"),
    ] {
        let error = repository.publish_root(refused.bytes(), at).unwrap_err();
        assert!(matches!(&error, TufError::Root(why) if why.contains(because)), "{because}: {error}");
    }
    assert!(stranger.sign(b"message", &present.keys_of(Kind::Root).unwrap()).is_err(), "another instance's key");
    assert!(matches!(repository.publish_root(b"nonsense", at), Err(TufError::Metadata(_))));
    assert_eq!(repository.file("root.json").unwrap(), present.bytes());

    let standing = repository.publish_root(whole.bytes(), at).unwrap();
    assert_eq!((standing.kind, standing.version), (Kind::Root, 2));
    assert!(repository.publish_root(whole.bytes(), at).is_err(), "once");
    repository.refresh(at).unwrap();
    client.update(&repository, now() + DAY * 4_000).unwrap_err();
    repository.refresh(now() + DAY * 4_000).unwrap();
    client.update(&repository, now() + DAY * 4_000).unwrap();
    // It is there after a restart as well.
    let keys = Arc::new(Keyring::open(&data, &kek()).unwrap());
    let again = super::repository(&data, &keys);
    assert_eq!(again.standings()[0].version, 2);
}

/// A repository that is lost while the key is away: nothing can be signed that clients would follow, and that is said.
#[test]
fn a_lost_repository_wants_the_root_key() {
    let House { data, stick, keys, repository: _, _dir } = house();
    take_tuf_root_offline(&data, &kek(), &stick).unwrap();
    fs::remove_dir_all(data.join("tuf")).unwrap();
    let again = repository(&data, &keys);
    let error = again.refresh(now() + HOUR).unwrap_err();
    assert!(error.to_string().contains("bring-root-back --key FILE"), "{error}");
    assert!(again.warnings(now() + HOUR)[0].contains("bring-root-back"), "{:?}", again.warnings(now()));
    assert_eq!(again.file("timestamp.json"), None);
    bring_tuf_root_back(&data, &kek(), &stick).unwrap();
    assert!(again.refresh(now() + HOUR).unwrap());
    Client::new(&again).update(&again, now() + HOUR).unwrap();
}

#[test]
fn the_key_file_is_refused_where_it_does_not_belong() {
    let House { data, stick, keys: _, repository, _dir } = house();
    let inside = take_tuf_root_offline(&data, &kek(), &data.join("keys/root.json")).unwrap_err();
    assert!(inside.to_string().contains("must not lie in the data directory"), "{inside}");
    assert!(bring_tuf_root_back(&data, &kek(), &stick).is_err(), "there is no file");
    assert!(repository.root_key_is_here());
    fs::write(&stick, "something").unwrap();
    assert!(take_tuf_root_offline(&data, &kek(), &stick).is_err(), "a file is never overwritten");
    assert!(repository.root_key_is_here());
    fs::remove_file(&stick).unwrap();
    take_tuf_root_offline(&data, &kek(), &stick).unwrap();
    let again = take_tuf_root_offline(&data, &kek(), &stick.with_extension("2")).unwrap_err();
    assert!(again.to_string().contains("offline already"), "{again}");

    let other = Kek::parse(&[200; 32]).unwrap();
    assert!(matches!(TufRoot::from_file(&stick, &other), Err(KeyError::TufRoot(_))));
    let whole = fs::read_to_string(&stick).unwrap();
    let document: Value = serde_json::from_str(&whole).unwrap();
    let changes: [Change<'_>; 5] = [
        (&|file| file["host"] = "other.example.org".into(), "is not tuf-root of"),
        (&|file| file["mediaType"] = "x".into(), "another version"),
        (&|file| file["keys"] = json!({}), "is not tuf-root of"),
        (&|file| file["keys"]["tuf-root"] = "AAAA".into(), "cannot be unsealed"),
        (&|file| file["keys"]["tuf-root"] = "%".into(), "base64"),
    ];
    for (change, because) in changes {
        let mut changed = document.clone();
        change(&mut changed);
        fs::write(&stick, changed.to_string()).unwrap();
        let refused = bring_tuf_root_back(&data, &kek(), &stick).unwrap_err();
        assert!(refused.to_string().contains(because), "{because}: {refused}");
    }
    assert!(!repository.root_key_is_here());
    fs::write(&stick, whole).unwrap();
    bring_tuf_root_back(&data, &kek(), &stick).unwrap();
    let twice = bring_tuf_root_back(&data, &kek(), &stick).unwrap_err();
    assert!(twice.to_string().contains("is here already"), "{twice}");
    Keyring::open(&data, &kek()).unwrap();
}
