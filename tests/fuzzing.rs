//! What the fuzz targets check, on inputs made here: seeds, mutated seeds and noise. And that the targets are complete.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use proptest::test_runner::{Config, TestError, TestRunner};

use crate::mutation::mutated;

#[path = "fuzz"]
mod fuzz {
    pub(super) mod bodies;
}

use fuzz::bodies::BODIES;

/// What has a parser and no body of its own, and why.
const WITHOUT: [(&str, &str); 14] = [
    ("config/layers.rs", "a setting in the environment, which the TOML library reads"),
    (
        "grpc/log/filter.rs",
        "a digest and an image's name, which the model reads, two times, which the time library reads; all else is kept as it is",
    ),
    ("identity/rules.rs", "an operator's glob, which the glob library reads"),
    ("keys/custody.rs", "one of a few words"),
    ("keys/kek.rs", "is model/kek.rs"),
    ("keys/offline.rs", "base64 of what is sealed: it opens whole, or not at all"),
    ("model/deployment/workload.rs", "one of a few words; the rest is read in `record`"),
    ("model/key_name.rs", "a few characters out of a set"),
    ("model/policy/age.rs", "a number and a unit, read in `policy_set`"),
    ("registry/manifest.rs", "is model/image_manifest.rs"),
    ("server/tls.rs", "an operator's PEM, which the TLS library reads"),
    ("store/anchor.rs", "our own record of a fixed length, under its checksum"),
    ("store/views.rs", "our own line of a few words and numbers"),
    ("telemetry.rs", "a few characters out of a set"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let golden = root().join("tests/golden");
    let folder = ["tlog", "model"].map(|kind| golden.join(kind).join(target)).into_iter().find(|path| path.exists());
    let files = fs::read_dir(folder.unwrap()).unwrap();
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

/// Runs one body on its seeds, all of which it must accept, and on 4,000 inputs made of them, of which it must accept
/// some and refuse some: a body that refuses all checks nothing.
fn smoke(name: &str) {
    let (_, body) = BODIES.into_iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds(name);
    assert!(seeds.iter().all(|seed| body(seed)) && !seeds.is_empty(), "a seed of {name} is not one");
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: 4_000, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&mutated(seeds), |input| {
        let count = if body(&input) { &accepted } else { &refused };
        count.set(count.get() + 1);
        Ok(())
    });
    match ran {
        Ok(()) => {}
        Err(TestError::Fail(why, input)) => panic!("{name}: {why}, for b\"{}\"", input.escape_ascii()),
        Err(TestError::Abort(why)) => panic!("{name}: {why}"),
    }
    assert!(accepted.get() > 200 && refused.get() > 200, "{name}: {} and {}", accepted.get(), refused.get());
}

/// A test for each body, under its name; and one that none is left out.
macro_rules! smoke {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                smoke(stringify!($name));
            }
        )*

        #[test]
        fn every_body_is_run_here() {
            assert_eq!([$(stringify!($name)),*], BODIES.map(|(name, _)| name));
        }
    };
}

smoke! {
    note checkpoint tile_path entry_bundle proof receipt verifier_key add_checkpoint policy
    certificate_request entry_request possession possession_v1 stamp_request stamp_request_json
    legacy bundle statement certificate trusted_root image challenge
    public_key tuf key_uri token key_set discovery peer facts
    image_manifest referrers wait token_reply docker_config manifest review timeout
    policy_set rule template encryption_key record scan provenance
}

#[test]
fn every_body_has_a_target() {
    let package = root().join("tests/fuzz");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    for (name, _) in BODIES {
        let target = fs::read_to_string(package.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("bodies::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n")), "{name}");
    }
    assert_eq!(fs::read_dir(package.join("fuzz_targets")).unwrap().count(), BODIES.len(), "a target without a body");
    assert_eq!(manifest.matches("[[bin]]").count(), BODIES.len(), "a target without a body");
}

