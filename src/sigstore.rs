//! The faces that Sigstore clients know. Each translates and delegates, and decides nothing.

pub mod fulcio;
