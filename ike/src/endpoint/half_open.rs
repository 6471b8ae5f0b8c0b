//! An IKE SA that is being set up: its messages and the state that waits, for both roles.

use std::sync::Arc;

use super::core::{Core, Traffic};
use super::quota::Standing;
use crate::action::IkeSaId;
use crate::codec::{ExchangeType, PayloadChain};
use crate::config::ConnectionConfig;
use crate::event::{Event, KeyEvent};
use crate::live::fragment_bytes;
use crate::path::{IkeTransport, UdpPath};
use crate::sa::channel::Channel;
use crate::sa::child_offer::ChildOffer;
use crate::sa::error::ExchangeError;
use crate::sa::init::InitSent;
use crate::sa::intermediate::IntermediateSent;
use crate::sa::payloads::{self, Out, Payload};
use crate::sa::protect::Sealed;
use crate::sa::settled::Settled;
use crate::status::Reason;
use crate::time::Time;
use crate::transport::link::Link;

/// See the module.
pub(crate) struct HalfOpen {
    /// Its name, which it keeps when it is established.
    pub(crate) id: IkeSaId,
    /// SPIs, window, fragments.
    pub(crate) channel: Channel,
    /// What carries it.
    pub(crate) link: Link,
    /// What carried the first message.
    pub(crate) started_on: IkeTransport,
    /// When this IKE_SA_INIT left or arrived.
    pub(crate) began: Time,
    /// When it is given up if nothing more happens.
    pub(crate) deadline: Time,
    /// Octets of the handshake.
    pub(crate) traffic: Traffic,
    /// The path of IKE_SA_INIT on a UDP start.
    pub(crate) init_path: Option<UdpPath>,
    /// NAT keepalives for ESP in UDP, from a UDP IKE_SA_INIT that found a NAT in front of us (rule 10).
    pub(crate) keepalive: Option<(UdpPath, Time)>,
    /// Key sets so far, for a key log.
    pub(crate) generations: u32,
    /// Whose turn it is.
    pub(crate) role: Role,
}

/// The two roles.
pub(crate) enum Role {
    /// We initiate.
    Initiator(Initiator),
    /// The peer does.
    Responder(Responder),
}

impl Role {
    /// What IKE_SA_INIT has settled, if it has.
    pub(crate) fn settled(&self) -> Option<&Settled> {
        match self {
            Self::Responder(responder) => responder.settled.as_deref(),
            Self::Initiator(initiator) => match &initiator.state {
                InitiatorState::Dialling(settled)
                | InitiatorState::AuthPuzzle(settled)
                | InitiatorState::Intermediate(settled, _)
                | InitiatorState::Auth(settled, ..) => Some(settled),
                InitiatorState::Init(_) | InitiatorState::InitPuzzle(_) | InitiatorState::Taken => None,
            },
        }
    }
}

/// An initiator's side.
pub(crate) struct Initiator {
    /// What holds for the attempt as a whole, restarts on another transport included.
    pub(crate) attempt: Attempt,
    /// What it waits for.
    pub(crate) state: InitiatorState,
    /// Puzzles so far.
    pub(crate) puzzles: u8,
}

/// An attempt to bring a connection up.
#[derive(Clone)]
pub(crate) struct Attempt {
    /// The connection.
    pub(crate) config: Arc<ConnectionConfig>,
    /// When the first IKE_SA_INIT left.
    pub(crate) first_began: Time,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// SEPARATE_TRANSPORTS is offered; not after row 7, and not to put ESP into TCP.
    pub(crate) offers_separate: bool,
    /// UDP was silent (row 9).
    pub(crate) udp_was_silent: bool,
    /// Why it is not the first choice any more.
    pub(crate) reason: Reason,
    /// A response without SEPARATE_TRANSPORTS came and was passed over (row 6).
    pub(crate) passed_over: bool,
    /// An unauthenticated error came; it counts if nothing better follows (RFC 7296 section 2.21.1).
    pub(crate) error: Option<ExchangeError>,
    /// The responder asked for a puzzle that is harder than we solve; the reason if nothing better follows.
    pub(crate) hard_puzzle: Option<String>,
    /// What came of a response that was followed and may have been forged; it counts if nothing better follows.
    pub(crate) verdict: Option<(Reason, String)>,
    /// Octets of earlier starts of the same attempt.
    pub(crate) traffic: Traffic,
}

