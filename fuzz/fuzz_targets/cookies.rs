//! Any bytes as a line of cookies.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_cookies(input));
