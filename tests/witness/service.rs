//! The witness itself: statuses, atomicity, durability, and what it does not cosign.

use std::{fs, path::Path, sync::Arc, thread};

use countersign::{
    keys::{Cosigner, Kek, KeyError},
    tlog::{Note, Policy, SignatureLine, witness::AddCheckpoint},
    witness::{StateError, Witness, WitnessError},
};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::harness::{Leaves, Served, kek, log_key, make, open, sign_with};

const NOW: i64 = 1_700_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

struct Place {
    dir: tempfile::TempDir,
    log: Leaves,
}

impl Place {
    fn new(leaves: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "w.example/1");
        Self { dir, log: Leaves::new(leaves, leaves, "") }
    }

    fn open(&self) -> Witness {
        open(self.dir.path(), vec![self.log.key()]).unwrap()
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("logs").join(id(&self.log.origin))
    }
}

fn id(origin: &str) -> String {
    hex::encode(Sha256::digest(origin))
}

fn size(witness: &Witness) -> u64 {
    witness.sizes()[0].1
}

/// One POST, without more than the protocol needs: status, content type, body.
fn post(port: u16, body: &[u8]) -> (u16, String, String) {
    http(port, "POST", "/add-checkpoint", body)
}

fn http(port: u16, method: &str, path: &str, body: &[u8]) -> (u16, String, String) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is too long may be refused before it is read.
    drop(stream.write_all(body));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_default();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (status, kind.to_owned(), body.to_owned())
}

#[test]
fn statuses_are_those_of_the_specification() {
    let place = Place::new(300);
    let (log, fork) = (&place.log, Leaves::new(300, 7, "other"));
    let empty = Leaves { origin: "empty.example".to_owned(), seed: 3, hashes: Vec::new() };
    let witness = Arc::new(open(place.dir.path(), vec![log.key(), empty.key()]).unwrap());
    let served = Served::witness(Arc::clone(&witness));
    let ask = |request: &AddCheckpoint| post(served.port, request.to_string().as_bytes());
    let (status, kind, body) = ask(&log.request(0, 5));
    assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"));
    let lines = SignatureLine::parse_all(&body).unwrap();
    let [ed25519, ml_dsa_44] = witness.cosigner().keys();
    let checkpoint = log.checkpoint(5);
    let text = Note::parse(&checkpoint).unwrap().text_unsafe().to_owned();
    for (key, line) in [ed25519, ml_dsa_44].into_iter().zip(&lines) {
        let time = key.verify_line(&text, line).unwrap();
        assert!(time.abs_diff(Timestamp::now().as_second() as u64) < 60);
    }
    assert_eq!(lines.len(), 2);

    let conflict = (409, "text/x.tlog.size".to_owned(), "5\n".to_owned());
    assert_eq!(ask(&log.request(0, 9)), conflict);
    assert_eq!(ask(&log.request(4, 9)), conflict);
    assert_eq!(ask(&log.request(0, 3)), conflict, "an older checkpoint");
    assert_eq!(ask(&fork.request(0, 9)), conflict, "a fork says which size it does not know");
    assert_eq!(ask(&log.request(5, 9)).0, 200);
    assert_eq!(ask(&log.request(9, 9)).0, 200, "the same once more");
    assert_eq!(ask(&log.request(9, 300)).0, 200);

    let with = |change: &dyn Fn(&mut AddCheckpoint)| {
        let mut request = log.request(300, 300);
        change(&mut request);
        request.to_string()
    };
    let unknown = Leaves { origin: "unknown.example".to_owned(), seed: 1, hashes: log.hashes.clone() };
    let stranger = Leaves { origin: "log.example".to_owned(), seed: 2, hashes: log.hashes.clone() };
    let other_root = |size: u64, root: [u8; 32], of: &Leaves| {
        let (key, pair) = log_key(&of.origin, of.seed);
        countersign::tlog::Checkpoint { origin: of.origin.clone(), size, root }.sign(&key, sign_with(pair)).unwrap()
    };
    let long = "x".repeat(70_000);
    let refused: Vec<(&str, u16, String)> = vec![
        ("nothing", 400, String::new()),
        ("no checkpoint", 400, "old 300\n\n".to_owned()),
        (
            "a checkpoint that is none",
            400,
            with(&|r| r.checkpoint = "log.example\n300\n\n\u{2014} a AAAAAAA=\n".to_owned()),
        ),
        ("an unsigned one", 400, with(&|r| r.checkpoint = text.clone())),
        ("a size with a zero in front", 400, with(&|r| r.checkpoint = r.checkpoint.replace("\n300\n", "\n0300\n"))),
        ("old larger than new", 400, with(&|r| r.checkpoint = log.checkpoint(299))),
        ("an unknown log", 404, unknown.request(300, 300).to_string()),
        (
            "an unknown log with bad signature",
            404,
            with(&|r| r.checkpoint = r.checkpoint.replace("log.example\n", "x\n")),
        ),
        ("somebody else's signature", 403, stranger.request(300, 300).to_string()),
        ("a signature over something else", 403, with(&|r| r.checkpoint = r.checkpoint.replace("\n300\n", "\n301\n"))),
        ("a proof where none belongs", 422, with(&|r| r.proof = vec![[0; 32]])),
        ("another root at the same size", 422, with(&|r| r.checkpoint = fork.checkpoint(300))),
        ("a fork of another size", 422, {
            let longer = Leaves::new(310, 7, "other");
            longer.request(300, 310).to_string()
        }),
        ("a proof of another log", 422, {
            let longer = Leaves::new(310, 310, "");
            AddCheckpoint { proof: fork.request(200, 299).proof, ..longer.request(300, 310) }.to_string()
        }),
        ("a proof that is cut short", 422, {
            let mut request = Leaves::new(310, 310, "").request(300, 310);
            request.proof.pop();
            request.to_string()
        }),
        (
            "an empty tree with a root",
            422,
            AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: other_root(0, [1; 32], &empty) }.to_string(),
        ),
        (
            "a proof from nothing",
            422,
            AddCheckpoint { old: 0, proof: vec![[1; 32]], checkpoint: other_root(4, [1; 32], &empty) }.to_string(),
        ),
    ];
    for (what, wanted, body) in refused {
        let (status, kind, answer) = post(served.port, body.as_bytes());
        assert_eq!(status, wanted, "{what}: {answer}");
        assert_ne!(kind, "text/x.tlog.size", "{what}: a client that takes it for a size would ask in circles");
        assert!(!answer.contains('\u{2014}'), "{what}: no signature in {answer}");
    }
    assert_eq!(post(served.port, b"old 0\n\n\xff").0, 400);
    assert_eq!(post(served.port, long.as_bytes()).0, 413);
    assert_eq!(http(served.port, "GET", "/add-checkpoint", b"").0, 405);
    assert_eq!(ask(&empty.request(0, 0)).0, 200, "an empty log");
    assert_eq!(witness.sizes(), [("empty.example".to_owned(), 0), ("log.example".to_owned(), 300)]);

    // What monitors see meets a policy of this witness, by either key.
    let (status, kind, note) = http(served.port, "GET", &format!("/{}/checkpoint", id("log.example")), b"");
    assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"));
    for key in witness.cosigner().keys() {
        let policy = format!("log {}\nwitness w {}\nquorum w\n", log.key().vkey(), key.vkey());
        let witnessed = Policy::parse(&policy).unwrap().check(&note).unwrap();
        assert_eq!((witnessed.checkpoint().size, witnessed.checkpoint().root), (300, log.root(300)));
    }
    for unknown in [id("unknown.example"), "..".to_owned(), "logs".to_owned()] {
        assert_eq!(http(served.port, "GET", &format!("/{unknown}/checkpoint"), b"").0, 404);
    }
}

