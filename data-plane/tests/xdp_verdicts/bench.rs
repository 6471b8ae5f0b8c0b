//! A loaded program with maps of its own, to run frames through.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::{Array, Map, MapData};
use portcullis_common::verdict::Action;
use portcullis_common::{SteerWord, Verdict, limit, maps};
use portcullis_data_plane::bpf::{
    InterfacePlan, LanClasses, Steering, XdpInstance, XdpInterface, find_object, release,
};
use portcullis_data_plane::config::{OpeningLimits, Role};
use portcullis_data_plane::policy::PolicySet;

pub const OUR_IPV4: [u8; 4] = [192, 0, 2, 1];
pub const OUR_IPV6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const SLOTS: u32 = 1024;

/// A program in the kernel, attached nowhere.
pub struct Bench {
    name: String,
    instance: XdpInstance,
    program: XdpInterface,
}

impl Bench {
    pub fn new(role: Role, steering: Steering, protected: bool) -> Self {
        Self::with_limits(role, steering, protected, &OpeningLimits::default())
    }

    pub fn with_limits(role: Role, steering: Steering, protected: bool, limits: &OpeningLimits) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-verdicts-{}-{number}", std::process::id());
        let object = find_object(None).unwrap_or_else(|error| panic!("{error}"));
        let mut instance =
            XdpInstance::open(&name, &object, SLOTS, limits).unwrap_or_else(|error| panic!("{error}"));
        let plan = InterfacePlan { name: "lo".into(), role, steering, protected };
        let program = instance.load(&plan).unwrap_or_else(|error| panic!("{error}"));
        let ours = [IpAddr::from(OUR_IPV4), IpAddr::from(OUR_IPV6)];
        instance.shared().unwrap().set_local_addresses(ours).unwrap();
        Self { name, instance, program }
    }

    /// Writes a steer word, as the SA table does.
    pub fn steer(&mut self, word: SteerWord) {
        let steer = self.instance.shared().unwrap().steer().unwrap();
        let map = Map::from_map_data(MapData::from_fd(steer).unwrap()).unwrap();
        let mut steer = Array::<_, u64>::try_from(map).unwrap();
        steer.set(word.spi().index(), word.0, 0).unwrap();
    }

    pub fn set_policies(&mut self, set: &PolicySet) {
        self.instance.shared().unwrap().set_lan_classes(LanClasses::new(set)).unwrap();
    }

    pub fn exempt(&mut self, address: IpAddr) {
        self.instance.shared().unwrap().exempt(address).unwrap();
    }

    pub fn limit_again(&mut self, address: IpAddr) {
        self.instance.shared().unwrap().limit_again(address).unwrap();
    }

    pub fn set_local_addresses(&mut self, addresses: &[IpAddr]) {
        self.instance.shared().unwrap().set_local_addresses(addresses.iter().copied()).unwrap();
    }

    /// Runs a frame and returns the verdict that was counted. The kernel's code must be the one of the verdict,
    /// exactly one counter must have moved, by one packet of this length, and the frame must be as it was.
    pub fn run(&self, frame: &[u8]) -> Verdict {
        const XDP_DROP: u32 = 1;
        const XDP_PASS: u32 = 2;
        const XDP_REDIRECT: u32 = 4;
        let before = self.program.verdicts().unwrap();
        let (code, out) = self.program.test_run(frame).unwrap();
        let after = self.program.verdicts().unwrap();
        let moved: Vec<_> = after.iter().filter(|(verdict, now)| *now != before.get(*verdict)).collect();
        let [(verdict, now)] = moved[..] else { panic!("counters that moved: {moved:?}, code {code}") };
        assert_eq!(now.packets - before.get(verdict).packets, 1, "{verdict:?}");
        assert_eq!(now.bytes - before.get(verdict).bytes, frame.len() as u64, "{verdict:?}");
        let expected = match verdict.action() {
            Action::Redirect => XDP_REDIRECT,
            Action::Pass => XDP_PASS,
            Action::Drop => XDP_DROP,
        };
        assert_eq!(code, expected, "{verdict:?}");
        assert_eq!(out, frame, "{verdict:?}");
        verdict
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        release(&self.name).unwrap();
    }
}

/// The maps in the object have the names, sizes and flags that user space counts on.
#[test]
fn the_maps_are_laid_out_as_user_space_expects() {
    use aya::maps::MapInfo;
    let bench = Bench::new(Role::Wan, Steering::Redirect, false);
    let directory = std::path::Path::new("/sys/fs/bpf/portcullis").join(&bench.name);
    let layout = |path: &str| {
        let info = MapInfo::from_pin(directory.join(path)).unwrap();
        (info.key_size(), info.value_size(), info.max_entries(), info.map_flags())
    };
    const MMAPABLE: u32 = 1024;
    assert_eq!(layout(maps::STEER), (4, 8, SLOTS, MMAPABLE));
    assert_eq!(layout(maps::KEYS), (4, 64, 2 * SLOTS, MMAPABLE));
    assert_eq!(layout(maps::LAN_IPV4), (4, 8, 1 << 19, MMAPABLE));
    assert_eq!(layout(maps::LAN_IPV4_MIXED), (4, 64, maps::MAX_MIXED, 1));
    assert_eq!(layout(maps::LAN_IPV6), (24, 1, maps::MAX_IPV6_PREFIXES, 1));
    assert_eq!(layout(maps::LAN_IPV6_LENGTHS), (4, 24, 1, 0));
    assert_eq!(layout(maps::LOCAL_NEAR), (4, 104, 1, 0));
    assert_eq!(layout(maps::LOCAL_IPV4), (4, 1, maps::MAX_LOCAL_ADDRESSES, 0));
    assert_eq!(layout(maps::LOCAL_IPV6), (16, 1, maps::MAX_LOCAL_ADDRESSES, 0));
    assert_eq!(layout(maps::LIMIT_BUCKETS), (4, 32, limit::BUCKETS, MMAPABLE));
    assert_eq!(layout(maps::LIMIT_EXEMPT), (16, 1, maps::MAX_EXEMPT, 1));
    assert_eq!(layout("lo/VERDICTS"), (4, 16, Verdict::COUNT as u32, 0));
    assert_eq!(layout("lo/SOCKETS"), (4, 4, maps::MAX_QUEUES, 0));
}
