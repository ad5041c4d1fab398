//! Rotation: bundles from before, in between and after, and whoever fetched the trusted root in between; refusals; crashes.

use std::{fs, path::Path};

use countersign::{
    keys::{Kek, KeyError, Keyring, Rotating, Rotation},
    model::TrustedRoot,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{DAY, HOUR, NONE, holds, rotate, signed};
use crate::keys::{kek, keyring, now};

const ALL: [(Rotating, bool); 5] = [
    (Rotating::Ca, false),
    (Rotating::Ca, true),
    (Rotating::Sct, false),
    (Rotating::Tsa, false),
    (Rotating::Tsa, true),
];

#[test]
fn old_and_new_verify_for_whoever_fetched_before_between_and_after() {
    for rotated in ALL {
        for activate_in in [NONE, DAY] {
            let dir = tempfile::tempdir().unwrap();
            let keys = keyring(dir.path(), now());
            let (first, root_before) = (signed(&keys, now()), keys.trusted_root());
            let at = now() + HOUR;
            let made = rotate(&keys, dir.path(), rotated, activate_in, at).unwrap();
            assert_eq!(made.number, 2, "{rotated:?}");
            let root_after = keys.trusted_root();
            assert_ne!(root_before, root_after);
            let between = signed(&keys, at + activate_in - SignedDuration::from_secs(1));
            let after = signed(&keys, at + activate_in);
            for bundle in [&first, &between, &after] {
                holds(bundle, &root_after).unwrap_or_else(|why| panic!("{rotated:?} in {activate_in}: {why}"));
            }
            holds(&first, &root_before).unwrap();
            holds(&between, &root_before).unwrap();
            // So it was signed with the new key indeed: who has not fetched since cannot know it.
            assert!(holds(&after, &root_before).is_err(), "{rotated:?} in {activate_in}");
            // The same after a restart.
            let again = Keyring::open(dir.path(), &kek()).unwrap();
            assert_eq!(*again.trusted_root(), *root_after);
            holds(&signed(&again, at + activate_in + HOUR), &root_after).unwrap();
        }
    }
}

/// A process that was not told goes on with the old key: what is under way is good, what comes after the window is not.
#[test]
fn the_old_key_is_trusted_for_the_overlap_and_no_longer() {
    for rotated in ALL {
        let dir = tempfile::tempdir().unwrap();
        let keys = keyring(dir.path(), now());
        let stale = Keyring::open(dir.path(), &kek()).unwrap();
        rotate(&keys, dir.path(), rotated, NONE, now() + HOUR).unwrap();
        let root = keys.trusted_root();
        let minutes = |minutes| signed(&stale, now() + HOUR + SignedDuration::from_mins(minutes));
        holds(&minutes(9), &root).unwrap();
        assert!(holds(&minutes(11), &root).is_err(), "{rotated:?}");
    }
}

/// Certificate and chain come from one look: they fit each other whenever a rotation falls between.
#[test]
fn a_certificate_fits_the_chain_that_comes_with_it() {
    use countersign::{keys::EphemeralKey, model::Extensions};
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let spki = EphemeralKey::generate().unwrap().spki();
    std::thread::scope(|scope| {
        let issuing = scope.spawn(|| {
            let mut chains = std::collections::BTreeSet::new();
            while chains.len() < 3 {
                let said = Extensions::default();
                let issued = keys.issue_saying(&crate::keys::builder(), &said, &spki, now() + DAY).unwrap();
                let (_, authority) = der::pem::decode_vec(issued.chain[0].as_bytes()).unwrap();
                assert!(countersign::model::certificate::is_signed_by(&issued.certificate, &authority));
                chains.insert(issued.chain[0].clone());
            }
        });
        for hours in [1, 2] {
            rotate(&keys, dir.path(), (Rotating::Ca, false), NONE, now() + HOUR * hours).unwrap();
        }
        issuing.join().unwrap();
    });
    assert_eq!(keys.public().ca_chains().count(), 3);
}

#[test]
fn what_cannot_be_rotated_says_why_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let before = files(dir.path());
    let refused = |what, activate_in, because: &str| {
        let error = rotate(&keys, dir.path(), what, activate_in, now()).unwrap_err();
        assert!(matches!(&error, KeyError::Rotation { problem, .. } if problem.contains(because)), "{error}");
    };
    refused((Rotating::Ca, false), -SignedDuration::from_secs(1), "in the past");
    refused((Rotating::Ca, false), SignedDuration::MIN, "in the past");
    refused((Rotating::Tsa, false), DAY * 90 + SignedDuration::from_secs(1), "90 days");
    refused((Rotating::Tsa, false), SignedDuration::MAX, "90 days");
    refused((Rotating::Tuf, false), HOUR, "leave out --activate-in");
    refused((Rotating::Sct, true), NONE, "leave out --new-root");
    // Nine years and more on, the root has less than a year left.
    let late = now() + DAY * 3_300;
    let error = rotate(&keys, dir.path(), (Rotating::Ca, false), NONE, late).unwrap_err();
    assert!(error.to_string().contains("add --new-root"), "{error}");
    let other = Kek::parse(&[200; 32]).unwrap();
    let rotation = Rotation { kind: Rotating::Ca, new_root: false, activate_in: NONE };
    let error = keys.rotate(dir.path(), &other, rotation, now(), |_public| panic!("told")).unwrap_err();
    assert!(matches!(error, KeyError::WrongKek(_)), "{error}");
    assert_eq!(files(dir.path()), before);

    rotate(&keys, dir.path(), (Rotating::Ca, true), NONE, late).unwrap();
    rotate(&keys, dir.path(), (Rotating::Tsa, true), DAY * 90, now()).unwrap();
    refused((Rotating::Tsa, false), NONE, "number 2 is made already");
    rotate(&keys, dir.path(), (Rotating::Tsa, false), NONE, now() + DAY * 90).unwrap();
}

