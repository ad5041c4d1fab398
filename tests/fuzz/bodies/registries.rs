//! What registries and their token services answer, and where our credentials for them are written.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::model::{
    docker_config::{Credential, DockerConfig, Found},
    image::ImageRef,
    image_manifest::{Document, ManifestKind, OCI_IMAGE, OCI_INDEX},
    limits,
    referrers::{next, page},
    retry_after::retry_after,
    token_reply::{LONGEST_LIFETIME, TokenReply},
};
use serde_json::{Value, json};

use super::{lines, refused, text};

/// A line with the content type, which may be empty, and a manifest: what can be followed stands in the document as any
/// reader of JSON reads it, and an image is never an index.
pub fn image_manifest(data: &[u8]) -> bool {
    let (content_type, bytes) = lines(data);
    let Some(content_type) = text(content_type).map(|text| Some(text).filter(|text| !text.is_empty())) else {
        return false;
    };
    let document = match Document::parse(bytes, content_type) {
        Ok(document) => document,
        Err(error) => return refused(&error),
    };
    let media_type = document.media_type(content_type);
    assert!(media_type.len() <= limits::NAME);
    let kind = match document.kind() {
        Ok(kind) => kind,
        Err(error) => return refused(&error),
    };
    // Fields that are passed over may hold what makes no value: a number out of range, half of a character.
    let Ok(said) = serde_json::from_slice::<Value>(bytes) else { return true };
    let entries = |list: &str| said.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // Of structs serde also reads arrays, by the order of the fields.
    let nested = ["layers", "manifests"].into_iter().flat_map(entries).chain(said.get("config"));
    let nested = nested.flat_map(|entry| [Some(entry), entry.get("platform")]).flatten();
    if nested.into_iter().any(Value::is_array) {
        return true;
    }
    let runs = |entry: &&Value| {
        let unknown = |part: &str| entry.pointer(part).is_some_and(|said| said == "unknown");
        !(unknown("/platform/os") && unknown("/platform/architecture"))
    };
    let digest = |entry: &Value| entry.get("digest").cloned().unwrap_or_default();
    match kind {
        ManifestKind::Image { config, layers } => {
            assert!(media_type != OCI_INDEX && said.get("manifests").is_none_or(Value::is_null));
            assert_eq!(said.pointer("/config/digest"), Some(&json!(config)));
            assert!(entries("layers").iter().map(digest).eq(layers.iter().map(|layer| json!(layer))));
            assert!(layers.len() <= limits::IMAGE_PARTS);
        }
        ManifestKind::Index { platforms } => {
            assert!(media_type != OCI_IMAGE);
            assert!(["config", "layers"].iter().all(|part| said.get(*part).is_none_or(Value::is_null)));
            let listed = entries("manifests").iter().filter(runs).map(digest);
            assert!(listed.eq(platforms.iter().map(|(_, digest)| json!(digest))));
            assert!(platforms.iter().all(|(name, _)| (1..=limits::NAME).contains(&name.chars().count())));
            assert!(platforms.len() <= limits::IMAGE_PARTS);
        }
    }
    true
}

/// A line with a `Link` header, and a page: the next page's address stands between brackets, and is found again among other
/// links; what is listed stands on the page.
pub fn referrers(data: &[u8]) -> bool {
    let (link, body) = lines(data);
    let Some(link) = text(link) else { return false };
    if let Some(target) = next(link) {
        assert!(link.contains(&format!("<{target}>")) && !target.contains('>'));
        for again in [
            format!("<{target}>; rel=next"),
            format!("<a,b>;title=\"<c>, \\\"rel=next, \";rel=prev , <{target}>; x; REL = \"last NEXT\"; rel=prev"),
        ] {
            assert_eq!(next(&again), Some(target));
        }
        // Only the first relation of a link counts, and a part of a word is another word.
        assert_eq!(
            next(&format!("<{target}>; rel=prev; rel=next, <{target}>; rel=nextish; anchor=\"rel=next\"")),
            None
        );
    }
    let listed = match page(body) {
        Ok(Some(listed)) => listed,
        Ok(None) => return false,
        Err(error) => return refused(&error),
    };
    let Ok(said) = serde_json::from_slice::<Value>(body) else { return true };
    let entries = said.get("manifests").and_then(Value::as_array).expect("a list");
    if entries.iter().any(Value::is_array) {
        return true;
    }
    let digests = entries.iter().map(|entry| entry.get("digest").and_then(Value::as_str).expect("a digest"));
    assert!(digests.eq(listed.iter().map(|entry| entry.digest.as_str())));
    for entry in &listed {
        if let Err(error) = entry.digest() {
            refused(&error);
        }
    }
    true
}

