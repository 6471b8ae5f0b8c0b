//! The gateway that is measured: A of a tunnel. What gateway B was only takes the time and drops.

use std::time::Instant;

use portcullis_common::{DropReason, Spi};
use portcullis_data_plane::counters::Sink;
use portcullis_data_plane::sa::{Carrier, ChildId, InboundSa};

use crate::frames::{self, dropped, index, mac};
use crate::gateway::{Namespace, wait_until};
use crate::generator::Flood;
use crate::paced::{Passage, pass};
use crate::program::{Attached, Program};
use crate::stamps::Stamps;
use crate::tunnel::{self, HOST_A, HOST_B, NO_LIMITS, Tunnel, XDP};
use crate::{Direction, MEASURED, WARM_UP};

/// The pair whose inbound SA opens one packet again and again: without a replay window.
const AGAIN: ChildId = ChildId(2);
/// Queues of the gateway that may be full.
const OVERLOAD: [DropReason; 4] =
    [DropReason::XskRxFull, DropReason::XskRxDropped, DropReason::TxFull, DropReason::HandOverFull];

pub struct Site {
    tunnel: Tunnel,
    spi: Spi,
    stamps: Stamps,
    sender: Program,
    _receiving: [Attached; 2],
}

impl Site {
    pub fn new() -> Self {
        let tunnel = Tunnel::new(XDP);
        tunnel.exchange(HOST_A, HOST_B, 1);
        let (a, b) = (&tunnel.a, &tunnel.b);
        let spi = a.plane.allocate_spi().unwrap();
        let again = InboundSa { replay_window: None, ..a.inbound(AGAIN, spi, NO_LIMITS) };
        a.plane.install_inbound(again).unwrap();
        b.plane.stop();
        portcullis_data_plane::bpf::release(b.instance()).unwrap();
        // Nobody answers where everything is dropped.
        for (device, address, other) in [
            ("lan0", HOST_A, mac(&a.host, "eth0")),
            ("wan0", "198.51.100.2", mac(&b.gateway, "wan0")),
            ("wan0", "2001:db8::2", mac(&b.gateway, "wan0")),
        ] {
            let mac = other.map(|octet| format!("{octet:02x}")).join(":");
            a.gateway.ip(&["neigh", "replace", address, "lladdr", &mac, "dev", device, "nud", "permanent"]);
        }
        let stamps = Stamps::new();
        let receiving = [(&a.host, "eth0"), (&b.gateway, "wan0")]
            .map(|(namespace, name)| namespace.run(|| stamps.receiver().attach(index(namespace, name))));
        Self { spi, sender: stamps.sender(), stamps, _receiving: receiving, tunnel }
    }

    /// Frames for one direction each, of an inner packet's length: in clear for the LAN, sealed for the WAN.
    pub fn frames(&self, len: usize, outer_v6: bool) -> Frames {
        self.tunnel.set_path(Carrier::Udp, outer_v6);
        let gateway = &self.tunnel.a.gateway;
        let clear = frames::ethernet(&mac(gateway, "lan0"), &frames::inner(HOST_A, HOST_B, len));
        let inner = frames::inner(HOST_B, HOST_A, len);
        let key = tunnel::keymat(2, AGAIN);
        let sealed = frames::esp(&mac(gateway, "wan0"), self.spi, &key, &inner, outer_v6);
        Frames { clear, sealed }
    }

    /// Packets that leave in a second, of as many as the kernel makes.
    pub fn measure(&self, direction: Direction, frames: &Frames) -> f64 {
        let a = &self.tunnel.a;
        let flood = |(namespace, interface), frame: &[u8]| Flood::start(namespace, interface, frame.to_vec());
        let seal = (direction != Direction::Open).then(|| flood(self.lan(), &frames.clear));
        let open = (direction != Direction::Seal).then(|| flood(self.wan(), &frames.sealed));
        let sent = || {
            let wan = if seal.is_some() { a.sent(Sink::Wan) } else { 0 };
            let lan = if open.is_some() { a.sent(Sink::Lan) } else { 0 };
            (wan + lan) as f64
        };
        let has_begun = || seal.iter().chain(&open).all(|flood| flood.sent() > 0);
        wait_until("frames come", has_begun);
        std::thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), sent());
        std::thread::sleep(MEASURED);
        let rate = (sent() - before) / start.elapsed().as_secs_f64();
        assert!(rate > 1000.0, "hardly a packet leaves: {}", a.drops());
        rate
    }

    /// What becomes of packets that come with a pause between them.
    ///
    /// # Panics
    /// If one is lost where no queue was full.
    pub fn pass(&self, direction: Direction, frames: &Frames, packets_per_second: f64) -> Passage {
        let before = self.no_room();
        // What goes in sealed comes out clear, and the other way round.
        let (way, frame, arriving) = match direction {
            Direction::Seal => (self.lan(), &frames.clear, &frames.sealed),
            Direction::Open => (self.wan(), &frames.sealed, &frames.clear),
            Direction::Both => panic!("one direction at a time"),
        };
        let passage = pass(way, frame, &self.sender, &self.stamps, arriving.len(), packets_per_second);
        if passage.lost() > 0 {
            // The kernel's counters reach the books with a delay.
            wait_until("every lost packet has a reason", || self.no_room() - before >= passage.lost());
        }
        passage
    }

    /// Packets so far for which some queue had no room: of a veth, of a ring, of the gateway.
    fn no_room(&self) -> u64 {
        let (a, b) = (&self.tunnel.a, &self.tunnel.b);
        let links = [(&a.host, "eth0"), (&a.gateway, "lan0"), (&a.gateway, "wan0"), (&b.gateway, "wan0")];
        let of_links: u64 = links.iter().map(|(namespace, name)| dropped(namespace, name)).sum();
        let accounting = a.plane.report().accounting();
        of_links + OVERLOAD.iter().map(|reason| accounting.dropped(*reason)).sum::<u64>()
    }

    /// Where frames are sent from that come in by the gateway's LAN.
    fn lan(&self) -> (&Namespace, u32) {
        let host = &self.tunnel.a.host;
        (host, index(host, "eth0"))
    }

    /// And by its WAN.
    fn wan(&self) -> (&Namespace, u32) {
        let far = &self.tunnel.b.gateway;
        (far, index(far, "wan0"))
    }
}

/// What comes in, as frames.
pub struct Frames {
    clear: Vec<u8>,
    sealed: Vec<u8>,
}
