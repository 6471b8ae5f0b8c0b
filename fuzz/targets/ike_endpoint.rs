#![no_main]
#![allow(missing_docs)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_fuzz::ike_endpoint::endpoint(bytes));
