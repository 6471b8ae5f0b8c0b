//! Real sockets on real (virtual) interfaces, in a network namespace that ends with the test's thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portcullis_esp::MAX_TAIL_LEN;

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
            wait_until(|| first.receive(&mut cache, &mut received, 64) > 0);
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

/// Documentation/networking/af_xdp.rst, "Multi-Buffer Support": what is longer than a chunk comes and goes in several descriptors.
#[test]
fn packets_longer_than_a_frame_come_and_go_in_several_descriptors() {
    in_new_namespace(|| {
        veth("out0", "in0", 1);
        veth("in1", "out1", 1);
        let share = Share { node: None, small: FRAMES, large: 8 };
        let (umem, frames) = Umem::with_shares(&[share], 4096).unwrap();
        let umem = Arc::new(umem);
        let pool = FramePool::new(frames);
        let mut cache = FrameCache::new(pool.clone(), 64);
        let jumbo = |interface| SocketConfig { multi_buffer: true, ..config(interface, 0) };
        let mut first = Socket::bind(&jumbo("in0"), umem.clone(), None).unwrap();
        let mut second = Socket::bind(&jumbo("in1"), umem.clone(), Some(&first)).unwrap();
        assert_eq!(first.max_packet(), max_packet(4096, true));
        let _redirect = Redirect::attach("in0", &[&first]);
        // A program that knows fragments allows this.
        ["out0", "in0", "out1", "in1"].iter().for_each(|i| ip(&["link", "set", i, "mtu", "9000"]));
        second.refill(&mut cache);
        let (source, sink) = (PacketSocket::open("out0"), PacketSocket::open("out1"));
        let lengths = [60, 3807, 3808, 3839, 3840, 3841, 4096, 7679, 7680, 7681, 7936, 7937, 9014];
        for (number, len) in lengths.into_iter().enumerate() {
            first.refill(&mut cache);
            let sent = long_packet(len, number as u32);
            source.send(&sent);
            let mut received = Vec::new();
            wait_until(|| first.receive(&mut cache, &mut received, 64) > 0);
            assert_eq!(received.len(), 1, "{len}");
            let packet = received.remove(0);
            assert_eq!((packet.len, packet.frame.is_large()), (len, len > 4096 - HEADROOM - MAX_TAIL_LEN));
            second.transmit(packet.frame, packet.start, packet.len).unwrap();
            second.flush().unwrap();
            assert_eq!(sink.receive(), sent, "{len}");
            wait_until(|| {
                second.reap(&mut cache);
                pool.large_len() == 8
            });
        }
        assert_eq!(first.take_kernel_drops().unwrap(), KernelDrops::default());
        assert_eq!(second.take_kernel_drops().unwrap(), KernelDrops::default());
    });
}

#[test]
fn a_packet_that_finds_no_large_frame_is_dropped_and_counted() {
    let share = Share { node: None, small: 16, large: 1 };
    let (umem, frames) = Umem::with_shares(&[share], 2048).unwrap();
    let umem = Arc::new(umem);
    let pool = FramePool::new(frames);
    let mut cache = FrameCache::new(pool.clone(), 4);
    let (mut socket, mut far) = Socket::in_memory(umem.clone(), 16).unwrap();
    socket.refill(&mut cache);
    let mut arrive = |pieces: &[(usize, bool)]| {
        for (len, continues) in pieces {
            let address = far.fill.pop().unwrap();
            far.fill.release();
            umem.write(address, HEADROOM, &vec![*len as u8; *len]);
            let (addr, options) = (address + HEADROOM as u64, u32::from(*continues));
            assert!(far.rx.push(Descriptor { addr, len: *len as u32, options }));
        }
        far.rx.submit();
    };
    let mut received = Vec::new();
    arrive(&[(1000, true), (1001, true), (9, false), (77, false), (1000, true), (8, false)]);
    assert_eq!(socket.receive(&mut cache, &mut received, 8), 2);
    assert_eq!((received[0].len, received[1].len), (2010, 77));
    let bytes = &umem.bytes(&received[0].frame)[HEADROOM..HEADROOM + 2010];
    assert_eq!(bytes, [vec![232; 1000], vec![233; 1001], vec![9; 9]].concat());
    assert_eq!(socket.take_kernel_drops().unwrap().rx_dropped, 1);

    // Longer than a large frame, in more pieces than one look at the ring.
    received.drain(..).for_each(|packet| cache.put(packet.frame));
    arrive(&[(1792, true); 4]);
    arrive(&[(1792, true)]);
    assert_eq!(socket.receive(&mut cache, &mut received, 8), 0);
    arrive(&[(1792, true), (5, false), (6, false)]);
    assert_eq!(socket.receive(&mut cache, &mut received, 8), 1);
    assert_eq!((received[0].len, socket.take_kernel_drops().unwrap().rx_dropped), (6, 1));
    received.drain(..).for_each(|packet| cache.put(packet.frame));
    socket.refill(&mut cache);
    assert_eq!(pool.large_len(), 1);
}

