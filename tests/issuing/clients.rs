//! Clients that others wrote: sigstore-python asks for a certificate and checks its timestamp, `OpenSSL` checks the chain.

use std::{fs, process::Command};

use countersign::{
    identity::SubjectForm,
    model::{Scheme, possession::Possession},
};
use serde_json::json;

use super::{House, Key, SUB, sub};
use crate::{daemon::text, interop};

/// What sigstore-python does before it signs: a key, a request for it, a certificate, and the check of its timestamp.
const PYTHON: &str = r#"
import sys
from cryptography.hazmat.primitives.serialization import Encoding
from sigstore._internal.fulcio import FulcioClient
from sigstore.models import TrustedRoot
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext

url, root, token = sys.argv[1:]
fulcio = FulcioClient(url)
context = SigningContext(fulcio=fulcio, rekor=None, trusted_root=TrustedRoot.from_file(root), tsa_clients=[])
with context.signer(IdentityToken(token)) as signer:
    print(signer._signing_cert().public_bytes(Encoding.PEM).decode(), end="")
assert [len(chain) for chain in fulcio.trust_bundle.get().trust_bundle] == [2]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigstore_python_gets_a_certificate() {
    let house = House::with(|settings| {
        settings.subject = SubjectForm::Uri;
        settings.audience = vec!["sigstore".to_owned()];
    })
    .await;
    let url = house.serve().await;
    let root = house.home.path().join("trusted_root.json");
    fs::write(&root, &*house.keys.trusted_root()).unwrap();
    let python = interop::sigstore().with_file_name("python");
    let ask = async |claims: serde_json::Value, root: &std::path::Path| {
        let token = house.issuer.token(claims);
        let mut command = Command::new(&python);
        command.args(["-c", PYTHON, &url]).arg(root).arg(token).env("HOME", house.home.path());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let good = json!({ "sub": SUB, "aud": "sigstore" });
    let output = ask(good.clone(), &root).await;
    assert!(output.status.success(), "{}", text(&output));
    let certificate = super::unpem(&String::from_utf8(output.stdout).unwrap());
    let index = house.log.size() - 1;
    let leaf = house.log.entry(index).unwrap().leaf;
    assert_eq!(countersign::log::facts::certificate_in(&leaf), Some(certificate));

    // Under another instance's keys the timestamp in it is not believed; without a role there is none.
    let other = House::new(SubjectForm::Uri).await;
    let foreign = other.home.path().join("trusted_root.json");
    fs::write(&foreign, &*other.keys.trusted_root()).unwrap();
    assert!(!ask(good, &foreign).await.status.success());
    let refused = ask(json!({ "sub": "https://elsewhere.test/x", "aud": "sigstore" }), &root).await;
    assert!(!refused.status.success() && text(&refused).contains("Fulcio"), "{}", text(&refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_takes_every_kind_of_certificate() {
    let uri = House::new(SubjectForm::Uri).await;
    let user = House::with(|settings| {
        settings.subject = SubjectForm::Username;
        settings.subject_domain = Some("example.org".to_owned());
    })
    .await;
    for (house, claims, schemes) in
        [(&uri, sub(), Scheme::ALL.as_slice()), (&user, json!({ "sub": "alice" }), &[Scheme::P256Sha256])]
    {
        for scheme in schemes {
            let key = Key::new(*scheme);
            let issued = house.ask(claims.clone(), Possession::Request(key.csr())).await.unwrap();
            let at = |name: &str| house.home.path().join(name);
            fs::write(at("leaf.pem"), &issued.chain[0]).unwrap();
            fs::write(at("ca.pem"), &issued.chain[1]).unwrap();
            fs::write(at("root.pem"), &issued.chain[2]).unwrap();
            let verify = |root: &str| {
                let mut command = Command::new("openssl");
                command.current_dir(house.home.path()).args(["verify", "-x509_strict", "-CAfile", root]);
                command.args(["-untrusted", "ca.pem", "leaf.pem"]).output().unwrap()
            };
            assert!(verify("root.pem").status.success(), "{scheme:?}: {}", text(&verify("root.pem")));
            assert!(!verify("keys/tsa-root.pem").status.success());
        }
    }
    let shown = Command::new("openssl")
        .current_dir(user.home.path())
        .args(["x509", "-in", "leaf.pem", "-noout", "-text"])
        .output()
        .unwrap();
    assert!(text(&shown).contains("othername: 1.3.6.1.4.1.57264.1.7"), "{}", text(&shown));
}
