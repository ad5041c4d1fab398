//! Everything that ends is in the metric and is warned of in time: by the running service, and by `countersign doctor`.

use std::{fs, path::Path, process::Command, sync::Arc};

use countersign::{
    keys::{KekSource, Keyring, Rotating, Rotation},
    model::TrustedRoot,
    tlog::CosignerKey,
    tuf::Repository,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::DAY;
use crate::{
    daemon::{self, Daemon},
    keys::{keyring, now},
};

/// A certificate for the next `days`, as NAME.crt, with NAME.key; the path without the ending.
fn certificate(dir: &Path, name: &str, days: u32) -> String {
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -addext subjectAltName=DNS:localhost"
                .split(' '),
        )
        .args(["-days", &days.to_string(), "-subj", &format!("/CN={name}")])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", daemon::text(&made));
    dir.join(name).display().to_string()
}

/// Writes a configuration that names certificates of the next `days` wherever it can name any, and a trusted root whose
/// authorities end then. What it names, as metric and warnings call it; the listeners' certificate last.
fn name_all(house: &Daemon, keys: &Keyring, days: u32) -> Vec<String> {
    let dir = house.path();
    let [tls, clients, registry, witness, issuer] =
        ["tls", "clients", "registry", "witness", "issuer"].map(|name| certificate(dir, name, days));
    // An instance lives ten years.
    let old = tempfile::tempdir().unwrap();
    let root = dir.join("others.json").display().to_string();
    let others = keyring(old.path(), Timestamp::now() - DAY * 3_652 + DAY * i32::try_from(days).unwrap());
    fs::write(&root, others.trusted_root().as_bytes()).unwrap();
    let policy = dir.join("witnesses").display().to_string();
    let key = CosignerKey::ed25519("w", keys.log_key().public_key()).unwrap();
    fs::write(&policy, format!("witness w {} https://127.0.0.1:1\nquorum w\n", key.vkey())).unwrap();
    let tables = format!(
        "[[identity.issuers]]\nurl = 'https://issuer.test'\nca_file = '{issuer}.crt'\n\
         [tls]\ncert_file = '{tls}.crt'\nkey_file = '{tls}.key'\n\
         [registry]\nca_file = '{registry}.crt'\n\
         [trust]\nextra_roots = ['{root}']\n\
         [witness]\npolicy_file = '{policy}'\nmode = 'attach_later'\nca_file = '{witness}.crt'\n"
    );
    house.configure(None, &tables);
    let config = fs::read_to_string(house.config()).unwrap();
    let config = config.replace("[identity]\n", &format!("[identity]\nclient_ca_file = '{clients}.crt'\n"));
    fs::write(house.config(), config).unwrap();
    vec![
        format!("trust.extra_roots {root} (certificate authorities)"),
        format!("trust.extra_roots {root} (time-stamp authorities)"),
        format!("identity.client_ca_file {clients}.crt"),
        format!("registry.ca_file {registry}.crt"),
        format!("witness.ca_file {witness}.crt"),
        format!("identity.issuers.ca_file {issuer}.crt"),
        "the TLS certificate in use".to_owned(),
    ]
}

/// What `countersign doctor` says of what ends, by how bad it is.
fn doctor(house: &Daemon) -> Vec<(String, String)> {
    let output = daemon::run(&["doctor", "--config", house.config().to_str().unwrap(), "-o", "json"]);
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {output:?}"));
    let of = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
    let lines = lines.iter().filter(|line| ["expiry", "certificates"].contains(&line["what"].as_str().unwrap()));
    lines.map(|line| (of(line, "state"), of(line, "text"))).collect()
}

fn open(house: &Daemon) -> Arc<Keyring> {
    let kek = KekSource::File(house.path().join("kek")).load().unwrap();
    Arc::new(Keyring::open(&house.data(), &kek).unwrap())
}

