//! See `add_checkpoint` in `../bodies.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    countersign_fuzz::bodies::add_checkpoint(data);
});
