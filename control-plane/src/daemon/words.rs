//! Events in the words of the log. Blocked ESP is an availability problem and is called one; authentication and
//! cryptography are named only where they are the matter. Addresses appear where an operator has to act, and at
//! debug otherwise.

use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_ike::event::Event;
use portcullis_ike::path::EspTransport;
use portcullis_ike::status::{Reason, State, Verdict};
use tracing::Level;

use super::log_limit::{Kind, Limit};

/// Changes to one state of one connection, evidence and carrier included, that are written at once. With the timers that ship a
/// window sees fewer; only a connection that goes on and on has the log lag behind.
const STATE_BURST: u64 = 8;

/// One line of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// How severe.
    pub level: Level,
    /// The connection, if it is about one.
    pub connection: Option<String>,
    /// What happened.
    pub message: String,
    /// How its ESP travels from here on, if that has changed.
    pub standing: Option<Standing>,
    /// Lines of this kind are rate-limited.
    pub limit: Option<Limit>,
}

/// How ESP of a connection travels, in the words of status, metrics and events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    state: &'static str,
    reason: &'static str,
    evidence: &'static str,
    esp_transport: Option<&'static str>,
}

impl Line {
    /// Writes it; `held_back` lines like it were not written.
    pub fn write(&self, held_back: Option<u64>) {
        let connection = self.connection.as_deref();
        let (state, reason) = (self.standing.map(|s| s.state), self.standing.map(|s| s.reason));
        let evidence = self.standing.map(|s| s.evidence);
        let esp_transport = self.standing.and_then(|s| s.esp_transport);
        let message = match held_back {
            Some(1) | None => self.message.clone(),
            Some(count) => format!("{} ({count} like this in the last 10 s)", self.message),
        };
        match self.level {
            Level::ERROR => {
                tracing::error!(connection, state, reason, evidence, esp_transport, "{message}");
            }
            Level::WARN => tracing::warn!(connection, state, reason, evidence, esp_transport, "{message}"),
            Level::INFO => tracing::info!(connection, state, reason, evidence, esp_transport, "{message}"),
            _ => tracing::debug!(connection, state, reason, evidence, esp_transport, "{message}"),
        }
    }

    fn new(level: Level, connection: &str, message: String) -> Self {
        Self { level, connection: Some(connection.to_owned()), message, standing: None, limit: None }
    }

    /// About the gateway; `what` of `kind` is rate-limited.
    fn about(level: Level, message: String, kind: Kind) -> Self {
        Self { level, connection: None, message, standing: None, limit: Some(Limit::one(kind)) }
    }

    fn limited(mut self, what: &'static str) -> Self {
        self.limit = Some(Limit::one((self.connection.clone().unwrap_or_default(), what)));
        self
    }

    #[cfg(test)]
    pub(super) fn for_test(message: &str) -> Self {
        Self::new(Level::INFO, "test", message.to_owned())
    }
}

