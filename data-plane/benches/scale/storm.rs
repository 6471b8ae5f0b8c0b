//! Ten thousand Child SAs between two gateways, each of an IKE SA and for an address of its own, all rekeyed at once while numbered
//! packets pass through each of them.
//!
//! Both are real data planes between network namespaces, on AF_XDP in copy mode, with static keys. The order is that of RFC 7296
//! section 2.8: new inbound SAs, new outbound SAs, the switch, away with the old ones, inbound last and when nothing is under way.

use std::net::IpAddr;
use std::time::Instant;

use portcullis_common::{DropReason, Spi};
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};
use portcullis_data_plane::sa::{
    Carrier, ChildId, EchoAnswers, InboundSa, OutboundSa, Path, PathId, SaCommon, SaKey, SaSelectors,
};
use portcullis_esp::Algorithm;

use crate::figure::{Better, Figure, Report};
use crate::gateway::wait_until;
use crate::numbered::Numbered;
use crate::tunnel::{HOST_A, HOST_B, NO_LIMITS, Shape, Side, Tunnel, XDP, nets};

const CHILDREN: u32 = 10_000;
const RUNS: usize = 5;
/// A third of what these links carry, so that what is lost is lost for want of an SA.
const PACKETS_PER_SECOND: f64 = 20_000.0;
/// Two of each direction while one replaces the other.
const SLOTS: u32 = 1 << 15;
/// Queues that may be full.
const OVERLOAD: [DropReason; 4] =
    [DropReason::XskRxFull, DropReason::XskRxDropped, DropReason::TxFull, DropReason::HandOverFull];

/// # Panics
/// If a packet is doubled, late, or lost where no queue was full.
pub fn measure(report: &mut Report) {
    let mut site = Site::new();
    let calm = (0..RUNS).map(|_| site.rekey_all(None)).collect();
    let (a, b) = (&site.tunnel.a, &site.tunnel.b);
    let addresses = (0..CHILDREN).map(remote).collect();
    let traffic = Numbered::start((&a.host, HOST_A), &b.host, addresses, PACKETS_PER_SECOND);
    wait_until("every Child SA has traffic", || traffic.received() > u64::from(CHILDREN));
    let storms = (0..RUNS).map(|_| site.rekey_all(Some(&traffic))).collect();
    let (a, b) = (&site.tunnel.a, &site.tunnel.b);
    let is_drained = || [a, b].iter().all(|side| side.plane.report().accounting().unaccounted() == 0);
    let (sent, disorder) = traffic.finish(is_drained);
    assert_eq!(disorder.late, 0, "packets are doubled or out of order");
    let no_room: u64 = [a, b].iter().map(|side| no_room(side)).sum();
    assert!(disorder.lost <= no_room, "{} packets lost:\n{}\n{}", disorder.lost, a.drops(), b.drops());
    report.add(Figure {
        suite: "scale",
        case: format!("rekey storm of {CHILDREN} children under traffic"),
        unit: "ms",
        better: Better::Lower,
        runs: storms,
        against: "without traffic",
        against_runs: calm,
        goal: None,
    });
    report.add(Figure {
        suite: "scale",
        case: "rekey storms, packets lost".to_owned(),
        unit: "packets",
        better: Better::Lower,
        runs: vec![disorder.lost as f64],
        against: "sent",
        against_runs: vec![sent as f64],
        goal: Some(0.0),
    });
}

struct Site {
    tunnel: Tunnel,
    /// Pairs of SAs so far for each child.
    generation: u64,
    /// Inbound SPIs of either side, by child.
    spis: Vec<(Spi, Spi)>,
}

impl Site {
    fn new() -> Self {
        let tunnel = Tunnel::without_sas(Shape { sa_slots: SLOTS, ..XDP });
        for (side, other) in [(&tunnel.a, &tunnel.b), (&tunnel.b, &tunnel.a)] {
            let path = Path {
                carrier: Carrier::Udp,
                local: side.wan_address(false),
                local_port: 4500,
                remote: other.wan_address(false),
                remote_port: 4500,
                echo: EchoAnswers::default(),
                takes_tcp: false,
            };
            (0..CHILDREN).for_each(|number| side.plane.update_path(path_of(number), path));
        }
        tunnel.a.plane.set_policies(policies(true)).unwrap();
        tunnel.b.plane.set_policies(policies(false)).unwrap();
        // All of the addresses are the far host's.
        tunnel.b.host.ip(&["route", "add", "local", "10.2.64.0/18", "dev", "lo"]);
        tunnel.b.gateway.ip(&["route", "add", "10.2.64.0/18", "via", HOST_B]);
        let mut site = Self { tunnel, generation: 0, spis: Vec::new() };
        site.spis = (0..CHILDREN).map(|number| site.set_up(number)).collect();
        site
    }

