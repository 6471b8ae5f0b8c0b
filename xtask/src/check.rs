//! `cargo xtask check`: formatting, lints, documentation, dependencies.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::stages::Stages;
use crate::{build_ebpf, workspace};

const CARGO_DENY_VERSION: &str = "0.20.2";

/// Checks everything that needs no run.
#[derive(Args, Debug)]
pub struct Check {}

impl Check {
    /// Runs it.
    ///
    /// # Errors
    /// Naming every check that failed.
    pub fn run(self) -> Result<()> {
        let mut stages = Stages::default();
        run_stages(&mut stages);
        stages.close()
    }
}

/// The checks as stages of a longer run.
pub fn run_stages(stages: &mut Stages) {
    stages.run("format", format);
    stages.run("clippy", clippy);
    stages.run("documentation", documentation);
    stages.run("dependencies", dependencies);
}

fn format() -> Result<()> {
    workspace::run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    for outside in ["ebpf", "fuzz"] {
        let manifest = workspace::root().join(outside).join("Cargo.toml");
        if manifest.is_file() {
            workspace::run(workspace::cargo().args(["fmt", "--check", "--manifest-path"]).arg(manifest))?;
        }
    }
    Ok(())
}

fn clippy() -> Result<()> {
    workspace::run(workspace::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))?;
    build_ebpf::lint()
}

fn documentation() -> Result<()> {
    workspace::run(
        workspace::cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn dependencies() -> Result<()> {
    let deny = cargo_deny()?;
    workspace::run(
        Command::new(deny)
            .args(["--all-features", "check", "bans", "licenses", "sources"])
            .current_dir(workspace::root()),
    )
}

/// cargo-deny of the version that `deny.toml` is written for, installed once under `target/tools`.
fn cargo_deny() -> Result<PathBuf> {
    let tools = workspace::root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    let version = Command::new(&program).arg("--version").output();
    if version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).trim().ends_with(CARGO_DENY_VERSION)) {
        return Ok(program);
    }
    println!("installing cargo-deny {CARGO_DENY_VERSION} into {} (two minutes, once)", tools.display());
    workspace::run(
        workspace::cargo()
            .args(["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY_VERSION, "--root"])
            .arg(&tools),
    )
    .context("cargo-deny checks licences and sources; without network, put its binary where this names it")?;
    Ok(program)
}
