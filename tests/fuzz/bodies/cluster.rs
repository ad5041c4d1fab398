//! What a cluster and its users send: admission reviews, and manifests of Kubernetes objects.

use std::time::Duration;

use countersign::model::{
    limits,
    manifest::{self, Pin},
    object::{self, Kind},
    review::{self, Operation, Phase},
    timeout::timeout_of,
};
use serde_json::{Value, json};

use super::{refused, text};

/// Manifests: an image stands where it is said to stand, pinning changes it and nothing else, and what is written reads the
/// same.
pub fn manifest(data: &[u8]) -> bool {
    let objects = match manifest::parse(data) {
        Ok(objects) => objects,
        Err(error) => return refused(&error),
    };
    assert!((1..=limits::OBJECTS).contains(&objects.len()));
    objects.iter().for_each(is_pinned_in_place);
    let written = manifest::write(&objects).expect("objects can be written");
    if written.len() <= limits::DOCUMENT {
        assert_eq!(manifest::parse(written.as_bytes()).expect("what was written can be read"), objects, "{written}");
    }
    true
}

fn is_pinned_in_place(object: &Value) {
    let kind = Kind::of(object).expect("a kind");
    let uses = match object::images(&kind, object) {
        Ok(uses) => uses,
        Err(error) => {
            refused(&error);
            return;
        }
    };
    assert!(uses.len() <= limits::IMAGES);
    if let Some(main) = object::main_image(&kind, object, &uses) {
        assert!(uses.contains(main));
    }
    if let Some(service) = object::service(object) {
        assert!((1..=limits::NAME).contains(&service.len()));
    }
    let pins = |image: &dyn Fn(&str) -> String| -> Vec<Pin> {
        uses.iter().map(|one| Pin { pointer: one.pointer.clone(), image: image(&one.image) }).collect()
    };
    let pinned = |image: &str| format!("{image}@pinned");
    let mut changed = object.clone();
    manifest::pin(&mut changed, &pins(&pinned));
    let mut expected = uses.clone();
    for one in &mut expected {
        one.image = pinned(&one.image);
    }
    assert_eq!(object::images(&kind, &changed), Ok(expected));
    manifest::pin(&mut changed, &pins(&str::to_owned));
    assert_eq!(changed, *object);
}

/// Admission reviews: what is understood is what any reader of JSON reads, written again it is the same question, and one
/// that cannot be read is answered under its own id.
pub fn review(data: &[u8]) -> bool {
    let read = match review::parse(data, Phase::Both) {
        Ok(read) => read,
        Err((uid, error)) => {
            let said = serde_json::from_slice::<Value>(data).unwrap_or_default();
            let own = said.pointer("/request/uid").and_then(Value::as_str).filter(|own| own.len() <= limits::NAME);
            assert_eq!(own.unwrap_or_default(), uid);
            return refused(&error);
        }
    };
    let operation = match read.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    };
    assert!((1..=limits::NAME).contains(&read.uid.len()) && read.user.groups.len() <= review::GROUPS);
    assert!([&read.object, &read.old_object].iter().all(|object| object.is_object() || object.is_null()));
    assert!(!read.object.is_null() || ["DELETE", "CONNECT"].contains(&operation));
    assert!(!read.namespace().is_empty() && !read.environment().is_empty());
    if let Ok(said) = serde_json::from_slice::<Value>(data) {
        let said = |pointer: &str| said.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(
            (said("/request/object"), said("/request/oldObject")),
            (read.object.clone(), read.old_object.clone())
        );
        assert_eq!((said("/request/uid"), said("/request/operation")), (json!(read.uid), json!(operation)));
        let text = |pointer: &str| said(pointer).as_str().unwrap_or_default().to_owned();
        let kind = [text("/request/kind/group"), text("/request/kind/kind"), text("/request/subResource")];
        assert_eq!(kind, [&*read.kind.group, &*read.kind.kind, &*read.subresource]);
        assert_eq!(said("/request/namespace"), json!(read.namespace));
        assert_eq!(said("/request/dryRun").as_bool().unwrap_or_default(), read.dry_run);
        assert_eq!(text("/request/userInfo/username"), read.user.name);
        let groups = said("/request/userInfo/groups");
        assert_eq!(
            groups.as_array().cloned().unwrap_or_default(),
            json!(read.user.groups).as_array().cloned().unwrap()
        );
    }
    let again = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "new": 1,
        "request": {
            "uid": read.uid, "operation": operation, "kind": { "group": read.kind.group, "kind": read.kind.kind },
            "subResource": read.subresource, "namespace": read.namespace, "dryRun": read.dry_run,
            "object": read.object, "oldObject": read.old_object,
            "userInfo": { "username": read.user.name, "groups": read.user.groups },
        },
    });
    let again = review::parse(again.to_string().as_bytes(), Phase::Both).expect("a review");
    assert_eq!(again, read);
    true
}

/// Query strings: a timeout is no longer than Kubernetes may set, and in nanoseconds it is the same.
pub fn timeout(data: &[u8]) -> bool {
    let Some(query) = text(data) else { return false };
    let timeout = match timeout_of(query) {
        Ok(timeout) => timeout,
        Err(error) => return refused(&error),
    };
    assert!(timeout > Duration::ZERO && timeout <= Duration::from_secs(30));
    for again in [format!("timeout={}ns&{query}", timeout.as_nanos()), format!("a=b&timeout={}ns", timeout.as_nanos())]
    {
        assert_eq!(timeout_of(&again), Ok(timeout));
    }
    assert!(query.contains("timeout=") || timeout == Duration::from_secs(10));
    let long = Duration::from_secs(30);
    let units = [("ms", Duration::from_millis(1)), ("s", Duration::from_secs(1)), ("m", Duration::from_mins(1))];
    for (unit, length) in units {
        let count = query.strip_prefix("timeout=").and_then(|text| text.strip_suffix(unit)?.parse::<u16>().ok());
        if let Some(count) = count.filter(|count| *count > 0) {
            assert_eq!(timeout, (length * u32::from(count)).min(long));
        }
    }
    true
}
