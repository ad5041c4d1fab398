//! `LogService`, through its face: what it answers, what it refuses, and by which name.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    grpc::{
        auth::Authenticated,
        log::LogFace,
        v1::{self, log_service_server::LogService as _},
    },
    log::facts::Facts,
    model::{Caller, Digest, Extensions, Role, Statement, Subject, predicate},
    tlog::{Checkpoint, Receipt, check_consistency, check_inclusion, leaf_hash},
};
use tokio::sync::watch::Sender;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use super::library::{CUSTOM, Library, Said, at, identity};

/// A request of somebody who holds `roles`.
pub fn from<T>(who: &str, roles: &[Role], message: T) -> Request<T> {
    let mut request = Request::new(message);
    let identity = identity(who, "https://issuer.test");
    let (roles, extensions) = (roles.iter().copied().collect(), Extensions::default());
    request.extensions_mut().insert(Authenticated(Ok(Caller { identity, roles, extensions, keys: [].into() })));
    request
}

pub fn auditor<T>(message: T) -> Request<T> {
    from("auditor@x.test", &[Role::Auditor], message)
}

/// A face, and the switch that sends its watchers home.
pub fn face(library: &Library) -> (LogFace, Sender<bool>) {
    let stop = Sender::new(false);
    (LogFace::new(library.logs(), stop.subscribe()), stop)
}

fn hashes(list: &[impl AsRef<[u8]>]) -> Vec<[u8; 32]> {
    list.iter().map(|hash| hash.as_ref().try_into().unwrap()).collect()
}

async fn library() -> Library {
    let mut library = Library::new();
    let said = |n: usize| Said {
        predicate_type: if n.is_multiple_of(2) { CUSTOM } else { predicate::SIGN },
        time: if n > 4 { at(n) } else { None },
        ..Said::default()
    };
    library.add((0..20).map(said)).await;
    library
}

#[tokio::test]
async fn entries_proofs_and_summaries_fit_together() {
    let library = library().await;
    let (face, _stop) = face(&library);
    let head = face.get_checkpoint(auditor(v1::GetCheckpointRequest::default())).await.unwrap().into_inner();
    let checkpoint = Checkpoint::verify(&head.checkpoint, library.log.key()).unwrap();
    assert_eq!((checkpoint.size, head.size, head.root.to_vec()), (21, 21, checkpoint.root.to_vec()));
    assert_eq!(head.verifier_key, library.log.key().vkey());
    for with_payload in [true, false] {
        let request = auditor(v1::GetEntryRequest { index: 9, with_payload, ..Default::default() });
        let answer = face.get_entry(request).await.unwrap().into_inner();
        let (entry, receipt, summary) = (answer.entry.unwrap(), answer.receipt.unwrap(), answer.summary.unwrap());
        let proof = hashes(&receipt.proof);
        check_inclusion(&leaf_hash(&entry.leaf), 9, checkpoint.size, &proof, &checkpoint.root).unwrap();
        let kept = library.log.entry(9).unwrap();
        assert_eq!(entry.payload, if with_payload { kept.payload.clone().unwrap() } else { vec![] });
        let facts = Facts::of(&kept.leaf, kept.payload.as_deref());
        assert_eq!((summary.time.as_str(), summary.predicate_type.as_str()), ("2023-11-14T22:13:28Z", CUSTOM));
        assert_eq!(summary.signer.unwrap().subject, "ci@x.test");
        assert_eq!(summary.subjects[0].digest, Digest::of(b"app").to_string());
        assert_eq!((summary.subject_count, summary.has_payload), (1, true));
        assert_eq!(summary.recorded_digest, facts.recorded.unwrap().to_string());
    }
    let request = auditor(v1::GetInclusionProofRequest { index: 20, ..Default::default() });
    let receipt = face.get_inclusion_proof(request).await.unwrap().into_inner().receipt.unwrap();
    let leaf = leaf_hash(&library.log.entry(20).unwrap().leaf);
    check_inclusion(&leaf, 20, 21, &hashes(&receipt.proof), &checkpoint.root).unwrap();
    for from_size in 0..=21 {
        for to_size in from_size.max(1)..=21 {
            let request = auditor(v1::GetConsistencyProofRequest { from_size, to_size, ..Default::default() });
            let answer = face.get_consistency_proof(request).await.unwrap().into_inner();
            let (from, to) = (&hashes(&[answer.from_root])[0], &hashes(&[answer.to_root])[0]);
            check_consistency(from_size, from, to_size, to, &hashes(&answer.proof)).unwrap();
            assert_eq!(*to, library.log.root_at(to_size).unwrap());
        }
    }
}

