//! What clients that others wrote make of the TUF repository: sigstore-python, by `trust-instance` alone; also 400 days on,
//! with the clock of the service and of the client moved by `faketime`.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    daemon::{self, Daemon},
    interop::sigstore,
    trust::service::{done, service},
};

/// `libfaketime` of the Debian package `libfaketime`; without it, and not told to require it, nothing is tried.
fn faketime() -> Option<String> {
    let found = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists());
    assert!(found.is_some() || env::var_os("CI_REQUIRE_FAKETIME").is_none(), "install the Debian package libfaketime");
    found
}

/// Moves the wall clock of a process, and no other.
fn moved(command: &mut Command, library: Option<&str>) {
    if let Some(library) = library {
        command.env("LD_PRELOAD", library).env("FAKETIME", "+400d").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

struct Python<'a> {
    daemon: &'a Daemon,
    home: std::path::PathBuf,
    library: Option<String>,
}

impl Python<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let url = format!("https://localhost:{}/tuf", self.daemon.public);
        let mut command = Command::new(sigstore());
        command
            .current_dir(self.daemon.path())
            .env("HOME", &self.home)
            .env("SSL_CERT_FILE", self.daemon.ca())
            .env("REQUESTS_CA_BUNDLE", self.daemon.ca())
            .args(["--instance", &url])
            .args(arguments)
            .stdin(Stdio::null());
        moved(&mut command, self.library.as_deref());
        command.output().unwrap()
    }

    fn verify(&self, name: &str, more: &[&str]) -> Output {
        let (bundle, file) = (format!("{name}.json"), name.to_owned());
        let by = ["--cert-identity", "spiffe://countersign.test/builder"];
        let issuer = ["--cert-oidc-issuer", "https://countersign.test/clients"];
        self.run(&[&["verify", "identity", "--bundle", &bundle], &by[..], &issuer[..], more, &[&file]].concat())
    }
}

fn sign(daemon: &Daemon, name: &str) {
    fs::write(daemon.path().join(name), name).unwrap();
    let bundle = daemon.path().join(format!("{name}.json"));
    let (file, bundle) = (daemon.path().join(name), bundle.to_str().unwrap().to_owned());
    done(&daemon.cli("builder", &["sign", "--bundle", &bundle, file.to_str().unwrap()]));
}

#[test]
fn sigstore_python_follows_every_rotation_by_itself() {
    let daemon = service();
    let python = Python { daemon: &daemon, home: daemon.path().join("home"), library: None };
    fs::create_dir(&python.home).unwrap();
    sign(&daemon, "before");
    assert!(!python.verify("before", &[]).status.success(), "it does not know the instance yet");
    let first = daemon.data().join("tuf/1.root.json");
    done(&python.run(&["trust-instance", first.to_str().unwrap()]));
    done(&python.verify("before", &[]));
    let rotations: [&[&str]; 5] = [
        &["tuf", "--new-root"],
        &["ca", "--new-root"],
        &["sct"],
        &["tsa", "--new-root"],
        &["log", "--successor", "log2.test"],
    ];
    for rotation in rotations {
        let name = format!("after-{}", rotation[0]);
        done(&daemon.cli("root", &[&["trust", "rotate"], rotation].concat()));
        sign(&daemon, &name);
        let offline = python.verify(&name, &["--offline"]);
        assert_eq!(
            offline.status.success(),
            rotation[0] == "tuf",
            "it has not fetched since: {}",
            daemon::text(&offline)
        );
        for name in ["before", &name] {
            done(&python.verify(name, &[]));
        }
        done(&python.verify(&name, &["--offline"]));
    }
    fs::write(daemon.path().join("before"), "beforE").unwrap();
    assert!(!python.verify("before", &[]).status.success());
}

/// The service is started again 400 days later; everything of TUF but the root had expired meanwhile.
#[test]
fn four_hundred_days_on_stock_clients_verify_old_and_new() {
    let Some(library) = faketime() else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    let mut daemon = service();
    sign(&daemon, "old");
    done(&daemon.cli("root", &["trust", "rotate", "ca"]));
    sign(&daemon, "rotated");
    let home = daemon.path().join("home");
    fs::create_dir(&home).unwrap();
    let first = daemon.data().join("tuf/1.root.json");
    done(
        &Python { daemon: &daemon, home: home.clone(), library: None }
            .run(&["trust-instance", first.to_str().unwrap()]),
    );
    assert!(daemon.stop().unwrap().success());

    let log = fs::File::create(daemon.path().join("moved.log")).unwrap();
    let mut command = Command::new(daemon::binary());
    command.args(["serve", "--config", daemon.config().to_str().unwrap()]);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    moved(&mut command, Some(&library));
    let mut child = command.spawn().unwrap();
    let said = || fs::read_to_string(daemon.path().join("moved.log")).unwrap();
    let deadline = Instant::now() + daemon::PATIENCE;
    while !daemon::http_get(daemon.operations, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "{}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
    let python = Python { daemon: &daemon, home, library: Some(library.clone()) };
    for name in ["old", "rotated"] {
        done(&python.verify(name, &[]));
    }
    // Client certificates live a day here, so the ones of then are made anew; and so is a bundle.
    let cli = |name: &str, arguments: &[&str]| {
        let mut command = daemon.command(name, arguments);
        moved(&mut command, Some(&library));
        command.output().unwrap()
    };
    let clients = daemon.path().join("clients");
    fs::remove_dir_all(&clients).unwrap();
    let mut issue = Command::new(daemon::binary());
    issue.args(["trust", "issue-client", "spiffe://countersign.test/builder", "--days", "1"]);
    issue.arg("--data").arg(daemon.data()).arg("--kek-file").arg(daemon.path().join("kek")).arg("--out").arg(&clients);
    moved(&mut issue, Some(&library));
    done(&issue.output().unwrap());
    fs::write(daemon.path().join("new"), "new").unwrap();
    let (file, bundle) = (daemon.path().join("new"), daemon.path().join("new.json"));
    done(&cli("builder", &["sign", "--bundle", bundle.to_str().unwrap(), file.to_str().unwrap()]));
    done(&python.verify("new", &[]));
    let status = cli("builder", &["trust", "status", "-o", "json"]);
    assert!(status.status.success(), "{}", daemon::text(&status));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let now: jiff::Timestamp = status["now"].as_str().unwrap().parse().unwrap();
    assert!(now.duration_since(jiff::Timestamp::now()).as_hours() > 399 * 24, "{now}");
    for document in status["tuf"]["documents"].as_array().unwrap() {
        let expires: jiff::Timestamp = document["expires"].as_str().unwrap().parse().unwrap();
        assert!(expires.duration_since(now).as_hours() > 24 * 7, "{document}");
    }
    assert_eq!(status["warnings"], serde_json::json!([]));
    child.kill().unwrap();
    child.wait().unwrap();
}
