//! Witnesses: notes with many signatures, cosignatures, policies, the witness itself, and the log that asks it.

mod asking;
mod harness;
mod process;
mod service;

use aws_lc_rs::signature::{Ed25519KeyPair, ML_DSA_44_SIGNING, PqdsaKeyPair};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::tlog::{
    Checkpoint, CosignerKey, EMPTY_ROOT, LogKey, Note, NoteError, Policy, PolicyDenial, SignatureLine, VerifierKey,
    witness::{AddCheckpoint, Refusal, parse_conflict, print_conflict},
};
use harness::{cosigner_key, log_key, sign_with};
use proptest::prelude::*;

/// Checkpoints and keys that others published.
macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/witness/", $name))
    };
}

const SOFA: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

#[test]
fn a_checkpoint_of_the_public_network_meets_its_policy() {
    let policy = Policy::parse(golden!("../tlog/policy/ct-staging")).unwrap();
    let note = golden!("ct-staging.checkpoint");
    let witnessed = policy.check(note).unwrap();
    assert_eq!(witnessed.checkpoint().size, 1_432_088_532);
    let times: Vec<(&str, u64)> = witnessed.cosigned().iter().map(|(name, time)| (name.as_str(), *time)).collect();
    let time = 0x6a12_2120;
    assert_eq!(times, [("garden", time), ("smartit", time), ("remora", time), ("stagemole", time)]);
    // The log's other signature, of a kind that is not known here, is kept as it is.
    assert_eq!(Note::parse(note).unwrap().to_string(), note);
    assert_eq!(Note::parse(note).unwrap().signatures().len(), 6);
    // Without stagemole the group that needs all of its members is not met.
    let fewer: String = note.split_inclusive('\n').filter(|line| !line.contains("stagemole")).collect();
    let denied = PolicyDenial::Quorum {
        quorum: "both".to_owned(),
        cosigned: ["garden", "smartit", "remora"].map(str::to_owned).to_vec(),
    };
    assert_eq!(policy.check(&fewer), Err(denied));
    // A production Rekor.
    let rekor = "log log2025-1.rekor.sigstore.dev+cf119915+AbfK5adZJxsI323FwGD2AJJ9F4i89cfDuLdGJBIYntuO\n\
                 witness mullvad witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv\nquorum mullvad\n";
    assert_eq!(
        Policy::parse(rekor).unwrap().check(golden!("rekor.checkpoint")).unwrap().checkpoint().size,
        139_911_860
    );
    assert!(matches!(policy.check(golden!("rekor.checkpoint")), Err(PolicyDenial::UnknownLog(_))));
}

#[test]
fn ml_dsa_cosignatures_and_log_signatures_of_others_verify() {
    let key = CosignerKey::parse(golden!("ct-mldsa.vkey").trim_end()).unwrap();
    let note = Note::parse(golden!("ct-mldsa.checkpoint")).unwrap();
    assert_eq!(key.verify(&note), Ok(1_785_704_691));
    assert_eq!(key.vkey(), golden!("ct-mldsa.vkey").trim_end());
    // The same witness cosigned with its Ed25519 key, under the same name and another id.
    let plain = "witness.navigli.sunlight.geomys.org+a3e00fe2+BNy/co4C1Hn1p+INwJrfUlgz7W55dSZReusH/GhUhJ/G";
    assert_eq!(CosignerKey::parse(plain).unwrap().verify(&note), Ok(1_785_704_691));
    // A log that signs with ML-DSA-44, and the time 0.
    let log = LogKey::parse(golden!("mldsa-log.vkey").trim_end()).unwrap();
    let request = AddCheckpoint::parse(golden!("../tlog/add_checkpoint/mldsa-log")).unwrap();
    assert_eq!(request.to_string(), golden!("../tlog/add_checkpoint/mldsa-log"));
    let opened = request.open(|_| Some(std::slice::from_ref(&log))).unwrap();
    assert_eq!((opened.checkpoint().size, opened.checkpoint().origin.as_str()), (1, "example.com/mldsa-log"));
    opened.check_growth((0, &EMPTY_ROOT)).unwrap();
    let changed = golden!("../tlog/add_checkpoint/mldsa-log").replace("log\n1\n", "log\n2\n");
    let changed = AddCheckpoint::parse(&changed).unwrap().open(|_| Some(std::slice::from_ref(&log)));
    assert!(matches!(changed, Err(Refusal::Signature(NoteError::Signature(_)))));
}

