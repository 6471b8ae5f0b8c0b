//! bpf-linker, built against the LLVM that the toolchain brings along: no LLVM package is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::toolchain::Toolchain;
use super::tools;
use crate::workspace;

const VERSION: &str = "0.13.0";

/// Installs the linker and returns its path.
///
/// # Errors
/// If the toolchain has no shared LLVM, or the build fails.
pub fn install(toolchain: &Toolchain) -> Result<PathBuf> {
    let program = tools().join("bin/bpf-linker");
    let stamp = tools().join("bpf-linker.built-for");
    let built_for = format!("{VERSION} for rustc {} in {}\n", toolchain.release, toolchain.sysroot.display());
    if runs(&program) && fs::read_to_string(&stamp).is_ok_and(|text| text == built_for) {
        return Ok(program);
    }
    let llvm = llvm_prefix(toolchain)?;
    println!("building bpf-linker {VERSION} into {} (a minute, once)", tools().display());
    let build = tools().join("build");
    workspace::run(
        workspace::cargo()
            .args(["install", "--quiet", "--locked", "--force", "bpf-linker", "--version", VERSION])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{}", toolchain.llvm_major),
                "--root",
            ])
            .arg(tools())
            .env("LLVM_PREFIX", llvm)
            // Found when cargo does not set the library path, too.
            .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", toolchain.sysroot.join("lib").display()))
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("CARGO_TARGET_DIR", &build),
    )
    .context("bpf-linker links the XDP programs; building it needs a C compiler and the crate registry")?;
    anyhow::ensure!(runs(&program), "{} was built but does not run", program.display());
    fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))?;
    fs::write(&stamp, built_for).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(program)
}

/// A directory that looks like an installed LLVM and is the toolchain's.
fn llvm_prefix(toolchain: &Toolchain) -> Result<PathBuf> {
    let sysroot_lib = toolchain.sysroot.join("lib");
    let prefix = format!("libLLVM.so.{}.", toolchain.llvm_major);
    let library = fs::read_dir(&sysroot_lib)
        .with_context(|| format!("looking into {}", sysroot_lib.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|p| p.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .with_context(|| {
            format!(
                "{} has no {prefix}*: this toolchain links LLVM statically; use one that rustup installed",
                sysroot_lib.display()
            )
        })?;
    let llvm = tools().join("llvm");
    let link = llvm.join("lib/libLLVM.so");
    fs::create_dir_all(llvm.join("lib")).with_context(|| format!("creating {}", llvm.display()))?;
    if link.is_symlink() {
        fs::remove_file(&link).with_context(|| format!("replacing {}", link.display()))?;
    }
    symlink(&library, &link).with_context(|| format!("linking {}", link.display()))?;
    Ok(llvm)
}

fn runs(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).trim().ends_with(VERSION))
}
