//! strongSwan as a gateway: its daemon in a namespace of the laboratory, in the root file system that `cargo xtask setup`
//! makes, driven by `swanctl`.
//!
//! ESP is in charon itself (`kernel-libipsec`), because a kernel without ESP has to do. That plugin encapsulates ESP in UDP
//! always, for which charon says of its peers that they are behind a NAT; it has neither ESN nor transport mode.

mod jail;
mod pair;
mod sas;
mod settings;

pub use pair::StrongswanPair;
pub use sas::{ChildSa, IkeSa};
pub use settings::Settings;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::instance::Instance;
use crate::netns::Namespace;
use crate::process::{Exit, Process};
use crate::wait::until;
use jail::Jail;

/// How long a daemon may take to start or to end, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// How long `swanctl` waits for the outcome of an exchange.
const EXCHANGE_SECONDS: &str = "30";
/// What `swanctl` expects beside its configuration.
const CREDENTIALS: [&str; 9] =
    ["x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private", "pkcs12"];

/// A running charon. Dropping it kills it; its mounts go with it, its files with the instance.
#[derive(Debug)]
pub struct Strongswan {
    namespace: Namespace,
    jail: Jail,
    /// `/etc/swanctl` of this daemon.
    etc: PathBuf,
    process: Process,
}

impl Strongswan {
    /// What charon has to be told in any case; a scenario may add to it.
    pub fn charon() -> Settings {
        let mut settings = Settings::default();
        for (path, value) in [
            ("charon/load_modular", "yes"),
            ("charon/plugins/kernel-libipsec/load", "yes"),
            // Its shunts would let networks on our own links bypass the tunnel.
            ("charon/plugins/bypass-lan/load", "no"),
            // Not standard output, which it flushes when it ends.
            ("charon/filelog/output/path", "stderr"),
            ("charon/filelog/output/default", "1"),
            ("charon/filelog/output/ike", "2"),
            ("charon/filelog/output/cfg", "2"),
        ] {
            settings.set(path, value);
        }
        settings
    }

