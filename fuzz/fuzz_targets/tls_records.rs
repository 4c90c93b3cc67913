//! Records of TLS, changed, split and cut as the bytes say: our record layer gives the plaintext of
//! rustls, or fails where it does.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_tls_records(input));
