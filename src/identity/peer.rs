//! Who a client certificate names, as a caller: see [`crate::model::peer`].

use jiff::Timestamp;

use super::Refusal;
use crate::model::{
    Identity,
    peer::{PeerError, subject_of},
};

/// The identity of a leaf certificate (DER) that TLS has verified already, under the name of the issuer that stands for it.
///
/// # Errors
/// [`Refusal::TooLarge`], [`Refusal::Certificate`], [`Refusal::Expired`] or [`Refusal::NotYetValid`].
pub fn peer_identity(leaf: &[u8], issuer: &str, now: Timestamp) -> Result<Identity, Refusal> {
    let subject = subject_of(leaf, now).map_err(|refused| match refused {
        PeerError::TooLarge => Refusal::TooLarge,
        PeerError::Expired => Refusal::Expired,
        PeerError::NotYetValid => Refusal::NotYetValid,
        PeerError::Unusable(problem) => Refusal::Certificate(problem),
    })?;
    Ok(Identity { subject, issuer: issuer.to_owned() })
}
