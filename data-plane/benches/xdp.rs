//! The XDP programs in the running kernel (`BPF_PROG_TEST_RUN`), in nanoseconds beside a program that only drops:
//! `cargo xtask bench xdp`.
//!
//! The kernel runs a program on one frame again and again and says how long a run took: caches are warm. Where the SPI or
//! the destination changes from run to run the kernel is asked for each frame by itself, as for the program that drops, and the
//! difference of the medians counts.

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[path = "../tests/xdp_verdicts/frames.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod frames;
#[allow(dead_code, reason = "other suites use all of it")]
#[path = "bpf/program.rs"]
mod program;

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::{Array, Map, MapData};
use figure::{Better, Figure, Report, median};
use portcullis_common::limit::Rate;
use portcullis_common::steer::SlotState;
use portcullis_common::{Spi, SteerWord};
use portcullis_data_plane::bpf::{
    InterfacePlan, LanClasses, Steering, XdpInstance, XdpInterface, find_object, release,
};
use portcullis_data_plane::config::{OpeningLimits, Role};
use portcullis_data_plane::policy::{Disposition, Policy, PolicyKey, PolicySet, Selector};
use program::DROP;

const RUNS: usize = 7;
const REPEAT: u32 = 1_000_000;
/// Frames of a run where each is another.
const FRAMES: u32 = 40_000;
const SLOTS: u32 = 1 << 20;
const OURS: [u8; 4] = [192, 0, 2, 1];

fn main() -> ExitCode {
    let mut report = Report::begin();
    if !std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        eprintln!("xdp: left out: programs need root to be loaded");
        return report.finish();
    }
    let drop_only = program::Program::load(&DROP);
    wan(&mut report, &drop_only);
    flood(&mut report, &drop_only);
    for prefixes in [1_000, 65_000] {
        lan(&mut report, &drop_only, prefixes);
    }
    report.finish()
}

/// ESP of one SA, of any of a million, and of none.
fn wan(report: &mut Report, drop_only: &program::Program) {
    let mut program = Program::new(Role::Wan);
    let live = |slot| Spi::from_slot(slot, 1 + slot as u16 % 4000).expect("an SPI");
    program.steer((0..SLOTS).map(|slot| SteerWord::new(live(slot), 0, SlotState::Live, 0)));
    let frame = |spi: Spi| frames::frame(&frames::udp_4500_in_ipv4(OURS, &frames::esp(spi.0)));
    program.same(report, drop_only, "WAN: ESP of one SA", &frame(live(7)), 12.0);
    let other = |number: u32| frame(live(number.wrapping_mul(0x9e37_79b1) % SLOTS));
    program.each(report, drop_only, "WAN: ESP of any of a million SAs", other, 18.0);
    let unknown = |number: u32| {
        let spi = live(number.wrapping_mul(0x9e37_79b1) % SLOTS);
        frame(Spi(spi.0 ^ 1 << 31))
    };
    program.same(report, drop_only, "WAN: unknown SPI", &unknown(7), 12.0);
    program.each(report, drop_only, "WAN: any of a million unknown SPIs", unknown, 18.0);
}

/// IKE_SA_INIT requests and TCP SYNs when their prefixes have had what they may.
fn flood(report: &mut Report, drop_only: &program::Program) {
    let program = Program::new(Role::Wan);
    let init = |prefix: u32| {
        let message = frames::ike(34, 0x08, [0; 8], 33, &[0x5a; 400]);
        frames::frame(&frames::from_ipv4(
            prefix << 8,
            &frames::ipv4(OURS, 17, 0, &frames::udp(500, 500, &message)),
        ))
    };
    let syn = |prefix: u32| {
        frames::frame(&frames::from_ipv4(prefix << 8, &frames::ipv4(OURS, 6, 0, &frames::tcp(4500, 0x02))))
    };
    let any = |number: u32| number.wrapping_mul(0x9e37_79b1) >> 8;
    program.same(report, drop_only, "WAN: flood of IKE_SA_INIT from one prefix", &init(7), 16.0);
    program.each(report, drop_only, "WAN: flood of IKE_SA_INIT from any prefix", |n| init(any(n)), 16.0);
    program.same(report, drop_only, "WAN: flood of TCP SYNs from one prefix", &syn(7), 16.0);
    program.each(report, drop_only, "WAN: flood of TCP SYNs from any prefix", |n| syn(any(n)), 16.0);
}

