//! All tests, in one binary: each module covers one capability.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(
    missing_docs,
    unused_crate_dependencies,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::as_conversions,
    clippy::let_underscore_must_use,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::clone_on_ref_ptr,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::unnecessary_wraps,
    clippy::struct_excessive_bools,
    clippy::needless_pass_by_value,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::missing_docs_in_private_items,
    unreachable_pub,
    reason = "tests say what went wrong by failing"
)]

mod admission;
mod configuration;
mod crash;
mod daemon;
mod doors;
mod evidence;
mod fake_registry;
mod fuzzing;
mod holder;
mod identity;
mod interop;
mod issuer;
mod issuing;
mod key_service;
mod keys;
mod layers;
mod log;
mod log_admin;
mod log_backup;
mod log_views;
mod model;
mod mutation;
mod policy;
mod registry;
mod release;
mod rollback;
mod server;
mod signing;
mod sigstore;
mod softhsm;
mod telemetry;
mod tiles;
mod tlog;
mod trust;
mod verify;
mod witness;
