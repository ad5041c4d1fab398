//! What a command is about: a file, a digest, or an image, as typed on the command line.

use std::path::Path;

use anyhow::{Context, bail};

use super::verify::digest_of_file;
use crate::model::{Digest, ImageRef};

/// A subject with its digest.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A file that was read and hashed.
    File {
        /// As it was typed.
        name: String,
        /// Its digest.
        digest: Digest,
    },
    /// A bare digest.
    Digest(Digest),
    /// An image with its digest.
    Image {
        /// The reference, digest included.
        image: ImageRef,
        /// The digest.
        digest: Digest,
    },
}

impl Subject {
    /// Reads what was typed: `sha256:…`, the path of a file, or `registry/repository[:tag]@sha256:…`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        if text.starts_with("sha256:") {
            return Ok(Self::Digest(text.parse()?));
        }
        let path = Path::new(text);
        if path.is_file() {
            return Ok(Self::File {
                name: text.to_owned(),
                digest: digest_of_file(path).with_context(|| format!("cannot read {text}"))?,
            });
        }
        let image: ImageRef = text
            .parse()
            .with_context(|| format!("{text:?} is neither a file here, nor sha256:…, nor an image reference"))?;
        let Some(digest) = image.digest else {
            bail!(
                "{text:?} is not a file here, and as an image it has no digest: tags move, so name what you mean, \
                 {image}@sha256:… (`skopeo inspect --format '{{{{.Digest}}}}' docker://{image}`)"
            );
        };
        Ok(Self::Image { image, digest })
    }

    /// The digest.
    pub const fn digest(&self) -> Digest {
        match self {
            Self::File { digest, .. } | Self::Digest(digest) | Self::Image { digest, .. } => *digest,
        }
    }

    /// The name that the statement carries: the image without its digest, or the file's name; empty for a digest.
    pub fn name(&self) -> String {
        match self {
            Self::File { name, .. } => {
                Path::new(name).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
            Self::Digest(_) => String::new(),
            Self::Image { image, .. } => image.tagged_name().unwrap_or_else(|| image.name.to_string()),
        }
    }
}
