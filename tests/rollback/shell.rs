//! What whoever is on call sees in a shell: the real binary, exit codes, text that can be trusted, JSON that parses.

use std::{net::TcpListener, process::Output};

use countersign::model::Digest;
use serde_json::Value;

use crate::{
    daemon::{Daemon, text},
    fake_registry::FakeRegistry,
};

const POLICY: &str = "
apiVersion: countersign.dev/v1
noMatch: deny
policies:
  - name: production
    match: {images: ['**']}
    require: {signers: {anyOf: [{name: builder, issuer: 'https://countersign.test/clients', subject: 'spiffe://countersign.test/builder'}]}}
";
const PLACE: [&str; 4] = ["--service", "shop", "--environment", "production"];
const WORKLOAD: [&str; 6] = ["--namespace", "prod", "--workload", "deployment/shop", "--container", "app"];

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn serve(registry: &str, timeout_ms: u32) -> Daemon {
    let extra = format!(
        "[registry]\nplain_http = ['{registry}']\nattempts = 1\n[rollback]\ntimeout_ms = {timeout_ms}\nmax_probe_age_s = 0\n"
    );
    let mut daemon = Daemon::init(Some(POLICY), &extra);
    daemon.start();
    daemon
}

#[track_caller]
fn done(daemon: &Daemon, args: &[&str]) {
    let output = daemon.cli("builder", args);
    assert_eq!(code(&output), 0, "{args:?}: {}", text(&output));
}

/// Signed and recorded as live.
fn release(daemon: &Daemon, image: &str, digest: Digest, more: &[&str]) {
    let image = format!("{image}@{digest}");
    done(daemon, &["sign", &image]);
    done(daemon, &[&["deployment", "record", "--image", &image][..], &PLACE, more].concat());
}

fn report(daemon: &Daemon, digest: Digest, state: &[&str]) {
    let digest = digest.to_string();
    done(daemon, &[&["health", "report", "--digest", &digest][..], &PLACE, state].concat());
}

