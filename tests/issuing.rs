//! Certificates over keys that callers hold themselves: what they say, that each is in the log before it is answered, and
//! what is refused, by which name. Below: the ways to show possession, the profile, refusals, the face, the monitor, and
//! clients that others wrote.

mod clients;
mod clock;
mod face;
mod monitor;
mod possession;
mod profile;
pub mod refusals;
mod single_use;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    identity::{Authenticator, Issuer as IssuerSettings, Rule, Settings, SubjectForm},
    issuing::{Issued, Issuing, IssuingError},
    keys::{KeyError, Keyring, LogKey},
    log::{Log, Logs, Options, View},
    model::{
        PublicKey, Role, Scheme,
        certificate::{identity_of, is_signed_by},
        leaf::{self, Verifier},
        possession::{EncodedKey, Possession},
    },
    sigstore::{
        fulcio::Fulcio,
        limits::{Allowance, Limiter},
    },
    telemetry::Metrics,
    tlog::{Checkpoint, check_inclusion, leaf_hash},
};
use der::{Decode as _, Encode as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_cert::{
    name::RdnSequence,
    request::{CertReq, CertReqInfo, Version},
};

pub use crate::holder::Holder as Key;
use crate::{issuer::Issuer, keys};

impl Key {
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki)
    }

    /// A proof over this text.
    pub fn proof(&self, text: &str) -> Possession {
        Possession::Proof { key: EncodedKey::Pem(self.pem()), signature: self.sign(text.as_bytes()) }
    }

    /// A certificate request, DER, changed before it is signed.
    pub fn request(&self, change: impl FnOnce(&mut CertReq)) -> CertReq {
        let info = CertReqInfo {
            version: Version::V1,
            subject: RdnSequence::default(),
            public_key: spki::SubjectPublicKeyInfoOwned::from_der(&self.spki).unwrap(),
            attributes: der::asn1::SetOfVec::default(),
        };
        let oid = match self.scheme {
            Scheme::P256Sha256 => "1.2.840.10045.4.3.2",
            Scheme::P384Sha384 => "1.2.840.10045.4.3.3",
            Scheme::P521Sha512 => "1.2.840.10045.4.3.4",
            _ => "1.2.840.113549.1.1.11",
        };
        let parameters = oid.starts_with("1.2.840.113549").then(der::Any::null);
        let algorithm = spki::AlgorithmIdentifierOwned { oid: oid.parse().unwrap(), parameters };
        let mut request = CertReq { info, algorithm, signature: der::asn1::BitString::from_bytes(&[]).unwrap() };
        change(&mut request);
        let signature = self.sign(&request.info.to_der().unwrap());
        request.signature = der::asn1::BitString::from_bytes(&signature).unwrap();
        request
    }

    /// A certificate request as clients send it.
    pub fn csr(&self) -> Vec<u8> {
        csr(&self.request(|_| ()))
    }
}

pub fn csr(request: &CertReq) -> Vec<u8> {
    pem("CERTIFICATE REQUEST", &request.to_der().unwrap()).into_bytes()
}

pub fn pem(label: &str, der: &[u8]) -> String {
    der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap()
}

pub fn unpem(pem: &str) -> Vec<u8> {
    der::pem::decode_vec(pem.trim().as_bytes()).unwrap().1
}

/// An issuer, an authority that believes it, and a log.
pub struct House {
    pub home: tempfile::TempDir,
    pub keys: Arc<Keyring>,
    /// The first of its logs.
    pub log: Log,
    pub logs: Logs,
    pub issuer: Issuer,
    pub issuing: Arc<Issuing>,
}

impl House {
    pub async fn new(form: SubjectForm) -> Self {
        Self::with(|settings| settings.subject = form).await
    }

    pub async fn with(change: impl FnOnce(&mut IssuerSettings)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let keys = Arc::new(keys::keyring(home.path(), Timestamp::now()));
        let key = keys.log_key();
        let dir = home.path().join("log");
        Log::create(&dir, keys::HOST, key.public_key(), |note| key.sign(note)).unwrap();
        let log = Log::open(&dir, key.public_key(), move |note| key.sign(note), Options::default()).unwrap();
        let issuer = Issuer::start().await;
        let logs = Logs::from(log.clone());
        let issuing = Arc::new(Issuing::new(authenticator(&issuer, change), Arc::clone(&keys), logs.clone()));
        Self { home, keys, log, logs, issuer, issuing }
    }

