//! Credential programs, found in the PATH of a running service: asked, believed, refused, and ended when they hang.

use std::{os::unix::fs::PermissionsExt as _, process::Command};

use countersign::grpc::v1::{self, verification_service_client::VerificationServiceClient, verify_request::Check};

use super::*;
use crate::{
    daemon::Daemon,
    server::{POLICY, Service},
};

/// How long a program may take in these tests.
const PROGRAM_TIME: Duration = Duration::from_millis(700);

/// A registry that wants a password, and the program that is asked for it.
struct Case {
    program: &'static str,
    script: String,
    /// The registry wants `u` and `p`, or the token `right`.
    wants_token: bool,
    /// What the answer says; the image is not signed, so that a registry that could be asked gives `SIGNATURE_MISSING`.
    word: &'static str,
}

fn case(program: &'static str, script: &str, word: &'static str) -> Case {
    Case { program, script: format!("#!/bin/sh\n{script}\n"), wants_token: false, word }
}

fn cases(dir: &Path) -> Vec<Case> {
    let dir = dir.display();
    let read = format!("server=$(cat)\necho \"$1 $server\" >>'{dir}/asked'\n");
    let good = format!("{read}printf '{{\"ServerURL\":\"%s\",\"Username\":\"u\",\"Secret\":\"p\"}}' \"$server\"");
    let token = format!("{read}printf '{{\"Username\":\"<token>\",\"Secret\":\"right\"}}'");
    vec![
        case("good", &good, "SIGNATURE_MISSING"),
        Case { wants_token: true, ..case("token", &token, "SIGNATURE_MISSING") },
        case("none", "echo 'credentials not found in native keychain'; exit 1", "refused our credentials"),
        case("wrong", "printf '{\"Username\":\"u\",\"Secret\":\"hunter2\"}'", "refused our credentials"),
        case("fails", "echo hunter2; echo hunter2 >&2; exit 3", "docker-credential-fails failed"),
        case("mumbles", "echo '{\"Username\": \"hunter2\"'", "did not answer with Username and Secret"),
        case("deaf", "exec <&-\nprintf '{\"Username\":\"u\",\"Secret\":\"p\"}'", "SIGNATURE_MISSING"),
        case("endless", "exec cat /dev/zero", "its answer has more than"),
        case("hangs", &format!("echo $$ >'{dir}/pid'\nexec sleep 60"), "was ended"),
        // What it leaves behind holds its output open.
        case("leaves", "sleep 10 &\nprintf '{\"Username\":\"u\",\"Secret\":\"p\"}'", "was ended"),
        case("closes", &format!("echo $$ >'{dir}/closed'\nexec >&-\nexec sleep 60"), "was ended"),
        case("../elsewhere", "exit 0", "is a path"),
        case("missing", "", "cannot be run"),
    ]
}

fn install(bin: &Path, case: &Case) {
    if matches!(case.program, "missing" | "../elsewhere") {
        return;
    }
    let path = bin.join(format!("docker-credential-{}", case.program));
    std::fs::write(&path, &case.script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

async fn verdict(service: &Service, host: &str, digest: &Digest) -> String {
    let mut client = VerificationServiceClient::new(service.house.channel("builder").await);
    let subject = format!("{host}/{REPO}@{digest}");
    let check = Some(Check::Policy(v1::PolicyCheck::default()));
    let request = v1::VerifyRequest { subject, check, ..Default::default() };
    format!("{:?}", client.verify(request).await.unwrap().into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credential_programs_are_asked_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let (mut registries, mut helpers) = (Vec::new(), serde_json::Map::new());
    for case in cases(dir.path()) {
        let fake = FakeRegistry::start().await;
        let digest = fake.push_image(REPO, "v1", &[b"layer"]);
        if case.wants_token {
            fake.set(Knob::Tokens { lifetime_seconds: 60, account: None });
            fake.set(Knob::IdentityToken("right".to_owned()));
        } else {
            fake.set(Knob::Basic { user: "u".to_owned(), password: "p".to_owned() });
        }
        install(&bin, &case);
        helpers.insert(fake.host(), case.program.into());
        registries.push((case, fake, digest));
    }
    // One more has no program of its own: the store is asked for it.
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    fake.set(Knob::Basic { user: "u".to_owned(), password: "p".to_owned() });
    registries.push((case("good", "", "SIGNATURE_MISSING"), fake, digest));
    let config = dir.path().join("config.json");
    std::fs::write(&config, json!({"credHelpers": helpers, "credsStore": "good"}).to_string()).unwrap();

    let hosts: Vec<String> = registries.iter().map(|(_, fake, _)| fake.host()).collect();
    let extra = format!(
        "[registry]\nplain_http = {hosts:?}\nattempts = 1\ndocker_config = '{}'\ncredential_program_timeout_ms = {}\n",
        config.display(),
        PROGRAM_TIME.as_millis(),
    );
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let service = Service::start(Daemon::init(Some(POLICY), &extra), &[("PATH", &path)]);
    for (case, fake, digest) in &registries {
        let began = Instant::now();
        let verdict = verdict(&service, &fake.host(), digest).await;
        assert!(verdict.contains(case.word), "{}: {verdict}", case.program);
        assert!(!verdict.contains("hunter2"), "{}: {verdict}", case.program);
        assert!(began.elapsed() < 6 * PROGRAM_TIME, "{} took {:?}", case.program, began.elapsed());
    }
    assert!(!service.output().contains("hunter2"), "no secret in the log");
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    let servers: Vec<String> = [0, 1, registries.len() - 1].map(|n| format!("get {}", hosts[n])).to_vec();
    assert_eq!(asked.lines().collect::<Vec<_>>(), servers, "asked once each, the store last");
    for file in ["pid", "closed"] {
        let pid = std::fs::read_to_string(dir.path().join(file)).unwrap();
        let gone = !Command::new("kill").args(["-0", pid.trim()]).output().unwrap().status.success();
        assert!(gone, "the program that hangs was ended, and nothing is left of it");
    }
    // Many who wait for a program that hangs keep nobody else waiting.
    let hangs = registries.iter().position(|(case, ..)| case.program == "hangs").unwrap();
    let (_, fake, digest) = &registries[hangs];
    let (good, began) = (&registries[0], Instant::now());
    let waiting = futures_util::future::join_all((0..50).map(|_| verdict(&service, &hosts[hangs], digest)));
    let prompt = async {
        let verdict = verdict(&service, &good.1.host(), &good.2).await;
        assert!(verdict.contains("SIGNATURE_MISSING"), "{verdict}");
        began.elapsed()
    };
    let (verdicts, prompt) = futures_util::future::join(waiting, prompt).await;
    assert!(verdicts.iter().all(|verdict| verdict.contains("was ended")), "{verdicts:?}");
    assert!(prompt < 3 * PROGRAM_TIME, "{prompt:?}");
    assert!(!fake.requests().is_empty());
}
