//! Real sockets on real (virtual) interfaces, in a network namespace that ends with the test's thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const FRAMES: u32 = 1024;
const RING: u32 = 256;

#[test]
fn packets_are_forwarded_between_two_interfaces_that_share_a_umem() {
    in_new_namespace(|| {
        veth("out0", "in0", 1);
        veth("in1", "out1", 1);
        let (umem, frames) = Umem::new(FRAMES, 4096).unwrap();
        let umem = Arc::new(umem);
        let pool = FramePool::new(frames);
        let mut cache = FrameCache::new(pool.clone(), 64);
        let mut first = Socket::bind(&config("in0", 0), umem.clone(), None).unwrap();
        let mut second = Socket::bind(&config("in1", 0), umem.clone(), Some(&first)).unwrap();
        assert!(!first.is_zero_copy());
        let _redirect = Redirect::attach("in0", &[&first]);
        first.refill(&mut cache);
        second.refill(&mut cache);

        let (source, sink) = (PacketSocket::open("out0"), PacketSocket::open("out1"));
        for i in 0..500u32 {
            source.send(&test_packet(i));
            let mut received = Vec::new();
            wait_until(|| first.receive(&mut received, 64) > 0);
            for packet in received {
                second.transmit(packet.frame, packet.start, packet.len).unwrap();
            }
            second.flush().unwrap();
            assert_eq!(sink.receive(), test_packet(i));
            second.reap(&mut cache);
            first.refill(&mut cache);
        }
        assert_eq!(first.take_kernel_drops().unwrap(), KernelDrops::default());
    });
}

#[test]
fn every_queue_has_its_own_socket_on_one_umem() {
    in_new_namespace(|| {
        veth("out0", "in0", 2);
        let (umem, frames) = Umem::new(FRAMES, 2048).unwrap();
        let umem = Arc::new(umem);
        let mut cache = FrameCache::new(FramePool::new(frames), 64);
        let mut first = Socket::bind(&config("in0", 0), umem.clone(), None).unwrap();
        let mut second = Socket::bind(&config("in0", 1), umem.clone(), Some(&first)).unwrap();
        let _redirect = Redirect::attach("in0", &[&first, &second]);
        first.refill(&mut cache);
        second.refill(&mut cache);
        let source = PacketSocket::open("out0");
        let (mut on_first, mut on_second) = (Vec::new(), Vec::new());
        for i in 0..200 {
            source.send(&test_packet(i));
        }
        wait_until(|| {
            first.receive(&mut on_first, 64);
            second.receive(&mut on_second, 64);
            on_first.len() + on_second.len() == 200
        });
        for packet in on_first.iter().chain(&on_second) {
            let bytes = &umem.bytes(&packet.frame)[packet.start..][..packet.len];
            assert_eq!(bytes[18..], test_packet(0)[18..]);
            assert!(packet.start >= HEADROOM, "room for outer headers");
        }
    });
}

#[test]
fn what_the_kernel_drops_is_counted() {
    in_new_namespace(|| {
        veth("out0", "in0", 1);
        let (umem, frames) = Umem::new(FRAMES, 2048).unwrap();
        let mut cache = FrameCache::new(FramePool::new(frames), 64);
        let mut socket = Socket::bind(&config("in0", 0), Arc::new(umem), None).unwrap();
        let _redirect = Redirect::attach("in0", &[&socket]);
        let source = PacketSocket::open("out0");
        (0..10).for_each(|i| source.send(&test_packet(i)));
        let mut drops = KernelDrops::default();
        wait_until(|| {
            drops.rx_dropped += socket.take_kernel_drops().unwrap().rx_dropped;
            drops.rx_dropped == 10
        });
        socket.refill(&mut cache);
        (0..RING + 44).for_each(|i| source.send(&test_packet(i)));
        wait_until(|| {
            let new = socket.take_kernel_drops().unwrap();
            (drops.rx_full, drops.rx_dropped) =
                (drops.rx_full + new.rx_full, drops.rx_dropped + new.rx_dropped);
            drops.rx_full + drops.rx_dropped == 54
        });
        let mut received = Vec::new();
        assert_eq!(socket.receive(&mut received, 1000), RING as usize);
    });
}

#[test]
fn a_queue_in_use_is_an_error_that_names_it() {
    in_new_namespace(|| {
        veth("out0", "in0", 1);
        let umem = || Arc::new(Umem::new(64, 2048).unwrap().0);
        let _holder = Socket::bind(&config("in0", 0), umem(), None).unwrap();
        let error =
            Socket::bind(&SocketConfig { busy_retry: Duration::ZERO, ..config("in0", 0) }, umem(), None)
                .err()
                .expect("the queue is taken");
        assert_eq!((error.step, error.source.raw_os_error()), ("bind", Some(libc::EBUSY)));
    });
}

#[test]
fn a_queue_that_was_just_closed_binds_again() {
    in_new_namespace(|| {
        veth("out0", "in0", 1);
        for _ in 0..5 {
            let umem = Arc::new(Umem::new(64, 2048).unwrap().0);
            Socket::bind(&config("in0", 0), umem, None).unwrap();
        }
    });
}

