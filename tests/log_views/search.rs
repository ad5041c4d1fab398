//! Filters against looking at every entry; pages; ranges of times with clocks that jump.

use countersign::{
    log::{
        View,
        facts::{self, Facts},
        search::{Filter, Finder, Order},
        views,
    },
    model::{Digest, Subject, predicate},
};

use super::library::{CUSTOM, Library, NOON, Said, all, at, identity, pages, range};

/// A small generator of numbers: the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const NAMES: [&str; 5] = ["r.test/app:v1", "r.test/app:v2", "r.test/team/app:v1", "tool", ""];
const PLACES: [(&str, &str); 2] = [("shop", "production"), ("shop", "staging")];
const ISSUERS: [&str; 2] = ["https://issuer.test", "https://other.test"];

fn random(dice: &mut Dice) -> Said {
    let predicate_type = dice.pick(&[predicate::SIGN, CUSTOM, predicate::DEPLOYMENT]);
    let name = dice.pick(&NAMES);
    Said {
        subject: Subject { name: name.to_owned(), digest: Digest::of(&[dice.below(4) as u8]) },
        predicate_type,
        signer: identity(dice.pick(&["a@x.test", "b@x.test"]), dice.pick(&ISSUERS)),
        place: (predicate_type == predicate::DEPLOYMENT).then(|| dice.pick(&PLACES)),
        // Clocks that are set back and forth.
        time: if dice.below(8) > 0 { at(dice.below(200)) } else { None },
        payload: dice.below(10) > 0,
    }
}

fn random_filter(dice: &mut Dice) -> Filter {
    let mut filter = Filter::default();
    for _ in 0..dice.below(4) {
        let place = dice.pick(&PLACES);
        let issuer = dice.pick(&ISSUERS).to_owned();
        filter.views.push(match dice.below(8) {
            0 => View::All,
            1 => View::Digest(Digest::of(&[dice.below(5) as u8])),
            2 => View::Name(dice.pick(&NAMES).to_owned()),
            3 => View::Identity(identity(dice.pick(&["a@x.test", "b@x.test"]), &issuer)),
            4 => View::Issuer(issuer),
            5 => View::PredicateType(dice.pick(&[predicate::SIGN, CUSTOM, predicate::DEPLOYMENT]).to_owned()),
            6 => View::Repository(facts::repository("r.test/app").unwrap()),
            _ => View::Service { service: place.0.to_owned(), environment: place.1.to_owned() },
        });
    }
    if dice.below(2) == 0 {
        let since = NOON as u64 + dice.below(220) as u64 - 10;
        filter.times = range(since, since + dice.below(100) as u64 + 1);
    }
    filter
}

#[tokio::test]
async fn every_filter_finds_what_looking_at_every_entry_finds() {
    let mut dice = Dice(7);
    let mut library = Library::new();
    library.add((0..400).map(|_| random(&mut dice))).await;
    library.check();
    let finder = Finder::new(library.log.clone());
    let (mut with_results, mut with_unknowns) = (0, 0);
    for round in 0..400 {
        let filter = random_filter(&mut dice);
        // An empty name stands in no view, although entries without a name exist.
        if filter.views.contains(&View::Name(String::new())) {
            assert_eq!(all(&pages(&finder, &filter, 10, Order::OldestFirst)), (vec![], 0));
            continue;
        }
        let (mut expected, without_time) = library.expected(&filter);
        let limit = 1 + dice.below(50);
        let oldest = pages(&finder, &filter, limit, Order::OldestFirst);
        assert_eq!(all(&oldest), (expected.clone(), without_time), "round {round}: {filter:?}");
        assert!(oldest.iter().all(|page| page.complete_to_size == 401));
        expected.reverse();
        let newest = pages(&finder, &filter, limit, Order::NewestFirst);
        assert_eq!(all(&newest), (expected.clone(), without_time), "round {round}: {filter:?}");
        with_results += usize::from(!expected.is_empty());
        with_unknowns += usize::from(without_time > 0);
    }
    assert!(
        with_results > 100 && with_unknowns > 30,
        "{with_results} {with_unknowns}: the filters were not too narrow"
    );
}

/// Two views with thousands of entries and none in common: no page works for ever, each says where to go on, and the one
/// entry that fits is found.
#[tokio::test]
async fn the_work_of_a_page_is_bounded_and_goes_on_where_it_stopped() {
    let mut library = Library::new();
    let said = |n: usize| Said {
        predicate_type: if n.is_multiple_of(2) || n == 2_001 { predicate::SIGN } else { CUSTOM },
        signer: identity("a@x.test", ISSUERS[usize::from(n % 2 == 1)]),
        ..Said::default()
    };
    library.add((0..4_000).map(said)).await;
    let filter = Filter {
        views: vec![View::PredicateType(predicate::SIGN.to_owned()), View::Issuer(ISSUERS[1].to_owned())],
        times: None,
    };
    let finder = Finder::with_work(library.log.clone(), 1);
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let found = pages(&finder, &filter, 10, order);
        assert_eq!(all(&found), (vec![2_002], 0));
        let empty = found.iter().filter(|page| page.indexes.is_empty() && page.next.is_some()).count();
        assert!(empty >= 3, "{order:?}: {} pages, {empty} of them empty", found.len());
        assert!(found.len() < 40, "{order:?}: {} pages", found.len());
    }
    // The rarest term sets the pace: with one that has a single entry, one page does.
    let mut rare = filter;
    rare.views.push(View::Name("r.test/rare:1".to_owned()));
    assert_eq!(pages(&finder, &rare, 10, Order::OldestFirst).len(), 1);
}