/// A large frame is free when all of its descriptors have been reported.
#[test]
fn a_large_frame_is_free_when_its_last_piece_was_sent() {
    let (umem, frames) = Umem::with_shares(&[Share { node: None, small: 1, large: 2 }], 2048).unwrap();
    let umem = Arc::new(umem);
    let pool = FramePool::new(frames);
    let mut cache = FrameCache::new(pool.clone(), 4);
    let (mut socket, mut far) = Socket::in_memory(umem.clone(), 4).unwrap();
    let (long, short) = (cache.take_large().unwrap(), cache.take_large().unwrap());
    socket.transmit(long, 300, 5000).unwrap();
    let refused = socket.transmit(short, 2000, 100).expect_err("two descriptors, and room for one");
    socket.transmit(refused, 4096, 100).unwrap();
    socket.flush().unwrap();
    let sent: Vec<_> = std::iter::from_fn(|| far.tx.pop()).collect();
    let shape: Vec<_> = sent.iter().map(|d| (d.addr % 2048, d.len, d.options)).collect();
    assert_eq!(shape, [(300, 1748, 1), (0, 2048, 1), (0, 1204, 0), (0, 100, 0)]);
    for (number, descriptor) in sent.iter().enumerate() {
        assert_eq!(pool.large_len(), usize::from(number > 2));
        assert!(far.completion.push(descriptor.addr));
        far.completion.submit();
        socket.reap(&mut cache);
    }
    assert_eq!(pool.large_len(), 2);
}

/// Documentation/networking/napi.rst, "Busy polling".
#[test]
fn a_queue_can_be_polled_instead_of_waited_for() {
    in_new_namespace(|| {
        veth("out0", "in0", 1);
        let (umem, frames) = Umem::new(FRAMES, 2048).unwrap();
        let mut cache = FrameCache::new(FramePool::new(frames), 64);
        let mut socket = Socket::bind(&config("in0", 0), Arc::new(umem), None).unwrap();
        assert!(!socket.busy_polls(), "off unless asked for");
        assert_eq!(option(&socket, libc::SO_BUSY_POLL), 0);
        socket.busy_poll(32).unwrap();
        assert!(socket.busy_polls());
        // The other two options cannot be read.
        assert!(option(&socket, libc::SO_BUSY_POLL) > 0);
        let _redirect = Redirect::attach("in0", &[&socket]);
        socket.refill(&mut cache);
        let source = PacketSocket::open("out0");
        (0..100).for_each(|number| source.send(&test_packet(number)));
        let mut received = Vec::new();
        wait_until(|| {
            socket.poll_queue();
            socket.receive(&mut cache, &mut received, 64);
            received.len() == 100
        });
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
            first.receive(&mut cache, &mut on_first, 64);
            second.receive(&mut cache, &mut on_second, 64);
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
        assert_eq!(socket.receive(&mut cache, &mut received, 1000), RING as usize);
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

fn option(socket: &Socket, name: libc::c_int) -> libc::c_int {
    let (mut value, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let fd = socket.fd().unwrap().as_raw_fd();
    // SAFETY: the kernel writes one integer, as the length says.
    let got = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut value).cast(), &mut len) };
    assert_eq!(got, 0, "{}", io::Error::last_os_error());
    value
}

fn config(interface: &str, queue: u32) -> SocketConfig {
    SocketConfig {
        ifindex: ifindex(interface),
        queue,
        ring_size: RING,
        mode: BindMode::Copy,
        multi_buffer: false,
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

/// Longer than a frame; no two octets that lie one chunk apart are equal.
fn long_packet(len: usize, number: u32) -> Vec<u8> {
    let mut packet = test_packet(number);
    packet.resize(len, 0);
    packet.iter_mut().enumerate().skip(18).for_each(|(at, octet)| *octet = (at % 251) as u8);
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
        let mut buffer = vec![0; 16_384];
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
        const HAS_FRAGS: u64 = 1 << 5;
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
        let loaded = owned(bpf(
            5,
            &[XDP_PROGRAM | (program.len() as u64) << 32, code, licence, 0, 0, HAS_FRAGS << 32],
        ));
        let target = loaded.as_raw_fd() as u64 | u64::from(ifindex(interface)) << 32;
        Self { _link: owned(bpf(28, &[target, XDP_ATTACHMENT | DRIVER_MODE << 32, 0, 0])) }
    }
}

fn bpf(command: libc::c_long, attributes: &[u64]) -> libc::c_long {
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