#[test]
fn zero_copy_on_a_driver_without_it_is_refused_and_not_emulated() {
    in_new_namespace(|| {
        veth("out0", "in0", 1);
        let umem = Arc::new(Umem::new(64, 2048).unwrap().0);
        let config = SocketConfig { mode: BindMode::ZeroCopy, ..config("in0", 0) };
        assert_eq!(Socket::bind(&config, umem, None).err().unwrap().step, "bind");
    });
}

fn config(interface: &str, queue: u32) -> SocketConfig {
    SocketConfig {
        ifindex: ifindex(interface),
        queue,
        ring_size: RING,
        mode: BindMode::Copy,
        busy_retry: Duration::from_secs(5),
    }
}

fn test_packet(number: u32) -> Vec<u8> {
    let mut packet = vec![0xa5; 100];
    packet[..12].fill(0xff);
    packet[12..14].copy_from_slice(&[0x88, 0xb5]);
    packet[14..18].copy_from_slice(&number.to_be_bytes());
    packet
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "nothing happened for 10 s");
        thread::yield_now();
    }
}

fn in_new_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || {
        // SAFETY: no memory is passed; only this thread moves to the new namespace.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn veth(left: &str, right: &str, queues: u32) {
    let queues = queues.to_string();
    let shape = ["numrxqueues", &queues, "numtxqueues", &queues];
    ip(&[&["link", "add", left], &shape[..], &["type", "veth", "peer", "name", right], &shape].concat());
    for interface in [left, right] {
        // Neighbour discovery of the kernel would mix with the test's packets.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
        ip(&["link", "set", interface, "up"]);
    }
    // Until the kernel has seen the carrier, what is sent vanishes in a no-op queue.
    [left, right].iter().for_each(|i| wait_until(|| shown(i).contains("qdisc noqueue state UP")));
}

fn shown(interface: &str) -> String {
    let output = Command::new("ip").args(["-o", "link", "show", "dev", interface]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success());
}

fn ifindex(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => panic!("no interface {name:?}"),
        index => index,
    }
}

/// Raw Ethernet on one end of a veth pair.
struct PacketSocket(OwnedFd);

impl PacketSocket {
    fn open(interface: &str) -> Self {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: plain integers, for which all zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = 0x88b5u16.to_be();
        address.sll_ifindex = ifindex(interface) as i32;
        // SAFETY: pointer and length describe one whole sockaddr_ll.
        let bound =
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        let timeout = libc::timeval { tv_sec: 10, tv_usec: 0 };
        let (level, option, len) = (libc::SOL_SOCKET, libc::SO_RCVTIMEO, size_of_val(&timeout) as u32);
        // SAFETY: pointer and length describe one whole timeval.
        let set =
            unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const timeout).cast(), len) };
        assert_eq!(set, 0);
        Self(fd)
    }

    fn send(&self, packet: &[u8]) {
        // SAFETY: pointer and length are those of the slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0) };
        assert_eq!(sent, packet.len() as isize, "{}", io::Error::last_os_error());
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 4096];
        // SAFETY: pointer and length are those of the buffer.
        let len = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        assert!(len >= 0, "{}", io::Error::last_os_error());
        buffer.truncate(len as usize);
        buffer
    }
}

/// `return bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_DROP)`, assembled by hand so that the rings are
/// tested without the XDP programs, on a link that ends with this value.
struct Redirect {
    _link: OwnedFd,
}

impl Redirect {
    fn attach(interface: &str, sockets: &[&Socket]) -> Self {
        const XSKMAP: u64 = 17;
        const XDP_PROGRAM: u64 = 6;
        const XDP_ATTACHMENT: u64 = 37;
        const DRIVER_MODE: u64 = 1 << 2;
        let map = owned(bpf(0, &[XSKMAP | 4 << 32, 4 | 64 << 32, 0, 0]));
        for (queue, socket) in (0u32..).zip(sockets) {
            let value = socket.fd().unwrap().as_raw_fd() as u32;
            bpf(2, &[map.as_raw_fd() as u64, &raw const queue as u64, &raw const value as u64, 0]);
        }
        let program: [u64; 6] = [
            0x0000_0000_0010_1261,                                  // r2 = ctx->rx_queue_index
            0x0000_0000_0000_1118 | (map.as_raw_fd() as u64) << 32, // r1 = &xsks
            0,
            0x0000_0001_0000_03b7, // r3 = XDP_DROP
            0x0000_0033_0000_0085, // call bpf_redirect_map
            0x0000_0000_0000_0095, // exit
        ];
        let (code, licence) = (program.as_ptr() as u64, c"GPL".as_ptr() as u64);
        let loaded = owned(bpf(5, &[XDP_PROGRAM | (program.len() as u64) << 32, code, licence, 0]));
        let target = loaded.as_raw_fd() as u64 | u64::from(ifindex(interface)) << 32;
        Self { _link: owned(bpf(28, &[target, XDP_ATTACHMENT | DRIVER_MODE << 32, 0, 0])) }
    }
}

fn bpf(command: libc::c_long, attributes: &[u64; 4]) -> libc::c_long {
    // SAFETY: the attributes are as long as said, and the callers keep what they point to alive.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    assert!(answer >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    answer
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: a descriptor that bpf(2) has just made.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
