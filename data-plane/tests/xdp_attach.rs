//! XDP programs on real interfaces: attached, pinned, replaced in place, refused, released.
//!
//! Each test runs in a network namespace that ends with its thread, under an instance of its own.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use aya::programs::links::{FdLink, PinnedLink};
use portcullis_common::steer::SlotState;
use portcullis_common::{Spi, SteerWord, Verdict};
use portcullis_data_plane::bpf::{
    AttachMode, BpfError, InterfacePlan, Steering, XdpInstance, XdpInterface, find_object, release,
};
use portcullis_data_plane::config::{OpeningLimits, Role};
use portcullis_data_plane::xsk::{BindMode, Socket, SocketConfig, Umem};

#[test]
fn a_program_stays_attached_when_its_process_is_gone() {
    in_new_namespace(|instance| {
        veth("wan0", "peer0");
        let (owner, mut program) = load(instance, "wan0", Role::Wan);
        assert_eq!(program.attach(false).unwrap(), AttachMode::Native);
        drop((program, owner));
        assert!(attached("wan0").is_some());
    });
}

/// A restart: the same link, so that there was no moment without a program, and a new program on it.
#[test]
fn the_next_process_replaces_the_program_through_the_same_link() {
    in_new_namespace(|instance| {
        veth("wan0", "peer0");
        let (owner, mut program) = load(instance, "wan0", Role::Wan);
        program.attach(false).unwrap();
        let (old_link, old_program) = (link(instance, "wan0"), attached("wan0").unwrap());
        drop((program, owner));

        let (_owner, mut program) = load(instance, "wan0", Role::Wan);
        assert_eq!(attached("wan0"), Some(old_program), "loading changes nothing");
        assert_eq!(program.attach(false).unwrap(), AttachMode::Native);
        assert_eq!(link(instance, "wan0"), old_link);
        assert_ne!(attached("wan0"), Some(old_program));
    });
}

