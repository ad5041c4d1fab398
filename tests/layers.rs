//! The layers of `src/lib.rs`, kept true by reading the sources.
//!
//! A module may use what stands below it, never what stands above it or beside it; below the shell nobody reads the
//! clock; no file grows past what can be read at one sitting; every module says what it is. Known limits: this reads
//! text, so a path made by a macro escapes it, and a unit test at the end of a file (`#[cfg(test)]`) is not held to it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Lines a source file may have.
const LINES: usize = 600;

/// Every module of the crate with the level it stands on. A module may use those on levels below its own, and those
/// named in [`BESIDE`].
const LEVELS: [(&str, u8); 23] = [
    ("cli", 9),
    ("server", 8),
    ("config", 7),
    ("grpc", 6),
    ("sigstore", 6),
    ("webhook", 6),
    ("admission", 5),
    ("rollback", 5),
    ("release", 4),
    ("recording", 3),
    ("signing", 3),
    ("issuing", 3),
    ("evidence", 3),
    ("tuf", 2),
    ("log", 2),
    ("witness", 2),
    ("store", 1),
    ("registry", 1),
    ("keys", 1),
    ("identity", 1),
    ("telemetry", 0),
    ("model", 0),
    ("tlog", 0),
];

/// Who may use a neighbour on its own level: metrics speak of the model's nouns.
///
/// The commands use `grpc::v1`, the generated messages, which stands below them anyway; they are clients, and never
/// touch the services behind it.
const BESIDE: [(&str, &str); 1] = [("telemetry", "model")];

/// Modules of the shell may read the clock: everybody else is told the time.
const CLOCKS: [&str; 2] = ["cli", "server"];

fn level(module: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == module).map(|(_, level)| *level)
}

fn may_use(above: &str, below: &str) -> bool {
    above == below || level(above) > level(below) || BESIDE.contains(&(above, below))
}

/// Everything that is wrong with one source file, as `file: what`. `path` is relative to `src/`.
fn offences(path: &Path, source: &str) -> Vec<String> {
    let module: Vec<&str> =
        path.iter().map(|part| part.to_str().unwrap()).map(|part| part.strip_suffix(".rs").unwrap_or(part)).collect();
    let top = module[0];
    let mut found = Vec::new();
    if source.lines().count() > LINES {
        found.push(format!("has {} lines; split it (at most {LINES})", source.lines().count()));
    }
    if !source.starts_with("//!") {
        found.push("does not begin with a module doc (`//!`) that says what it is".to_owned());
    }
    if level(top).is_some() {
        let code = code_of(source);
        for used in uses(&code, module.len()) {
            if level(&used).is_some() && !may_use(top, &used) {
                found.push(format!("{top} uses {used}, which does not stand below it"));
            }
        }
        if !CLOCKS.contains(&top) {
            let clocks = ["SystemTime::now", "Timestamp::now", "Zoned::now", "Utc::now", "Validity::from_now"];
            for clock in clocks.iter().filter(|clock| code.contains(**clock)) {
                found.push(format!("{top} reads the clock ({clock}); take the time as a parameter"));
            }
        }
    } else if !["lib", "main"].contains(&top) {
        found.push(format!("{top} has no level; add it to the map in lib.rs and here"));
    }
    found.sort();
    found.dedup();
    found.into_iter().map(|what| format!("{}: {what}", path.display())).collect()
}

/// The source without comments, the contents of strings, and the unit tests at its end.
fn code_of(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let source = source.split("#[cfg(test)]\n#[").next().unwrap();
    let mut code = String::with_capacity(source.len());
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                rest.by_ref().find(|c| *c == '\n');
                code.push('\n');
            }
            '/' if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                rest.by_ref().find(|c| std::mem::replace(&mut last, *c) == '*' && *c == '/');
            }
            'r' if !code.ends_with(|last: char| last.is_alphanumeric() && last != 'b' || last == '_') => {
                let hashes = rest.clone().take_while(|c| *c == '#').count();
                if rest.clone().nth(hashes) == Some('"') {
                    let ahead: String = rest.by_ref().skip(hashes + 1).collect();
                    let end = format!("\"{}", "#".repeat(hashes));
                    let behind = ahead.split_once(&end).map_or("", |(_, behind)| behind);
                    return code + "\"\"" + &code_of(behind);
                }
                code.push('r');
            }
            '"' => {
                let mut escaped = false;
                for c in rest.by_ref() {
                    match c {
                        _ if escaped => escaped = false,
                        '\\' => escaped = true,
                        '"' => break,
                        _ => {}
                    }
                }
                code.push_str("\"\"");
            }
            '\'' => {
                // A character literal may hold a quote; a lifetime does not end with one.
                let ahead: Vec<char> = rest.clone().take(2).collect();
                match ahead.as_slice() {
                    ['\\', _] => {
                        rest.nth(1);
                        rest.by_ref().find(|c| *c == '\'');
                    }
                    [_, '\''] => {
                        rest.nth(1);
                    }
                    _ => code.push('\''),
                }
            }
            c => code.push(c),
        }
    }
    code
}

