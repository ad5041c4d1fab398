//! How the log is found again: filters, pages, ranges of times, watches, summaries, and views that are rebuilt.

mod grpc;
mod library;
mod rebuild;
mod search;
mod shell;
mod watch;
