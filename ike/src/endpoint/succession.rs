//! One IKE SA in the place of others, made before these are broken: another address of ours, another gateway (RFC 5685), another
//! authentication (RFC 4478, RFC 7296 section 2.8.3).
//!
//! ```text
//! cause ──> another IKE SA beside the old one, without INITIAL_CONTACT ──> its children ──> traffic comes in on these
//!                                                                                               │
//!                                              the old one is deleted a second later <──────────┘
//! ```
//!
//! Only the original initiator does this. The responder has two IKE SAs of one peer meanwhile, and sends on the newer.

use core::time::Duration;
use std::sync::Arc;

use super::Endpoint;
use super::connection::Connection;
use super::establish::is_same_peer;
use crate::action::IkeSaId;
use crate::config::{ConnectionConfig, configured_name};
use crate::live::{LiveSa, Task};
use crate::path::{DirectCarrier, EspCarrier};
use crate::status::Reason;
use crate::time::Time;

/// An old IKE SA is deleted this long after its successor is there, even if nothing has come in on that.
pub(super) const LEAVE_AFTER: Duration = Duration::from_secs(5);
/// And this long after something has: what we sent on the old one may be on its way yet, or wait at the peer, which drops it
/// once the DELETE has overtaken it.
const DRAIN: Duration = Duration::from_secs(1);

/// Another IKE SA has to take the place of those that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Succession {
    /// Why.
    pub(crate) reason: Reason,
    /// Those that were established until then are replaced.
    pub(crate) since: Time,
}

/// The IKE SA that takes the place of others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Successor {
    /// This one.
    pub(crate) id: IkeSaId,
    /// Why.
    pub(crate) reason: Reason,
    /// When the others are deleted at the latest, if it has all their children.
    pub(crate) at: Time,
}

