//! boringtun, a user-space WireGuard in Rust: what the suite `tunnel` is compared with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::tools;
use crate::workspace;

const VERSION: &str = "0.7.1";

/// Builds it if it is missing, and returns its path.
///
/// # Errors
/// If the build fails.
pub fn install() -> Result<PathBuf> {
    let root = tools().join("boringtun");
    let program = root.join("bin/boringtun-cli");
    if runs(&program) {
        return Ok(program);
    }
    println!("building boringtun {VERSION} into {} (a minute, once)", root.display());
    let build = root.join("build");
    workspace::run(
        workspace::cargo()
            .args([
                "install",
                "--quiet",
                "--locked",
                "--force",
                "boringtun-cli",
                "--version",
                VERSION,
                "--root",
            ])
            .arg(&root)
            .env("CARGO_TARGET_DIR", &build),
    )
    .context("boringtun is what `cargo xtask bench tunnel` is compared with")?;
    std::fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))?;
    anyhow::ensure!(runs(&program), "{} was built but does not run", program.display());
    Ok(program)
}

fn runs(program: &std::path::Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
