//! `countersign init`: makes a data directory. `serve` opens one and never makes one.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf, absolute},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;

use super::{Global, Output};
use crate::{
    config::{Config, Pkcs11},
    keys::{Custody, Kek, KekSource, Keyring, LogKey, Token, TokenRole, check_host},
    log::Log,
    tuf::Repository,
};

/// Makes a data directory: log, keys, certificate authority, time-stamp authority, local TLS authority.
///
/// All private keys are sealed with a key-encryption key that must lie elsewhere, and be backed up elsewhere.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  countersign init --data /var/lib/countersign --host sign.example.org \\\n    \
                        --kek-file /etc/countersign/kek --generate-kek")]
pub struct Args {
    /// Directory to make; it must be empty or not exist yet.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Host name of the instance and origin of its log, without scheme, port and path. It can never change.
    #[arg(long, value_name = "NAME")]
    pub host: String,
    /// Where the key-encryption key comes from.
    #[command(flatten)]
    pub kek: KekArgs,
    /// Make a new random key-encryption key and write it to the file that --kek-file names.
    #[arg(long, requires = "kek_file", conflicts_with_all = ["kek_env", "kek_credential"])]
    pub generate_kek: bool,
    /// Where keys are, besides sealed files.
    #[command(flatten)]
    pub token: TokenArgs,
}

/// A PKCS#11 token, and which keys are made on it. They never leave it: only the token itself can be backed up.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Keys on a PKCS#11 token")]
pub struct TokenArgs {
    /// The PKCS#11 module, a shared library.
    #[arg(long, value_name = "FILE", requires = "pkcs11_token")]
    pub pkcs11_module: Option<PathBuf>,
    /// The label of the token.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub pkcs11_token: Option<String>,
    /// File with the PIN of the token's user; mode 600.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub pkcs11_pin_file: Option<PathBuf>,
    /// Environment variable with the PIN.
    #[arg(long, value_name = "VAR", requires = "pkcs11_module")]
    pub pkcs11_pin_env: Option<String>,
    /// Systemd credential with the PIN.
    #[arg(long, value_name = "NAME", requires = "pkcs11_module")]
    pub pkcs11_pin_credential: Option<String>,
    /// Key to make on the token, repeatable: ca-root, ca, sct, log (Ed25519), tsa-root, tsa; managed: named keys made later.
    #[arg(long = "pkcs11-key", value_name = "KEY", requires = "pkcs11_module")]
    pub pkcs11_keys: Vec<TokenRole>,
}

impl TokenArgs {
    /// The section of the settings that says the same.
    fn section(&self) -> anyhow::Result<Pkcs11> {
        let whole = |path: &PathBuf| absolute(path).with_context(|| format!("cannot use {}", path.display()));
        Ok(Pkcs11 {
            module: self.pkcs11_module.as_ref().map(whole).transpose()?,
            token: self.pkcs11_token.clone(),
            pin_file: self.pkcs11_pin_file.as_ref().map(whole).transpose()?,
            pin_env: self.pkcs11_pin_env.clone(),
            pin_credential: self.pkcs11_pin_credential.clone(),
            keys: self.pkcs11_keys.clone(),
        })
    }
}

/// Where the key-encryption key comes from: 32 bytes in base64 or hexadecimal.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
pub struct KekArgs {
    /// File with the key-encryption key; mode 600.
    #[arg(long, value_name = "FILE")]
    pub kek_file: Option<PathBuf>,
    /// Environment variable with the key-encryption key.
    #[arg(long, value_name = "VAR")]
    pub kek_env: Option<String>,
    /// Systemd credential with the key-encryption key.
    #[arg(long, value_name = "NAME")]
    pub kek_credential: Option<String>,
}

impl KekArgs {
    /// The source that was named.
    ///
    /// # Errors
    /// If none was, or the file's path has no absolute form.
    pub fn source(&self) -> anyhow::Result<KekSource> {
        if let Some(file) = &self.kek_file {
            return Ok(KekSource::File(absolute(file).with_context(|| format!("cannot use {}", file.display()))?));
        }
        let by_name = self.kek_env.clone().map(KekSource::Env);
        by_name
            .or_else(|| self.kek_credential.clone().map(KekSource::Credential))
            .context("name a key-encryption key with --kek-file, --kek-env or --kek-credential")
    }
}

