//! Two gateways that fit together.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::action::Action;
use portcullis_ike::config::{
    ChildConfig, ConnectionConfig, EndpointConfig, EspPolicy, Identity, IkePolicy, LocalAuth, RedirectPolicy,
    RemoteAddress, RemoteAuth, Secret, StartMode, StartTransport,
};

use crate::world::World;

pub const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
pub const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));
pub const NAT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

/// Both ends, to be bent before they start. A initiates.
pub struct Pair {
    pub a: ConnectionConfig,
    pub b: ConnectionConfig,
    pub config_a: EndpointConfig,
    pub config_b: EndpointConfig,
}

impl Pair {
    pub fn new(transport: StartTransport) -> Self {
        let mut a = connection("a", "b", A, B, "10.1.0.0/16", "10.2.0.0/16");
        let b = connection("b", "a", B, A, "10.2.0.0/16", "10.1.0.0/16");
        a.ike.transport = transport;
        a.children[0].start = StartMode::Always;
        Self { a, b, config_a: EndpointConfig::default(), config_b: EndpointConfig::default() }
    }

    /// Both ends get the same change.
    pub fn both(mut self, change: impl Fn(&mut ConnectionConfig)) -> Self {
        change(&mut self.a);
        change(&mut self.b);
        self
    }

    pub fn world(self, seed: u64) -> World {
        self.world_from(0, seed)
    }

    /// The node with this number, 0 or 1, is A.
    pub fn world_from(self, initiator: usize, seed: u64) -> World {
        let mut nodes = vec![(self.config_a, vec![self.a], A), (self.config_b, vec![self.b], B)];
        nodes.rotate_left(initiator);
        World::new(seed, nodes)
    }
}

pub fn connection(
    local: &str,
    remote: &str,
    local_address: IpAddr,
    remote_address: IpAddr,
    local_ts: &str,
    remote_ts: &str,
) -> ConnectionConfig {
    let secret = || Secret::new(b"a secret of both".to_vec());
    ConnectionConfig {
        name: Arc::from("c"),
        local_address: Some(local_address),
        local_id: Identity::Fqdn(local.into()),
        local_auth: LocalAuth::Psk(secret()),
        remote_address: RemoteAddress::Ip(remote_address),
        remote_id: Identity::Fqdn(remote.into()),
        remote_auth: RemoteAuth::Psk(secret()),
        ppk: None,
        redirect: RedirectPolicy::default().into(),
        ike: IkePolicy {
            proposals: vec!["aes256gcm16-prfsha384-x25519-ke1_mlkem768".parse().unwrap()],
            ..IkePolicy::default()
        }
        .into(),
        esp: EspPolicy::default().into(),
        children: vec![child("net", local_ts, remote_ts)],
    }
}

pub fn child(name: &str, local_ts: &str, remote_ts: &str) -> ChildConfig {
    ChildConfig {
        name: Arc::from(name),
        local_ts: vec![local_ts.parse().unwrap()],
        remote_ts: vec![remote_ts.parse().unwrap()],
        start: StartMode::None,
        proposals: vec!["aes256gcm16-esn".parse().unwrap()],
        rekey_after: Duration::from_secs(3600),
        lifetime: Duration::from_secs(4500),
        linger: Duration::from_secs(5),
        per_resource: 1,
        resource: 0,
    }
}

/// The first datagram of an initiator, with its marker.
pub fn first_datagram(transport: StartTransport) -> Vec<u8> {
    first_datagram_of(Pair::new(transport))
}

/// The first datagram of this initiator.
pub fn first_datagram_of(pair: Pair) -> Vec<u8> {
    let mut world = pair.world(9);
    loop {
        match world.nodes[0].endpoint.poll_action() {
            Some(Action::SendDatagram { path, payload }) => {
                assert_eq!(path.local.ip(), A);
                return payload;
            }
            Some(_) => {}
            None => panic!("no first message"),
        }
    }
}
