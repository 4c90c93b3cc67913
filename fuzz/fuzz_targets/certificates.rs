//! Any bytes as a certificate in DER, and as a file of certificates, keys and revocations.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringway::bench::fuzz_certificates(input));
