//! Devices that go and come back while the data plane runs: our TUN devices, and the configured interfaces.
//!
//! The guard holds throughout: what leads traffic into a device that is gone leads it nowhere.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::routing::tun_routing;
use super::start::{StartError, tun_mtu, wan_indexes};
use super::{Inner, lock};
use crate::event::DataPlaneEvent;
use crate::tun::{Tun, TunCondition};

/// How soon a device that could not be had is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What may concern the devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Addresses or links are other than before.
    Network,
    /// A route or rule of ours was removed.
    Routing,
}

/// Looks after the devices whenever `changes` says that the network has changed, until its sender is gone.
pub(super) fn attend(inner: &Arc<Inner>, changes: Receiver<Change>) -> io::Result<()> {
    let inner = Arc::downgrade(inner);
    thread::Builder::new().name("devices".into()).spawn(move || follow(&inner, &changes)).map(drop)
}

fn follow(inner: &Weak<Inner>, changes: &Receiver<Change>) {
    let (mut is_whole, mut is_routing_due) = (true, false);
    loop {
        let change = if is_whole {
            changes.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            changes.recv_timeout(RETRY_INTERVAL)
        };
        if change == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        // One look for all that waits.
        for change in change.into_iter().chain(changes.try_iter()) {
            is_routing_due |= change == Change::Routing;
        }
        let Some(inner) = inner.upgrade() else { return };
        inner.look_after_interfaces();
        let mut restored = inner.look_after_tuns();
        if restored.is_ok() && is_routing_due {
            restored = inner.look_after_routing();
            is_routing_due = restored.is_err();
        }
        match restored {
            Ok(()) => is_whole = true,
            // Said once, not at every attempt.
            Err(error) => {
                if std::mem::take(&mut is_whole) {
                    tracing::error!(%error, "a TUN device is gone, or the routes into it, and cannot be had again; trying on. Its traffic is stopped");
                }
            }
        }
    }
}

impl Inner {
    /// Makes TUN devices that were removed again and switches on those that were switched off, with their routes.
    fn look_after_tuns(&self) -> Result<(), StartError> {
        let policies = lock(&self.policies);
        let kernel = &self.shared.kernel;
        let mut restored = Vec::new();
        for (number, port) in kernel.tuns().iter().enumerate() {
            let mtu = || tun_mtu(&self.network.snapshot(), &self.config);
            match port.tun.condition() {
                TunCondition::Up => continue,
                _ if self.shared.is_stopping() => return Ok(()),
                TunCondition::Down => port.tun.bring_up(mtu())?,
                TunCondition::Gone => {
                    port.give_up();
                    let is_persistent = port.route_based.is_some();
                    let queues = self.shared.workers.len();
                    let tun =
                        Tun::create(port.tun.name(), mtu(), is_persistent, self.config.offloads, queues)?;
                    let (old, new) = (port.tun.ifindex(), tun.ifindex());
                    self.guard.update(|spec| {
                        spec.tun_interfaces.remove(&old);
                        spec.tun_interfaces.insert(new);
                    })?;
                    kernel.replace_tun(number, tun);
                }
            }
            restored.push(Arc::from(port.tun.name()));
        }
        if restored.is_empty() {
            return Ok(());
        }
        let routing = tun_routing(&self.config, policies.set(), &self.network.snapshot());
        let mut routes = lock(&self.routes);
        // Whoever stops takes the routes away, and waits for this lock.
        if let Some(port) = kernel.tuns().first().filter(|_| !self.shared.is_stopping()) {
            routes.replace(port.tun.ifindex(), &routing)?;
        }
        // Workers wait for the descriptors that they knew.
        self.shared.workers.iter().for_each(|mailbox| mailbox.wake.wake());
        for name in restored {
            self.tell(DataPlaneEvent::TunRestored { name });
        }
        Ok(())
    }

    /// Puts routes and rules back that lead into the TUN device: a network manager may take them for leftovers.
    fn look_after_routing(&self) -> Result<(), StartError> {
        let policies = lock(&self.policies);
        let routing = tun_routing(&self.config, policies.set(), &self.network.snapshot());
        let mut routes = lock(&self.routes);
        let tuns = self.shared.kernel.tuns();
        if let Some(port) = tuns.first().filter(|_| !self.shared.is_stopping()) {
            let missing = routes.replace(port.tun.ifindex(), &routing)?;
            if missing > 0 {
                self.tell(DataPlaneEvent::RoutingRestored { missing });
            }
        }
        Ok(())
    }

    /// Takes note of interfaces that went, and uses those that came back as far as it can.
    fn look_after_interfaces(&self) {
        let network = self.network.snapshot();
        for interface in &self.interfaces {
            let name = interface.name().clone();
            let before = interface.replace_index(network.ifindex(&name));
            match (before, network.ifindex(&name)) {
                (Some(_), None) => self.tell(DataPlaneEvent::InterfaceLost { name }),
                (before, Some(index)) if before != Some(index) => {
                    let wan = wan_indexes(&self.config, &network);
                    if let Err(error) = self.guard.update(|spec| spec.wan_interfaces = wan) {
                        tracing::error!(%error, "the guard does not know interface {name} that came back");
                    }
                    let is_used = interface.take_up_again(self.xdp.as_deref());
                    self.tell(DataPlaneEvent::InterfaceReturned { name, is_used });
                }
                _ => {}
            }
        }
    }

    /// The control plane counts and logs it; what it is about has happened whether it has room or not.
    fn tell(&self, event: DataPlaneEvent) {
        let _ = self.shared.notifier.events.try_send(event);
    }
}
