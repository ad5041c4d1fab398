//! What to run: by digest, with names that were recorded, and only when it is safe.

use countersign::model::{
    Digest, LogRef, Statement,
    deployment::{Deployment, History, Record, Status, Workload, WorkloadError, WorkloadKind},
};
use serde_json::json;

use super::{World, ago, deployed, deployed_by, new, old, reported, workload};

fn world(records: Vec<Record>) -> World {
    World { records, ..World::safe() }
}

#[test]
fn the_command_names_what_was_recorded() {
    let image = format!("registry.example.com/shop/web@{}", old());
    let web = workload("prod", "web", "app");
    let worker = workload("prod", "web-worker", "main");
    let runs = |index: u64, workload: &Workload| deployed_by(index, new(), Status::Live, 24, Some(workload.clone()));
    let before = || vec![deployed(1, old(), Status::Live, 48), reported(2, old(), true)];

    let unknown = world([before(), vec![deployed(3, new(), Status::Live, 24)]].concat()).answer();
    assert_eq!((unknown.command, unknown.image.as_deref()), (None, Some(image.as_str())), "nothing is guessed");

    let one = world([before(), vec![runs(3, &web)]].concat()).answer();
    let set_web = format!("kubectl --namespace prod set image deployment/web app={image}");
    assert_eq!(one.command.as_deref(), Some(set_web.as_str()));

    let two = world([before(), vec![runs(3, &web), runs(4, &worker)]].concat()).answer();
    let set_worker = format!("kubectl --namespace prod set image deployment/web-worker main={image}");
    assert_eq!(two.command, Some(format!("{set_web} && {set_worker}")), "all of them, or the rollback is half");

    // Nobody recorded what runs it now, but what ran the target then.
    let then = vec![deployed_by(1, old(), Status::Live, 48, Some(web.clone())), reported(2, old(), true)];
    let fallen_back = world([then, vec![deployed(3, new(), Status::Live, 24)]].concat()).answer();
    assert_eq!(fallen_back.command.as_deref(), Some(set_web.as_str()));

    let unsafe_now = world([before(), vec![runs(3, &web), reported(4, old(), false)]].concat()).answer();
    assert_eq!((unsafe_now.command, unsafe_now.image), (None, None), "only when it is safe");
}

/// What ran a revision long ago no longer counts when it comes to run anew.
#[test]
fn workloads_are_those_of_the_present() {
    let (web, renamed) = (workload("prod", "web", "app"), workload("prod", "shop", "app"));
    let records = [
        deployed_by(1, old(), Status::Live, 48, Some(web)),
        deployed(2, new(), Status::Live, 24),
        deployed_by(3, old(), Status::Live, 12, Some(renamed.clone())),
        deployed(4, old(), Status::Live, 11),
        deployed_by(5, old(), Status::Live, 10, Some(renamed.clone())),
    ];
    let history = History::fold(&records);
    assert_eq!(history.revision(&old()).unwrap().workloads, [renamed]);
    assert_eq!(history.running, Some(old()));
}

#[test]
fn names_of_workloads_need_no_quoting() {
    let long = "x".repeat(64);
    let good = workload("prod", "web.v2", "app-1");
    assert_eq!(good.to_string(), "Deployment prod/web.v2, container app-1");
    let table: [(&str, &str, &str, &str); 12] = [
        ("", "web", "app", "namespace"),
        ("Prod", "web", "app", "namespace"),
        ("a.b", "web", "app", "namespace"),
        (&long, "web", "app", "namespace"),
        ("prod", "", "app", "name"),
        ("prod", "web; rm -rf /", "app", "name"),
        ("prod", "$(id)", "app", "name"),
        ("prod", "-web", "app", "name"),
        ("prod", "web.", "app", "name"),
        ("prod", "web", "", "container"),
        ("prod", "web", "app=evil", "container"),
        ("prod", "web", "a\nb", "container"),
    ];
    for (namespace, name, container, field) in table {
        let refused = Workload::new(namespace, WorkloadKind::Pod, name, container).unwrap_err();
        assert_eq!(refused.0, field, "{namespace:?} {name:?} {container:?}");
    }
    assert_eq!("STATEFULSET".parse(), Ok(WorkloadKind::StatefulSet));
    for kind in ["", "Job", "deploy", "deployments"] {
        assert_eq!(kind.parse::<WorkloadKind>(), Err(WorkloadError::Kind), "{kind:?}");
    }
}

/// A workload goes into the statement and comes out of it; one that is no name is not believed from a statement either.
#[test]
fn a_workload_survives_the_log() {
    let Record::Deployment(deployment, _, time) =
        deployed_by(1, old(), Status::Live, 1, Some(workload("prod", "web", "app")))
    else {
        unreachable!()
    };
    let statement = deployment.to_statement(time).unwrap();
    assert_eq!(Deployment::from_statement(&statement).unwrap(), (deployment, time));
    let tampered = |key: &str, value: serde_json::Value| {
        let mut predicate = statement.predicate().clone();
        predicate["workload"][key] = value;
        let statement = Statement::new(statement.subjects().to_vec(), statement.predicate_type(), predicate).unwrap();
        Deployment::from_statement(&statement)
    };
    assert!(tampered("container", json!("app")).is_ok());
    for (key, value) in [("name", json!("a b")), ("kind", json!("Job")), ("namespace", json!(null))] {
        assert!(tampered(key, value).is_err(), "{key}");
    }
}

/// The order is that of the records: a log that takes over may have any name, and counts from nothing.
#[test]
fn a_history_goes_on_in_another_log() {
    let moved = |record: Record, index: u64| match record {
        Record::Deployment(deployment, _, time) => {
            Record::Deployment(deployment, LogRef { origin: "a.example.com".to_owned(), index }, time)
        }
        other => other,
    };
    let third = Digest::of(b"third");
    let mut records = vec![
        deployed(7, old(), Status::Live, 48),
        deployed(8, new(), Status::Live, 24),
        moved(deployed(0, third, Status::Live, 12), 0),
    ];
    let order = |history: &History| history.revisions.iter().map(|revision| revision.digest).collect::<Vec<_>>();
    let history = History::fold(&records);
    assert_eq!((history.running, history.newest), (Some(third), Some(third)));
    assert_eq!(order(&history), [third, new(), old()]);

    // Gone back to: live since then, and the first of those that one could go back from.
    records.push(moved(deployed(0, old(), Status::Live, 1), 1));
    let history = History::fold(&records);
    assert_eq!((history.running, order(&history)), (Some(old()), vec![old(), third, new()]));
    assert_eq!(history.revision(&old()).unwrap().live_since, Some(ago(1)));
    // Said again while it runs: still live since then.
    records.push(moved(deployed(0, old(), Status::Live, 0), 2));
    assert_eq!(History::fold(&records).revision(&old()).unwrap().live_since, Some(ago(1)));
}
