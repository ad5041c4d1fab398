//! C2SP `tlog-proof`: golden receipts, what they prove, and what is refused and why.

use countersign::tlog::{
    Checkpoint, CheckpointError, NoteError, ProofError, Receipt, ReceiptError, VerifierKey, leaf_hash, prove_inclusion,
    root_of,
};
use proptest::prelude::*;

use super::{log_key, model::Model, sign};

const MIDDLE: &str = include_str!("../golden/tlog/receipt/137-of-300");
const LAST: &str = include_str!("../golden/tlog/receipt/256-of-257");
const ONLY: &str = include_str!("../golden/tlog/receipt/0-of-1");

fn entry(index: u64) -> [u8; 32] {
    leaf_hash(format!("entry {index}").as_bytes())
}

#[test]
fn golden_receipts_verify_and_print_back() {
    for (text, index, size) in [(MIDDLE, 137, 300), (LAST, 256, 257), (ONLY, 0, 1)] {
        let receipt: Receipt = text.parse().unwrap();
        assert_eq!(receipt.to_string(), text);
        let included = receipt.verify(&entry(index), &log_key()).unwrap();
        assert_eq!((included.index(), included.checkpoint().size), (index, size));
        assert_eq!(included.checkpoint().origin, "log.example");
    }
    let extra = |text: &str| text.parse::<Receipt>().unwrap().extra_unsafe().map(<[u8]>::to_vec);
    assert_eq!(extra(MIDDLE).as_deref(), Some(b"artifact-1.2.3.tar.gz".as_slice()));
    assert_eq!(extra(LAST), None);
}

#[test]
fn a_receipt_is_of_one_entry_under_one_log() {
    let receipt: Receipt = MIDDLE.parse().unwrap();
    assert_eq!(receipt.verify(&entry(138), &log_key()), Err(ReceiptError::Proof(ProofError::Root)));
    let other = VerifierKey::new("other.example", *log_key().public()).unwrap();
    let unsigned = CheckpointError::Note(NoteError::Unsigned("other.example".to_owned()));
    assert_eq!(receipt.verify(&entry(137), &other), Err(ReceiptError::Checkpoint(unsigned)));
    let moved: Receipt = MIDDLE.replace("index 137", "index 300").parse().unwrap();
    let outside = ProofError::IndexOutside { index: 300, size: 300 };
    assert_eq!(moved.verify(&entry(137), &log_key()), Err(ReceiptError::Proof(outside)));
    let (first, rest) = MIDDLE.split_once("DqEhTXnBoy/4iLTqaf6Jyhk+NKque3BGJYmiXwE2GSQ=\n").unwrap();
    let shorter: Receipt = format!("{first}{rest}").parse().unwrap();
    assert_eq!(shorter.verify(&entry(137), &log_key()), Err(ReceiptError::Proof(ProofError::Length)));
    // Under another checkpoint of the same log the proof does not hold.
    let (head, _) = MIDDLE.split_once("\n\n").unwrap();
    let swapped: Receipt = format!("{head}\n\n{}", include_str!("../golden/tlog/checkpoint/1")).parse().unwrap();
    assert!(matches!(swapped.verify(&entry(137), &log_key()), Err(ReceiptError::Proof(_))));
}

