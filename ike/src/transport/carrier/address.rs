//! An end has another address than at set-up (transport policy rule 11). Nothing is known of NATs on the new path, so direct
//! ESP is in UDP alone. The end that has moved verifies from there, and moves on the answer; its peer sees it on another stream,
//! and follows ESP.

use std::net::IpAddr;

use super::{Carrier, Phase};
use crate::crypto::Rng;
use crate::path::DirectCarrier;
use crate::time::Time;

/// Who has moved.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Moved {
    pub(super) we: bool,
    pub(super) peer: bool,
}

impl Moved {
    pub(super) fn leaves_nat_unknown(self) -> bool {
        self.we || self.peer
    }
}

impl Carrier {
    /// Our address: the one in use, or the one that is being verified.
    pub(crate) fn local(&self) -> IpAddr {
        self.local
    }

    /// The policy has ESP in UDP.
    pub(crate) fn allows_udp(&self) -> bool {
        self.policy.transports.contains(&DirectCarrier::Udp)
    }

    /// Our address is this one from now on.
    pub(crate) fn change_address(&mut self, now: Time, address: IpAddr, rng: &mut Rng) {
        self.local = address;
        self.is_address_gone = false;
        if self.basis.in_tcp {
            self.path.local = address;
            return;
        }
        self.moved.we = true;
        self.has_local_failure = false;
        self.confirm = None;
        self.path_mtu = None;
        self.path_mtu_at = None;
        // Behind a NAT, should there be one, the mapping is ours to keep (rule 10).
        self.keepalive_at.get_or_insert(now + self.policy.keepalive);
        match &self.phase {
            Phase::Unreachable(_) => {}
            // T section 4.1: the initiator MUST verify on the new path.
            Phase::InTcp(_) => {
                self.path.local = address;
                self.phase = Phase::InTcp(None);
                self.returns.try_at(now);
            }
            _ if self.basis.echo => {
                self.probe_at = None;
                self.suspect(now, None, rng);
            }
            _ => {
                self.phase = Phase::Steady;
                self.unverified = Default::default();
                self.choose(now, DirectCarrier::Udp);
            }
        }
        self.drive(now, rng);
    }

    /// IKE of the peer comes from this address.
    pub(crate) fn peer_has_address(&mut self, now: Time, address: IpAddr) {
        if self.basis.ike_remote == address {
            return;
        }
        self.basis.ike_remote = address;
        self.path.echo.ip_only_from = self.basis.echo.then_some(address);
        if !self.basis.in_tcp {
            self.moved.peer = true;
            if self.direct() == Some(DirectCarrier::Ip) {
                self.leave_ip(now);
            }
        }
    }

    /// Addresses, routes or links here have changed: a local cause is there, or may be gone (rule 5).
    pub(crate) fn local_change(&mut self, now: Time, is_address_gone: bool, rng: &mut Rng) {
        self.is_address_gone = is_address_gone;
        match &self.phase {
            Phase::Steady | Phase::Probing(_) | Phase::Suspect(_) | Phase::AskingStream(_)
                if is_address_gone && self.is_direct() =>
            {
                self.confirm = None;
                self.phase = Phase::LocalDown;
            }
            Phase::LocalDown if !is_address_gone => self.after_local_down(now, rng),
            _ => {}
        }
        self.drive(now, rng);
    }

    /// Our address is none of this host's, or leads nowhere.
    pub(crate) fn lacks_address(&self) -> bool {
        self.is_address_gone
    }

    pub(super) fn lacks_address_detail(&self) -> String {
        format!(
            "{} is no address of this host, or no route leads to the peer: ESP and IKE wait for it, or move when packets to the \
             peer leave from another one",
            self.local
        )
    }

    /// An address that we have moved away from: what still arrives there moves nothing.
    pub(super) fn has_left(&self, address: IpAddr) -> bool {
        self.moved.we && address != self.local
    }
}
