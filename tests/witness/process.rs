//! The real binary: a witness as a process, `kill -9`, and a service that requires it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::harness::{Leaves, wait_for};
use crate::daemon::{Daemon, binary, http_get, run, text};

/// A witness's directory, and the process that runs it.
struct Process {
    dir: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
}

impl Process {
    fn init() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let new = Self { dir, child: None, port: 0 };
        let (data, kek) = (new.data(), new.kek());
        let args =
            ["witness", "init", "--data", &data, "--name", "witness.test/w1", "--kek-file", &kek, "--generate-kek"];
        let made = run(&args);
        assert!(made.status.success(), "{}", text(&made));
        assert!(text(&made).contains("witness.test/w1+"), "{}", text(&made));
        let again = run(&args);
        assert!(!again.status.success() && text(&again).contains("never writes over anything"), "{}", text(&again));
        new
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn kek(&self) -> String {
        self.dir.path().join("kek").display().to_string()
    }

    fn vkeys(&self) -> Vec<String> {
        let path: PathBuf = [&self.data(), "vkeys"].iter().collect();
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    /// Starts it on a free port, and waits until it listens.
    fn start(&mut self, log: &str) {
        let listen = format!("127.0.0.1:{}", self.port);
        let mut child = Command::new(binary())
            .args(["witness", "--data", &self.data(), "--kek-file", &self.kek(), "--listen", &listen, "--log", log])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line =
            lines.find_map(|line| line.unwrap().split_once("listening: witness http://").map(|(_, at)| at.to_owned()));
        self.port = line.unwrap().rsplit(':').next().unwrap().parse().unwrap();
        // Nobody reads on: what it writes later must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    async fn add(&self, log: &Leaves, old: usize, new: usize) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}/add-checkpoint", self.port);
        let answer = reqwest::Client::new().post(url).body(log.request(old, new).to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test]
async fn what_a_witness_cosigned_survives_kill_nine() {
    let log = Leaves::new(200, 200, "");
    let fork = Leaves::new(200, 3, "other");
    let mut witness = Process::init();
    let mut size = 0;
    for round in 1..=5 {
        witness.start(&log.key().vkey());
        if size > 0 {
            assert_eq!(witness.add(&fork, 0, 199).await, (409, format!("{size}\n")), "round {round}: it forgot");
            assert_eq!(witness.add(&fork, size, size).await.0, 422, "round {round}");
        }
        for step in 1..=7 {
            let (status, body) = witness.add(&log, size, size + step).await;
            assert_eq!(status, 200, "{body}");
            size += step;
        }
        // At once after the answer.
        witness.kill();
    }
    assert_eq!(size, 140);
}

#[test]
fn a_witness_says_what_it_needs() {
    let witness = Process::init();
    let log = Leaves::new(0, 0, "").key().vkey();
    let (data, kek) = (witness.data(), witness.kek());
    let with = |listen: &str, log: &str, data: &str| {
        run(&["witness", "--data", data, "--kek-file", &kek, "--listen", listen, "--log", log])
    };
    let public = with("0.0.0.0:0", &log, &data);
    assert!(!public.status.success() && text(&public).contains("--tls-cert"), "{}", text(&public));
    let nonsense = with("127.0.0.1:0", "nonsense", &data);
    assert_eq!(nonsense.status.code(), Some(64), "{}", text(&nonsense));
    let nowhere = with("127.0.0.1:0", &log, "/nonexistent");
    assert!(text(&nowhere).contains("countersign witness init"), "{}", text(&nowhere));
    let inside = format!("{data}2/kek");
    let inside = run(&[
        "witness",
        "init",
        "--data",
        &format!("{data}2"),
        "--name",
        "w",
        "--kek-file",
        &inside,
        "--generate-kek",
    ]);
    assert!(text(&inside).contains("must not lie in the directory"), "{}", text(&inside));
    assert_eq!(run(&["witness"]).status.code(), Some(64));
    let help = run(&["witness", "--help"]);
    assert!(
        help.status.success() && text(&help).contains("countersign witness --data /var/lib/witness"),
        "{}",
        text(&help)
    );
}

fn check(policy: &Path, checkpoint: &Path) -> (Option<i32>, String) {
    let output = run(&["witness", "check", "--policy", policy.to_str().unwrap(), checkpoint.to_str().unwrap()]);
    (output.status.code(), text(&output))
}

#[test]
fn a_service_requires_its_witness() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let status = daemon.cli("builder", &["log", "status", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let log = status["verifierKey"].as_str().unwrap().to_owned();
    daemon.kill();
    let mut witness = Process::init();
    witness.start(&log);
    let policy = daemon.path().join("witnesses");
    let lines = format!("log {log}\nwitness w1 {} http://127.0.0.1:{}\nquorum w1\n", witness.vkeys()[1], witness.port);
    fs::write(&policy, lines).unwrap();
    let settings = format!("[witness]\npolicy_file = '{}'\nmode = \"require\"\ntimeout_ms = 400\n", policy.display());
    daemon.configure(None, &settings);
    daemon.start();
    let file = daemon.path().join("tool");
    fs::write(&file, "tool").unwrap();
    let sign = |name: &str| {
        let bundle = daemon.path().join(name);
        daemon.cli("builder", &["sign", "--bundle", bundle.to_str().unwrap(), file.to_str().unwrap()])
    };
    let signed = sign("one.json");
    assert!(signed.status.success(), "{}", text(&signed));
    // The service's checkpoint, and the one that is in the bundle.
    let checkpoint = daemon.path().join("checkpoint");
    let bundle: serde_json::Value = serde_json::from_slice(&fs::read(daemon.path().join("one.json")).unwrap()).unwrap();
    let proof = &bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"];
    fs::write(&checkpoint, proof["checkpoint"]["envelope"].as_str().unwrap()).unwrap();
    let (code, said) = check(&policy, &checkpoint);
    assert!(code == Some(0) && said.starts_with("ACCEPTED") && said.contains("cosigned by w1"), "{said}");
    let unsigned: String = fs::read_to_string(&checkpoint).unwrap().split_inclusive('\n').take(5).collect();
    fs::write(&checkpoint, unsigned).unwrap();
    let (code, said) = check(&policy, &checkpoint);
    assert!(code == Some(1) && said.contains("does not meet the quorum w1"), "{said}");
    assert_eq!(check(&policy, &daemon.path().join("missing")).0, Some(2));
    // A receipt is held against the policy too, and against one of a witness that was never asked.
    let receipt = daemon.path().join("one.tlog-proof");
    let receipt = receipt.to_str().unwrap();
    let proof = daemon.cli("builder", &["log", "proof", "1", "--receipt", receipt]);
    assert!(proof.status.success(), "{}", text(&proof));
    let other = daemon.path().join("others");
    let stranger = Process::init().vkeys()[1].clone();
    fs::write(&other, format!("log {log}\nwitness w2 {stranger}\nquorum w2\n")).unwrap();
    let bundle = daemon.path().join("one.json");
    let verify = |policy: &Path| {
        let entry = ["--bundle", bundle.to_str().unwrap(), "--key", &log];
        run(&[&["log", "verify-receipt", receipt, "--witness-policy", policy.to_str().unwrap()], &entry[..]].concat())
    };
    let held = verify(&policy);
    assert!(held.status.success() && text(&held).contains("cosigned by w1"), "{}", text(&held));
    let refused = verify(&other);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0), "{}", text(&refused));
    assert!(text(&refused).contains("does not meet the quorum w2: cosigned by nobody"), "{}", text(&refused));
    assert_eq!(verify(&daemon.path().join("missing")).status.code(), Some(2));
    let metrics = http_get(daemon.operations, "/metrics").unwrap();
    for line in ["countersign_witness_quorum{mode=\"require\"} 1", "countersign_witness_entries{witness=\"w1\"} 2"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    // Without the witness the caller is told; the service stays.
    witness.kill();
    let refused = sign("two.json");
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(text(&refused).contains("not witnessed yet"), "{}", text(&refused));
    witness.start(&log);
    wait_for("a cosigned head", || {
        http_get(daemon.operations, "/metrics").is_some_and(|page| page.contains("witness_entries{witness=\"w1\"} 3"))
    });
    let signed = sign("three.json");
    assert!(signed.status.success(), "{}", text(&signed));
    assert!(daemon.stop().unwrap().success());
    let fsck = run(&["log", "fsck", "--data", daemon.data().to_str().unwrap()]);
    assert!(fsck.status.success(), "{}", text(&fsck));
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let daemon = Daemon::init(None, "");
    let table = [
        ("mode = \"require\"", "witness.policy_file"),
        ("policy_file = \"x\"", "witness.mode"),
        ("policy_file = \"x\"\nmode = \"maybe\"", "mode"),
        ("timeout_ms = 0", "witness.timeout_ms"),
        ("policy_file = \"/nonexistent\"\nmode = \"require\"", "/nonexistent"),
    ];
    for (lines, problem) in table {
        daemon.configure(None, &format!("[witness]\n{lines}\n"));
        let served = run(&["serve", "--config", daemon.config().to_str().unwrap()]);
        assert!(!served.status.success() && text(&served).contains(problem), "{lines}: {}", text(&served));
    }
}
