//! `countersign log issued`: who watches over an identity sees every certificate in its name, and what was signed by it.

use std::{
    process::{Command, Output},
    sync::Arc,
};

use countersign::{
    grpc::{
        auth::Authenticated,
        log::LogFace,
        trust::Trust,
        v1::{log_service_server::LogServiceServer, trust_service_server::TrustServiceServer},
    },
    identity::SubjectForm,
    log::{Draft, Log, Logs},
    model::{
        Caller, Digest, Extensions, Identity, Role, Scheme,
        leaf::{self, Verifier},
    },
    registry::{Registry, Settings},
    signing::{Content, Signing},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tonic::{Request, Status, transport::server::TcpIncoming};

use super::{House, Key, sub, unpem};
use crate::daemon::{self, text};

const SUBJECT: &str = super::SUB;

/// The service as an auditor meets it.
struct Watched {
    house: House,
    url: String,
    _stop: tokio::sync::watch::Sender<bool>,
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn known(mut request: Request<()>) -> Result<Request<()>, Status> {
    let identity = Identity { subject: "auditor@example.org".to_owned(), issuer: "https://i.test".to_owned() };
    let caller = Caller { identity, roles: [Role::Auditor].into(), extensions: Extensions::default(), keys: [].into() };
    request.extensions_mut().insert(Authenticated(Ok(caller)));
    Ok(request)
}

impl Watched {
    async fn start() -> Self {
        let house = House::new(SubjectForm::Uri).await;
        let logs = house.logs.clone();
        Self::over(house, logs).await
    }

    async fn over(house: House, logs: Logs) -> Self {
        let stop = tokio::sync::watch::Sender::new(false);
        let log = LogFace::new(logs, stop.subscribe());
        let repository = Arc::new(crate::trust::repository(house.home.path(), &house.keys));
        let rotate = Arc::new(|_| panic!("nobody asked for it"));
        let url = "https://sign.example.org".to_owned();
        let trust = Trust::new(Arc::clone(&house.keys), repository, rotate, url, Timestamp::now);
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(LogServiceServer::with_interceptor(log, known))
            .add_service(TrustServiceServer::with_interceptor(trust, known));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(socket)));
        Self { house, url, _stop: stop }
    }

    async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(daemon::binary());
        command.args(["log", "issued"]).args(args).env("COUNTERSIGN_SERVER", &self.url);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["-o", "json"]].concat()).await;
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Logs a signature by the holder of a certificate, as the Rekor face does; its index.
    async fn log_signature(&self, key: &Key, certificate: &[u8], artifact: &[u8]) -> u64 {
        log_signature(&self.house.log, key, certificate, artifact).await
    }
}

