//! What the fuzz targets run. Each function takes any input and panics only where a promise is broken; the tests of the
//! crate it exercises run it over `seeds/`, so that what fuzzing found stays found.

pub mod ike;