/// The line for an event, if it has one.
pub fn of_event(event: &Event) -> Option<Line> {
    Some(match event {
        Event::StateChanged { connection, to, reason, evidence, esp_transport, detail, .. } => {
            let line = state_line(connection, *to, *reason, detail);
            let standing = Standing {
                state: to.label(),
                reason: reason.label(),
                evidence: evidence.label(),
                esp_transport: esp_transport.map(EspTransport::label),
            };
            let limit = Limit { kind: (connection.to_string(), to.label()), burst: STATE_BURST };
            Line { standing: Some(standing), limit: Some(limit), ..line }
        }
        Event::IkeEstablished {
            connection,
            is_initiator,
            transport,
            separate_transports,
            handshake,
            algorithms,
            ppk,
            ..
        } => {
            let side = if *is_initiator { "initiator" } else { "responder" };
            let separate = if *separate_transports { ", ESP separate from it" } else { "" };
            let message = format!(
                "IKE SA established as {side} in {:.3} s: IKE on {}{separate}, {algorithms}{}",
                handshake.as_secs_f64(),
                transport.label(),
                match ppk {
                    None => "",
                    Some(true) => ", with its PPK",
                    Some(false) => ", without its PPK, which the peer does not have",
                }
            );
            // RFC 8784 section 6: a PPK that was not used is worth an audit.
            let level = if *ppk == Some(false) { Level::WARN } else { Level::INFO };
            Line::new(level, connection, message)
        }
        Event::IkeFailed { connection, is_initiator, remote, reason, detail } => {
            let side = if *is_initiator { "our" } else { "the peer's" };
            let what = match reason {
                reason if reason.is_about_identity() => "authentication failed",
                Reason::NoProposalChosen => "no common algorithms",
                _ => "no IKE SA",
            };
            let message =
                format!("{what}: {side} attempt with {remote}: {} ({reason})", or_label(detail, *reason));
            let connection = connection.as_deref().unwrap_or_default();
            let line = Line::new(Level::WARN, connection, message).limited("ike_failed");
            Line { connection: line.connection.filter(|name| !name.is_empty()), ..line }
        }
        Event::IkeRekeyed { connection, by_us, algorithms, .. } => {
            let side = if *by_us { "us" } else { "the peer" };
            Line::new(Level::INFO, connection, format!("IKE SA rekeyed by {side}: {algorithms}"))
        }
        Event::IkeRemoved { connection, reason, .. } => {
            Line::new(Level::INFO, connection, format!("IKE SA removed ({reason})"))
        }
        Event::ChildEstablished { connection, child_name, replaces, by_us, spis, algorithms, .. } => {
            let what = match (replaces.is_some(), by_us) {
                (false, _) => "established",
                (true, true) => "rekeyed by us",
                (true, false) => "rekeyed by the peer",
            };
            let message = format!(
                "Child SA {child_name} {what}: SPIs {:08x} in, {:08x} out, {algorithms}",
                spis.0, spis.1
            );
            Line::new(Level::INFO, connection, message)
        }
        Event::ChildFailed { connection, child_name, reason, detail } => {
            let message = format!("Child SA {child_name} failed: {} ({reason})", or_label(detail, *reason));
            Line::new(Level::WARN, connection, message).limited("child_failed")
        }
        Event::ChildRemoved { connection, child_name, rekeyed, .. } => {
            let level = if *rekeyed { Level::DEBUG } else { Level::INFO };
            Line::new(level, connection, format!("Child SA {child_name} removed"))
        }
        Event::Redirected { connection, gateway, refused } => match refused {
            None => Line::new(Level::INFO, connection, format!("the peer sends us to {gateway}")),
            Some(cause) => {
                let message = format!("the peer sends us to {gateway}, which is not followed: {cause}");
                Line::new(Level::WARN, connection, message).limited("redirect")
            }
        },
        Event::Stream { connection, up } => {
            let message = if *up {
                "IKE's TCP stream is back"
            } else {
                "IKE's TCP stream is lost; ESP is not affected"
            };
            Line::new(Level::INFO, connection, message.to_owned()).limited("stream")
        }
        Event::EspVerified { connection, verification, .. } => {
            let what = match verification.verdict {
                Verdict::Answered(carrier) => {
                    format!("an ESP echo came back over {carrier}", carrier = carrier.label())
                }
                Verdict::Unreachable => "no ESP echo came back while IKE answered".to_owned(),
                Verdict::Undecided => "no ESP echo came back, and nothing is decided by that".to_owned(),
            };
            let message = format!("ESP verified in {:.3} s: {what}", verification.took.as_secs_f64());
            Line::new(Level::INFO, connection, message).limited("esp_verified")
        }
        Event::EspProbed { .. } | Event::CommandDone { .. } | Event::Keys(_) => return None,
    })
}

/// The line for an event of the data plane, if it has one.
pub fn of_data_plane_event(event: &DataPlaneEvent) -> Option<Line> {
    match event {
        DataPlaneEvent::GuardRestored { missing } => {
            let message = format!(
                "something removed {missing} policies of the guard; they are back. Find out what: traffic could have left in clear"
            );
            Some(Line::about(Level::ERROR, message, (String::new(), "guard_restored")))
        }
        DataPlaneEvent::TunRestored { name } => {
            let message = format!(
                "something removed TUN device {name} or switched it off; it is back with our routes. Traffic on it was stopped meanwhile"
            );
            Some(Line::about(Level::WARN, message, (name.to_string(), "tun")))
        }
        DataPlaneEvent::RoutingRestored { missing } => {
            let message = format!(
                "something removed {missing} routes or rules that lead into our TUN device; they are back. A network manager that removes foreign ones (systemd-networkd: ManageForeignRoutes, ManageForeignRoutingPolicyRules) has to be told not to"
            );
            Some(Line::about(Level::WARN, message, (String::new(), "routing")))
        }
        DataPlaneEvent::InterfaceLost { name } => {
            let message = format!("interface {name} is gone; its traffic is stopped until it is back");
            Some(Line::about(Level::ERROR, message, (name.to_string(), "interface_lost")))
        }
        DataPlaneEvent::InterfaceReturned { name, is_used: true } => {
            let message = format!("interface {name} is back and in use");
            Some(Line::about(Level::INFO, message, (name.to_string(), "interface_returned")))
        }
        DataPlaneEvent::InterfaceReturned { name, is_used: false } => {
            let message = format!(
                "interface {name} is another device than at the start: AF_XDP cannot use it, its traffic is stopped. Restart the daemon; a service manager with a watchdog does"
            );
            Some(Line::about(Level::ERROR, message, (name.to_string(), "interface_returned")))
        }
        _ => None,
    }
}

