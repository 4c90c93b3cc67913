//! Any bytes as a target, a host and a path.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_target(input));
