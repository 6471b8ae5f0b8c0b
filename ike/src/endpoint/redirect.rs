//! Other gateways (RFC 5685): where responders send us, and where we send initiators.
//!
//! What a redirect changes is the address that the next attempts go to, until one of them or their IKE SA fails. Identities,
//! secrets and policy stay those of the connection (section 3).

use std::net::IpAddr;
use std::sync::Arc;

use super::Endpoint;
use super::half_open::Purpose;
use crate::action::IkeSaId;
use crate::codec::{GatewayIdentity, Header, NotifyType, encode_redirect};
use crate::config::{ConnectionConfig, RedirectWhen, RemoteAddress};
use crate::event::Event;
use crate::live::{Source, Task};
use crate::sa::error::ExchangeError;
use crate::sa::init::{RedirectWish, knows_redirect};
use crate::sa::payloads::{self, Payload, Received};
use crate::sa::settled::Settled;
use crate::status::Reason;
use crate::time::Time;

/// Where a connection's responder has sent us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Redirected {
    /// There.
    pub(crate) to: IpAddr,
    /// The gateway that did.
    pub(crate) from: IpAddr,
}

impl Endpoint {
    /// Where attempts of a connection go.
    pub(super) fn gateway_of(&self, config: &ConnectionConfig) -> Option<IpAddr> {
        let redirected = self.connections.get(&*config.name).and_then(|connection| connection.redirected);
        match (redirected, config.remote_address) {
            (_, RemoteAddress::Any) => None,
            (Some(redirected), _) => Some(redirected.to),
            (None, RemoteAddress::Ip(address)) => Some(address),
        }
    }

    /// What an attempt of a connection says of redirects.
    pub(super) fn redirect_wish(&self, config: &ConnectionConfig) -> RedirectWish {
        let redirected = self.connections.get(&*config.name).and_then(|connection| connection.redirected);
        match redirected {
            _ if config.redirect.follow.is_empty() => RedirectWish::None,
            Some(redirected) => RedirectWish::From(redirected.from),
            None => RedirectWish::Supported,
        }
    }

    /// A responder sends us to another gateway: the next attempt goes there, if that is allowed.
    fn follow_redirect(
        &mut self,
        now: Time,
        name: &Arc<str>,
        gateway: &GatewayIdentity,
    ) -> Result<(), ExchangeError> {
        let config = match self.connections.get(name) {
            Some(connection) => connection.config.clone(),
            None => return Err(ExchangeError::Redirect),
        };
        let from = self.gateway_of(&config).ok_or(ExchangeError::Redirect)?;
        let Some(connection) = self.connections.get_mut(name) else { return Err(ExchangeError::Redirect) };
        let policy = &config.redirect;
        connection.redirects.retain(|at| *at + policy.within > now);
        let refused = match gateway {
            GatewayIdentity::Fqdn(_) => Some("a name is not looked up: only addresses are followed"),
            GatewayIdentity::Address(to) if !policy.follow.iter().any(|range| range.has(*to)) => {
                Some("redirect.follow does not allow it")
            }
            _ if connection.redirects.len() >= usize::from(policy.most) => {
                Some("too many redirects within redirect.within: gateways may send us round in circles")
            }
            _ => None,
        };
        self.core.event(Event::Redirected {
            connection: name.clone(),
            gateway: gateway.to_string(),
            refused: refused.map(str::to_owned),
        });
        let (GatewayIdentity::Address(to), None) = (gateway, refused) else {
            self.core.reject(ExchangeError::Redirect.label());
            return Err(ExchangeError::Redirect);
        };
        connection.redirects.push(now);
        connection.redirected = Some(Redirected { to: *to, from });
        // RFC 9329 section 7.2: UDP comes first again.
        connection.fallback.start_as_configured();
        Ok(())
    }

