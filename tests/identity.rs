//! Who is calling: tokens and client certificates that are refused, each by name; keys that rotate; issuers that are
//! slow, down or lying; and rules that give roles.

use std::{collections::BTreeSet, io::Write as _, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign::{
    identity::{Authenticator, Credentials, Issuer as IssuerSettings, Refusal, Rule, Settings, SubjectForm},
    model::{Caller, KeyName, Role},
};
use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

mod mutual_tls;
mod private_ca;
mod strangers;

use crate::issuer::{AUDIENCE, Behaviour, Issuer, Key};

/// A subject that must never show up in a message about an unverified token.
const SUBJECT: &str = "spiffe://example.org/hunter2";

fn trusting(issuer: &Issuer) -> Settings {
    Settings {
        issuers: vec![IssuerSettings { plain_http_unsafe: true, ..IssuerSettings::new(issuer.url()) }],
        rules: vec![Rule {
            issuer: "**".to_owned(),
            subject: "**".to_owned(),
            claims: [].into(),
            roles: vec![Role::Builder],
            keys: vec![],
        }],
        ..Settings::default()
    }
}

fn authenticator(issuer: &Issuer) -> Authenticator {
    Authenticator::new(&trusting(issuer)).unwrap()
}

async fn ask(authenticator: &Authenticator, token: &str, now: Timestamp) -> Result<Caller, Refusal> {
    let credentials = Credentials { bearer: Some(token.to_owned()), peer: None };
    authenticator.authenticate(credentials, now).await
}

fn after(now: Timestamp, seconds: i64) -> Timestamp {
    now + SignedDuration::from_secs(seconds)
}

fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{}", part(header.to_string().as_bytes()), part(claims.to_string().as_bytes()), part(signature))
}

fn claim_refused(name: &str) -> impl Fn(&Refusal) -> bool + '_ {
    move |refusal| matches!(refusal, Refusal::Claim { claim, .. } if claim == name)
}

#[tokio::test]
async fn every_accepted_algorithm_verifies() {
    let issuer = Issuer::start().await;
    issuer.add(Key::eddsa("ed"));
    issuer.add(Key::es384("p384"));
    let rsa = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256];
    // One RSA key under several algorithms: published without `alg`.
    let mut jwks: Value = serde_json::from_str(&issuer.jwks()).unwrap();
    let mut jwk = Key::rs256("rsa").jwk();
    jwk.as_object_mut().unwrap().remove("alg");
    jwks["keys"].as_array_mut().unwrap().push(jwk);
    let file = written(&jwks.to_string());
    let mut settings = trusting(&issuer);
    settings.issuers[0].jwks_file = Some(file.path().to_owned());
    let authenticator = Authenticator::new(&settings).unwrap();

    let es256 = issuer.token_by(&first_key(&issuer), json!({ "sub": SUBJECT }));
    let mut tokens = vec![es256, issuer.token(json!({ "sub": SUBJECT }))];
    tokens.push(issuer.token_by(&issuer.keys()[1], json!({ "sub": SUBJECT })));
    for algorithm in rsa {
        tokens.push(issuer.token_by(&Key::rs256("rsa").with_algorithm(algorithm), json!({ "sub": SUBJECT })));
    }
    for token in tokens {
        let caller = ask(&authenticator, &token, Timestamp::now()).await.unwrap();
        assert_eq!(caller.identity.subject, SUBJECT);
        assert_eq!(caller.identity.issuer, issuer.url());
        assert_eq!(caller.roles, BTreeSet::from([Role::Builder]));
    }
    assert_eq!(issuer.discoveries(), 0, "a static JWKS file means that nothing is fetched");
    let ps512 = issuer.token_by(&Key::rs256("rsa").with_algorithm(Algorithm::PS512), json!({ "sub": SUBJECT }));
    assert_eq!(ask(&authenticator, &ps512, Timestamp::now()).await, Err(Refusal::Algorithm));
}

fn first_key(issuer: &Issuer) -> Key {
    issuer.keys()[0].clone()
}