#[test]
fn texts_that_are_no_receipt_are_refused_by_name() {
    let header = "its first line is not c2sp.org/tlog-proof@v1";
    let index = "it has no line `index` with a decimal without leading zeros";
    let hash = "a line of its proof is not base64 of 32 bytes";
    let blank = "there is no blank line before the checkpoint";
    let base64 = "its extra data are not base64";
    let empty = "its extra data are empty; leave the line out";
    for (from, to, why) in [
        ("tlog-proof@v1", "tlog-proof@v2", header),
        ("c2sp", "C2SP", header),
        ("tlog-proof@v1\n", "tlog-proof@v1\r\n", header),
        ("tlog-proof@v1\n", "tlog-proof@v1 \n", header),
        ("c2sp", "\nc2sp", header),
        ("extra YXJ0aWZhY3QtMS4yLjMudGFyLmd6", "extra ", empty),
        ("extra YXJ0aWZhY3QtMS4yLjMudGFyLmd6", "extra YXJ0aWZhY3QtMS4yLjMudGFyLmd6=", base64),
        ("extra YXJ0aWZhY3QtMS4yLjMudGFyLmd6", "extra  YXJ0aWZhY3QtMS4yLjMudGFyLmd6", base64),
        ("extra YXJ0aWZhY3QtMS4yLjMudGFyLmd6", "extra YXJ0aWZhY3QtMS4yLjMudGFyLmd6\nextra AAAA", index),
        ("extra ", "Extra ", index),
        ("index 137", "index 0137", index),
        ("index 137", "index +137", index),
        ("index 137", "index -1", index),
        ("index 137", "index 18446744073709551616", index),
        ("index 137", "index", index),
        ("index 137", "index ", index),
        ("index 137", "index  137", index),
        ("index 137", "INDEX 137", index),
        ("index 137\n", "", index),
        ("index 137", "index 137\nindex 137", hash),
        ("index 137", "index 137\nAAAA", hash),
        ("lU9jXNyHraBMPNezjz1MClis3EpJleJ/KCrY143WwBM=", "lU9jXNyHraBMPNezjz1MClis3EpJleJ/KCrY143WwBM", hash),
        ("lU9jXNyHraBMPNezjz1MClis3EpJleJ/KCrY143WwBM=", "lU9jXNyHraBMPNezjz1MClis3EpJleJ/KCrY143WwBN=", hash),
        ("lU9jXNyHraBMPNezjz1MClis3EpJleJ/KCrY143WwBM=", "lU9jXNyHraBMPNezjz1MClis3EpJleJ_KCrY143WwBM=", hash),
    ] {
        let text = MIDDLE.replacen(from, to, 1);
        assert_ne!(text, MIDDLE, "{from} is not in the receipt");
        assert_eq!(text.parse::<Receipt>(), Err(ReceiptError::Malformed(why)), "{from:?} -> {to:?}");
    }
    for text in ["", "c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v1\n", "c2sp.org/tlog-proof@v1\nindex 0\n"] {
        assert_eq!(text.parse::<Receipt>(), Err(ReceiptError::Malformed(blank)), "{text:?}");
    }
    // The rest is a note's, and its errors are a note's.
    for (from, to) in [("\n\nlog.example", "\n\n\nlog.example"), ("\u{2014} log", "- log"), ("==", "==\n")] {
        let text = MIDDLE.replacen(from, to, 1);
        match text.parse::<Receipt>() {
            Err(ReceiptError::Checkpoint(CheckpointError::Note(NoteError::Malformed(_)))) => {}
            Ok(receipt) => assert!(receipt.verify(&entry(137), &log_key()).is_err(), "{text}"),
            other => panic!("{from:?} -> {to:?}: {other:?}"),
        }
    }
}

#[test]
fn receipts_are_bounded() {
    let note = include_str!("../golden/tlog/checkpoint/300");
    let hashes = |count| Receipt::new(0, vec![[1; 32]; count], note);
    let many = Err(ReceiptError::Malformed("it has more than 64 hashes"));
    assert_eq!(hashes(64).unwrap().to_string().parse(), hashes(64));
    assert_eq!(hashes(65), many);
    let longer =
        hashes(64).unwrap().to_string().replacen("index 0\n", &format!("index 0\n{}\n", "A".repeat(43) + "="), 1);
    assert_eq!(longer.parse::<Receipt>(), many);
    let extra = |length| hashes(64).unwrap().with_extra(vec![1; length]);
    assert_eq!(extra(64 * 1024).unwrap().to_string().parse(), extra(64 * 1024));
    assert_eq!(extra(64 * 1024 + 1), Err(ReceiptError::Malformed("its extra data are longer than 64 KiB")));
    assert_eq!(extra(0), Err(ReceiptError::Malformed("its extra data are empty; leave the line out")));
    let endless = MIDDLE.replacen("index 137\n", &format!("index 137\n{}", "A\n".repeat(1 << 20)), 1);
    assert_eq!(endless.parse::<Receipt>(), Err(ReceiptError::Malformed("it is too long")));
}

proptest! {
    #[test]
    fn receipts_of_any_tree_print_parse_and_verify(
        size in 1_u64..100_000, at: prop::sample::Index, extra in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let index = at.index(size as usize) as u64;
        let log = Model::sparse([0, index, size - 1]);
        let root = root_of(size, &log).unwrap();
        let checkpoint = Checkpoint { origin: "log.example".to_owned(), size, root };
        let note = checkpoint.sign(&log_key(), sign).unwrap();
        let receipt = Receipt::new(index, prove_inclusion(index, size, &log).unwrap(), &note).unwrap();
        let receipt = if extra.is_empty() { receipt } else { receipt.with_extra(extra).unwrap() };
        let read: Receipt = receipt.to_string().parse().unwrap();
        prop_assert_eq!(&read, &receipt);
        let included = read.verify(&log.leaf(index), &log_key()).unwrap();
        prop_assert_eq!((included.index(), included.checkpoint()), (index, &checkpoint));
        prop_assert!(read.verify(&[0; 32], &log_key()).is_err());
    }
}