/// Runs the command.
///
/// # Errors
/// Says what could not be made; what was made until then stays, and is refused as half made later.
#[allow(clippy::unused_async, reason = "all commands have one shape")]
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    check_host(&args.host)?;
    let data = absolute(&args.data).with_context(|| format!("cannot use {}", args.data.display()))?;
    require_empty(&data)?;
    let source = args.kek.source()?;
    if let KekSource::File(file) = &source
        && file.starts_with(&data)
    {
        bail!(
            "the key-encryption key must not lie in the directory that it protects; choose a --kek-file outside {}",
            data.display()
        );
    }
    let pkcs11 = args.token.section()?;
    if pkcs11.pin_file.as_ref().is_some_and(|file| file.starts_with(&data)) {
        bail!("the PIN must not lie in the directory that it protects; choose a --pkcs11-pin-file elsewhere");
    }
    let custody = custody(&pkcs11)?;
    let kek = match &source {
        KekSource::File(file) if args.generate_kek => Kek::generate_to_file(file)?,
        _ => source.load()?,
    };
    Keyring::create_in(&data, &kek, &args.host, Timestamp::now(), &custody)?;
    let keys = Keyring::open_in(&data, &kek, custody)?;
    create_log(&data, &args.host, &keys.log_key())?;
    write(&data.join("trusted_root.json"), &keys.trusted_root())?;
    create_repository(&data, &source, Keyring::open(&data, &kek)?)?;
    write(&data.join("countersign.toml"), &settings(&data, &args.host, &source, &pkcs11))?;
    report(global, &data, &source, &args, &keys)?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the token before anything is made.
fn custody(pkcs11: &Pkcs11) -> anyhow::Result<Custody> {
    let Some(settings) = pkcs11.token()? else { return Ok(Custody::default()) };
    if pkcs11.keys.is_empty() {
        bail!(
            "--pkcs11-module without --pkcs11-key: name the keys that are to be on the token, such as --pkcs11-key ca"
        );
    }
    Ok(Custody::with_token(Token::open(settings)?, pkcs11.keys.iter().copied())?)
}

/// Makes the empty log.
fn create_log(data: &Path, host: &str, key: &LogKey) -> anyhow::Result<()> {
    Log::create(&data.join("log"), host, key.public_key(), |note| key.sign(note))?;
    Ok(())
}

/// Makes the TUF repository, for clients that find the service at the default port; another one is told when it is served.
fn create_repository(data: &Path, kek: &KekSource, keys: Keyring) -> anyhow::Result<()> {
    let base_url = format!("https://{}:{}", keys.host(), Config::default().listen.public.port());
    let kek = kek.clone();
    Repository::open(data, Arc::new(keys), Arc::new(move || kek.load()), base_url).refresh(Timestamp::now())?;
    Ok(())
}

fn require_empty(data: &Path) -> anyhow::Result<()> {
    match fs::read_dir(data) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!(
                    "{} is not empty, and init never writes over anything; choose another --data, or remove it if an earlier \
                     init did not finish",
                    data.display()
                );
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot use {}", data.display())),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = fs::File::create_new(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The settings file: what init knows is set, everything else is there as a comment with its default.
fn settings(data: &Path, host: &str, source: &KekSource, pkcs11: &Pkcs11) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let kek = match source {
        KekSource::File(file) => format!("file = {}", quote(&file.display().to_string())),
        KekSource::Env(name) => format!("env = {}", quote(name)),
        KekSource::Credential(name) => format!("credential = {}", quote(name)),
    };
    let (data, host) = (quote(&data.display().to_string()), quote(host));
    let token = token_section(pkcs11);
    format!(
        r#"# Settings of countersign. Every field is optional; lines with # show the defaults. A variable such as
# COUNTERSIGN_LISTEN__PUBLIC stands above this file, and flags above both.

data = {data}

[kek]
{kek}
{token}
[listen]
# public = "127.0.0.1:8443"      # gRPC and HTTP
# webhook = "127.0.0.1:9443"     # admission reviews
# operations = "127.0.0.1:9090"  # metrics and health

[tls]
# Names in the certificate that the local authority issues (keys/tls-ca.pem is what clients trust).
names = [{host}, "localhost", "127.0.0.1", "::1"]
# Or a certificate of your own:
# cert_file = "/etc/countersign/tls.pem"
# key_file = "/etc/countersign/tls.key"

[policy]
# file = "/etc/countersign/policy.yaml"
"#
    )
}

