//! The first process of a virtual machine: mounts what tests need, loads modules, runs every program in `/tests`, says how it
//! went, and switches the machine off.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// The last line of a guest whose tests have all passed; `cargo xtask test kernels` waits for it.
const PASSED: &str = "guest: every test passed";

fn main() {
    match run() {
        Ok(()) => println!("{PASSED}"),
        Err(error) => println!("guest: {error:#}"),
    }
    // Nothing to go on with if even that fails: the kernel ends with us.
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn run() -> Result<()> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        fs::create_dir_all(place).with_context(|| format!("making {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {place}"))?;
    }
    println!("guest: kernel {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    for module in sorted("/modules")? {
        let file = File::open(&module).with_context(|| format!("opening {}", module.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading {}", module.display()))?;
    }
    let mut failed = Vec::new();
    for test in sorted("/tests")? {
        let status = Command::new(&test)
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
            .env("PORTCULLIS_XDP_OBJECT", "/portcullis-xdp.o")
            .status()
            .with_context(|| format!("running {}", test.display()))?;
        if !status.success() {
            failed.push(format!("{}: {status}", test.display()));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join(", ")) }
}

/// The files of a directory, by name.
fn sorted(directory: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {directory}"))?;
    let mut files: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}
