//! strongSwan, the peer of the scenarios, in a Debian root file system of its own: nothing is installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, packages, tools};
use crate::workspace;

/// Debian's releases have older ones.
const SUITE: &str = "sid";
/// From this version on it has ML-KEM, by OpenSSL.
const LEAST: Version = Version(6, 1);
const PACKAGES: &[&str] = &[
    "strongswan-charon",
    "strongswan-swanctl",
    "libstrongswan-standard-plugins",
    "libstrongswan-extra-plugins",
    // ESP without a kernel that has it.
    "libcharon-extra-plugins",
];
/// The package whose version is strongSwan's.
const VERSIONED: &str = "libstrongswan";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Version(u32, u32);

/// Where the root file system is once it is made.
pub fn root() -> PathBuf {
    home().join("root")
}

/// Makes the root file system, if we are root, and says which version is in it.
///
/// Without root it only says that it is missing: what runs strongSwan needs root itself.
///
/// # Errors
/// If no mirror of this machine gives it, or what they give is too old.
pub fn install() -> Result<()> {
    let stamp = home().join("made");
    let made = |version: &str| format!("{version}\n{SUITE} {}\n", PACKAGES.join(" "));
    let is_made = |version: &String| fs::read_to_string(&stamp).is_ok_and(|text| text == made(version));
    if let Some(version) = installed().ok().filter(is_made) {
        println!("strongSwan {version} is in {}", root().display());
        return Ok(());
    }
    if !packages::is_root() {
        println!("missing: strongSwan in {}; the scenarios need it: run this as root", root().display());
        return Ok(());
    }
    println!("making a root file system with strongSwan in {} (half a minute, once)", root().display());
    make()?;
    let version = installed()?;
    let is_enough =
        Version::parse(&version).with_context(|| format!("strongSwan {version} is no version"))? >= LEAST;
    if !is_enough {
        bail!(
            "{SUITE} on this machine's mirror has strongSwan {version}, and the scenarios need {}.{} for ML-KEM; remedy: a \
             mirror with a newer {SUITE} in the apt configuration of this machine",
            LEAST.0,
            LEAST.1
        );
    }
    fs::write(&stamp, made(&version)).with_context(|| format!("writing {}", stamp.display()))?;
    println!("strongSwan {version} is in {}", root().display());
    Ok(())
}

fn make() -> Result<()> {
    let mmdebstrap = packages::find("mmdebstrap")
        .context("strongSwan for the scenarios needs mmdebstrap; remedy: apt-get install mmdebstrap")?;
    let fetching = apt::fetching()?;
    let mut failures = Vec::new();
    for mirror in apt::mirrors()? {
        clear()?;
        let mut command = Command::new(&mmdebstrap);
        command.args(["--quiet", "--variant=minbase", "--components=main"]);
        command.arg(format!("--keyring={}", apt::KEYRING));
        command.args(fetching.iter().map(|line| format!("--aptopt={line}")));
        command.arg(format!("--include={}", PACKAGES.join(",")));
        match workspace::run(command.arg(SUITE).arg(root()).arg(&mirror)) {
            Ok(()) => return Ok(()),
            Err(error) => failures.push(format!("{mirror}: {error:#}")),
        }
    }
    bail!(
        "no mirror of this machine gives strongSwan of {SUITE}: {}; remedy: a Debian mirror with {SUITE} in the apt \
         configuration of this machine, or a root file system with strongSwan {}.{} at {}",
        failures.join("; "),
        LEAST.0,
        LEAST.1,
        root().display()
    )
}

/// Removes what an earlier attempt left.
fn clear() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading what is mounted")?;
    let is_below = |line: &str| line.split(' ').nth(1).is_some_and(|at| Path::new(at).starts_with(root()));
    // An interrupted attempt may have left the machine's own devices there.
    anyhow::ensure!(
        !mounts.lines().any(is_below),
        "something is mounted under {}: unmount it",
        root().display()
    );
    match fs::remove_dir_all(root()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", root().display()))
        }
        _ => fs::create_dir_all(home()).with_context(|| format!("creating {}", home().display())),
    }
}

/// The version in the root file system, without what Debian adds to it.
fn installed() -> Result<String> {
    let database = root().join("var/lib/dpkg");
    let output = Command::new("dpkg-query")
        .arg(format!("--admindir={}", database.display()))
        .args(["--show", "--showformat=${Version}", VERSIONED])
        .output()
        .context("asking dpkg for the version of strongSwan")?;
    anyhow::ensure!(output.status.success(), "there is no {VERSIONED} in {}", root().display());
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let upstream = version.split_once('-').map_or(version.as_str(), |(upstream, _)| upstream);
    Ok(upstream.to_owned())
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

fn home() -> PathBuf {
    tools().join("strongswan")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let parse = |text| Version::parse(text).unwrap();
        assert!(parse("6.0.1") < LEAST && parse("5.9.14") < LEAST);
        assert!(parse("6.1.0") >= LEAST && parse("6.10") > LEAST && parse("10.0.0") > LEAST);
        assert_eq!(Version::parse("sid"), None);
    }
}
