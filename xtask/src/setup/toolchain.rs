//! The Rust toolchain that builds this workspace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;

/// A rustc and where it lives.
pub struct Toolchain {
    /// Its release, such as `1.95.0`.
    pub release: String,
    /// The major version of the LLVM in it, such as `22`.
    pub llvm_major: String,
    /// Where it is installed.
    pub sysroot: PathBuf,
}

impl Toolchain {
    /// The toolchain that cargo uses here.
    ///
    /// # Errors
    /// If rustc cannot be run or says too little about itself.
    pub fn detect() -> Result<Self> {
        let about = rustc(&["-vV"])?;
        let field = |name: &str| {
            about
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .with_context(|| format!("`rustc -vV` does not show its {name}"))
        };
        let llvm = field("LLVM version")?;
        Ok(Self {
            release: field("release")?.to_owned(),
            llvm_major: llvm.split('.').next().unwrap_or(llvm).to_owned(),
            sysroot: rustc(&["--print", "sysroot"])?.trim().into(),
        })
    }

    /// Where the sources of the standard library belong.
    pub fn rust_src(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc)
        .args(arguments)
        .current_dir(workspace::root())
        .output()
        .with_context(|| format!("starting {}", rustc.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{} {}: {}",
        rustc.display(),
        arguments.join(" "),
        errors.trim()
    );
    String::from_utf8(output.stdout).context("rustc prints something that is not UTF-8")
}
