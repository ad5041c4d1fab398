//! What registries answer: links between pages, waits, tokens, manifests; and where credentials for them are found.

use std::time::Duration;

use countersign::model::{
    Digest, ImageName, ImageRef,
    docker_config::{Credential, DockerConfig, Found, Question},
    image_manifest::{Document, ImageManifestError, ManifestKind},
    limits, referrers,
    retry_after::retry_after,
    token_reply::{TokenReply, TokenReplyError},
};
use serde_json::json;

#[test]
fn the_next_page_is_found_among_other_links() {
    let cases = [
        ("</v2/a?n=2>; rel=\"next\"", Some("/v2/a?n=2")),
        ("<a>;rel=next", Some("a")),
        (" <a> ; REL = NEXT ", Some("a")),
        ("<a>; rel=\"last next\"", Some("a")),
        ("<a>; rel=prev, <b>; rel=next", Some("b")),
        (", ,<a>; rel=prev,, <b>; rel=next", Some("b")),
        ("<a,b>; title=\"<c>; rel=next, \\\" \"; rel=prev, <d>; rel=\"next\"", Some("d")),
        ("<a>; title=\"rel=next\"", None),
        ("<a>; rel=prev; rel=next", None),
        ("<a>; rel=nextish", None),
        ("<a>", None),
        ("a; rel=next", None),
        ("<a; rel=next", None),
        ("", None),
    ];
    for (header, target) in cases {
        assert_eq!(referrers::next(header), target, "{header}");
    }
}

#[test]
fn a_wait_is_seconds_or_a_date_by_the_servers_own_clock() {
    let date = Some("Fri, 31 Dec 1999 23:58:00 GMT");
    let cases = [
        ("120", None, Some(120)),
        (" 0 ", None, Some(0)),
        ("Fri, 31 Dec 1999 23:59:30 GMT", date, Some(90)),
        ("Fri, 31 Dec 1999 23:50:00 GMT", date, Some(0)),
        ("Fri, 31 Dec 1999 23:59:30 GMT", None, None),
        ("Fri, 31 Dec 1999 23:59:30 GMT", Some("yesterday"), None),
        ("+5", date, None),
        ("-5", date, None),
        ("1.5", date, None),
        ("99999999999999999999999", date, None),
        ("", date, None),
    ];
    for (value, date, seconds) in cases {
        assert_eq!(retry_after(value, date), seconds.map(Duration::from_secs), "{value} at {date:?}");
    }
}

#[test]
fn a_token_is_used_no_longer_than_it_lives_and_never_without_end() {
    let parse = |body: serde_json::Value| TokenReply::parse(body.to_string().as_bytes());
    let lived = [(json!({"token": "t"}), 54), (json!({"token": "t", "expires_in": 100}), 90)];
    for (body, seconds) in lived {
        assert_eq!(parse(body).unwrap().lifetime, Duration::from_secs(seconds));
    }
    assert_eq!(parse(json!({"token": "t", "expires_in": u64::MAX})).unwrap().lifetime, Duration::from_secs(270));
    assert_eq!(*parse(json!({"token": "", "access_token": "second"})).unwrap().token, "second");
    assert_eq!(*parse(json!({"token": "first", "access_token": "second"})).unwrap().token, "first");
    let refused = [
        (json!({}), TokenReplyError::NoToken),
        (json!({"token": null}), TokenReplyError::NoToken),
        (json!({"token": "two\r\nX-Other: lines"}), TokenReplyError::NoToken),
        (json!({"token": "t".repeat(limits::TOKEN + 1)}), TokenReplyError::NoToken),
        (json!({"token": 1}), TokenReplyError::Unreadable),
        (json!(["t"]), TokenReplyError::Unreadable),
    ];
    for (body, error) in refused {
        assert_eq!(parse(body.clone()), Err(error), "{body}");
    }
}

#[test]
fn names_in_a_manifest_are_short() {
    let long = "x".repeat(limits::NAME + 1);
    let digest = Digest::of(b"x");
    let manifest = json!({"schemaVersion": 2, "mediaType": long, "config": {"digest": digest}}).to_string();
    assert_eq!(Document::parse(manifest.as_bytes(), None), Err(ImageManifestError::LongMediaType));
    let config = json!({"schemaVersion": 2, "config": {"digest": digest}}).to_string();
    assert_eq!(Document::parse(config.as_bytes(), Some(&long)), Err(ImageManifestError::LongMediaType));
    // One odd entry does not make a whole index unreadable.
    let entry = json!({"digest": digest, "platform": {"os": "linux", "variant": long}});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let ManifestKind::Index { platforms } = Document::parse(index.as_bytes(), None).unwrap().kind().unwrap() else {
        panic!("an index");
    };
    assert_eq!(platforms[0].0.len(), limits::NAME);
}

#[test]
fn an_array_is_no_object() {
    let digest = Digest::of(b"x").to_string();
    let manifest = json!([2, null, null, {"digest": digest}, [], null, null]).to_string();
    assert!(matches!(Document::parse(manifest.as_bytes(), None), Err(ImageManifestError::Syntax(_))));
    let index = json!([2, null, null, null, null, [{"digest": digest}], null]).to_string();
    assert_eq!(referrers::page(index.as_bytes()), Ok(None));
    assert_eq!(TokenReply::parse(br#"["t", null, 60]"#), Err(TokenReplyError::Unreadable));
    assert_eq!(Credential::of_program(br#"["user", "secret"]"#), None);
}

fn name(text: &str) -> ImageName {
    text.parse::<ImageRef>().unwrap().name
}

#[test]
fn a_credential_program_is_told_a_short_name() {
    let program = |name: &str, server: &str| json!({"credHelpers": {server: name}}).to_string();
    let find = |config: &str| DockerConfig::parse(config).unwrap().find(&name("registry.example.com/a"));
    let server = "registry.example.com";
    let question = Question { program: "pass".to_owned(), server: server.to_owned() };
    assert_eq!(find(&program("pass", server)), Ok(Found::Program(question)));
    let long_server = format!("{server}{}", "/".repeat(limits::NAME));
    for config in [program(&"p".repeat(limits::NAME + 1), server), program("pass", &long_server)] {
        assert!(find(&config).unwrap_err().contains("more than 512 bytes"));
    }
    assert_eq!(Credential::of_program(br#"{"Username": "me"}"#), None);
}
