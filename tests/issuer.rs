//! An OIDC issuer on loopback: signs real tokens, rotates its keys, and can be slow, down or a liar.
//!
//! ```ignore
//! let issuer = Issuer::start().await;
//! let token = issuer.token(json!({ "sub": "spiffe://example.org/ci" }));
//! ```
//! Claims that the caller leaves out are filled in: `iss`, `aud` ([`AUDIENCE`]), `iat` (now), `exp` (in five minutes).
//! A claim that is given as `null` is left out of the token.

use std::sync::{
    Arc, LazyLock, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{encoding::AsDer as _, rand::SystemRandom, rsa, signature};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The audience of tokens whose claims name none; also the default of the settings.
pub const AUDIENCE: &str = "countersign";

/// How the issuer answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// As it should.
    Honest,
    /// Every request gets 503.
    Down,
    /// Discovery names another issuer.
    WrongIssuer,
    /// The JWKS is this many bytes long.
    Oversized(usize),
    /// The JWKS moved to this address.
    Redirect(String),
    /// The JWKS is this text.
    Jwks(String),
    /// Discovery points to this JWKS address.
    JwksUri(String),
}

/// A signing key with its id.
#[derive(Clone)]
pub struct Key {
    pub kid: String,
    pub algorithm: Algorithm,
    signer: EncodingKey,
}

impl Key {
    /// A new ECDSA P-256 key.
    pub fn es256(kid: &str) -> Self {
        let pkcs8 =
            signature::EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let signer = EncodingKey::from_ec_der(pkcs8.as_ref());
        Self { kid: kid.to_owned(), algorithm: Algorithm::ES256, signer }
    }

    /// A new ECDSA P-384 key.
    pub fn es384(kid: &str) -> Self {
        let pkcs8 =
            signature::EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        let signer = EncodingKey::from_ec_der(pkcs8.as_ref());
        Self { kid: kid.to_owned(), algorithm: Algorithm::ES384, signer }
    }

    /// A new Ed25519 key.
    pub fn eddsa(kid: &str) -> Self {
        let pkcs8 = signature::Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
        Self { kid: kid.to_owned(), algorithm: Algorithm::EdDSA, signer: EncodingKey::from_ed_der(pkcs8.as_ref()) }
    }

    /// The RSA key of this test run: making one takes long.
    pub fn rs256(kid: &str) -> Self {
        static RSA: LazyLock<EncodingKey> = LazyLock::new(|| {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
            let der = pair.as_der().unwrap();
            let pem =
                format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
            EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap()
        });
        Self { kid: kid.to_owned(), algorithm: Algorithm::RS256, signer: RSA.clone() }
    }

