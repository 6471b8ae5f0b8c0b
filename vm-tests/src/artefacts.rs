//! What is tested: the built daemon, its XDP programs and the configuration files that ship with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where to find them.
#[derive(Clone, Debug)]
pub struct Artefacts {
    /// The `portcullis` binary.
    pub binary: PathBuf,
    /// The object with the XDP programs.
    pub xdp_object: PathBuf,
    /// The directory with the example configuration.
    pub config: PathBuf,
}

impl Artefacts {
    /// The variable that names the binary.
    pub const BINARY: &str = "PORTCULLIS_BINARY";
    /// The variable that names the object.
    pub const XDP_OBJECT: &str = "PORTCULLIS_XDP_OBJECT";

    /// The variable that names what tests the control API.
    pub const SCHEMATHESIS: &str = "PORTCULLIS_SCHEMATHESIS";

    /// The variable that names the root file system with strongSwan.
    pub const STRONGSWAN: &str = "PORTCULLIS_STRONGSWAN_ROOT";

    /// The root file system with strongSwan.
    ///
    /// # Errors
    /// If `cargo xtask test` did not say where it is.
    pub fn strongswan(&self) -> Result<PathBuf> {
        path(Self::STRONGSWAN)
    }

    /// The program that tests the control API against its description.
    ///
    /// # Errors
    /// If `cargo xtask test` did not say where it is.
    pub fn schemathesis(&self) -> Result<PathBuf> {
        path(Self::SCHEMATHESIS)
    }

    /// As `cargo xtask test` passes them to the scenarios.
    ///
    /// # Errors
    /// If it did not.
    pub fn from_environment() -> Result<Self> {
        Ok(Self {
            binary: path(Self::BINARY)?,
            xdp_object: path(Self::XDP_OBJECT)?,
            config: Path::new(env!("CARGO_MANIFEST_DIR")).join("../config"),
        })
    }
}

fn path(name: &str) -> Result<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).with_context(|| {
        format!("{name} is not set; `cargo xtask test scenarios` builds everything and sets it")
    })
}
