//! What certificates say of tokens: each extension's bytes, the built-in mappings, and what the configuration changes.

use countersign::{
    identity::{Authenticator, Issuer as IssuerSettings, Refusal, Settings, SubjectForm},
    issuing::IssuingError,
    model::{
        Extension, Extensions,
        certificate::{ExtensionError, describe, extensions_of, identity_of},
        limits,
        possession::Possession,
    },
};
use der::{Decode as _, Encode as _};
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_cert::Certificate;

use super::{House, Key, SUB, unpem};
use crate::keys;

/// As a job of GitHub Actions has them.
fn github() -> Value {
    json!({
        "sub": "repo:octo-org/octo-repo:environment:prod ✓",
        "job_workflow_ref": "octo-org/shared/.github/workflows/build.yml@refs/tags/v3",
        "job_workflow_sha": "1111111111111111111111111111111111111111",
        "workflow_ref": "octo-org/octo-repo/.github/workflows/release.yml@refs/heads/main",
        "workflow_sha": "2222222222222222222222222222222222222222",
        "sha": "2222222222222222222222222222222222222222",
        "event_name": "push", "workflow": "Release it", "repository": "octo-org/octo-repo", "ref": "refs/heads/main",
        "runner_environment": "github-hosted", "repository_id": "74", "repository_owner": "octo-org",
        "repository_owner_id": "65", "run_id": "1536140711", "run_attempt": "1", "repository_visibility": "private",
        "environment": "prod ✓",
    })
}

async fn certificate(house: &House, claims: Value) -> Vec<u8> {
    let issued = house.ask(claims, Possession::Request(Key::p256().csr())).await.unwrap();
    unpem(&issued.chain[0])
}

/// The numbers below 1.3.6.1.4.1.57264.1 in the order in which they stand there, each with its value's bytes.
fn values(certificate: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let tbs = Certificate::from_der(certificate).unwrap().tbs_certificate;
    let extensions = tbs.extensions.unwrap();
    let ours = extensions.iter().filter_map(|extension| {
        let number = extension.extn_id.to_string().strip_prefix("1.3.6.1.4.1.57264.1.")?.parse().ok()?;
        assert!(!extension.critical);
        Some((number, extension.extn_value.as_bytes().to_vec()))
    });
    ours.collect()
}

