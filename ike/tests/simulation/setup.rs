//! Set-up on both starts.

use std::time::Duration;

use portcullis_ike::config::StartTransport;
use portcullis_ike::event::Event;
use portcullis_ike::path::{DirectCarrier, EspCarrier, IkeTransport};
use portcullis_ike::status::{Evidence, State};

use crate::configuration::Pair;

/// T section 3.1 and row 4: a peer without ESP echo.
#[test]
fn a_udp_start_moves_ike_to_tcp_and_esp_to_udp() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.config_b.esp_echo_notify = 50_001;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    for node in 0..2 {
        let status = world.status(node);
        assert_eq!(status.state, State::DirectUdp);
        let sa = &status.ike_sas[0];
        assert_eq!((sa.transport, sa.separate_transports, sa.nat), (IkeTransport::Tcp, true, (false, false)));
        assert_eq!(sa.esp_path.unwrap().carrier, EspCarrier::Direct(DirectCarrier::Udp));
        assert_eq!(sa.algorithms, "aes256gcm16-prfsha384-x25519-ke1_mlkem768");
    }
    assert_eq!(world.udp_datagrams, 2, "IKE_SA_INIT alone goes over UDP");
    assert_eq!(world.status(1).evidence, Evidence::Inbound, "the initiator's dummies arrived");
    world.shut_down_and_check();
}

/// T section 3.2 and row 13.
#[test]
fn a_tcp_start_carries_all_of_ike_and_esp_goes_over_ip() {
    let mut world = Pair::new(StartTransport::Tcp).world(1);
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    assert_eq!(world.udp_datagrams, 0);
    for node in 0..2 {
        let path = world.status(node).ike_sas[0].esp_path.unwrap();
        assert_eq!(path.carrier, EspCarrier::Direct(DirectCarrier::Ip));
    }
    assert_eq!(world.saw(0, |event| matches!(event, Event::IkeEstablished { .. })), 1);
    world.shut_down_and_check();
}
