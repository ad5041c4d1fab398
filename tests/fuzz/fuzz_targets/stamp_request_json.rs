//! See `stamp_request_json` in `../bodies.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    countersign_fuzz::bodies::stamp_request_json(data);
});