#[tokio::test]
async fn search_answers_with_indexes_summaries_and_how_far_it_looked() {
    let library = library().await;
    let (face, _stop) = face(&library);
    let filter = v1::EntryFilter { predicate_type: Some(CUSTOM.to_owned()), ..Default::default() };
    let request =
        v1::SearchRequest { filter: Some(filter.clone()), limit: 4, with_summaries: true, ..Default::default() };
    let first = face.search(auditor(request.clone())).await.unwrap().into_inner();
    assert_eq!((first.indexes.as_slice(), first.complete_to_size), ([1, 3, 5, 7].as_slice(), 21));
    assert_eq!(first.summaries.iter().map(|summary| summary.index).collect::<Vec<_>>(), first.indexes);
    assert!(first.summaries.iter().all(|summary| summary.predicate_type == CUSTOM));
    let next = v1::SearchRequest { from_index: first.next_index, ..request.clone() };
    let second = face.search(auditor(next)).await.unwrap().into_inner();
    assert_eq!(second.indexes, [9, 11, 13, 15]);
    let newest = v1::SearchRequest { newest_first: true, limit: 100, with_summaries: false, ..request.clone() };
    let newest = face.search(auditor(newest)).await.unwrap().into_inner();
    assert_eq!(newest.indexes, [19, 17, 15, 13, 11, 9, 7, 5, 3, 1]);
    assert_eq!((newest.next_index, newest.summaries.len()), (None, 0));
    let since = v1::EntryFilter { since: Some("2023-11-14T22:13:30.5Z".to_owned()), ..filter };
    let timed = v1::SearchRequest { filter: Some(since.clone()), ..Default::default() };
    let timed = face.search(auditor(timed)).await.unwrap().into_inner();
    // Second 10 belongs to entry 11, and half a second later it is over.
    assert_eq!((timed.indexes.as_slice(), timed.without_time), ([13, 15, 17, 19].as_slice(), 3));
    let until = v1::EntryFilter { until: Some("2023-11-14T22:13:34Z".to_owned()), ..since };
    let timed = v1::SearchRequest { filter: Some(until), ..Default::default() };
    assert_eq!(face.search(auditor(timed)).await.unwrap().into_inner().indexes, [13]);
    let everything = face.search(auditor(v1::SearchRequest::default())).await.unwrap().into_inner();
    assert_eq!(everything.indexes, (0..21).collect::<Vec<_>>());
    let beyond = v1::SearchRequest { from_index: Some(21), ..Default::default() };
    let beyond = face.search(auditor(beyond)).await.unwrap().into_inner();
    assert_eq!((beyond.indexes.len(), beyond.next_index, beyond.complete_to_size), (0, None, 21));
}

