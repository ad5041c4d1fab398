//! TLS of the listeners: certificates that are replaced while connections are open, callers' certificates that
//! are for something else, and versions that are refused.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use countersign::{
    keys::{Kek, Keyring},
    model::Digest,
};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Connection, POLICY, Pair, Service, connect, connect_as, try_connect};
use crate::daemon::Daemon;

/// A directory with `tls.crt` and `tls.key`, made for the name `localhost`.
fn pair(dir: &Path, name: &str) -> PathBuf {
    let dir = dir.join(name);
    fs::create_dir(&dir).unwrap();
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj".split(' '))
        .arg(format!("/CN={name}"))
        .args("-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE".split(' '))
        .args(["-keyout", "tls.key", "-out", "tls.crt"])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}

/// A directory as Kubernetes mounts a Secret: the files are links through `..data`, which is swapped.
fn mount(at: &Path, first: &Path) {
    fs::create_dir(at).unwrap();
    symlink(first, at.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), at.join(file)).unwrap();
    }
}

fn swap(at: &Path, to: &Path) {
    let new = at.join("..data_tmp");
    symlink(to, &new).unwrap();
    fs::rename(new, at.join("..data")).unwrap();
}

/// One request on a connection that stays open; the status line.
async fn get(stream: &mut Connection) -> String {
    stream.write_all(b"GET /checkpoint HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    while !answer.contains("\r\n\r\n") {
        let mut some = [0; 4_096];
        let read = stream.read(&mut some).await.unwrap();
        assert_ne!(read, 0, "closed: {answer}");
        answer.push_str(&String::from_utf8_lossy(&some[..read]));
    }
    answer.lines().next().unwrap().to_owned()
}

fn shown(stream: &Connection) -> Digest {
    Digest::of(&stream.get_ref().1.peer_certificates().unwrap()[0])
}

/// Waits until new connections are shown the certificate of `dir`.
async fn until_shown(port: u16, dir: &Path) {
    let authority = dir.join("tls.crt");
    let deadline = Instant::now() + Duration::from_secs(20);
    while try_connect(port, &authority, rustls::ALL_VERSIONS).await.is_err() {
        assert!(Instant::now() < deadline, "{} was not taken up", dir.display());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_while_connections_are_open() {
    let files = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| pair(files.path(), name));
    let mounted = files.path().join("mounted");
    mount(&mounted, &first);
    let extra = format!("[tls]\ncert_file = '{0}/tls.crt'\nkey_file = '{0}/tls.key'\n", mounted.display());
    let mut service = Service::new(POLICY, &extra);
    let port = service.house.public;
    let mut open = connect(port, &first.join("tls.crt")).await;
    assert_eq!(get(&mut open).await, "HTTP/1.1 200 OK");

    swap(&mounted, &second);
    until_shown(port, &second).await;
    assert_eq!(get(&mut open).await, "HTTP/1.1 200 OK", "what is open stays open");
    let mut new = connect(port, &second.join("tls.crt")).await;
    assert_ne!(shown(&open), shown(&new));
    until_shown(service.house.webhook, &second).await;

    // A pair that does not fit together leaves the old one in use, and is counted.
    let broken = files.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::copy(first.join("tls.crt"), broken.join("tls.crt")).unwrap();
    fs::copy(second.join("tls.key"), broken.join("tls.key")).unwrap();
    swap(&mounted, &broken);
    let failures = "countersign_certificate_reload_failures_total";
    service.wait_until("the failure is counted", |service| service.metric(failures) > 0.5);
    assert_eq!(get(&mut new).await, "HTTP/1.1 200 OK");
    assert_eq!(shown(&connect(port, &second.join("tls.crt")).await), shown(&new));
    assert!(service.output().contains("the old one stays in use"), "{}", service.output());
    swap(&mounted, &first);
    until_shown(port, &first).await;
    assert!((service.metric(failures) - 1.0).abs() < 0.1, "each changed pair counts once");
}

/// A `ClientHello` that goes up to `version` (TLS 1.1 is 0x0302), as a client of that time sends it.
fn client_hello(version: u16) -> Vec<u8> {
    let mut hello = version.to_be_bytes().to_vec();
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 6, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x09]); // suites of 1.2 and of before
    hello.extend([1, 0]); // no compression
    let extensions: [&[u8]; 4] = [
        &[0, 10, 0, 4, 0, 2, 0, 23],                  // groups: P-256
        &[0, 11, 0, 2, 1, 0],                         // point formats: uncompressed
        &[0, 13, 0, 6, 0, 4, 0x04, 0x03, 0x05, 0x03], // signatures: ECDSA with SHA-256 and SHA-384
        &[0, 23, 0, 0],                               // extended master secret
    ];
    let extensions = extensions.concat();
    hello.extend((extensions.len() as u16).to_be_bytes());
    hello.extend(extensions);
    let mut handshake = vec![1, 0, 0, hello.len() as u8];
    handshake.extend(hello);
    let mut record = vec![22, 3, 1, 0, handshake.len() as u8];
    record.extend(handshake);
    record
}

/// The first record of the answer to that.
async fn greeted(port: u16, version: u16) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&client_hello(version)).await.unwrap();
    let mut record = vec![0; 7];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut record)).await.unwrap().unwrap();
    record
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_before_tls_1_2_are_refused() {
    let mut house = Daemon::init(Some(POLICY), "");
    house.start();
    for port in [house.public, house.webhook] {
        for version in [0x0301, 0x0302] {
            // A fatal alert; 70 is protocol_version.
            assert_eq!(greeted(port, version).await, [21, 3, 3, 0, 2, 2, 70], "{version:x}");
        }
        // The same client with one version more gets a handshake.
        assert_eq!(greeted(port, 0x0303).await[0], 22);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            try_connect(port, &house.ca(), &[version]).await.unwrap();
        }
    }
}

/// The beginning of the answer to a caller who shows this certificate. By TLS 1.3 a caller is refused when its own
/// handshake is done already, so a request is sent in any case.
async fn answer_to(
    caller: Pair,
    house: &Daemon,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<String> {
    let mut stream = connect_as(Some(caller), house.public, &house.ca(), &[version]).await?;
    stream.write_all(b"GET /checkpoint HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The service's own certificate is of the authority that callers' certificates are of, and for servers alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_certificate_is_no_callers_certificate() {
    let mut house = Daemon::init(Some(POLICY), "");
    let kek = Kek::parse(&fs::read(house.path().join("kek")).unwrap()).unwrap();
    let keys = Keyring::open(&house.data(), &kek).unwrap();
    let now = Timestamp::now();
    let (certificate, key) = keys.issue_client("spiffe://countersign.test/builder", now, 1).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let caller = (chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap());
    let server = keys.tls_server(&["localhost".to_owned()], now).unwrap();
    house.start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let own = |pair: &Pair| (pair.0.clone(), pair.1.clone_key());
        assert_eq!(answer_to(own(&caller), &house, version).await.unwrap(), "HTTP/1.1 200 OK");
        let refused = answer_to(own(&server), &house, version).await.unwrap_err();
        let said = refused.get_ref().and_then(|source| source.downcast_ref());
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnsupportedCertificate);
        assert_eq!(said, Some(&alert), "{refused}");
    }
}