/// What an attempt is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To bring the connection up, as configured.
    Start,
    /// To carry ESP in TCP (rows 16 and 17).
    Fallback,
    /// To try direct carriers while ESP is in TCP (rule 8).
    Trial,
}

/// What an initiator waits for.
pub(crate) enum InitiatorState {
    /// A stream to send IKE_SA_INIT on, or its response.
    Init(Box<InitSent>),
    /// The solution of the puzzle that came with a cookie.
    InitPuzzle(Box<InitSent>),
    /// The solution of the puzzle that came with the IKE_SA_INIT response; IKE_AUTH is next.
    AuthPuzzle(Box<Settled>),
    /// A stream to go on with, after IKE_SA_INIT over UDP.
    Dialling(Box<Settled>),
    /// The response to an IKE_INTERMEDIATE.
    Intermediate(Box<Settled>, Box<IntermediateSent>),
    /// The IKE_AUTH response.
    Auth(Box<Settled>, Option<Box<ChildOffer>>, u32),
    /// Nothing: the state has been taken out to be replaced.
    Taken,
}

/// A responder's side: it waits for the next request.
pub(crate) struct Responder {
    /// What IKE_SA_INIT has settled.
    pub(crate) settled: Option<Box<Settled>>,
    /// Connections that may be meant, best first.
    pub(crate) candidates: Vec<Arc<str>>,
    /// One of those asks for certificates.
    pub(crate) expects_certificates: bool,
    /// The smallest fragment size of those.
    pub(crate) fragment_size: u16,
    /// How it was admitted.
    pub(crate) standing: Standing,
    /// A message came that does not authenticate.
    pub(crate) is_attacked: bool,
    /// What it counts for in the budget of strangers.
    pub(crate) counted_bytes: usize,
}

impl Responder {
    /// The connection that is meant, if it can only be one.
    pub(crate) fn only_candidate(&self) -> Option<Arc<str>> {
        match &self.candidates[..] {
            [only] => Some(only.clone()),
            _ => None,
        }
    }
}

impl HalfOpen {
    /// What IKE_SA_INIT has settled, if it has.
    pub(crate) fn settled(&self) -> Option<&Settled> {
        self.role.settled()
    }

    /// The responder's side, if that is ours.
    pub(crate) fn responder(&self) -> Option<&Responder> {
        match &self.role {
            Role::Responder(responder) => Some(responder),
            Role::Initiator(_) => None,
        }
    }

    /// The responder's side, if that is ours.
    pub(crate) fn responder_mut(&mut self) -> Option<&mut Responder> {
        match &mut self.role {
            Role::Responder(responder) => Some(responder),
            Role::Initiator(_) => None,
        }
    }

    /// Octets of messages that are kept of it and for it.
    pub(crate) fn kept_bytes(&self) -> usize {
        let messages =
            self.settled().map_or(0, |settled| settled.messages.0.len() + settled.messages.1.len());
        messages + self.channel.kept_bytes()
    }

    /// We initiate, and IKE_AUTH has left.
    pub(crate) fn has_sent_auth(&self) -> bool {
        matches!(&self.role, Role::Initiator(initiator) if matches!(initiator.state, InitiatorState::Auth(..)))
    }

    /// Takes the initiator's state out.
    pub(crate) fn take_state(&mut self) -> InitiatorState {
        match &mut self.role {
            Role::Initiator(initiator) => core::mem::replace(&mut initiator.state, InitiatorState::Taken),
            Role::Responder(_) => InitiatorState::Taken,
        }
    }

