//! Prometheus and promtool of Debian's package, unpacked and not installed: the package would start a server on this machine.

use std::fs;

use anyhow::{Context, Result};

use super::{apt, packages, tools};

const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Unpacks the package if its programs are neither installed nor unpacked.
///
/// # Errors
/// If there is no apt, or it cannot fetch the package.
pub fn install() -> Result<()> {
    let into = tools().join("prometheus");
    let is_there =
        |program: &str| packages::find(program).is_some() || into.join("usr/bin").join(program).is_file();
    if PROGRAMS.into_iter().all(is_there) {
        return Ok(());
    }
    println!("unpacking prometheus into {}", into.display());
    fs::create_dir_all(&into).with_context(|| format!("creating {}", into.display()))?;
    apt::unpack_own("prometheus", &into)
        .or_else(|_| {
            apt::update()?;
            apt::unpack_own("prometheus", &into)
        })
        .context("the scenarios need prometheus and promtool; put both into PATH")
}
