//! gRPC, the shell, and what is deployed.

use std::sync::Arc;

use countersign::{
    admission::{Kind, Settings},
    cli,
    grpc::{
        self,
        auth::Authenticated,
        v1::{self, admission_service_server::AdmissionService as _},
    },
    identity::Refusal,
    model::{Caller, Extensions, Identity, Role, limits, manifest},
};
use serde_json::{Value, json};

use super::{annotated, deployment, digest, door, glass_settings, image, now, pinned, pod, world};

fn caller(roles: &[Role]) -> Authenticated {
    let identity = Identity { subject: "ci@example.com".to_owned(), issuer: "https://issuer.example".to_owned() };
    Authenticated(Ok(Caller {
        identity,
        roles: roles.iter().copied().collect(),
        extensions: Extensions::default(),
        keys: [].into(),
    }))
}

async fn admit(request: v1::AdmitRequest, who: Authenticated) -> Result<v1::AdmitResponse, tonic::Status> {
    let face = grpc::admission::Face::new(Arc::new(door(world(), glass_settings()).0), now);
    let mut request = tonic::Request::new(request);
    request.extensions_mut().insert(who);
    face.admit(request).await.map(tonic::Response::into_inner)
}

fn manifest_of(objects: &[Value]) -> v1::AdmitRequest {
    v1::AdmitRequest { manifest: manifest::write(objects).unwrap().into(), ..v1::AdmitRequest::default() }
}

