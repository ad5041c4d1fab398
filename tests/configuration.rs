//! `deploy/countersign.example.toml`: it has every field that there is, and what it calls the default is the default.

use std::collections::BTreeSet;

use countersign::{config::Config, identity};
use toml::{Table, Value};

fn example() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/countersign.example.toml");
    std::fs::read_to_string(path).unwrap()
}

/// The example with everything that is behind a `#`; prose stays where it is.
fn whole() -> String {
    let is_toml = |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| is_key(key));
    let lines = example();
    let lines = lines.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_key(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.chars().all(word) || (text.starts_with('"') && text.ends_with('"') && !text.contains(' '))
}

/// The names that may stand in the table at this path, as the refusal of one that may not tells them; none where there is
/// no table with fixed fields. And whether it is one of a list.
fn fields(path: &[String]) -> Option<(BTreeSet<String>, bool)> {
    const NOT_ONE: &str = "not_a_field";
    for list in [false, true] {
        let inner = Table::from_iter([(NOT_ONE.to_owned(), Value::Integer(1))]);
        let innermost = Value::Table(inner);
        let mut value = if list { Value::Array(vec![innermost]) } else { innermost };
        for (depth, name) in path.iter().enumerate().rev() {
            value = Value::Table(Table::from_iter([(name.clone(), value)]));
            // Lists above: the fields of an element are asked for in its first one.
            if depth > 0 && is_list(&path[..depth]) {
                value = Value::Array(vec![value]);
            }
        }
        let Value::Table(table) = value else { continue };
        let Err(refused) = table.try_into::<Config>() else { return None };
        let refused = refused.to_string();
        if let Some((_, names)) = refused.split_once("unknown field `not_a_field`, expected ") {
            let names = names.lines().next().unwrap().split('`').skip(1).step_by(2);
            return Some((names.map(str::to_owned).collect(), list));
        }
    }
    None
}

fn is_list(path: &[String]) -> bool {
    matches!(fields(path), Some((_, true)))
}

/// Every field of the configuration below this path, found by asking.
fn every_field(path: &mut Vec<String>, all: &mut BTreeSet<String>) {
    let Some((names, _)) = fields(path) else {
        all.insert(path.join("."));
        return;
    };
    for name in names {
        path.push(name);
        every_field(path, all);
        path.pop();
    }
}

/// Every field that stands in the example, in the same form.
fn shown(value: &Value, path: &mut Vec<String>, all: &mut BTreeSet<String>) {
    all.insert(path.join("."));
    let tables: Vec<&Table> = match value {
        Value::Table(table) => vec![table],
        Value::Array(list) => list.iter().filter_map(Value::as_table).collect(),
        _ => vec![],
    };
    for (name, inner) in tables.into_iter().flatten() {
        path.push(name.clone());
        shown(inner, path, all);
        path.pop();
    }
}

#[test]
fn the_example_has_every_field() {
    let (mut all, mut there) = (BTreeSet::new(), BTreeSet::new());
    every_field(&mut Vec::new(), &mut all);
    for known in [
        "data",
        "kek.credential",
        "identity.issuers.single_use",
        "admission.break_glass.users",
        "sigstore.entries.burst",
    ] {
        assert!(all.contains(known), "{known} is not found by asking: {all:?}");
    }
    let table: Table = toml::from_str(&whole()).unwrap();
    shown(&Value::Table(table), &mut Vec::new(), &mut there);
    let missing: Vec<_> = all.difference(&there).collect();
    assert!(missing.is_empty(), "not in deploy/countersign.example.toml: {missing:?}");
}

#[test]
fn everything_in_the_example_is_accepted() {
    let config: Config = toml::from_str(&whole()).unwrap();
    assert_eq!((config.identity.issuers.len(), config.identity.rules.len()), (1, 1));
    // Files that are not here, and a field that goes with other forms of the subject.
    let fits = |issuer| identity::Issuer { jwks_file: None, ca_file: None, subject_domain: None, ..issuer };
    let issuers = config.identity.issuers.into_iter().map(fits).collect();
    let settings = identity::Settings { client_ca_file: None, issuers, ..config.identity };
    identity::Authenticator::new(&settings).unwrap();
}

#[test]
fn what_the_example_calls_the_default_is_the_default() {
    let (mut shown, default): (Config, _) = (toml::from_str(&example()).unwrap(), Config::default());
    assert_eq!(shown.kek.credential.take().as_deref(), Some("countersign-kek"), "the one that has no default");
    assert_eq!(format!("{:?}", shown.rollback.settings()), format!("{:?}", default.rollback.settings()));
    shown.rollback = default.rollback.clone();
    assert_eq!(format!("{shown:#?}"), format!("{default:#?}"));

    let text = whole();
    let config: Config = toml::from_str(&text).unwrap();
    let issuer = &config.identity.issuers[0];
    let (shown, default) = (Table::try_from(issuer).unwrap(), identity::Issuer::new(&issuer.url));
    let default = Table::try_from(default).unwrap();
    let called: Vec<_> = text.lines().filter(|line| line.contains("# (default)")).collect();
    assert_eq!(called.len(), 7);
    for line in called {
        let name = line.split_once(" = ").unwrap().0;
        assert_eq!(shown[name], default[name], "{name}");
    }
}
