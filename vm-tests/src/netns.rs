//! Network namespaces: made, entered by threads, removed.

use std::ffi::OsStr;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::cleanup::{Cleanup, guarded};
use crate::instance::Instance;

/// A network namespace; the kernel removes it, its interfaces and its rules when the last clone is dropped
/// and no process is in it.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
    cleanup: Option<Cleanup>,
}

impl Namespace {
    /// Makes `<instance>-<role>` with its loopback interface up.
    ///
    /// # Errors
    /// If `ip` is missing or refuses, as it does without root.
    pub fn new(instance: &Instance, role: &str) -> Result<Self> {
        let name = instance.name_of(role);
        let undo = {
            let name = name.clone();
            move || {
                // It is gone already when the kept instance was removed by hand.
                let _ = Command::new("ip").args(["netns", "del", &name]).output();
            }
        };
        let (file, cleanup) = guarded(undo, || {
            run(Command::new("ip").args(["netns", "add", &name]))?;
            File::open(path_of(&name)).context("opening the namespace")
        })?;
        let namespace = Self(Arc::new(Inner { name, file, cleanup: Some(cleanup) }));
        namespace.ip(&["link", "set", "lo", "up"])?;
        // Duplicate address detection would keep link-local addresses unusable for a second.
        namespace.sysctl("ipv6/conf/all/accept_dad", "0")?;
        namespace.sysctl("ipv6/conf/default/accept_dad", "0")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file that `nsenter --net=` takes.
    pub fn path(&self) -> PathBuf {
        path_of(&self.0.name)
    }

    /// Runs `action` on a thread inside the namespace and returns what it returns. Sockets made there stay in
    /// the namespace wherever they are used; programs started there run in it and still see the bpffs, which
    /// `ip netns exec` would hide.
    ///
    /// # Panics
    /// If the namespace cannot be entered, or `action` panics.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0.file, CloneFlags::CLONE_NEWNET)
                    .expect("entering a network namespace needs root");
                action()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program to its end inside the namespace and returns its standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; the error holds its standard error.
    pub fn run<S: AsRef<OsStr> + Sync>(
        &self,
        program: impl AsRef<OsStr> + Send,
        args: &[S],
    ) -> Result<String> {
        self.enter(move || run(Command::new(program).args(args)))
            .with_context(|| format!("in namespace {}", self.0.name))
    }

    /// `ip <args>` inside the namespace.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        self.run("ip", args)
    }

    /// Sets `net.<key>`, with `/` between the parts of the key.
    ///
    /// # Errors
    /// If the kernel has no such setting.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.enter(|| std::fs::write(&path, value)).with_context(|| format!("setting {}", path.display()))
    }

    /// Adds an address to an interface, usable at once, and brings the interface up.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn add_address(&self, interface: &str, address: IpAddr, prefix_length: u8) -> Result<()> {
        let mut args = vec!["address", "add"];
        let address_text = format!("{address}/{prefix_length}");
        args.extend([address_text.as_str(), "dev", interface]);
        if address.is_ipv6() {
            // Duplicate address detection would keep it tentative for a second.
            args.push("nodad");
        }
        self.ip(&args)?;
        self.ip(&["link", "set", interface, "up"]).map(drop)
    }

    /// Adds or replaces a route.
    ///
    /// # Errors
    /// Those of `ip`.
    pub fn add_route(&self, destination: &str, via: IpAddr) -> Result<()> {
        self.ip(&["route", "replace", destination, "via", &via.to_string()]).map(drop)
    }

    /// Loads an nftables script.
    ///
    /// # Errors
    /// Those of `nft`.
    pub fn nft(&self, script: &str) -> Result<()> {
        self.run("nft", &[script]).map(drop)
    }

    /// Leaves the namespace in place when this value is dropped. Clones must be dropped before.
    pub fn keep(self) {
        if let Ok(mut inner) = Arc::try_unwrap(self.0)
            && let Some(cleanup) = inner.cleanup.take()
        {
            cleanup.disarm();
        }
    }
}

/// Joins two namespaces by a veth pair: `a_interface` in `a`, `b_interface` in `b`, each with `queues` queues to send
/// on and as many to receive on. A packet stays on the queue it was sent on.
///
/// # Errors
/// Those of `ip`.
pub fn join(a: &Namespace, a_interface: &str, b: &Namespace, b_interface: &str, queues: u32) -> Result<()> {
    let queues = queues.to_string();
    let queues = ["numtxqueues", &queues, "numrxqueues", &queues];
    #[rustfmt::skip]
    run(Command::new("ip")
        .args(["link", "add", "name", a_interface, "netns", a.name()])
        .args(queues)
        .args(["type", "veth", "peer", "name", b_interface, "netns", b.name()])
        .args(queues))?;
    Ok(())
}

fn path_of(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{:?} {}: {}: {}", command.get_program(), arguments.join(" "), output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
