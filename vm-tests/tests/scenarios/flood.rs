//! A flood of IKE_SA_INIT requests and TCP connections from the prefix of a configured peer ends in XDP, and the peer connects
//! through it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{DataPlaneMode, Gateway, Lab, Pair, PairOptions, Side, until};

use crate::{SOON, artefacts, change, wait_answered};

/// A stranger in gw-a's prefix.
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const REASONS: [&str; 3] = ["init_limited", "cookie_limited", "syn_limited"];
/// Packets of each kind after which a flood ends even if the peer never connects.
const MOST: u32 = 200_000;

#[test]
fn a_configured_peer_connects_through_a_flood_from_its_own_prefix() {
    for (mode, transport) in [(DataPlaneMode::Xdp, "tcp"), (DataPlaneMode::Tun, "udp")] {
        let mut pair =
            Pair::new(PairOptions { transport, mode, ..PairOptions::USUAL }, &artefacts()).unwrap();
        change(&pair.b, |config| {
            config.set("data_plane/xdp", "on");
            for kind in ["ike_sa_init", "ike_sa_init_with_cookie", "tcp_syn"] {
                config.set(&format!("data_plane/xdp_limits/{kind}/per_second"), 1);
                config.set(&format!("data_plane/xdp_limits/{kind}/burst"), 2);
            }
        });
        pair.lab.router.ip(&["addr", "add", &format!("{STRANGER}/32"), "dev", "lo"]).unwrap();
        let peer = Side::B.wan().0.to_string();
        pair.lab.router.ip(&["route", "add", &peer, "dev", "wan-b", "src", &STRANGER.to_string()]).unwrap();
        pair.b.start().unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let flood = Over(&is_over);
            scope.spawn(|| flood_udp(&pair.lab, &is_over));
            scope.spawn(|| flood_tcp(&pair.lab, &is_over));
            until(SOON, || REASONS.iter().all(|reason| limited(&pair.b, reason) > 10.0).then_some(()))
                .expect("the flood is limited");
            pair.a.start().unwrap();
            for side in [Side::A, Side::B] {
                pair.gateway(side).wait_connection(side.connection(), SOON, ConnectionStatus::is_up).unwrap();
            }
            drop(flood);
        });
        wait_answered(&pair.lab);
    }
}

/// Ends the flood, also if the test fails under it.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn limited(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().unwrap().sum("portcullis_drops_total", &[("reason", reason), ("path", "xdp")]).unwrap()
}

/// IKE_SA_INIT requests without and with COOKIE (RFC 7296 sections 1.2 and 2.6), and nothing of use in them.
fn flood_udp(lab: &Lab, is_over: &AtomicBool) {
    let socket = lab.router.enter(|| UdpSocket::bind((STRANGER, 0))).unwrap();
    let request = |next_payload: u8, payload: &[u8]| {
        let length = (28 + payload.len()) as u32;
        [&[7; 8][..], &[0; 8], &[next_payload, 0x20, 34, 0x08], &[0; 4], &length.to_be_bytes(), payload]
            .concat()
    };
    let cookie = [&[0, 0, 0, 16, 0, 0, 0x40, 0x06][..], &[9; 8]].concat();
    let requests = [request(40, &[0, 0, 0, 36]), request(41, &cookie)];
    for _ in (0..MOST).take_while(|_| !is_over.load(Ordering::Relaxed)) {
        for request in &requests {
            // A full queue of the link is a flood as well.
            let _ = socket.send_to(request, (Side::B.wan().0, 500));
        }
    }
}

fn flood_tcp(lab: &Lab, is_over: &AtomicBool) {
    let gateway = SocketAddr::new(IpAddr::from(Side::B.wan().0), 4500);
    lab.router.enter(|| {
        for _ in (0..MOST).take_while(|_| !is_over.load(Ordering::Relaxed)) {
            let _ = TcpStream::connect_timeout(&gateway, Duration::from_millis(1));
        }
    });
}
