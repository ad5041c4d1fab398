//! Credentials, tokens, TLS, redirects, settings.

use super::*;

fn docker_config(dir: &Path, auths: &Value) -> PathBuf {
    let path = dir.join("config.json");
    std::fs::write(&path, json!({"auths": auths}).to_string()).unwrap();
    path
}

#[tokio::test]
async fn tokens_are_fetched_once_kept_and_renewed() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let dir = tempfile::tempdir().unwrap();
    let auths = json!({fake.host(): {"auth": "dTpw"}});
    let settings = Settings { docker_config: Some(docker_config(dir.path(), &auths)), ..settings(&[&fake.host()]) };
    let registry = Registry::new(settings).unwrap();
    fake.set(Knob::Tokens { lifetime_seconds: 300, account: Some(("u".into(), "p".into())) });
    let host = fake.host();
    let many = (0..20).map(|_| {
        let (registry, name) = (registry.clone(), name(&host));
        tokio::spawn(async move { registry.manifest(&name, &digest, soon()).await })
    });
    for task in many.collect::<Vec<_>>() {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(count(&fake, "/token"), 1, "one fetch for all");
    assert!(fake.requests().iter().any(|seen| seen.path.contains("scope=repository%3Ateam%2Fapp%3Apull")));
    fake.set(Knob::ExpireTokens);
    assert!(registry.manifest(&name(&fake.host()), &digest, soon()).await.is_ok());
    assert_eq!(count(&fake, "/token"), 2, "a refused token is replaced");
    fake.set(Knob::Tokens { lifetime_seconds: 0, account: Some(("u".into(), "p".into())) });
    fake.set(Knob::ExpireTokens);
    for _ in 0..2 {
        assert!(registry.manifest(&name(&fake.host()), &digest, soon()).await.is_ok());
    }
    assert_eq!(count(&fake, "/token"), 4, "a token that has run out is not used");
}

#[tokio::test]
async fn credentials_are_found_by_host_and_longest_prefix() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    fake.set(Knob::Basic { user: "u".into(), password: "p".into() });
    let (host, dir) = (fake.host(), tempfile::tempdir().unwrap());
    let wrong = json!({"username": "u", "password": "other"});
    let cases = [
        ("host", json!({&host: {"auth": "dTpw"}}), true),
        ("address", json!({format!("https://{host}/v2/"): {"auth": "dTpw"}}), true),
        ("user and password", json!({&host: {"username": "u", "password": "p"}}), true),
        ("the longer prefix wins", json!({&host: wrong, format!("{host}/team"): {"auth": "dTpw"}}), true),
        ("the shorter one loses", json!({&host: {"auth": "dTpw"}, format!("{host}/team"): wrong}), false),
        ("a prefix ends at a slash", json!({&host: wrong, format!("{host}/te"): {"auth": "dTpw"}}), false),
        ("another host", json!({"registry.example.com": {"auth": "dTpw"}}), false),
        ("wrong password", json!({&host: wrong}), false),
    ];
    for (case, auths, passes) in cases {
        let settings = Settings { docker_config: Some(docker_config(dir.path(), &auths)), ..settings(&[&host]) };
        let registry = Registry::new(settings).unwrap();
        let result = registry.manifest(&name(&host), &digest, soon()).await;
        assert_eq!(result.is_ok(), passes, "{case}: {result:?}");
        if let Err(error) = result {
            assert_eq!(kind(&error), "Unauthorized", "{case}");
            assert!(!error.to_string().contains("other"), "no secret in {error}");
        }
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    fake.set(Knob::Tokens { lifetime_seconds: 60, account: None });
    fake.set(Knob::IdentityToken("right".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    for (token, passes) in [("right", true), ("wrong", false)] {
        let auths = json!({fake.host(): {"identitytoken": token}});
        let settings = Settings { docker_config: Some(docker_config(dir.path(), &auths)), ..settings(&[&fake.host()]) };
        let result = Registry::new(settings).unwrap().manifest(&name(&fake.host()), &digest, soon()).await;
        assert_eq!(result.is_ok(), passes, "{result:?}");
    }
}

#[test]
fn settings_have_defaults_and_know_no_other_fields() {
    let parse = |text: &str| toml::from_str::<Settings>(text);
    assert_eq!(parse("").unwrap(), Settings::default());
    assert_eq!(parse("plain_http = ['localhost:5000']").unwrap().plain_http, ["localhost:5000"]);
    assert!(parse("insecure = true").unwrap_err().to_string().contains("unknown field"));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (gone, text) = (dir.path().join("gone"), dir.path().join("text"));
    std::fs::write(&text, "hello").unwrap();
    for settings in [
        Settings { docker_config: Some(gone.clone()), ..Settings::default() },
        Settings { docker_config: Some(text.clone()), ..Settings::default() },
        Settings { ca_file: Some(gone), ..Settings::default() },
        Settings { ca_file: Some(text), ..Settings::default() },
    ] {
        let error = Registry::new(settings).unwrap_err().to_string();
        assert!(error.contains("(settings)") && error.contains(&dir.path().display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeRegistry::start_tls(dir.path()).await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let trusting = Settings { ca_file: Some(dir.path().join("cert.pem")), ..settings(&[]) };
    let result = Registry::new(trusting).unwrap().resolve(&tagged(&fake.host(), "v1"), soon()).await;
    assert_eq!(result, Ok(digest));
    let stranger = Registry::new(Settings { attempts: 1, ..settings(&[]) }).unwrap();
    let error = stranger.resolve(&tagged(&fake.host(), "v1"), soon()).await.unwrap_err();
    assert_eq!(kind(&error), "Unavailable", "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn redirects_lose_the_credentials_and_never_end_in_plain_http_elsewhere() {
    let (fake, other) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    other.put_blob(REPO, BUNDLE);
    let auths = json!({fake.host(): {"auth": "dTpw"}});
    let with_auth = |hosts: &[&str]| {
        let settings = Settings { docker_config: Some(docker_config(dir.path(), &auths)), ..settings(hosts) };
        Registry::new(settings).unwrap()
    };
    let registry = with_auth(&[&fake.host(), &other.host()]);
    fake.set(Knob::Basic { user: "u".into(), password: "p".into() });
    let image = name(&fake.host());
    registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
    fake.clear_requests();
    fake.set(Knob::RedirectBlobs(Some(other.host())));
    assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap(), [BUNDLE]);
    let arrived = other.requests();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].authorization, None, "the credentials stay with their registry");
    let left = fake.requests().into_iter().find(|seen| seen.status == 307).unwrap();
    assert!(left.authorization.is_some(), "they were sent to it");
    // The same, with the second host not listed.
    let strict = with_auth(&[&fake.host()]);
    let error = strict.bundles(&image, &subject, soon()).await.unwrap_err();
    assert_eq!(kind(&error), "Malformed", "{error}");
    assert_eq!(other.requests().len(), 1);
}