#[tokio::test]
async fn admit_answers_for_every_object_of_a_manifest() {
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let mut objects = vec![pod(&[&image("signed")]), config, deployment(&[&image("signed"), &image("bare")])];
    let answer = admit(manifest_of(&objects), caller(&[Role::Verifier])).await.unwrap();
    assert_eq!((answer.allowed, answer.decision()), (false, v1::Decision::Deny));
    let each: Vec<_> =
        answer.objects.iter().map(|one| (one.kind.as_str(), one.allowed, one.namespace.as_str())).collect();
    assert_eq!(each, [("Pod", true, "shop"), ("ConfigMap", true, "default"), ("Deployment", false, "shop")]);
    assert_eq!(answer.objects[2].outcome, "no-evidence");
    assert_eq!(answer.objects[0].images[0].digest, digest("team/signed").to_string());
    // What the shell makes of it.
    cli::admit::pin(&mut objects, &answer);
    assert_eq!(objects[0], pod(&[&pinned("signed")]));
    assert_eq!(objects[2], deployment(&[&image("signed"), &image("bare")]), "what is refused is not pinned");
    let text = cli::admit::text(&answer);
    for expected in [
        "ALLOW    pod/p in shop",
        "DENY     deployment/web in shop",
        "SIGNATURE_MISSING: nobody signs it",
        "to do: ask",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    let json = cli::admit::to_json(&answer);
    assert_eq!(
        (&json["decision"], &json["objects"][2]["images"][1]["reasons"][0]["code"]),
        (&json!("deny"), &json!("SIGNATURE_MISSING"))
    );
}

#[tokio::test]
async fn admit_refuses_bad_fields_and_missing_roles_by_name() {
    let good = manifest_of(&[pod(&[&image("signed")])]);
    let long = "n".repeat(limits::NAME + 1);
    let cases = [
        (v1::AdmitRequest::default(), "manifest: the manifest has no objects"),
        (v1::AdmitRequest { namespace: long.clone(), ..good.clone() }, "namespace: longer than"),
        (v1::AdmitRequest { environment: long.clone(), ..good.clone() }, "environment: longer than"),
        (v1::AdmitRequest { user: long.clone(), ..good.clone() }, "user: longer than"),
        (v1::AdmitRequest { groups: vec![long], ..good.clone() }, "groups: longer than"),
        (v1::AdmitRequest { groups: vec![String::new(); 1_025], ..good.clone() }, "groups: more than"),
    ];
    for (request, expected) in cases {
        let status = admit(request, caller(&[Role::Operator])).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(expected), "{}", status.message());
    }
    for role in Role::ALL {
        let may = [Role::Verifier, Role::Deployer, Role::Operator, Role::Admin].contains(&role);
        assert_eq!(admit(good.clone(), caller(&[role])).await.is_ok(), may, "{role}");
    }
    let nobody = admit(good, Authenticated(Err(Refusal::Expired))).await.unwrap_err();
    assert_eq!(nobody.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn admit_asks_as_someone_and_leaves_nothing_behind() {
    let (door, asked) = door(world(), glass_settings());
    let face = grpc::admission::Face::new(Arc::new(door), now);
    let ask = async |user: &str| {
        let object = annotated(deployment(&[&image("bare")]), "why");
        let mut request = tonic::Request::new(v1::AdmitRequest { user: user.to_owned(), ..manifest_of(&[object]) });
        request.extensions_mut().insert(caller(&[Role::Deployer]));
        face.admit(request).await.unwrap().into_inner()
    };
    let answer = ask("alice").await;
    assert_eq!((answer.allowed, answer.decision()), (true, v1::Decision::Deny));
    assert!(!ask("bob").await.allowed);
    assert_eq!((asked.glasses.lock().unwrap().len(), asked.recorded.lock().unwrap().len()), (0, 0));
}

// What is deployed.

#[test]
fn the_webhook_configuration_covers_every_kind_that_is_judged() {
    let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/webhook.yaml")).unwrap();
    let objects = manifest::parse(&text).unwrap();
    let hook = |kind: &str| &objects.iter().find(|object| object["kind"] == kind).unwrap()["webhooks"][0];
    let resources = |hook: &Value| -> Vec<(String, String)> {
        let rules = hook["rules"].as_array().unwrap().iter();
        rules
            .flat_map(|rule| {
                let group = rule["apiGroups"][0].as_str().unwrap().to_owned();
                let names = rule["resources"].as_array().unwrap().clone();
                names.into_iter().map(move |name| (group.clone(), name.as_str().unwrap().to_owned()))
            })
            .collect()
    };
    let validated = resources(hook("ValidatingWebhookConfiguration"));
    for (group, resource, kind) in [
        ("", "pods", "Pod"),
        ("", "pods/ephemeralcontainers", "Pod"),
        ("", "replicationcontrollers", "ReplicationController"),
        ("", "podtemplates", "PodTemplate"),
        ("apps", "deployments", "Deployment"),
        ("apps", "replicasets", "ReplicaSet"),
        ("apps", "statefulsets", "StatefulSet"),
        ("apps", "daemonsets", "DaemonSet"),
        ("batch", "jobs", "Job"),
        ("batch", "cronjobs", "CronJob"),
    ] {
        assert!(validated.contains(&(group.to_owned(), resource.to_owned())), "{resource}");
        assert!(Kind { group: group.to_owned(), kind: kind.to_owned() }.pod_spec().is_some(), "{kind}");
    }
    assert_eq!(validated.len(), 10);
    assert!(
        resources(hook("MutatingWebhookConfiguration"))
            .contains(&(String::new(), "pods/ephemeralcontainers".to_owned()))
    );
    for (kind, side_effects, path) in [
        ("ValidatingWebhookConfiguration", "NoneOnDryRun", "/validate"),
        ("MutatingWebhookConfiguration", "None", "/mutate"),
    ] {
        let hook = hook(kind);
        assert_eq!(
            (&hook["sideEffects"], &hook["clientConfig"]["service"]["path"]),
            (&json!(side_effects), &json!(path))
        );
        let left_out = &hook["namespaceSelector"]["matchExpressions"][0]["values"];
        let exempt: Vec<Value> = Settings::default().exempt_namespaces.into_iter().map(Value::from).collect();
        assert_eq!(left_out, &Value::Array(exempt), "the service exempts the namespaces that the selector leaves out");
    }
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let config: toml::Table = config["data"]["countersign.toml"].as_str().unwrap().parse().unwrap();
    let settings: Settings = config["admission"].clone().try_into().unwrap();
    assert_eq!(settings.exempt_namespaces, Settings::default().exempt_namespaces);
}

#[test]
fn the_exit_code_says_what_would_happen() {
    let object = |allowed, decision: v1::Decision| v1::AdmittedObject {
        allowed,
        decision: decision.into(),
        ..v1::AdmittedObject::default()
    };
    let (allow, warned) = (object(true, v1::Decision::Allow), object(true, v1::Decision::Deny));
    let (deny, unknown) = (object(false, v1::Decision::Deny), object(false, v1::Decision::Unknown));
    for (objects, expected) in [
        (vec![allow.clone(), warned], 0),
        (vec![allow.clone(), unknown.clone()], 2),
        (vec![unknown, deny.clone()], 1),
        (vec![deny, allow], 1),
    ] {
        let answer = v1::AdmitResponse { objects, ..v1::AdmitResponse::default() };
        assert_eq!(cli::admit::exit_code(&answer), expected);
    }
}

#[test]
fn no_escape_sequence_reaches_the_terminal() {
    let object = v1::AdmittedObject { name: "a\u{1b}[2Jb".to_owned(), ..v1::AdmittedObject::default() };
    let text = cli::admit::text(&v1::AdmitResponse { objects: vec![object], ..v1::AdmitResponse::default() });
    assert!(text.contains("a\u{fffd}[2Jb"), "{text:?}");
}

#[test]
fn the_flags_fit_together() {
    #[derive(Debug, clap::Parser)]
    struct Shell {
        #[command(flatten)]
        args: cli::admit::Args,
    }
    <Shell as clap::CommandFactory>::command().debug_assert();
    let parse = |line: &str| <Shell as clap::Parser>::try_parse_from(line.split(' '));
    assert!(parse("admit -f - -n shop --as alice --as-group sre --as-group dev --mutate").is_ok());
    assert!(parse("admit -n shop").is_err(), "a manifest is required");
}
