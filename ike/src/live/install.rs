//! Children into actions: what is installed, used and removed, and in which order, so that a rekey loses nothing.

use core::time::Duration;
use std::sync::Arc;

use super::{LiveSa, Outcome};
use crate::action::{Action, ChildId, ChildSaCommon, InboundChildSa, OutboundChildSa};
use crate::config::configured_name;
use crate::endpoint::core::Core;
use crate::event::{Event, KeyEvent};
use crate::sa::child_offer::NewChild;
use crate::sa::children::{Child, Outbound, SHORTEST_LINGER, Stage};
use crate::time::Time;
use crate::transport::backoff::{earlier, share};

impl LiveSa {
    /// Installs both directions of a new pair, unused. The caller does it before anything leaves that lets the peer use
    /// it.
    pub(crate) fn install(&mut self, core: &mut Core, now: Time, new: NewChild) -> ChildId {
        let NewChild { terms, keys, lowest_nonce } = new;
        let id = core.new_child_id();
        let (inbound_key, outbound_key) = match terms.by_us {
            true => (keys.from_responder, keys.from_initiator),
            false => (keys.from_initiator, keys.from_responder),
        };
        let jitter = self.config.ike.rekey_jitter_percent;
        let early = share(jitter, &mut core.rng);
        let common = |key| ChildSaCommon {
            child: id,
            ike_sa: self.id,
            connection: self.config.name.clone(),
            child_name: match terms.config.resource {
                0 => terms.config.name.clone(),
                _ => configured_name(&terms.config.name).into(),
            },
            resource: terms.config.resource,
            cipher: terms.choice.esp_cipher(),
            key,
            esn: terms.choice.esn,
            local_ts: terms.local_ts.clone(),
            remote_ts: terms.remote_ts.clone(),
            early,
        };
        if core.config.key_log {
            let path = self.carrier.path();
            let directions = [
                (terms.spi_in, path.remote, path.local, &inbound_key),
                (terms.spi_out, path.local, path.remote, &outbound_key),
            ];
            for (spi, source, destination, key) in directions {
                let cipher = terms.choice.esp_cipher();
                core.event(Event::Keys(KeyEvent::Esp { spi, source, destination, cipher, key: key.clone() }));
            }
        }
        if self.children.iter().next().is_none() {
            core.actions.push_back(Action::UpdatePath { ike_sa: self.id, path: self.carrier.path() });
        }
        let inbound = InboundChildSa { common: common(inbound_key), spi: terms.spi_in };
        core.actions.push_back(Action::InstallInbound(Box::new(inbound)));
        let outbound = OutboundChildSa { common: common(outbound_key), spi: terms.spi_out };
        core.actions.push_back(Action::InstallOutbound(Box::new(outbound)));
        if let Some(old) = terms.replaces.and_then(|old| self.children.get_mut(old))
            && old.stage == Stage::Live
        {
            old.stage = Stage::Replaced;
        }
        core.children.insert(id, self.id);
        core.packets.remove(&(self.config.name.clone(), terms.config.name.clone()));
        self.children.add(Child {
            id,
            name: terms.config.name.clone(),
            spi_in: terms.spi_in,
            spi_out: terms.spi_out,
            cipher: terms.choice.esp_cipher(),
            esn: terms.choice.esn,
            algorithms: terms.choice.notation.clone(),
            local_ts: terms.local_ts,
            remote_ts: terms.remote_ts,
            established: now,
            rekey_at: now + earlier(terms.config.rekey_after, jitter, &mut core.rng),
            expires_at: now + terms.config.lifetime,
            stage: Stage::Live,
            outbound: Outbound::Standby,
            lowest_nonce,
            made_by_us: terms.by_us,
            replaces: terms.replaces,
        });
        core.event(Event::ChildEstablished {
            connection: self.config.name.clone(),
            child_name: terms.config.name.clone(),
            child: id,
            replaces: terms.replaces,
            by_us: terms.by_us,
            spis: (terms.spi_in, terms.spi_out),
            algorithms: terms.choice.notation.to_string(),
        });
        self.outcomes
            .push(Outcome::ChildUp { name: terms.config.name.clone(), rekeyed: terms.replaces.is_some() });
        id
    }

    /// Outbound traffic takes this pair from now on.
    pub(crate) fn use_outbound(&mut self, core: &mut Core, now: Time, id: ChildId) {
        let Some(child) = self.children.get_mut(id) else { return };
        if child.outbound != Outbound::Standby || !child.exists() {
            return;
        }
        child.outbound = Outbound::InUse;
        let name = child.name.clone();
        for other in self.children.iter_mut() {
            if other.id != id && other.name == name && other.outbound == Outbound::InUse {
                other.outbound = Outbound::Standby;
            }
        }
        core.actions.push_back(Action::UseOutbound { child: id });
        self.accept_esp(core);
        self.carrier.child_in_use(now, &name, id, &mut core.rng);
        self.carry_out(core, now);
    }

    /// ESP in the stream is opened where the policy allows TCP: it belongs there (RFC 9329 section 5), or the peer may move it
    /// there in place (transport policy rule 7), so that it can be followed and echoes on it answered.
    pub(crate) fn accept_esp(&mut self, core: &mut Core) {
        let stream = self.link.tcp().and_then(|link| link.current);
        if let Some(stream) = stream.filter(|_| self.carrier.may_use_tcp()) {
            core.accept_esp(stream, Some(self.id));
        }
    }

