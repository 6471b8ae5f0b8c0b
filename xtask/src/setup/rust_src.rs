//! The sources of `core`: there is no built `core` for the BPF target, so we build it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::toolchain::Toolchain;
use super::{apt, tools};
use crate::workspace;

/// The release whose backports carry current Rust.
const SUITE: &str = "trixie-backports";

/// Installs the sources of exactly the toolchain's version, by rustup, else from Debian.
///
/// # Errors
/// If neither can.
pub fn install(toolchain: &Toolchain) -> Result<()> {
    if is_complete(&toolchain.rust_src()) {
        return Ok(());
    }
    println!("installing rust-src {} by rustup", toolchain.release);
    let rustup = workspace::run(
        Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(workspace::root()),
    );
    let Err(rustup) = rustup.and_then(|()| check(toolchain)) else { return Ok(()) };
    println!("rustup cannot ({rustup:#}); taking Debian's package from {SUITE}");
    from_debian(toolchain).and_then(|()| check(toolchain)).with_context(|| {
        format!(
            "rust-src {} is missing: rustup: {rustup:#}; remedy: give this machine access to rustup's server \
             or to a Debian mirror with {SUITE}, or unpack the sources of Rust {} to {}",
            toolchain.release,
            toolchain.release,
            toolchain.rust_src().display()
        )
    })
}

fn from_debian(toolchain: &Toolchain) -> Result<()> {
    let home = tools().join("rust-src").join(&toolchain.release);
    let sources = home.join(format!("usr/src/rustc-{}", toolchain.release));
    if !is_complete(&sources) {
        fs::create_dir_all(&home).with_context(|| format!("creating {}", home.display()))?;
        apt::unpack("rust-src", &toolchain.release, SUITE, &tools().join("apt"), &home)?;
    }
    let place = toolchain.rust_src();
    if place.is_symlink() {
        fs::remove_file(&place).with_context(|| format!("replacing {}", place.display()))?;
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    symlink(&sources, &place).with_context(|| format!("linking {}", place.display()))
}

fn check(toolchain: &Toolchain) -> Result<()> {
    let place = toolchain.rust_src();
    if is_complete(&place) { Ok(()) } else { bail!("{} holds no sources", place.display()) }
}

fn is_complete(sources: &Path) -> bool {
    ["library/core/src/lib.rs", "library/Cargo.lock"].iter().all(|file| sources.join(file).is_file())
}