fn written(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn bad_tokens_are_refused_by_name() {
    let issuer = Issuer::start().await;
    let rsa = Key::rs256("rsa");
    issuer.add(rsa.clone());
    let key = first_key(&issuer);
    let authenticator = authenticator(&issuer);
    let now = Timestamp::now();
    let at = |seconds: i64| now.as_second() + seconds;
    let good = issuer.claims(json!({ "sub": SUBJECT }));
    let token = |claims: Value| issuer.token_by(&key, claims);
    let header = |header: Value| key.sign_with_header(&header, &good);
    let hmac_token = {
        let message = raw(&json!({ "alg": "HS256", "kid": key.kid }), &good, b"");
        let message = message.trim_end_matches('.');
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key.jwk().to_string().as_bytes());
        let tag = hmac::sign(&secret, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    };
    let foreign = Key::es256(&key.kid);
    let parts: Vec<String> = key.sign(&good).split('.').map(str::to_owned).collect();
    let crossed = token(json!({ "sub": "spiffe://example.org/other" }));
    let swapped = format!("{}.{}.{}", parts[0], crossed.split('.').nth(1).unwrap(), parts[2]);

    let table: Vec<(&str, String, Refusal)> = vec![
        ("empty", String::new(), Refusal::Malformed("")),
        ("not a token", "hunter2".to_owned(), Refusal::Malformed("")),
        ("two parts", format!("{}.{}", parts[0], parts[1]), Refusal::Malformed("")),
        ("four parts", format!("{}.AA", parts.join(".")), Refusal::Malformed("")),
        ("five parts, as an encrypted token has", "a.b.c.d.e".to_owned(), Refusal::Malformed("")),
        ("padded base64", format!("{}=.{}.{}", parts[0], parts[1], parts[2]), Refusal::Malformed("")),
        ("header is not JSON", format!("AAAA.{}.{}", parts[1], parts[2]), Refusal::Malformed("")),
        ("two algorithms", twice_alg(&key, &good), Refusal::Malformed("")),
        ("claims are a list", key.sign(&json!(["hunter2"])), Refusal::Malformed("")),
        ("claims nested deeply", nested(&key), Refusal::Malformed("")),
        (
            "critical extension",
            header(json!({ "alg": "ES256", "kid": key.kid, "crit": ["b64"], "b64": false })),
            Refusal::Malformed(""),
        ),
        ("another type", header(json!({ "alg": "ES256", "kid": key.kid, "typ": "dpop+jwt" })), Refusal::Malformed("")),
        ("no key id among several keys", header(json!({ "alg": "ES256" })), Refusal::Malformed("")),
        ("key id of 600 bytes", header(json!({ "alg": "ES256", "kid": "k".repeat(600) })), Refusal::Malformed("")),
        ("too large", token(json!({ "sub": SUBJECT, "x": "x".repeat(20_000) })), Refusal::TooLarge),
        ("alg none", raw(&json!({ "alg": "none" }), &good, b""), Refusal::Algorithm),
        ("alg None", raw(&json!({ "alg": "None", "kid": key.kid }), &good, b""), Refusal::Algorithm),
        ("alg none, signed", header(json!({ "alg": "none", "kid": key.kid })), Refusal::Algorithm),
        ("HMAC with the public key", hmac_token, Refusal::Algorithm),
        ("algorithm that is unknown", header(json!({ "alg": "ES256K", "kid": key.kid })), Refusal::Algorithm),
        ("algorithm of another key type", header(json!({ "alg": "RS256", "kid": key.kid })), Refusal::Algorithm),
        (
            "RSA key published for another algorithm",
            issuer.token_by(&rsa.clone().with_algorithm(Algorithm::RS512), json!({ "sub": SUBJECT })),
            Refusal::Algorithm,
        ),
        (
            "other issuer",
            token(json!({ "sub": SUBJECT, "iss": "https://hunter2.example.com" })),
            Refusal::UnknownIssuer,
        ),
        (
            "issuer with a slash more",
            token(json!({ "sub": SUBJECT, "iss": format!("{}/", issuer.url()) })),
            Refusal::UnknownIssuer,
        ),
        ("unknown key id", header(json!({ "alg": "ES256", "kid": "hunter2" })), Refusal::UnknownKey),
        ("signed by somebody else", foreign.sign(&good), Refusal::Signature),
        ("another token's claims", swapped, Refusal::Signature),
        ("no signature", format!("{}.{}.", parts[0], parts[1]), Refusal::Signature),
        ("expired", token(json!({ "sub": SUBJECT, "iat": at(-400), "exp": at(-31) })), Refusal::Expired),
        (
            "expired with a fraction",
            token(json!({ "sub": SUBJECT, "iat": at(-400), "exp": f64::from(i32::try_from(at(-31)).unwrap()) + 0.5 })),
            Refusal::Expired,
        ),
        ("issued in the future", token(json!({ "sub": SUBJECT, "iat": at(31) })), Refusal::NotYetValid),
        ("not before the future", token(json!({ "sub": SUBJECT, "nbf": at(31) })), Refusal::NotYetValid),
        (
            "other audience",
            token(json!({ "sub": SUBJECT, "aud": "sigstore" })),
            Refusal::Audience { wanted: AUDIENCE.to_owned() },
        ),
        (
            "audience as a prefix",
            token(json!({ "sub": SUBJECT, "aud": "countersign2" })),
            Refusal::Audience { wanted: AUDIENCE.to_owned() },
        ),
        (
            "no audience",
            token(json!({ "sub": SUBJECT, "aud": null })),
            Refusal::Audience { wanted: AUDIENCE.to_owned() },
        ),
        (
            "empty audience list",
            token(json!({ "sub": SUBJECT, "aud": [] })),
            Refusal::Audience { wanted: AUDIENCE.to_owned() },
        ),
        (
            "audience in an object",
            token(json!({ "sub": SUBJECT, "aud": { AUDIENCE: true } })),
            Refusal::Audience { wanted: AUDIENCE.to_owned() },
        ),
    ];
    for (name, token, wanted) in table {
        let refusal = ask(&authenticator, &token, now).await.expect_err(name);
        match wanted {
            Refusal::Malformed(_) => assert!(matches!(refusal, Refusal::Malformed(_)), "{name}: {refusal:?}"),
            wanted => assert_eq!(refusal, wanted, "{name}"),
        }
        assert!(!format!("{refusal} {refusal:?}").contains("hunter2"), "{name}: the refusal echoes the token");
    }
    let claims: [(&str, Value, &str); 9] = [
        ("no issuer", json!({ "sub": SUBJECT, "iss": null }), "iss"),
        ("issuer is a list", json!({ "sub": SUBJECT, "iss": [issuer.url()] }), "iss"),
        ("no expiry", json!({ "sub": SUBJECT, "exp": null }), "exp"),
        ("expiry is text", json!({ "sub": SUBJECT, "exp": "tomorrow" }), "exp"),
        ("lives too long", json!({ "sub": SUBJECT, "exp": at(100_000) }), "exp"),
        ("lives too long, without a time of issue", json!({ "sub": SUBJECT, "iat": null, "exp": at(100_000) }), "exp"),
        ("time of issue is text", json!({ "sub": SUBJECT, "iat": "hunter2" }), "iat"),
        ("no subject", json!({}), "sub"),
        ("subject is not a URI", json!({ "sub": "hunter2" }), "sub"),
    ];
    for (name, claims, wanted) in claims {
        let refusal = ask(&authenticator, &token(claims), now).await.expect_err(name);
        assert!(claim_refused(wanted)(&refusal), "{name}: {refusal:?}");
        assert!(!refusal.to_string().contains("hunter2"), "{name}: {refusal}");
    }
    // The same tokens with what was wrong put right: so it was that which was refused.
    for claims in [
        json!({ "sub": SUBJECT }),
        json!({ "sub": SUBJECT, "iat": at(-400), "exp": at(-29) }),
        json!({ "sub": SUBJECT, "iat": at(30), "nbf": at(30) }),
        json!({ "sub": SUBJECT, "iat": null }),
        json!({ "sub": SUBJECT, "aud": ["other", AUDIENCE] }),
        json!({ "sub": SUBJECT, "iat": f64::from(i32::try_from(at(0)).unwrap()) + 0.25 }),
    ] {
        ask(&authenticator, &token(claims.clone()), now).await.unwrap_or_else(|refusal| panic!("{claims}: {refusal}"));
    }
    for fine in [json!({ "alg": "ES256", "kid": key.kid }), json!({ "alg": "ES256", "kid": key.kid, "typ": "at+jwt" })]
    {
        ask(&authenticator, &header(fine), now).await.unwrap();
    }
    let nobody = authenticator.authenticate(Credentials::default(), now).await;
    assert_eq!(nobody, Err(Refusal::Missing));
}

fn twice_alg(key: &Key, claims: &Value) -> String {
    let header = format!(r#"{{"alg":"none","alg":"ES256","kid":"{}"}}"#, key.kid);
    let token = key.sign(claims);
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), token.split_once('.').unwrap().1)
}

