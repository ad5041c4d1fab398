//! Who may call what: the caller that the listener authenticated, checked against the roles of the method.

use jiff::Timestamp;
use tonic::{Extensions, Request, Status};

use super::status;
use crate::{
    identity::{Refusal, SingleUse},
    model::{Caller, Role},
};

/// What authentication of one request came to; the listener puts it into the request's extensions.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Result<Caller, Refusal>);

/// The caller, if it holds one of `roles` (or is an admin).
///
/// # Errors
/// That of the refusal (see [`status::refused`]), or `PERMISSION_DENIED` naming the roles; all carry
/// `google.rpc.ErrorInfo`.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn authorize<T>(request: &Request<T>, roles: &[Role]) -> Result<Caller, Status> {
    match request.extensions().get::<Authenticated>() {
        Some(Authenticated(Ok(caller))) if caller.may(roles) => Ok(caller.clone()),
        Some(Authenticated(Ok(caller))) => Err(status::missing_role(caller, roles)),
        Some(Authenticated(Err(refusal))) => Err(status::refused(refusal)),
        None => Err(status::refused(&Refusal::Missing)),
    }
}

/// Uses the caller's token, if it is one that counts once; the listener put that into the request's extensions. Every
/// method that signs for its caller does so, after it has read the request and before it signs.
///
/// # Errors
/// That of the refusal.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn spend(extensions: &Extensions, now: Timestamp) -> Result<(), Status> {
    let Some(token) = extensions.get::<SingleUse>() else { return Ok(()) };
    token.spend(now).map_err(|refusal| {
        tracing::info!(target: "audit", reason = refusal.reason(), %refusal, "caller refused");
        status::refused(&refusal)
    })
}
