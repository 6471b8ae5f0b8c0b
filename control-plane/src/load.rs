//! Many initiators in one process against one responder, ours or another: `portcullis bench ike`.
//!
//! Each tunnel is a connection with an identity of its own, which sets up an IKE SA with one Child SA. Nothing is installed in any
//! kernel and no ESP leaves: what is measured is the responder's IKE.

mod driver;
mod socket;
mod tally;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::codec::{AddressRange, TrafficSelector};
use portcullis_ike::config::{
    ChildConfig, ConnectionConfig, EspPolicy, Identity, IkePolicy, LocalAuth, RemoteAddress, RemoteAuth,
    Secret, SeparateTransports, StartMode, StartTransport,
};
use portcullis_ike::proposal::{EspProposal, IkeProposal};
use portcullis_ike::shared::Shared;

pub use driver::run;
pub use tally::Tally;

/// The child of each tunnel.
const CHILD: &str = "net";

/// What is to be set up, and how fast.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The responder's address and port.
    pub peer: SocketAddr,
    /// Our address, or the one that leads there.
    pub local: Option<IpAddr>,
    /// Each tunnel has an address of its own in this range, which is ours as a whole.
    pub from: Option<AddressRange>,
    /// How many tunnels.
    pub tunnels: usize,
    /// Tunnels that start in a second; without it as many as `in_flight` lets.
    pub rate: Option<f64>,
    /// Most tunnels that are being set up at the same time.
    pub in_flight: usize,
    /// UDP, or TCP from the first message on.
    pub transport: StartTransport,
    /// IKE proposal.
    pub ike: IkeProposal,
    /// ESP proposal.
    pub esp: EspProposal,
    /// Identity of a tunnel; `{}` in it is its number.
    pub id: String,
    /// Identity of the responder; `{}` in it is the number of the tunnel.
    pub remote_id: String,
    /// The key that both ends share.
    pub secret: Secret,
    /// Selectors that each tunnel asks for; `None` on our side is an address of 172.16.0.0/12 by number.
    pub local_ts: Option<TrafficSelector>,
    /// Selectors of the responder's side.
    pub remote_ts: TrafficSelector,
    /// The wait before a request over UDP leaves again; it doubles five times, then the tunnel is given up.
    pub retransmit_after: Duration,
    /// SAs are kept for this long when each tunnel has an outcome.
    pub hold: Duration,
}

impl Plan {
    /// The local address of a tunnel.
    fn address(&self, number: usize, usual: IpAddr) -> IpAddr {
        match self.from.map(|range| range.start()) {
            Some(IpAddr::V4(first)) => {
                Ipv4Addr::from_bits(first.to_bits().wrapping_add(number as u32)).into()
            }
            Some(IpAddr::V6(first)) => {
                Ipv6Addr::from_bits(first.to_bits().wrapping_add(number as u128)).into()
            }
            None => usual,
        }
    }

    /// The tunnels as the endpoint takes them.
    fn connections(&self, local: IpAddr) -> Vec<ConnectionConfig> {
        let ike: Shared<IkePolicy> = IkePolicy {
            transport: self.transport,
            separate_transports: SeparateTransports::Prefer,
            proposals: vec![self.ike.clone()],
            retransmit_after: self.retransmit_after,
            ..IkePolicy::default()
        }
        .into();
        let esp: Shared<EspPolicy> = EspPolicy::default().into();
        let connection = |number: usize| ConnectionConfig {
            name: Arc::from(number.to_string()),
            local_address: Some(self.address(number, local)),
            local_id: numbered(&self.id, number),
            local_auth: LocalAuth::Psk(self.secret.clone()),
            remote_address: RemoteAddress::Ip(self.peer.ip()),
            remote_id: numbered(&self.remote_id, number),
            remote_auth: RemoteAuth::Psk(self.secret.clone()),
            ppk: None,
            redirect: Default::default(),
            ike: ike.clone(),
            esp: esp.clone(),
            children: vec![ChildConfig {
                name: Arc::from(CHILD),
                local_ts: vec![self.local_ts.unwrap_or_else(|| address_of(number))],
                remote_ts: vec![self.remote_ts],
                start: StartMode::None,
                proposals: vec![self.esp.clone()],
                rekey_after: Duration::from_secs(8 * 3600),
                lifetime: Duration::from_secs(9 * 3600),
                linger: Duration::from_secs(5),
                per_resource: 1,
                resource: 0,
            }],
        };
        (0..self.tunnels).map(connection).collect()
    }
}

