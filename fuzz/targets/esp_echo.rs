#![no_main]
#![allow(missing_docs)]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::esp::esp_echo(data));
