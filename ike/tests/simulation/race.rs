//! Forged responses to IKE_SA_INIT (RFC 7296 section 2.4): somebody on the path who sees the request answers first, with keys of
//! his own, and even goes on to IKE_AUTH. The peer's response wins all the same.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_ike::action::Action;
use portcullis_ike::config::{
    ConnectionConfig, EndpointConfig, LocalAuth, RemoteAuth, Secret, SeparateTransports, StartTransport,
};
use portcullis_ike::event::Event;
use portcullis_ike::path::UdpPath;

use crate::configuration::{A, B, Pair};
use crate::node::Node;
use crate::world::World;

const STARTS: [StartTransport; 2] = [StartTransport::Udp, StartTransport::UdpThenTcp];

#[test]
fn a_forged_response_does_not_win_even_if_it_is_followed_to_ike_auth() {
    for transport in STARTS {
        for separate in [SeparateTransports::Prefer, SeparateTransports::Off] {
            for group in ["x25519", "ecp256", "ecp384"] {
                let mut race = Race::new(transport, separate, group, 1);
                race.run(Duration::from_secs(10));
                race.world.assert_settled(1);
                let failed = race.world.saw(0, |event| matches!(event, Event::IkeFailed { .. }));
                assert_eq!(failed, 0, "{transport:?} {separate:?}");
                let rejected = race.world.nodes[0].endpoint.counters().rejected;
                let lost = rejected.get("init_response_lost").copied().unwrap_or_default();
                let is_authenticated_over_udp = race.forgers[0].saw(|_| true) > 0;
                assert!(lost == 1 || is_authenticated_over_udp, "{rejected:?}");
                race.world.shut_down_and_check();
            }
        }
    }
}

#[test]
fn four_responses_are_followed_and_no_more() {
    for forgers in [3, 6] {
        let mut race = Race::new(StartTransport::Udp, SeparateTransports::Prefer, "x25519", forgers);
        race.run(Duration::from_secs(10));
        let rejected = race.world.nodes[0].endpoint.counters().rejected;
        let refused = rejected.get("too_many_init_responses").copied().unwrap_or_default();
        match forgers {
            3 => {
                race.world.assert_settled(1);
                assert_eq!(refused, 0);
            }
            _ => assert!(refused >= 2, "{rejected:?}"),
        }
        // Those who answer are gone, and the next attempt is the peer's.
        race.forgers.clear();
        race.run(Duration::from_secs(150));
        race.world.assert_settled(1);
        race.world.shut_down_and_check();
    }
}

/// Every branch fails: the attempt has failed, once.
#[test]
fn an_attempt_fails_when_its_last_branch_does() {
    let mut race = Race::new(StartTransport::Udp, SeparateTransports::Prefer, "x25519", 2);
    race.world.weather.one_way = Some((1, crate::network::Protocol::Udp));
    race.run(Duration::from_secs(8));
    assert_eq!(race.world.saw(0, |event| matches!(event, Event::IkeFailed { .. })), 1);
    race.world.weather.one_way = None;
    race.forgers.clear();
    race.run(Duration::from_secs(150));
    race.world.assert_settled(1);
    race.world.shut_down_and_check();
}

/// Two gateways, and forgers on the path who see what node 0 sends over UDP and answer before node 1 can.
struct Race {
    world: World,
    forgers: Vec<Node>,
    seen: usize,
}

impl Race {
    fn new(transport: StartTransport, separate: SeparateTransports, group: &str, forgers: u64) -> Self {
        let pair = Pair::new(transport).both(|connection| {
            let proposal = format!("aes256gcm16-prfsha384-{group}-ke1_mlkem768");
            connection.ike.proposals = vec![proposal.parse().unwrap()];
        });
        let mut forged: ConnectionConfig = pair.b.clone();
        forged.ike.separate_transports = separate;
        let other = || Secret::new(b"a guess".to_vec());
        (forged.local_auth, forged.remote_auth) = (LocalAuth::Psk(other()), RemoteAuth::Psk(other()));
        let node = |n| Node::new(EndpointConfig::default(), vec![forged.clone()], B, 1000 + n, 0);
        let mut world = pair.world(5);
        world.ledger.is_disturbed = true;
        world.sent_datagrams = Some(Vec::new());
        Self { world, forgers: (0..forgers).map(node).collect(), seen: 0 }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.world.now + duration;
        while self.world.now < end {
            self.world.run_for(Duration::from_millis(1));
            self.forge();
        }
    }

    fn forge(&mut self) {
        let now = self.world.now;
        let sent = self.world.sent_datagrams.as_ref().unwrap();
        let new: Vec<_> = sent[self.seen..].iter().filter(|(node, ..)| *node == 0).cloned().collect();
        self.seen = sent.len();
        for (_, _, payload) in new {
            let path = UdpPath { local: SocketAddr::new(B, 4500), remote: SocketAddr::new(A, 4500) };
            for forger in &mut self.forgers {
                forger.endpoint.handle_datagram(now, path, &payload);
                while let Some(action) = forger.endpoint.poll_action() {
                    match action {
                        Action::SendDatagram { payload, .. } => {
                            let path = UdpPath { local: path.remote, remote: path.local };
                            if let Some(message) = payload.strip_prefix(&[0; 4]) {
                                self.world.tap.arrived(0, self.world.nodes[0].boot, message);
                            }
                            self.world.nodes[0].endpoint.handle_datagram(now, path, &payload);
                        }
                        Action::Event(event) => forger.events.push((now, event)),
                        _ => {}
                    }
                }
                self.world.carry_out();
            }
        }
    }
}
