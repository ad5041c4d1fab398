//! See `policy_set` in `../bodies.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    countersign_fuzz::bodies::policy_set(data);
});