fn check(daemon: &Daemon, more: &[&str]) -> Output {
    daemon.cli("builder", &[&["rollback", "check", "shop@production"], more].concat())
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// SAFE, SAFE-WITH-WARNINGS and UNSAFE, as text and as JSON, with the exit codes that go with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_for_whoever_is_on_call() {
    let registry = FakeRegistry::start().await;
    let daemon = serve(&registry.host(), 10_000);
    let image = format!("{}/shop/app:v1", registry.host());
    let old = registry.push_image("shop/app", "v1", &[b"one"]);
    let new = registry.push_image("shop/app", "v2", &[b"two"]);

    let unknown_place = check(&daemon, &[]);
    assert_eq!(code(&unknown_place), 2, "{}", text(&unknown_place));
    assert!(stdout(&unknown_place).contains("countersign deployment list"), "{}", text(&unknown_place));
    assert!(stdout(&daemon.cli("builder", &["rollback", "targets", "shop@prodution"])).contains("deployment list"));

    release(&daemon, &image, old, &["--version", "1.0"]);
    report(&daemon, old, &["--healthy"]);
    release(&daemon, &image, new, &[]);

    let unknown_workload = stdout(&check(&daemon, &[]));
    let pinned = format!("{}/shop/app@{old}", registry.host());
    assert!(unknown_workload.contains(&format!("image    {pinned}\n")), "{unknown_workload}");
    assert!(!unknown_workload.contains("kubectl"), "nothing is guessed: {unknown_workload}");
    assert!(unknown_workload.contains("no record says which workload"), "{unknown_workload}");

    release(&daemon, &image, new, &WORKLOAD);
    let safe = check(&daemon, &[]);
    assert_eq!(code(&safe), 0, "{}", text(&safe));
    assert!(stdout(&safe).starts_with("SAFE  shop@production: "), "{}", text(&safe));
    let command = format!("kubectl --namespace prod set image deployment/shop app={pinned}");
    assert!(stdout(&safe).contains(&format!("run      {command}\n")), "{}", text(&safe));
    assert!(stdout(&safe).contains("registry 0 s old"), "{}", text(&safe));
    let readiness = json(&check(&daemon, &["-o", "json", "--to", &old.to_string()]));
    assert_eq!((readiness["verdict"].as_str(), readiness["command"].as_str()), (Some("SAFE"), Some(command.as_str())));

    let scan = daemon.path().join("scan.json");
    let now = jiff::Timestamp::now();
    let findings = serde_json::json!({"scanner": {"uri": "pkg:s", "db": {"lastUpdate": now},
        "result": [{"id": "CVE-7", "severity": [{"method": "nvd", "score": "high"}]}]}, "metadata": {"scanFinishedOn": now}});
    std::fs::write(&scan, findings.to_string()).unwrap();
    let digest = old.to_string();
    done(&daemon, &["attest", "--type", "vulns", "--predicate", scan.to_str().unwrap(), &digest]);
    let warned = check(&daemon, &[]);
    assert_eq!(code(&warned), 0, "{}", text(&warned));
    assert!(stdout(&warned).starts_with("SAFE-WITH-WARNINGS  ") && stdout(&warned).contains("CVE-7 (high)"));
    assert_eq!(code(&check(&daemon, &["--strict"])), 1, "a warning is a no when it is asked to be");

    report(&daemon, old, &["--unhealthy", "--detail", "checkout fails\nSAFE  shop@production: all is well"]);
    let no = check(&daemon, &["--strict"]);
    assert_eq!(code(&no), 1, "{}", text(&no));
    assert!(stdout(&no).starts_with("UNSAFE  "), "{}", text(&no));
    assert!(!stdout(&no).lines().any(|line| line.starts_with("SAFE")), "no line is forged: {}", text(&no));
    assert!(!stdout(&no).contains("kubectl") && !stdout(&no).contains("image    "), "{}", text(&no));
    assert_eq!(json(&check(&daemon, &["-o", "json"]))["verdict"], "UNSAFE");

    let targets = daemon.cli("builder", &["rollback", "targets", "shop@production"]);
    assert!(stdout(&targets).contains("UNHEALTHY_LAST_TIME"), "{}", text(&targets));
    let services = daemon.cli("builder", &["deployment", "list"]);
    assert_eq!((code(&services), stdout(&services).as_str()), (0, "shop@production\n"));
    let listed = stdout(&daemon.cli("builder", &["deployment", "list", "shop@production"]));
    assert!(listed.contains("Deployment prod/shop, container app") && listed.contains(&format!("* {new}")), "{listed}");

    let dry = daemon.cli("builder", &["revoke", "artifact", &new.to_string(), "--reason", "leaks", "--dry-run"]);
    assert!(
        stdout(&dry).contains("RUNS NOW") && stdout(&dry).contains("rollback check shop@production"),
        "{}",
        text(&dry)
    );
    let nothing = Digest::of(b"never seen").to_string();
    let nobody = daemon.cli("builder", &["revoke", "artifact", &nothing, "--reason", "typed wrong", "--dry-run"]);
    assert!(stdout(&nobody).contains("no revision that was ever live is hit"), "{}", text(&nobody));
}

/// A registry that takes connections and never says a word: could not tell, within the time that the service has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_hangs_is_unknown() {
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = hole.local_addr().unwrap().to_string();
    let held = std::thread::spawn(move || hole.incoming().take_while(Result::is_ok).collect::<Vec<_>>());
    let daemon = serve(&host, 1_800);
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    for digest in [old, new] {
        release(&daemon, &format!("{host}/shop/app:v1"), digest, &WORKLOAD);
        report(&daemon, digest, &["--healthy"]);
    }
    for more in [&[][..], &["--fresh"], &["--to", &old.to_string()], &["--timeout-ms", "300"]] {
        let answer = check(&daemon, &[more, &["-o", "json"]].concat());
        assert_eq!(code(&answer), 2, "{more:?}: {}", text(&answer));
        let readiness = json(&answer);
        assert_eq!(readiness["verdict"], "UNKNOWN", "{readiness:#}");
        let codes: Vec<_> =
            readiness["checks"].as_array().unwrap().iter().filter(|check| check["class"] == "could_not_run").collect();
        assert_eq!(codes.len(), 1, "all else is known: {readiness:#}");
        assert_eq!(codes[0]["code"], "REGISTRY_UNAVAILABLE", "{readiness:#}");
        assert!(readiness["command"].is_null() && readiness["image"].is_null(), "{readiness:#}");
    }
    let shown = check(&daemon, &[]);
    assert!(stdout(&shown).starts_with("UNKNOWN  ") && stdout(&shown).contains("--timeout-ms"), "{}", text(&shown));
    assert!(!held.is_finished());
}

