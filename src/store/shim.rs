//! The one place with `unsafe`: integrity options of `RocksDB`'s C API that the `rocksdb` crate does not wrap.
//!
//! Audit: every call passes a pointer that the `rocksdb` crate owns and that lives as long as the reference it was made
//! from; the setters copy a number and keep no pointer; the one returned string is freed by the library that made it.

#![expect(unsafe_code, reason = "the C API has these options and the Rust crate does not wrap them")]

use std::{ffi::CStr, ptr};

use librocksdb_sys as ffi;
use rocksdb::{AsRawPtr as _, DB, Options};

/// Bytes of checksum kept with every row in a memtable, checked whenever it is read or flushed.
const ROW_CHECKSUM: u32 = 8;

/// Turns on what protects a row on its way from memory to a file, and a write-ahead log that goes missing.
pub(super) fn protect(options: &mut Options) {
    // SAFETY: `options` is borrowed for the whole call, so the pointer is valid; the setters only store a number.
    unsafe {
        let raw = options.as_raw_ptr();
        // A new write-ahead log records its predecessor: one that is missing or short is noticed on recovery.
        ffi::rocksdb_options_set_track_and_verify_wals(raw, 1);
        ffi::rocksdb_options_set_memtable_protection_bytes_per_key(raw, ROW_CHECKSUM);
    }
}

/// Reads every block of every table file and checks its checksum. Returns what is wrong.
pub(super) fn verify_checksums(db: &DB) -> Result<(), String> {
    // SAFETY: `db` is borrowed for the whole call. On failure the library returns an owned, NUL-terminated string, which
    // is copied and then freed by the library's own function.
    unsafe {
        let mut problem = ptr::null_mut();
        ffi::rocksdb_verify_checksum(db.as_raw_ptr(), &raw mut problem);
        if problem.is_null() {
            return Ok(());
        }
        let text = CStr::from_ptr(problem).to_string_lossy().into_owned();
        ffi::rocksdb_free(problem.cast());
        Err(text)
    }
}
