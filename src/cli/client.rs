//! STUB: the gRPC client of the commands.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use super::Global;
use tonic::{service::interceptor::InterceptedService, transport::Channel};
/// Adds the bearer token, if there is one.
#[derive(Debug, Clone)]
pub struct Bearer;
impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, r: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        Ok(r)
    }
}
pub type Service = InterceptedService<Channel, Bearer>;
/// Connects as the flags, environment and configuration say.
pub async fn connect(global: &Global) -> anyhow::Result<Service> {
    unimplemented!()
}
/// A status as an error that says what to do next.
pub fn explain(status: tonic::Status) -> anyhow::Error {
    unimplemented!()
}