#[test]
fn of_requests_at_the_same_time_one_wins() {
    for round in 0..20_u64 {
        let place = Place::new(40);
        let witness = Arc::new(place.open());
        witness.add_checkpoint(&place.log.request(0, 5).to_string(), at(NOW)).unwrap();
        let start = Arc::new(std::sync::Barrier::new(12));
        let callers: Vec<_> = (0..12)
            .map(|caller| {
                let new = 6 + (caller * 7 + round as usize) % 30;
                let (witness, start) = (Arc::clone(&witness), Arc::clone(&start));
                let request = place.log.request(5, new).to_string();
                thread::spawn(move || {
                    start.wait();
                    (new as u64, witness.add_checkpoint(&request, at(NOW)))
                })
            })
            .collect();
        let answers: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
        let won: Vec<u64> = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(new, _)| *new).collect();
        assert_eq!(won.len(), 1, "round {round}: {won:?} were all cosigned from size 5");
        for (_, answer) in answers.iter().filter(|(_, answer)| answer.is_err()) {
            let Err(WitnessError::Refused(countersign::tlog::witness::Refusal::Conflict(size))) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(*size, won[0]);
        }
        assert_eq!(size(&witness), won[0]);
        drop(witness);
        assert_eq!(size(&place.open()), won[0], "and the same is on disk");
    }
}

