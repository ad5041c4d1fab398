//! Keys on a PKCS#11 token: `SoftHSM` 2, which Debian ships, and the real binary. The module belongs to a process and is told
//! where its tokens are by the environment, so that nothing here opens it in the test's own process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use countersign::{
    grpc::v1::{self, key_service_client::KeyServiceClient, signing_service_client::SigningServiceClient},
    keys::{EphemeralKey, Kek, KeyError, Keyring},
    model::{Digest, Identity, Signer, TrustedRoot, verify},
};
use jiff::Timestamp;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    daemon::{Daemon, HOST, binary, http_get, text},
    key_service::search,
};

const PIN: &str = "correct-horse-7";
const LABEL: &str = "ca token";
const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];
const RULES: &str = r#"
[[identity.rules]]
issuer = "https://countersign.test/clients"
subject = "spiffe://countersign.test/builder"
roles = ["builder", "admin"]
keys = ["release"]
"#;

/// A directory with a token in it.
struct Soft {
    dir: tempfile::TempDir,
    module: &'static str,
}

impl Soft {
    /// None, with a word about it, where `SoftHSM` is not installed; unless `CI_REQUIRE_SOFTHSM` says that it must be.
    fn new() -> Option<Self> {
        let module = MODULES.into_iter().find(|module| Path::new(module).exists());
        let Some(module) = module.filter(|_| Command::new("softhsm2-util").arg("--version").output().is_ok()) else {
            assert!(std::env::var_os("CI_REQUIRE_SOFTHSM").is_none(), "softhsm2 is not installed");
            println!("skipped: softhsm2 is not installed");
            return None;
        };
        let soft = Self { dir: tempfile::tempdir().unwrap(), module };
        soft.configure("");
        soft.make_token();
        soft.write("pin", PIN);
        Some(soft)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that only its owner can read.
    fn write(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn configure(&self, more: &str) {
        let tokens = self.path("tokens");
        let config = format!("directories.tokendir = {}\nobjectstore.backend = file\n{more}\n", tokens.display());
        fs::write(self.path("softhsm2.conf"), config).unwrap();
    }

    fn make_token(&self) {
        fs::create_dir_all(self.path("tokens")).unwrap();
        self.util(&["--init-token", "--free", "--label", LABEL, "--so-pin", "87654321", "--pin", PIN]);
    }

    fn util(&self, arguments: &[&str]) {
        let done = Command::new("softhsm2-util").args(arguments).envs(self.env()).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", text(&done));
    }

    fn env(&self) -> Vec<(String, String)> {
        vec![("SOFTHSM2_CONF".to_owned(), self.path("softhsm2.conf").to_str().unwrap().to_owned())]
    }

    fn section(&self, keys: &[&str]) -> String {
        format!(
            "[pkcs11]\nmodule = '{}'\ntoken = '{LABEL}'\npin_file = '{}'\nkeys = {keys:?}\n",
            self.module,
            self.path("pin").display()
        )
    }

    fn arguments(&self, keys: &[&str]) -> Vec<String> {
        let pin = self.path("pin").to_str().unwrap().to_owned();
        let fixed = ["--pkcs11-module", self.module, "--pkcs11-token", LABEL, "--pkcs11-pin-file", &pin];
        let fixed = fixed.into_iter().map(str::to_owned);
        fixed.chain(keys.iter().flat_map(|key| ["--pkcs11-key".to_owned(), (*key).to_owned()])).collect()
    }

    /// A data directory whose keys of these roles are on the token.
    fn daemon(&self, keys: &[&str]) -> Daemon {
        let extra = format!("{RULES}{}", self.section(keys));
        let arguments = self.arguments(keys);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Daemon::init_in(tempfile::tempdir().unwrap(), None, &extra, &arguments, &self.env())
    }

    /// Runs `init` for a new directory, which may well refuse.
    fn init(&self, data: &Path, arguments: &[String]) -> Output {
        let kek = self.write("kek", &"07".repeat(32));
        Command::new(binary())
            .args(["init", "--data", data.to_str().unwrap(), "--host", HOST, "--kek-file", &kek])
            .args(arguments)
            .envs(self.env())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

fn kek(daemon: &Daemon) -> Kek {
    Kek::from_file(&daemon.path().join("kek")).unwrap()
}

fn sign(key: &str, text: &str) -> v1::SignRequest {
    v1::SignRequest {
        subjects: vec![v1::Subject { name: String::new(), digest: Digest::of(text.as_bytes()).to_string() }],
        kind: v1::ArtifactKind::File.into(),
        attach: false,
        key: key.to_owned(),
    }
}

fn readiness(daemon: &Daemon) -> String {
    http_get(daemon.operations, "/readyz").unwrap()
}

/// Waits until readiness says this.
fn wait_for(daemon: &Daemon, wanted: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = readiness(daemon);
        if answer.contains(wanted) {
            return answer;
        }
        assert!(Instant::now() < deadline, "never {wanted:?}: {answer}{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The whole of it: the authority, the certificate and time stamps, the log and a managed key sign on the token; what they
/// sign verifies offline; and the data directory has no private key of theirs, neither in clear nor sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_that_signs_is_on_the_token_and_not_in_the_directory() {
    let Some(soft) = Soft::new() else { return };
    let roles = ["ca-root", "ca", "sct", "log", "tsa-root", "tsa", "managed"];
    let mut daemon = soft.daemon(&roles);
    daemon.start();
    let root = TrustedRoot::parse(&fs::read_to_string(daemon.trusted_root()).unwrap()).unwrap();
    let channel = daemon.channel("builder").await;
    let mut keys = KeyServiceClient::new(channel.clone());
    let made = keys.create_key(v1::CreateKeyRequest { name: "release".to_owned() }).await.unwrap().into_inner();
    let release = made.key.unwrap().versions.remove(0);
    // More at once than there are sessions.
    let signing = (0..40).map(|number| {
        let mut client = SigningServiceClient::new(channel.clone());
        let key = if number % 2 == 0 { "" } else { "release" };
        tokio::spawn(async move { (number, client.sign(sign(key, &number.to_string())).await) })
    });
    for signed in futures_util::future::join_all(signing).await {
        let (number, answer) = signed.unwrap();
        let bundle = answer.unwrap().into_inner().bundles.remove(0).bundle;
        let verified = verify::verify(&bundle, &Digest::of(number.to_string().as_bytes()), &root).unwrap();
        match verified.signer() {
            Signer::Key(key) => assert_eq!(key.to_string(), release.key),
            Signer::Identity(by) => assert_eq!(by.subject, "spiffe://countersign.test/builder"),
        }
    }

    let text = fs::read_to_string(daemon.path().join("kek")).unwrap();
    let sealed = search::unsealed(&daemon.data(), &text);
    let on_token: Vec<_> =
        sealed.iter().filter(|(_, body)| body.starts_with(b"pkcs11:token=ca%20token;object=")).collect();
    assert_eq!(on_token.len(), 7, "six roles and the managed key");
    for (role, body) in on_token {
        let body = String::from_utf8(body.clone()).unwrap();
        assert!(body.contains(&format!(";object=countersign:{HOST}:{role}").replace('/', "%2f")), "{role}: {body}");
        assert!(body.contains(";type=private") && body.len() < 400, "{role}: {body}");
    }
    let secrets = search::secrets(&daemon.data(), &text);
    let names: Vec<_> = secrets.iter().map(|secret| secret.name.as_str()).collect();
    assert_eq!(names, ["tls-ca", "tuf", "tuf-root"], "the only private keys that the directory has");
    assert_eq!(search::found(&daemon.data(), &secrets), Vec::<String>::new());

    // Whoever has the directory and the key-encryption key, and not the token, signs nothing.
    daemon.stop();
    let thief = Keyring::open(&daemon.data(), &kek(&daemon)).unwrap();
    let identity = Identity { subject: "spiffe://a/b".to_owned(), issuer: "https://i".to_owned() };
    let key = EphemeralKey::generate().unwrap();
    let refused = thief.issue(&identity, &key.spki(), Timestamp::now()).unwrap_err();
    assert!(matches!(refused, KeyError::Token { .. }), "{refused}");
    assert!(refused.to_string().contains("no token is configured"), "{refused}");
    assert!(matches!(thief.timestamp(b"x", Timestamp::now()), Err(KeyError::Token { .. })));
    assert_eq!(thief.log_key().sign(b"note"), None);

    // And it comes back as it was.
    daemon.start();
    let mut client = SigningServiceClient::new(daemon.channel("builder").await);
    client.sign(sign("release", "again")).await.unwrap();
    let log = daemon.log();
    assert!(!log.contains(PIN), "the PIN is never logged");
    assert!(!fs::read_to_string(daemon.config()).unwrap().contains(PIN));
}

/// A log that succeeds another one has its key on the token too.
#[test]
fn a_new_log_has_its_key_on_the_token() {
    let Some(soft) = Soft::new() else { return };
    let mut daemon = soft.daemon(&["log"]);
    daemon.start();
    done(&daemon.cli("builder", &["log", "freeze", "--successor", "second.countersign.test"]));
    fs::write(daemon.path().join("tool"), "a tool").unwrap();
    done(&daemon.cli("builder", &["sign", daemon.path().join("tool").to_str().unwrap()]));
    let text = fs::read_to_string(daemon.path().join("kek")).unwrap();
    let sealed = search::unsealed(&daemon.data(), &text);
    let on_token: Vec<_> =
        sealed.iter().filter(|(_, body)| body.starts_with(b"pkcs11:")).map(|(role, _)| role.as_str()).collect();
    assert_eq!(on_token, ["log", "log-2"]);
    daemon.stop();
    daemon.start();
}

/// Authorities that take each other's place have their keys on the token too, and what they sign verifies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_rotate_stay_on_the_token() {
    let Some(soft) = Soft::new() else { return };
    let mut daemon = soft.daemon(&["ca-root", "ca", "sct", "tsa"]);
    daemon.start();
    let mut client = SigningServiceClient::new(daemon.channel("builder").await);
    let before = client.sign(sign("", "tool")).await.unwrap().into_inner().bundles.remove(0).bundle;
    for kind in [&["ca"][..], &["sct"], &["tsa"], &["ca", "--new-root"]] {
        done(&daemon.cli("builder", &[&["trust", "rotate"], kind].concat()));
    }
    let after = client.sign(sign("", "tool")).await.unwrap().into_inner().bundles.remove(0).bundle;
    let root = TrustedRoot::parse(&fs::read_to_string(daemon.trusted_root()).unwrap()).unwrap();
    for bundle in [before, after] {
        verify::verify(&bundle, &Digest::of(b"tool"), &root).unwrap();
    }
    let text = fs::read_to_string(daemon.path().join("kek")).unwrap();
    let sealed = search::unsealed(&daemon.data(), &text);
    let on_token: Vec<_> =
        sealed.iter().filter(|(_, body)| body.starts_with(b"pkcs11:")).map(|(role, _)| role.as_str()).collect();
    assert_eq!(on_token, ["ca", "ca-2", "ca-3", "ca-root", "ca-root-3", "sct", "sct-2", "tsa", "tsa-2"]);
    daemon.stop();
    daemon.start();
    client = SigningServiceClient::new(daemon.channel("builder").await);
    client.sign(sign("", "again")).await.unwrap();
}

/// Asks for an RFC 3161 timestamp over a digest, and nothing else.
async fn stamp(daemon: &Daemon) -> (u16, String) {
    let ca = reqwest::Certificate::from_pem(&fs::read(daemon.ca()).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([ca]).build().unwrap();
    let imprint = b"\x30\x34\x02\x01\x01\x30\x2f\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x04\x20";
    let request = client
        .post(format!("https://localhost:{}/api/v1/timestamp", daemon.public))
        .header("content-type", "application/timestamp-query")
        .body([imprint.as_slice(), Digest::of(b"x").as_bytes()].concat());
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned())
}

/// The token is pulled while the service runs: not ready, nothing is signed and nothing recorded, each with its reason; and
/// when it is back, everything goes on without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_gone_is_told_and_comes_back() {
    let Some(soft) = Soft::new() else { return };
    let mut daemon = soft.daemon(&["ca", "log", "tsa"]);
    daemon.start();
    let mut client = SigningServiceClient::new(daemon.channel("builder").await);
    client.sign(sign("", "before")).await.unwrap();
    assert_eq!(stamp(&daemon).await.0, 201);
    let tokens = soft.path("tokens");
    fs::rename(&tokens, soft.path("pulled")).unwrap();
    let answer = wait_for(&daemon, "HTTP/1.1 503");
    assert!(answer.contains("keys: token \"ca token\""), "{answer}");
    let refused = client.sign(sign("", "meanwhile")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "KEY_UNAVAILABLE");
    assert!(!refused.message().contains("ca token"), "where keys are is the operator's business: {refused:?}");
    let (status, said) = stamp(&daemon).await;
    assert!(status == 503 && said.contains("KEY_UNAVAILABLE") && !said.contains("ca token"), "{status} {said}");
    fs::rename(soft.path("pulled"), &tokens).unwrap();
    wait_for(&daemon, "HTTP/1.1 200");
    assert_eq!(stamp(&daemon).await.0, 201);
    client.sign(sign("", "after")).await.unwrap();
    assert!(daemon.log().contains("ca token"), "the operator is told: {}", daemon.log());
    // Without it the service does not start, and says why.
    daemon.stop();
    fs::rename(&tokens, soft.path("pulled")).unwrap();
    fs::create_dir(&tokens).unwrap();
    let started =
        daemon.command("builder", &["serve", "--config", daemon.config().to_str().unwrap()]).output().unwrap();
    assert!(!started.status.success() && text(&started).contains("is not there"), "{}", text(&started));
}

/// Another key under the same label and id, on a token of the same name: at the start it is noticed before anything is
/// signed with it; put there while the service runs, its signatures are not used.
#[test]
fn another_key_under_the_same_name_is_refused() {
    let Some(soft) = Soft::new() else { return };
    let mut daemon = soft.daemon(&["ca"]);
    daemon.start();
    let tool = daemon.path().join("tool");
    fs::write(&tool, "a tool").unwrap();
    let sign = ["sign", tool.to_str().unwrap()];
    done(&daemon.cli("builder", &sign));
    let text_of = fs::read_to_string(daemon.path().join("kek")).unwrap();
    let (_, uri) = search::unsealed(&daemon.data(), &text_of).into_iter().find(|(role, _)| role == "ca").unwrap();
    let uri = String::from_utf8(uri).unwrap();
    let part = |name: &str| uri.split([';', '?']).find_map(|part| part.strip_prefix(name)).unwrap().to_owned();
    let (object, id) = (part("object="), part("id=").replace('%', ""));
    fs::rename(soft.path("tokens"), soft.path("first")).unwrap();
    soft.make_token();
    let foreign = soft.path("foreign.pem");
    let foreign = foreign.to_str().unwrap();
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", foreign])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    soft.util(&["--import", foreign, "--token", LABEL, "--label", &object, "--id", &id, "--pin", PIN]);
    wait_for(&daemon, "has another key under the name");
    let refused = daemon.cli("builder", &sign);
    assert!(!refused.status.success() && text(&refused).contains("KEY_UNAVAILABLE"), "{}", text(&refused));
    assert!(daemon.log().contains("gave a signature that is not by the key"), "{}", daemon.log());
    daemon.stop();
    let config = daemon.config();
    let config = config.to_str().unwrap();
    let started = daemon.command("builder", &["serve", "--config", config]).output().unwrap();
    let said = text(&started);
    assert!(!started.status.success() && said.contains("has another key under the name"), "{said}");
    let doctor = daemon.command("builder", &["doctor", "--config", config]).output().unwrap();
    assert!(text(&doctor).contains("has another key under the name"), "{}", text(&doctor));
    // The right token, and the service is as it was.
    fs::remove_dir_all(soft.path("tokens")).unwrap();
    fs::rename(soft.path("first"), soft.path("tokens")).unwrap();
    daemon.start();
    done(&daemon.cli("builder", &sign));
}

/// A PIN that was refused is not tried again, as tokens lock themselves; not even when it was corrected, before a restart.
#[test]
fn a_pin_that_was_refused_is_not_tried_again() {
    let Some(soft) = Soft::new() else { return };
    let mut daemon = soft.daemon(&["ca"]);
    daemon.start();
    soft.write("pin", "wrong-pin");
    fs::rename(soft.path("tokens"), soft.path("pulled")).unwrap();
    wait_for(&daemon, "HTTP/1.1 503");
    fs::rename(soft.path("pulled"), soft.path("tokens")).unwrap();
    wait_for(&daemon, "refuses the PIN");
    soft.write("pin", PIN);
    std::thread::sleep(Duration::from_secs(3));
    assert!(readiness(&daemon).contains("refuses the PIN"), "{}", readiness(&daemon));
    assert!(!daemon.log().contains("wrong-pin"), "no PIN is logged");
    daemon.stop();
    daemon.start();
}

/// Another token than the one that has the keys is configured, or none.
#[test]
fn a_configuration_that_names_another_token_is_refused() {
    let Some(soft) = Soft::new() else { return };
    let daemon = soft.daemon(&["ca"]);
    soft.util(&["--init-token", "--free", "--label", "other", "--so-pin", "87654321", "--pin", PIN]);
    let config = daemon.config();
    let serve = || daemon.command("builder", &["serve", "--config", config.to_str().unwrap()]).output().unwrap();
    daemon.configure(None, &format!("{RULES}{}", soft.section(&["ca"]).replace(LABEL, "other")));
    let refused = serve();
    assert!(!refused.status.success() && text(&refused).contains("names the token \"other\""), "{}", text(&refused));
    daemon.configure(None, RULES);
    let refused = serve();
    assert!(!refused.status.success() && text(&refused).contains("no token is configured"), "{}", text(&refused));
}

/// The section is whole or not there.
#[test]
fn half_a_section_is_refused() {
    use countersign::config::Config;
    let dir = tempfile::tempdir().unwrap();
    let load = |fields: &[(&str, &str)]| {
        let named = |(name, value): &(&str, &str)| (format!("COUNTERSIGN_PKCS11__{name}"), (*value).to_owned());
        Config::load(None, Some(dir.path()), fields.iter().map(named).collect::<Vec<_>>())
    };
    let whole = [("MODULE", "/m.so"), ("TOKEN", "t"), ("PIN_FILE", "/pin")];
    let token = load(&whole).unwrap().pkcs11.token().unwrap().unwrap();
    assert_eq!((token.module.to_str(), token.token.as_str()), (Some("/m.so"), "t"));
    assert!(load(&[]).unwrap().pkcs11.token().unwrap().is_none());
    for (fields, because) in [
        (vec![whole[0], whole[1]], "needs module, token and one of"),
        (vec![whole[0], whole[2]], "needs module, token and one of"),
        (vec![whole[1], whole[2]], "needs module, token and one of"),
        (vec![("KEYS", "[\"ca\"]")], "needs module, token and one of"),
        (vec![whole[0], whole[1], whole[2], ("PIN_ENV", "PIN")], "more than one PIN"),
        (vec![whole[0], whole[1], whole[2], ("KEYS", "[\"tls-ca\"]")], "unknown variant"),
        (vec![whole[0], whole[1], whole[2], ("PIN", "1234")], "unknown field"),
    ] {
        let refused = load(&fields).unwrap_err().to_string();
        assert!(refused.contains(because), "{fields:?}: {refused}");
    }
}

/// What `init` refuses, before it makes anything.
#[test]
fn what_cannot_be_used_is_refused_before_anything_is_made() {
    let Some(soft) = Soft::new() else { return };
    let data = soft.path("data");
    let refuse = |arguments: &[String], because: &str| {
        let output = soft.init(&data, arguments);
        let said = text(&output);
        assert!(!output.status.success() && said.contains(because), "expected {because:?}: {said}");
        assert!(!said.contains(PIN) && !said.contains("wrong-pin"), "no PIN is printed: {said}");
        assert!(!data.exists(), "nothing was made: {because}");
    };
    let changed = |flag: &str, value: &str| {
        let mut arguments = soft.arguments(&["ca"]);
        let at = arguments.iter().position(|argument| argument == flag).unwrap();
        arguments[at + 1] = value.to_owned();
        arguments
    };
    refuse(&changed("--pkcs11-module", "/nowhere/module.so"), "is not there");
    refuse(&changed("--pkcs11-module", soft.path("softhsm2.conf").to_str().unwrap()), "cannot be loaded");
    refuse(&changed("--pkcs11-token", "another token"), "shows no token of that label");
    refuse(&changed("--pkcs11-key", "tls-ca"), "no key that can be on a token");
    refuse(&changed("--pkcs11-pin-file", "/nowhere/pin"), "cannot be read");
    refuse(&changed("--pkcs11-pin-file", &soft.write("empty", "\n")), "a PIN has 1 to 255");
    refuse(&changed("--pkcs11-pin-file", &soft.write("wrong", "wrong-pin")), "refuses the PIN");
    let open = soft.write("open", PIN);
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refuse(&changed("--pkcs11-pin-file", &open), "can be read by others");
    let inside = data.join("pin");
    refuse(&changed("--pkcs11-pin-file", inside.to_str().unwrap()), "must not lie");
    refuse(&soft.arguments(&[]), "name the keys");
    let no_pin: Vec<String> =
        soft.arguments(&["ca"]).into_iter().filter(|argument| !argument.contains("pin")).collect();
    refuse(&no_pin, "needs module, token and one of");
    // A module that has no Ed25519.
    soft.configure("slots.mechanisms = -CKM_EDDSA,CKM_EC_EDWARDS_KEY_PAIR_GEN");
    refuse(&soft.arguments(&["ca", "log"]), "does not sign with Ed25519");
    done(&soft.init(&data, &soft.arguments(&["ca"])));
    let settings = fs::read_to_string(data.join("countersign.toml")).unwrap();
    assert!(
        settings.contains("[pkcs11]") && settings.contains("keys = [\"ca\"]") && !settings.contains(PIN),
        "{settings}"
    );
    assert!(settings.contains("pin_file = "), "{settings}");
}

/// Certificates for clients come from the local authority, which is in a file: no token is needed for them.
#[test]
fn client_certificates_are_issued_without_the_token() {
    let Some(soft) = Soft::new() else { return };
    let daemon = soft.daemon(&["ca", "log"]);
    fs::remove_dir_all(soft.path("tokens")).unwrap();
    daemon.issue("somebody");
}
