//! See `policy_set` in `../bodies.rs`.
#![no_main]

// The library of rules may panic, which is caught; the fuzzer's own hook would end the process before that. What fails in
// the body ends it all the same.
libfuzzer_sys::fuzz_target!(init: drop(std::panic::take_hook()), |data: &[u8]| {
    countersign_fuzz::bodies::policy_set(data);
});