fn nested(key: &Key) -> String {
    let header = json!({ "alg": "ES256", "kid": key.kid });
    let claims = format!("{{\"x\":{}{}}}", "[".repeat(4_000), "]".repeat(4_000));
    format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test]
async fn a_token_with_any_character_changed_is_refused() {
    let issuer = Issuer::start().await;
    let authenticator = authenticator(&issuer);
    let now = Timestamp::now();
    let token = issuer.token(json!({ "sub": SUBJECT }));
    ask(&authenticator, &token, now).await.unwrap();
    for at in 0..token.len() {
        for bit in [1, 2, 4, 32] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= bit;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(ask(&authenticator, &changed, now).await.is_err(), "character {at}, bit {bit}");
        }
    }
}

#[tokio::test]
async fn a_single_key_needs_no_key_id() {
    let issuer = Issuer::start().await;
    let authenticator = authenticator(&issuer);
    let claims = issuer.claims(json!({ "sub": SUBJECT }));
    let token = issuer.key().sign_with_header(&json!({ "alg": "ES256" }), &claims);
    ask(&authenticator, &token, Timestamp::now()).await.unwrap();
}

#[tokio::test]
async fn rotation_is_followed_at_most_once_per_interval() {
    let issuer = Issuer::start().await;
    let authenticator = authenticator(&issuer);
    let now = Timestamp::now();
    let old = issuer.token(json!({ "sub": SUBJECT }));
    ask(&authenticator, &old, now).await.unwrap();
    ask(&authenticator, &old, now).await.unwrap();
    assert_eq!(issuer.key_fetches(), 1, "fetched keys are kept");

    issuer.rotate();
    let new = issuer.token(json!({ "sub": SUBJECT }));
    assert_eq!(ask(&authenticator, &new, after(now, 9)).await, Err(Refusal::UnknownKey));
    assert_eq!(issuer.key_fetches(), 1, "not before retry_after_s");
    ask(&authenticator, &new, after(now, 10)).await.unwrap();
    assert_eq!(issuer.key_fetches(), 2);
    assert_eq!(ask(&authenticator, &old, after(now, 11)).await, Err(Refusal::UnknownKey), "the old key is gone");
    assert_eq!(issuer.key_fetches(), 2);
    for second in 0..60 {
        let invented = Key::es256(&format!("invented-{second}"));
        let token = invented.sign(&issuer.claims(json!({ "sub": SUBJECT })));
        assert_eq!(ask(&authenticator, &token, after(now, 20 + second)).await, Err(Refusal::UnknownKey));
    }
    assert_eq!(issuer.key_fetches(), 8, "sixty invented key ids in a minute cause six fetches");
}