/// A page of summaries stays below what clients accept, and the next one goes on behind it.
#[tokio::test]
async fn a_page_of_large_summaries_ends_early() {
    let mut library = Library::new();
    let subject =
        |n: usize| Subject { name: format!("r.test/{}:v{n}", "a".repeat(480)), digest: Digest::of(&n.to_be_bytes()) };
    let mut drafts = Vec::new();
    for n in 0..400_usize {
        let mut draft = library.draft(&Said::default(), n);
        let subjects = (0..20).map(|part| subject(n * 20 + part)).collect();
        let statement = Statement::new(subjects, CUSTOM, serde_json::json!({})).unwrap().to_json();
        let mut bundle: serde_json::Value = serde_json::from_slice(&draft.payload).unwrap();
        bundle["dsseEnvelope"]["payload"] = STANDARD.encode(statement).into();
        draft.payload = bundle.to_string().into_bytes();
        drafts.push(draft);
    }
    library.log.append(drafts).await.unwrap();
    library.said.clear();
    let (face, _stop) = face(&library);
    for newest_first in [false, true] {
        let mut request = v1::SearchRequest { limit: 1_000, newest_first, with_summaries: true, ..Default::default() };
        let (mut indexes, mut pages) = (Vec::new(), 0);
        loop {
            let page = face.search(auditor(request.clone())).await.unwrap().into_inner();
            assert!(prost::Message::encoded_len(&page) < 3 * 1024 * 1024);
            assert_eq!(page.summaries.len(), page.indexes.len());
            assert!(
                page.summaries
                    .iter()
                    .all(|one| one.subject_count < 2 || (one.subjects.len(), one.subject_count) == (16, 20))
            );
            indexes.extend(page.indexes);
            pages += 1;
            request.from_index = page.next_index;
            if page.next_index.is_none() {
                break;
            }
        }
        let mut expected: Vec<u64> = (0..401).collect();
        if newest_first {
            expected.reverse();
        }
        assert_eq!(indexes, expected);
        assert!((2..10).contains(&pages), "{pages} pages");
    }
}

/// Two logs, of which the second took over: each is asked by its origin, the present one without.
#[tokio::test]
async fn every_log_of_the_instance_can_be_asked() {
    let mut library = library().await;
    let logs = library.logs();
    let stop = Sender::new(false);
    let face = LogFace::new(logs.clone(), stop.subscribe());
    let first = library.log.origin().to_owned();
    logs.succeed(library.another("log2.test")).unwrap();
    library.log = logs.present();
    library.said.clear();
    library.add((0..2).map(|_| Said::default())).await;
    for (origin, is, size, successor) in
        [("", "log2.test", 3, ""), ("log2.test", "log2.test", 3, ""), (&first, &first, 21, "log2.test")]
    {
        let origin = origin.to_owned();
        let head = v1::GetCheckpointRequest { origin: origin.clone() };
        let head = face.get_checkpoint(auditor(head)).await.unwrap().into_inner();
        assert_eq!((head.origin.as_str(), head.size, head.successor.as_str()), (is, size, successor));
        assert_eq!(head.origins, [first.as_str(), "log2.test"]);
        let log = logs.of(is).unwrap();
        Checkpoint::verify(&head.checkpoint, log.key()).unwrap();
        let request = v1::GetEntryRequest { index: 2, origin: origin.clone(), ..Default::default() };
        let entry = face.get_entry(auditor(request)).await.unwrap().into_inner();
        assert_eq!(entry.entry.unwrap().leaf, log.entry(2).unwrap().leaf);
        let request = v1::GetInclusionProofRequest { index: 2, origin: origin.clone() };
        let proof = face.get_inclusion_proof(auditor(request)).await.unwrap().into_inner().receipt.unwrap();
        assert_eq!(proof.tree_size, size);
        let request = v1::GetConsistencyProofRequest { from_size: 2, to_size: 0, origin: origin.clone() };
        assert_eq!(face.get_consistency_proof(auditor(request)).await.unwrap().into_inner().to_size, size);
        let request = v1::SearchRequest { origin: origin.clone(), limit: 1_000, ..Default::default() };
        let found = face.search(auditor(request)).await.unwrap().into_inner();
        assert_eq!((found.indexes.len() as u64, found.complete_to_size), (size, size));
        let request = v1::GetReceiptRequest { index: 2, origin: origin.clone() };
        let receipt = face.get_receipt(auditor(request)).await.unwrap().into_inner();
        let included =
            receipt.receipt.parse::<Receipt>().unwrap().verify(&leaf_hash(&receipt.leaf), log.key()).unwrap();
        assert_eq!((included.index(), included.checkpoint().size), (2, size));
    }
    let other = || "other.test".to_owned();
    let refusals = [
        face.get_checkpoint(auditor(v1::GetCheckpointRequest { origin: other() })).await.map(drop),
        face.get_entry(auditor(v1::GetEntryRequest { origin: other(), ..Default::default() })).await.map(drop),
        face.get_inclusion_proof(auditor(v1::GetInclusionProofRequest { index: 0, origin: other() })).await.map(drop),
        face.get_receipt(auditor(v1::GetReceiptRequest { index: 0, origin: other() })).await.map(drop),
        face.get_consistency_proof(auditor(v1::GetConsistencyProofRequest { origin: other(), ..Default::default() }))
            .await
            .map(drop),
        face.search(auditor(v1::SearchRequest { origin: other(), ..Default::default() })).await.map(drop),
        face.watch(auditor(v1::WatchRequest { origin: other(), ..Default::default() })).await.map(drop),
    ];
    for refusal in refusals {
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.code(), Code::NotFound);
        assert!(refusal.message().contains(&format!("it has {first}, log2.test")), "{}", refusal.message());
    }
}

