//! Kernels of Debian's releases, for the XDP programs to be tried on, and the emulator that runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, tools};
use crate::workspace;

/// The oldest release that is supported, the present one, and what is packaged last.
const SUITES: [&str; 3] = ["bookworm", "trixie", "sid"];
/// Built for virtual machines: the same version and BPF as the usual one, a third of its size.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// What it names.
const IMAGE: &str = "linux-image-";
/// Where newer releases have what was in that.
const PARTS: [&str; 2] = ["linux-binary-", "linux-modules-"];

/// Interfaces that tests make.
const MODULES: [&str; 2] = ["macvlan.ko", "veth.ko"];

/// A kernel that can be started.
#[derive(Debug)]
pub struct Kernel {
    /// The release that it is packaged in.
    pub suite: &'static str,
    /// Its image.
    pub image: PathBuf,
    /// The modules that tests need, in the order in which they are loaded.
    pub modules: Vec<PathBuf>,
}

/// Fetches the kernels that are missing.
///
/// # Errors
/// If no mirror of this machine has one.
pub fn install() -> Result<()> {
    for suite in SUITES {
        let home = home().join(suite);
        if kernel(suite).is_ok() {
            println!("kernel {} of {suite} is in {}", version(&home)?, home.display());
            continue;
        }
        println!("fetching the kernel of {suite} into {} (30 MB, once)", home.display());
        let scratch = tools().join("apt").join(suite);
        let unpacked = home.join("unpacked");
        fs::create_dir_all(&unpacked).with_context(|| format!("creating {}", unpacked.display()))?;
        apt::unpack_named(PACKAGE, IMAGE, &PARTS, suite, &scratch, &unpacked)?;
        keep(&unpacked, &home)?;
        for done_with in [&unpacked, &scratch] {
            fs::remove_dir_all(done_with).with_context(|| format!("removing {}", done_with.display()))?;
        }
        kernel(suite)?;
    }
    Ok(())
}

/// The kernels that are there.
///
/// # Errors
/// If one is missing.
pub fn installed() -> Result<Vec<Kernel>> {
    SUITES.into_iter().map(kernel).collect()
}

fn kernel(suite: &'static str) -> Result<Kernel> {
    let home = home().join(suite);
    let image = home.join("vmlinuz");
    let modules = MODULES.map(|name| home.join(name)).to_vec();
    for file in modules.iter().chain([&image, &home.join("version")]) {
        if !file.is_file() {
            bail!("{} is missing; remedy: cargo xtask setup", file.display());
        }
    }
    Ok(Kernel { suite, image, modules })
}

/// Image, modules and version, out of all that is in the package.
fn keep(unpacked: &Path, home: &Path) -> Result<()> {
    let modules = ["usr/lib/modules", "lib/modules"].map(|place| unpacked.join(place));
    let modules = modules.iter().find(|place| place.is_dir()).context("the package has no modules")?;
    let modules = only(modules, |_| true)?;
    let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Newer releases have it beside the modules.
    let images = [modules.join("vmlinuz"), unpacked.join(format!("boot/vmlinuz-{version}"))];
    let image = images.iter().find(|file| file.is_file()).context("the package has no image")?;
    for name in MODULES {
        let module = only(&modules.join("kernel/drivers/net"), |found| found.starts_with(name))?;
        decompress(&module, &home.join(name))?;
    }
    fs::copy(image, home.join("vmlinuz")).with_context(|| format!("copying {}", image.display()))?;
    fs::write(home.join("version"), version).context("writing the kernel's version")
}

fn decompress(from: &Path, to: &Path) -> Result<()> {
    let program = match from.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::copy(from, to).map(drop).with_context(|| format!("copying {}", from.display())),
    };
    let file = fs::File::create(to).with_context(|| format!("writing {}", to.display()))?;
    workspace::run(Command::new(program).args(["--decompress", "--stdout"]).arg(from).stdout(file))
}

fn only(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())))
        .with_context(|| format!("{} has not what the package should", directory.display()))
}

fn version(home: &Path) -> Result<String> {
    fs::read_to_string(home.join("version")).context("reading the kernel's version")
}

fn home() -> PathBuf {
    tools().join("kernels")
}