#[test]
fn the_size_never_goes_back() {
    // The race of the specification, over and over: requests for N and for N + K, while others read.
    let place = Place::new(400);
    let witness = Arc::new(place.open());
    let growers: Vec<_> = (0..4_usize)
        .map(|grower| {
            let (witness, log) = (Arc::clone(&witness), Leaves::new(400, 400, ""));
            thread::spawn(move || {
                let mut cosigned = Vec::new();
                for step in 0..60 {
                    let old = size(&witness) as usize;
                    let new = (old + 1 + (grower + step) % 5).min(400);
                    if witness.add_checkpoint(&log.request(old, new).to_string(), at(NOW)).is_ok() {
                        assert!(size(&witness) >= new as u64, "rolled back");
                        cosigned.push((old, new));
                    }
                }
                cosigned
            })
        })
        .collect();
    let mut cosigned: Vec<_> = growers.into_iter().flat_map(|grower| grower.join().unwrap()).collect();
    cosigned.sort_unstable();
    for pair in cosigned.windows(2) {
        assert!(pair[1].0 >= pair[0].1, "{pair:?}: two steps from one state");
    }
    assert!(cosigned.len() > 20);
}

#[test]
fn nothing_is_cosigned_that_could_not_be_kept() {
    let place = Place::new(20);
    let witness = place.open();
    witness.add_checkpoint(&place.log.request(0, 5).to_string(), at(NOW)).unwrap();
    let logs = place.dir.path().join("logs");
    fs::rename(&logs, place.dir.path().join("gone")).unwrap();
    let answer = witness.add_checkpoint(&place.log.request(5, 9).to_string(), at(NOW));
    assert!(matches!(answer, Err(WitnessError::Broken(Some(_)))), "{answer:?}");
    fs::rename(place.dir.path().join("gone"), &logs).unwrap();
    let answer = witness.add_checkpoint(&place.log.request(5, 9).to_string(), at(NOW));
    assert!(matches!(answer, Err(WitnessError::Broken(None))), "nobody knows what is on disk until it is read again");
    let served = Served::witness(Arc::new(witness));
    let (status, _, body) = post(served.port, place.log.request(5, 9).to_string().as_bytes());
    assert!(status == 500 && body.contains("restarted"), "{status} {body}");
    drop(served);
    let witness = place.open();
    assert_eq!(size(&witness), 5);
    witness.add_checkpoint(&place.log.request(5, 9).to_string(), at(NOW)).unwrap();
}

#[test]
fn a_restarted_witness_knows_what_it_cosigned() {
    let place = Place::new(20);
    let witness = place.open();
    let lines = witness.add_checkpoint(&place.log.request(0, 7).to_string(), at(NOW)).unwrap();
    assert!(matches!(open(place.dir.path(), vec![place.log.key()]), Err(StateError::Locked(_))));
    let note = witness.checkpoint(&id("log.example")).unwrap();
    assert_eq!(*note, format!("{}{lines}", place.log.checkpoint(7)));
    drop(witness);
    // What a crash in the middle of a write leaves.
    fs::write(place.state().with_extension("new"), "log.example\n9").unwrap();
    let witness = place.open();
    assert_eq!(witness.checkpoint(&id("log.example")).unwrap(), note);
    assert!(witness.add_checkpoint(&place.log.request(0, 9).to_string(), at(NOW)).is_err());
    witness.add_checkpoint(&place.log.request(7, 9).to_string(), at(NOW)).unwrap();
}

#[test]
fn a_state_that_is_not_ours_is_refused() {
    let place = Place::new(20);
    place.open().add_checkpoint(&place.log.request(0, 7).to_string(), at(NOW)).unwrap();
    let good = fs::read_to_string(place.state()).unwrap();
    let stranger = Place::new(20);
    stranger.open().add_checkpoint(&stranger.log.request(0, 7).to_string(), at(NOW)).unwrap();
    for bad in [
        String::new(),
        "x".repeat(200_000),
        good.replace("\n7\n", "\n6\n"),
        good.replace("log.example\n7", "gol.example\n7"),
        place.log.checkpoint(7),
        fs::read_to_string(stranger.state()).unwrap(),
    ] {
        fs::write(place.state(), &bad).unwrap();
        let opened = open(place.dir.path(), vec![place.log.key()]);
        assert!(matches!(opened, Err(StateError::Damaged { .. })), "{bad:.60}: {opened:?}");
    }
    // The state of another log, under this one's name.
    let other = Leaves { origin: "other.example".to_owned(), seed: 1, hashes: place.log.hashes.clone() };
    fs::remove_file(place.state()).unwrap();
    let witness = open(place.dir.path(), vec![other.key()]).unwrap();
    witness.add_checkpoint(&other.request(0, 7).to_string(), at(NOW)).unwrap();
    drop(witness);
    fs::rename(place.dir.path().join("logs").join(id("other.example")), place.state()).unwrap();
    assert!(matches!(open(place.dir.path(), vec![place.log.key()]), Err(StateError::Damaged { .. })));
    fs::write(place.state(), good).unwrap();
    assert_eq!(size(&place.open()), 7);
}

