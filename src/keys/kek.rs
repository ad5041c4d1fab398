//! The key-encryption key: 32 bytes that come from outside the data directory.
//!
//! How it is written, [`crate::model::kek`] says. Never printed.

use std::{
    env, fmt,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::KeyError;
use crate::model::kek;

/// More than any way to write 32 bytes needs.
const LONGEST: usize = 1_024;

/// Where the key-encryption key comes from; in TOML `kek = { file = "/etc/countersign/kek" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KekSource {
    /// A file that only its owner can read.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A systemd credential (`LoadCredential=` or `LoadCredentialEncrypted=`), by name.
    Credential(String),
}

impl KekSource {
    /// Reads the key.
    ///
    /// # Errors
    /// [`KeyError::Kek`] names the source and says what to do.
    pub fn load(&self) -> Result<Kek, KeyError> {
        let refuse = |problem: String| KeyError::Kek { from: self.to_string(), problem };
        let bytes = self.read().map_err(refuse)?;
        Kek::parse(&bytes).map_err(|problem| refuse(problem.to_owned()))
    }

    /// The bytes that stand there, of this or of another secret; a file that others can read is refused.
    ///
    /// # Errors
    /// What is wrong and what to do, without the bytes.
    pub(super) fn read(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        match self {
            Self::File(path) => {
                let (bytes, mode) = read(path).map_err(|error| format!("cannot be read: {error}"))?;
                if mode & 0o077 != 0 {
                    let mode = mode & 0o777;
                    return Err(format!("can be read by others (mode {mode:03o}); run `chmod 600 {}`", path.display()));
                }
                Ok(bytes)
            }
            Self::Env(name) => match env::var(name) {
                Ok(value) => Ok(Zeroizing::new(value.into_bytes())),
                Err(env::VarError::NotPresent) => Err("is not set".to_owned()),
                Err(env::VarError::NotUnicode(_)) => Err("is not text; write the key in base64".to_owned()),
            },
            Self::Credential(name) => credential(name),
        }
    }
}

/// The systemd credential `name` below `$CREDENTIALS_DIRECTORY`.
fn credential(name: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err("is not a name; give the name alone, without a path".to_owned());
    }
    let Some(dir) = env::var_os("CREDENTIALS_DIRECTORY") else {
        return Err(
            "cannot be found: $CREDENTIALS_DIRECTORY is not set; run under a systemd unit with LoadCredential="
                .to_owned(),
        );
    };
    // systemd guards these files with a directory of its own and access lists, which show up as group bits.
    let (bytes, _mode) = read(&Path::new(&dir).join(name)).map_err(|error| format!("cannot be read: {error}"))?;
    Ok(bytes)
}

impl fmt::Display for KekSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
        }
    }
}

/// A 32-byte key-encryption key.
pub struct Kek(Zeroizing<[u8; 32]>);

impl Kek {
    /// Parses the key from base64, hexadecimal or 32 raw bytes.
    ///
    /// # Errors
    /// A sentence without the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        kek::parse(bytes).map(Self)
    }

    /// Reads the key from a file that only its owner can read.
    ///
    /// # Errors
    /// [`KeyError::Kek`]; a file that others can read is refused.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        KekSource::File(path.to_owned()).load()
    }

    /// Reads the key from the environment variable `name`.
    ///
    /// # Errors
    /// [`KeyError::Kek`].
    pub fn from_env(name: &str) -> Result<Self, KeyError> {
        KekSource::Env(name.to_owned()).load()
    }

    /// Reads the systemd credential `name` below `$CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    /// [`KeyError::Kek`].
    pub fn from_credential(name: &str) -> Result<Self, KeyError> {
        KekSource::Credential(name.to_owned()).load()
    }

    /// Makes a random key and writes it, in base64, to a new file that only its owner can read.
    ///
    /// # Errors
    /// [`KeyError::Kek`] if the file exists or cannot be written.
    pub fn generate_to_file(path: &Path) -> Result<Self, KeyError> {
        let source = KekSource::File(path.to_owned());
        let mut key = Zeroizing::new([0; 32]);
        rand::fill(key.as_mut_slice()).map_err(|_source| KeyError::Crypto("draw random bytes"))?;
        let text = Zeroizing::new(STANDARD.encode(key.as_slice()) + "\n");
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                refuse(&source, "exists already; use it as it is, or choose another file".to_owned())
            }
            _ => refuse(&source, format!("cannot be written: {error}")),
        })?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| refuse(&source, format!("cannot be written: {error}")))?;
        Ok(Self(key))
    }

    /// A key of 32 bytes for one purpose (HKDF-SHA256, RFC 5869).
    pub(super) fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                32
            }
        }
        let failed = |_source| KeyError::Crypto("derive a key");
        let mut out = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, b"countersign sealed keys v1")
            .extract(self.0.as_slice())
            .expand(&[purpose.as_bytes()], Length)
            .map_err(failed)?
            .fill(out.as_mut_slice())
            .map_err(failed)?;
        Ok(out)
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(..)")
    }
}

fn refuse(source: &KekSource, problem: String) -> KeyError {
    KeyError::Kek { from: source.to_string(), problem }
}

/// The bytes and the mode of one and the same file: both are asked of the open handle.
fn read(path: &Path) -> std::io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let mut file = File::open(path)?;
    let metadata: fs::Metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    // Large enough from the start: a buffer that grew would leave the key behind.
    let mut bytes = Zeroizing::new(vec![0; LONGEST]);
    let mut length = 0;
    while let Some(rest @ [_, ..]) = bytes.get_mut(length..) {
        match file.read(rest)? {
            0 => break,
            read => length = length.saturating_add(read),
        }
    }
    bytes.truncate(length);
    Ok((bytes, metadata.mode()))
}
