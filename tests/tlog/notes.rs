//! Notes and checkpoints: the golden ones, and tables of what is refused and why.

use countersign::tlog::{Checkpoint, CheckpointError, EMPTY_ROOT, Note, NoteError, VerifierKey};
use sha2::{Digest as _, Sha256};

use super::{LOG_KEY, log_key, sign};

#[test]
fn golden_checkpoints_verify_and_are_what_we_would_sign() {
    let key = log_key();
    for (golden, size) in [
        (include_str!("../golden/tlog/checkpoint/0"), 0),
        (include_str!("../golden/tlog/checkpoint/1"), 1),
        (include_str!("../golden/tlog/checkpoint/300"), 300),
    ] {
        let checkpoint = Checkpoint::verify(golden, &key).unwrap();
        assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("log.example", size));
        assert_eq!(checkpoint.sign(&key, sign).unwrap(), golden);
        assert_eq!(checkpoint.root == EMPTY_ROOT, size == 0);
    }
    let cosigned = include_str!("../golden/tlog/checkpoint/300-cosigned");
    let alone = include_str!("../golden/tlog/checkpoint/300");
    assert_eq!(Checkpoint::verify(cosigned, &key), Checkpoint::verify(alone, &key));
    assert_eq!(Note::parse(cosigned).unwrap().to_string(), cosigned);
}

#[test]
fn keys_that_are_not_of_the_form_are_refused() {
    for (bad, why) in [
        ("log.example+891bac2e+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs", NoteError::Key),
        ("log.exampl+891bac2d+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs", NoteError::Key),
        ("log.example+891BAC2D+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs", NoteError::Key),
        ("log.example+891bac2d+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtI=", NoteError::Key),
        ("log.example+891bac2d", NoteError::Key),
        ("log.example+891bac2d+", NoteError::Key),
        ("log.example", NoteError::Key),
        ("+891bac2d+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs", NoteError::Name),
        ("log example+891bac2d+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs", NoteError::Name),
    ] {
        assert_eq!(VerifierKey::parse(bad).unwrap_err(), why, "{bad}");
    }
    let key = VerifierKey::parse(LOG_KEY).unwrap();
    // The log id of Rekor v2 is SHA-256(name || 0x0A || 0x01 || key); sigstore.md section 3.
    let formula: Vec<u8> = b"log.example\n\x01".iter().chain(key.public()).copied().collect();
    assert_eq!(key.hash().as_slice(), Sha256::digest(formula).as_slice());
}

#[test]
fn texts_that_are_no_checkpoint_are_refused() {
    let root = "yjk9Apa+xeC43KuYO9H7fRRh9RLnJny4ljGtJv1m2Eg=";
    assert!(Checkpoint::parse(&format!("log.example\n300\n{root}\n")).is_ok());
    for text in [
        String::new(),
        "\n".to_owned(),
        format!("log.example\n300\n{root}"),
        format!("\n300\n{root}\n"),
        format!("log.example\n{root}\n"),
        format!("log.example\n\n{root}\n"),
        format!("log.example\n0300\n{root}\n"),
        format!("log.example\n+300\n{root}\n"),
        format!("log.example\n-1\n{root}\n"),
        format!("log.example\n 300\n{root}\n"),
        format!("log.example\n18446744073709551616\n{root}\n"),
        format!("log.example\r\n300\n{root}\n"),
        "log.example\n300\nAA==\n".to_owned(),
        format!("log.example\n300\n{}\n", root.trim_end_matches('=')),
        format!("log.example\n300\n{}\n", root.replace("Eg=", "Eh=")),
        format!("log.example\n300\n{root}\n\n"),
        format!("log.example\n300\n{root}\nextension\n"),
    ] {
        assert_eq!(Checkpoint::parse(&text), Err(CheckpointError::Malformed), "{text:?}");
    }
}

#[test]
fn an_origin_that_is_not_one_line_is_never_signed() {
    let key = log_key();
    for origin in ["", "log.example\n300", "log.example\r", "\n", "log\u{0}example"] {
        let checkpoint = Checkpoint { origin: origin.to_owned(), size: 1, root: [1; 32] };
        assert_eq!(
            checkpoint.sign(&key, |_| -> [u8; 64] { panic!("{origin:?} was signed") }),
            Err(CheckpointError::Malformed)
        );
    }
}

#[test]
fn a_checkpoint_counts_only_with_the_log_s_key_and_name() {
    let key = log_key();
    let note = include_str!("../golden/tlog/checkpoint/300-cosigned");
    let namesake = VerifierKey::new("log.example", [3; 32]).unwrap();
    let unsigned = CheckpointError::Note(NoteError::Unsigned("log.example".to_owned()));
    assert_eq!(Checkpoint::verify(note, &namesake), Err(unsigned));
    let other = VerifierKey::new("other.example", *key.public()).unwrap();
    let foreign = Checkpoint { origin: "log.example".to_owned(), size: 1, root: [1; 32] }.sign(&other, sign).unwrap();
    assert_eq!(Checkpoint::verify(&foreign, &other), Err(CheckpointError::Origin("log.example".to_owned())));
    // A second signature by the same key, which does not verify, spoils the note.
    let spoilt = format!("{note}{}", note.lines().nth(4).unwrap().replace("iRusLZmj", "iRusLZmk") + "\n");
    let refused = CheckpointError::Note(NoteError::Signature("log.example".to_owned()));
    assert_eq!(Checkpoint::verify(&spoilt, &key), Err(refused));
}