impl Endpoint {
    /// Another IKE SA has to take the place of that of a connection, which works until then.
    pub(super) fn succeed(&mut self, now: Time, name: &Arc<str>, reason: Reason) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        connection.succession = Some(Succession { reason, since: now });
        if connection.should_start() {
            connection.plan_attempt(now);
        }
        self.refresh(now, name);
    }

    /// An IKE SA is established, where others were to be replaced; the peer may have been faster. It gets their children.
    pub(super) fn note_successor(&mut self, now: Time, id: IkeSaId) {
        let Some(live) = self.live.get(&id) else { return };
        let name = live.config.name.clone();
        let Some(connection) = self.connections.get_mut(&*name) else { return };
        let Some(succession) = connection.succession.take() else { return };
        connection.successor = Some(Successor { id, reason: succession.reason, at: now + LEAVE_AFTER });
        let others: Vec<_> = connection.live.iter().copied().filter(|other| *other != id).collect();
        let others = others.iter().filter_map(|id| self.live.get(id));
        let children = others.flat_map(|other| other.children.iter()).filter(|child| child.is_live());
        let names: Vec<_> = children.map(|child| child.name.clone()).collect();
        let Some(live) = self.live.get_mut(&id).filter(|live| live.is_initiator) else { return };
        for name in names {
            if live.children.live(&name).is_none() {
                live.want(Task::CreateChild(name));
            }
        }
    }

    /// An attempt for the sake of authentication goes where ESP travels now: in TCP, if nothing else passes it.
    pub(super) fn succeeds_in_tcp(&self, name: &str) -> bool {
        let is_anew = self.connections.get(name).is_some_and(Connection::is_reauthenticated);
        let main = self.main_sa(name).and_then(|id| self.live.get(&id)).filter(|live| live.is_open());
        let is_in_tcp = |live: &LiveSa| matches!(live.carrier.path().carrier, EspCarrier::Stream(_));
        is_anew && main.is_some_and(|live| is_in_tcp(live))
    }

    /// The direct carrier that passes ESP of the IKE SA whose authentication is repeated.
    pub(super) fn proven_carrier(&self, config: &ConnectionConfig) -> Option<DirectCarrier> {
        let connection = self.connections.get(&*config.name)?;
        let main = self.main_sa(&config.name).and_then(|id| self.live.get(&id));
        let main = main.filter(|live| live.is_open() && connection.is_reauthenticated())?;
        match main.carrier.path().carrier {
            EspCarrier::Direct(carrier) => Some(carrier),
            EspCarrier::Stream(_) | EspCarrier::Hold | EspCarrier::Shut => None,
        }
    }

    /// The peer puts another IKE SA in the place of the one that it has.
    pub(super) fn is_peers_successor(&self, new: &LiveSa, has_initial_contact: bool) -> bool {
        let Some(connection) = self.connections.get(&new.config.name) else { return false };
        let mut others = connection.live.iter().filter_map(|id| self.live.get(id)).map(|live| &**live);
        let is_replaced = |other: &LiveSa| other.is_open() && !other.is_initiator && is_same_peer(other, new);
        !has_initial_contact && others.any(is_replaced)
    }

    /// An IKE SA is gone: is there still one to be replaced, with none to take its place?
    pub(super) fn reconsider_succession(&mut self, now: Time, name: &str, gone: IkeSaId) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let lost = connection.successor.take_if(|successor| successor.id == gone);
        let lost = lost.map(|successor| Succession { reason: successor.reason, since: now });
        let Some(pending) = connection.succession.or(lost) else { return };
        let is_left = |id: &IkeSaId| {
            let live = self.live.get(id).filter(|live| live.is_initiator && live.is_open());
            live.is_some_and(|live| live.established <= pending.since)
        };
        connection.succession = connection.live.iter().any(is_left).then_some(pending);
        if lost.is_some() && connection.succession.is_some() {
            self.wait_for_next_attempt(now, name);
        }
    }

    /// Data or a dummy came on a child: if it is of an IKE SA that has taken the place of others, these are not needed any more
    /// once it has all their children.
    pub(super) fn traffic_has_moved(&mut self, now: Time, id: IkeSaId) {
        let Some(name) = self.live.get(&id).map(|live| live.config.name.clone()) else { return };
        let successor = self.connections.get(&name).and_then(|connection| connection.successor);
        let is_sooner = |successor: &Successor| successor.id == id && successor.at > now + DRAIN;
        let Some(successor) = successor.filter(is_sooner).filter(|_| self.has_every_child(&name, id)) else {
            return;
        };
        if let Some(connection) = self.connections.get_mut(&name) {
            connection.successor = Some(Successor { at: now + DRAIN, ..successor });
        }
        self.reschedule_connection(&name);
    }

    /// The time for the old ones is over. They are kept while they carry what the new one does not, unless they cannot: on an
    /// address that is not there any more.
    pub(super) fn succession_due(&mut self, now: Time, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let Some(successor) = connection.successor.filter(|successor| successor.at <= now) else { return };
        let can_wait = successor.reason != Reason::AddressChanged;
        if can_wait && !self.has_every_child(name, successor.id) {
            if let Some(connection) = self.connections.get_mut(name) {
                connection.successor = Some(Successor { at: now + LEAVE_AFTER, ..successor });
            }
            return;
        }
        self.leave_old(now, name);
    }

    /// Each child of the connection's other IKE SAs is there.
    fn has_every_child(&self, name: &str, id: IkeSaId) -> bool {
        let (Some(connection), Some(live)) = (self.connections.get(name), self.live.get(&id)) else {
            return false;
        };
        let others = connection.live.iter().filter(|other| **other != id).filter_map(|id| self.live.get(id));
        // The peer may take fewer resources than before.
        let mut needed = others
            .flat_map(|other| other.children.iter())
            .filter(|child| child.is_live() && configured_name(&child.name) == &*child.name);
        needed.all(|child| live.children.live(&child.name).is_some())
    }

    /// The old IKE SAs are deleted; those on an address that is gone, from the new one.
    fn leave_old(&mut self, now: Time, name: &str) {
        let Some(connection) = self.connections.get_mut(name) else { return };
        let Some(successor) = connection.successor.take() else { return };
        let old: Vec<_> = connection.live.iter().copied().filter(|id| *id != successor.id).collect();
        let local = self.live.get(&successor.id).map(|live| live.link.local().ip());
        let local = local.filter(|_| successor.reason == Reason::AddressChanged);
        for id in old {
            if let Some(live) = self.live.get_mut(&id).filter(|live| live.is_initiator) {
                if let Some(local) = local {
                    live.send_from(&mut self.core, now, local);
                }
                live.close(now, successor.reason);
                live.start_next(&mut self.core, now);
            }
            self.touch(now, id);
        }
    }
}