#[tokio::test]
async fn pages_are_stable_while_the_log_grows() {
    let mut library = Library::new();
    let said = |n: usize| Said {
        predicate_type: if n.is_multiple_of(3) { CUSTOM } else { predicate::SIGN },
        ..Said::default()
    };
    library.add((0..90).map(said)).await;
    let finder = Finder::new(library.log.clone());
    let filter = Filter { views: vec![View::PredicateType(CUSTOM.to_owned())], times: None };
    let (before, _) = library.expected(&filter);
    let mut from = (None, None);
    let mut found = (Vec::new(), Vec::new());
    for round in 0..100 {
        if found.0.last() == Some(&u64::MAX) && found.1.last() == Some(&u64::MAX) {
            break;
        }
        for (order, from, found) in
            [(Order::OldestFirst, &mut from.0, &mut found.0), (Order::NewestFirst, &mut from.1, &mut found.1)]
        {
            if found.last() == Some(&u64::MAX) {
                continue;
            }
            let page = finder.page(&filter, *from, 4, order).unwrap();
            assert_eq!(page.complete_to_size, library.log.size());
            found.extend(page.indexes);
            *from = page.next;
            if page.next.is_none() {
                found.push(u64::MAX);
            }
        }
        if round < 10 {
            library.add((0..6).map(said)).await;
        }
    }
    let (mut all, _) = library.expected(&filter);
    assert!(all.len() > before.len());
    assert_eq!(found.0.split_last().unwrap().1, all, "oldest first comes to what was appended meanwhile");
    all.retain(|index| before.contains(index));
    all.reverse();
    assert_eq!(found.1.split_last().unwrap().1, all, "newest first is what was there when it began");
}

/// A clock that jumps into the next century for one entry and is set back by days for others hides nothing.
#[tokio::test]
async fn ranges_of_times_hold_when_the_clock_is_set_back() {
    let mut library = Library::new();
    let said = |n: i64| Said {
        time: match n {
            1_500 => Some(NOON + 4_000_000_000),
            2_600..2_700 => Some(NOON + n - 86_400),
            n if n % 50 == 0 => None,
            n => Some(NOON + n),
        },
        ..Said::default()
    };
    library.add((0..5_000).map(said)).await;
    library.check();
    let finder = Finder::with_work(library.log.clone(), 1);
    let noon = NOON as u64;
    let mut counts = Vec::new();
    for (since, until) in [
        (noon + 100, noon + 103),
        (noon + 2_000, noon + 2_500),
        (noon + 4_990, u64::MAX),
        (0, noon),
        (noon + 3_000_000_000, u64::MAX),
        (0, u64::MAX),
        (noon + 6_000, noon + 7_000),
    ] {
        let filter = Filter { views: vec![], times: range(since, until) };
        let (mut expected, without_time) = library.expected(&filter);
        let first = pages(&finder, &filter, 100, Order::OldestFirst);
        assert_eq!(all(&first).0, expected, "{since}..{until}");
        // Of blocks that lie outside as a whole, entries without a time are taken to lie outside too.
        assert!(all(&first).1 <= without_time);
        let again = pages(&finder, &filter, 100, Order::OldestFirst);
        assert_eq!(all(&again).0, expected, "{since}..{until}, with what was learnt");
        expected.reverse();
        let newest = pages(&finder, &filter, 100, Order::NewestFirst);
        assert_eq!(all(&newest).0, expected, "{since}..{until}, newest first");
        counts.push((expected.len(), first.len(), again.len()));
    }
    // Learning pays: the second search for a few seconds passes over the blocks that it does not need.
    let fresh = Finder::with_work(library.log.clone(), 1);
    let filter = Filter { views: vec![], times: range(noon + 4_500, noon + 4_503) };
    let (first, again) =
        (pages(&fresh, &filter, 100, Order::OldestFirst), pages(&fresh, &filter, 100, Order::OldestFirst));
    assert_eq!((all(&first).0.len(), all(&again).0.len()), (2, 2));
    assert!(again.len() < first.len(), "{} pages, then {}", first.len(), again.len());
    assert_eq!(counts[3].0, 100, "what was written under the clock that was set back: {counts:?}");
    assert_eq!(counts[4].0, 1, "what was written under the clock that jumped: {counts:?}");
    assert_eq!(counts[6].0, 0, "{counts:?}");
    // What is appended to the block at the edge after it was looked at is found too.
    let filter = Filter { views: vec![], times: range(noon + 6_000, noon + 7_000) };
    library.add((6_100..6_130).map(said)).await;
    let (expected, _) = library.expected(&filter);
    assert_eq!((all(&pages(&finder, &filter, 100, Order::OldestFirst)).0, expected.len()), (expected, 29));
}

