//! The nouns: what is refused at the edge, by name, and what parses prints back.

mod public_key;
mod registries;

use countersign::model::{
    Decision, Digest, DigestError, ImageName, ImageRef, LogRef, Reason, Statement, StatementError, Subject,
    TrustedRoot, Verdict,
    image::ImageRefError,
    json::check_json_depth,
    legacy::{Kind, Legacy},
    limits, predicate,
    submission::Submission,
    verdict::Code,
    verify::parse_bundle,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn statement() -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "app", "digest": { "sha256": HEX } }],
        "predicateType": "https://example.com/anything/v1",
        "predicate": { "a": 1 },
    })
}

fn parse(value: &Value) -> Result<Statement, StatementError> {
    Statement::parse(value.to_string().as_bytes())
}

/// `statement()` with one field set, or taken out when the value is `null`.
fn with(field: &str, value: Value) -> Value {
    let mut all = statement();
    if value.is_null() {
        all.as_object_mut().unwrap().remove(field);
    } else {
        all[field] = value;
    }
    all
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn statements_are_refused_by_name() {
    parse(&statement()).unwrap();
    let subject = |digest: Value| json!([{ "name": "app", "digest": digest }]);
    let named = |name: &str| json!([{ "name": name, "digest": { "sha256": HEX } }]);
    let distinct: Vec<_> =
        (0..=limits::SUBJECTS).map(|index| json!({ "name": index.to_string(), "digest": { "sha256": HEX } })).collect();
    let twice = json!([{ "name": "app", "digest": { "sha256": HEX } }, { "name": "app", "digest": { "sha256": HEX, "sha512": "00" } }]);
    let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
    let bad_digest = |source: DigestError| StatementError::SubjectDigest { name: "app".to_owned(), source };
    let table: Vec<(&str, Value, StatementError)> = vec![
        (
            "type of another version",
            with("_type", json!("https://in-toto.io/Statement/v2")),
            StatementError::Type("https://in-toto.io/Statement/v2".to_owned()),
        ),
        (
            "type with a slash more",
            with("_type", json!("https://in-toto.io/Statement/v1/")),
            StatementError::Type("https://in-toto.io/Statement/v1/".to_owned()),
        ),
        ("no subject", with("subject", json!([])), StatementError::NoSubject),
        ("subject left out", with("subject", Value::Null), StatementError::NoSubject),
        ("too many subjects", with("subject", json!(distinct)), StatementError::TooManySubjects(limits::SUBJECTS + 1)),
        ("the same subject twice", with("subject", twice), StatementError::DuplicateSubject(digest)),
        ("sha512 alone", with("subject", subject(json!({ "sha512": "00" }))), bad_digest(DigestError::Algorithm)),
        ("no digest at all", with("subject", subject(json!({}))), bad_digest(DigestError::Algorithm)),
        ("digest too short", with("subject", subject(json!({ "sha256": &HEX[1..] }))), bad_digest(DigestError::Hex)),
        (
            "digest in capitals",
            with("subject", subject(json!({ "sha256": HEX.to_uppercase() }))),
            bad_digest(DigestError::Hex),
        ),
        (
            "digest with its algorithm",
            with("subject", subject(json!({ "sha256": format!("sha256:{HEX}") }))),
            bad_digest(DigestError::Hex),
        ),
        ("name too long", with("subject", named(&"n".repeat(limits::NAME + 1))), StatementError::SubjectName),
        ("name over two lines", with("subject", named("a\nb")), StatementError::SubjectName),
        ("predicate type is empty", with("predicateType", json!("")), StatementError::PredicateType(String::new())),
        (
            "predicate type is a word",
            with("predicateType", json!("provenance")),
            StatementError::PredicateType("provenance".to_owned()),
        ),
        (
            "predicate type is a path",
            with("predicateType", json!("/provenance/v1")),
            StatementError::PredicateType("/provenance/v1".to_owned()),
        ),
        (
            "predicate type with a space",
            with("predicateType", json!("https://a/b c")),
            StatementError::PredicateType("https://a/b c".to_owned()),
        ),
        ("nested too deeply", with("predicate", json!({ "a": nested(limits::JSON_DEPTH) })), StatementError::TooDeep),
    ];
    for (name, value, wanted) in table {
        assert_eq!(parse(&value), Err(wanted), "{name}");
    }
    let not_json: [(&str, Vec<u8>); 9] = [
        ("empty", Vec::new()),
        ("not JSON", b"hello".to_vec()),
        ("not UTF-8", vec![b'"', 0xff, b'"']),
        ("a list", b"[]".to_vec()),
        ("cut off", statement().to_string().into_bytes()[..50].to_vec()),
        ("something behind it", format!("{} {{}}", statement()).into_bytes()),
        ("no type", with("_type", Value::Null).to_string().into_bytes()),
        ("no predicate type", with("predicateType", Value::Null).to_string().into_bytes()),
        ("subject is an object", with("subject", json!({ "sha256": HEX })).to_string().into_bytes()),
    ];
    for (name, bytes) in not_json {
        assert!(matches!(Statement::parse(&bytes), Err(StatementError::Json(_))), "{name}");
    }
    let twice = statement().to_string().replacen('{', r#"{"_type":"https://in-toto.io/Statement/v1","#, 1);
    assert!(matches!(Statement::parse(twice.as_bytes()), Err(StatementError::Json(_))), "one field twice");
    for (name, predicate) in [("text", json!("x")), ("list", json!([])), ("number", json!(7))] {
        assert!(
            matches!(parse(&with("predicate", predicate)), Err(StatementError::Predicate(_))),
            "predicate is a {name}"
        );
    }
}

#[test]
fn statements_are_bounded() {
    let size = |bytes: usize| {
        let bare = with("predicate", json!({ "x": "" })).to_string().len();
        with("predicate", json!({ "x": "x".repeat(bytes - bare) })).to_string()
    };
    Statement::parse(size(limits::STATEMENT).as_bytes()).unwrap();
    let over = Statement::parse(size(limits::STATEMENT + 1).as_bytes());
    assert_eq!(over, Err(StatementError::TooLarge(limits::STATEMENT + 1)));
    // The predicate stands two levels deep.
    parse(&with("predicate", json!({ "a": nested(limits::JSON_DEPTH - 2) }))).unwrap();
    // A million levels are refused by counting, not by running out of stack.
    let bomb = format!("{{\"_type\":{}", "[".repeat(1_000_000));
    assert_eq!(Statement::parse(bomb.as_bytes()), Err(StatementError::TooDeep));
    check_json_depth(br#"["[[[[", "\"[[[["]"#, 1).unwrap();
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let mut older = with("_type", json!("https://in-toto.io/Statement/v0.1"));
    older["subject"][0].as_object_mut().unwrap().remove("name");
    older.as_object_mut().unwrap().remove("predicate");
    let parsed = parse(&older).unwrap();
    assert_eq!(parsed.subjects()[0].name, "");
    assert_eq!(parsed.predicate(), &json!({}));
    // One digest under two names is two subjects.
    let two = json!([{ "name": "a", "digest": { "sha256": HEX } }, { "name": "b", "digest": { "sha256": HEX, "sha512": "0" } }]);
    assert_eq!(parse(&with("subject", two)).unwrap().subjects().len(), 2);
}

/// A predicate that passes, for each type that is known by name, with the paths that it cannot do without.
fn known_predicates() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let time = "2026-11-24T05:00:00Z";
    vec![
        (
            predicate::SLSA_PROVENANCE,
            json!({ "buildDefinition": { "buildType": "https://b", "externalParameters": {} }, "runDetails": { "builder": { "id": "https://ci" } } }),
            vec!["buildDefinition.buildType", "buildDefinition.externalParameters", "runDetails.builder.id"],
        ),
        (
            predicate::VSA,
            json!({ "verifier": { "id": "https://v" }, "timeVerified": time, "resourceUri": "pkg:oci/app",
                    "policy": { "uri": "https://p" }, "verificationResult": "PASSED", "verifiedLevels": [] }),
            vec!["verifier.id", "timeVerified", "resourceUri", "policy.uri", "verificationResult", "verifiedLevels"],
        ),
        (
            predicate::VULNS,
            json!({ "scanner": { "uri": "pkg:x", "db": { "lastUpdate": time }, "result": [] }, "metadata": { "scanFinishedOn": time } }),
            vec!["scanner.uri", "scanner.db.lastUpdate", "scanner.result", "metadata.scanFinishedOn"],
        ),
        (predicate::TEST_RESULT, json!({ "result": "PASSED", "configuration": [] }), vec!["result", "configuration"]),
        (predicate::DEPLOYMENT, json!({ "service": "s", "environment": "e" }), vec!["service", "environment"]),
        (
            predicate::HEALTH,
            json!({ "service": "s", "environment": "e", "healthy": true }),
            vec!["service", "environment", "healthy"],
        ),
    ]
}

#[test]
fn predicates_of_known_types_need_their_fields() {
    for (predicate_type, good, paths) in known_predicates() {
        predicate::validate(predicate_type, &good).unwrap();
        for path in paths {
            let pointer = format!("/{}", path.replace('.', "/"));
            for bad in [Value::Null, json!(7), json!(""), json!({ "x": 1 })] {
                let mut predicate = good.clone();
                let is_object = predicate.pointer(&pointer).unwrap().is_object();
                if is_object && bad.is_object() {
                    continue;
                }
                *predicate.pointer_mut(&pointer).unwrap() = bad.clone();
                let error = predicate::validate(predicate_type, &predicate)
                    .expect_err(&format!("{predicate_type} {path}={bad}"));
                assert_eq!((error.predicate_type.as_str(), error.path), (predicate_type, path));
                let whole = json!({ "_type": "https://in-toto.io/Statement/v1", "subject": statement()["subject"],
                                    "predicateType": predicate_type, "predicate": predicate });
                assert_eq!(parse(&whole), Err(StatementError::Predicate(error)));
            }
        }
    }
    // The same gaps under a type that nobody knows: it was the type's shape that refused.
    predicate::validate("https://example.com/custom/v1", &json!({})).unwrap();
    predicate::validate(predicate::SIGN, &json!({})).unwrap();
}

#[test]
fn enumerations_and_times_in_predicates() {
    let table = [
        (predicate::TEST_RESULT, "result", json!("passed")),
        (predicate::VSA, "verificationResult", json!("WARNED")),
        (predicate::VSA, "timeVerified", json!("yesterday")),
        (predicate::VSA, "timeVerified", json!("2026-11-24")),
        (predicate::HEALTH, "healthy", json!("true")),
    ];
    for (predicate_type, field, bad) in table {
        let (_, mut predicate, _) =
            known_predicates().into_iter().find(|(known, ..)| *known == predicate_type).unwrap();
        predicate[field] = bad;
        assert_eq!(predicate::validate(predicate_type, &predicate).unwrap_err().path, field);
    }
}

#[test]
fn versions_of_sbom_types_match_and_nothing_else_does() {
    for (wanted, actual, matches) in [
        (predicate::SPDX, predicate::SPDX, true),
        (predicate::SPDX, "https://spdx.dev/Document/v2.3", true),
        (predicate::CYCLONEDX, "https://cyclonedx.org/bom/v1.6", true),
        (predicate::SPDX, "https://spdx.dev/Documents", false),
        (predicate::SPDX, "https://spdx.dev/Document/x", false),
        ("https://spdx.dev/Document/v2.3", predicate::SPDX, false),
        (predicate::SLSA_PROVENANCE, "https://slsa.dev/provenance/v1/v2", false),
    ] {
        assert_eq!(predicate::matches(wanted, actual), matches, "{wanted} {actual}");
    }
}

#[test]
fn digests_are_refused_by_name() {
    let table = [
        (String::new(), DigestError::Algorithm),
        (HEX.to_owned(), DigestError::Algorithm),
        (format!("SHA256:{HEX}"), DigestError::Algorithm),
        (format!("sha512:{HEX}{HEX}"), DigestError::Algorithm),
        (format!(" sha256:{HEX}"), DigestError::Algorithm),
        ("sha256:".to_owned(), DigestError::Hex),
        (format!("sha256:{}", &HEX[1..]), DigestError::Hex),
        (format!("sha256:{HEX}0"), DigestError::Hex),
        (format!("sha256:{}", HEX.to_uppercase()), DigestError::Hex),
        (format!("sha256:{HEX} "), DigestError::Hex),
        (format!("sha256:{}g", &HEX[1..]), DigestError::Hex),
        (format!("sha256:{}", "\u{e9}".repeat(32)), DigestError::Hex),
    ];
    for (text, wanted) in table {
        assert_eq!(text.parse::<Digest>(), Err(wanted), "{text:?}");
    }
    assert_eq!(Digest::of(b"").to_string(), format!("sha256:{HEX}"));
    assert_eq!(Digest::of(b"").short(), &HEX[..12]);
}

#[test]
fn images_are_normalised_or_refused() {
    let pinned = format!("registry.example.com/team/app@sha256:{HEX}");
    let both = format!("registry.example.com:5000/team/app:v1@sha256:{HEX}");
    let table = [
        ("nginx", "docker.io/library/nginx:latest"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/nginx:1", "docker.io/library/nginx:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("127.0.0.1:5000/app:v1", "127.0.0.1:5000/app:v1"),
        (pinned.as_str(), pinned.as_str()),
        (both.as_str(), both.as_str()),
    ];
    for (text, wanted) in table {
        let image: ImageRef = text.parse().unwrap();
        assert_eq!(image.to_string(), wanted);
        assert_eq!(image.to_string().parse::<ImageRef>().unwrap(), image, "{text} prints back as itself");
    }
    let image: ImageRef = pinned.parse().unwrap();
    assert_eq!((image.tag.as_deref(), image.digest), (None, Some(Digest::of(b""))), "a digest needs no tag");
    for bad in [
        "",
        " ",
        "App",
        "Team/app",
        "Team/sub/app:v1",
        "app:",
        "app@",
        "app:ta g",
        "a//b",
        "/app",
        "app/",
        "app:x:y",
        "http://a/b",
        "app@sha256:00",
        "\u{e4}pp",
    ] {
        assert!(matches!(bad.parse::<ImageRef>(), Err(ImageRefError::Malformed(_))), "{bad:?}");
    }
    let sha512 = format!("app@sha512:{HEX}{HEX}");
    assert_eq!(sha512.parse::<ImageRef>(), Err(ImageRefError::Digest(DigestError::Algorithm)));
    assert_eq!("a".repeat(limits::NAME + 1).parse::<ImageRef>(), Err(ImageRefError::TooLong));
}

/// What is said of what was sent goes into answers, verdicts and logs.
#[test]
fn an_error_quotes_the_beginning_of_what_was_sent() {
    const LONG: usize = 100_000;
    let long = "x".repeat(LONG);
    let digest = |hex: &str| json!([{ "name": long, "digest": { "sha256": hex } }]);
    let layer = |certificate: String, payload: String| Legacy {
        kind: Kind::Signature,
        layer: String::new(),
        payload: payload.into_bytes(),
        annotations: [
            ("dev.sigstore.cosign/certificate".to_owned(), certificate),
            ("dev.sigstore.cosign/bundle".to_owned(), "{}".to_owned()),
        ]
        .into(),
        problem: None,
    };
    let certificate = format!("-----BEGIN CERTIFICATE{long}\n");
    let document = json!({ "critical": { "type": long, "image": { "docker-manifest-digest": "" } } });
    let said = [
        parse(&with("_type", json!(long))).unwrap_err().to_string(),
        parse(&with("predicateType", json!(long))).unwrap_err().to_string(),
        parse(&with("subject", json!(long))).unwrap_err().to_string(),
        parse(&with("subject", digest("no digest"))).unwrap_err().to_string(),
        Submission::from_json(json!({ "dsseRequestV002": long }).to_string().as_bytes()).unwrap_err().to_string(),
        TrustedRoot::parse(&json!({ "mediaType": [long], "tlogs": long }).to_string()).unwrap_err().to_string(),
        parse_bundle(json!({ "mediaType": long, "verificationMaterial": long }).to_string().as_bytes())
            .unwrap_err()
            .to_string(),
        layer(certificate, String::new()).bundle().unwrap_err().to_string(),
        layer(String::new(), document.to_string()).claim().unwrap_err().to_string(),
        layer(String::new(), json!({ "critical": long }).to_string()).claim().unwrap_err().to_string(),
    ];
    for said in said {
        assert!(said.len() < 1_000, "{} bytes are said: {said}", said.len());
    }
}

#[test]
fn decisions_join_and_exit() {
    use Decision::{Allow, Deny, Unknown};
    for (one, other, both) in [
        (Allow, Allow, Allow),
        (Allow, Unknown, Unknown),
        (Allow, Deny, Deny),
        (Unknown, Unknown, Unknown),
        (Unknown, Deny, Deny),
        (Deny, Deny, Deny),
    ] {
        assert_eq!((one.and(other), other.and(one)), (both, both));
    }
    assert_eq!([Allow, Deny, Unknown].map(Decision::exit_code), [0, 1, 2]);
}

#[test]
fn verdicts_keep_their_json() {
    let reason = Reason::new(Code::TagMoved, "the tag moved", "sign the new digest")
        .with_evidence(vec![LogRef { origin: "log.example.com".to_owned(), index: 7 }]);
    let verdict = Verdict {
        decision: Decision::Deny,
        reasons: vec![reason],
        warnings: Vec::new(),
        policies: vec![("base".to_owned(), Digest::of(b""))],
    };
    let value = serde_json::to_value(&verdict).unwrap();
    let wanted = json!({
        "decision": "deny",
        "reasons": [{ "code": "TAG_MOVED", "message": "the tag moved",
                      "evidence": [{ "origin": "log.example.com", "index": 7 }], "remedy": "sign the new digest" }],
        "policies": [["base", format!("sha256:{HEX}")]],
    });
    assert_eq!(value, wanted);
    assert_eq!(serde_json::from_value::<Verdict>(value).unwrap(), verdict);
    assert_eq!(Code::TagMoved.to_string(), "TAG_MOVED");
    for bad in [
        json!({ "decision": "Deny", "reasons": [] }),
        json!({ "decision": "maybe", "reasons": [] }),
        json!({ "decision": "deny" }),
    ] {
        assert!(serde_json::from_value::<Verdict>(bad.clone()).is_err(), "{bad}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn a_statement_parses_back(
        subjects in prop::collection::btree_map("[^\\p{C}]{0,20}", any::<[u8; 32]>(), 1..8),
        kind in "[a-z]{1,8}",
        fields in prop::collection::btree_map("[a-z]{1,6}", any_json(), 0..5),
    ) {
        let subjects = subjects.into_iter().map(|(name, digest)| Subject { name, digest: Digest::from_bytes(digest) }).collect();
        let statement = Statement::new(subjects, &format!("https://example.com/{kind}"), fields.into_iter().collect()).unwrap();
        let bytes = statement.to_json();
        let parsed = Statement::parse(&bytes).unwrap();
        prop_assert_eq!(&parsed, &statement);
        prop_assert_eq!(parsed.to_json(), bytes);
        prop_assert!(statement.subjects().iter().all(|subject| parsed.names(&subject.digest)));
    }

    #[test]
    fn strange_bytes_are_no_statement_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Statement::parse(&bytes).is_err());
    }

    #[test]
    fn a_changed_statement_is_refused_or_another(at in 0_usize..200, bit in 0_u8..8) {
        let bytes = parse(&statement()).unwrap().to_json();
        let mut changed = bytes.clone();
        let at = at % bytes.len();
        changed[at] ^= 1 << bit;
        if let Ok(parsed) = Statement::parse(&changed) {
            prop_assert_ne!(parsed.to_json(), bytes);
        }
    }

    #[test]
    fn a_digest_prints_and_parses(bytes in any::<[u8; 32]>()) {
        let digest = Digest::from_bytes(bytes);
        prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let same = Digest::from_hex(&digest.hex()).unwrap();
        prop_assert_eq!(same.as_bytes(), &bytes);
        let json = serde_json::to_string(&digest).unwrap();
        prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn an_image_prints_and_parses(
        host in "[a-z]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{1,3})?",
        path in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}",
        tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        digest in prop::option::of(any::<[u8; 32]>()),
    ) {
        prop_assume!(host != "docker.io" && host != "index.docker.io");
        let digest = digest.map(Digest::from_bytes);
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        let image = ImageRef { name: ImageName { registry: host, repository: path }, tag, digest };
        prop_assert_eq!(&image.to_string().parse::<ImageRef>().unwrap(), &image);
        let pinned = image.pinned(Digest::of(b"x"));
        prop_assert_eq!((&pinned.name, &pinned.tag, pinned.digest), (&image.name, &image.tag, Some(Digest::of(b"x"))));
    }

    #[test]
    fn an_image_never_panics(text in ".{0,80}") {
        if let Ok(image) = text.parse::<ImageRef>() {
            prop_assert!(image.tag.is_some() || image.digest.is_some());
        }
    }
}