/// A DER `UTF8String`: its tag, its length, its bytes.
fn utf8(text: &str) -> Vec<u8> {
    match u8::try_from(text.len()).unwrap() {
        length @ 0..128 => [&[0x0c, length], text.as_bytes()].concat(),
        length => [&[0x0c, 0x81, length], text.as_bytes()].concat(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_fills_every_extension() {
    let house = House::new(SubjectForm::Github).await;
    let certificate = certificate(&house, github()).await;
    let subject = "https://github.com/octo-org/shared/.github/workflows/build.yml@refs/tags/v3";
    assert_eq!(identity_of(&certificate).unwrap().subject, subject);
    let issuer = house.issuer.url();
    let wanted: Vec<(u32, Vec<u8>)> = [
        (1, issuer),
        (2, "push"),
        (3, "2222222222222222222222222222222222222222"),
        (4, "Release it"),
        (5, "octo-org/octo-repo"),
        (6, "refs/heads/main"),
        (8, issuer),
        (9, subject),
        (10, "1111111111111111111111111111111111111111"),
        (11, "github-hosted"),
        (12, "https://github.com/octo-org/octo-repo"),
        (13, "2222222222222222222222222222222222222222"),
        (14, "refs/heads/main"),
        (15, "74"),
        (16, "https://github.com/octo-org"),
        (17, "65"),
        (18, "https://github.com/octo-org/octo-repo/.github/workflows/release.yml@refs/heads/main"),
        (19, "2222222222222222222222222222222222222222"),
        (20, "push"),
        (21, "https://github.com/octo-org/octo-repo/actions/runs/1536140711/attempts/1"),
        (22, "private"),
        (23, "prod ✓"),
        (24, "repo:octo-org/octo-repo:environment:prod ✓"),
    ]
    .into_iter()
    .map(|(number, text)| (number, if number < 8 { text.as_bytes().to_vec() } else { utf8(text) }))
    .collect();
    assert_eq!(values(&certificate), wanted);
    // And read back by ours: all but the two that name the issuer.
    let read = extensions_of(&certificate).unwrap();
    assert_eq!(read.iter().count(), 21);
    assert_eq!(read.get(Extension::DeploymentEnvironment), Some("prod ✓"));
    for (number, extension) in (2..7).chain(9..25).zip(Extension::ALL) {
        assert_eq!(extension.number(), number);
        assert_eq!(extension.oid().to_string(), format!("1.3.6.1.4.1.57264.1.{number}"));
        assert_eq!(extension.name().parse(), Ok(extension));
        assert_eq!(extension.is_raw(), number < 8);
    }
}

fn texts(certificate: &[u8]) -> Vec<(Extension, String)> {
    extensions_of(certificate).unwrap().iter().map(|(extension, text)| (extension, text.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_forms_fill_what_they_know() {
    use Extension as E;
    let gitlab = |ref_type: &str| {
        json!({
            "sub": "project_path:my-group/my-project:ref_type:branch:ref:main", "project_id": "20",
            "project_path": "my-group/my-project", "namespace_id": 72, "namespace_path": "my-group", "job_id": "302",
            "ref": "main", "ref_type": ref_type, "pipeline_source": "push", "runner_environment": "gitlab-hosted",
            "runner_id": 1, "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc", "project_visibility": "public",
            "ci_config_ref_uri": "gitlab.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
            "ci_config_sha": null,
        })
    };
    let config = "https://gitlab.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main";
    let git_ref = |ref_type: &str| match ref_type {
        "branch" => vec![(E::SourceRepositoryRef, "refs/heads/main")],
        "tag" => vec![(E::SourceRepositoryRef, "refs/tags/main")],
        _ => vec![],
    };
    for ref_type in ["branch", "tag", "elsewhere"] {
        let house = House::with(|settings| {
            settings.subject = SubjectForm::Gitlab;
            settings.server_url = Some("https://gitlab.com".to_owned());
        })
        .await;
        let certificate = certificate(&house, gitlab(ref_type)).await;
        let mut wanted = vec![
            (E::BuildSignerUri, config),
            (E::RunnerEnvironment, "gitlab-hosted"),
            (E::SourceRepositoryUri, "https://gitlab.com/my-group/my-project"),
            (E::SourceRepositoryDigest, "714a629c0b401fdce83e847fc9589983fc6f46bc"),
            (E::SourceRepositoryIdentifier, "20"),
            (E::SourceRepositoryOwnerUri, "https://gitlab.com/my-group"),
            (E::SourceRepositoryOwnerIdentifier, "72"),
            (E::BuildConfigUri, config),
            (E::BuildTrigger, "push"),
            (E::RunInvocationUri, "https://gitlab.com/my-group/my-project/-/jobs/302"),
            (E::SourceRepositoryVisibility, "public"),
            (E::TokenSubject, "project_path:my-group/my-project:ref_type:branch:ref:main"),
        ];
        wanted.extend(git_ref(ref_type));
        wanted.sort();
        let wanted: Vec<_> = wanted.into_iter().map(|(extension, text)| (extension, text.to_owned())).collect();
        assert_eq!(texts(&certificate), wanted, "{ref_type}");
        assert_eq!(identity_of(&certificate).unwrap().subject, config);
    }

    let house = House::new(SubjectForm::Buildkite).await;
    let claims = json!({
        "sub": "organization:acme-inc:pipeline:super-duper-app:ref:refs/heads/main:commit:9f31:step:",
        "organization_slug": "acme-inc", "pipeline_slug": "super-duper-app", "build_number": 1,
        "job_id": "0184990a-477b-4fa8-9968-496074483cee", "build_commit": "9f31", "build_source": "webhook",
        "runner_environment": "self-hosted",
    });
    let certificate_of_job = certificate(&house, claims).await;
    let wanted = [
        (E::RunnerEnvironment, "self-hosted"),
        (E::SourceRepositoryDigest, "9f31"),
        (E::BuildTrigger, "webhook"),
        (
            E::RunInvocationUri,
            "https://buildkite.com/acme-inc/super-duper-app/builds/1#0184990a-477b-4fa8-9968-496074483cee",
        ),
        (E::TokenSubject, "organization:acme-inc:pipeline:super-duper-app:ref:refs/heads/main:commit:9f31:step:"),
    ];
    assert_eq!(texts(&certificate_of_job), wanted.map(|(extension, text)| (extension, text.to_owned())));
    let subject = identity_of(&certificate_of_job).unwrap().subject;
    assert_eq!(subject, "https://buildkite.com/acme-inc/super-duper-app");

    let house = House::new(SubjectForm::Kubernetes).await;
    let claims = json!({ "sub": "system:serviceaccount:ci:builder",
        "kubernetes.io": { "namespace": "ci", "serviceaccount": { "name": "builder", "uid": "1" } } });
    let account = certificate(&house, claims).await;
    assert_eq!(texts(&account), [(E::TokenSubject, "system:serviceaccount:ci:builder".to_owned())]);
    let subject = identity_of(&account).unwrap().subject;
    assert_eq!(subject, "https://kubernetes.io/namespaces/ci/serviceaccounts/builder");
}

/// A user name is an `otherName` of type 1.3.6.1.4.1.57264.1.7, and critical as the subject is empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_name_is_an_other_name() {
    let house = House::with(|settings| {
        settings.subject = SubjectForm::Username;
        settings.subject_domain = Some("example.org".to_owned());
    })
    .await;
    let certificate = certificate(&house, json!({ "sub": "alice" })).await;
    let parsed = Certificate::from_der(&certificate).unwrap().tbs_certificate;
    let names = parsed.extensions.unwrap().into_iter().find(|one| one.extn_id.to_string() == "2.5.29.17").unwrap();
    assert!(names.critical);
    let oid = [0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, 0x07];
    let text = utf8("alice!example.org");
    let value = [&oid, [0xa0, u8::try_from(text.len()).unwrap()].as_slice(), &text].concat();
    let name = [&[0xa0, u8::try_from(value.len()).unwrap()], value.as_slice()].concat();
    assert_eq!(names.extn_value.as_bytes(), [&[0x30, u8::try_from(name.len()).unwrap()], name.as_slice()].concat());
    assert_eq!(identity_of(&certificate).unwrap().subject, "alice!example.org");
    for name in ["alice!x", "alice@example.org", "a:b", "a/b", "alice smith", "", "älice"] {
        let refused = house.ask(json!({ "sub": name }), Possession::Request(Key::p256().csr())).await.unwrap_err();
        assert!(matches!(refused, IssuingError::Token(Refusal::Claim { .. })), "{name:?}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_changes_what_is_said() {
    use Extension as E;
    let house = House::with(|settings| {
        settings.subject = SubjectForm::Github;
        settings.server_url = Some("https://git.example.org".to_owned());
        settings.claims = [
            ("build_trigger", "why.how"),
            ("source_repository_uri", "https://mirror.example.org/{repository}.git?"),
            ("run_invocation_uri", "https://x.example.org/{run_id}/{missing}?"),
            ("workflow_name", ""),
            ("token_subject", ""),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
    })
    .await;
    let mut claims = github();
    claims["why"] = json!({ "how": true });
    let said = texts(&certificate(&house, claims.clone()).await);
    let of = |wanted: E| said.iter().find(|(extension, _)| *extension == wanted).map(|(_, text)| text.as_str());
    assert_eq!(of(E::BuildTrigger), Some("true"));
    assert_eq!(of(E::SourceRepositoryUri), Some("https://mirror.example.org/octo-org/octo-repo.git"));
    assert_eq!((of(E::RunInvocationUri), of(E::WorkflowName), of(E::TokenSubject)), (None, None, None));
    assert_eq!(of(E::SourceRepositoryOwnerUri), Some("https://git.example.org/octo-org"));
    claims["why"] = Value::Null;
    let refused = house.ask(claims, Possession::Request(Key::p256().csr())).await.unwrap_err();
    assert!(
        matches!(&refused, IssuingError::Token(Refusal::Claim { claim, problem }) if claim == "why.how" && problem.contains("missing")),
        "{refused:?}"
    );
}

/// The same for every caller with a token: also where the service signs.
#[tokio::test]
async fn every_token_caller_carries_them() {
    let house = House::new(SubjectForm::Github).await;
    let principal = house.issuing.admit(&house.issuer.token(github()), Timestamp::now()).await.unwrap();
    assert_eq!(principal.caller().extensions.get(Extension::BuildTrigger), Some("push"));
    let spki = Key::p256().spki;
    let said = &principal.caller().extensions;
    let issued = house.keys.issue_saying(&principal.caller().identity, said, &spki, Timestamp::now());
    let certificate = issued.unwrap().certificate;
    assert_eq!(extensions_of(&certificate).as_ref(), Some(said));
    let plain = house.keys.issue(&principal.caller().identity, &spki, Timestamp::now()).unwrap();
    assert_eq!(extensions_of(&plain), Some(Extensions::default()));
}

type Change = Box<dyn Fn(&mut IssuerSettings)>;

#[test]
fn settings_of_the_mapping_are_refused_by_name() {
    let try_settings = |change: &dyn Fn(&mut IssuerSettings)| {
        let mut issuer = IssuerSettings::new("https://a.example");
        change(&mut issuer);
        Authenticator::new(&Settings { issuers: vec![issuer], ..Settings::default() }).map(drop)
    };
    let claims = |name: &'static str, text: &'static str| {
        move |issuer: &mut IssuerSettings| drop(issuer.claims.insert(name.to_owned(), text.to_owned()))
    };
    let long: &'static str = "x".repeat(2_000).leak();
    let many: &'static str = "{a}".repeat(17).leak();
    let table: Vec<(Change, &str)> = vec![
        (Box::new(claims("build_signer", "x")), "\"build_signer\" is not an extension; they are workflow_trigger, "),
        (Box::new(claims("issuer", "x")), "is not an extension"),
        (Box::new(claims("build_trigger", "?")), "claims.build_trigger names no claim"),
        (Box::new(claims("build_trigger", "a{b")), "claims.build_trigger has { without }"),
        (Box::new(claims("build_trigger", "a}b")), "claims.build_trigger has } without {"),
        (Box::new(claims("build_trigger", "{a}}")), "has } without {"),
        (Box::new(claims("build_trigger", "{{a}}")), "has { within {"),
        (Box::new(claims("build_trigger", "{}")), "names no claim"),
        (Box::new(claims("build_trigger", "a\nb")), "control characters"),
        (Box::new(claims("build_trigger", long)), "longer than 1024"),
        (Box::new(claims("build_trigger", many)), "more than 16 claims"),
        (Box::new(|issuer| issuer.audience = vec![]), "audience is empty"),
        (Box::new(|issuer| issuer.audience = vec!["sigstore".to_owned(), String::new()]), "audience is empty"),
        (Box::new(|issuer| issuer.subject = SubjectForm::Username), "subject_domain is missing"),
        (Box::new(|issuer| issuer.subject_domain = Some("example.org".to_owned())), "scheme and host alone"),
        (Box::new(|issuer| issuer.subject_domain = Some("https://example.org/".to_owned())), "scheme and host alone"),
        (
            Box::new(|issuer| {
                issuer.subject = SubjectForm::Spiffe;
                issuer.subject_domain = Some("spiffe://example.org".to_owned());
            }),
            "is not a domain",
        ),
        (
            Box::new(|issuer| {
                issuer.subject = SubjectForm::Email;
                issuer.subject_domain = Some("example.org".to_owned());
            }),
            "subject_domain is for the forms",
        ),
        (Box::new(|issuer| issuer.server_url = Some("https://git.example.org".to_owned())), "server_url is for"),
        (
            Box::new(|issuer| {
                issuer.subject = SubjectForm::Github;
                issuer.server_url = Some("https://git.example.org/{x}".to_owned());
            }),
            "server_url \"https://git.example.org/{x}\" is not scheme and host alone",
        ),
    ];
    for (change, wanted) in table {
        let error = try_settings(&*change).expect_err(wanted).to_string();
        assert!(error.starts_with("identity.issuers[0] (https://a.example): ") && error.contains(wanted), "{error}");
    }
    for (toml, audiences) in [
        ("url='https://a.example'\naudience='sigstore'", vec!["sigstore"]),
        ("url='https://a.example'\naudience=['countersign','sigstore']", vec!["countersign", "sigstore"]),
        ("url='https://a.example'", vec!["countersign"]),
    ] {
        assert_eq!(toml::from_str::<IssuerSettings>(toml).unwrap().audience, audiences);
    }
    assert!(toml::from_str::<IssuerSettings>("url='https://a.example'\naudience=7").is_err());
}

/// The domain that an issuer's subjects must belong to.
#[tokio::test]
async fn subjects_of_another_domain_are_refused() {
    for (form, domain, inside, outside) in [
        (
            SubjectForm::Uri,
            "https://ci.example.org",
            vec![SUB, "https://ci.example.org"],
            vec!["https://ci.example.org.evil.test/job/7", "http://ci.example.org/job/7", "https://other.example.org/"],
        ),
        (
            SubjectForm::Spiffe,
            "example.org",
            vec!["spiffe://example.org/a"],
            vec!["spiffe://example.org.evil.test/a", "spiffe://other.test/example.org"],
        ),
    ] {
        let house = House::with(|settings| {
            settings.subject = form;
            settings.subject_domain = Some(domain.to_owned());
        })
        .await;
        for (subjects, fits) in [(inside, true), (outside, false)] {
            for subject in subjects {
                let token = house.issuer.token(json!({ "sub": subject }));
                let answer = house.issuing.admit(&token, Timestamp::now()).await;
                match answer {
                    Err(IssuingError::Token(Refusal::Claim { problem, .. })) if !fits => {
                        assert!(problem.contains("subject_domain"), "{subject}: {problem}");
                    }
                    Err(IssuingError::Token(Refusal::NoRole { .. })) | Ok(_) if fits => {}
                    answer => panic!("{subject}: {answer:?}"),
                }
            }
        }
    }
}

#[test]
fn an_extension_holds_a_bounded_line() {
    let mut said = Extensions::default();
    assert!(said.is_empty());
    for (text, wanted) in [
        (String::new(), ExtensionError::Empty),
        ("x".repeat(limits::URI + 1), ExtensionError::TooLong(limits::URI + 1)),
        ("a\u{7}".to_owned(), ExtensionError::Control),
        ("a\u{85}b".to_owned(), ExtensionError::Control),
        ("a\0".to_owned(), ExtensionError::Control),
    ] {
        assert_eq!(said.set(Extension::BuildTrigger, text), Err(wanted));
    }
    assert!(said.is_empty());
    said.set(Extension::BuildTrigger, "x".repeat(limits::URI)).unwrap();
    said.set(Extension::BuildTrigger, "push".to_owned()).unwrap();
    assert_eq!(said.iter().collect::<Vec<_>>(), [(Extension::BuildTrigger, "push")]);
}

/// All extensions at their longest: the certificate is still one that the log takes.
#[test]
fn the_fullest_certificate_fits_into_a_leaf() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys::keyring(dir.path(), keys::now());
    let mut said = Extensions::default();
    for extension in Extension::ALL {
        said.set(extension, "x".repeat(limits::URI)).unwrap();
    }
    let spki = Key::new(countersign::model::Scheme::Rsa4096Sha256).spki;
    let certificate = keys.issue_saying(&keys::builder(), &said, &spki, keys::now()).unwrap().certificate;
    assert_eq!(Certificate::from_der(&certificate).unwrap().to_der().unwrap(), certificate);
    let described = describe(&certificate).unwrap();
    assert_eq!((described.identity, described.serial.len()), (Some(keys::builder()), 40));
    assert_eq!(described.not_after.as_second() - described.not_before.as_second(), 600);
    assert!(certificate.len() * 4 / 3 + 1_024 < limits::LEAF, "{} bytes", certificate.len());
}
