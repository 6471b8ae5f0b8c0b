//! Certificates of a laboratory, made by `portcullis pki`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::daemon_config::DaemonConfig;
use crate::topology::Side;

/// An authority in a directory of its own, and what it has issued.
#[derive(Debug)]
pub struct Authority {
    binary: PathBuf,
    directory: PathBuf,
    kind: &'static str,
}

impl Authority {
    /// Makes one whose keys, and those of what it issues, are of this kind.
    ///
    /// # Errors
    /// If `portcullis pki` fails; the error holds what it said.
    pub fn new(binary: &Path, directory: PathBuf, kind: &'static str) -> Result<Self> {
        let authority = Self { binary: binary.to_owned(), directory, kind };
        authority.run(&["ca", "--key", kind, "--out"], &[&authority.directory])?;
        Ok(authority)
    }

    /// Issues a certificate, and a key of its own.
    ///
    /// # Errors
    /// As those of [`Authority::new`].
    pub fn issue(&self, id: &str) -> Result<()> {
        self.run(&["issue", "--id", id, "--key", self.kind, "--ca"], &[&self.directory])
    }

    /// Issues a certificate that is good for so many days.
    ///
    /// # Errors
    /// As those of [`Authority::new`].
    pub fn issue_for_days(&self, id: &str, days: u32) -> Result<()> {
        let days = days.to_string();
        self.run(&["issue", "--id", id, "--key", self.kind, "--days", &days, "--ca"], &[&self.directory])
    }

    /// Revokes what was issued for `ids`, and writes the revocation list.
    ///
    /// # Errors
    /// As those of [`Authority::new`].
    pub fn revoke(&self, ids: &[&str]) -> Result<()> {
        let certificates: Vec<PathBuf> = ids.iter().map(|id| self.certificate(id)).collect();
        let paths: Vec<&Path> =
            std::iter::once(&*self.directory).chain(certificates.iter().map(|path| &**path)).collect();
        self.run(&["revoke", "--ca"], &paths)
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Its key.
    pub fn authority_key(&self) -> PathBuf {
        self.directory.join("ca.key")
    }

    /// Its revocation list.
    pub fn revocation_list(&self) -> PathBuf {
        self.directory.join("ca.crl")
    }

    /// What was issued for `id`.
    pub fn certificate(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.pem"))
    }

    /// The key of what was issued for `id`.
    pub fn key(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.key"))
    }

    /// A side proves itself by its certificate.
    pub fn certify(&self, config: &mut DaemonConfig, side: Side) {
        let id = side.id();
        let local = format!("connections/{}/local", side.connection());
        config.remove(&format!("{local}/secret_file"));
        config.set(&format!("{local}/auth"), "cert");
        config.set(&format!("{local}/certificate"), self.certificate(&id).display().to_string());
        config.set(&format!("{local}/key"), self.key(&id).display().to_string());
    }

    /// A side asks its peer for a certificate of this authority.
    pub fn trust(&self, config: &mut DaemonConfig, side: Side) {
        let remote = format!("connections/{}/remote", side.connection());
        config.remove(&format!("{remote}/secret_file"));
        config.set(&format!("{remote}/auth"), "cert");
        config.set(&format!("{remote}/ca"), self.authority().display().to_string());
    }

    fn run(&self, arguments: &[&str], paths: &[&Path]) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.arg("pki").args(arguments).args(paths);
        if arguments.first() == Some(&"issue") {
            command.arg("--out").arg(&self.directory);
        }
        let output = command.output().with_context(|| format!("starting {}", self.binary.display()))?;
        if output.status.success() {
            return Ok(());
        }
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
    }
}

impl Side {
    /// The identity of its gateway in the files that ship.
    pub fn id(self) -> String {
        format!("{}.example.net", self.gateway_name())
    }
}
