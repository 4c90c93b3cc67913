//! Any bytes as the frames of a connection of HTTP/2.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_http2(input));