/// The top-level modules that a file at this depth names, by `crate::…` or by enough `super::`s.
fn uses(code: &str, depth: usize) -> Vec<String> {
    let compact: String =
        code.split_whitespace().collect::<Vec<_>>().join(" ").replace(":: ", "::").replace(" ::", "::");
    let mut roots = vec!["crate::".to_owned()];
    roots.push("super::".repeat(depth));
    let mut used = Vec::new();
    for root in roots {
        for (at, _) in compact.match_indices(&root) {
            let before = compact[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            used.extend(first_names(&compact[at + root.len()..]));
        }
    }
    used
}

/// `a` of `a::b`; `a` and `c` of `{a::b, c::{d, e}}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut depth, mut item) = (Vec::new(), 1, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(name(std::mem::take(&mut item).trim())),
            c if depth == 1 => item.push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.push(name(item.trim()));
    names
}

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(&root).unwrap().to_owned(), source);
            }
        }
    }
    found
}

#[test]
fn the_sources_keep_to_the_layers() {
    let found: Vec<String> = sources().iter().flat_map(|(path, source)| offences(path, source)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn the_map_names_every_module() {
    let sources = sources();
    let lib = &sources[Path::new("lib.rs")];
    let declared: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    for module in &declared {
        assert!(level(module).is_some(), "{module} has no level in tests/layers.rs");
        let on_the_map = lib
            .lines()
            .filter(|line| line.starts_with("//!"))
            .any(|line| line.split_whitespace().skip(1).take(2).any(|word| word == *module));
        assert!(on_the_map, "{module} is not on the map in lib.rs");
    }
    for (module, _) in LEVELS {
        assert!(declared.contains(&module), "{module} is on the map, and does not exist");
    }
}

#[test]
fn a_violation_is_seen() {
    let table = [
        ("store.rs", "use crate::registry::Registry;", "store uses registry"),
        ("store/batch.rs", "use crate::{model::Digest, keys::Keyring};", "store uses keys"),
        ("store/batch.rs", "use crate::{\n    model::{Digest, limits},\n    log,\n};", "store uses log"),
        ("store/batch.rs", "use super::super::log::Log;", "store uses log"),
        ("store.rs", "use super::log::Log;", "store uses log"),
        ("store.rs", "fn f() -> crate :: log :: Log {}", "store uses log"),
        ("model/digest.rs", "fn f(log: &crate::log::Log) {}", "model uses log"),
        ("model.rs", "use crate::tlog::hash;", "model uses tlog"),
        ("tlog/tile.rs", "use crate::model::Digest;", "tlog uses model"),
        ("log/queue.rs", "use crate::signing::Signing;", "log uses signing"),
        ("signing.rs", "use crate::evidence::EvidenceService;", "signing uses evidence"),
        ("evidence.rs", "use crate::release::Release;", "evidence uses release"),
        ("rollback.rs", "use crate::admission::Admission;", "rollback uses admission"),
        ("admission.rs", "use crate::grpc::v1;", "admission uses grpc"),
        ("grpc/log.rs", "use crate::webhook::Review;", "grpc uses webhook"),
        ("webhook.rs", "let a = \"\\\"\"; use crate::grpc::auth;", "webhook uses grpc"),
        ("sigstore/fulcio.rs", "use crate::grpc::status;", "sigstore uses grpc"),
        ("issuing.rs", "use crate::signing::Signing;", "issuing uses signing"),
        ("identity.rs", "let quote = '\"'; use crate::keys::Keyring; let end = '\"';", "identity uses keys"),
        ("store.rs", "let a = r\"\\\"; use crate::keys::K;", "store uses keys"),
        ("store.rs", "let a = r#\"\"\"#; use crate::keys::K;", "store uses keys"),
        ("config.rs", "use crate::server::Server;", "config uses server"),
        ("keys/ca.rs", "let now = jiff::Timestamp::now();", "keys reads the clock"),
        ("config.rs", "let now = SystemTime::now();", "config reads the clock"),
        ("util.rs", "fn f() {}", "util has no level"),
    ];
    for (path, code, wanted) in table {
        let found = offences(Path::new(path), &format!("//! Doc.\n{code}\n"));
        assert!(found.len() == 1 && found[0].contains(wanted), "{path} {code}: {found:?}, wanted {wanted:?}");
    }
    let fine = [
        ("store.rs", "use crate::model::Digest; use crate::tlog::Tile; use crate::telemetry::Metrics;"),
        ("store.rs", "// use crate::log::Log;\n/// [`crate::log`]\n/* crate::log::Log */ let a = \"crate::log::Log\";"),
        ("store.rs", "use tracing::log; use rocksdb::{log, keys}; let crate_log = log::size;"),
        ("store/batch.rs", "use super::{log, keys}; use self::registry::X;"),
        ("release.rs", "use crate::{signing::Signing, evidence::EvidenceService, log::Log, model::Digest};"),
        ("rollback/checks.rs", "use crate::{release::Release, registry::Registry};"),
        ("telemetry.rs", "use crate::model::Decision;"),
        ("cli/sign.rs", "use crate::grpc::v1; use crate::config::Config; let now = Timestamp::now();"),
        ("server.rs", "use crate::{grpc, webhook, config::Config, store::Store}; let now = Timestamp::now();"),
        ("log.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::server::X; let now = Timestamp::now();\n}"),
    ];
    for (path, code) in fine {
        assert_eq!(offences(Path::new(path), &format!("//! Doc.\n{code}\n")), Vec::<String>::new(), "{path} {code}");
    }
    let long = format!("//! Doc.\n{}", "fn f() {}\n".repeat(LINES));
    assert!(offences(Path::new("log.rs"), &long)[0].contains("has 601 lines"));
    assert!(offences(Path::new("log.rs"), "fn f() {}\n")[0].contains("module doc"));
}
