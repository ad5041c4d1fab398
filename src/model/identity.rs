//! Who signs and who calls.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{certificate::Extensions, key_name::KeyName};

/// What a signing certificate says of its holder: the subject alternative name and the issuer that vouched for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The subject alternative name: an e-mail address, a URI (also `spiffe://…`), or a user name (`alice!example.org`).
    pub subject: String,
    /// The issuer URL, as in certificate extension 1.3.6.1.4.1.57264.1.8.
    pub issuer: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (issuer {})", self.subject, self.issuer)
    }
}

/// What a caller may do. Configuration maps claims to roles; nothing is implied by another role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Signs and attests.
    Builder,
    /// Verifies, and asks admission.
    Verifier,
    /// Records deployments and health.
    Deployer,
    /// Approves.
    Approver,
    /// Asks for rollback readiness, and revokes.
    Operator,
    /// Reads everything, changes nothing.
    Auditor,
    /// All of the above, and trust material.
    Admin,
}

impl Role {
    /// All roles, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Builder, Self::Verifier, Self::Deployer, Self::Approver, Self::Operator, Self::Auditor, Self::Admin];

    /// The lower-case name used in configuration and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::Verifier => "verifier",
            Self::Deployer => "deployer",
            Self::Approver => "approver",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The string is not the name of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown role {0:?}; roles are builder, verifier, deployer, approver, operator, auditor, admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.chars().take(64).collect()))
    }
}

/// An authenticated caller with the roles that the rules gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is; a certificate issued to this caller carries it.
    pub identity: Identity,
    /// What it may do.
    pub roles: BTreeSet<Role>,
    /// What a certificate issued to this caller says of its token; nothing for a caller with a client certificate.
    pub extensions: Extensions,
    /// The managed keys that it may sign with; no role implies one, not even admin.
    pub keys: BTreeSet<KeyName>,
}

impl Caller {
    /// Whether the caller holds one of `wanted`, or is an admin.
    pub fn may(&self, wanted: &[Role]) -> bool {
        self.roles.contains(&Role::Admin) || wanted.iter().any(|role| self.roles.contains(role))
    }
}
