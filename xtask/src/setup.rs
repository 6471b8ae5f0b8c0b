//! `cargo xtask setup`: what this workspace needs of a machine, installed once, pinned, under `target/tools`.

mod apt;
pub mod boringtun;
mod bpf_linker;
pub mod kernels;
mod packages;
mod prometheus;
mod rust_src;
pub mod schemathesis;
pub mod strongswan;
mod toolchain;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::workspace;
use toolchain::Toolchain;

/// Installs what is missing: what builds and runs the gateway, and what tests it, which is Prometheus, schemathesis, strongSwan and
/// kernels of other releases.
///
/// Every step is tried, so that one call shows all there is to mend.
///
/// # Errors
/// Naming what could not be installed, and the remedy.
pub fn run() -> Result<()> {
    all([
        gateway(),
        prometheus::install(),
        schemathesis::install(),
        strongswan::install(),
        kernels::install(),
    ])
}

/// Installs what is missing to build and run the gateway: Debian packages, the sources of `core`, the linker for BPF.
///
/// # Errors
/// Naming what could not be installed, and the remedy.
pub fn gateway() -> Result<()> {
    all([packages::install(), ebpf_toolchain().map(drop)])
}

fn all<const N: usize>(outcomes: [Result<()>; N]) -> Result<()> {
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).map(|e| format!("{e:#}")).collect();
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

/// What the XDP programs are linked with, installed if it is missing.
///
/// # Errors
/// Naming what could not be installed, and the remedy.
pub fn ebpf_toolchain() -> Result<PathBuf> {
    let toolchain = Toolchain::detect()?;
    rust_src::install(&toolchain)?;
    bpf_linker::install(&toolchain)
}

/// Where tools are kept: in the workspace, wherever cargo builds.
pub fn tools() -> PathBuf {
    workspace::root().join("target/tools")
}