    /// Milliseconds from the first new SA to the removal of the last old one.
    fn rekey_all(&mut self, traffic: Option<&Numbered>) -> f64 {
        let began = Instant::now();
        let old_generation = self.generation;
        self.generation += 1;
        let spis = (0..CHILDREN)
            .map(|number| {
                let new = self.set_up(number);
                let old = child(number, old_generation);
                self.tunnel.a.plane.remove_outbound(old);
                self.tunnel.b.plane.remove_outbound(old);
                new
            })
            .collect();
        let old_spis = std::mem::replace(&mut self.spis, spis);
        if let Some(traffic) = traffic {
            let sent = traffic.sent();
            wait_until("what was sent with old keys has arrived", || traffic.received() >= sent);
        }
        for (number, (spi_a, spi_b)) in (0..).zip(old_spis) {
            self.tunnel.a.plane.remove_inbound(child(number, old_generation), spi_a);
            self.tunnel.b.plane.remove_inbound(child(number, old_generation), spi_b);
        }
        let time = began.elapsed();
        for side in [&mut self.tunnel.a, &mut self.tunnel.b] {
            while side.receivers.events.try_recv().is_ok() {}
        }
        time.as_secs_f64() * 1000.0
    }

    /// A pair of SAs on both sides, in use; returns the inbound SPIs.
    fn set_up(&self, number: u32) -> (Spi, Spi) {
        let (a, b) = (&self.tunnel.a.plane, &self.tunnel.b.plane);
        let (spi_a, spi_b) = (a.allocate_spi().unwrap(), b.allocate_spi().unwrap());
        let common = |is_a, is_sent_by_a| self.common(number, is_a, is_sent_by_a);
        let inbound = |common, spi| InboundSa { common, spi, replay_window: Some(1024) };
        a.install_inbound(inbound(common(true, false), spi_a)).unwrap();
        b.install_inbound(inbound(common(false, true), spi_b)).unwrap();
        a.install_outbound(OutboundSa { common: common(true, true), spi: spi_b, by_all_workers: false })
            .unwrap();
        b.install_outbound(OutboundSa { common: common(false, false), spi: spi_a, by_all_workers: false })
            .unwrap();
        let child = child(number, self.generation);
        assert!(a.use_outbound(child) && b.use_outbound(child));
        (spi_a, spi_b)
    }

    fn common(&self, number: u32, is_a: bool, is_sent_by_a: bool) -> SaCommon {
        let child = child(number, self.generation);
        let algorithm = Algorithm::Aes256Gcm16;
        let mut key = vec![u8::from(is_sent_by_a); algorithm.keymat_len()];
        key[..8].copy_from_slice(&child.0.to_be_bytes());
        let (local, remote) = selectors(number, is_a);
        SaCommon {
            child,
            path: path_of(number),
            policy: key_of(number),
            resource: 0,
            algorithm,
            key: SaKey(key.into()),
            esn: true,
            selectors: SaSelectors { local: local.into(), remote: remote.into() },
            lifetime: NO_LIMITS,
        }
    }
}

/// The path of a child's IKE SA.
fn path_of(number: u32) -> PathId {
    PathId(1 + u64::from(number))
}

fn child(number: u32, generation: u64) -> ChildId {
    ChildId(1 + u64::from(number) + generation * u64::from(CHILDREN))
}

fn no_room(side: &Side) -> u64 {
    let accounting = side.plane.report().accounting();
    OVERLOAD.iter().map(|reason| accounting.dropped(*reason)).sum()
}

fn policies(is_a: bool) -> PolicySet {
    let policy = |number| {
        let (local, remote) = selectors(number, is_a);
        let disposition = Disposition::Protect { key: key_of(number), acquire: false, interface: None };
        Policy { local, remote, disposition }
    };
    let peer = if is_a { "198.51.100.2" } else { "198.51.100.1" };
    PolicySet {
        policies: (0..CHILDREN).map(policy).collect(),
        peers: vec![Some(peer.parse().unwrap())],
        ..PolicySet::default()
    }
}

/// Of one side, local ones first.
fn selectors(number: u32, is_a: bool) -> (Vec<Selector>, Vec<Selector>) {
    let network = nets(1)[..1].to_vec();
    let address = remote(number);
    let one = vec![Selector { addresses: address..=address, protocol: None, ports: 0..=u16::MAX }];
    if is_a { (network, one) } else { (one, network) }
}

fn key_of(number: u32) -> PolicyKey {
    PolicyKey { connection: "storm".into(), child: format!("net-{number}").into() }
}

/// The far host's address for a child.
fn remote(number: u32) -> IpAddr {
    IpAddr::from([10, 2, 64 + (number / 250) as u8, 1 + (number % 250) as u8])
}
