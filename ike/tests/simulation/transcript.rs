//! IKE_SA_INIT authenticated whole by both ends (draft-ietf-ipsecme-ikev2-downgrade-prevention).

use std::time::Duration;

use portcullis_ike::config::{FullTranscriptAuth, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::status::{Reason, State};

use crate::configuration::Pair;
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
/// IKE_SA_INIT_FULL_TRANSCRIPT_AUTH (draft section 10).
const NOTIFY_TYPE: [u8; 2] = 16447_u16.to_be_bytes();

/// Section 6: used when both announce it, and only then.
#[test]
fn both_messages_are_authenticated_where_both_ends_announce_it() {
    use FullTranscriptAuth::{Off, Prefer, Require};
    for transport in STARTS {
        for (a, b, agreed) in [
            (Prefer, Prefer, true),
            (Require, Prefer, true),
            (Prefer, Require, true),
            (Prefer, Off, false),
            (Off, Prefer, false),
        ] {
            let mut world = pair(transport, a, b).world(1);
            world.run_for(Duration::from_secs(5));
            world.assert_settled(1);
            for node in 0..2 {
                assert_eq!(
                    world.status(node).ike_sas[0].full_transcript_auth,
                    agreed,
                    "{transport:?} {a:?} {b:?}"
                );
            }
            world.shut_down_and_check();
        }
    }
}

/// Section 8: a local policy that requires it, at either end.
#[test]
fn an_end_that_requires_it_refuses_a_peer_without() {
    use FullTranscriptAuth::{Off, Require};
    for transport in STARTS {
        let mut world = pair(transport, Require, Off).world(1);
        // Over UDP another response is waited for until the retransmission time ends.
        world.run_for(Duration::from_secs(64));
        let status = world.status(0);
        assert_eq!((status.state, status.reason), (State::Blocked, Reason::PeerNoTranscriptAuth));
        assert!(status.detail.contains("full_transcript_auth"), "{}", status.detail);
        world.shut_down_and_check();

        let mut world = pair(transport, Off, Require).world(1);
        world.run_for(Duration::from_secs(10));
        assert_eq!(world.status(1).reason, Reason::PeerNoTranscriptAuth);
        assert_eq!(world.status(0).reason, Reason::NoProposalChosen);
        let established = |event: &Event| matches!(event, Event::IkeEstablished { .. });
        assert_eq!((world.saw(0, established), world.saw(1, established)), (0, 0));
        world.shut_down_and_check();
    }
}

/// Section 6: "attempts to suppress the extension do not silently disable its protection".
#[test]
fn a_notification_that_is_taken_out_on_the_way_fails_the_authentication() {
    for distort in [hide_in_request, hide_in_response, hide_in_both] {
        let mut world = Pair::new(StartTransport::Udp).world(1);
        world.distort = Some(distort);
        world.run_for(Duration::from_secs(10));
        for node in 0..2 {
            assert_eq!(world.status(node).reason, Reason::AuthenticationFailed, "node {node}");
        }
        world.distort = None;
        recovers(world);
    }
}

fn recovers(mut world: World) {
    world.run_for(Duration::from_secs(70));
    world.assert_settled(1);
    world.shut_down_and_check();
}

fn hide_in_request(datagram: &mut [u8]) {
    hide(datagram, 0x08);
}

fn hide_in_response(datagram: &mut [u8]) {
    hide(datagram, 0x20);
}

fn hide_in_both(datagram: &mut [u8]) {
    hide_in_request(datagram);
    hide_in_response(datagram);
}

/// The notification gets a type that nobody knows, in IKE_SA_INIT messages with these flags.
fn hide(datagram: &mut [u8], flags: u8) {
    const EXCHANGE: usize = 4 + 18;
    const IKE_SA_INIT: u8 = 34;
    if datagram.get(EXCHANGE..EXCHANGE + 2) != Some(&[IKE_SA_INIT, flags]) {
        return;
    }
    // Protocol ID and SPI size stand before the type.
    let header = [0, 0, NOTIFY_TYPE[0], NOTIFY_TYPE[1]];
    if let Some(at) = datagram.windows(4).position(|window| window == header) {
        datagram[at + 3] = 0xff;
    }
}

fn pair(transport: StartTransport, a: FullTranscriptAuth, b: FullTranscriptAuth) -> Pair {
    let mut pair = Pair::new(transport);
    pair.a.ike.full_transcript_auth = a;
    pair.b.ike.full_transcript_auth = b;
    pair
}
