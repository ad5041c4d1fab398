//! Image references as people write them, normalised the way container runtimes do.

use std::{fmt, str::FromStr};

use oci_spec::distribution::Reference;
use serde::{Deserialize, Serialize};

use super::{digest::Digest, limits};

/// A repository in a registry, without tag or digest: `registry.example.com/team/app`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImageName {
    /// Host and optional port; `docker.io` when the reference named none.
    pub registry: String,
    /// Path inside the registry; single-word Docker Hub names get `library/` in front.
    pub repository: String,
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// An image reference: a name with a tag, a digest, or both. Without either, the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// Registry and repository.
    pub name: ImageName,
    /// The tag; kept beside a digest for people, never resolved when a digest stands there.
    pub tag: Option<String>,
    /// The digest, if the reference is pinned.
    pub digest: Option<Digest>,
}

/// Why a string is not an [`ImageRef`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefError {
    /// The reference is longer than [`limits::NAME`].
    #[error("image reference is longer than {} characters", limits::NAME)]
    TooLong,
    /// Not a reference by the grammar of the distribution specification.
    #[error("not an image reference: {0}")]
    Malformed(String),
    /// The digest is not sha256.
    #[error(transparent)]
    Digest(#[from] super::DigestError),
}

impl ImageRef {
    /// The same name, pinned to `digest`, tag kept.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { name: self.name.clone(), tag: self.tag.clone(), digest: Some(digest) }
    }

    /// `registry/repository:tag`, if there is a tag.
    pub fn tagged_name(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name))
    }
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        if text.len() > limits::NAME {
            return Err(ImageRefError::TooLong);
        }
        let reference: Reference = text
            .parse()
            .map_err(|source| ImageRefError::Malformed(format!("{text:?}: {}", limits::quoted(&source))))?;
        // The grammar takes `Team/app` for a host and a path, the defaults for a path on Docker Hub; and paths are lower-case.
        if reference.repository().contains(|c: char| c.is_ascii_uppercase()) {
            return Err(ImageRefError::Malformed(format!("{text:?}: a repository's name must be lower-case")));
        }
        let digest = reference.digest().map(str::parse).transpose()?;
        let tag = match (reference.tag(), digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        let name =
            ImageName { registry: reference.registry().to_owned(), repository: reference.repository().to_owned() };
        Ok(Self { name, tag, digest })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}
