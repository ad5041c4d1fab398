//! The Sigstore faces: what `cosign`, `sigstore-python`, `sigstore-js` and `sigstore-go` speak, over HTTP and gRPC.
//!
//! - [`rekor`]: the transparency log as Rekor v2, `/api/v2/log/entries` and `dev.sigstore.rekor.v2.Rekor`. The read side
//!   (checkpoint, tiles, entry bundles) is the log's own, see `server::tiles`.
//! - [`fulcio`]: the certificate authority, `/api/v2/signingCert` and `dev.sigstore.fulcio.v2.CA`.
//! - [`timestamp`]: RFC 3161 time-stamping, `/api/v1/timestamp`.
//!
//! Like all faces they translate and delegate. A certificate needs a token. As upstream, nobody needs credentials to have a
//! signature recorded or stamped: what is recorded verifies. [`limits`] keeps one caller from taking all there is.

pub mod fulcio;
pub mod limits;
pub mod rekor;
pub mod timestamp;

mod refusal;

pub use refusal::Refusal;

/// The generated messages and services of the Sigstore protobufs.
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
pub mod proto {
    pub mod dev {
        pub mod sigstore {
            pub mod common {
                pub mod v1 {
                    tonic::include_proto!("dev.sigstore.common.v1");
                }
            }
            pub mod fulcio {
                pub mod v2 {
                    tonic::include_proto!("dev.sigstore.fulcio.v2");
                }
            }
            pub mod rekor {
                pub mod v1 {
                    tonic::include_proto!("dev.sigstore.rekor.v1");
                }
                pub mod v2 {
                    tonic::include_proto!("dev.sigstore.rekor.v2");
                }
            }
        }
    }
    pub mod io {
        pub mod intoto {
            tonic::include_proto!("io.intoto");
        }
    }
    pub mod google {
        pub mod api {
            tonic::include_proto!("google.api");
        }
    }
}