/// `[pkcs11]`, where there is a token; nothing otherwise.
fn token_section(pkcs11: &Pkcs11) -> String {
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let path = |path: &Path| path.display().to_string();
    let fields = [
        ("module", pkcs11.module.as_deref().map(path)),
        ("token", pkcs11.token.clone()),
        ("pin_file", pkcs11.pin_file.as_deref().map(path)),
        ("pin_env", pkcs11.pin_env.clone()),
        ("pin_credential", pkcs11.pin_credential.clone()),
    ];
    if pkcs11.module.is_none() {
        return String::new();
    }
    let mut section = "\n[pkcs11]\n".to_owned();
    for (name, value) in fields {
        section += &value.map_or(String::new(), |value| format!("{name} = {}\n", quote(&value)));
    }
    let keys: Vec<_> = pkcs11.keys.iter().map(|role| quote(role.as_str())).collect();
    section + &format!("keys = [{}]\n", keys.join(", "))
}

fn report(global: &Global, data: &Path, source: &KekSource, args: &Args, keys: &Keyring) -> anyhow::Result<()> {
    let generated = args.generate_kek;
    let on_token: Vec<_> = args.token.pkcs11_keys.iter().map(|role| role.as_str()).collect();
    let mut out = std::io::stdout();
    let (origin, shown) = (keys.host(), data.display());
    let log_id = hex::encode(keys.public().log_id());
    if global.output == Output::Json {
        let made = json!({
            "data": data, "origin": origin, "logId": log_id, "kek": source.to_string(), "kekGenerated": generated,
            "token": args.token.pkcs11_token, "onToken": on_token,
            "trustedRoot": data.join("trusted_root.json"), "settings": data.join("countersign.toml"),
            "tlsCa": data.join("keys/tls-ca.pem"), "tufRoot": data.join("tuf/1.root.json"),
            "expiries": keys.expiries(Timestamp::now()).into_iter().map(|(name, at)| json!({"name": name, "notAfter": at})).collect::<Vec<_>>(),
        });
        writeln!(out, "{made:#}")?;
        return Ok(());
    }
    writeln!(out, "Made {shown} for {origin}:")?;
    writeln!(out, "  log           origin {origin}, id {log_id}")?;
    writeln!(out, "  keys          {shown}/keys, sealed with the key-encryption key from {source}")?;
    if let Some(token) = &args.token.pkcs11_token {
        writeln!(out, "  on the token  {}: {}", token, on_token.join(", "))?;
    }
    writeln!(out, "  TLS           {shown}/keys/tls-ca.pem is the authority that clients trust")?;
    writeln!(out, "  trusted root  {shown}/trusted_root.json, for everyone who verifies")?;
    writeln!(out, "  TUF           {shown}/tuf/1.root.json, for clients that follow by themselves")?;
    writeln!(out, "  settings      {shown}/countersign.toml")?;
    if let Some((name, at)) = keys.expiries(Timestamp::now()).into_iter().min_by_key(|(_, at)| *at) {
        writeln!(out, "  first expiry  {name}, {at}")?;
    }
    let new = if generated { " It is new: nobody has a copy yet." } else { "" };
    writeln!(out, "\nKeep a copy of the key-encryption key elsewhere: without it the keys cannot be opened.{new}")?;
    writeln!(out, "\nNext:")?;
    writeln!(out, "  countersign serve --data {shown}")?;
    let kek = flag(source);
    writeln!(out, "  countersign trust issue-client spiffe://{origin}/admin --data {shown} {kek} --out .")?;
    Ok(())
}

/// The flag that names the same source again.
fn flag(source: &KekSource) -> String {
    match source {
        KekSource::File(file) => format!("--kek-file {}", file.display()),
        KekSource::Env(name) => format!("--kek-env {name}"),
        KekSource::Credential(name) => format!("--kek-credential {name}"),
    }
}
