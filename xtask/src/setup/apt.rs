//! apt: packages of this machine, and single packages of another release through a private configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Keys of Debian's archive.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches the lists of the machine's own sources.
pub fn update() -> Result<()> {
    workspace::run(apt_get().args(["--quiet", "update"]))
}

/// Installs packages from the machine's own sources.
pub fn install(packages: &[&str]) -> Result<()> {
    workspace::run(
        apt_get().args(["--quiet", "--yes", "--no-install-recommends", "install", "--"]).args(packages),
    )
}

/// Fetches a package from the machine's own sources and unpacks it into `into`, without installing it.
pub fn unpack_own(package: &str, into: &Path) -> Result<()> {
    let archives = into.join("archives");
    fs::create_dir_all(&archives).with_context(|| format!("creating {}", archives.display()))?;
    // The sandbox user of apt may not enter our directory.
    let mut download = apt_get();
    download.args(["-o", "APT::Sandbox::User=", "--quiet", "download", package]).current_dir(&archives);
    workspace::run(&mut download)?;
    let archive = archive_of(package, &archives)?;
    workspace::run(Command::new("dpkg").arg("-x").arg(archive).arg(into))
}

/// Fetches a package of `suite`, of a version that starts with `version`, and unpacks it into `into`.
///
/// The machine's own sources and lists stay as they are: lists, cache and sources of this fetch live in
/// `scratch`. The mirror is the machine's own; apt checks the archive's signature and the package's hash.
///
/// # Errors
/// If the machine names no Debian mirror, or none of them has the package.
pub fn unpack(package: &str, version: &str, suite: &str, scratch: &Path, into: &Path) -> Result<()> {
    let mut failures = Vec::new();
    for mirror in mirrors()? {
        match fetch(package, version, suite, &mirror, scratch) {
            Ok(archive) => return workspace::run(Command::new("dpkg").arg("-x").arg(archive).arg(into)),
            Err(error) => failures.push(format!("{mirror}: {error:#}")),
        }
    }
    bail!("no mirror of this machine gives {package} {version}: {}", failures.join("; "))
}

/// Fetches the package whose name begins with `prefix` among those that `metapackage` of `suite` depends on, with those that it
/// depends on itself whose names begin with one of `parts`, and unpacks them into `into`; otherwise as [`unpack`].
///
/// # Errors
/// As those of [`unpack`].
pub fn unpack_named(
    metapackage: &str,
    prefix: &str,
    parts: &[&str],
    suite: &str,
    scratch: &Path,
    into: &Path,
) -> Result<()> {
    let mut failures = Vec::new();
    for mirror in mirrors()? {
        let fetched = Private::new(suite, &mirror, scratch).and_then(|private| {
            let package = private.dependency(metapackage, &[prefix])?.into_iter().next();
            let package = package.with_context(|| format!("{metapackage} depends on no {prefix}*"))?;
            let mut packages = private.dependency(&package, parts)?;
            packages.push(package);
            packages.into_iter().map(|package| private.download(&package, &format!("{package}_"))).collect()
        });
        match fetched {
            Ok(archives) => {
                let archives: Vec<_> = archives;
                let mut unpack =
                    archives.iter().map(|a| Command::new("dpkg").arg("-x").arg(a).arg(into).status());
                return if unpack.all(|status| status.is_ok_and(|status| status.success())) {
                    Ok(())
                } else {
                    bail!("dpkg cannot unpack {archives:?}")
                };
            }
            Err(error) => failures.push(format!("{mirror}: {error:#}")),
        }
    }
    bail!("no mirror of this machine gives a {prefix}* of {suite}: {}", failures.join("; "))
}

fn fetch(package: &str, version: &str, suite: &str, mirror: &str, scratch: &Path) -> Result<PathBuf> {
    let private = Private::new(suite, mirror, scratch)?;
    private.download(&format!("{package}={version}*"), &format!("{package}_{version}"))
}

/// apt with lists, cache and sources of its own.
struct Private<'a> {
    scratch: &'a Path,
}

impl<'a> Private<'a> {
    /// With the lists of a suite as a mirror has them now.
    fn new(suite: &str, mirror: &str, scratch: &'a Path) -> Result<Self> {
        for directory in ["lists/partial", "cache/archives/partial", "archives"] {
            let directory = scratch.join(directory);
            fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        }
        let private = Self { scratch };
        let sources = private.sources();
        fs::write(&sources, format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"))
            .with_context(|| format!("writing {}", sources.display()))?;
        workspace::run(private.command("apt-get").arg("update"))?;
        Ok(private)
    }

    /// Fetches a package, as apt names it, into an archive whose name begins so.
    fn download(&self, package: &str, archive: &str) -> Result<PathBuf> {
        workspace::run(self.command("apt-get").arg("download").arg(package).current_dir(self.archives()))?;
        archive_of(archive, &self.archives())
    }

    /// What a package depends on, of names that begin so.
    fn dependency(&self, package: &str, prefixes: &[&str]) -> Result<Vec<String>> {
        let output = self.command("apt-cache").args(["depends", package]).output();
        let output = output.context("asking apt for dependencies")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        let wanted = |name: &&str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        Ok(names.filter(wanted).map(str::to_owned).collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        for (key, path) in [
            ("Dir::Etc::sourcelist", self.sources()),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::State", self.scratch.to_owned()),
            ("Dir::Cache", self.scratch.join("cache")),
        ] {
            command.arg("-o").arg(format!("{key}={}", path.display()));
        }
        // The sandbox user of apt may not enter our directory.
        command.args(["-o", "APT::Sandbox::User=", "--quiet"]);
        command
    }

    fn sources(&self) -> PathBuf {
        self.scratch.join("sources.list")
    }

    fn archives(&self) -> PathBuf {
        self.scratch.join("archives")
    }
}

fn archive_of(prefix: &str, archives: &Path) -> Result<PathBuf> {
    fs::read_dir(archives)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|p| p.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .with_context(|| format!("apt left no {prefix} in {}", archives.display()))
}

/// The Debian mirrors in the machine's apt configuration, without those of security updates.
pub fn mirrors() -> Result<Vec<String>> {
    let output = apt_get().args(["update", "--print-uris"]).output().context("asking apt for its mirrors")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut mirrors: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once("/dists/"))
        .map(|(mirror, _)| mirror.to_owned())
        .filter(|mirror| mirror.trim_end_matches('/').ends_with("/debian"))
        .collect();
    mirrors.sort();
    mirrors.dedup();
    anyhow::ensure!(!mirrors.is_empty(), "the apt configuration of this machine names no Debian mirror");
    Ok(mirrors)
}

/// How this machine's apt fetches, as lines of its configuration: proxies, retries, whether old lists will do.
pub fn fetching() -> Result<Vec<String>> {
    const ABOUT: [&str; 4] = ["Acquire::Check-", "Acquire::http", "Acquire::ftp", "Acquire::Retries"];
    let output = Command::new("apt-config")
        .args(["dump", "--no-empty", "--format", "%F \"%v\"%n", "Acquire"])
        .output()
        .context("asking apt for its configuration")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_about = |line: &&str| ABOUT.iter().any(|start| line.starts_with(start));
    Ok(text.lines().filter(is_about).map(str::to_owned).collect())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