async fn log_signature(log: &Log, key: &Key, certificate: &[u8], artifact: &[u8]) -> u64 {
    let digest = key.scheme.digest(artifact);
    let leaf = leaf::entry(key.scheme, &digest, &key.sign(artifact), Verifier::Certificate(certificate));
    log.append(vec![Draft { leaf, payload: Vec::new() }]).await.unwrap()[0].index
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_certificate_in_a_name_is_listed_with_its_signatures() {
    let watched = Watched::start().await;
    let house = &watched.house;
    let issuer = house.issuer.url().to_owned();
    // 1: a certificate, with two signatures by it at 2 and 4; 3: one of somebody else; 5: one that is never used.
    let key = Key::p256();
    let first = house.ask(sub(), key.proof(SUBJECT)).await.unwrap();
    let certificate = unpem(&first.chain[0]);
    assert_eq!(watched.log_signature(&key, &certificate, b"one").await, 2);
    let others = json!({ "sub": "https://ci.example.org/job/8" });
    house.ask(others, Key::p256().proof("https://ci.example.org/job/8")).await.unwrap();
    assert_eq!(watched.log_signature(&key, &certificate, b"two").await, 4);
    let wide = Key::new(Scheme::P384Sha384);
    let second = house.ask(sub(), countersign::model::possession::Possession::Request(wide.csr())).await.unwrap();
    assert_eq!((first.entry.index, second.entry.index), (1, 5));
    // 6: the service signs for the same identity; one entry is both.
    let registry = Registry::new(Settings::default()).unwrap();
    let signing = Signing::new(Arc::clone(&house.keys), house.log.clone(), registry);
    let identity = Identity { subject: SUBJECT.to_owned(), issuer: issuer.clone() };
    signing.sign(vec![Content::File(Digest::of(b"three"))], &identity, Timestamp::now()).await.unwrap();
    // 7: a certificate in the same name by another authority, which only claims the issuer.
    let stranger = House::new(SubjectForm::Uri).await;
    let forged = stranger.keys.issue(&identity, &key.spki, Timestamp::now()).unwrap();
    assert_eq!(watched.log_signature(&key, &forged, b"four").await, 7);

    for args in [vec![SUBJECT, "--issuer", &issuer], vec![SUBJECT]] {
        let found = watched.json(&args).await;
        assert_eq!((&found["completeToSize"], &found["ofOtherAuthorities"]), (&json!(8), &json!(1)), "{found}");
        let list = found["certificates"].as_array().unwrap();
        let entries: Vec<_> = list.iter().map(|one| one["entries"].clone()).collect();
        let entry = |index: u64, kind: &str| json!({ "origin": crate::keys::HOST, "index": index, "kind": kind });
        assert_eq!(
            entries,
            [
                json!([entry(1, "issuance"), entry(2, "signature"), entry(4, "signature")]),
                json!([entry(5, "issuance")]),
                json!([entry(6, "issuance and signature")]),
            ]
        );
        let described = countersign::model::certificate::describe(&certificate).unwrap();
        assert_eq!(list[0]["serial"], described.serial);
        assert_eq!(list[0]["notBefore"], described.not_before.to_string());
        assert_eq!(list[0]["notAfter"], described.not_after.to_string());
        assert_eq!(list[0]["key"], Digest::of(&key.spki).to_string());
        assert_eq!(list[1]["key"], Digest::of(&wide.spki).to_string());
        assert!(list.iter().all(|one| one["ofThisAuthority"] == true && one["issuer"] == issuer.as_str()));
    }
    let all = watched.json(&[SUBJECT, "--issuer", &issuer, "--all"]).await;
    assert_eq!(
        (&all["certificates"][3]["index"], &all["certificates"][3]["ofThisAuthority"]),
        (&json!(7), &json!(false))
    );
    let page = text(&watched.run(&[SUBJECT, "--issuer", &issuer]).await);
    for said in ["signatures 2, 4", "no signatures", "signatures 6", "3 certificates; complete up to size 8", "1 more"]
    {
        assert!(page.contains(said), "{said}: {page}");
    }
    // Under another trusted root it is the other way round.
    let root = house.home.path().join("other_root.json");
    std::fs::write(&root, &*stranger.keys.trusted_root()).unwrap();
    let found = watched.json(&[SUBJECT, "--issuer", &issuer, "--trusted-root", root.to_str().unwrap()]).await;
    assert_eq!((&found["certificates"][0]["index"], &found["ofOtherAuthorities"]), (&json!(7), &json!(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_watches_is_told_of_new_ones() {
    let watched = Watched::start().await;
    let house = &watched.house;
    let issuer = house.issuer.url().to_owned();
    let watch = async |from: &str| {
        watched.run(&[SUBJECT, "--issuer", &issuer, "--from", from, "--fail-if-any", "-o", "json"]).await
    };
    assert_eq!(code(&watch("0").await), 0, "nobody asked for one yet");
    let key = Key::p256();
    let first = house.ask(sub(), key.proof(SUBJECT)).await.unwrap();
    let output = watch("0").await;
    assert_eq!(code(&output), 1, "{}", text(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let next = found["completeToSize"].to_string();
    assert_eq!(code(&watch(&next).await), 0, "nothing new since");
    // A signature by a certificate that was known is not a certificate.
    watched.log_signature(&key, &unpem(&first.chain[0]), b"one").await;
    assert_eq!(code(&watch(&next).await), 0);
    house.ask(sub(), Key::p256().proof(SUBJECT)).await.unwrap();
    assert_eq!(code(&watch(&next).await), 1);
    let nowhere = Command::new(daemon::binary())
        .args(["log", "issued", SUBJECT, "--fail-if-any", "--server", "http://127.0.0.1:1"])
        .output()
        .unwrap();
    assert_eq!(code(&nowhere), 2, "{}", text(&nowhere));
}

/// A certificate in each of two logs, and a signature by the first one in the second log.
struct Rotated {
    watched: Watched,
    issuer: String,
    old: String,
}

const NEW: &str = "log2.test";

impl Rotated {
    async fn start() -> Self {
        let watched = Watched::start().await;
        let house = &watched.house;
        let (key, issuer, old) = (Key::p256(), house.issuer.url().to_owned(), house.log.origin().to_owned());
        for job in ["a", "b", "c"] {
            let subject = format!("https://ci.example.org/{job}");
            house.ask(json!({ "sub": subject }), Key::p256().proof(&subject)).await.unwrap();
        }
        let first = house.ask(sub(), key.proof(SUBJECT)).await.unwrap();
        assert_eq!((first.entry.origin.as_str(), first.entry.index), (old.as_str(), 4));
        let next = house.succeed(NEW).await;
        assert_eq!(log_signature(&next, &key, &unpem(&first.chain[0]), b"one").await, 1);
        let second = house.ask(sub(), Key::p256().proof(SUBJECT)).await.unwrap();
        assert_eq!((second.entry.origin.as_str(), second.entry.index), (NEW, 2));
        Self { watched, issuer, old }
    }

    async fn watch(&self, more: &[&str]) -> Output {
        let args = [SUBJECT, "--issuer", &self.issuer, "--fail-if-any", "-o", "json"];
        self.watched.run(&[&args, more].concat()).await
    }

    /// Origin and index of what is listed.
    async fn found(&self, more: &[&str]) -> (i32, Vec<(String, u64)>) {
        let output = self.watch(more).await;
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let list = found["certificates"].as_array().unwrap().iter();
        let place = |one: &Value| (one["origin"].as_str().unwrap().to_owned(), one["index"].as_u64().unwrap());
        (code(&output), list.map(place).collect())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rotation_both_logs_are_searched() {
    let rotated = Rotated::start().await;
    let Rotated { watched, issuer, old } = &rotated;
    let (first, second) = ((old.clone(), 4), (NEW.to_owned(), 2));
    let (all, new) = (vec![first.clone(), second.clone()], vec![second.clone()]);
    for (args, wanted) in [
        (vec![], &all),
        (vec!["--from", "0"], &all),
        (vec!["--from", &format!("{old}:4")], &all),
        (vec!["--from", &format!("{old}:5")], &new),
        (vec!["--from", &format!("{NEW}:0")], &new),
        (vec!["--origin", old], &vec![first]),
        (vec!["--origin", NEW, "--from", "2"], &new),
    ] {
        assert_eq!(rotated.found(&args).await, (1, wanted.clone()), "{args:?}");
    }
    assert_eq!(rotated.found(&["--from", &format!("{NEW}:3")]).await, (0, vec![]));
    // The signature in the new log is one of the first certificate, and no certificate.
    let found = watched.json(&[SUBJECT, "--issuer", issuer]).await;
    let entry = |origin: &str, index: u64, kind: &str| json!({ "origin": origin, "index": index, "kind": kind });
    assert_eq!(
        found["certificates"][0]["entries"],
        json!([entry(old, 4, "issuance"), entry(NEW, 1, "signature")]),
        "{found}"
    );
    assert_eq!(
        (&found["origin"], &found["completeToSize"], &found["next"]),
        (&json!(NEW), &json!(3), &json!("log2.test:3"))
    );
    assert_eq!(found["logs"][0], json!({ "origin": old, "completeToSize": 5 }));
    let page = text(&watched.run(&[SUBJECT, "--issuer", issuer]).await);
    for said in ["signatures log2.test:1", "go on with --from log2.test:3", &format!("{old}:\n"), "log2.test:\n"] {
        assert!(page.contains(said), "{said}: {page}");
    }
    // Whoever asks for one log is told that there are others.
    let alone = rotated.watch(&["--origin", old]).await;
    assert!(text(&alone).contains(&format!("{old} alone is searched; this instance has the logs {old}, {NEW}")));
    // A pinned key is that of its log; the other one is held against what the service names, and that is said.
    let pinned = watched.house.log.key().vkey();
    let both = watched.run(&[SUBJECT, "--issuer", issuer, "--key", &pinned]).await;
    let said = text(&both);
    assert!(both.status.success() && said.contains("pin it with --key log2.test+"), "{said}");
    assert!(!said.contains(&format!("pin it with --key {old}")), "{said}");
}

/// Where a job left off is in the old log, and the new one is shorter: nothing found there is no good news.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_in_another_log_is_no_silent_pass() {
    let rotated = Rotated::start().await;
    let old = &rotated.old;
    let stranger = House::new(SubjectForm::Uri).await.succeed("elsewhere.test").await.key().vkey();
    for (args, said) in [
        (vec!["--from", "5"], "--from 5 does not say of which log".to_owned()),
        (vec!["--from", "5"], format!("as in --from {old}:5")),
        (vec!["--from", "1"], format!("{old}, {NEW}")),
        (vec!["--origin", NEW, "--from", "5"], "has 3 entries, fewer than where you left off (--from 5)".to_owned()),
        (vec!["--origin", NEW, "--from", "4"], format!("--origin {NEW} --from 0")),
        (vec!["--from", &format!("{NEW}:4")], "another log is probably present since a rotation".to_owned()),
        (vec!["--from", &format!("{old}:6")], format!("the log {old} has 5 entries")),
        (vec!["--from", "elsewhere.test:0"], "elsewhere.test (--from), which is not among".to_owned()),
        (
            vec!["--origin", NEW, "--from", &format!("{old}:5")],
            "which is not among those searched: log2.test".to_owned(),
        ),
        (vec!["--origin", "elsewhere.test"], "this instance has no log of that origin".to_owned()),
        (vec!["--key", &stranger], "--key is that of the log elsewhere.test".to_owned()),
    ] {
        let output = rotated.watch(&args).await;
        assert_eq!(code(&output), 2, "{args:?}: {}", text(&output));
        assert!(text(&output).contains(&said), "{args:?}, {said}: {}", text(&output));
    }
    // The same where there is no other log: this one was set back, or is another one under the old name.
    let watched = Watched::start().await;
    let output = watched.run(&[SUBJECT, "--from", "2", "--fail-if-any"]).await;
    assert_eq!(code(&output), 2, "{}", text(&output));
    assert!(text(&output).contains("has 1 entries, fewer than where you left off"), "{}", text(&output));
}

/// Between the new log's opening and the old one's last entry, what is listed of the old one may not be all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_still_takes_entries_is_not_left_behind() {
    let (house, next) = (House::new(SubjectForm::Uri).await, House::new(SubjectForm::Uri).await.succeed(NEW).await);
    let logs = Logs::new(vec![house.log.clone()], next);
    let watched = Watched::over(house, logs).await;
    let output = watched.run(&[SUBJECT, "--fail-if-any"]).await;
    assert_eq!(code(&output), 2, "{}", text(&output));
    assert!(text(&output).contains("is being succeeded and still takes entries"), "{}", text(&output));
}
