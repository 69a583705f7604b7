//! See src/fuzz.rs.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| glovo_bootstrap::fuzz::check(env!("CARGO_BIN_NAME"), input));