/// Packets to protected destinations.
fn lan(report: &mut Report, drop_only: &program::Program, prefixes: u32) {
    let mut program = Program::new(Role::Lan);
    program.protect(prefixes);
    let frame = |number: u32| {
        frames::frame(&frames::ipv4(site(number).octets(), 17, 0, &frames::udp(4000, 443, &[0x5a; 40])))
    };
    let name = format!("LAN: one of {prefixes} protected prefixes");
    program.same(report, drop_only, &name, &frame(7), 30.0);
    let any = format!("LAN: any of {prefixes} protected prefixes");
    program.each(report, drop_only, &any, |number| frame(number.wrapping_mul(0x9e37_79b1) % prefixes), 30.0);
}

/// A program in the kernel, attached nowhere.
struct Program {
    name: String,
    instance: XdpInstance,
    program: XdpInterface,
}

impl Program {
    fn new(role: Role) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench-xdp-{}-{number}", std::process::id());
        // So little that whatever is measured is a flood.
        let rate = Rate::new(1, 1);
        let limits = OpeningLimits { init: rate, syn: rate, ..OpeningLimits::default() };
        let object = find_object(None).unwrap_or_else(|error| panic!("{error}"));
        let mut instance =
            XdpInstance::open(&name, &object, SLOTS, &limits).unwrap_or_else(|error| panic!("{error}"));
        let plan = InterfacePlan { name: "lo".into(), role, steering: Steering::Kernel, protected: true };
        let program = instance.load(&plan).unwrap_or_else(|error| panic!("{error}"));
        instance.shared().unwrap().set_local_addresses([IpAddr::from(OURS)]).unwrap();
        Self { name, instance, program }
    }

    fn steer(&mut self, words: impl Iterator<Item = SteerWord>) {
        let steer = self.instance.shared().unwrap().steer().unwrap();
        let map = Map::from_map_data(MapData::from_fd(steer).unwrap()).unwrap();
        let mut steer = Array::<_, u64>::try_from(map).unwrap();
        words.for_each(|word| steer.set(word.spi().index(), word.0, 0).unwrap());
    }

    fn protect(&mut self, prefixes: u32) {
        let policy = |number: u32| Policy {
            local: vec![selector([0; 4].into(), [255; 4].into())],
            remote: vec![selector(site(number), Ipv4Addr::from_bits(site(number).to_bits() | 255))],
            disposition: Disposition::Protect {
                key: PolicyKey { connection: format!("site-{number}").into(), child: "net".into() },
                acquire: false,
                interface: None,
            },
        };
        let set = PolicySet { policies: (0..prefixes).map(policy).collect(), ..PolicySet::default() };
        self.instance.shared().unwrap().set_lan_classes(LanClasses::new(&set)).unwrap();
    }

    /// The same frame again and again.
    fn same(&self, report: &mut Report, drop_only: &program::Program, case: &str, frame: &[u8], limit: f64) {
        let time = |_| {
            let bare = drop_only.time(frame, REPEAT);
            self.program.time_run(frame, REPEAT).unwrap().as_nanos() as f64 - bare
        };
        add(report, case, (0..RUNS).map(time).collect(), limit);
    }

    /// Another frame every time.
    fn each(
        &self,
        report: &mut Report,
        drop_only: &program::Program,
        case: &str,
        frame: impl Fn(u32) -> Vec<u8>,
        limit: f64,
    ) {
        let time = |run: usize| {
            let (mut own, mut bare) = (Vec::new(), Vec::new());
            for number in 0..FRAMES {
                let frame = frame(run as u32 * FRAMES + number);
                bare.push(drop_only.time(&frame, 1));
                own.push(self.program.time_run(&frame, 1).unwrap().as_nanos() as f64);
            }
            median(&own) - median(&bare)
        };
        add(report, case, (0..RUNS).map(time).collect(), limit);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        release(&self.name).unwrap();
    }
}

fn add(report: &mut Report, case: &str, runs: Vec<f64>, limit: f64) {
    report.add(Figure {
        suite: "xdp",
        case: case.to_owned(),
        unit: "ns",
        better: Better::Lower,
        runs,
        against: "above a program that drops, limit",
        against_runs: vec![limit],
        goal: Some(1.0),
    });
}

fn site(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((100 << 24) + number * 256)
}

fn selector(first: Ipv4Addr, last: Ipv4Addr) -> Selector {
    Selector { addresses: first.into()..=last.into(), protocol: None, ports: 0..=u16::MAX }
}
