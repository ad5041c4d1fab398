//! What of the keys will expire, and what to type against it.

use jiff::{SignedDuration, Timestamp};

use super::{Public, Rotating, rotation::LEAST_LEFT};

/// How long before its end something is warned of: half a year, as trust in a new one must reach everybody by then.
const BEFORE: SignedDuration = SignedDuration::from_hours(24 * 180);

impl Public {
    /// One sentence for each thing that ends within half a year and that nothing takes the place of.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings = Vec::new();
        for (kind, all) in [(Rotating::Ca, &self.ca), (Rotating::Tsa, &self.tsa)] {
            let (used, newest, name) = (all.at(now), all.last(), kind.name());
            let Some(end) = used.ends.filter(|end| end.duration_since(now) < BEFORE) else { continue };
            if newest.number != used.number && newest.signs_from < end {
                continue;
            }
            let root_ends = used.root.is_some_and(|(_, root)| root.duration_since(now) < LEAST_LEFT);
            let root = if root_ends { " --new-root" } else { "" };
            let verb = if end <= now { "expired" } else { "expires" };
            warnings.push(format!("{name} {verb} at {end}; run `countersign trust rotate {name}{root}`"));
        }
        if self.tls_ca_ends.duration_since(now) < BEFORE {
            warnings.push(format!(
                "tls-ca, the local authority for TLS, expires at {}; set [tls] cert_file and key_file to a certificate of \
                 your own by then",
                self.tls_ca_ends
            ));
        }
        warnings
    }
}
