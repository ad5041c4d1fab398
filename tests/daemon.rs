//! The real binary as a real process: `init`, `serve`, client certificates, kills, restarts.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

pub const HOST: &str = "countersign.test";
const ROLES: &str = r#"["builder", "verifier", "deployer", "approver", "operator", "auditor"]"#;

/// A data directory and the process that serves it.
pub struct Daemon {
    pub dir: tempfile::TempDir,
    pub public: u16,
    pub webhook: u16,
    pub operations: u16,
    /// Variables for every process of it: where its token is.
    env: Vec<(String, String)>,
    child: Option<Child>,
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_countersign")
}

/// Runs the binary with the environment emptied of our variables; standard input is closed.
pub fn run(args: &[&str]) -> Output {
    Command::new(binary()).args(args).stdin(Stdio::null()).output().expect("the binary starts")
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Daemon {
    /// A fresh data directory with a policy and extra configuration, not yet served.
    pub fn init(policy: Option<&str>, extra: &str) -> Self {
        Self::init_in(tempfile::tempdir().unwrap(), policy, extra, &[], &[])
    }

    /// The same in this directory, with more arguments of `init`, and variables for every process of it.
    pub fn init_in(
        dir: tempfile::TempDir,
        policy: Option<&str>,
        extra: &str,
        arguments: &[&str],
        env: &[(String, String)],
    ) -> Self {
        let data = dir.path().join("data");
        let kek = dir.path().join("kek");
        let (data, kek) = (data.to_str().unwrap(), kek.to_str().unwrap());
        let made = Command::new(binary())
            .args(["init", "--data", data, "--host", HOST, "--kek-file", kek, "--generate-kek"])
            .args(arguments)
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "init: {}", text(&made));
        let (public, webhook, operations) = (free_port(), free_port(), free_port());
        let daemon = Self { dir, public, webhook, operations, env: env.to_vec(), child: None };
        for name in ["builder", "other"] {
            daemon.issue(name);
        }
        daemon.configure(policy, extra);
        daemon
    }

    /// Writes the configuration; `extra` goes in front of the tables (so it may hold tables itself at its end).
    pub fn configure(&self, policy: Option<&str>, extra: &str) {
        let policy_line = policy.map_or(String::new(), |policy| {
            fs::write(self.dir.path().join("policy.yaml"), policy).unwrap();
            format!("[policy]\nfile = '{}'\n", self.dir.path().join("policy.yaml").display())
        });
        let config = format!(
            r#"data = '{data}'
[listen]
public = "127.0.0.1:{public}"
webhook = "127.0.0.1:{webhook}"
operations = "127.0.0.1:{operations}"
[kek]
file = '{kek}'
{policy_line}
[identity]
mtls_issuer = "https://countersign.test/clients"
[[identity.rules]]
issuer = "https://countersign.test/clients"
subject = "spiffe://countersign.test/*"
roles = {ROLES}
{extra}
"#,
            data = self.data().display(),
            kek = self.dir.path().join("kek").display(),
            public = self.public,
            webhook = self.webhook,
            operations = self.operations,
        );
        fs::write(self.config(), config).unwrap();
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("countersign.toml")
    }

    pub fn ca(&self) -> PathBuf {
        self.data().join("keys").join("tls-ca.pem")
    }

    /// A client certificate for `spiffe://countersign.test/<name>`: (certificate, key).
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let out = self.dir.path().join("clients");
        let made = run(&[
            "trust",
            "issue-client",
            &format!("spiffe://{HOST}/{name}"),
            "--data",
            self.data().to_str().unwrap(),
            "--kek-file",
            self.dir.path().join("kek").to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--days",
            "1",
        ]);
        assert!(made.status.success(), "issue-client: {}", text(&made));
        self.client(name)
    }

    fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        let stem = self.dir.path().join("clients").join(format!("{HOST}-{name}"));
        let with = |ending: &str| PathBuf::from(format!("{}.{ending}", stem.display()));
        (with("pem"), with("key"))
    }

    /// Starts serving and waits until it is ready.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("serve.log")).unwrap();
        let child = Command::new(binary())
            .args(["serve", "--config", self.config().to_str().unwrap()])
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_mins(1);
        while !self.ready() {
            let child = self.child.as_mut().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("serve ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ready(&self) -> bool {
        http_get(self.operations, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("serve.log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGTERM, and the exit status.
    pub fn stop(&mut self) -> Option<std::process::ExitStatus> {
        let mut child = self.child.take()?;
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        let ended = wait(&mut child);
        Some(ended.unwrap_or_else(|| panic!("the service does not end on SIGTERM: {}", self.log())))
    }

    /// A gRPC channel with the client certificate of `name`.
    pub async fn channel(&self, name: &str) -> Channel {
        self.try_channel(name).await.expect("the service answers")
    }

    pub async fn try_channel(&self, name: &str) -> Result<Channel, tonic::transport::Error> {
        let (certificate, key) = self.client(name);
        let tls = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(fs::read(self.ca()).unwrap()))
            .identity(Identity::from_pem(fs::read(certificate).unwrap(), fs::read(key).unwrap()));
        Channel::from_shared(format!("https://127.0.0.1:{}", self.public))
            .unwrap()
            .tls_config(tls)?
            .connect_timeout(Duration::from_secs(5))
            .connect()
            .await
    }

    /// Runs a client command against the running service as `name`.
    pub fn cli(&self, name: &str, args: &[&str]) -> Output {
        self.command(name, args).output().unwrap()
    }

    /// A client command against the running service as `name`, not yet run.
    pub fn command(&self, name: &str, args: &[&str]) -> Command {
        let (certificate, key) = self.client(name);
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("COUNTERSIGN_SERVER", format!("https://localhost:{}", self.public))
            .env("COUNTERSIGN_CA_FILE", self.ca())
            .env("COUNTERSIGN_CLIENT_CERT", certificate)
            .env("COUNTERSIGN_CLIENT_KEY", key)
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    pub fn trusted_root(&self) -> PathBuf {
        self.data().join("trusted_root.json")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `kill -9` by process id, from a task that does not own the process.
pub fn kill_nine(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

/// How long another process may let a test wait. Whoever hangs fails one test, and not the run of all.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How a process ended; one that does not end in time is killed.
pub fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// All that a process still says, and how it ends.
pub fn output(child: Child) -> Output {
    let (pid, (sender, receiver)) = (child.id(), mpsc::channel());
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_late| {
        kill_nine(pid);
        panic!("the process does not end: {}", text(&receiver.recv().unwrap()))
    })
}

/// The lines that a process prints.
pub struct Lines(mpsc::Receiver<String>);

impl Lines {
    pub fn of(pipe: impl std::io::Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(pipe)).map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self(receiver)
    }

    /// The next one, which must come in time.
    #[track_caller]
    pub fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("a line, in time")
    }
}

/// One HTTP/1.1 GET in the clear; the whole answer.
pub fn http_get(port: u16, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
