//! Any bytes as a body in chunks.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_chunked(input));