    /// The live pair that took over from `old`: of two, the one that the nonces let survive (RFC 7296 section 2.8.1).
    pub(crate) fn successor(&self, old: ChildId) -> Option<ChildId> {
        let replacing = self.children.iter().filter(|child| child.is_live() && child.replaces == Some(old));
        replacing.max_by(|a, b| a.lowest_nonce.cmp(&b.lowest_nonce)).map(|child| child.id)
    }

    /// A pair is deleted on both sides: traffic moves to what is left, outbound goes at once, inbound lingers for packets
    /// under way.
    pub(crate) fn retire(&mut self, core: &mut Core, now: Time, id: ChildId) {
        let successor = self.successor(id).or_else(|| self.twin(id));
        // Where traffic has moved on already, the newest pair may be one of the peer's that it does not use yet.
        if let Some(successor) = successor.filter(|_| !self.is_served_without(id)) {
            self.use_outbound(core, now, successor);
        }
        let linger = self.linger_of(id);
        let Some(child) = self.children.get_mut(id) else { return };
        if !child.exists() {
            return;
        }
        let was_replaced = child.stage == Stage::Replaced || successor.is_some();
        let was = core::mem::replace(&mut child.outbound, Outbound::Removed);
        if was != Outbound::Removed {
            core.actions.push_back(Action::RemoveOutbound { child: id });
        }
        child.stage = Stage::Gone { until: now + linger };
        let name = child.name.clone();
        if was == Outbound::InUse {
            self.carrier.child_lost(&name);
        }
        core.event(Event::ChildRemoved {
            connection: self.config.name.clone(),
            child_name: name.clone(),
            child: id,
            rekeyed: was_replaced,
        });
        if !was_replaced && self.is_open() {
            self.outcomes.push(Outcome::ChildLost { name });
        }
    }

    /// Takes out the inbound halves that have lingered long enough.
    pub(crate) fn sweep(&mut self, core: &mut Core, now: Time) {
        let gone = self.children.take_gone(now);
        for child in &gone {
            core.children.remove(&child.id);
            core.actions.push_back(Action::RemoveInbound { child: child.id, spi: child.spi_in });
        }
        if !gone.is_empty() && self.children.iter().next().is_none() {
            core.actions.push_back(Action::RemovePath { ike_sa: self.id });
        }
    }

    /// The IKE SA is over: everything goes at once.
    pub(crate) fn remove_everything(&mut self, core: &mut Core) {
        let children = self.children.take_all();
        let had_children = !children.is_empty();
        for child in children {
            core.children.remove(&child.id);
            if child.outbound != Outbound::Removed {
                core.actions.push_back(Action::RemoveOutbound { child: child.id });
            }
            core.actions.push_back(Action::RemoveInbound { child: child.id, spi: child.spi_in });
            if child.exists() {
                core.event(Event::ChildRemoved {
                    connection: self.config.name.clone(),
                    child_name: child.name,
                    child: child.id,
                    rekeyed: child.stage == Stage::Replaced,
                });
            }
        }
        if had_children {
            core.actions.push_back(Action::RemovePath { ike_sa: self.id });
        }
    }

    /// What exchanges under way hold is given back.
    pub(crate) fn release_all(&mut self, core: &mut Core) {
        self.release_series(core);
        let generations = self.previous.iter_mut().chain([&mut self.current]);
        let active: Vec<_> = generations.filter_map(|generation| generation.active.take()).collect();
        for active in active {
            self.abandon(core, active);
        }
    }

    /// Another IKE SA of the connection is gone: the data plane has to use these pairs, whatever it used last.
    pub(crate) fn use_all_again(&mut self, core: &mut Core, now: Time) {
        let live: Vec<_> =
            self.children.iter().filter(|child| child.is_live()).map(|child| child.id).collect();
        for id in live {
            if let Some(child) = self.children.get_mut(id)
                && child.outbound == Outbound::InUse
            {
                child.outbound = Outbound::Standby;
                self.use_outbound(core, now, id);
            }
        }
    }

    /// Another pair of the same configured child carries its traffic.
    fn is_served_without(&self, id: ChildId) -> bool {
        let Some(name) = self.children.get(id).map(|child| &child.name) else { return true };
        let serves =
            |other: &Child| other.id != id && other.name == *name && other.outbound == Outbound::InUse;
        self.children.iter().any(serves)
    }

    fn linger_of(&self, id: ChildId) -> Duration {
        let name = self.children.get(id).map(|child| Arc::clone(&child.name));
        let configured = name.and_then(|name| self.child_config(&name)).map(|config| config.linger);
        configured.unwrap_or_default().max(SHORTEST_LINGER)
    }

    /// Another live pair of the same configured child.
    pub(super) fn twin(&self, id: ChildId) -> Option<ChildId> {
        let name = &self.children.get(id)?.name;
        self.children
            .iter()
            .filter(|other| other.is_live() && other.id != id && other.name == *name)
            .last()
            .map(|c| c.id)
    }
}