    /// A response to IKE_SA_INIT sends us elsewhere.
    pub(super) fn redirected_in_init(&mut self, now: Time, id: IkeSaId, gateway: &GatewayIdentity) {
        let Some(attempt) = self.half_open.get(&id).and_then(|half_open| half_open.attempt()) else { return };
        let (config, purpose) = (attempt.config.clone(), attempt.purpose);
        if purpose == Purpose::Trial {
            return self.fail(now, id, Reason::Redirected, "the gateway sends us elsewhere".into());
        }
        match self.follow_redirect(now, &config.name, gateway) {
            Ok(()) => {
                self.drop_attempt(id);
                if let Some(connection) = self.connections.get_mut(&*config.name) {
                    connection.attempt = None;
                }
                self.attempt(now, config, Purpose::Start);
            }
            Err(error) => self.init_refused(now, id, error),
        }
    }

    /// A responder has sent us elsewhere in IKE_AUTH: why the IKE SA is closed that there is now.
    pub(super) fn redirected_in_auth(
        &mut self,
        now: Time,
        config: &ConnectionConfig,
        gateway: &GatewayIdentity,
    ) -> Reason {
        match self.follow_redirect(now, &config.name, gateway) {
            Ok(()) => Reason::Redirected,
            Err(error) => error.reason(),
        }
    }

    /// A responder sends us elsewhere while its IKE SA lives: another one takes its place.
    pub(super) fn redirected_in_life(&mut self, now: Time, name: &Arc<str>, gateway: &GatewayIdentity) {
        if self.follow_redirect(now, name, gateway).is_ok() {
            self.succeed(now, name, Reason::Redirected);
        }
    }

    /// The attempt, or the IKE SA, of a gateway that we were sent to has failed: the next one starts where it is configured.
    pub(super) fn forget_redirect(&mut self, name: &str) {
        if let Some(connection) = self.connections.get_mut(name) {
            connection.redirected = None;
        }
    }

    /// Sends an initiator elsewhere in IKE_SA_INIT, if every connection that it may mean says so. Nothing is kept of it.
    pub(super) fn redirects_in_init(
        &mut self,
        source: Source,
        header: &Header,
        received: &Received,
        candidates: &[Arc<ConnectionConfig>],
    ) -> bool {
        let (true, Some(nonce)) = (knows_redirect(received), &received.nonce) else { return false };
        let mut all = candidates.iter().map(|config| redirect_to(config, RedirectWhen::Init));
        let Some(Some(to)) = all.next().filter(|first| all.all(|other| other == *first)) else {
            return false;
        };
        self.core.counters.redirects += 1;
        let redirect = payloads::notify_with(NotifyType::REDIRECT, encode_redirect(to, nonce));
        self.plain_response(source, header, &vec![redirect]);
        true
    }

    /// REDIRECT for an initiator that is authenticated, if the connection says so.
    pub(super) fn redirects_in_auth(
        &mut self,
        settled: &Settled,
        config: &ConnectionConfig,
    ) -> Option<Payload> {
        let to = redirect_to(config, RedirectWhen::Auth).filter(|_| settled.redirect)?;
        self.core.counters.redirects += 1;
        Some(payloads::notify_with(NotifyType::REDIRECT, encode_redirect(to, &[])))
    }

    /// `CommandKind::Redirect`.
    pub(super) fn redirect_peers(&mut self, now: Time, name: &str, to: IpAddr) -> Result<String, String> {
        let Some(connection) = self.connections.get(name) else { return Err("no such connection".into()) };
        let ids: Vec<_> = connection.live.iter().copied().collect();
        let mut sent = 0;
        for id in ids {
            if let Some(live) = self.live.get_mut(&id).filter(|live| live.is_open() && live.redirect)
                && !live.is_initiator
            {
                live.want(Task::Redirect(to));
                self.core.counters.redirects += 1;
                sent += 1;
            }
            self.touch(now, id);
        }
        match sent {
            0 => Err(format!("no peer of connection {name:?} has initiated an IKE SA and knows REDIRECT")),
            sent => Ok(format!("{sent} sent to {to}")),
        }
    }
}

fn redirect_to(config: &ConnectionConfig, when: RedirectWhen) -> Option<IpAddr> {
    config.redirect.to.filter(|_| config.redirect.when == when)
}