#[tokio::test]
async fn entries_without_an_envelope_are_found_by_what_their_leaf_says() {
    let mut library = Library::new();
    library.add([Said { payload: false, ..Said::default() }, Said::default()]).await;
    let finder = Finder::new(library.log.clone());
    let found = |view: View| {
        finder.page(&Filter { views: vec![view], times: None }, None, 10, Order::OldestFirst).unwrap().indexes
    };
    let said = Said::default();
    let entry = library.log.entry(1).unwrap();
    assert_eq!(entry.payload, None);
    let recorded = Facts::of(&entry.leaf, None).recorded.unwrap();
    assert_eq!(found(View::Identity(said.signer.clone())), [1, 2]);
    assert_eq!(found(View::Issuer(said.signer.issuer.clone())), [1, 2]);
    assert_eq!(found(View::Digest(recorded)), [1, 2], "both record the same statement as signed");
    assert_eq!(found(View::Digest(said.subject.digest)), [2], "of which artifact it was, only the envelope says");
    assert_eq!(found(View::PredicateType(predicate::SIGN.to_owned())), [2]);
}

#[test]
fn facts_are_read_from_leaf_and_payload() {
    let library = Library::new();
    let said = Said { place: Some(("shop", "production")), predicate_type: predicate::DEPLOYMENT, ..Said::default() };
    let draft = library.draft(&said, 1);
    let facts = Facts::of(&draft.leaf, Some(&draft.payload));
    assert_eq!(facts.subjects, std::slice::from_ref(&said.subject));
    assert_eq!(facts.predicate_type.as_deref(), Some(predicate::DEPLOYMENT));
    assert_eq!(facts.signer, Some(said.signer.clone()));
    assert_eq!(facts.time.unwrap().as_second(), 1_700_000_000);
    assert_eq!(facts.recorded, facts::signed_digest(&draft.payload));
    assert_eq!(facts.place, Some(("shop".to_owned(), "production".to_owned())));
    assert!(!facts.is_evidence);
    assert_eq!(Facts::of(b"{}", Some(b"{}")), Facts::default());
    // Bytes that are broken anywhere give fewer facts, and never a panic.
    for at in 0..draft.payload.len() {
        let mut broken = draft.payload.clone();
        broken[at] ^= 0x20;
        let _ = Facts::of(&draft.leaf, Some(&broken));
        let _ = Facts::of(&draft.leaf, Some(&draft.payload[..at]));
    }
    for at in 0..draft.leaf.len() {
        let mut broken = draft.leaf.clone();
        broken[at] ^= 1;
        let _ = Facts::of(&broken, None);
    }
}

#[test]
fn repositories_are_names_with_a_registry() {
    let table = [
        ("r.test/app:v1", Some("r.test/app")),
        ("r.test/app", Some("r.test/app")),
        ("r.test:5000/team/app:v1", Some("r.test:5000/team/app")),
        ("localhost/app:v1", Some("localhost/app")),
        ("docker.io/nginx", Some("docker.io/library/nginx")),
        (&format!("ghcr.io/a/b:c@{}", Digest::of(b"x")), Some("ghcr.io/a/b")),
        ("tool", None),
        ("dist/tool.tar.gz", None),
        ("r.test/", None),
        ("r.test/UPPER", None),
        ("https://r.test/app", None),
        ("pkg:oci/app@sha256:00", None),
        ("", None),
    ];
    for (name, expected) in table {
        assert_eq!(facts::repository(name).map(|name| name.to_string()).as_deref(), expected, "{name}");
    }
}

/// Terms of every kind: none is the beginning of another, whatever their parts hold.
#[test]
fn no_term_begins_another() {
    let texts = ["", "a", "a\0", "\0\u{1}a", "aa", &"a".repeat(1_024), &"a".repeat(1_025)];
    let mut prefixes = Vec::new();
    for one in texts {
        prefixes.push(View::Name(one.to_owned()));
        prefixes.push(View::Issuer(one.to_owned()));
        prefixes.push(View::PredicateType(one.to_owned()));
        for other in texts {
            prefixes.push(View::Identity(identity(one, other)));
            prefixes.push(View::Service { service: one.to_owned(), environment: other.to_owned() });
        }
    }
    let prefixes: Vec<_> = prefixes.iter().map(|view| views::prefix(view).unwrap()).collect();
    for one in &prefixes {
        assert_eq!(prefixes.iter().filter(|other| other.starts_with(one)).count(), 1);
    }
}
