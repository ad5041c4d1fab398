//! Countersign: one log, one judge, three doors.
//!
//! An artifact provenance and signing service. This file is the map; each layer may use only what stands
//! below it, and modules of one layer do not use each other (`tests/layers.rs` reads the sources and keeps
//! it so).
//!
//! ```text
//! shell     cli        one file per command, thin over the gRPC client or the layers below
//!           server     the only wiring: opens adapters, builds services, runs faces, drains on signal
//!           config     typed settings; the doc comment on each field is the manual
//! faces     grpc       our API, one file per service; translates and delegates, decides nothing
//!           sigstore   what stock Sigstore clients speak: Rekor v2, Fulcio, time-stamping
//!           webhook    admission review in, admission review out
//! services  signing    statement -> certificate -> envelope -> timestamp -> log entry -> bundle
//!           recording  signatures that clients made themselves: verified, then into the log
//!           issuing    token -> identity and claims -> possession of a key -> certificate -> log entry -> chain
//!           admission  object -> images -> digests -> evidence -> judge -> verdict and patch
//!           rollback   service and environment -> candidates -> checks -> readiness
//!           release    deployments, health, approvals, revocations: statements in, views out
//!           evidence   digest -> verified statements, from the log first and the registry second
//!           tuf        public side of the keys -> TUF metadata, signed again in time -> files
//!           log        queue, sequencer, commit, witnesses, proofs, audit
//!           witness    cosigns other logs' checkpoints: what it saw last, compared and kept in one step; its face
//! adapters  store      RocksDB: column families, key encoding, one atomic commit, the anchor
//!           registry   OCI: tag -> digest, referrers, bundles, blob probes, attach, copy
//!           keys       custody of private keys: sealed files, tokens, named keys; certificate and time-stamp authorities
//!           identity   who is calling: OIDC tokens, mutual TLS; claims -> roles
//! pure      telemetry  names of metrics and the request id; no exporter, no I/O
//!           model      the field's nouns, their parsers, and the rules over them; no I/O, no clock
//!           tlog       RFC 6962 and C2SP: hashes, trees, proofs, tiles, notes, checkpoints, cosignatures, policies
//! ```

pub mod admission;
#[allow(clippy::disallowed_methods, reason = "a command looks at the clock, and passes the time on")]
pub mod cli;
pub mod config;
pub mod evidence;
pub mod grpc;
pub mod identity;
pub mod issuing;
pub mod keys;
pub mod log;
pub mod model;
pub mod recording;
pub mod registry;
pub mod release;
pub mod rollback;
#[allow(clippy::disallowed_methods, reason = "the server is the clock of everything below it")]
pub mod server;
pub mod signing;
pub mod sigstore;
pub mod store;
pub mod telemetry;
pub mod tlog;
pub mod tuf;
pub mod webhook;
pub mod witness;