/// `Retry-After`, and a line with `Date`: seconds are what they say, and a date waits as long as the seconds up to it.
pub fn wait(data: &[u8]) -> bool {
    let (value, date) = lines(data);
    let (Some(value), Some(date)) = (text(value), text(date)) else { return false };
    let Some(wait) = retry_after(value, Some(date)) else {
        assert_eq!(retry_after(value, None), None);
        return false;
    };
    assert_eq!(retry_after(&wait.as_secs().to_string(), None), Some(wait));
    let value = value.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        let plain = value.trim_start_matches('0');
        assert_eq!(if plain.is_empty() { "0" } else { plain }, wait.as_secs().to_string());
    } else {
        assert_eq!(retry_after(value, None), None);
        assert_eq!(retry_after(value, Some(value)), Some(Duration::ZERO));
        let at = |text: &str| jiff::fmt::rfc2822::parse(text).expect("a date").timestamp().as_second();
        assert_eq!(i64::try_from(wait.as_secs()), Ok((at(value) - at(date)).max(0)));
    }
    true
}

/// Answers of token services: a token stands in them, fits into a header and is not used for long.
pub fn token_reply(data: &[u8]) -> bool {
    let reply = match TokenReply::parse(data) {
        Ok(reply) => reply,
        Err(error) => return refused(&error),
    };
    let token = reply.token.as_str();
    assert!((1..=limits::TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(reply.lifetime < LONGEST_LIFETIME && format!("{reply:?}") == "TokenReply(..)");
    let again = json!({ "new": [], "token": "", "access_token": token, "expires_in": reply.lifetime.as_secs() });
    let again = TokenReply::parse(again.to_string().as_bytes()).expect("a token");
    assert_eq!(again.token, reply.token);
    assert!(again.lifetime <= reply.lifetime, "{again:?}");
    if let Ok(said) = serde_json::from_slice::<Value>(data) {
        let said = ["token", "access_token"].map(|name| said.get(name).and_then(Value::as_str).unwrap_or_default());
        assert_eq!(said.into_iter().find(|token| !token.is_empty()), Some(token));
    }
    true
}

/// A line with an image, and docker's configuration: what is found for the image is found again where docker itself would
/// write it, is not shown, and is as short as its readers need. What is no configuration may be a program's answer.
pub fn docker_config(data: &[u8]) -> bool {
    let (image, config) = lines(data);
    let Some(image) = text(image).and_then(|image| image.parse::<ImageRef>().ok()) else { return false };
    let Some(config) = text(config) else { return false };
    if let Some(answer) = Credential::of_program(config.as_bytes()) {
        is_written_again(&answer, &image);
    }
    let found = match DockerConfig::parse(config) {
        Ok(parsed) => parsed.find(&image.name),
        Err(line) => {
            assert!(line <= config.lines().count() + 1);
            return false;
        }
    };
    match found {
        Ok(Found::Nothing) => {}
        Ok(Found::Program(question)) => {
            assert!(question.program.len() <= limits::NAME && question.server.len() <= limits::NAME);
        }
        Ok(Found::Credential(credential)) => is_written_again(&credential, &image),
        Err(problem) => return refused(&problem),
    }
    true
}

fn is_written_again(credential: &Credential, image: &ImageRef) {
    let registry = &image.name.registry;
    let key = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let entry = match credential {
        Credential::IdentityToken(token) if token.is_empty() => return,
        Credential::IdentityToken(token) => json!({ "auth": "", "identitytoken": token.as_str() }),
        Credential::Password { user, password } => {
            let basic = credential.basic().expect("a password");
            let pair = format!("{user}:{}", password.as_str());
            assert_eq!(STANDARD.decode(&basic["Basic ".len()..]).as_deref(), Ok(pair.as_bytes()));
            // What cannot be told apart in one text: where the name ends, and how the text was filled up.
            if user.contains(':') || password.ends_with('\0') {
                return;
            }
            json!({ "auth": STANDARD.encode(pair) })
        }
    };
    assert!(["Password(..)", "IdentityToken(..)"].contains(&format!("{credential:?}").as_str()));
    // What stands for this repository goes before what stands for its registry.
    let own = format!("{registry}/{}", image.name.repository);
    let other = json!({ "username": "other", "password": "other" });
    for auths in [json!({ "other.example.com": {}, key: entry }), json!({ key: other, &own: entry })] {
        let config = json!({ "auths": auths, "credsStore": "desktop" });
        let config = DockerConfig::parse(&config.to_string()).expect("a configuration");
        assert_eq!(config.find(&image.name), Ok(Found::Credential(credential.clone())));
    }
}