/// Without fractions of a second, as certificates and trusted roots have it.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap()
}

/// The present key's window would end before it starts, and with it all that the key signed.
#[test]
fn a_clock_that_is_behind_rotates_nothing() {
    let behind = now() - DAY;
    let wanted = [
        format!("this machine's clock says {behind}"),
        format!("the present key began at {}", whole(now() - SignedDuration::from_mins(1))),
        "set it".to_owned(),
        "Nothing was changed".to_owned(),
    ];
    let unheard = |error: KeyError, key: &str, dir: &Path, before: &[(String, Vec<u8>)]| {
        assert!(matches!(&error, KeyError::Rotation { key: of, .. } if *of == key), "{error}");
        let said = error.to_string();
        assert!(wanted.iter().all(|wanted| said.contains(wanted)), "{said}");
        assert_eq!(files(dir), before, "{key}");
    };
    for rotated in ALL.into_iter().chain([(Rotating::Tuf, false), (Rotating::Tuf, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let keys = keyring(dir.path(), now());
        let (bundle, root, before) = (signed(&keys, now()), keys.trusted_root(), files(dir.path()));
        // Also if it is to sign at a time that is ahead of the present key's.
        let later = if rotated.0 == Rotating::Tuf { NONE } else { DAY * 2 };
        for activate_in in [NONE, later] {
            let error = rotate(&keys, dir.path(), rotated, activate_in, behind).unwrap_err();
            unheard(error, rotated.0.name(), dir.path(), &before);
        }
        assert_eq!(keys.trusted_root(), root);
        holds(&bundle, &root).unwrap();
        rotate(&keys, dir.path(), rotated, NONE, now()).unwrap();
        holds(&bundle, &keys.trusted_root()).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let (bundle, root, before) = (signed(&keys, now()), keys.trusted_root(), files(dir.path()));
    let succeed = |at| keys.add_log(dir.path(), &kek(), "log2.example.org", at, |_key| Ok::<_, KeyError>(()));
    unheard(succeed(behind).unwrap_err(), "log", dir.path(), &before);
    assert_eq!(keys.trusted_root(), root);
    succeed(now()).unwrap();
    holds(&bundle, &keys.trusted_root()).unwrap();
}

/// Whether the newest key is only announced or the clock is behind cannot always be told: then both are said.
#[test]
fn a_clock_behind_a_later_key_rotates_nothing() {
    for rotated in [(Rotating::Ca, false), (Rotating::Sct, false), (Rotating::Tsa, false), (Rotating::Tuf, false)] {
        let dir = tempfile::tempdir().unwrap();
        let keys = keyring(dir.path(), now());
        for hours in [2, 4] {
            rotate(&keys, dir.path(), rotated, NONE, now() + HOUR * hours).unwrap();
        }
        let (root, before) = (keys.trusted_root(), files(dir.path()));
        let refused = |hours| rotate(&keys, dir.path(), rotated, NONE, now() + HOUR * hours).unwrap_err().to_string();
        let said = refused(1);
        assert!(said.contains(&format!("the present key began at {}", whole(now() + HOUR * 2))), "{said}");
        let said = refused(3);
        for wanted in
            ["number 3 is made already", &format!("clock says {}: if that is behind, set it", now() + HOUR * 3)]
        {
            assert!(said.contains(wanted), "{said}");
        }
        assert_eq!((keys.trusted_root(), files(dir.path())), (root, before));
        rotate(&keys, dir.path(), rotated, NONE, now() + HOUR * 5).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let succeed = |origin, hours| {
        keys.add_log(dir.path(), &kek(), origin, now() + HOUR * hours, |_key| Ok::<_, KeyError>(())).map(drop)
    };
    succeed("log2.example.org", 2).unwrap();
    let (root, before) = (keys.trusted_root(), files(dir.path()));
    let said = succeed("log3.example.org", 1).unwrap_err().to_string();
    assert!(said.contains(&format!("the present key began at {}", whole(now() + HOUR * 2))), "{said}");
    assert_eq!((keys.trusted_root(), files(dir.path())), (root, before));
}

/// As often as one likes, and then no more: the trusted root stays a document that clients read.
#[test]
fn a_hundred_generations_are_enough() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    for number in 2..=100 {
        let made = rotate(&keys, dir.path(), (Rotating::Sct, false), NONE, now() + HOUR * number).unwrap();
        assert_eq!(i64::from(made.number), i64::from(number));
    }
    let error = rotate(&keys, dir.path(), (Rotating::Sct, false), NONE, now() + DAY * 30).unwrap_err();
    assert!(error.to_string().contains("there were 100"), "{error}");
    TrustedRoot::parse(&keys.trusted_root()).unwrap();
    holds(&signed(&keys, now() + DAY * 30), &keys.trusted_root()).unwrap();
}

/// All files of the keys, with their contents.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir.join("keys")).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

/// Every state that a crash can leave: with some of the new files, whole or torn, and the old manifest.
#[test]
fn a_crash_before_the_manifest_leaves_the_old_keys() {
    for rotated in ALL.into_iter().chain([(Rotating::Tuf, false), (Rotating::Tuf, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let keys = keyring(dir.path(), now());
        let (old, root) = (files(dir.path()), keys.trusted_root());
        rotate(&keys, dir.path(), rotated, NONE, now() + HOUR).unwrap();
        let new: Vec<_> = files(dir.path()).into_iter().filter(|file| !old.contains(file)).collect();
        assert!(new.len() >= 3, "two files and the manifest");
        let names: Vec<_> = new.iter().map(|(name, _)| name.clone()).filter(|name| name != "manifest.json").collect();
        let at = |name: &str| dir.path().join("keys").join(name);
        for written in 0..=names.len() {
            for torn in [false, true] {
                for name in &names {
                    drop(fs::remove_file(at(name)));
                }
                for (name, bytes) in &old {
                    fs::write(at(name), bytes).unwrap();
                }
                for (nth, name) in names.iter().take(written).enumerate() {
                    let bytes = &new.iter().find(|(of, _)| of == name).unwrap().1;
                    let end = if torn && nth + 1 == written { bytes.len() / 2 } else { bytes.len() };
                    fs::write(at(name), &bytes[..end]).unwrap();
                }
                let manifest = &new.iter().find(|(of, _)| of == "manifest.json").unwrap().1;
                fs::write(at("manifest.json.new"), &manifest[..manifest.len() / 2]).unwrap();
                let opened = Keyring::open(dir.path(), &kek()).unwrap();
                assert_eq!(*opened.trusted_root(), *root, "{rotated:?} after {written} files");
                let again = rotate(&opened, dir.path(), rotated, NONE, now() + HOUR).unwrap();
                assert_eq!(again.number, 2);
                drop(Keyring::open(dir.path(), &kek()).unwrap());
            }
        }
    }
}

/// The manifest vouches for the generations: one that is changed, dropped or moved in time is noticed.
#[test]
fn generations_cannot_be_edited() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    rotate(&keys, dir.path(), (Rotating::Sct, false), DAY, now()).unwrap();
    let path = dir.path().join("keys/manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    let changes: [&dyn Fn(&mut serde_json::Value); 4] = [
        &|manifest| manifest["generations"][0]["signsFrom"] = "2026-01-02T12:00:00Z".into(),
        &|manifest| manifest["generations"][0]["number"] = 3.into(),
        &|manifest| manifest["generations"] = serde_json::json!([]),
        &|manifest| drop(manifest.as_object_mut().unwrap().remove("generations")),
    ];
    for change in changes {
        let mut changed = whole.clone();
        change(&mut changed);
        fs::write(&path, changed.to_string()).unwrap();
        let refused = Keyring::open(dir.path(), &kek()).unwrap_err();
        assert!(matches!(refused, KeyError::Damaged { .. }), "{refused}");
    }
    fs::write(&path, text).unwrap();
    Keyring::open(dir.path(), &kek()).unwrap();
}

/// Directories of the first format rotate too: under their P-384 root, and to a P-256 one.
#[test]
fn directories_of_format_1_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keys-v1/keys");
    fs::create_dir(dir.path().join("keys")).unwrap();
    for entry in fs::read_dir(golden).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join("keys").join(entry.file_name())).unwrap();
    }
    let keys = Keyring::open(dir.path(), &kek()).unwrap();
    let start = now() + DAY;
    let first = signed(&keys, start);
    let refused = rotate(&keys, dir.path(), (Rotating::Tuf, false), NONE, start).unwrap_err();
    assert!(matches!(refused, KeyError::TufRoot(_)), "it has none yet: {refused}");
    for (days, rotated) in (1..).zip(ALL) {
        rotate(&keys, dir.path(), rotated, NONE, start + DAY * days).unwrap();
        for bundle in [&first, &signed(&keys, start + DAY * days + HOUR)] {
            holds(bundle, &keys.trusted_root()).unwrap();
        }
    }
    keys.add_tuf(dir.path(), &kek()).unwrap();
    rotate(&keys, dir.path(), (Rotating::Tuf, false), NONE, start + DAY * 9).unwrap();
    drop(Keyring::open(dir.path(), &kek()).unwrap());
}

/// Fewer bytes and less work for whoever verifies: the time-stamp authority is P-256 throughout.
#[test]
fn a_new_time_stamp_root_is_p256() {
    use der::{Decode as _, Encode as _};
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let chain = keys.public().tsa_chain_pem(now()).unwrap();
    for pem in chain.split_inclusive("-----END CERTIFICATE-----\n") {
        let (_, der) = der::pem::decode_vec(pem.as_bytes()).unwrap();
        let certificate = x509_cert::Certificate::from_der(&der).unwrap();
        let spki = certificate.tbs_certificate.subject_public_key_info.to_der().unwrap();
        assert_eq!(
            countersign::model::PublicKey::from_spki(&spki).unwrap().scheme(),
            countersign::model::Scheme::P256Sha256
        );
    }
}

#[test]
fn what_ends_is_warned_of_with_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let at = |days: i32| keys.public().warnings(now() + DAY * days);
    assert_eq!(at(400), Vec::<String>::new());
    let late = at(3_652 - 30);
    assert!(late.iter().any(|text| text.contains("`countersign trust rotate ca --new-root`")), "{late:?}");
    assert!(late.iter().any(|text| text.contains("`countersign trust rotate tsa --new-root`")), "{late:?}");
    assert!(late.iter().any(|text| text.contains("tls-ca")), "{late:?}");
    assert!(at(3_653).iter().any(|text| text.contains("ca expired")));
    for kind in [Rotating::Ca, Rotating::Tsa] {
        rotate(&keys, dir.path(), (kind, true), DAY, now() + DAY * 3_500).unwrap();
    }
    assert_eq!(at(3_652 - 30).len(), 1, "the local TLS authority alone");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is rotated and when: everything that was ever signed verifies under the newest trusted root.
    #[test]
    fn all_that_was_signed_verifies_for_ever(steps in prop::collection::vec((0..ALL.len(), 0_i32..3, 0_i32..72), 1..8)) {
        let dir = tempfile::tempdir().unwrap();
        let keys = keyring(dir.path(), now());
        let mut at: Timestamp = now();
        let mut all = vec![signed(&keys, at)];
        for (which, days, hours) in steps {
            let done = rotate(&keys, dir.path(), ALL[which], DAY * days, at);
            prop_assert!(done.is_ok() || done.unwrap_err().to_string().contains("made already"));
            all.push(signed(&keys, at));
            at += HOUR * hours;
            all.push(signed(&keys, at));
        }
        let root = keys.trusted_root();
        for bundle in &all {
            prop_assert!(holds(bundle, &root).is_ok());
        }
    }
}
