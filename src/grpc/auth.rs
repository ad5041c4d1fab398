//! Who may call what: the caller that the listener authenticated, checked against the roles of the method.

use tonic::{Request, Status};

use super::status;
use crate::{
    identity::Refusal,
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