#[test]
fn an_ed25519_cosignature_is_the_one_that_another_implementation_makes() {
    // Made by pyca/cryptography, from the seed 07 07 …
    let vkey = "witness.example.com/w1+8122a5ab+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
    let line = "\u{2014} witness.example.com/w1 \
                gSKlqwAAAABkGFDLWr4Jea05CAgwNVtwky0Jgz6WfX0QJgM//FkB/W9BoT9TX0DkTxG+2cT4p/ViKNhUM/SnUwFcYQzugGFQ15LwDw==";
    let (key, pair) = cosigner_key("witness.example.com/w1", 7);
    assert_eq!(key.vkey(), vkey);
    let signed = key.cosign(SOFA, 1_679_315_147, |message| Some(pair.sign(message).as_ref().to_vec())).unwrap();
    assert_eq!(signed.to_string(), line);
    // A signature by another key is not given out, and neither is none.
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let wrong = key.cosign(SOFA, 1, |message| Some(other.sign(message).as_ref().to_vec()));
    assert_eq!(wrong, Err(NoteError::Signature("witness.example.com/w1".to_owned())));
    assert!(key.cosign(SOFA, 1, |_| None).is_err());
    assert!(key.message(SOFA, 1 << 63).is_err(), "a time past 2^63 - 1");
    assert!(key.message(SOFA, (1 << 63) - 1).is_ok());
}

#[test]
fn the_ml_dsa_message_is_the_structure_of_the_specification() {
    let pair = PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, &[7; 32]).unwrap();
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref();
    let key = CosignerKey::ml_dsa_44("witness.example.com/w1", public).unwrap();
    assert_eq!(hex::encode(key.id()), "fee9385e", "the id that pyca/cryptography's key of this seed has");
    let root = STANDARD.decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=").unwrap();
    let mut expected = b"subtree/v1\n\0".to_vec();
    expected.extend(b"\x16witness.example.com/w1\x00\x00\x00\x00\x64\x18\x50\xcb\x1bexample.com/behind-the-sofa");
    expected.extend(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x3e\x2d\xc3");
    expected.extend(root);
    assert_eq!(key.message(SOFA, 1_679_315_147).unwrap(), expected);
    let sign = |message: &[u8]| {
        let mut signature = vec![0; ML_DSA_44_SIGNING.signature_len()];
        pair.sign(message, &mut signature).unwrap();
        Some(signature)
    };
    let line = key.cosign(SOFA, 5, sign).unwrap();
    assert_eq!((line.bytes().len(), key.verify_line(SOFA, &line)), (8 + 2_420, Ok(5)));
    // What it does not sign it does not verify either.
    let extended = format!("{SOFA}an extension\n");
    assert!(key.cosign(&extended, 5, sign).is_err());
    assert!(key.verify_line(&extended, &line).is_err());
    assert!(key.message("no checkpoint\n", 5).is_err());
    assert!(key.message(&SOFA.replace("example.com", &"a".repeat(300)), 5).is_err(), "an origin over 255 bytes");
    assert!(CosignerKey::ml_dsa_44(&"a".repeat(256), public).is_err());
    assert!(CosignerKey::ml_dsa_44("w", public.split_last().unwrap().1).is_err());
    // Ed25519 signs the whole text.
    let (plain, pair) = cosigner_key("w", 1);
    let line = plain.cosign(&extended, 5, |message| Some(pair.sign(message).as_ref().to_vec())).unwrap();
    assert_eq!(plain.verify_line(&extended, &line), Ok(5));
    assert!(plain.verify_line(SOFA, &line).is_err());
}

