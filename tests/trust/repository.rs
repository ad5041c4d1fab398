//! The TUF repository: walked as a client walks it, after years, after losses, and when nothing can be written.

use std::{fs, path::Path, sync::Arc};

use countersign::{
    keys::{Keyring, Rotating},
    model::{
        Digest,
        tuf::{Key, Kind, Metadata},
    },
    tuf::{Repository, SIGNING_CONFIG, TRUSTED_ROOT},
};
use jiff::Timestamp;

use super::{DAY, HOUR, NONE, URL, holds, repository, rotate, signed};
use crate::keys::{keyring, now};

/// What a client keeps: the root it trusts, and the newest versions it has seen.
#[derive(Debug)]
pub struct Client {
    root: Metadata,
    seen: [u64; 3],
}

fn by(keys: &[Key], document: &Metadata) -> bool {
    document.is_signed_by(&keys.iter().collect::<Vec<_>>())
}

impl Client {
    /// Begins with the first root, as it was handed over.
    pub fn new(repository: &Repository) -> Self {
        let root = repository.file("1.root.json").unwrap();
        Self { root: Metadata::parse(&root).unwrap(), seen: [0; 3] }
    }

    /// The client workflow of the specification, section 5; the trusted root that comes of it.
    pub fn update(&mut self, repository: &Repository, now: Timestamp) -> Result<String, String> {
        while let Some(next) = repository.file(&format!("{}.root.json", self.root.version() + 1)) {
            let next = Metadata::parse(&next).unwrap();
            let (old, new) = (self.root.keys_of(Kind::Root).unwrap(), next.keys_of(Kind::Root).unwrap());
            if !by(&old, &next) || !by(&new, &next) || next.version() != self.root.version() + 1 {
                return Err("a root that is not the next one".to_owned());
            }
            self.root = next;
        }
        if self.root.expires() <= now {
            return Err("the root has expired".to_owned());
        }
        let mut pointed: Option<Metadata> = None;
        for (at, kind) in [Kind::Timestamp, Kind::Snapshot, Kind::Targets].into_iter().enumerate() {
            let version = pointed.as_ref().map(|by| by.points_to(kind).unwrap());
            let path = version.map_or("timestamp.json".to_owned(), |version| format!("{version}.{}.json", kind.name()));
            let bytes = repository.file(&path).ok_or(format!("{path} is not there"))?;
            let document = Metadata::parse(&bytes).unwrap();
            let signed = by(&self.root.keys_of(kind).unwrap(), &document);
            if !signed || document.kind() != kind || version.is_some_and(|version| version != document.version()) {
                return Err(format!("{path} is not what it should be"));
            }
            if document.expires() <= now {
                return Err(format!("{path} expired at {}", document.expires()));
            }
            if document.version() < self.seen[at] {
                return Err(format!("{path} is older than one seen before"));
            }
            self.seen[at] = document.version();
            pointed = Some(document);
        }
        let targets = pointed.unwrap().target_files();
        assert_eq!(targets.len(), 2);
        let of = |name: &str| targets.iter().find(|file| file.ends_with(name)).unwrap();
        let [root, config] = [TRUSTED_ROOT, SIGNING_CONFIG].map(|name| {
            let file = of(name);
            let bytes = repository.file(&format!("targets/{file}")).unwrap();
            assert_eq!(format!("{}.{name}", Digest::of(&bytes).hex()), *file);
            assert_eq!(repository.file(&format!("targets/{name}")).unwrap(), bytes);
            String::from_utf8(bytes.to_vec()).unwrap()
        });
        assert!(config.contains(URL));
        Ok(root)
    }
}

fn house(dir: &Path) -> (Arc<Keyring>, Repository) {
    let keys = Arc::new(keyring(dir, now()));
    let repository = repository(dir, &keys);
    assert!(repository.refresh(now()).unwrap());
    (keys, repository)
}

