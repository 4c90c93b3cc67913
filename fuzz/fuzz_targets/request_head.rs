//! Any bytes as the head of a request.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_request_head(input));