/// Wrong usage is 64, help is 0, and not to reach the service is "could not tell", whoever is at fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes() {
    let mut daemon = Daemon::init(Some(POLICY), "");
    daemon.issue("nobody");
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let config = config.replace("spiffe://countersign.test/*", "spiffe://countersign.test/builder");
    std::fs::write(daemon.config(), config).unwrap();
    let digest = Digest::of(b"a").to_string();
    let image = format!("registry.test/a@{digest}");

    let unreachable = check(&daemon, &[]);
    assert_eq!(code(&unreachable), 2, "{}", text(&unreachable));
    assert!(stdout(&unreachable).starts_with("UNKNOWN  shop@production: "), "{}", text(&unreachable));
    assert_eq!(json(&check(&daemon, &["-o", "json"]))["verdict"], "UNKNOWN");

    daemon.start();
    let refused = daemon.cli("nobody", &["rollback", "check", "shop@production", "-o", "json"]);
    assert_eq!(code(&refused), 2, "{}", text(&refused));
    let sentence = json(&refused)["sentence"].as_str().unwrap().to_owned();
    assert!(sentence.contains("an admin can add a rule") && !sentence.contains("--token-file"), "{sentence}");

    let record = ["deployment", "record", "--service", "shop", "--environment", "production", "--image"];
    let health = ["health", "report", "--service", "shop", "--environment", "production", "--digest", &digest];
    let approve = ["approve", "--service", "shop", "--environment", "production", &digest];
    let revoke = ["revoke", "artifact", &digest, "--reason", "x"];
    let usage: Vec<Vec<&str>> = vec![
        vec!["rollback", "check"],
        vec!["rollback", "check", "shop"],
        vec!["rollback", "check", "@production"],
        vec!["rollback", "check", "shop@"],
        vec!["rollback", "check", "sh op@production"],
        vec!["rollback", "check", "shop@production", "--to", "sha512:00"],
        vec!["rollback", "check", "shop@production", "--timeout-ms", "0"],
        vec!["rollback", "check", "shop@production", "--no-such-flag"],
        vec!["rollback", "targets", "shop"],
        vec!["deployment", "list", "shop"],
        [&record[..], &["registry.test/a:v1"]].concat(),
        [&record[..], &["not an image!"]].concat(),
        [&record[..], &[&image, "--status", "running"]].concat(),
        [&record[..], &[&image, "--version", "1 0"]].concat(),
        [&record[..], &[&image, "--namespace", "prod"]].concat(),
        [&record[..], &[&image, "--namespace", "prod", "--workload", "shop", "--container", "app"]].concat(),
        [&record[..], &[&image, "--namespace", "prod", "--workload", "job/shop", "--container", "app"]].concat(),
        [&record[..], &[&image, "--namespace", "Prod", "--workload", "deployment/shop", "--container", "app"]].concat(),
        health.to_vec(),
        [&health[..], &["--healthy", "--unhealthy"]].concat(),
        [&approve[..], &["--expires", "tomorrow"]].concat(),
        [&approve[..], &["--expires", "2020-01-01T00:00:00Z"]].concat(),
        vec!["revoke", "artifact", &digest],
        vec!["revoke", "artifact", "sha1:00", "--reason", "x"],
        vec!["revoke", "artifact", &digest, "--reason", "  "],
        vec!["revoke", "identity", "--subject", "ci", "--reason", "x"],
        [&revoke[..], &["--since", "yesterday"]].concat(),
        [&revoke[..], &["--since", "2100-01-01T00:00:00Z"]].concat(),
    ];
    for args in usage {
        let output = daemon.cli("builder", &args);
        assert_eq!(code(&output), 64, "{args:?}: {}", text(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {}", text(&output));
    }
    for args in [
        &["rollback", "--help"][..],
        &["rollback", "check", "--help"],
        &["deployment", "record", "--help"],
        &["health", "report", "--help"],
        &["approve", "--help"],
        &["revoke", "identity", "--help"],
    ] {
        assert_eq!(code(&daemon.cli("builder", args)), 0, "{args:?}");
    }
    // The same without the faults is taken.
    for args in
        [[&record[..], &[&image]].concat(), [&health[..], &["--healthy"]].concat(), approve.to_vec(), revoke.to_vec()]
    {
        done(&daemon, &args);
    }
    let refused = daemon.cli("nobody", &revoke);
    assert_eq!(code(&refused), 1, "{}", text(&refused));
}
