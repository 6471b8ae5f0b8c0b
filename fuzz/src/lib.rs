//! What the fuzz targets run. Each function takes any input and panics only where a promise is broken; the tests of the
//! crate it exercises run it over `seeds/`, so that what fuzzing found stays found.
//!
//! `cargo xtask fuzz [TARGET] [--seconds N]` builds and runs them with the compiler of the workspace.

#![forbid(unsafe_code)]

pub mod esp;
pub mod ike;
pub mod ike_endpoint;
pub mod pki;
pub mod worker;
