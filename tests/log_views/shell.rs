//! `countersign log` as auditors use it: against the real service, and against a service that lies.

use std::{
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use countersign::{
    grpc::{
        auth::Authenticated,
        log::LogFace,
        v1::{
            self,
            log_service_server::{LogService, LogServiceServer},
        },
    },
    log::Logs,
    model::{Caller, Digest, Extensions, Role, predicate},
    tlog::{Checkpoint, VerifierKey},
};
use futures_util::Stream;
use serde_json::Value;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use super::library::{CUSTOM, Library, Said, at, identity};
use crate::daemon::{self, Daemon, text};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a lie does to the answers of an honest service.
#[derive(Clone, Default)]
struct Lie {
    checkpoint: Option<fn(&mut v1::GetCheckpointResponse)>,
    entry: Option<fn(&mut v1::GetEntryResponse)>,
    consistency: Option<fn(&mut v1::GetConsistencyProofResponse)>,
    search: Option<fn(&mut v1::SearchResponse)>,
}

struct Liar {
    honest: LogFace,
    lie: Arc<Mutex<Lie>>,
}

impl Liar {
    fn lie(&self) -> Lie {
        self.lie.lock().unwrap().clone()
    }
}

fn known<T>(request: Request<T>) -> Request<T> {
    let mut request = request;
    let (identity, extensions) = (identity("a@x.test", "https://i.test"), Extensions::default());
    let caller = Caller { identity, roles: [Role::Auditor].into(), extensions, keys: [].into() };
    request.extensions_mut().insert(Authenticated(Ok(caller)));
    request
}

fn told<T>(answer: Response<T>, lie: Option<fn(&mut T)>) -> Response<T> {
    let mut answer = answer;
    if let Some(lie) = lie {
        lie(answer.get_mut());
    }
    answer
}

#[tonic::async_trait]
impl LogService for Liar {
    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        Ok(told(self.honest.get_checkpoint(known(request)).await?, self.lie().checkpoint))
    }

    async fn get_entry(&self, request: Request<v1::GetEntryRequest>) -> Result<Response<v1::GetEntryResponse>, Status> {
        Ok(told(self.honest.get_entry(known(request)).await?, self.lie().entry))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::GetInclusionProofResponse>, Status> {
        self.honest.get_inclusion_proof(known(request)).await
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::GetConsistencyProofResponse>, Status> {
        Ok(told(self.honest.get_consistency_proof(known(request)).await?, self.lie().consistency))
    }

    async fn get_receipt(
        &self,
        request: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        self.honest.get_receipt(known(request)).await
    }

    async fn search(&self, request: Request<v1::SearchRequest>) -> Result<Response<v1::SearchResponse>, Status> {
        Ok(told(self.honest.search(known(request)).await?, self.lie().search))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.honest.watch(known(request)).await
    }
}

/// A service over `library`, and how to make it lie.
struct Served {
    library: Library,
    logs: Logs,
    url: String,
    lie: Arc<Mutex<Lie>>,
    stop: tokio::sync::watch::Sender<bool>,
}

impl Served {
    async fn start(library: Library) -> Self {
        let logs = library.logs();
        let stop = tokio::sync::watch::Sender::new(false);
        let honest = LogFace::new(logs.clone(), stop.subscribe()).with_silence(Duration::from_millis(500));
        let lie = Arc::<Mutex<Lie>>::default();
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let service = LogServiceServer::new(Liar { honest, lie: lie.clone() });
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(socket)),
        );
        Self { library, logs, url, lie, stop }
    }

    fn lie(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(daemon::binary());
        command.arg("log").args(args).env("COUNTERSIGN_SERVER", &self.url).stdin(Stdio::null());
        command
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}

async fn served() -> Served {
    let mut library = Library::new();
    let said = |n: usize| Said {
        predicate_type: if n.is_multiple_of(4) { CUSTOM } else { predicate::SIGN },
        time: at(n),
        payload: n != 5,
        ..Said::default()
    };
    library.add((0..40).map(said)).await;
    Served::start(library).await
}

fn flip(bytes: &mut bytes::Bytes) {
    let mut changed = bytes.to_vec();
    changed[0] ^= 1;
    *bytes = changed.into();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_are_not_printed_as_proven() {
    let served = served().await;
    let entry = |lie: fn(&mut v1::GetEntryResponse)| Lie { entry: Some(lie), ..Lie::default() };
    let lies: [(&str, Lie); 9] = [
        ("does not include", entry(|answer| flip(&mut answer.entry.as_mut().unwrap().leaf))),
        ("does not include", entry(|answer| flip(&mut answer.receipt.as_mut().unwrap().proof[0]))),
        ("does not include", entry(|answer| answer.receipt.as_mut().unwrap().proof.clear())),
        ("hash of 31 bytes", entry(|answer| answer.receipt.as_mut().unwrap().proof[0].truncate(31))),
        ("another entry", entry(|answer| answer.receipt.as_mut().unwrap().index = 8)),
        ("another entry", entry(|answer| answer.entry.as_mut().unwrap().index = 8)),
        (
            "checkpoint does not verify",
            entry(|answer| {
                let note = &mut answer.receipt.as_mut().unwrap().checkpoint;
                *note = note.replacen("\n41\n", "\n42\n", 1);
            }),
        ),
        ("checkpoint does not verify", entry(|answer| answer.receipt.as_mut().unwrap().checkpoint.clear())),
        (
            "not the one that its leaf records",
            entry(|answer| {
                let payload = &mut answer.entry.as_mut().unwrap().payload;
                let mut bundle: Value = serde_json::from_slice(payload).unwrap_or_default();
                if bundle.is_object() {
                    bundle["dsseEnvelope"]["payload"] = "e30=".into();
                    *payload = bundle.to_string().into_bytes().into();
                }
            }),
        ),
    ];
    for (says, lie) in lies {
        served.lie(lie);
        let output = served.run(&["entry", "7"]).await;
        assert_eq!((code(&output), output.stdout.len()), (1, 0), "{says}: {}", text(&output));
        assert!(text(&output).contains(says), "{says}: {}", text(&output));
        if says.contains("leaf records") {
            continue; // A proof asks for no payload.
        }
        let output = served.run(&["proof", "7"]).await;
        assert_eq!((code(&output), output.stdout.len()), (1, 0), "{says}: {}", text(&output));
        assert!(text(&output).contains(says), "{says}: {}", text(&output));
    }
    let grown = |lie: fn(&mut v1::GetConsistencyProofResponse)| Lie { consistency: Some(lie), ..Lie::default() };
    let lies: [(&str, Lie); 5] = [
        ("not shown to be a prefix", grown(|answer| flip(&mut answer.proof[0]))),
        ("not shown to be a prefix", grown(|answer| flip(&mut answer.from_root))),
        ("not shown to be a prefix", grown(|answer| flip(&mut answer.to_root))),
        ("other sizes", grown(|answer| answer.from_size += 1)),
        (
            "checkpoint does not verify",
            grown(|answer| answer.checkpoint = answer.checkpoint.replacen("\n41\n", "\n42\n", 1)),
        ),
    ];
    for (says, lie) in lies {
        served.lie(lie);
        let output = served.run(&["proof", "--from", "7", "--to", "30"]).await;
        assert_eq!((code(&output), output.stdout.len()), (1, 0), "{says}: {}", text(&output));
        assert!(text(&output).contains(says), "{says}: {}", text(&output));
    }
    // Another tree altogether: consistent with itself, and not with what was signed.
    served.lie(grown(|answer| {
        answer.from_root = vec![7; 32].into();
        answer.to_root = vec![7; 32].into();
        (answer.from_size, answer.to_size) = (30, 30);
        answer.proof.clear();
    }));
    let output = served.run(&["proof", "--from", "30", "--to", "30"]).await;
    assert_eq!((code(&output), output.stdout.len()), (1, 0), "{}", text(&output));
    served.lie(Lie {
        checkpoint: Some(|answer| answer.checkpoint = answer.checkpoint.replacen("\n41\n", "\n42\n", 1)),
        ..Lie::default()
    });
    let output = served.run(&["status"]).await;
    assert_eq!((code(&output), output.stdout.len()), (1, 0), "{}", text(&output));
    served.lie(Lie { search: Some(|answer| answer.next_index = Some(1)), ..Lie::default() });
    let output = served.run(&["search", "--predicate-type", CUSTOM]).await;
    assert!(code(&output) == 1 && text(&output).contains("again and again"), "{}", text(&output));
    served.lie(Lie::default());
    for honest in [vec!["entry", "7"], vec!["proof", "7"], vec!["proof", "--from", "7", "--to", "30"], vec!["status"]] {
        let output = served.run(&honest).await;
        assert_eq!(code(&output), 0, "{honest:?}: {}", text(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("pin it with --key"), "{}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_key_and_a_kept_checkpoint_decide() {
    let mut served = served().await;
    let path = |name: &str| served.library.home.path().join(name).to_str().unwrap().to_owned();
    let (right, wrong, seen, other) = (path("log.vkey"), path("wrong.vkey"), path("seen"), path("other"));
    let status = json(&served.run(&["status", "-o", "json"]).await);
    assert_eq!((&status["size"], &status["keyPinned"]), (&41.into(), &false.into()));
    std::fs::write(&right, status["verifierKey"].as_str().unwrap()).unwrap();
    std::fs::write(&seen, status["checkpoint"].as_str().unwrap()).unwrap();
    let stranger = VerifierKey::new(crate::keys::HOST, [9; 32]).unwrap();
    std::fs::write(&wrong, stranger.vkey()).unwrap();
    served.library.add((0..9).map(|_| Said { time: None, ..Said::default() })).await;

    let grown = json(&served.run(&["proof", "--from-checkpoint", &seen, "--key", &right, "-o", "json"]).await);
    assert_eq!((&grown["fromSize"], &grown["toSize"]), (&41.into(), &50.into()));
    let entry = served.run(&["entry", "3", "--key", &right, "-o", "json"]).await;
    assert_eq!(entry.stderr.len(), 0, "nothing to say about a pinned key");
    let entry = json(&entry);
    assert_eq!((&entry["index"], &entry["treeSize"], &entry["hasPayload"]), (&3.into(), &50.into(), &true.into()));
    assert_eq!(entry["signer"]["subject"], "ci@x.test");
    assert_eq!(entry["subjects"][0]["name"], "r.test/app:v1");
    assert_eq!((&entry["predicateType"], &entry["time"]), (&predicate::SIGN.into(), &"2023-11-14T22:13:22Z".into()));
    for args in [vec!["status"], vec!["entry", "3"], vec!["proof", "3"], vec!["proof", "--from", "3"]] {
        let output = served.run(&[&args[..], &["--key", &wrong]].concat()).await;
        assert_eq!((code(&output), output.stdout.len()), (1, 0), "{args:?}: {}", text(&output));
        assert!(text(&output).contains("does not verify"), "{args:?}: {}", text(&output));
    }
    // The checkpoint of another history of the same log, signed with its key.
    let head = served.library.log.head();
    let forked = Checkpoint { origin: crate::keys::HOST.to_owned(), size: 41, root: [3; 32] };
    std::fs::write(&other, served.library.sign(&forked)).unwrap();
    let output = served.run(&["proof", "--from-checkpoint", &other, "--key", &right]).await;
    assert_eq!((code(&output), output.stdout.len()), (1, 0), "{}", text(&output));
    assert!(text(&output).contains("it was rewritten"), "{}", text(&output));
    assert_eq!(served.library.log.head(), head);
    let larger = Checkpoint { origin: crate::keys::HOST.to_owned(), size: 60, root: [3; 32] };
    std::fs::write(&other, served.library.sign(&larger)).unwrap();
    let output = served.run(&["proof", "--from-checkpoint", &other, "--key", &right]).await;
    assert_eq!((code(&output), output.stdout.len()), (1, 0), "{}", text(&output));
    assert!(text(&output).contains("signed size 60 before and shows size 50 now"), "{}", text(&output));

    for (args, exit, says) in [
        (vec!["proof", "50"], 1, "no such entry"),
        (vec!["proof", "--from", "51"], 2, "not a prefix"),
        (vec!["proof", "--from", "1", "--to", "51"], 1, "no such entry or size"),
        (vec!["proof", "--from", "9", "--to", "8"], 64, "larger than"),
        (vec!["proof"], 64, "required"),
        (vec!["proof", "1", "--from", "1"], 64, "cannot be used"),
        (vec!["proof", "--from-checkpoint", "/does/not/exist", "--key", &right], 2, "/does/not/exist"),
        (vec!["proof", "--from-checkpoint", &right, "--key", &right], 2, "does not verify"),
        (vec!["proof", "1", "--key", "nonsense"], 2, "neither a verifier key"),
        (vec!["entry", "50"], 1, "no such entry"),
        (vec!["entry", "6", "--payload"], 1, "no payload"),
        (vec!["entry", "x"], 64, "invalid"),
        (vec!["search", "--identity", "a@x.test"], 64, "--issuer"),
        (vec!["search", "--service", "shop"], 64, "--environment"),
        (vec!["search", "--limit", "0"], 64, "--limit"),
        (vec!["search", "--since", "yesterday"], 1, "--since"),
        (vec!["search", "--repository", "app"], 1, "spelled out"),
        (vec!["search", "--digest", "sha512:00"], 1, "sha256"),
    ] {
        let output = served.run(&args).await;
        assert_eq!(code(&output), exit, "{args:?}: {}", text(&output));
        assert!(text(&output).contains(says), "{args:?}: {}", text(&output));
    }
    // Nobody answers there: nothing could be told.
    served.url = "http://127.0.0.1:1".to_owned();
    assert_eq!(code(&served.run(&["proof", "3"]).await), 2);
    assert_eq!(code(&served.run(&["entry", "3"]).await), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn search_and_entry_say_what_an_auditor_asks() {
    let served = served().await;
    let table: [(&[&str], &[u64]); 9] = [
        (&["--predicate-type", CUSTOM], &[1, 5, 9, 13, 17, 21, 25, 29, 33, 37]),
        (&["--predicate-type", CUSTOM, "--newest", "--limit", "3"], &[37, 33, 29]),
        (&["--predicate-type", CUSTOM, "--from", "30"], &[33, 37]),
        (&["--predicate-type", CUSTOM, "--newest", "--from", "9"], &[5, 1]),
        (&["--predicate-type", "sign", "--issuer", "https://issuer.test", "--limit", "3"], &[2, 3, 4]),
        (&["--identity", "ci@x.test", "--issuer", "https://other.test"], &[]),
        (&["--repository", "r.test/app", "--since", "2023-11-14T22:13:57Z"], &[38, 39, 40]),
        (&["--until", "2023-11-14T22:13:22Z"], &[1, 2]),
        (&["--since", "24h"], &[]),
    ];
    for (args, expected) in table {
        let found = json(&served.run(&[&["search", "-o", "json"], args].concat()).await);
        let indexes: Vec<u64> =
            found["entries"].as_array().unwrap().iter().map(|entry| entry["index"].as_u64().unwrap()).collect();
        assert_eq!(indexes, expected, "{args:?}: {found:#}");
        assert_eq!(found["completeToSize"], 41);
    }
    let output =
        served.run(&["search", "--name", "r.test/app:v1", "--since", "2023-11-14T22:13:25Z", "--limit", "2"]).await;
    let said = text(&output);
    assert!(
        said.contains(
            "       7  2023-11-14T22:13:26Z  https://sigstore.dev/cosign/sign/v1  ci@x.test  r.test/app:v1@sha256:"
        ),
        "{said}"
    );
    assert!(said.contains("2 entries; complete up to size 41; more with --from 9"), "{said}");
    let output = served.run(&["search", "--issuer", "https://issuer.test", "--since", "2023-11-14T22:13:25Z"]).await;
    assert!(text(&output).contains("1 more would fit, but their time is not known"), "{}", text(&output));

    let said = text(&served.run(&["entry", "3"]).await);
    for line in [
        "signer:          ci@x.test",
        "issuer:          https://issuer.test",
        "time:            2023-11-14T22:13:22Z",
        "predicate type:  https://sigstore.dev/cosign/sign/v1",
        &format!("subject:         {}  r.test/app:v1", Digest::of(b"app")),
        "included:        yes, under the signed checkpoint of size 41",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(text(&served.run(&["entry", "6"]).await).contains("no payload, or it was erased"));
    let kept = served.library.log.entry(3).unwrap();
    assert_eq!(served.run(&["entry", "3", "--leaf"]).await.stdout, kept.leaf);
    assert_eq!(served.run(&["entry", "3", "--payload"]).await.stdout, kept.payload.unwrap());
    let help = daemon::run(&["log", "search", "--help"]);
    assert!(help.status.success() && text(&help).contains("Examples:"), "{}", text(&help));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_prints_one_object_for_each_entry_and_survives_a_restart() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let sign = |daemon: &Daemon, name: &str| {
        let output = daemon.cli("builder", &["sign", &Digest::of(name.as_bytes()).to_string()]);
        assert_eq!(code(&output), 0, "{}", text(&output));
    };
    sign(&daemon, "before");
    let mut watching = daemon.command(
        "other",
        &[
            "log",
            "watch",
            "--from",
            "2",
            "--count",
            "3",
            "-o",
            "json",
            "--identity",
            "spiffe://countersign.test/builder",
            "--issuer",
            "https://countersign.test/clients",
        ],
    );
    let mut watching = watching.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = daemon::Lines::of(watching.stdout.take().unwrap());
    let next = || -> Value { serde_json::from_str(&lines.next()).unwrap() };
    sign(&daemon, "one");
    let one = next();
    assert_eq!((&one["index"], &one["signer"]["subject"]), (&2.into(), &"spiffe://countersign.test/builder".into()));
    assert_eq!(one["subjects"][0]["digest"], Digest::of(b"one").to_string());
    assert!(one["time"].is_string());
    sign(&daemon, "two");
    assert_eq!(next()["index"], 3);
    // The service is restarted, and something is recorded that the watch does not ask for.
    assert!(daemon.stop().unwrap().success(), "{}", daemon.log());
    daemon.start();
    assert_eq!(code(&daemon.cli("other", &["sign", &Digest::of(b"other").to_string()])), 0);
    sign(&daemon, "three");
    assert_eq!(next()["index"], 5);
    let ended = tokio::task::spawn_blocking(move || daemon::output(watching)).await.unwrap();
    assert!(ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("resume with --origin countersign.test --from 4"), "{said}");

    let mut watching = daemon.command("other", &["log", "watch", "--from", "5", "--no-retry"]);
    let mut watching = watching.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let line = daemon::Lines::of(watching.stdout.take().unwrap()).next();
    assert!(line.starts_with("       5  ") && line.contains("spiffe://countersign.test/builder"), "{line}");
    assert!(daemon.stop().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || daemon::output(watching)).await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("resume with --origin countersign.test --from 6"), "{said}");
}

/// A new log takes over: the watch sees the old one to its end, and goes on with the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_with_the_next_log() {
    let mut served = served().await;
    let first = served.library.log.origin().to_owned();
    let mut command = served.command(&["watch", "--from", "39", "--count", "4", "-o", "json"]);
    let mut watching = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = daemon::Lines::of(watching.stdout.take().unwrap());
    let next = || -> u64 {
        let entry: Value = serde_json::from_str(&lines.next()).unwrap();
        entry["index"].as_u64().unwrap()
    };
    assert_eq!((next(), next()), (39, 40));
    served.logs.succeed(served.library.another("log2.test")).unwrap();
    served.library.log = served.logs.present();
    served.library.said.clear();
    served.library.add([Said::default()]).await;
    assert_eq!((next(), next()), (0, 1));
    let ended = tokio::task::spawn_blocking(move || daemon::output(watching)).await.unwrap();
    assert!(ended.status.success());
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains(&format!("{first} is frozen; going on with log2.test")), "{said}");

    let present = json(&served.run(&["status", "-o", "json"]).await);
    assert_eq!((&present["origin"], &present["size"]), (&"log2.test".into(), &2.into()));
    let old = served.run(&["status", "--origin", &first]).await;
    assert!(text(&old).contains("frozen; its successor is log2.test"), "{}", text(&old));
    assert!(text(&old).contains(&format!("all logs of this instance: {first}, log2.test")), "{}", text(&old));
    assert_eq!(code(&served.run(&["proof", "30", "--origin", &first]).await), 0);
    assert_eq!(code(&served.run(&["proof", "30"]).await), 1);
    let found = json(&served.run(&["search", "--origin", &first, "--predicate-type", CUSTOM, "-o", "json"]).await);
    assert_eq!(found["entries"].as_array().unwrap().len(), 10);
    let nowhere = served.run(&["entry", "1", "--origin", "other.test"]).await;
    assert!(code(&nowhere) == 1 && text(&nowhere).contains("no log of that origin"), "{}", text(&nowhere));
}

/// A receipt proves its entry without any service, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_are_written_and_verified_offline() {
    let served = served().await;
    let path = |name: &str| served.library.home.path().join(name).to_str().unwrap().to_owned();
    let (receipt, leaf, bundle, key) = (path("r.tlog-proof"), path("leaf"), path("bundle.json"), path("log.vkey"));
    std::fs::write(&key, served.library.log.key().vkey()).unwrap();
    let written = served.run(&["proof", "3", "--receipt", &receipt, "--key", &key, "-o", "json"]).await;
    let written = json(&written);
    std::fs::write(&leaf, served.run(&["entry", "3", "--leaf"]).await.stdout).unwrap();
    std::fs::write(&bundle, served.library.log.bundle(3).unwrap()).unwrap();
    let kept = std::fs::read_to_string(&receipt).unwrap();
    assert!(kept.starts_with("c2sp.org/tlog-proof@v1\nindex 3\n"), "{kept}");
    let hash = written["leafHash"].as_str().unwrap().to_owned();
    // No service from here on.
    let verify = |receipt: &str, entry: &[&str], key: &str| {
        let args = [&["log", "verify-receipt", receipt, "--key", key, "-o", "json"], entry].concat();
        daemon::run(&args)
    };
    for entry in [["--leaf", &leaf], ["--leaf-hash", &hash], ["--bundle", &bundle]] {
        for key in [key.as_str(), &served.library.log.key().vkey()] {
            let said = json(&verify(&receipt, &entry, key));
            assert_eq!((&said["included"], &said["index"], &said["treeSize"]), (&true.into(), &3.into(), &41.into()));
            assert_eq!((&said["origin"], &said["leafHash"]), (&crate::keys::HOST.into(), &hash.as_str().into()));
        }
    }
    let stranger = VerifierKey::new(crate::keys::HOST, [9; 32]).unwrap().vkey();
    let elsewhere = VerifierKey::new("other.test", *served.library.log.key().public()).unwrap().vkey();
    let other_leaf = path("other-leaf");
    std::fs::write(&other_leaf, served.library.log.entry(4).unwrap().leaf).unwrap();
    let missing = path("missing");
    for (entry, key, exit, says) in [
        (["--leaf", &other_leaf], &key, 1, "not of this entry"),
        (["--leaf-hash", &"0".repeat(64)], &key, 1, "not of this entry"),
        (["--leaf", &leaf], &stranger, 1, "checkpoint of the tlog-proof does not hold"),
        (["--leaf", &leaf], &elsewhere, 1, "checkpoint of the tlog-proof does not hold"),
        (["--leaf", &missing], &key, 2, "missing"),
        (["--bundle", &leaf], &key, 2, "bundle"),
        (["--leaf", &leaf], &missing, 2, "neither a verifier key"),
        (["--leaf-hash", "00"], &key, 64, "64 hexadecimal digits"),
    ] {
        let output = verify(&receipt, &entry, key);
        assert_eq!((code(&output), output.stdout.len()), (exit, 0), "{entry:?} {says}: {}", text(&output));
        assert!(text(&output).contains(says), "{entry:?} {says}: {}", text(&output));
    }
    for args in [
        vec!["log", "verify-receipt", &receipt, "--key", &key],
        vec!["log", "verify-receipt", &receipt, "--leaf", &leaf],
    ] {
        assert_eq!(code(&daemon::run(&args)), 64, "{args:?}");
    }
    assert_eq!(code(&verify(&missing, &["--leaf", &leaf], &key)), 2);
    // Every changed byte of the receipt that is not another signer's line is noticed.
    let changed = path("changed.tlog-proof");
    for at in (0..kept.len()).step_by(7) {
        let mut bytes = kept.clone().into_bytes();
        bytes[at] ^= 1;
        std::fs::write(&changed, bytes).unwrap();
        let output = verify(&changed, &["--leaf", &leaf], &key);
        assert!([1, 2].contains(&code(&output)) && output.stdout.is_empty(), "byte {at}: {}", text(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_told_to_stop_stops() {
    let served = served().await;
    let mut command = served.command(&["watch", "--no-retry"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    served.stop.send_replace(true);
    let ended = tokio::task::spawn_blocking(move || daemon::output(child)).await.unwrap();
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(2), 0), "{}", text(&ended));
    assert!(text(&ended).contains("STOPPING") && text(&ended).contains("--from 41"), "{}", text(&ended));
}

type SearchLie = fn(&mut v1::SearchResponse);

/// Certificates are listed as the log has them, whatever the service says of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_about_certificates_are_noticed() {
    let served = served().await;
    let root = served.library.home.path().join("root.json");
    let public = countersign::keys::Public::open(served.library.home.path()).unwrap();
    std::fs::write(&root, public.trusted_root()).unwrap();
    let args = ["issued", "ci@x.test", "--trusted-root", root.to_str().unwrap(), "-o", "json"];
    let lies: [(&str, SearchLie); 3] = [
        ("another certificate", |answer| {
            for summary in answer.summaries.iter_mut().skip(1) {
                summary.certificate.as_mut().unwrap().fingerprint = Digest::of(b"other").to_string();
            }
        }),
        ("another certificate", |answer| {
            for summary in answer.summaries.iter_mut().skip(1) {
                summary.signer.as_mut().unwrap().issuer = "https://other.test".to_owned();
            }
        }),
        ("holds no certificate", |answer| {
            for summary in answer.summaries.iter_mut().skip(1) {
                summary.index = 0;
            }
        }),
    ];
    for (says, lie) in lies {
        served.lie(Lie { search: Some(lie), ..Lie::default() });
        let output = served.run(&args).await;
        assert_eq!((code(&output), output.stdout.len()), (1, 0), "{says}: {}", text(&output));
        assert!(text(&output).contains(says), "{says}: {}", text(&output));
    }
    served.lie(Lie { entry: Some(|answer| flip(&mut answer.entry.as_mut().unwrap().leaf)), ..Lie::default() });
    let output = served.run(&args).await;
    assert_eq!((code(&output), output.stdout.len()), (1, 0), "{}", text(&output));
    // What the service says of serial and time is not what is printed.
    served.lie(Lie {
        search: Some(|answer| {
            for certificate in answer.summaries.iter_mut().filter_map(|summary| summary.certificate.as_mut()) {
                (certificate.serial, certificate.not_after) = ("00".to_owned(), "never".to_owned());
            }
        }),
        ..Lie::default()
    });
    let told = json(&served.run(&args).await);
    served.lie(Lie::default());
    let honest = json(&served.run(&args).await);
    assert_eq!(told, honest);
    let certificates = honest["certificates"].as_array().unwrap();
    assert_eq!((certificates.len(), certificates[0]["entries"].as_array().unwrap().len()), (1, 40));
    let signature = serde_json::json!({ "origin": "sign.example.org", "index": 5, "kind": "signature" });
    assert_eq!(certificates[0]["entries"][4], signature);
}
