//! The header of the PROXY protocol: at every split it says the same, and takes no byte too many.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_proxy_header(input));
