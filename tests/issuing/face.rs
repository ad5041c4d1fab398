//! The forms in which certificates are asked for and answered: JSON as grpc-gateway takes it, version 1, gRPC, and the
//! documents that are for everybody.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use countersign::{
    identity::SubjectForm,
    sigstore::{
        fulcio::v2::{
            self, ca_client::CaClient, create_signing_certificate_request::Key as RequestKey, oidc_issuer,
            signing_certificate,
        },
        limits::Allowance,
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tonic::{Code, transport::server::TcpIncoming};
use tonic_types::StatusExt as _;

use super::{
    House, Key, SUB,
    refusals::{by_csr, by_proof, post},
    sub, unpem,
};

/// The certificates of an answer of version 2.
fn chain(answer: &Value) -> Vec<String> {
    serde_json::from_value(answer["signedCertificateEmbeddedSct"]["chain"]["certificates"].clone())
        .unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_taken_in_every_form_that_clients_send() {
    let house = House::new(SubjectForm::Uri).await;
    let url = house.serve().await;
    let key = Key::p256();
    let token = house.issuer.token(sub());
    let proof = key.sign(SUB.as_bytes());
    let (pem, csr) = (key.pem(), key.csr());
    let text = |text: &str| json!(text);
    let bodies = [
        by_proof(&token, &pem, &proof),
        by_csr(&token, &csr),
        json!({ "credentials": { "oidc_identity_token": token }, "public_key_request": {
            "public_key": { "algorithm": 2, "content": pem }, "proof_of_possession": STANDARD_NO_PAD.encode(&proof) } }),
        json!({ "credentials": { "oidcIdentityToken": token }, "publicKeyRequest": {
            "publicKey": { "algorithm": "", "content": STANDARD.encode(&key.spki) },
            "proofOfPossession": URL_SAFE.encode(&proof) }, "certificateSigningRequest": "" }),
        json!({ "credentials": { "oidcIdentityToken": token }, "publicKeyRequest": {
            "publicKey": { "content": URL_SAFE_NO_PAD.encode(&key.spki), "later": [1] },
            "proofOfPossession": text(&URL_SAFE_NO_PAD.encode(&proof)) }, "certificateSigningRequest": null,
            "unheardOf": { "a": 1 } }),
        json!({ "credentials": { "oidcIdentityToken": token },
            "certificate_signing_request": URL_SAFE_NO_PAD.encode(&csr) }),
    ];
    for body in bodies {
        let (status, answer, headers) = post(&url, &body).await;
        assert_eq!(status, 200, "{body}: {answer}");
        assert_eq!(
            (&headers["content-type"], &headers["cache-control"]),
            (&"application/json".parse().unwrap(), &"no-store".parse().unwrap())
        );
        let chain = chain(&answer);
        assert_eq!(chain.len(), 3);
        assert!(super::is_signed_by(&unpem(&chain[0]), &unpem(&chain[1])));
    }
    assert_eq!(house.log.size(), 1 + 6);
}

/// Some clients send the token in the header. Where both are sent, the body's counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_the_header_is_as_good() {
    let house = House::new(SubjectForm::Uri).await;
    let url = format!("{}/api/v2/signingCert", house.serve().await);
    let key = Key::p256();
    let good = house.issuer.token(sub());
    let csr = json!({ "certificateSigningRequest": STANDARD.encode(key.csr()) });
    let empty = by_csr("", &key.csr());
    let other = by_csr(&house.issuer.token(json!({ "sub": "https://elsewhere.test/x" })), &key.csr());
    let http = reqwest::Client::new();
    for (body, header, wanted) in [
        (&csr, format!("Bearer {good}"), 200),
        (&csr, format!("bearer {good}"), 200),
        (&empty, format!("BEARER  {good}"), 200),
        (&other, format!("Bearer {good}"), 403),
        (&csr, format!("Basic {good}"), 401),
        (&csr, good.clone(), 401),
        (&csr, "Bearer ".to_owned(), 401),
    ] {
        let request = http.post(&url).header("authorization", &header).body(body.to_string());
        // As sigstore-python asks, for which the answer is JSON all the same.
        let answer = request.header("accept", "application/pem-certificate-chain").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), wanted, "{header}: {}", answer.text().await.unwrap());
    }
    assert_eq!(http.post(&url).body(csr.to_string()).send().await.unwrap().status().as_u16(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_1_answers_pem() {
    let house = House::new(SubjectForm::Email).await;
    let url = house.serve().await;
    let key = Key::p256();
    let address = "alice@example.org";
    let token = house.issuer.token(json!({ "sub": "1", "email": address, "email_verified": true }));
    let proof = STANDARD.encode(key.sign(address.as_bytes()));
    let http = reqwest::Client::new();
    let ask = |body: Value, token: Option<&str>| {
        let mut request = http.post(format!("{url}/api/v1/signingCert")).body(body.to_string());
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        async move { request.send().await.unwrap() }
    };
    let bodies = [
        json!({ "publicKey": { "algorithm": "ecdsa", "content": STANDARD.encode(&key.spki) }, "signedEmailAddress": proof }),
        json!({ "publicKey": { "content": STANDARD.encode(key.pem()) }, "signedEmailAddress": proof }),
        json!({ "certificateSigningRequest": STANDARD.encode(key.csr()) }),
    ];
    for body in bodies {
        let answer = ask(body.clone(), Some(&token)).await;
        assert_eq!(answer.status().as_u16(), 201, "{body}");
        assert_eq!(answer.headers()["content-type"], "application/pem-certificate-chain");
        let text = answer.text().await.unwrap();
        let chain: Vec<_> = text.split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
        assert_eq!(chain.len(), 3);
        let message = if body.get("publicKey").is_some() {
            address.as_bytes().to_vec()
        } else {
            der::Encode::to_der(&key.request(|_| ()).info).unwrap()
        };
        house.check(&chain, house.log.size() - 1, &key, &message);
        assert_eq!(ask(body, None).await.status().as_u16(), 401, "no token");
    }
    for (body, reason) in [
        (json!({}), "INVALID_ARGUMENT"),
        (
            json!({ "publicKey": { "content": STANDARD.encode("hunter2") }, "signedEmailAddress": proof }),
            "KEY_MALFORMED",
        ),
        (
            json!({ "publicKey": { "content": STANDARD.encode(key.pem()) }, "signedEmailAddress": "AAAA" }),
            "PROOF_INVALID",
        ),
        (json!({ "publicKey": { "content": STANDARD.encode(key.pem()) } }), "PROOF_INVALID"),
    ] {
        let answer = ask(body.clone(), Some(&token)).await;
        assert_eq!(answer.status().as_u16(), 400, "{body}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["details"][0]["reason"], reason, "{body}: {answer}");
    }
    let roots = http.get(format!("{url}/api/v1/rootCert")).send().await.unwrap();
    assert_eq!(roots.headers()["content-type"], "application/pem-certificate-chain");
    assert_eq!(roots.text().await.unwrap(), house.keys.public().ca_chain(Timestamp::now()).concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_may_know_the_chain_and_the_issuers() {
    let house = House::with(|settings| {
        settings.subject = SubjectForm::Spiffe;
        settings.subject_domain = Some("example.org".to_owned());
        settings.audience = vec!["countersign".to_owned(), "sigstore".to_owned()];
    })
    .await;
    let url = house.serve().await;
    let get = async |path: &str| -> Value {
        let answer = reqwest::get(format!("{url}{path}")).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        answer.json().await.unwrap()
    };
    let bundle = get("/api/v2/trustBundle").await;
    assert_eq!(bundle, json!({ "chains": [{ "certificates": *house.keys.public().ca_chain(Timestamp::now()) }] }));
    let configuration = get("/api/v2/configuration").await;
    assert_eq!(
        configuration,
        json!({ "issuers": [{ "issuerUrl": house.issuer.url(), "audience": "sigstore", "challengeClaim": "sub",
            "spiffeTrustDomain": "example.org", "issuerType": "spiffe" }] })
    );
    let house = House::new(SubjectForm::Email).await;
    let answer = reqwest::get(format!("{}/api/v2/configuration", house.serve().await)).await.unwrap();
    let configuration: Value = answer.json().await.unwrap();
    assert_eq!(
        configuration["issuers"][0],
        json!({ "issuerUrl": house.issuer.url(), "audience": "countersign", "challengeClaim": "email", "issuerType": "email" })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_grpc() {
    let house = House::new(SubjectForm::Uri).await;
    let service = house.face().into_server();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let mut client = CaClient::connect(url).await.unwrap();
    let key = Key::p256();
    let token = house.issuer.token(sub());
    let credentials = |token: &str| {
        Some(v2::Credentials { credentials: Some(v2::credentials::Credentials::OidcIdentityToken(token.to_owned())) })
    };
    let proof = |text: &str| {
        RequestKey::PublicKeyRequest(v2::PublicKeyRequest {
            public_key: Some(v2::PublicKey { algorithm: v2::PublicKeyAlgorithm::Ecdsa.into(), content: key.pem() }),
            proof_of_possession: key.sign(text.as_bytes()).into(),
        })
    };
    let csr = RequestKey::CertificateSigningRequest(key.csr().into());
    for request_key in [proof(SUB), csr.clone()] {
        let request = v2::CreateSigningCertificateRequest { credentials: credentials(&token), key: Some(request_key) };
        let answer = client.create_signing_certificate(request).await.unwrap().into_inner();
        let Some(signing_certificate::Certificate::SignedCertificateEmbeddedSct(certificate)) = answer.certificate
        else {
            panic!("{answer:?}")
        };
        let chain = certificate.chain.unwrap().certificates;
        assert!(super::is_signed_by(&unpem(&chain[0]), &unpem(&chain[1])) && chain.len() == 3);
    }
    // The token as metadata.
    let mut request =
        tonic::Request::new(v2::CreateSigningCertificateRequest { credentials: None, key: Some(csr.clone()) });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    client.create_signing_certificate(request).await.unwrap();

    let size = house.log.size();
    for (credentials, request_key, code, reason) in [
        (None, Some(csr.clone()), Code::Unauthenticated, "CREDENTIALS_MISSING"),
        (credentials("hunter2"), Some(csr.clone()), Code::Unauthenticated, "TOKEN_MALFORMED"),
        (credentials(&token), Some(proof("https://ci.example.org/job/8")), Code::InvalidArgument, "PROOF_INVALID"),
        (credentials(&token), None, Code::InvalidArgument, "INVALID_ARGUMENT"),
        (
            credentials(&token),
            Some(RequestKey::CertificateSigningRequest(vec![1; 20_000].into())),
            Code::InvalidArgument,
            "CSR_TOO_LARGE",
        ),
    ] {
        let request = v2::CreateSigningCertificateRequest { credentials, key: request_key };
        let refused = client.create_signing_certificate(request).await.unwrap_err();
        assert_eq!((refused.code(), refused.get_details_error_info().unwrap().reason.as_str()), (code, reason));
    }
    let huge = RequestKey::CertificateSigningRequest(vec![1; 70_000].into());
    let request = v2::CreateSigningCertificateRequest { credentials: credentials(&token), key: Some(huge) };
    assert_eq!(client.create_signing_certificate(request).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(house.log.size(), size);

    let bundle = client.get_trust_bundle(v2::GetTrustBundleRequest {}).await.unwrap().into_inner();
    assert_eq!(bundle.chains[0].certificates, *house.keys.public().ca_chain(Timestamp::now()));
    let configuration = client.get_configuration(v2::GetConfigurationRequest {}).await.unwrap().into_inner();
    let issuer = &configuration.issuers[0];
    assert_eq!(issuer.issuer, Some(oidc_issuer::Issuer::IssuerUrl(house.issuer.url().to_owned())));
    assert_eq!((issuer.issuer_type.as_str(), issuer.audience.as_str()), ("uri", "countersign"));
}

/// One identity cannot take all there is; another one is not held up by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_asks_too_often_is_told_when_to_come_again() {
    let house = House::new(SubjectForm::Uri).await;
    let face = house.face_with(Allowance { per_second: 1, burst: 3 });
    let (url, key) = (House::serve_face(face).await, Key::p256());
    let greedy = by_proof(&house.issuer.token(sub()), &key.pem(), &key.sign(SUB.as_bytes()));
    let ask = async |body: &Value| post(&url, body).await;
    let mut refused = None;
    for _ in 0..30 {
        let (status, answer, headers) = ask(&greedy).await;
        if status != 200 {
            refused = Some((status, answer, headers));
            break;
        }
    }
    let (status, answer, headers) = refused.expect("a refusal within thirty requests");
    assert_eq!(headers["retry-after"], "1");
    assert_eq!((status, &answer["code"]), (429, &json!(8)), "{answer}");
    assert_eq!(answer["details"][0]["reason"], "TOO_MANY_REQUESTS");
    let other = "https://ci.example.org/other";
    let claims = json!({ "sub": other });
    let modest = by_proof(&house.issuer.token(claims), &key.pem(), &key.sign(other.as_bytes()));
    assert_eq!(ask(&modest).await.0, 200);
}