fn state_line(connection: &str, to: State, reason: Reason, detail: &str) -> Line {
    const AVAILABILITY: &str = "availability problem, authentication and encryption are untouched";
    let because = if reason == Reason::None { String::new() } else { format!(" ({reason})") };
    let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    let (level, message) = match to {
        State::Idle => (Level::INFO, format!("idle{because}{detail}")),
        State::Connecting => (Level::DEBUG, format!("connecting{because}{detail}")),
        State::Probing => {
            (Level::INFO, format!("ESP leaves on a direct carrier that is being proven{because}"))
        }
        State::Unverified => (
            Level::INFO,
            format!("ESP leaves on a direct carrier that nothing has proven yet{because}{detail}"),
        ),
        State::DirectIp => (Level::INFO, format!("ESP travels over IP protocol 50{because}")),
        State::DirectUdp => (Level::INFO, format!("ESP travels over UDP{because}")),
        State::Suspect => (Level::WARN, format!("ESP is silent; finding out why{because}{detail}")),
        State::Tcp => (Level::WARN, format!("ESP travels in TCP{because}{detail}; {AVAILABILITY}")),
        State::Trial => {
            (Level::INFO, format!("ESP travels in TCP; a direct carrier is being tried{because}"))
        }
        State::Blocked if is_cryptographic(reason) => {
            (Level::WARN, format!("no SA, traffic is stopped{because}{detail}"))
        }
        State::Blocked => (Level::WARN, format!("traffic is stopped{because}{detail}; {AVAILABILITY}")),
        State::PeerDead => {
            (Level::WARN, format!("the peer answers neither IKE nor ESP{because}{detail}; {AVAILABILITY}"))
        }
        State::LocalDown => (Level::WARN, format!("down on this side{because}{detail}; {AVAILABILITY}")),
    };
    Line::new(level, connection, message)
}

/// Reasons that are about identities, keys or algorithms, not about the path.
fn is_cryptographic(reason: Reason) -> bool {
    reason.is_about_identity()
        || matches!(reason, Reason::NoProposalChosen | Reason::ProtocolError | Reason::TsUnacceptable)
}

fn or_label(detail: &str, reason: Reason) -> &str {
    if detail.is_empty() { reason.label() } else { detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_ike::status::Evidence;

    #[test]
    fn blocked_esp_is_called_an_availability_problem_and_failed_authentication_is_not() {
        let blocked = of_event(&changed(Reason::EspUnreachable)).unwrap();
        assert!(
            blocked.message.contains("authentication and encryption are untouched"),
            "{}",
            blocked.message
        );
        let refused = of_event(&changed(Reason::AuthenticationFailed)).unwrap();
        assert!(!refused.message.contains("availability"), "{}", refused.message);
    }

    #[test]
    fn lines_without_need_to_act_show_no_address() {
        let event = Event::IkeEstablished {
            connection: "x".into(),
            ike_sa: portcullis_ike::action::IkeSaId(1),
            is_initiator: true,
            remote: "192.0.2.77:4500".parse().unwrap(),
            transport: portcullis_ike::path::IkeTransport::Tcp,
            started_on: portcullis_ike::path::IkeTransport::Udp,
            separate_transports: true,
            handshake: std::time::Duration::from_millis(12),
            udp_bytes: (1, 2),
            tcp_bytes: (3, 4),
            algorithms: "aes256gcm16".to_owned(),
            ppk: None,
        };
        let line = of_event(&event).unwrap();
        assert!(!line.message.contains("192.0.2.77"), "{}", line.message);
    }

    #[test]
    fn a_change_of_state_says_what_status_says() {
        let event = Event::StateChanged {
            connection: "x".into(),
            from: State::Suspect,
            to: State::DirectUdp,
            reason: Reason::IpUnanswered,
            evidence: Evidence::Echo,
            esp_transport: Some(EspTransport::Udp),
            detail: String::new(),
        };
        let standing = Standing {
            state: "direct_udp",
            reason: "ip_unanswered",
            evidence: "echo",
            esp_transport: Some("udp"),
        };
        assert_eq!(of_event(&event).unwrap().standing, Some(standing));
    }

    fn changed(reason: Reason) -> Event {
        Event::StateChanged {
            connection: "x".into(),
            from: State::Connecting,
            to: State::Blocked,
            reason,
            evidence: Evidence::None,
            esp_transport: None,
            detail: "what to do".to_owned(),
        }
    }
}