/// All sources below a folder, by their paths in `src/`.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            found.push((path.strip_prefix(root()).unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// A parser is a function that a name says it of. A body uses it when it imports its module: what it asks of it is for
/// people to read. What a person types as arguments of a command (`cli`) is their own.
#[test]
fn every_parser_is_asked_something() {
    let parsers = [
        "fn parse",
        "fn decode",
        "fn from_str",
        "fn from_der",
        "fn from_json",
        "fn from_pem",
        "fn from_spki",
        "fn der_of_json",
        "fn of_program",
        "fn subject_of",
    ];
    let bodies = sources(&root().join("tests/fuzz/bodies"));
    let mut without = WITHOUT.map(|(file, _)| file).to_vec();
    for (path, source) in sources(&root().join("src")) {
        let path = path.strip_prefix("src").unwrap().to_str().unwrap();
        let (folder, module) = (path.split('/').next().unwrap(), path.rsplit('/').next().unwrap());
        if folder.starts_with("cli") {
            continue;
        }
        let (from, module) = (format!("use countersign::{folder}::{{\n"), module.strip_suffix(".rs").unwrap());
        let imports = [format!("\n    {module}::"), format!(" {module},")];
        let is_asked = |source: &str| source.contains(&from) && imports.iter().any(|import| source.contains(import));
        let asked = bodies.iter().any(|(_, source)| is_asked(source));
        let excepted = without.iter().position(|file| *file == path).map(|at| without.remove(at)).is_some();
        if parsers.iter().any(|name| source.contains(name)) {
            assert!(asked != excepted, "{path} has a parser: a body must use it, or WITHOUT say why not");
        } else {
            assert!(!excepted, "{path} has no parser, and WITHOUT says why it has no body");
        }
    }
    assert!(without.is_empty(), "no such files: {without:?}");
}

/// The package of the targets compiles `src/model/` and `src/tlog/` by themselves, and nothing of this package sees to it.
/// That they need no other module of ours, `tests/layers.rs` holds.
#[test]
fn the_package_of_the_targets_is_complete() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let lines = |source: &str| -> Vec<String> {
        let code = source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        code.map(str::to_owned).collect()
    };
    let lib = lines(&read("tests/fuzz/lib.rs"));
    let mut sources = sources(&root().join("src"));
    sources.retain(|(path, _)| ["src/model", "src/tlog"].iter().any(|pure| path.to_str().unwrap().starts_with(pure)));
    for module in ["model", "tlog"] {
        let own = lines(&read(&format!("src/{module}.rs")));
        let from = lib.iter().position(|line| *line == format!("pub mod {module} {{")).unwrap() + 1;
        assert_eq!(lib[from..from + own.len()], own, "{module} in tests/fuzz/lib.rs");
    }
    // The same versions: else the fuzzer tries other parsers than those that run.
    let locked = |path: &str| -> Vec<String> {
        let lock = read(path);
        let package = |text: &str| Some(text.split_once("\nname = ")?.1.lines().take(2).collect::<Vec<_>>().join(" "));
        lock.split("[[package]]").filter_map(package).collect()
    };
    let own = locked("Cargo.lock");
    let only_here = ["\"countersign-fuzz\"", "\"libfuzzer-sys\"", "\"arbitrary\""];
    for package in locked("tests/fuzz/Cargo.lock") {
        let known = own.contains(&package) || only_here.iter().any(|name| package.starts_with(name));
        assert!(
            known,
            "tests/fuzz/Cargo.lock has {package}, Cargo.lock another; copy it there, and run cargo metadata"
        );
    }
    let fuzz = read("tests/fuzz/Cargo.toml");
    let manifest = read("Cargo.toml");
    let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
    let (dependencies, _) = dependencies.split_once("\n[").unwrap();
    let used = dependencies.lines().filter(|line| {
        let crate_name = line.split_once(" = ").map(|(name, _)| format!("{}::", name.replace('-', "_")));
        crate_name.is_some_and(|name| sources.iter().any(|(_, source)| source.contains(&name)))
    });
    assert!(used.clone().count() > 20);
    for line in used {
        assert!(fuzz.lines().any(|other| other == line), "tests/fuzz/Cargo.toml lacks: {line}");
    }
}
