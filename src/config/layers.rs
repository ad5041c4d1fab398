//! From file and environment to one table, and from there to the typed settings.

use std::{
    fs,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{Config, ConfigError, DEFAULT_DATA, FILE_NAME};
use crate::model::limits;

const PREFIX: &str = "COUNTERSIGN_";

pub(super) fn load(
    file: Option<&Path>,
    data: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut variables: Vec<_> = environment.into_iter().filter(|(name, _)| is_setting(name)).collect();
    variables.sort();
    let data = data.map(Path::to_owned).or_else(|| {
        variables.iter().find(|(name, _)| name == "COUNTERSIGN_DATA").map(|(_, value)| PathBuf::from(value))
    });
    let mut table = read(file, data.as_deref())?;
    for (name, value) in variables {
        let path: Vec<String> =
            name.strip_prefix(PREFIX).unwrap_or_default().split("__").map(str::to_ascii_lowercase).collect();
        set(&mut table, &path, parse(&value))
            .and_then(|()| table.clone().try_into::<Config>().map(drop).map_err(|source| one_line(&source)))
            .map_err(|message| ConfigError::Variable { name, message })?;
    }
    table.try_into().map_err(|source| ConfigError::Conflict(one_line(&source)))
}

/// Settings have a section, except for the data directory. Other variables with our prefix belong to the client side
/// (`COUNTERSIGN_SERVER`, `COUNTERSIGN_TOKEN`) or hold the key-encryption key.
fn is_setting(name: &str) -> bool {
    name == "COUNTERSIGN_DATA" || name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains("__"))
}

fn read(file: Option<&Path>, data: Option<&Path>) -> Result<Table, ConfigError> {
    let (path, must_exist) = match file {
        Some(path) => (path.to_owned(), true),
        None => (data.unwrap_or(Path::new(DEFAULT_DATA)).join(FILE_NAME), false),
    };
    let text = match read_bounded(&path) {
        Ok(text) => text,
        Err(ConfigError::Read { source, .. })
            if !must_exist && matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            return Ok(Table::new());
        }
        Err(error) => return Err(error),
    };
    // Typed once from the text, because those errors name line and column.
    toml::from_str::<Config>(&text).map_err(|source| ConfigError::File {
        path: path.clone(),
        message: source.to_string().trim_end().to_owned(),
    })?;
    toml::from_str(&text).map_err(|source| ConfigError::File { path, message: one_line(&source) })
}

fn read_bounded(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let limit = u64::try_from(limits::DOCUMENT).unwrap_or(u64::MAX);
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    let bytes = file.take(limit.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
    if bytes > limits::DOCUMENT {
        let bytes = fs::metadata(path).map(|meta| meta.len()).map_err(failed)?;
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    Ok(text)
}

/// A TOML value where the text is one, else the text itself.
fn parse(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    match path {
        [] => Ok(()),
        [last] => {
            table.insert(last.clone(), value);
            Ok(())
        }
        [first, rest @ ..] => match table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => set(inner, rest, value),
            _ => Err(format!("{first} is a value, not a section")),
        },
    }
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().lines().collect::<Vec<_>>().join("; ")
}