#[test]
fn keys_of_the_wrong_kind_are_refused() {
    let log = log_key("log.example", 1).0;
    let (cosigner, _) = cosigner_key("w.example", 2);
    assert_eq!(CosignerKey::parse(&log.vkey()), Err(NoteError::Key));
    assert_eq!(LogKey::parse(&cosigner.vkey()), Err(NoteError::Key), "an Ed25519 cosigner is no log");
    assert_eq!(VerifierKey::parse(&cosigner.vkey()), Err(NoteError::Key));
    assert_eq!(CosignerKey::parse(&cosigner.vkey()).unwrap(), cosigner);
    let vkey = cosigner.vkey();
    let (name, rest) = vkey.split_once('+').unwrap();
    let (id, key) = rest.split_once('+').unwrap();
    for bad in [
        format!("{name}+{id}"),
        format!("{name}+00000000+{key}"),
        format!("{name}+{}+{key}", id.to_uppercase()),
        format!("other+{id}+{key}"),
        format!("{name}+{id}+{key}="),
        format!("{name}+{id}+"),
        format!("a b+{id}+{key}"),
        String::new(),
    ] {
        assert!(CosignerKey::parse(&bad).is_err(), "{bad}");
        assert!(LogKey::parse(&bad).is_err(), "{bad}");
    }
}

/// A checkpoint of the log 1, cosigned by the witnesses given by their seeds.
fn cosigned(witnesses: &[u8]) -> Note {
    let (key, pair) = log_key("log.example", 1);
    let checkpoint = Checkpoint { origin: "log.example".to_owned(), size: 42, root: [9; 32] };
    let mut note = Note::parse(&checkpoint.sign(&key, sign_with(pair)).unwrap()).unwrap();
    for seed in witnesses {
        let (key, pair) = cosigner_key(&format!("w{seed}.example"), *seed);
        let sign = |message: &[u8]| Some(pair.sign(message).as_ref().to_vec());
        note.add(key.cosign(note.text_unsafe(), 100 + u64::from(*seed), sign).unwrap()).unwrap();
    }
    note
}

/// A policy with the log 1, the witnesses 11, 12, …, and the lines given.
fn policy(witnesses: u8, lines: &str) -> String {
    let witness = |seed: u8| format!("witness w{seed} {}\n", cosigner_key(&format!("w{seed}.example"), seed).0.vkey());
    let witnesses: String = (11..11 + witnesses).map(witness).collect();
    format!("log {}\n{witnesses}{lines}", log_key("log.example", 1).0.vkey())
}

#[test]
fn every_changed_byte_of_a_cosigned_checkpoint_is_refused() {
    let policy = Policy::parse(&policy(2, "group both all w11 w12\nquorum both\n")).unwrap();
    let note = cosigned(&[11, 12]).to_string();
    assert_eq!(policy.check(&note).unwrap().cosigned(), [("w11".to_owned(), 111), ("w12".to_owned(), 112)]);
    for at in 0..note.len() {
        for bit in 0..7 {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(policy.check(&changed).is_err(), "byte {at} bit {bit}: {changed:?}");
            }
        }
    }
}

#[test]
fn a_failing_line_of_a_known_key_refuses_the_whole_note() {
    let policy = Policy::parse(&policy(3, "group one any w11 w12 w13\nquorum one\n")).unwrap();
    let mut note = cosigned(&[11]);
    policy.check(&note.to_string()).unwrap();
    let known = cosigner_key("w12.example", 12).0;
    // Of an unknown key: another name, or another id.
    for (name, id) in [("w99.example", known.id()), ("w12.example", [1, 2, 3, 4])] {
        note.add(SignatureLine::new(name, id, vec![1; 72]).unwrap()).unwrap();
        assert_eq!(policy.check(&note.to_string()).unwrap().cosigned().len(), 1, "{name} is ignored");
    }
    // A time that was not signed, a signature that is too short, and one of somebody else.
    let good = cosigned(&[12]).signatures()[1].bytes().to_vec();
    let other = cosigned(&[13]).signatures()[1].bytes().to_vec();
    for bytes in [[&[0; 8], &good[8..]].concat(), good[..71].to_vec(), good[..4].to_vec(), other] {
        let mut note = note.clone();
        note.add(SignatureLine::new("w12.example", known.id(), bytes).unwrap()).unwrap();
        let denied = policy.check(&note.to_string());
        assert_eq!(denied, Err(PolicyDenial::Note(NoteError::Signature("w12.example".to_owned()))));
    }
    // A good line before a bad one of the same key does not save the note.
    let twice = format!("{}\u{2014} w11.example {}\n", cosigned(&[11]), {
        let bytes = [cosigner_key("w11.example", 11).0.id().as_slice(), &[1; 72]].concat();
        STANDARD.encode(bytes)
    });
    assert!(policy.check(&twice).is_err());
    // The log's own line.
    let log = log_key("log.example", 1).0;
    let unsigned = note.to_string().replace(&note.signatures()[0].to_string(), &note.signatures()[1].to_string());
    assert!(matches!(policy.check(&unsigned), Err(PolicyDenial::UnknownLog(_))));
    note.add(SignatureLine::new("log.example", log.id(), vec![1; 64]).unwrap()).unwrap();
    assert_eq!(
        policy.check(&note.to_string()),
        Err(PolicyDenial::Note(NoteError::Signature("log.example".to_owned())))
    );
}

