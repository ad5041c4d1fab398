//! What the fuzz targets check, on inputs made here: seeds, mutated seeds and noise. And that the targets are complete.

use std::{cell::Cell, fs, path::Path};

use proptest::test_runner::{Config, TestRunner};

use crate::mutation::mutated;

/// The package of the targets. With it `src/tlog/` is compiled by itself: it needs no other module of ours.
#[path = "../fuzz/lib.rs"]
#[allow(dead_code, reason = "the arithmetic is only compiled here; the bodies check the library's own")]
mod fuzz;

use fuzz::bodies::{BODIES, Body};

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
fn smoke((name, body): Body) {
    let seeds = seeds(name);
    assert!(seeds.iter().all(|seed| body(seed)) && !seeds.is_empty(), "a seed of {name} is not one");
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: 4_000, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&mutated(seeds), |input| {
        let count = if body(&input) { &accepted } else { &refused };
        count.set(count.get() + 1);
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("{name}: {failure}");
    }
    assert!(accepted.get() > 200 && refused.get() > 200, "{name}: {} and {}", accepted.get(), refused.get());
}

#[test]
fn notes() {
    smoke(BODIES[0]);
}

#[test]
fn checkpoints() {
    smoke(BODIES[1]);
}

#[test]
fn tile_paths() {
    smoke(BODIES[2]);
}

#[test]
fn entry_bundles() {
    smoke(BODIES[3]);
}

#[test]
fn proofs() {
    smoke(BODIES[4]);
}

#[test]
fn receipts() {
    smoke(BODIES[5]);
}

#[test]
fn certificate_requests() {
    smoke(BODIES[6]);
}

#[test]
fn every_body_has_a_target_and_every_module_is_compiled_for_it() {
    let package = root().join("tests/fuzz");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    for (name, _) in BODIES {
        let target = fs::read_to_string(package.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("bodies::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n")), "{name}");
    }
    let modules = |file: &str, before: &str, indent: &str| -> Vec<String> {
        let source = fs::read_to_string(root().join(file)).unwrap();
        let source = source.split_once(before).unwrap().1.split("\n}\n").next().unwrap();
        let name =
            |line: &str| line.strip_prefix(indent)?.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned);
        source.lines().filter_map(name).collect()
    };
    let listed = modules("tests/fuzz/lib.rs", "pub mod tlog {", "    ");
    assert_eq!(listed, modules("src/tlog.rs", "//!", ""), "tests/fuzz/lib.rs lists the modules of src/tlog.rs too");
}
