//! See `possession_v1` in `../bodies.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    countersign_fuzz::bodies::possession_v1(data);
});