#[test]
fn a_note_keeps_one_line_of_each_key_and_a_bounded_number() {
    let mut note = cosigned(&[11, 12]);
    assert_eq!(note.signatures().len(), 3);
    let first = note.signatures()[1].clone();
    note.add(first.clone()).unwrap();
    assert_eq!(
        note.signatures().iter().map(SignatureLine::name).collect::<Vec<_>>(),
        ["log.example", "w12.example", "w11.example"]
    );
    for n in 3..128_u32 {
        note.add(SignatureLine::new("x", n.to_be_bytes(), vec![1]).unwrap()).unwrap();
    }
    assert_eq!(Note::parse(&note.to_string()).unwrap(), note);
    assert!(note.add(SignatureLine::new("x", [0; 4], vec![1]).unwrap()).is_err());
    note.add(first.clone()).unwrap();
    assert!(Note::parse(&format!("{note}\u{2014} y AAAAAAA=\n")).is_err());
    assert!(SignatureLine::new("a b", [0; 4], vec![1]).is_err());
    assert!(SignatureLine::new("a", [0; 4], vec![]).is_err());
    let all = format!("{first}\n{first}\n");
    assert_eq!(SignatureLine::parse_all(&all).unwrap(), [first.clone(), first]);
    for bad in ["", "\n", "x\n", all.trim_end(), &format!("{all}\n")] {
        assert!(SignatureLine::parse_all(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_policy_says_what_is_wrong_with_it() {
    let [w1, w2] = [11, 12].map(|seed| cosigner_key(&format!("w{seed}.example"), seed).0.vkey());
    let (log, _) = log_key("log.example", 1);
    let renamed = CosignerKey::ed25519("another", cosigner_key("w", 11).0.public().try_into().unwrap()).unwrap().vkey();
    let table = [
        ("", 0, "no quorum"),
        ("quorum none", 0, "newline"),
        ("quorum none\nquorum none\n", 2, "already"),
        ("quorum w1\n", 1, "not defined"),
        ("quorum\n", 1, "quorum NAME"),
        ("quorum none none\n", 1, "quorum NAME"),
        ("quorum none\r\n", 1, "control character"),
        ("quorum none\n\u{7f}\n", 2, "control character"),
        ("log\n", 1, "log VKEY"),
        ("log a b c\n", 1, "log VKEY"),
        ("log nonsense\n", 1, "log key"),
        (&format!("log {w1}\n"), 1, "log key"),
        (&format!("log {0}\nlog {0}\n", log.vkey()), 2, "already"),
        (&format!("witness w1 {}\n", log.vkey()), 1, "key of the witness"),
        (&format!("witness w1 {w1}\nwitness w2 {w1}\n"), 2, "counts once"),
        (&format!("witness w1 {w1}\nwitness w2 {renamed}\n"), 2, "counts once"),
        (&format!("witness w1 {w1}\nwitness w1 {w2}\n"), 2, "defined already"),
        (&format!("witness none {w1}\n"), 1, "empty quorum"),
        (&format!("witness w1 {w1} https://a extra\n"), 1, "witness NAME"),
        (&format!("witness w1 {w1}\ngroup g 2 w1\n"), 2, "from 1 to 1"),
        (&format!("witness w1 {w1}\ngroup g 0 w1\n"), 2, "from 1 to 1"),
        (&format!("witness w1 {w1}\ngroup g 01 w1\n"), 2, "from 1 to 1"),
        (&format!("witness w1 {w1}\ngroup g +1 w1\n"), 2, "from 1 to 1"),
        (&format!("witness w1 {w1}\ngroup g some w1\n"), 2, "from 1 to 1"),
        (&format!("witness w1 {w1}\ngroup g any\n"), 2, "at least one member"),
        (&format!("witness w1 {w1}\ngroup g any w2\n"), 2, "not defined"),
        (&format!("witness w1 {w1}\ngroup g any none\n"), 2, "not defined"),
        (&format!("witness w1 {w1}\ngroup g any w1 w1\n"), 2, "one way only"),
        (&format!("witness w1 {w1}\ngroup g any g\n"), 2, "not defined"),
        (&format!("witness w1 {w1}\ngroup w1 any w1\n"), 2, "defined already"),
        (&format!("witness w1 {w1}\ngroup g any w1\ngroup h any w1\n"), 3, "one way only"),
        ("Quorum none\n", 1, "none of log"),
        ("quorum none # comment\n", 1, "quorum NAME"),
    ];
    for (text, line, problem) in table {
        let error = Policy::parse(text).unwrap_err();
        assert!(error.line == line && error.problem.contains(problem), "{text:?}: {error}");
    }
    let many = |count: u8| format!("{}quorum none\n", policy(count, ""));
    assert_eq!(Policy::parse(&many(64)).unwrap().witnesses().len(), 64);
    assert!(Policy::parse(&many(65)).unwrap_err().problem.contains("the limit is 64"));
    let fine = format!("\n \t# a comment\n\twitness  w1 \t{w1}  https://w1.example.com/ \n#\nquorum\tw1 \n");
    let fine = Policy::parse(&fine).unwrap();
    assert_eq!((fine.quorum(), fine.witnesses()[0].url.as_deref()), ("w1", Some("https://w1.example.com/")));
    assert!(fine.is_met(&[true]) && !fine.is_met(&[false]) && !fine.is_met(&[]));
    assert!(Policy::parse("quorum none\n").unwrap().is_met(&[]));
}

/// A group of witnesses or of groups, as a tree: the naive model.
#[derive(Debug, Clone)]
enum Model {
    Witness(usize),
    Group(usize, Vec<Self>),
}

impl Model {
    fn is_met(&self, cosigned: &[bool]) -> bool {
        match self {
            Self::Witness(at) => cosigned[*at],
            Self::Group(k, members) => members.iter().filter(|member| member.is_met(cosigned)).count() >= *k,
        }
    }

    /// Writes the groups below, and gives the name.
    fn write(&self, lines: &mut String, next: &mut usize) -> String {
        match self {
            Self::Witness(at) => format!("w{}", at + 11),
            Self::Group(k, members) => {
                let names: Vec<String> = members.iter().map(|member| member.write(lines, next)).collect();
                *next += 1;
                let k = match (*k, names.len()) {
                    (1, _) => "any".to_owned(),
                    (k, n) if k == n => "all".to_owned(),
                    (k, _) => k.to_string(),
                };
                lines.push_str(&format!("group g{next} {k} {}\n", names.join(" ")));
                format!("g{next}")
            }
        }
    }
}

/// Trees over the witnesses of the range, each used once.
fn model(witnesses: std::ops::Range<usize>) -> BoxedStrategy<Model> {
    let count = witnesses.len();
    if count == 1 {
        return Just(Model::Witness(witnesses.start)).boxed();
    }
    let start = witnesses.start;
    (1..count)
        .prop_flat_map(move |split| {
            (model(start..start + split), model(start + split..start + count), 1..=2_usize, any::<bool>())
        })
        .prop_map(|(left, right, k, merge)| match (left, right) {
            // Sometimes one wide group in the place of two nested ones.
            (Model::Group(_, mut members), right) if merge => {
                members.push(right);
                Model::Group(k.min(members.len()), members)
            }
            (left, right) => Model::Group(k, vec![left, right]),
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_quorum_is_met_as_the_tree_says(
        (model, cosigned) in (2..8_usize).prop_flat_map(|n| (model(0..n), prop::collection::vec(any::<bool>(), n)))
    ) {
        let mut lines = String::new();
        let name = model.write(&mut lines, &mut 0);
        let text = policy(cosigned.len() as u8, &format!("{lines}quorum {name}\n"));
        let policy = Policy::parse(&text).unwrap();
        prop_assert_eq!(policy.is_met(&cosigned), model.is_met(&cosigned));
        prop_assert_eq!(&Policy::parse(&policy.to_string()).unwrap(), &policy);
        let seeds: Vec<u8> = (11..).zip(&cosigned).filter(|(_, is)| **is).map(|(seed, _)| seed).collect();
        prop_assert_eq!(policy.check(&crate::witness::cosigned(&seeds).to_string()).is_ok(), model.is_met(&cosigned));
    }

    #[test]
    fn requests_print_back_to_what_they_were(old in any::<u64>(), proof in prop::collection::vec(any::<[u8; 32]>(), 0..64)) {
        let request = AddCheckpoint { old, proof, checkpoint: cosigned(&[11]).to_string() };
        prop_assert_eq!(AddCheckpoint::parse(&request.to_string()).unwrap(), request);
        prop_assert_eq!(parse_conflict(&print_conflict(old)), Some(old));
    }

    #[test]
    fn whatever_comes_is_parsed_or_refused(text in "(old [0-9]{0,3}\n|[A-Za-z0-9+/=]{44}\n|\n|\u{2014} a b\n|.){0,12}") {
        if let Ok(request) = AddCheckpoint::parse(&text) {
            prop_assert_eq!(request.to_string(), text.clone());
        }
        if let Ok(note) = Note::parse(&text) {
            prop_assert_eq!(note.to_string(), text.clone());
        }
        if let Ok(policy) = Policy::parse(&text) {
            prop_assert_eq!(Policy::parse(&policy.to_string()).unwrap(), policy);
        }
    }
}

#[test]
fn requests_of_another_form_are_refused() {
    let checkpoint = cosigned(&[]).to_string();
    let hash = STANDARD.encode([7; 32]);
    let proof = |count: usize| format!("{hash}\n").repeat(count);
    let good = format!("old 5\n{}\n{checkpoint}", proof(63));
    assert_eq!(AddCheckpoint::parse(&good).unwrap().proof.len(), 63);
    for bad in [
        String::new(),
        "old 5\n".to_owned(),
        format!("old 5\n{checkpoint}"),
        format!("\n\n{checkpoint}"),
        format!("old\n\n{checkpoint}"),
        format!("old \n\n{checkpoint}"),
        format!("old 05\n\n{checkpoint}"),
        format!("old +5\n\n{checkpoint}"),
        format!("old -5\n\n{checkpoint}"),
        format!("old 5 \n\n{checkpoint}"),
        format!("Old 5\n\n{checkpoint}"),
        format!("old 18446744073709551616\n\n{checkpoint}"),
        format!("{hash}\nold 5\n\n{checkpoint}"),
        format!("old 5\n{}\n{checkpoint}", proof(64)),
        format!("old 5\n{}\n\n{checkpoint}", hash.trim_end_matches('=')),
        format!("old 5\n{}\n\n{checkpoint}", STANDARD.encode([7; 31])),
        format!("old 5\n{hash} \n\n{checkpoint}"),
        format!("old 5\r\n\n{checkpoint}"),
        format!("old 5\n\n{}", "x".repeat(64 * 1024)),
    ] {
        assert!(matches!(AddCheckpoint::parse(&bad), Err(Refusal::Malformed(_))), "{bad:?}");
    }
    for bad in ["", "5", "05\n", "5\n\n", " 5\n", "-1\n", "x\n"] {
        assert_eq!(parse_conflict(bad), None, "{bad:?}");
    }
}
