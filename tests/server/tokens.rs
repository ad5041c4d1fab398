//! Tokens over the wire: an identity provider's token signs with its identity; every bad one is refused with its reason.

use countersign::{
    grpc::v1::{self, log_service_client::LogServiceClient, signing_service_client::SigningServiceClient},
    model::{Digest, Extension, Signer, TrustedRoot, certificate::extensions_of, verify},
};
use serde_json::json;
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_types::StatusExt as _;

use super::{POLICY, Service, signing};
use crate::{
    issuer::{Behaviour, Issuer, Key},
    issuing::refusals::by_csr,
};

const SUBJECT: &str = "https://ci.example.test/shop/build.yml";

/// A connection without a client certificate.
async fn connect(service: &Service) -> Channel {
    let authority = Certificate::from_pem(std::fs::read(service.house.ca()).unwrap());
    let tls = ClientTlsConfig::new().domain_name("localhost").ca_certificate(authority);
    let endpoint = Channel::from_shared(format!("https://127.0.0.1:{}", service.house.public)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// Calls with a token and without a client certificate.
async fn sign(service: &Service, token: &str) -> Result<Vec<u8>, Status> {
    let request = with(token, signing(&Digest::of(b"built")));
    let answer = SigningServiceClient::new(connect(service).await).sign(request).await?;
    Ok(answer.into_inner().bundles.remove(0).bundle.to_vec())
}

/// Asks the certificate authority; status and reason.
async fn certify(service: &Service, token: &str) -> (u16, String) {
    let authority = reqwest::Certificate::from_pem(&std::fs::read(service.house.ca()).unwrap()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let url = format!("https://localhost:{}/api/v2/signingCert", service.house.public);
    let body = by_csr(token, &crate::issuing::Key::p256().csr());
    let answer = http.post(url).body(body.to_string()).send().await.unwrap();
    let (status, body) = (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap());
    (status, body["details"][0]["reason"].as_str().unwrap_or_default().to_owned())
}

fn configuration(issuer: &Issuer) -> String {
    format!(
        "[[identity.rules]]\nissuer = '{0}'\nsubject = '{SUBJECT}'\nroles = ['builder']\n\
         [[identity.issuers]]\nurl = '{0}'\nplain_http_unsafe = true\nretry_after_s = 1\nrefresh_after_s = 1\nstale_for_s = 1\n\
         claims = {{ build_trigger = 'why?' }}\n",
        issuer.url()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_signs_with_its_identity_and_a_bad_one_is_refused_with_its_reason() {
    let issuer = Issuer::start().await;
    let service = Service::new(POLICY, &configuration(&issuer));
    let now = jiff::Timestamp::now().as_second();

    let bundle = sign(&service, &issuer.token(json!({ "sub": SUBJECT, "why": "push" }))).await.unwrap();
    let root = TrustedRoot::parse(&std::fs::read_to_string(service.house.trusted_root()).unwrap()).unwrap();
    let verified = verify::verify(&bundle, &Digest::of(b"built"), &root).unwrap();
    let Signer::Identity(identity) = verified.signer() else { panic!("{verified:?}") };
    assert_eq!((identity.subject.as_str(), identity.issuer.as_str()), (SUBJECT, issuer.url()));
    // What the token said stands in the certificate, as the configuration maps it.
    let parsed = verify::parse_bundle(&bundle).unwrap();
    let said = extensions_of(parsed.signing_certificate().unwrap().as_bytes()).unwrap();
    assert_eq!((said.get(Extension::TokenSubject), said.get(Extension::BuildTrigger)), (Some(SUBJECT), Some("push")));

    let key = issuer.key();
    let claims = issuer.claims(json!({ "sub": SUBJECT }));
    let unsigned = key.sign_with_header(&json!({ "alg": "none" }), &claims);
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    let table = [
        ("no credentials", String::new(), Code::Unauthenticated, "CREDENTIALS_MISSING"),
        ("no token", "hunter2".to_owned(), Code::Unauthenticated, "TOKEN_MALFORMED"),
        (
            "expired",
            issuer.token(json!({ "sub": SUBJECT, "iat": now - 900, "exp": now - 600 })),
            Code::Unauthenticated,
            "CREDENTIALS_EXPIRED",
        ),
        (
            "of the future",
            issuer.token(json!({ "sub": SUBJECT, "nbf": now + 600, "iat": now + 600, "exp": now + 900 })),
            Code::Unauthenticated,
            "CREDENTIALS_NOT_YET_VALID",
        ),
        (
            "for somebody else",
            issuer.token(json!({ "sub": SUBJECT, "aud": "sigstore" })),
            Code::Unauthenticated,
            "TOKEN_AUDIENCE",
        ),
        ("unknown key", Key::es256("stranger").sign(&claims), Code::Unauthenticated, "KEY_UNKNOWN"),
        ("another key by that name", Key::es256(&key.kid).sign(&claims), Code::Unauthenticated, "TOKEN_SIGNATURE"),
        ("alg none", unsigned, Code::Unauthenticated, "TOKEN_ALGORITHM"),
        (
            "unknown issuer",
            issuer.token(json!({ "sub": SUBJECT, "iss": "https://accounts.example.com" })),
            Code::Unauthenticated,
            "ISSUER_UNKNOWN",
        ),
        (
            "no role",
            issuer.token(json!({ "sub": "https://ci.example.test/other" })),
            Code::PermissionDenied,
            "ROLE_NONE",
        ),
    ];
    for (what, token, code, reason) in table {
        let status = sign(&service, &token).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status:?}");
        let details = status.get_details_error_info().unwrap_or_else(|| panic!("{what}: {status:?}"));
        assert_eq!((details.reason.as_str(), details.domain.as_str()), (reason, "countersign.dev"), "{what}");
        assert!(!status.message().contains("hunter2"), "{what}: {status:?}");
        if reason != "CREDENTIALS_MISSING" {
            let series = format!("countersign_refused_callers_total{{reason=\"{reason}\"}}");
            assert!(service.metric(&series) > 0.5, "{series} in {}", service.metrics());
        }
    }
}

/// Signing turns a token into a certificate too, so one that counts once is good for one call; calls that sign nothing
/// do not use it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_counts_once_signs_once() {
    let issuer = Issuer::start().await;
    let settings = configuration(&issuer).replace("claims =", "single_use = true\nclaims =");
    let service = Service::new(POLICY, &settings);
    let token = issuer.token(json!({ "sub": SUBJECT }));
    let mut log = LogServiceClient::new(connect(&service).await);
    let mut size =
        async || log.get_checkpoint(with(&token, v1::GetCheckpointRequest::default())).await.unwrap().into_inner().size;
    let before = size().await;
    // What cannot be signed uses nothing up either.
    let mut client = SigningServiceClient::new(connect(&service).await);
    let empty = client.sign(with(&token, v1::SignRequest::default())).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument, "{empty:?}");
    sign(&service, &token).await.unwrap();
    let attest = || v1::AttestRequest {
        subjects: signing(&Digest::of(b"built")).subjects,
        predicate_type: "https://example.test/p".to_owned(),
        predicate: b"{}".as_slice().into(),
        ..v1::AttestRequest::default()
    };
    let batch = v1::AttestBatchRequest { requests: vec![attest()] };
    let refused = [
        sign(&service, &token).await.unwrap_err(),
        client.attest(with(&token, attest())).await.unwrap_err(),
        client.attest_batch(with(&token, batch)).await.unwrap_err(),
        client.attest_stream(with(&token, futures_util::stream::iter([attest()]))).await.unwrap_err(),
    ];
    let reason = |status: &Status| status.get_details_error_info().unwrap().reason;
    for status in refused {
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::Unauthenticated, "TOKEN_REPLAYED".to_owned()),
            "{status:?}"
        );
    }
    assert_eq!(size().await, before + 1);
    // The certificate authority knows it too, and the other way round.
    assert_eq!(certify(&service, &token).await, (401, "TOKEN_REPLAYED".to_owned()));
    let fresh = issuer.token(json!({ "sub": SUBJECT, "jti": "2" }));
    assert_eq!(certify(&service, &fresh).await, (200, String::new()));
    assert_eq!(reason(&sign(&service, &fresh).await.unwrap_err()), "TOKEN_REPLAYED");
}

/// Could not tell is not a no: the caller is asked to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_does_not_answer_is_unavailable_not_a_refusal() {
    let issuer = Issuer::start().await;
    let service = Service::new(POLICY, &configuration(&issuer));
    issuer.behave(Behaviour::Down);
    let status = sign(&service, &issuer.token(json!({ "sub": SUBJECT }))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "ISSUER_UNAVAILABLE");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    issuer.behave(Behaviour::Honest);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    sign(&service, &issuer.token(json!({ "sub": SUBJECT }))).await.unwrap();
}
