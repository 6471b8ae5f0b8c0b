//! The workspace this program belongs to, and programs run in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The cargo that runs us.
pub fn cargo_path() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A cargo command in the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(cargo_path());
    command.current_dir(root());
    command
}

/// Where cargo puts what it builds.
///
/// # Errors
/// If cargo does not say.
pub fn target_directory() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("asking cargo for its target directory")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(directory.into())
}

/// Runs a command to its end, its output on ours.
///
/// # Errors
/// If it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = portcullis_vm_tests::run_in_foreground(command)?;
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    anyhow::ensure!(
        status.success(),
        "{} {}: {status}",
        command.get_program().to_string_lossy(),
        arguments.join(" ")
    );
    Ok(())
}