#[test]
fn everything_that_ends_is_counted_and_warned_of() {
    let mut house = Daemon::init(None, "");
    let (source, keys) = (KekSource::File(house.path().join("kek")), open(&house));
    for (kind, new_root) in [(Rotating::Ca, false), (Rotating::Tsa, true)] {
        let rotation = Rotation { kind, new_root, activate_in: DAY };
        keys.rotate(&house.data(), &source.load().unwrap(), rotation, Timestamp::now(), |_public| ()).unwrap();
    }
    // Signed when the service last ran, which was thirteen days ago.
    let (kek, url) = (source.clone(), super::URL.to_owned());
    let repository = Repository::open(&house.data(), keys.clone(), Arc::new(move || kek.load()), url);
    repository.refresh(Timestamp::now() - DAY * 13).unwrap();
    let named = name_all(&house, &keys, 2);

    let found = doctor(&house);
    for what in named.iter().map(String::as_str).chain(["the TUF timestamp"]) {
        let warned =
            |(state, text): &(String, String)| state == "warn" && text.starts_with(&format!("{what} expires at"));
        assert!(found.iter().any(warned), "{what}: {found:?}");
    }
    assert_eq!(found.len(), named.len() + 1, "{found:?}");

    house.start();
    let ready = daemon::http_get(house.operations, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    let log = house.log();
    for what in &named {
        let remedy = if what.contains("TLS") { "replace its files" } else { "replace the file, then restart" };
        let warned = |line: &str| line.contains(&format!("{what} expires at")) && line.contains(remedy);
        assert!(ready.lines().any(|line| line.starts_with("note: ") && warned(line)), "{what}: {ready}");
        assert!(log.lines().any(warned), "{what}: {log}");
    }
    assert_eq!(ready.matches("note: ").count(), named.len(), "{ready}");

    let metrics = daemon::http_get(house.operations, "/metrics").unwrap();
    let ends = |what: &str| {
        let series = format!("countersign_expiry_timestamp_seconds{{what=\"{what}\"}} ");
        let end = metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<i64>().ok());
        end.unwrap_or_else(|| panic!("{what}: {metrics}")) - Timestamp::now().as_second()
    };
    let (own, day) = (["tls certificate".to_owned()], DAY.as_secs());
    for what in named.iter().take(named.len() - 1).chain(&own) {
        assert!((day..=2 * day).contains(&ends(what)), "{what} ends in {} s", ends(what));
    }
    for what in ["ca", "ca-root", "ca-2", "tsa", "tsa-root", "tsa-2", "tsa-root-2", "tls-ca", "tuf-root"] {
        assert!(ends(what) > 3_600 * day, "{what} ends in {} s", ends(what));
    }
    for what in ["tuf-targets", "tuf-snapshot", "tuf-timestamp"] {
        assert!(ends(what) > day, "{what} ends in {} s", ends(what));
    }
    assert!(!metrics.contains("what=\"ca-root-2\""), "it stands under the first root: {metrics}");
}

/// What has longer to live is nobody's worry yet; what cannot be read is the doctor's.
#[test]
fn the_doctor_warns_of_nothing_too_early_and_names_what_cannot_be_read() {
    let house = Daemon::init(None, "");
    name_all(&house, &open(&house), 40);
    assert_eq!(doctor(&house), []);
    for name in ["tls.crt", "registry.crt", "others.json"] {
        fs::write(house.path().join(name), "nonsense").unwrap();
    }
    let found = doctor(&house);
    for name in ["tls.crt", "registry.ca_file", "others.json"] {
        assert!(found.iter().any(|(state, text)| state == "FAIL" && text.contains(name)), "{name}: {found:?}");
    }
    assert_eq!(found.len(), 3, "{found:?}");
}

/// An authority that was taken out of service ends nothing, as long as another one of its kind is in service.
#[test]
fn a_root_ends_with_the_first_authority_in_service() {
    let dir = tempfile::tempdir().unwrap();
    let whole: Value = serde_json::from_str(&keyring(dir.path(), now()).trusted_root()).unwrap();
    let in_ten_years = Timestamp::from_second((now() + DAY * 3_652).as_second() - 60).unwrap();
    let ends = |root: &Value| TrustedRoot::parse(&root.to_string()).unwrap().ends().to_vec();
    assert_eq!(ends(&whole), [("certificate authorities", in_ten_years), ("time-stamp authorities", in_ten_years)]);
    let mut retired = whole.clone();
    let end: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    retired["certificateAuthorities"][0]["validFor"]["end"] = json!(end.to_string());
    assert_eq!(ends(&retired)[0].1, end);
    let authorities = retired["certificateAuthorities"].as_array_mut().unwrap();
    authorities.push(whole["certificateAuthorities"][0].clone());
    assert_eq!(ends(&retired)[0].1, in_ten_years);
    let mut bare = whole;
    bare["timestampAuthorities"] = json!([]);
    assert_eq!(ends(&bare).len(), 1);
}