#[test]
fn a_client_finds_what_is_served_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, repository) = house(dir.path());
    let mut client = Client::new(&repository);
    assert_eq!(client.update(&repository, now()).unwrap(), *keys.trusted_root());
    assert!(!repository.refresh(now()).unwrap(), "nothing is due");
    assert_eq!(repository.file("root.json"), repository.file("1.root.json"));
    for nowhere in ["2.root.json", "", "targets/", "targets/x", "../keys/manifest.json", "1.timestamp.json", ".x"] {
        assert_eq!(repository.file(nowhere), None, "{nowhere}");
    }
    // Opened again, it is the same to the byte.
    let again = super::repository(dir.path(), &keys);
    assert_eq!(again.standings(), repository.standings());
    assert!(!again.refresh(now()).unwrap());
    assert_eq!(again.file("timestamp.json"), repository.file("timestamp.json"));
    assert_eq!(again.warnings(now()), Vec::<String>::new());
}

/// Every rotation, seen by one client that asks all the time and by one that comes at the end.
#[test]
fn clients_follow_every_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, repository) = house(dir.path());
    let (mut often, mut late) = (Client::new(&repository), Client::new(&repository));
    let old = signed(&keys, now());
    let all = [
        (Rotating::Tuf, false),
        (Rotating::Ca, false),
        (Rotating::Sct, false),
        (Rotating::Tuf, true),
        (Rotating::Tsa, false),
        (Rotating::Tuf, false),
        (Rotating::Ca, true),
    ];
    for (hours, rotated) in (1..).zip(all) {
        let at = now() + HOUR * hours;
        rotate(&keys, dir.path(), rotated, NONE, at).unwrap();
        assert!(repository.refresh(at).unwrap(), "{rotated:?}");
        let root = often.update(&repository, at).unwrap();
        assert_eq!(root, *keys.trusted_root());
        for bundle in [&old, &signed(&keys, at)] {
            holds(bundle, &root).unwrap();
        }
    }
    assert_eq!(often.root.version(), 4);
    assert_eq!(late.update(&repository, now() + DAY).unwrap(), *keys.trusted_root());
    let files = fs::read_dir(dir.path().join("tuf")).unwrap().count();
    assert!(files <= 4 + 4 + 4 + 2, "old targets and snapshots go: {files} files");
}

/// What is published before it is used: at the moment when clients are told, nothing was signed with the new key.
#[test]
fn a_new_key_is_told_of_before_it_signs() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, repository) = house(dir.path());
    let mut client = Client::new(&repository);
    let at = now() + HOUR;
    let rotation = countersign::keys::Rotation { kind: Rotating::Ca, new_root: true, activate_in: NONE };
    keys.rotate(dir.path(), &crate::keys::kek(), rotation, at, |public| {
        let before = client.update(&repository, at).unwrap();
        holds(&signed(&keys, at), &before).unwrap();
        assert!(repository.refresh_to(public, at).unwrap());
    })
    .unwrap();
    let after = client.update(&repository, at).unwrap();
    assert_eq!(after, *keys.trusted_root());
    holds(&signed(&keys, at), &after).unwrap();
}

/// The service runs for 400 days, or comes back after them; nothing expires on clients, and old bundles verify.
#[test]
fn four_hundred_days_on_everything_is_signed_again() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, repository) = house(dir.path());
    let (mut client, old) = (Client::new(&repository), signed(&keys, now()));
    let mut signings = 0;
    for hours in (0..400 * 24).step_by(6) {
        let at = now() + HOUR * hours;
        signings += u32::from(repository.refresh(at).unwrap());
        let soonest = repository.expiries().into_iter().map(|(_, end)| end).min().unwrap();
        assert!(soonest.duration_since(at) >= DAY * 7, "half of the shortest life is always left");
    }
    assert!((50..70).contains(&signings), "once a week: {signings}");
    let at = now() + DAY * 400;
    holds(&old, &client.update(&repository, at).unwrap()).unwrap();
    assert_eq!(client.root.version(), 1, "its root is good for years");

    // The service was down as long; a client that has seen the old documents takes the new ones.
    let later = at + DAY * 400;
    let again = super::repository(dir.path(), &keys);
    assert!(client.update(&again, later).unwrap_err().contains("expired"));
    assert!(again.refresh(later).unwrap());
    let root = client.update(&again, later).unwrap();
    for bundle in [&old, &signed(&keys, later)] {
        holds(bundle, &root).unwrap();
    }
    // Half through its life the root is signed again too.
    let years = now() + DAY * 1_830;
    assert!(again.refresh(years).unwrap());
    client.update(&again, years).unwrap();
    assert_eq!(client.root.version(), 2);
}