    /// A new log takes over, with a key of its own, as `countersign trust rotate log` does it.
    pub async fn succeed(&self, origin: &str) -> Log {
        let dir = self.home.path().join(origin);
        let make = |key: &LogKey| -> Result<(), KeyError> {
            Log::create(&dir, origin, key.public_key(), |note| key.sign(note)).unwrap();
            Ok(())
        };
        let key = self.keys.add_log(self.home.path(), &keys::kek(), origin, Timestamp::now(), make).unwrap();
        let next = Log::open(&dir, key.public_key(), move |note| key.sign(note), Options::default()).unwrap();
        let (logs, newest) = (self.logs.clone(), next.clone());
        tokio::task::spawn_blocking(move || logs.succeed(newest).unwrap()).await.unwrap();
        next
    }

    /// Asks for a certificate, with a token of these claims.
    pub async fn ask(&self, claims: Value, possession: Possession) -> Result<Issued, IssuingError> {
        let now = Timestamp::now();
        let principal = self.issuing.admit(&self.issuer.token(claims), now).await?;
        self.issuing.issue(principal, possession, now).await
    }

    /// The face, which lets an identity ask as often as it likes.
    pub fn face(&self) -> Fulcio {
        self.face_with(Allowance { per_second: 0, burst: 0 })
    }

    /// The face with this allowance for each identity.
    pub fn face_with(&self, allowance: Allowance) -> Fulcio {
        Fulcio::new(Arc::clone(&self.issuing), Limiter::shared(allowance), Metrics::new(), Timestamp::now)
    }

    /// Serves the face over HTTP; where it is.
    pub async fn serve(&self) -> String {
        Self::serve_face(self.face()).await
    }

    pub async fn serve_face(face: Fulcio) -> String {
        let router = face.router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    /// Checks everything about a chain that was answered and about the entry of its certificate: signatures up to the
    /// root, the key, the entry's own proof of possession (a signature over `message`), its inclusion, and that it is
    /// found by the certificate's identity. The certificate, DER.
    pub fn check(&self, chain: &[String], index: u64, key: &Key, message: &[u8]) -> Vec<u8> {
        let ders: Vec<_> = chain.iter().map(|pem| unpem(pem)).collect();
        let [certificate, authority, root] = ders.as_slice() else { panic!("{} certificates", ders.len()) };
        assert!(is_signed_by(certificate, authority) && is_signed_by(authority, root) && is_signed_by(root, root));
        assert!(!is_signed_by(certificate, root) && !is_signed_by(root, authority), "and not by just anybody");
        let certified = PublicKey::from_certificate(certificate).unwrap();
        assert_eq!((certified.spki(), certified.scheme()), (key.spki.as_slice(), key.scheme));

        let entry = self.log.entry(index).unwrap();
        assert!(entry.payload.unwrap_or_default().is_empty());
        let leaf: Value = serde_json::from_slice(&entry.leaf).unwrap();
        let spec = &leaf["spec"]["hashedRekordV002"];
        let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
        let (digest, signature) = (bytes(&spec["data"]["digest"]), bytes(&spec["signature"]["content"]));
        assert_eq!(bytes(&spec["signature"]["verifier"]["x509Certificate"]["rawBytes"]), *certificate);
        assert_eq!(digest, key.scheme.digest(message));
        certified.verify(message, &signature).unwrap();
        assert_eq!(entry.leaf, leaf::entry(key.scheme, &digest, &signature, Verifier::Certificate(certificate)));

        let receipt = self.log.receipt(index).unwrap();
        let head = Checkpoint::verify(&receipt.checkpoint, self.log.key()).unwrap();
        check_inclusion(&leaf_hash(&entry.leaf), index, head.size, &receipt.proof, &head.root).unwrap();
        let identity = identity_of(certificate).unwrap();
        assert!(self.log.find(&View::Identity(identity), 0, 100).unwrap().contains(&index));
        certificate.clone()
    }
}

fn authenticator(issuer: &Issuer, change: impl FnOnce(&mut IssuerSettings)) -> Arc<Authenticator> {
    let mut settings = IssuerSettings { plain_http_unsafe: true, ..IssuerSettings::new(issuer.url()) };
    change(&mut settings);
    let rule = |subject: &str, role| Rule {
        issuer: "**".to_owned(),
        subject: subject.to_owned(),
        claims: [].into(),
        roles: vec![role],
        keys: vec![],
    };
    // Who comes from elsewhere holds no role, and an auditor not the right one.
    let rules = vec![
        rule("https://ci.example.org/**", Role::Builder),
        rule("https://audit.example.org/**", Role::Auditor),
        rule("https://{github.com,gitlab.com,buildkite.com,kubernetes.io,git.example.org}/**", Role::Builder),
        rule("*@example.org", Role::Builder),
        rule("*!example.org", Role::Builder),
        rule("spiffe://**", Role::Builder),
    ];
    Arc::new(Authenticator::new(&Settings { issuers: vec![settings], rules, ..Settings::default() }).unwrap())
}

/// The subject of [`House`]s with the form `uri`.
pub const SUB: &str = "https://ci.example.org/job/7";

pub fn sub() -> Value {
    json!({ "sub": SUB })
}