    /// Starts charon as `name` in `namespace` and waits until it takes commands.
    ///
    /// # Errors
    /// If `root` holds no strongSwan, or the daemon ends; the error holds its output.
    pub fn start(
        instance: &Instance,
        namespace: &Namespace,
        name: &str,
        root: &Path,
        charon: &Settings,
    ) -> Result<Self> {
        let directory = instance.directory().join(name);
        let (etc, run) = (directory.join("swanctl"), directory.join("run"));
        fs::create_dir_all(&run).with_context(|| format!("creating {}", run.display()))?;
        for credentials in CREDENTIALS {
            let path = etc.join(credentials);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let plugins = "charon { plugins { include /etc/strongswan.d/charon/*.conf } }\n";
        fs::write(etc.join("strongswan.conf"), format!("{plugins}{charon}"))?;
        let jail = Jail::new(root).with(&etc, "etc/swanctl").with(&run, "run");
        let mut command = jailed("/usr/lib/ipsec/charon");
        // A path in the directory of the instance is how a process is recognised as one of it.
        command.arg0(directory.join("charon"));
        let process = Process::start_prepared(|| jail.enter(), namespace, &mut command)
            .with_context(|| format!("strongSwan from {}", root.display()))?;
        let started = Self { namespace: namespace.clone(), jail, etc, process };
        match started.wait_log(LIMIT, |line| line.contains("spawning ")) {
            Some(_) => Ok(started),
            None => bail!("charon did not start:\n{}", started.log_tail()),
        }
    }

    /// Its process.
    pub fn id(&self) -> i32 {
        self.process.id()
    }

    /// Its version, as it said when it started.
    ///
    /// # Errors
    /// If it did not.
    pub fn version(&self) -> Result<String> {
        let version = self.process.output().iter().find_map(|line| {
            let (_, rest) = line.split_once("(strongSwan ")?;
            Some(rest.split_once(',')?.0.to_owned())
        });
        version.context("charon has not said its version")
    }

    /// Replaces the whole configuration: connections and secrets that are not in it any more are unloaded.
    ///
    /// # Errors
    /// If charon refuses it.
    pub fn load(&self, settings: &Settings) -> Result<()> {
        fs::write(self.etc.join("swanctl.conf"), settings.to_string())?;
        self.swanctl(&["--load-all", "--clear"]).map(drop)
    }

    /// Sets a child up, and its IKE SA if there is none, and waits for the outcome.
    ///
    /// # Errors
    /// If it does not come up; the error holds the log of the attempt.
    pub fn initiate(&self, child: &str) -> Result<()> {
        self.swanctl(&["--initiate", "--child", child, "--timeout", EXCHANGE_SECONDS]).map(drop)
    }

    /// Deletes the IKE SAs of a connection and waits for the answer.
    ///
    /// # Errors
    /// If there is none.
    pub fn terminate(&self, connection: &str) -> Result<()> {
        self.swanctl(&["--terminate", "--ike", connection, "--timeout", EXCHANGE_SECONDS]).map(drop)
    }

    /// Starts new keys for a child. It does not wait for them: [`Strongswan::wait_sas`] does.
    ///
    /// # Errors
    /// If there is no such child.
    pub fn rekey_child(&self, child: &str) -> Result<()> {
        self.swanctl(&["--rekey", "--child", child]).map(drop)
    }

    /// Starts new keys for an IKE SA. It does not wait for them: [`Strongswan::wait_sas`] does.
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn rekey_ike(&self, connection: &str) -> Result<()> {
        self.swanctl(&["--rekey", "--ike", connection]).map(drop)
    }

    /// Sends the peers of a connection to another gateway.
    ///
    /// # Errors
    /// If none of them is up.
    pub fn redirect(&self, connection: &str, gateway: &str) -> Result<()> {
        self.swanctl(&["--redirect", "--ike", connection, "--gateway", gateway]).map(drop)
    }

    /// Its IKE SAs.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn sas(&self) -> Result<Vec<IkeSa>> {
        sas::parse(&self.swanctl(&["--list-sas", "--pretty"])?)
    }

    /// Waits until its IKE SAs are as `wanted`.
    ///
    /// # Errors
    /// If they are not within `limit`; the error holds them and the log.
    pub fn wait_sas(&self, limit: Duration, wanted: impl Fn(&[IkeSa]) -> bool) -> Result<Vec<IkeSa>> {
        let mut last = None;
        let found = until(limit, || {
            let sas = self.sas();
            let good = sas.as_ref().is_ok_and(|sas| wanted(sas));
            last = Some(sas);
            if good { last.take() } else { None }
        });
        match found {
            Some(sas) => sas,
            None => bail!("strongSwan after {limit:?}: {last:#?}\n{}", self.log_tail()),
        }
    }

    /// Waits for a line of its log, those that are there included.
    pub fn wait_log(&self, limit: Duration, wanted: impl FnMut(&str) -> bool) -> Option<String> {
        self.process.wait_for_line(limit, wanted)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        const LINES: usize = 60;
        let output = self.process.output();
        output[output.len().saturating_sub(LINES)..].join("\n")
    }

    /// Ends it; its peers get a DELETE.
    ///
    /// # Errors
    /// If it ends with an error, or not at all.
    pub fn stop(self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        match self.process.wait(LIMIT) {
            Some(Exit::Status(0)) => Ok(()),
            exit => bail!("charon ended with {exit:?}:\n{}", self.log_tail()),
        }
    }

    /// Where `swanctl` finds certificates and keys, in directories of their own.
    pub fn credentials(&self) -> &Path {
        &self.etc
    }

    fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.namespace.enter(|| {
            self.jail.enter()?;
            jailed("/usr/sbin/swanctl").args(arguments).output().context("starting swanctl")
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("swanctl {}: {}\n{text}{errors}\n{}", arguments.join(" "), output.status, self.log_tail())
    }
}

/// A program of the jail, without what our own environment says.
fn jailed(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("STRONGSWAN_CONF", "/etc/swanctl/strongswan.conf").current_dir("/");
    command
}