#[test]
fn a_hook_that_another_program_holds_is_an_error_that_names_it() {
    in_new_namespace(|instance| {
        veth("wan0", "peer0");
        let other = format!("{instance}-other");
        let _released = Released(&other);
        let (_owner, mut program) = load(&other, "wan0", Role::Lan);
        program.attach(false).unwrap();
        let holder = attached("wan0").unwrap();

        let (_owner, mut program) = load(instance, "wan0", Role::Wan);
        let error = program.attach(true).unwrap_err();
        assert!(matches!(&error, BpfError::HookHeld { id, .. } if *id == holder), "{error}");
        let text = error.to_string();
        for part in ["wan0", &format!("program id {holder}"), "portcullis_lan", "ip link set wan0 xdp off"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(attached("wan0"), Some(holder));
    });
}

#[test]
fn release_detaches_and_leaves_nothing_and_may_be_repeated() {
    in_new_namespace(|instance| {
        veth("wan0", "peer0");
        let (owner, mut program) = load(instance, "wan0", Role::Wan);
        program.attach(false).unwrap();
        drop((program, owner));
        release(instance).unwrap();
        wait_until(|| attached("wan0").is_none());
        assert!(!directory(instance).exists());
        release(instance).unwrap();
    });
}

#[test]
fn an_interface_that_was_made_anew_is_attached_anew() {
    in_new_namespace(|instance| {
        veth("wan0", "peer0");
        let (owner, mut program) = load(instance, "wan0", Role::Wan);
        program.attach(false).unwrap();
        drop((program, owner));
        ip(&["link", "del", "wan0"]);
        veth("wan0", "peer0");

        let (_owner, mut program) = load(instance, "wan0", Role::Wan);
        assert_eq!(program.attach(false).unwrap(), AttachMode::Native);
        assert!(attached("wan0").is_some());
    });
}

#[test]
fn an_interface_that_left_the_configuration_is_detached() {
    in_new_namespace(|instance| {
        veth("wan0", "lan0");
        let (mut owner, mut wan) = load(instance, "wan0", Role::Wan);
        wan.attach(false).unwrap();
        let mut lan = owner.load(&plan("lan0", Role::Lan)).unwrap();
        lan.attach(false).unwrap();
        drop((lan, wan));
        owner.retain(&["wan0".into()]).unwrap();
        wait_until(|| attached("lan0").is_none());
        assert!(attached("wan0").is_some());
    });
}

/// The loopback driver has no XDP.
#[test]
fn generic_mode_is_taken_only_where_it_is_allowed() {
    in_new_namespace(|instance| {
        let (_owner, mut program) = load(instance, "lo", Role::Wan);
        let error = program.attach(false).unwrap_err();
        assert!(matches!(error, BpfError::NoNativeMode { .. }), "{error}");
        assert_eq!(program.attach(true).unwrap(), AttachMode::Generic);
    });
}

/// The kernel wants no program below a device that has one.
#[test]
fn an_interface_that_takes_no_program_is_an_error_with_the_way_out() {
    in_new_namespace(|instance| {
        veth("wan0", "peer0");
        ip(&["link", "add", "link", "wan0", "name", "above0", "type", "macvlan"]);
        let other = format!("{instance}-other");
        let _released = Released(&other);
        let (_owner, mut above) = load(&other, "above0", Role::Wan);
        assert_eq!(above.attach(true).unwrap(), AttachMode::Generic);

        let (_owner, mut program) = load(instance, "wan0", Role::Wan);
        let error = program.attach(true).unwrap_err();
        assert!(matches!(error, BpfError::Refused { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("wan0") && text.contains("data_plane.mode: tun"), "{text}");
        assert_eq!(attached("wan0"), None);
    });
}

#[test]
fn a_missing_interface_is_named() {
    in_new_namespace(|instance| {
        let mut owner = open(instance);
        let error = owner.load(&plan("wan7", Role::Wan)).err().unwrap();
        assert!(matches!(&error, BpfError::NoInterface { interface } if **interface == *"wan7"), "{error}");
    });
}

/// The last dot of a VLAN interface is no file name in the BPF file system.
#[test]
fn an_interface_with_a_dot_in_its_name_is_pinned() {
    in_new_namespace(|instance| {
        veth("wan0.100", "peer0");
        let (_owner, mut program) = load(instance, "wan0.100", Role::Wan);
        program.attach(false).unwrap();
        assert!(attached("wan0.100").is_some());
    });
}

#[test]
fn interfaces_of_an_instance_share_the_table() {
    in_new_namespace(|instance| {
        veth("wan0", "wan1");
        let (mut owner, first) = load(instance, "wan0", Role::Wan);
        let second = owner.load(&plan("wan1", Role::Wan)).unwrap();
        let packet = esp_frame(0x0010_0003);
        owner.shared().unwrap().set_local_addresses([Ipv4Addr::new(192, 0, 2, 1).into()]).unwrap();
        for program in [&first, &second] {
            program.test_run(&packet).unwrap();
            assert_eq!(program.verdicts().unwrap().get(Verdict::UnknownSpi).packets, 1);
        }
        steer(&mut owner, SteerWord::new(Spi(0x0010_0003), 0, SlotState::Live, 1));
        for program in [&first, &second] {
            program.test_run(&packet).unwrap();
            assert_eq!(program.verdicts().unwrap().get(Verdict::NoWorker).packets, 1);
        }
    });
}

/// Linux 6.6 has packets in several descriptors; before, a socket that wants them does not bind, and one that does without does.
#[test]
fn packets_in_several_descriptors_are_refused_by_kernels_that_have_none() {
    in_new_namespace(|instance| {
        veth("wan0", "peer0");
        let (_owner, program) = load(instance, "wan0", Role::Wan);
        let bind = |multi_buffer| {
            let (umem, _frames) = Umem::new(64, 2048).unwrap();
            let config = SocketConfig {
                ifindex: program.index(),
                queue: 0,
                ring_size: 32,
                mode: BindMode::Copy,
                multi_buffer,
                busy_retry: std::time::Duration::from_secs(5),
            };
            Socket::bind(&config, Arc::new(umem), None).map(|socket| socket.max_packet())
        };
        assert_eq!(bind(false).unwrap(), 2048 - 256 - 22);
        let has_it = kernel_version() >= (6, 6);
        assert_eq!(bind(true).is_ok(), has_it, "{:?}", kernel_version());
    });
}

/// RFC 4301 section 5: with a socket on the queue the worker has it; once the socket is closed it is dropped.
#[test]
fn a_live_spi_is_redirected_while_a_socket_takes_the_queue() {
    in_new_namespace(|instance| {
        const XDP_DROP: u32 = 1;
        const XDP_REDIRECT: u32 = 4;
        veth("wan0", "peer0");
        let (mut owner, mut program) = load(instance, "wan0", Role::Wan);
        owner.shared().unwrap().set_local_addresses([Ipv4Addr::new(192, 0, 2, 1).into()]).unwrap();
        steer(&mut owner, SteerWord::new(Spi(0x0010_0003), 0, SlotState::Live, 1));
        let (umem, _frames) = Umem::new(64, 2048).unwrap();
        let config = SocketConfig {
            ifindex: program.index(),
            queue: 0,
            ring_size: 32,
            mode: BindMode::Copy,
            multi_buffer: false,
            busy_retry: std::time::Duration::from_secs(5),
        };
        let socket = Socket::bind(&config, Arc::new(umem), None).unwrap();
        program.set_socket(0, &socket.fd().unwrap()).unwrap();

        let packet = esp_frame(0x0010_0003);
        assert_eq!(program.test_run(&packet).unwrap().0, XDP_REDIRECT);
        assert_eq!(program.verdicts().unwrap().get(Verdict::Redirected).packets, 1);
        drop(socket);
        wait_until(|| program.test_run(&packet).unwrap().0 == XDP_DROP);
        assert!(program.verdicts().unwrap().get(Verdict::NoWorker).packets >= 1);
    });
}

/// Once for each of the first few, so that a flood does not fill the log.
#[test]
fn unknown_spis_are_logged_as_samples() {
    in_new_namespace(|instance| {
        let lines = Lines::default();
        let _listening = tracing::subscriber::set_default(lines.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut owner, mut program) = load(instance, "lo", Role::Wan);
        owner.shared().unwrap().set_local_addresses([Ipv4Addr::new(192, 0, 2, 1).into()]).unwrap();
        runtime.block_on(async {
            let task = program.forward_log().unwrap();
            assert!(matches!(program.forward_log(), Err(BpfError::Map { map: "AYA_LOGS", .. })));
            for _ in 0..4 {
                program.test_run(&esp_frame(0x0010_0003)).unwrap();
            }
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while lines.of_xdp().len() < 3 {
                assert!(std::time::Instant::now() < deadline, "{:?}", lines.of_xdp());
                tokio::task::yield_now().await;
            }
            task.abort();
        });
        let expected = [1, 2, 4].map(|n| format!("unknown SPI 100003, queue 0, number {n} interface=lo"));
        assert_eq!(lines.of_xdp(), expected);
    });
}

#[test]
fn keys_of_an_earlier_process_are_wiped_before_anything_else() {
    use aya::maps::{Array, Map, MapData};
    type Keys = Array<MapData, [u8; 64]>;
    in_new_namespace(|instance| {
        let (mut owner, program) = load(instance, "lo", Role::Wan);
        let keys = owner.shared().unwrap().keys().unwrap();
        let map = Map::from_map_data(MapData::from_fd(keys).unwrap()).unwrap();
        let mut keys = Keys::try_from(map).unwrap();
        keys.set(3, [0xa5; 64], 0).unwrap();
        drop((program, owner));
        let _next = open(instance);
        assert_eq!(keys.get(&3, 0).unwrap(), [0; 64]);
        release(instance).unwrap();
    });
}

fn open(instance: &str) -> XdpInstance {
    let object = find_object(None).unwrap_or_else(|error| panic!("{error}"));
    XdpInstance::open(instance, &object, 256, &OpeningLimits::default())
        .unwrap_or_else(|error| panic!("{error}"))
}

fn load(instance: &str, interface: &str, role: Role) -> (XdpInstance, XdpInterface) {
    let mut owner = open(instance);
    let program = owner.load(&plan(interface, role)).unwrap_or_else(|error| panic!("{error}"));
    (owner, program)
}

fn plan(interface: &str, role: Role) -> InterfacePlan {
    InterfacePlan { name: interface.into(), role, steering: Steering::Redirect, protected: true }
}

fn steer(owner: &mut XdpInstance, word: SteerWord) {
    use aya::maps::{Array, Map, MapData};
    let steer = owner.shared().unwrap().steer().unwrap();
    let map = Map::from_map_data(MapData::from_fd(steer).unwrap()).unwrap();
    Array::<_, u64>::try_from(map).unwrap().set(word.spi().index(), word.0, 0).unwrap();
}

fn esp_frame(spi: u32) -> Vec<u8> {
    let mut frame = vec![0; 14 + 20 + 48];
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[17] = 68;
    frame[23] = 50;
    frame[30..34].copy_from_slice(&[192, 0, 2, 1]);
    frame[34..38].copy_from_slice(&spi.to_be_bytes());
    frame
}

/// The id of the program on an interface, as `ip` sees it.
fn attached(interface: &str) -> Option<u32> {
    let output = Command::new("ip").args(["-j", "link", "show", "dev", interface]).output().unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    links[0]["xdp"]["prog"]["id"].as_u64().map(|id| id as u32)
}

/// The id of the pinned link.
fn link(instance: &str, interface: &str) -> u32 {
    let link = PinnedLink::from_pin(directory(instance).join(interface).join("link")).unwrap();
    FdLink::from(link).info().unwrap().id()
}

fn directory(instance: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/portcullis").join(instance)
}

fn veth(one: &str, other: &str) {
    ip(&["link", "add", one, "type", "veth", "peer", "name", other]);
    for interface in [one, other] {
        ip(&["link", "set", interface, "up"]);
    }
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {}", arguments.join(" "));
}

/// What the kernel does some time after the last descriptor is closed.
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited in vain");
        thread::yield_now();
    }
}

/// What was logged, as target and text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(String, String)>>>);

impl Lines {
    fn of_xdp(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|(target, _)| target == "xdp").map(|(_, text)| text.clone()).collect()
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                self.0 = format!("{} {field}={value}", self.0);
            }

            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 = format!("{value:?}{}", self.0);
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push((event.metadata().target().to_owned(), text.0));
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Released<'a>(&'a str);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        release(self.0).unwrap();
    }
}

fn in_new_namespace(test: impl FnOnce(&str) + Send + 'static) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let instance = format!("test-attach-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let outcome = thread::spawn(move || {
        // SAFETY: changes only this thread's namespace.
        let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(unshared, 0, "these tests need root: {}", std::io::Error::last_os_error());
        let _released = Released(&instance);
        test(&instance);
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