#[test]
fn keys_are_sealed_and_a_directory_without_them_is_none() {
    let place = Place::new(1);
    let dir = place.dir.path();
    let wrong = Kek::parse(&[0x9d; 32]).unwrap();
    assert!(matches!(Cosigner::open(dir, &wrong), Err(KeyError::WrongKek(_))));
    assert!(matches!(Cosigner::create(dir, &kek(), "w", at(NOW)), Err(KeyError::Exists(_))));
    let (one, two) = (Cosigner::open(dir, &kek()).unwrap(), Cosigner::open(dir, &kek()).unwrap());
    assert_eq!(one.keys(), two.keys());
    assert_eq!((one.name(), one.keys()[1].name()), ("w.example/1", "w.example/1"));
    let elsewhere = tempfile::tempdir().unwrap();
    let missing = Cosigner::open(elsewhere.path(), &kek()).unwrap_err();
    assert!(missing.to_string().contains("countersign witness init"), "{missing}");
    for bad in ["", "a b", "a+b", &"a".repeat(256)] {
        assert!(
            matches!(Cosigner::create(elsewhere.path(), &kek(), bad, at(NOW)), Err(KeyError::Host { .. })),
            "{bad}"
        );
    }
    assert!(matches!(Witness::open(elsewhere.path(), one, vec![place.log.key()]), Err(StateError::Missing(_))));
    for file in ["cosigner.key", "cosigner-pq.key"] {
        let bytes = fs::read(Path::new(dir).join("keys").join(file)).unwrap();
        assert!(bytes.starts_with(b"csealed"), "{file}");
    }
    fs::remove_file(dir.join("keys").join("manifest.json")).unwrap();
    assert!(matches!(Cosigner::open(dir, &kek()), Err(KeyError::NoCosigner(_))));
}

#[test]
fn extension_lines_are_cosigned_with_ed25519_alone_and_strangers_lines_are_dropped() {
    let place = Place::new(5);
    let witness = place.open();
    let (key, pair) = log_key("log.example", 1);
    let text = format!("{}extension\n", Note::parse(&place.log.checkpoint(5)).unwrap().text_unsafe());
    let mut note = Note::sign(&text, &key, sign_with(pair)).unwrap();
    note.add(SignatureLine::new("stranger", [1; 4], vec![1; 64]).unwrap()).unwrap();
    let request = AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: note.to_string() };
    let lines = SignatureLine::parse_all(&witness.add_checkpoint(&request.to_string(), at(NOW)).unwrap()).unwrap();
    let [ed25519, _] = witness.cosigner().keys();
    assert_eq!((lines.len(), ed25519.verify_line(&text, &lines[0])), (1, Ok(NOW as u64)));
    let kept = Note::parse(&witness.checkpoint(&id("log.example")).unwrap()).unwrap();
    let names: Vec<&str> = kept.signatures().iter().map(SignatureLine::name).collect();
    assert_eq!((kept.text_unsafe(), names), (text.as_str(), vec!["log.example", "w.example/1"]));
    drop(witness);
    assert_eq!(size(&place.open()), 5);
    let empty = text.replace("extension\n", "\n");
    let bad = AddCheckpoint { checkpoint: note.to_string().replace(&text, &empty), ..request };
    assert!(matches!(place.open().add_checkpoint(&bad.to_string(), at(NOW)), Err(WitnessError::Refused(_))));
}

#[test]
fn a_log_may_change_its_key_and_a_clock_may_lag() {
    let place = Place::new(20);
    let new_key = Leaves { origin: "log.example".to_owned(), seed: 9, hashes: place.log.hashes.clone() };
    let witness = open(place.dir.path(), vec![place.log.key(), new_key.key()]).unwrap();
    let time = |lines: &str| {
        let line = SignatureLine::parse_all(lines).unwrap().remove(0);
        u64::from_be_bytes(line.bytes()[..8].try_into().unwrap())
    };
    let ask = |log: &Leaves, old, new, now| witness.add_checkpoint(&log.request(old, new).to_string(), at(now));
    assert_eq!(time(&ask(&place.log, 0, 5, NOW).unwrap()), NOW as u64);
    assert_eq!(time(&ask(&new_key, 5, 6, NOW - 299).unwrap()), NOW as u64, "never before the last one");
    assert_eq!(time(&ask(&place.log, 6, 7, NOW + 1).unwrap()), NOW as u64 + 1);
    assert!(matches!(ask(&new_key, 7, 8, NOW - 300), Err(WitnessError::Clock(301))));
    assert_eq!(time(&ask(&new_key, 7, 8, NOW + 2).unwrap()), NOW as u64 + 2);
}