    /// The same key under another algorithm of its family.
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The public half, as it stands in a JWKS.
    pub fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.signer, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["use"] = json!("sig");
        jwk
    }

    /// Signs exactly these claims under this key's id.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signer).unwrap()
    }

    /// Signs with any header, as nobody should.
    pub fn sign_with_header(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.signer, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

struct Shared {
    url: String,
    keys: Mutex<Vec<Key>>,
    behaviour: Mutex<Behaviour>,
    gate: watch::Sender<bool>,
    discoveries: AtomicUsize,
    key_fetches: AtomicUsize,
}

/// The issuer; it stops when dropped.
pub struct Issuer {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Issuer {
    /// Starts with one ES256 key, `key-1`.
    pub async fn start() -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), None)
    }

    /// The same over TLS, as `https://localhost:<port>`.
    pub async fn start_tls(tls: rustls::ServerConfig) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(Arc::new(tls).into()))
    }

    fn serve(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let url =
            if tls.is_some() { format!("https://localhost:{}", address.port()) } else { format!("http://{address}") };
        let shared = Arc::new(Shared {
            url,
            keys: Mutex::new(vec![Key::es256("key-1")]),
            behaviour: Mutex::new(Behaviour::Honest),
            gate: watch::Sender::new(true),
            discoveries: AtomicUsize::new(0),
            key_fetches: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(keys))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            match tls {
                Some(acceptor) => axum::serve(TlsListener { listener, acceptor }, router).await.unwrap(),
                None => axum::serve(listener, router).await.unwrap(),
            }
        });
        Self { shared, server }
    }

    /// The issuer URL: `http://127.0.0.1:<port>`, no slash at the end.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// A token signed by the newest key.
    pub fn token(&self, claims: Value) -> String {
        self.key().sign(&self.claims(claims))
    }

    /// A token signed by any key.
    pub fn token_by(&self, key: &Key, claims: Value) -> String {
        key.sign(&self.claims(claims))
    }

    /// `claims`, with what was left out filled in, and without what is `null`.
    pub fn claims(&self, claims: Value) -> Value {
        let now = jiff::Timestamp::now().as_second();
        let mut all = json!({ "iss": self.url(), "aud": AUDIENCE, "iat": now, "exp": now + 300 });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        all
    }

    /// The newest key.
    pub fn key(&self) -> Key {
        lock(&self.shared.keys).last().unwrap().clone()
    }

    /// All keys, oldest first.
    pub fn keys(&self) -> Vec<Key> {
        lock(&self.shared.keys).clone()
    }

    /// Publishes one more key.
    pub fn add(&self, key: Key) {
        lock(&self.shared.keys).push(key);
    }

    /// Replaces all keys by a new one, and returns its id.
    pub fn rotate(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(2);
        let kid = format!("key-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        *lock(&self.shared.keys) = vec![Key::es256(&kid)];
        kid
    }

    /// The JWKS document, for sites without discovery.
    pub fn jwks(&self) -> String {
        jwks(&self.shared)
    }

    /// Changes how the issuer answers from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Holds all answers back until [`Self::release`].
    pub fn hold(&self) {
        self.shared.gate.send_replace(false);
    }

    /// Lets held answers go.
    pub fn release(&self) {
        self.shared.gate.send_replace(true);
    }

    /// How often discovery was asked.
    pub fn discoveries(&self) -> usize {
        self.shared.discoveries.load(Ordering::SeqCst)
    }

    /// How often the JWKS was asked for.
    pub fn key_fetches(&self) -> usize {
        self.shared.key_fetches.load(Ordering::SeqCst)
    }
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // A client that does not trust us breaks the handshake off.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn jwks(shared: &Shared) -> String {
    let keys: Vec<_> = lock(&shared.keys).iter().map(Key::jwk).collect();
    json!({ "keys": keys }).to_string()
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Response {
    shared.discoveries.fetch_add(1, Ordering::SeqCst);
    shared.gate.subscribe().wait_for(|open| *open).await.unwrap();
    let behaviour = lock(&shared.behaviour).clone();
    let url = &shared.url;
    let (issuer, jwks_uri) = match behaviour {
        Behaviour::Down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Behaviour::WrongIssuer => ("https://accounts.example.com".to_owned(), format!("{url}/jwks")),
        Behaviour::JwksUri(uri) => (url.clone(), uri),
        _ => (url.clone(), format!("{url}/jwks")),
    };
    as_json(
        json!({ "issuer": issuer, "jwks_uri": jwks_uri, "id_token_signing_alg_values_supported": ["ES256"] })
            .to_string(),
    )
}

async fn keys(State(shared): State<Arc<Shared>>) -> Response {
    shared.key_fetches.fetch_add(1, Ordering::SeqCst);
    shared.gate.subscribe().wait_for(|open| *open).await.unwrap();
    let behaviour = lock(&shared.behaviour).clone();
    match behaviour {
        Behaviour::Down => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Behaviour::Oversized(bytes) => as_json(format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(bytes))),
        Behaviour::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Behaviour::Jwks(text) => as_json(text),
        Behaviour::Honest | Behaviour::WrongIssuer | Behaviour::JwksUri(_) => as_json(jwks(&shared)),
    }
}

fn as_json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