/// A repository that was lost, or comes from an old backup, is no attack in the eyes of a client.
#[test]
fn what_is_lost_or_damaged_comes_back_with_later_versions() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, repository) = house(dir.path());
    let mut client = Client::new(&repository);
    let tuf = dir.path().join("tuf");
    let mut at = now();
    // Seen in the third version and more: one that began to count again would be older.
    for _ in 0..20 {
        at += DAY * 8;
        repository.refresh(at).unwrap();
        client.update(&repository, at).unwrap();
    }
    let damages: [&dyn Fn(); 6] = [
        &|| fs::remove_dir_all(&tuf).unwrap(),
        &|| fs::write(tuf.join("timestamp.json"), "{").unwrap(),
        &|| fs::remove_file(tuf.join("timestamp.json")).unwrap(),
        &|| fs::remove_dir_all(tuf.join("targets")).unwrap(),
        &|| {
            for entry in fs::read_dir(&tuf).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.to_str().unwrap().ends_with(".snapshot.json") {
                    fs::copy(tuf.join("1.root.json"), entry).unwrap();
                }
            }
        },
        &|| {
            let torn = fs::read(tuf.join("timestamp.json")).unwrap();
            fs::write(tuf.join("timestamp.json"), &torn[..torn.len() / 2]).unwrap();
            fs::write(tuf.join(".timestamp.json.new"), "left").unwrap();
        },
    ];
    for damage in damages {
        damage();
        at += HOUR;
        let again = super::repository(dir.path(), &keys);
        assert!(again.refresh(at).unwrap());
        assert_eq!(client.update(&again, at).unwrap(), *keys.trusted_root());
    }
}

/// Nothing that goes wrong takes away what is served.
#[test]
fn a_refresh_that_fails_is_told_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, repository) = house(dir.path());
    let mut client = Client::new(&repository);
    let (tuf, aside) = (dir.path().join("tuf"), dir.path().join("aside"));
    let served = repository.file("timestamp.json");
    fs::rename(&tuf, &aside).unwrap();
    fs::write(&tuf, "a file where the directory should be").unwrap();
    let at = now() + DAY * 10;
    let error = repository.refresh(at).unwrap_err();
    assert!(error.to_string().contains("cannot"), "{error}");
    assert_eq!(repository.failures(), 1);
    let warnings = repository.warnings(at);
    assert!(warnings[0].contains("could not be signed again"), "{warnings:?}");
    assert!(warnings[1].contains("the TUF timestamp expires"), "{warnings:?}");
    assert_eq!(repository.file("timestamp.json"), served);
    client.update(&repository, at).unwrap();

    fs::remove_file(&tuf).unwrap();
    fs::rename(&aside, &tuf).unwrap();
    assert!(repository.refresh(at).unwrap());
    assert_eq!(repository.warnings(at), Vec::<String>::new());
    client.update(&repository, at + DAY * 10).unwrap();
    assert_eq!(client.update(&repository, at).unwrap(), *keys.trusted_root());
}

/// A data directory of an older version gets its keys when it is first served, and a changed address its own document.
#[test]
fn older_directories_get_a_repository() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keys-v1/keys");
    fs::create_dir(dir.path().join("keys")).unwrap();
    for entry in fs::read_dir(golden).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), dir.path().join("keys").join(entry.file_name())).unwrap();
    }
    let keys = Arc::new(Keyring::open(dir.path(), &crate::keys::kek()).unwrap());
    let root = keys.trusted_root();
    let repository = repository(dir.path(), &keys);
    assert!(repository.standings().is_empty() && !repository.root_key_is_here());
    assert!(repository.refresh(now()).unwrap());
    assert!(repository.root_key_is_here());
    let mut client = Client::new(&repository);
    assert_eq!(client.update(&repository, now()).unwrap(), *root);
    let load: countersign::tuf::LoadKek = Arc::new(|| Ok(crate::keys::kek()));
    let moved = Repository::open(dir.path(), keys.clone(), load, "https://sign.example.org:443".to_owned());
    assert!(moved.refresh(now() + HOUR).unwrap());
    let config = moved.file(&format!("targets/{SIGNING_CONFIG}")).unwrap();
    assert_eq!(config, keys.signing_config("https://sign.example.org:443").into_bytes());
}
