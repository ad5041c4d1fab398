//! Challenges: how a registry says, in `WWW-Authenticate` headers (RFC 9110 section 11.6.1), what it wants to see.
//!
//! Not here: tokens and passwords (`registry`).

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password.
    Basic,
    /// A token of the distribution project's protocol.
    Bearer {
        /// Where tokens are given, as it was written.
        realm: String,
        /// What the token's issuer calls the registry.
        service: Option<String>,
    },
}

impl Challenge {
    /// The challenge that we can answer best, out of the values of all such headers.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for text in values {
            let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let parameters = parameters(rest);
                let find = |wanted: &str| {
                    parameters
                        .iter()
                        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                        .map(|(_, value)| value.clone())
                };
                if let Some(realm) = find("realm") {
                    return Some(Self::Bearer { realm, service: find("service") });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

/// `a="x, y",b=z` to pairs; backslashes quote inside of quotation marks.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut characters = text.chars().peekable();
    while characters.peek().is_some() {
        let name: String = characters.by_ref().take_while(|c| *c != '=').filter(|c| !c.is_whitespace()).collect();
        let mut value = String::new();
        let mut quoted = false;
        while let Some(c) = characters.next() {
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => value.extend(characters.next()),
                ',' if !quoted => break,
                c => value.push(c),
            }
        }
        pairs.push((name, value.trim().to_owned()));
    }
    pairs
}
