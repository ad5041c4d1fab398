//! See `peer` in `../bodies.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    countersign_fuzz::bodies::peer(data);
});
