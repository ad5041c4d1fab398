//! Docker's credential programs: `docker-credential-NAME get`, a server on standard input, JSON on standard output.
//!
//! A program of our own for this, as the crates that speak the protocol wait for the program without end: one that hangs
//! (a locked key ring, a cloud that does not answer) would take a thread with it each time it is asked. Here it has a
//! bound in time and in bytes, and is killed when either is passed, or when whoever waits for it gives up. A child that
//! it leaves behind cannot hold us up: it only holds the other end of a pipe that we have closed.
//!
//! What the program says on standard error is not read: it may quote secrets.

use std::{
    io::Write as _,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

use crate::model::{
    docker_config::{Credential, Question},
    limits,
};

/// How often a program that has closed its output is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// Asks a program; `None` when it has nothing for this server.
///
/// # Errors
/// A sentence that names the program and the server; never with what the program said.
pub(super) async fn ask(question: &Question, time: Duration) -> Result<Option<Credential>, String> {
    let Question { program, server } = question;
    if program.contains('/') {
        return Err(format!("docker-credential-{program} is a path; name a program that is in PATH"));
    }
    let name = format!("docker-credential-{program}");
    let mut running = Running::start(&name, server)
        .map_err(|problem| format!("{name} cannot be run: {problem}; is it in PATH of the service?"))?;
    let answer = timeout(time, running.answer()).await;
    drop(running);
    let (status, output) = answer
        .map_err(|_elapsed| {
            format!("{name} gave no answer for {server} within {time:?} and was ended; run it by hand to see why")
        })?
        .map_err(|problem| format!("{name}: {problem}"))?;
    if !status.success() {
        // Docker's protocol knows no better sign that the program ran and has nothing for this server.
        let has_none = String::from_utf8_lossy(&output).contains("credentials not found");
        return if has_none { Ok(None) } else { Err(format!("{name} failed for {server}: {status}")) };
    }
    let credential = Credential::of_program(&output);
    credential.map(Some).ok_or_else(|| format!("{name} did not answer with Username and Secret for {server}"))
}

/// A program that runs; dropping it kills it and takes its exit status, so that nothing is left.
struct Running {
    child: Child,
    output: pipe::Receiver,
}

impl Running {
    fn start(name: &str, server: &str) -> std::io::Result<Self> {
        let mut child =
            Command::new(name).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        // A server's name is far below what a pipe holds, so this never blocks; a program that does not read it may
        // still answer.
        if let Some(mut input) = child.stdin.take() {
            input.write_all(server.as_bytes()).unwrap_or_default();
        }
        let output = child.stdout.take().map(OwnedFd::from).ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, output: pipe::Receiver::from_owned_fd(output)? })
    }

    async fn answer(&mut self) -> Result<(ExitStatus, Zeroizing<Vec<u8>>), String> {
        let mut output = Zeroizing::new(Vec::with_capacity(4 * limits::TOKEN));
        let most = u64::try_from(4 * limits::TOKEN).unwrap_or(u64::MAX);
        let read = (&mut self.output).take(most + 1).read_to_end(&mut output).await;
        read.map_err(|source| format!("its answer cannot be read: {source}"))?;
        if output.len() > 4 * limits::TOKEN {
            return Err(format!("its answer has more than {most} bytes"));
        }
        loop {
            match self.child.try_wait().map_err(|source| source.to_string())? {
                Some(status) => return Ok((status, output)),
                None => sleep(POLL).await,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // An error of either means that it has ended.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}
