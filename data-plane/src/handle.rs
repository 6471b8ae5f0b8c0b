//! The data plane as the control plane sees it: one handle that starts everything, takes SAs, paths and policies,
//! and reports.

mod balance;
mod capture;
mod devices;
mod exempt;
mod explain;
mod interfaces;
mod numa;
mod policies;
mod report;
mod routing;
mod sas;
mod start;

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::config::DataPlaneConfig;
use crate::guard::Guard;
use crate::netlink::{Network, Snapshot, TunRoutes};
pub use crate::sa_table::MoveRefused;
pub use crate::worker::load::Direction;
use crate::worker::sas::SaTable;
use crate::worker::shared::Shared;
pub use capture::Capture;
pub use explain::{Explanation, Tunnel, Way};
pub use report::{DataPlaneReport, InterfacePath, InterfaceReport, SaTableReport};
pub use sas::InstallError;
pub use start::{DataPlaneSockets, Receivers, StartError};

use interfaces::{BoundInterface, Xdp};
use policies::Policies;
use routing::tun_routing;
use sas::Children;

/// A running data plane. Clones are the same one; it ends with [`DataPlane::stop`] or when the last clone is
/// dropped. The guard stays: it goes by `guard::release` alone.
#[derive(Clone)]
pub struct DataPlane {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: DataPlaneConfig,
    pub(crate) shared: Arc<Shared>,
    pub(crate) table: SaTable,
    policies: Mutex<Policies>,
    children: Mutex<Children>,
    guard: Arc<Guard>,
    guard_missing: Option<Arc<str>>,
    network: Network,
    routes: Mutex<TunRoutes>,
    interfaces: Vec<BoundInterface>,
    xdp: Option<Arc<Xdp>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Ends the thread that spreads SAs over workers.
    balance: Mutex<Option<Sender<()>>>,
}

impl DataPlane {
    /// Sends an IKE message from UDP 4500. The non-ESP marker is in `payload` already (RFC 3948 section 2.2).
    ///
    /// # Errors
    /// What the kernel says: no route, no buffer; NotFound if there is no socket of that family.
    pub fn send_ike(&self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let sockets = &self.inner.shared.kernel.udp;
        let socket =
            sockets.iter().find(|s| s.is_ipv4() == remote.is_ipv4()).ok_or(io::ErrorKind::NotFound)?;
        socket.send(payload, local.ip(), remote)
    }

    /// Why this kernel can hold no guard, if so: then nothing may be protected, because traffic could not be stopped
    /// whenever no SA takes it (transport policy, "Shut means shut").
    pub fn guard_missing(&self) -> Option<Arc<str>> {
        self.inner.guard_missing.clone()
    }

    /// The network of this host as it is now.
    pub fn network(&self) -> Arc<Snapshot> {
        self.inner.network.snapshot()
    }

    /// True while every worker works on devices that are there. One that ended took its sockets with it, as an
    /// interface that was removed took its AF_XDP sockets, and XDP drops what was for them: end the process and start
    /// again.
    pub fn is_running(&self) -> bool {
        let threads = lock(&self.inner.threads);
        !threads.is_empty()
            && threads.iter().all(|thread| !thread.is_finished())
            && self.inner.interfaces.iter().all(BoundInterface::is_usable)
    }

    /// Ends the workers and gives sockets, devices and routes back. SAs are gone with it, the guard is not.
    pub fn stop(&self) {
        self.inner.stop();
    }
}

impl Inner {
    /// True if workers send by queues of a veth.
    fn is_on_veth(&self) -> bool {
        self.interfaces.iter().any(BoundInterface::is_on_veth)
    }

    fn stop(&self) {
        self.shared.stop();
        lock(&self.balance).take();
        let threads = std::mem::take(&mut *lock(&self.threads));
        if threads.is_empty() {
            return;
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
        let policies = lock(&self.policies);
        let routing = tun_routing(&self.config, policies.set(), &self.network.snapshot());
        if let Err(error) = lock(&self.routes).close(&routing) {
            tracing::warn!(%error, "routes into the TUN device are left");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// No holder of these locks leaves a half-made change behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