#[tokio::test]
async fn a_key_that_was_withdrawn_stops_counting_after_the_refresh() {
    let issuer = Issuer::start().await;
    let mut settings = trusting(&issuer);
    settings.issuers[0].refresh_after_s = 60;
    let authenticator = Authenticator::new(&settings).unwrap();
    let now = Timestamp::now();
    let old = issuer.token(json!({ "sub": SUBJECT }));
    ask(&authenticator, &old, now).await.unwrap();
    issuer.rotate();
    ask(&authenticator, &old, after(now, 59)).await.unwrap();
    assert_eq!(ask(&authenticator, &old, after(now, 60)).await, Err(Refusal::UnknownKey));
}

#[tokio::test]
async fn a_crowd_with_an_unknown_key_causes_one_fetch() {
    let issuer = Issuer::start().await;
    let authenticator = authenticator(&issuer);
    let now = Timestamp::now();
    let token = issuer.token(json!({ "sub": SUBJECT }));
    issuer.hold();
    let crowd = join_all((0..64).map(|_| ask(&authenticator, &token, now)));
    // `join` polls the whole crowd before it lets the issuer answer.
    let (answers, ()) = join(crowd, async { issuer.release() }).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((issuer.discoveries(), issuer.key_fetches()), (1, 1));
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_spoil_the_fetch() {
    let issuer = Issuer::start().await;
    let authenticator = authenticator(&issuer);
    let now = Timestamp::now();
    let token = issuer.token(json!({ "sub": SUBJECT }));
    issuer.hold();
    {
        let impatient = ask(&authenticator, &token, now);
        let arrived = async {
            while issuer.discoveries() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { _ = impatient => panic!("the issuer holds its answer back"), () = arrived => {} }
    }
    let (answer, ()) = join(ask(&authenticator, &token, now), async { issuer.release() }).await;
    answer.unwrap();
    assert_eq!(issuer.discoveries(), 1);
}

#[tokio::test]
async fn known_keys_outlast_an_outage_for_a_bounded_time() {
    let issuer = Issuer::start().await;
    let mut settings = trusting(&issuer);
    settings.issuers[0].refresh_after_s = 60;
    settings.issuers[0].stale_for_s = 3_600;
    let authenticator = Authenticator::new(&settings).unwrap();
    let now = Timestamp::now();
    let unavailable = Err(Refusal::IssuerUnavailable { issuer: issuer.url().to_owned() });
    let token = issuer.token(json!({ "sub": SUBJECT, "exp": now.as_second() + 8_000 }));

    issuer.behave(Behaviour::Down);
    assert_eq!(ask(&authenticator, &token, now).await, unavailable, "nothing is known yet");
    issuer.behave(Behaviour::Honest);
    assert_eq!(ask(&authenticator, &token, after(now, 9)).await, unavailable, "not asked again so soon");
    ask(&authenticator, &token, after(now, 10)).await.unwrap();

    issuer.behave(Behaviour::Down);
    let fetched = after(now, 10);
    ask(&authenticator, &token, after(fetched, 3_600)).await.unwrap();
    assert!(issuer.discoveries() >= 3, "it was asked again, and did not answer");
    let rotated = Key::es256("rotated").sign(&issuer.claims(json!({ "sub": SUBJECT })));
    assert_eq!(ask(&authenticator, &rotated, after(fetched, 200)).await, unavailable, "may be a new key: cannot tell");
    assert_eq!(
        ask(&authenticator, &token, after(fetched, 3_601)).await,
        unavailable,
        "stale keys do not count for ever"
    );
    issuer.behave(Behaviour::Honest);
    ask(&authenticator, &token, after(fetched, 3_700)).await.unwrap();
}

#[tokio::test]
async fn while_one_asks_the_others_go_on_with_known_keys() {
    let issuer = Issuer::start().await;
    let mut settings = trusting(&issuer);
    settings.issuers[0].refresh_after_s = 60;
    let authenticator = Authenticator::new(&settings).unwrap();
    let now = Timestamp::now();
    let token = issuer.token(json!({ "sub": SUBJECT }));
    ask(&authenticator, &token, now).await.unwrap();
    issuer.hold();
    let later = after(now, 61);
    let others = async {
        for _ in 0..8 {
            ask(&authenticator, &token, later).await.unwrap();
        }
        issuer.release();
    };
    let (first, ()) = join(ask(&authenticator, &token, later), others).await;
    first.unwrap();
    assert_eq!(issuer.key_fetches(), 2);
}

#[tokio::test]
async fn an_issuer_that_never_answers_is_given_up() {
    let issuer = Issuer::start().await;
    let authenticator = authenticator(&issuer);
    issuer.hold();
    let token = issuer.token(json!({ "sub": SUBJECT }));
    let asked = ask(&authenticator, &token, Timestamp::now());
    let answer = tokio::time::timeout(Duration::from_mins(1), asked).await.expect("there is a timeout of our own");
    assert!(matches!(answer, Err(Refusal::IssuerUnavailable { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_lying_issuer_gives_no_keys() {
    let elsewhere = Issuer::start().await;
    let issuer = Issuer::start().await;
    let token = issuer.token(json!({ "sub": SUBJECT }));
    let mut encryption = issuer.key().jwk();
    encryption["use"] = json!("enc");
    let symmetric = json!({ "kty": "oct", "k": "aHVudGVyMg", "kid": issuer.key().kid, "alg": "HS256" });
    let mut weak = Key::rs256(&issuer.key().kid).jwk();
    weak["n"] = json!(URL_SAFE_NO_PAD.encode([0xc5; 128]));
    let twice = json!({ "keys": [issuer.key().jwk(), Key::es256(&issuer.key().kid).jwk()] });
    let many: Vec<_> = (0..65).map(|_| issuer.key().jwk()).collect();
    let set = |keys: Value| Behaviour::Jwks(json!({ "keys": keys }).to_string());
    let lies = [
        ("discovery of another issuer", Behaviour::WrongIssuer),
        ("a JWKS over the limit", Behaviour::Oversized(600 * 1024)),
        ("a redirect", Behaviour::Redirect(format!("{}/jwks", elsewhere.url()))),
        ("keys over plain HTTP from another machine", Behaviour::JwksUri("http://192.0.2.1/jwks".to_owned())),
        ("keys from a file", Behaviour::JwksUri("file:///etc/passwd".to_owned())),
        ("not JSON", Behaviour::Jwks("<html>".to_owned())),
        ("no keys", set(json!([]))),
        ("keys for encryption", set(json!([encryption]))),
        ("symmetric keys", set(json!([symmetric]))),
        ("weak keys", set(json!([weak]))),
        ("two keys with one id", Behaviour::Jwks(twice.to_string())),
        ("too many keys", set(json!(many))),
    ];
    for (name, lie) in lies {
        issuer.behave(lie);
        let answer = ask(&authenticator(&issuer), &token, Timestamp::now()).await;
        assert_eq!(answer, Err(Refusal::IssuerUnavailable { issuer: issuer.url().to_owned() }), "{name}");
    }
    assert_eq!(elsewhere.key_fetches(), 0, "redirects are not followed");
    // A large but legal document passes, so it was the size that was refused; foreign keys beside ours do no harm.
    issuer.behave(Behaviour::Oversized(1_000));
    assert!(ask(&authenticator(&issuer), &token, Timestamp::now()).await.is_err());
    let mixed = json!([{ "kty": "unheard-of" }, 7, weak, issuer.key().jwk()]);
    let Value::Array(mut mixed) = mixed else { panic!() };
    mixed[2]["kid"] = json!("weak");
    issuer.behave(set(json!(mixed)));
    ask(&authenticator(&issuer), &token, Timestamp::now()).await.unwrap();
    issuer.behave(Behaviour::Honest);
    ask(&authenticator(&issuer), &token, Timestamp::now()).await.unwrap();
}

#[tokio::test]
async fn subjects_are_made_from_claims() {
    let issuer = Issuer::start().await;
    let kubernetes = |namespace: &str, name: &str| {
        json!({ "sub": "system:serviceaccount:x:y",
                "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name, "uid": "1" } } })
    };
    let workflow = "org/app/.github/workflows/release.yml@refs/tags/v1";
    let gitlab = "gitlab.com/org/app//.gitlab-ci.yml@refs/heads/main";
    let table: Vec<(SubjectForm, Value, Result<&str, &str>)> = vec![
        (SubjectForm::Email, json!({ "email": "jo@example.com", "email_verified": true }), Ok("jo@example.com")),
        (SubjectForm::Email, json!({ "email": "jo@example.com", "email_verified": "true" }), Ok("jo@example.com")),
        (SubjectForm::Email, json!({ "email": "jo@example.com", "email_verified": false }), Err("email_verified")),
        (SubjectForm::Email, json!({ "email": "jo@example.com" }), Err("email_verified")),
        (SubjectForm::Email, json!({ "email": "jo", "email_verified": true }), Err("email")),
        (SubjectForm::Email, json!({ "email": "a@b@c", "email_verified": true }), Err("email")),
        (SubjectForm::Email, json!({ "email": "https://x@y", "email_verified": true }), Err("email")),
        (SubjectForm::Email, json!({ "email": ["jo@example.com"], "email_verified": true }), Err("email")),
        (SubjectForm::Uri, json!({ "sub": "https://ci.example.com/job/1" }), Ok("https://ci.example.com/job/1")),
        (SubjectForm::Uri, json!({ "sub": "jo@example.com" }), Err("sub")),
        (SubjectForm::Uri, json!({ "sub": "https://ci.example.com/a b" }), Err("sub")),
        (SubjectForm::Uri, json!({ "sub": "https://ci.example.com/\u{430}" }), Err("sub")),
        (SubjectForm::Uri, json!({ "sub": format!("https://x/{}", "x".repeat(2_000)) }), Err("sub")),
        (SubjectForm::Spiffe, json!({ "sub": "spiffe://example.org/ns/a/sa/b" }), Ok("spiffe://example.org/ns/a/sa/b")),
        (SubjectForm::Spiffe, json!({ "sub": "https://example.org/ns/a" }), Err("sub")),
        (SubjectForm::Spiffe, json!({ "sub": "spiffe://example.org" }), Err("sub")),
        (SubjectForm::Spiffe, json!({ "sub": "spiffe://example.org/a/../b" }), Err("sub")),
        (SubjectForm::Spiffe, json!({ "sub": "spiffe://Example.org/a" }), Err("sub")),
        (
            SubjectForm::Github,
            json!({ "sub": "repo:org/app", "job_workflow_ref": workflow }),
            Ok("https://github.com/org/app/.github/workflows/release.yml@refs/tags/v1"),
        ),
        (SubjectForm::Github, json!({ "sub": "repo:org/app" }), Err("job_workflow_ref")),
        (
            SubjectForm::Gitlab,
            json!({ "ci_config_ref_uri": gitlab }),
            Ok("https://gitlab.com/org/app//.gitlab-ci.yml@refs/heads/main"),
        ),
        (SubjectForm::Gitlab, json!({ "ci_config_ref_uri": "" }), Err("ci_config_ref_uri")),
        (
            SubjectForm::Kubernetes,
            kubernetes("ci", "builder"),
            Ok("https://kubernetes.io/namespaces/ci/serviceaccounts/builder"),
        ),
        (SubjectForm::Kubernetes, kubernetes("ci/serviceaccounts/admin", "x"), Err("kubernetes.io.namespace")),
        (SubjectForm::Kubernetes, json!({ "kubernetes.io": "ci" }), Err("kubernetes.io.namespace")),
    ];
    for (form, claims, wanted) in table {
        let mut settings = trusting(&issuer);
        settings.issuers[0].subject = form;
        let authenticator = Authenticator::new(&settings).unwrap();
        let answer = ask(&authenticator, &issuer.token(claims.clone()), Timestamp::now()).await;
        match (answer, wanted) {
            (Ok(caller), Ok(subject)) => assert_eq!(caller.identity.subject, subject),
            (Err(Refusal::Claim { claim, .. }), Err(wanted)) => assert_eq!(claim, wanted, "{claims}"),
            (answer, wanted) => panic!("{form:?} {claims}: {answer:?}, wanted {wanted:?}"),
        }
    }
}

#[tokio::test]
async fn rules_give_roles() {
    let issuer = Issuer::start().await;
    let rule = |subject: &str, claims: &[(&str, &str)], roles: &[Role]| Rule {
        issuer: issuer.url().to_owned(),
        subject: subject.to_owned(),
        claims: claims.iter().map(|(name, pattern)| ((*name).to_owned(), (*pattern).to_owned())).collect(),
        roles: roles.to_vec(),
        keys: vec![],
    };
    let mut settings = trusting(&issuer);
    settings.rules = vec![
        rule("spiffe://example.org/ci/*", &[], &[Role::Builder]),
        rule("spiffe://example.org/ci/**", &[("branch", "main")], &[Role::Deployer]),
        rule("spiffe://example.org/people/jo", &[("groups", "sre-*")], &[Role::Operator, Role::Approver]),
        rule("**", &[("realm_access.roles", "auditor")], &[Role::Auditor]),
        rule("**", &[("admin", "true"), ("level", "7")], &[Role::Admin]),
        Rule { issuer: "https://other.example.com".to_owned(), ..rule("**", &[], &[Role::Verifier]) },
    ];
    let authenticator = Authenticator::new(&settings).unwrap();
    let table: Vec<(Value, &[Role])> = vec![
        (json!({ "sub": "spiffe://example.org/ci/app" }), &[Role::Builder]),
        (json!({ "sub": "spiffe://example.org/ci/app/deeper" }), &[]),
        (json!({ "sub": "spiffe://example.org/ci/app/deeper", "branch": "main" }), &[Role::Deployer]),
        (json!({ "sub": "spiffe://example.org/ci/app", "branch": "main" }), &[Role::Builder, Role::Deployer]),
        (json!({ "sub": "spiffe://example.org/ci/app", "branch": "maintenance" }), &[Role::Builder]),
        (json!({ "sub": "spiffe://example.org.evil/ci/app" }), &[]),
        (json!({ "sub": "spiffe://example.org/CI/app" }), &[]),
        (
            json!({ "sub": "spiffe://example.org/people/jo", "groups": ["dev", "sre-eu"] }),
            &[Role::Approver, Role::Operator],
        ),
        (json!({ "sub": "spiffe://example.org/people/jo", "groups": "sre-eu" }), &[Role::Approver, Role::Operator]),
        (json!({ "sub": "spiffe://example.org/people/jo", "groups": { "sre-eu": true } }), &[]),
        (json!({ "sub": "spiffe://example.org/people/jo", "groups": [["sre-eu"]] }), &[]),
        (json!({ "sub": "spiffe://example.org/people/jo", "groups": null }), &[]),
        (json!({ "sub": SUBJECT, "realm_access": { "roles": ["auditor"] } }), &[Role::Auditor]),
        (json!({ "sub": SUBJECT, "realm_access": ["auditor"] }), &[]),
        (json!({ "sub": SUBJECT, "admin": true, "level": 7 }), &[Role::Admin]),
        (json!({ "sub": SUBJECT, "admin": true, "level": 77 }), &[]),
        (json!({ "sub": SUBJECT, "admin": true }), &[]),
    ];
    for (claims, wanted) in table {
        let answer = ask(&authenticator, &issuer.token(claims.clone()), Timestamp::now()).await;
        match answer {
            Ok(caller) => assert_eq!(caller.roles.into_iter().collect::<Vec<_>>(), wanted, "{claims}"),
            Err(Refusal::NoRole { identity }) => {
                assert!(wanted.is_empty(), "{claims}: {identity} should hold {wanted:?}");
                assert_eq!(claims["sub"], identity.subject);
            }
            Err(refusal) => panic!("{claims}: {refusal}"),
        }
    }
}

/// A caller may sign with the managed keys of every rule that it matches; no role has one of itself.
#[tokio::test]
async fn rules_give_managed_keys() {
    let issuer = Issuer::start().await;
    let rule = |subject: &str, roles: &[Role], keys: &[&str]| Rule {
        issuer: issuer.url().to_owned(),
        subject: subject.to_owned(),
        claims: [].into(),
        roles: roles.to_vec(),
        keys: keys.iter().map(|key| key.parse().unwrap()).collect(),
    };
    let mut settings = trusting(&issuer);
    settings.rules = vec![
        rule("spiffe://example.org/**", &[Role::Builder], &[]),
        rule("spiffe://example.org/ci/**", &[Role::Builder], &["nightly"]),
        rule("spiffe://example.org/ci/release", &[Role::Builder], &["release", "nightly"]),
        rule("spiffe://example.org/root", &[Role::Admin], &[]),
    ];
    let authenticator = Authenticator::new(&settings).unwrap();
    for (subject, wanted) in [
        ("spiffe://example.org/ci/release", vec!["nightly", "release"]),
        ("spiffe://example.org/ci/other", vec!["nightly"]),
        ("spiffe://example.org/ci", vec![]),
        ("spiffe://example.org/root", vec![]),
    ] {
        let caller = ask(&authenticator, &issuer.token(json!({ "sub": subject })), Timestamp::now()).await.unwrap();
        assert_eq!(caller.keys.iter().map(KeyName::as_str).collect::<Vec<_>>(), wanted, "{subject}");
    }
}

#[tokio::test]
async fn wrong_settings_are_refused_by_entry() {
    let ok = |toml: &str| toml::from_str::<Settings>(toml).map(|settings| Authenticator::new(&settings));
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, "hunter2").unwrap();
    let garbage = garbage.display();
    let table = [
        ("[[issuers]]\nurl='http://127.0.0.1:1'", "issuers[0] (http://127.0.0.1:1): url"),
        ("[[issuers]]\nurl='http://192.0.2.1'\nplain_http_unsafe=true", "plain HTTP to another machine"),
        ("[[issuers]]\nurl='nonsense'", "is not a URL"),
        ("[[issuers]]\nurl='https://a.example/?x=1'", "neither user, query nor fragment"),
        ("[[issuers]]\nurl='https://u:p@a.example'", "neither user, query nor fragment"),
        (
            "[[issuers]]\nurl='https://a.example'\n[[issuers]]\nurl='https://a.example'",
            "issuers[1] (https://a.example): is listed twice",
        ),
        ("mtls_issuer='https://a.example'\n[[issuers]]\nurl='https://a.example'", "also the mtls_issuer"),
        ("mtls_issuer=''", "mtls_issuer"),
        ("[[issuers]]\nurl='https://a.example'\naudience=''", "audience"),
        ("[[issuers]]\nurl='https://a.example'\nretry_after_s=0", "retry_after_s"),
        ("[[issuers]]\nurl='https://a.example'\njwks_file='/nowhere/jwks'", "cannot read /nowhere/jwks"),
        (&format!("[[issuers]]\nurl='https://a.example'\njwks_file='{garbage}'"), "jwks_file"),
        (&format!("[[issuers]]\nurl='https://a.example'\nca_file='{garbage}'"), "ca_file"),
        (&format!("client_ca_file='{garbage}'"), "client_ca_file"),
        ("client_ca_file='/nowhere/ca'", "client_ca_file: cannot read"),
        ("[[rules]]\nissuer='a'\nsubject='b'\nroles=[]", "rules[0]: roles"),
        ("[[rules]]\nissuer=''\nsubject='b'\nroles=['builder']", "rules[0]: issuer"),
        ("[[rules]]\nissuer='a'\nsubject='b'\nroles=['auditor']\nkeys=['release']", "rules[0]: keys"),
        ("[[rules]]\nissuer='a'\nsubject='b['\nroles=['builder']", "rules[0]: subject"),
        ("[[rules]]\nissuer='a'\nsubject='b'\nclaims={x='{'}\nroles=['builder']", "rules[0]: claims.x"),
    ];
    for (toml, wanted) in table {
        let error = ok(toml).unwrap().expect_err(toml).to_string();
        assert!(error.contains(wanted), "{toml}: {error}");
    }
    for unknown in [
        "issuer='x'",
        "[[issuers]]\nurl='https://a'\naud='x'",
        "[[rules]]\nissuer='a'\nsubject='b'\nroles=['root']",
        "[[rules]]\nissuer='a'\nsubject='b'\nroles=['builder']\nkeys=['No']",
    ] {
        assert!(ok(unknown).is_err(), "{unknown}");
    }
    let settings = "[[issuers]]\nurl='https://a.example'\nsubject='github'\n[[rules]]\nissuer='https://a.example'\nsubject='**'\nroles=['admin']";
    let jwks = written(&json!({ "keys": [Key::es256("k").jwk()] }).to_string());
    ok(&settings.replacen("subject", &format!("jwks_file='{}'\nsubject", jwks.path().display()), 1)).unwrap().unwrap();
}

#[test]
fn credentials_do_not_print_themselves() {
    let credentials = Credentials { bearer: Some("hunter2".to_owned()), peer: Some(vec![1; 9]) };
    assert!(!format!("{credentials:?}").contains("hunter2"));
}
