//! Our gRPC API, `countersign.v1`: one file per service. Translates and delegates, decides nothing.

pub mod admission;
pub mod auth;
pub mod convert;
pub mod keys;
pub mod log;
pub mod log_admin;
pub mod release;
pub mod rollback;
pub mod signing;
pub mod status;
pub mod trust;
pub mod verification;

/// The messages and services generated from `proto/countersign/v1`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::clone_on_ref_ptr,
    clippy::indexing_slicing,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("countersign.v1");
    /// The encoded file descriptors, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/countersign.bin"));
}
