//! What the fuzz targets run. Each function takes any input and panics only where a promise is broken; the tests of the
//! crate it exercises run it over `seeds/`, so that what fuzzing found stays found.
//!
//! From this directory, with cargo-fuzz: `cargo +nightly fuzz run ike_message corpus/ike_message seeds/ike_message`.

#![forbid(unsafe_code)]

pub mod esp;
pub mod ike;
pub mod pki;