    /// Puts the initiator's next state in.
    pub(crate) fn put_state(&mut self, state: InitiatorState) {
        if let Role::Initiator(initiator) = &mut self.role {
            initiator.state = state;
        }
    }

    /// Largest IP packet with a fragment in it.
    pub(crate) fn fragment_size(&self) -> u16 {
        match &self.role {
            Role::Initiator(initiator) => initiator.attempt.config.ike.fragment_size,
            Role::Responder(responder) => responder.fragment_size,
        }
    }

    /// The peer may have to send certificates, which are long.
    pub(crate) fn expects_certificates(&self) -> bool {
        match &self.role {
            Role::Initiator(initiator) => initiator.attempt.config.expects_certificates(),
            Role::Responder(responder) => responder.expects_certificates,
        }
    }

    /// The attempt, if we initiate.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        match &self.role {
            Role::Initiator(initiator) => Some(&initiator.attempt),
            Role::Responder(_) => None,
        }
    }

    /// The attempt, if we initiate.
    pub(crate) fn attempt_mut(&mut self) -> Option<&mut Attempt> {
        match &mut self.role {
            Role::Initiator(initiator) => Some(&mut initiator.attempt),
            Role::Responder(_) => None,
        }
    }

    /// Encrypts a message under the keys of `settled`; also returns the content, for AUTH.
    pub(crate) fn seal(
        &mut self,
        settled: &Settled,
        exchange: ExchangeType,
        is_response: bool,
        message_id: u32,
        out: &Out,
    ) -> Option<(Sealed, PayloadChain)> {
        self.seal_behind(&[], settled, exchange, is_response, message_id, out)
    }

    /// The same, with the payloads of `clear` before the Encrypted payload.
    pub(crate) fn seal_behind(
        &mut self,
        clear: &[Payload],
        settled: &Settled,
        exchange: ExchangeType,
        is_response: bool,
        message_id: u32,
        out: &Out,
    ) -> Option<(Sealed, PayloadChain)> {
        let header = self.channel.header(exchange, is_response, message_id);
        let most = match &self.link {
            Link::Udp(path) if settled.fragments => Some(fragment_bytes(self.fragment_size(), path)),
            _ => None,
        };
        let content = payloads::encode(out)?;
        let key = settled.keys.keys().sk_e(self.channel.is_initiator);
        let sealed = self.channel.seal_behind(clear, key, &header, &content, most)?;
        Some((sealed, content))
    }

    /// Sends a request and waits for its response.
    pub(crate) fn send_request(
        &mut self,
        core: &mut Core,
        now: Time,
        sealed: Sealed,
        first_wait: core::time::Duration,
    ) {
        core.transmit(&self.link, &sealed.messages, Some(&mut self.traffic));
        self.channel.window.sent(now, sealed.messages, self.link.transport(), first_wait);
    }

    /// Sends a response and keeps it.
    pub(crate) fn send_response(&mut self, core: &mut Core, message_id: u32, sealed: Sealed) {
        core.transmit(&self.link, &sealed.messages, Some(&mut self.traffic));
        self.channel.window.responded(message_id, sealed.messages);
    }

    /// Reports the keys of a stage for a key log.
    pub(crate) fn log_keys(&mut self, core: &mut Core, settled: &Settled) {
        if !core.config.key_log {
            return;
        }
        let keys = settled.keys.keys();
        core.event(Event::Keys(KeyEvent::Ike {
            spis: settled.spis,
            generation: self.generations,
            encryption: settled.choice.suite.aead.label(),
            sk_ei: keys.sk_e(true).expose().to_vec().into(),
            sk_er: keys.sk_e(false).expose().to_vec().into(),
        }));
        self.generations += 1;
    }

    /// When something is due.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let link = self.link.tcp().and_then(|link| link.next_timeout());
        let keepalive = self.keepalive.map(|(_, at)| at);
        [Some(self.deadline), self.channel.window.next_timeout(), link, keepalive].into_iter().flatten().min()
    }
}
