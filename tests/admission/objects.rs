//! Objects and manifests: which images are found, under which names.

use countersign::{
    admission::{Kind, ObjectError, Review},
    model::{limits, manifest, object},
};
use serde_json::{Value, json};

use super::{create, deployment, pod};

#[test]
fn every_image_field_of_every_kind_is_found() {
    let kinds = [
        ("v1", "Pod", "/spec"),
        ("v1", "ReplicationController", "/spec/template/spec"),
        ("v1", "PodTemplate", "/template/spec"),
        ("apps/v1", "Deployment", "/spec/template/spec"),
        ("apps/v1", "ReplicaSet", "/spec/template/spec"),
        ("apps/v1", "StatefulSet", "/spec/template/spec"),
        ("apps/v1", "DaemonSet", "/spec/template/spec"),
        ("batch/v1", "Job", "/spec/template/spec"),
        ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template/spec"),
    ];
    for (version, kind, root) in kinds {
        let mut object = json!({
            "containers": [{"name": "c", "image": "a"}],
            "initContainers": [{"name": "i", "image": "b"}, {"name": "empty", "image": ""}, {"name": "none"}],
            "ephemeralContainers": [{"name": "e", "image": "c"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": "d"}}, {"name": "x", "image": {}}],
        });
        for field in root.rsplit('/').filter(|field| !field.is_empty()) {
            object = json!({ field: object });
        }
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        let found = object::images(&Kind::of(&object).unwrap(), &object).unwrap();
        let mut seen: Vec<&str> = found.iter().map(|one| one.image.as_str()).collect();
        seen.sort_unstable();
        assert_eq!(seen, ["a", "b", "c", "d"], "{kind}");
        for one in &found {
            assert_eq!(object.pointer(&one.pointer), Some(&json!(one.image)), "{kind} {}", one.pointer);
        }
    }
}

#[test]
fn the_same_names_in_another_group_are_not_ours() {
    for version in ["example.com/v1", "v1", "batch/v1"] {
        let mut object = deployment(&["a"]);
        object["apiVersion"] = version.into();
        assert_eq!(object::images(&Kind::of(&object).unwrap(), &object).unwrap(), [], "{version}");
    }
}

#[test]
fn wrong_types_and_too_many_images_are_refused_by_name() {
    let kind = Kind { group: String::new(), kind: "Pod".to_owned() };
    let cases = [
        (json!({"spec": 1}), "/spec must be an object"),
        (json!({"spec": {"containers": {}}}), "/spec/containers must be a list"),
        (json!({"spec": {"containers": ["a"]}}), "/spec/containers/0 must be an object"),
        (json!({"spec": {"containers": [{"image": 1.2}]}}), "/spec/containers/0/image must be a string"),
        (json!({"spec": {"volumes": [{"image": "a"}]}}), "/spec/volumes/0/image must be an object"),
        (
            json!({"spec": {"volumes": [{"image": {"reference": []}}]}}),
            "/spec/volumes/0/image/reference must be a string",
        ),
    ];
    for (object, expected) in cases {
        assert_eq!(object::images(&kind, &object).unwrap_err().to_string(), expected);
    }
    let many = |count: usize| {
        let list: Vec<Value> = (0..count).map(|i| json!({"image": format!("a{i}")})).collect();
        json!({"spec": {"containers": list, "initContainers": [{"image": "b"}]}})
    };
    assert_eq!(object::images(&kind, &many(limits::IMAGES)).unwrap_err(), ObjectError::TooMany);
    assert_eq!(object::images(&kind, &many(limits::IMAGES + 1)).unwrap_err(), ObjectError::TooMany);
    assert_eq!(object::images(&kind, &many(limits::IMAGES - 1)).unwrap().len(), limits::IMAGES);
}

#[test]
fn service_names_are_stable_over_the_pods_of_a_workload() {
    let owned = |kind: &str, name: &str| json!([{"kind": kind, "name": name, "controller": true}]);
    let cases = [
        (json!({"labels": {"app.kubernetes.io/name": "n", "app": "a"}, "name": "x"}), Some("n")),
        (json!({"labels": {"app": "a"}, "name": "x"}), Some("a")),
        (
            json!({"labels": {"pod-template-hash": "5d4f"}, "ownerReferences": owned("ReplicaSet", "web-5d4f")}),
            Some("web"),
        ),
        (json!({"ownerReferences": owned("ReplicaSet", "web-5d4f")}), Some("web-5d4f")),
        (json!({"ownerReferences": owned("Job", "nightly-29012345")}), Some("nightly")),
        (json!({"ownerReferences": owned("StatefulSet", "db")}), Some("db")),
        (json!({"generateName": "worker-", "name": "worker-x7k2p"}), Some("worker")),
        (json!({"name": "x"}), Some("x")),
        (json!({}), None),
    ];
    for (metadata, expected) in cases {
        assert_eq!(object::service(&json!({"metadata": metadata})).as_deref(), expected, "{metadata}");
    }
}

#[test]
fn environment_is_the_label_or_the_namespace() {
    let mut object = pod(&["a"]);
    assert_eq!(create(object.clone()).environment(), "shop");
    object["metadata"]["labels"] = json!({object::ENVIRONMENT_LABEL: "production"});
    assert_eq!(create(object.clone()).environment(), "production");
    let given = Review { environment: Some("staging".to_owned()), ..create(object) };
    assert_eq!(given.environment(), "staging");
}

// Manifests.

#[test]
fn manifests_unroll_lists_and_documents() {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: apps/v1\n  kind: Deployment\n- apiVersion: v1\n  kind: Pod\n";
    let kinds: Vec<String> = manifest::parse(yaml.as_bytes())
        .unwrap()
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["Pod", "Deployment", "Pod"]);
    assert_eq!(manifest::parse(pod(&["a"]).to_string().as_bytes()).unwrap().len(), 1);
}

#[test]
fn bad_manifests_are_refused_by_name() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let deep_yaml = format!("apiVersion: v1\nkind: Pod\nx: {}1{}", "[".repeat(70), "]".repeat(70));
    let many = "apiVersion: v1\nkind: Pod\n---\n".repeat(limits::OBJECTS + 1);
    let cases: [(&str, &str); 8] = [
        ("", "the manifest has no objects"),
        ("# nothing\n", "the manifest has no objects"),
        ("a: b\n", "document 1 has no apiVersion"),
        ("apiVersion: v1\nkind: Pod\n---\n- a\n", "document 2 has no apiVersion"),
        ("a: [\n", "the manifest is neither YAML nor JSON"),
        (&deep, "nested more than 64 levels"),
        (&deep_yaml, "nested more than 64 levels"),
        (&many, "more than 256 objects"),
    ];
    for (text, expected) in cases {
        let error = manifest::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} for {text:.60}");
    }
    let long = vec![b' '; limits::DOCUMENT + 1];
    assert!(manifest::parse(&long).unwrap_err().to_string().contains("the limit is"));
    assert!(manifest::parse(&long[1..]).unwrap_err().to_string().contains("no objects"));
}
