//! Credentials from docker's `config.json`: where that is. What is in it, [`crate::model::docker_config`] says; a credential
//! program that it names is asked by [`super::credential_program`].

use std::{
    io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::model::{
    ImageName,
    docker_config::{DockerConfig, Found},
    limits,
};

/// Where docker's configuration is: the setting, else docker's own rules. The flag says that it must be there.
fn location(setting: Option<&Path>) -> Option<(PathBuf, bool)> {
    if let Some(path) = setting {
        return Some((path.to_owned(), true));
    }
    let dir = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")))?;
    Some((dir.join("config.json"), false))
}

/// What the configuration has for a repository. Blocks on the file; runs no credential program.
///
/// # Errors
/// A sentence about the file; never with what it holds.
pub(super) fn find(setting: Option<&Path>, name: &ImageName) -> Result<Found, String> {
    config(setting)?.find(name)
}

/// Whether the configuration can be read; runs no credential program.
pub(super) fn check(setting: &Path) -> Result<(), String> {
    config(Some(setting)).map(drop)
}

fn config(setting: Option<&Path>) -> Result<DockerConfig, String> {
    let Some((path, required)) = location(setting) else { return Ok(DockerConfig::default()) };
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => return Ok(DockerConfig::default()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    DockerConfig::parse(&text).map_err(|line| format!("{} is not valid at line {line}", path.display()))
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    if std::fs::metadata(path)?.len() > u64::try_from(limits::DOCUMENT).unwrap_or(u64::MAX) {
        return Err(io::Error::other(format!("larger than {} bytes", limits::DOCUMENT)));
    }
    std::fs::read_to_string(path).map(Zeroizing::new)
}
