//! The log for strangers: C2SP `tlog-tiles` over HTTP, and a client that is not ours.

mod client;
mod foreign;
mod http;
