//! Schemathesis, which holds the control API against its description, with everything it needs pinned.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::tools;
use crate::workspace;

/// Every package with its version.
const REQUIREMENTS: &str = include_str!("schemathesis.txt");

/// Where the program is once it is installed.
pub fn program() -> PathBuf {
    tools().join("schemathesis/bin/schemathesis")
}

/// Installs it into a Python environment of its own.
///
/// # Errors
/// If there is no Python with `venv`, or the packages cannot be had.
pub fn install() -> Result<()> {
    let environment = tools().join("schemathesis");
    let stamp = environment.join("requirements.txt");
    if program().is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == REQUIREMENTS) {
        return Ok(());
    }
    println!("installing schemathesis into {} (once)", environment.display());
    let mut python = Command::new("python3");
    workspace::run(python.args(["-m", "venv", "--clear"]).arg(&environment))
        .context("schemathesis needs python3 with venv (Debian: python3-venv)")?;
    let wanted = environment.join("wanted.txt");
    fs::write(&wanted, REQUIREMENTS).with_context(|| format!("writing {}", wanted.display()))?;
    let mut pip = Command::new(environment.join("bin/pip"));
    let pip = pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
    workspace::run(pip.arg(&wanted))?;
    fs::rename(&wanted, &stamp).with_context(|| format!("writing {}", stamp.display()))
}
