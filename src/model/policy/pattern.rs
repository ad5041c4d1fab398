//! Globs: `*` within one path element, `**` over several, `?`, `[a-z]` and `{a,b}`.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::model::limits;

/// A list of globs of which one must match; never empty.
#[derive(Debug, Clone)]
pub struct Globs {
    patterns: Vec<String>,
    set: GlobSet,
}

impl Globs {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// A sentence that names the pattern.
    pub fn new(patterns: Vec<String>) -> Result<Self, String> {
        let mut builder = GlobSetBuilder::new();
        for pattern in &patterns {
            if pattern.is_empty() || pattern.len() > limits::PATTERN {
                return Err(format!("a pattern has 1 to {} characters", limits::PATTERN));
            }
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|source| source.to_string())?;
            builder.add(glob);
        }
        let set = builder.build().map_err(|source| source.to_string())?;
        Ok(Self { patterns, set })
    }

    /// Whether one of them matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        self.set.is_match(text)
    }

    /// The patterns, for messages.
    pub fn list(&self) -> String {
        self.patterns.join(", ")
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }
}