fn filter(change: impl FnOnce(&mut v1::EntryFilter)) -> v1::EntryFilter {
    let mut filter = v1::EntryFilter::default();
    change(&mut filter);
    filter
}

#[tokio::test]
async fn bad_fields_are_refused_by_name() {
    let library = library().await;
    let (face, _stop) = face(&library);
    let long = |length: usize| Some("a".repeat(length));
    let text = |text: &str| Some(text.to_owned());
    let signer = |subject: &str, issuer: &str| {
        Some(v1::SignerIdentity { subject: subject.to_owned(), issuer: issuer.to_owned() })
    };
    let place = |service: &str, environment: &str| {
        Some(v1::ServiceEnvironment { service: service.to_owned(), environment: environment.to_owned() })
    };
    let uri = "u".repeat(1_025);
    let name = "n".repeat(513);
    let filters = [
        (filter(|f| f.digest = text("")), "filter.digest", "sha256"),
        (filter(|f| f.digest = text("sha512:00")), "filter.digest", "sha256"),
        (filter(|f| f.digest = text(&Digest::of(b"").to_string().to_uppercase())), "filter.digest", "sha256"),
        (filter(|f| f.name = text("")), "filter.name", "empty"),
        (filter(|f| f.name = long(513)), "filter.name", "513 bytes; the limit is 512"),
        (filter(|f| f.identity = signer("", "https://i.test")), "filter.identity.subject", "empty"),
        (filter(|f| f.identity = signer("a@x.test", "")), "filter.identity.issuer", "empty"),
        (filter(|f| f.identity = signer(&uri, "https://i.test")), "filter.identity.subject", "1025"),
        (filter(|f| f.identity = signer("a@x.test", &uri)), "filter.identity.issuer", "1025"),
        (filter(|f| f.issuer = text("")), "filter.issuer", "empty"),
        (filter(|f| f.issuer = long(1_025)), "filter.issuer", "1025"),
        (filter(|f| f.predicate_type = text("")), "filter.predicate_type", "empty"),
        (filter(|f| f.predicate_type = long(1_025)), "filter.predicate_type", "1025"),
        (filter(|f| f.repository = text("")), "filter.repository", "registry/repository"),
        (filter(|f| f.repository = text("nginx")), "filter.repository", "docker.io/library/nginx"),
        (filter(|f| f.repository = text("r.test/app:v1")), "filter.repository", "tag"),
        (filter(|f| f.repository = text(&format!("r.test/app@{}", Digest::of(b"")))), "filter.repository", "digest"),
        (filter(|f| f.repository = text("r.test/not an image")), "filter.repository", "registry/repository"),
        (filter(|f| f.repository = text(&format!("r.test/{name}"))), "filter.repository", "registry/repository"),
        (filter(|f| f.service = place("", "production")), "filter.service.service", "empty"),
        (filter(|f| f.service = place("shop", "")), "filter.service.environment", "empty"),
        (filter(|f| f.service = place(&name, "production")), "filter.service.service", "513"),
        (filter(|f| f.service = place("shop", &name)), "filter.service.environment", "513"),
        (filter(|f| f.since = text("")), "filter.since", "2026-01-31T12:00:00Z"),
        (filter(|f| f.since = text("yesterday")), "filter.since", "2026-01-31T12:00:00Z"),
        (filter(|f| f.since = long(65)), "filter.since", "65 bytes"),
        (filter(|f| f.until = text("2026-13-01T00:00:00Z")), "filter.until", "2026-01-31T12:00:00Z"),
        (
            filter(|f| (f.since, f.until) = (text("2026-01-02T00:00:00Z"), text("2026-01-02T00:00:00Z"))),
            "filter.until",
            "later than since",
        ),
        (filter(|f| f.until = text("1960-01-01T00:00:00Z")), "filter.until", "later than since"),
    ];
    for (filter, field, word) in filters {
        let search = v1::SearchRequest { filter: Some(filter.clone()), ..Default::default() };
        let watch = v1::WatchRequest { filter: Some(filter), ..Default::default() };
        let refusals = [
            face.search(auditor(search)).await.map(drop).unwrap_err(),
            face.watch(auditor(watch)).await.map(drop).unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.code(), Code::InvalidArgument, "{field} {word}: {refusal:?}");
            assert!(refusal.message().contains(word), "{field} {word}: {}", refusal.message());
            let violations = refusal.get_details_bad_request().unwrap().field_violations;
            assert_eq!(violations[0].field, field, "{word}");
        }
    }
    let over = v1::SearchRequest { limit: 1_001, ..Default::default() };
    let refusal = face.search(auditor(over)).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, "limit: at most 1000"));
    for index in [21, u64::MAX] {
        let entry = v1::GetEntryRequest { index, ..Default::default() };
        assert_eq!(face.get_entry(auditor(entry)).await.unwrap_err().code(), Code::NotFound);
        let proof = v1::GetInclusionProofRequest { index, ..Default::default() };
        assert_eq!(face.get_inclusion_proof(auditor(proof)).await.unwrap_err().code(), Code::NotFound);
        let receipt = v1::GetReceiptRequest { index, ..Default::default() };
        assert_eq!(face.get_receipt(auditor(receipt)).await.unwrap_err().code(), Code::NotFound);
    }
    for (from_size, to_size, code) in
        [(0, 22, Code::NotFound), (22, 0, Code::InvalidArgument), (5, 4, Code::InvalidArgument)]
    {
        let request = v1::GetConsistencyProofRequest { from_size, to_size, ..Default::default() };
        let refusal = face.get_consistency_proof(auditor(request)).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{from_size} {to_size}: {refusal:?}");
    }
}

