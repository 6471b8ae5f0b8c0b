//! `cargo xtask build-ebpf`: the XDP programs, built for the BPF target.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, workspace};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object and returns its path, which is the same wherever cargo builds.
///
/// # Errors
/// If the tools cannot be installed or the build fails.
pub fn run() -> Result<PathBuf> {
    workspace::run(cargo()?.args(["build", "--release", "--quiet", "--locked"]))
        .context("building the XDP programs")?;
    let built = build_directory().join(TARGET).join("release/portcullis-xdp");
    let object = directory().join("portcullis-xdp.o");
    let bytes = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    if fs::read(&object).is_ok_and(|old| old == bytes) {
        return Ok(object);
    }
    let fresh = directory().join(format!("portcullis-xdp.o.{}", std::process::id()));
    fs::write(&fresh, bytes).with_context(|| format!("writing {}", fresh.display()))?;
    // A daemon that starts meanwhile reads the old object or the new one, never half of it.
    fs::rename(&fresh, &object).with_context(|| format!("renaming {}", fresh.display()))?;
    Ok(object)
}

/// Runs clippy over the programs, for the target that they are built for.
///
/// # Errors
/// If the tools cannot be installed or clippy finds something.
pub fn lint() -> Result<()> {
    workspace::run(cargo()?.args(["clippy", "--release", "--quiet", "--locked", "--", "-D", "warnings"]))
}

/// cargo in the programs' own workspace.
fn cargo() -> Result<Command> {
    let linker = setup::ebpf_toolchain()?;
    let mut command = workspace::cargo();
    command
        .current_dir(workspace::root().join("ebpf"))
        // `build-std` in the `.cargo/config.toml` there is unstable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env("CARGO_TARGET_DIR", build_directory())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    Ok(command)
}

fn build_directory() -> PathBuf {
    directory().join("build")
}

fn directory() -> PathBuf {
    workspace::root().join("target/bpf")
}