/// An identity as operators write them, with the number of a tunnel.
fn numbered(pattern: &str, number: usize) -> Identity {
    let text = pattern.replace("{}", &number.to_string());
    crate::config::identity(&text).unwrap_or(Identity::Fqdn(text))
}

/// An address of 172.16.0.0/12 for a tunnel.
fn address_of(number: usize) -> TrafficSelector {
    let address = u32::from_be_bytes([172, 16, 0, 0]) | (number as u32 & 0x000f_ffff);
    TrafficSelector::host(IpAddr::V4(address.into()))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Nothing answers: no more than may be are under way at any time, each is given up in its turn, and the cause is told.
    #[tokio::test]
    async fn with_a_silent_peer_every_tunnel_is_given_up_in_its_turn() {
        let silent = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let plan = Plan { tunnels: 5, in_flight: 2, ..plan(silent.local_addr().unwrap()) };
        let mut at_once = Vec::new();
        let mut outcomes = 0;
        let tally = run(&plan, |tally| at_once.push(tally.in_flight()), |_| outcomes += 1).await.unwrap();
        assert!(at_once.contains(&2) && at_once.iter().all(|count| *count <= 2), "{at_once:?}");
        assert_eq!((tally.started, tally.failures(), tally.up.len(), outcomes), (5, 5, 0, 1), "{tally}");
        assert_eq!(tally.retransmissions, 25, "{tally}");
        assert_eq!(tally.failed.len(), 1, "{tally}");
        let mut request = [0; 2048];
        let (_, from) = silent.recv_from(&mut request).unwrap();
        assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 1]));
        // Non-ESP marker, then SPIi, SPIr of zero, exchange 34 (RFC 7296 section 3.1).
        assert_eq!((&request[..4], &request[12..20], request[22]), (&[0; 4][..], &[0; 8][..], 34));
    }

    #[tokio::test]
    async fn each_tunnel_may_have_an_address_of_its_own() {
        let silent = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let from = AddressRange::from_prefix([127, 0, 7, 0].into(), 24);
        let plan = Plan { tunnels: 3, from, ..plan(silent.local_addr().unwrap()) };
        run(&plan, |_| {}, |_| {}).await.unwrap();
        let mut sources: Vec<IpAddr> =
            (0..18).map(|_| silent.recv_from(&mut [0; 2048]).unwrap().1.ip()).collect();
        sources.sort_unstable();
        sources.dedup();
        assert_eq!(sources, [0, 1, 2].map(|last| IpAddr::from([127, 0, 7, last])));
    }

    fn plan(peer: SocketAddr) -> Plan {
        Plan {
            peer,
            local: None,
            from: None,
            tunnels: 1,
            rate: None,
            in_flight: 200,
            transport: StartTransport::Udp,
            ike: "aes256gcm16-prfsha384-x25519".parse().unwrap(),
            esp: "aes256gcm16".parse().unwrap(),
            id: "site-{}".into(),
            remote_id: "gateway".into(),
            secret: Secret::new(vec![1; 32]),
            local_ts: None,
            remote_ts: "10.0.0.0/8".parse().unwrap(),
            // 0.63 s for each, five retransmissions included.
            retransmit_after: Duration::from_millis(10),
            hold: Duration::ZERO,
        }
    }
}