#[tokio::test]
async fn every_method_is_for_readers_alone() {
    let library = library().await;
    let (face, _stop) = face(&library);
    for role in Role::ALL {
        let may = [Role::Auditor, Role::Operator, Role::Builder, Role::Verifier, Role::Admin].contains(&role);
        let consistency = v1::GetConsistencyProofRequest { from_size: 1, to_size: 2, ..Default::default() };
        let who = "somebody@x.test";
        let codes = [
            face.get_checkpoint(from(who, &[role], v1::GetCheckpointRequest::default())).await.map(drop),
            face.get_entry(from(who, &[role], v1::GetEntryRequest::default())).await.map(drop),
            face.get_inclusion_proof(from(who, &[role], v1::GetInclusionProofRequest::default())).await.map(drop),
            face.get_consistency_proof(from(who, &[role], consistency)).await.map(drop),
            face.get_receipt(from(who, &[role], v1::GetReceiptRequest::default())).await.map(drop),
            face.search(from(who, &[role], v1::SearchRequest::default())).await.map(drop),
            face.watch(from(who, &[role], v1::WatchRequest::default())).await.map(drop),
        ]
        .map(|answer| answer.map_or_else(|refusal| refusal.code(), |()| Code::Ok));
        assert_eq!(codes, [if may { Code::Ok } else { Code::PermissionDenied }; 7], "{role}");
    }
    let stranger = face.search(Request::new(v1::SearchRequest::default())).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    let stranger = face.watch(Request::new(v1::WatchRequest::default())).await.map(drop).unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
}
