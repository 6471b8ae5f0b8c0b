//! One flow over several carriers: they lead to several sockets of the receiver.

mod gateway;
mod tunnel;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_common::DropReason;
use portcullis_data_plane::counters::Sink;
use portcullis_data_plane::sa::Carrier;
use socket2::{Domain, Protocol, Socket, Type};

use gateway::{Namespace, PATIENCE, bind, wait_until};
use tunnel::{HOST_A, HOST_B, TUN_ALONE, Tunnel};

/// The receiving worker gets no core while the sender changes carriers, as when a probe of another one is answered. RFC 4303 section 3.4.3: what waits
/// in the fuller socket would be left of the window if a later packet were opened first.
#[test]
fn carriers_do_not_overtake_each_other_while_a_worker_is_late() {
    // More than the replay window of the SAs, which is 1024.
    const MANY: u32 = 1500;
    const FEW: u32 = 10;
    let tunnel = Tunnel::new(TUN_ALONE);
    let sender = tunnel.a.host.run(|| bind(HOST_A));
    let receiver = tunnel.b.host.run(|| bind(HOST_B));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    enlarge_receive_buffer(&receiver);
    let destination = receiver.local_addr().unwrap();
    let sent = || [Sink::Udp, Sink::RawIp].map(|sink| tunnel.a.sent(sink)).into_iter().sum::<u64>();
    let carriers = [(Carrier::Ip, false), (Carrier::Udp, false), (Carrier::Ip, true), (Carrier::Udp, true)];
    // Each has carried something before.
    for (carrier, outer_v6) in carriers {
        tunnel.set_path(carrier, outer_v6);
        tunnel.exchange(HOST_A, HOST_B, 1);
    }

    let held = HeldThread::hold("worker-0", &tunnel.b.gateway);
    let mut number = 0u32;
    for ((carrier, outer_v6), count) in
        carriers.into_iter().zip([MANY, FEW, MANY, FEW]).chain([(carriers[1], MANY), (carriers[0], FEW)])
    {
        tunnel.set_path(carrier, outer_v6);
        for _ in 0..count {
            let before = sent();
            sender.send_to(&number.to_be_bytes(), destination).unwrap();
            number += 1;
            // Paced, so that no queue of the sender is overrun.
            wait_until("the packet has left", || sent() > before);
        }
    }
    held.release();

    let mut buffer = [0; 8];
    for expected in 0..number {
        let len = receiver
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("number {expected}: {error}\n{}", tunnel.b.drops()));
        assert_eq!(buffer[..len], expected.to_be_bytes(), "{}", tunnel.b.drops());
    }
    tunnel.assert_balanced();
    assert_eq!(tunnel.b.plane.report().accounting().dropped(DropReason::Replay), 0);
}

/// Somebody floods protocol 50 until its socket takes no more: what came in UDP waits behind what the socket holds, and for no
/// longer.
#[test]
fn a_full_socket_delays_what_comes_to_another_and_loses_none_of_it() {
    let tunnel = Tunnel::new(TUN_ALONE);
    tunnel.exchange(HOST_A, HOST_B, 1);
    let target = SocketAddr::new(tunnel.b.wan_address(false), 0).into();
    let flood = tunnel.a.gateway.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))).unwrap();
        socket.connect(&target).unwrap();
        socket
    });
    let sender = tunnel.a.host.run(|| bind(HOST_A));
    let receiver = tunnel.b.host.run(|| bind(HOST_B));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();

    let held = HeldThread::hold("worker-0", &tunnel.b.gateway);
    // Of no SA: SPI, number, and what may be an ICV.
    let stray = [[0x7f; 8], [0; 8], [0; 8], [0; 8], [0; 8]].concat();
    while dropped_by_protocol_50(&tunnel.b.gateway) == 0 {
        for _ in 0..1000 {
            // The way out may be full for a moment.
            let _ = flood.send(&stray);
        }
    }
    let before = tunnel.a.sent(Sink::Udp);
    sender.send_to(b"behind the flood", receiver.local_addr().unwrap()).unwrap();
    wait_until("the packet has left", || tunnel.a.sent(Sink::Udp) > before);
    held.release();

    let mut buffer = [0; 32];
    let len = receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}\n{}", tunnel.b.drops()));
    assert_eq!(&buffer[..len], b"behind the flood");
    let accounting = |tunnel: &Tunnel| tunnel.b.plane.report().accounting();
    assert!(accounting(&tunnel).dropped(DropReason::StaleSa) > 1000, "{}", tunnel.b.drops());
    wait_until("what the socket could not take is counted", || {
        accounting(&tunnel).dropped(DropReason::SocketRxDropped) > 0
    });
}

/// What the kernel has dropped at raw sockets of a namespace, because they were full.
fn dropped_by_protocol_50(namespace: &Namespace) -> u64 {
    let sockets = namespace.command("cat", &["/proc/net/raw"]);
    sockets.lines().skip(1).filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
}

/// A thread that stands still in a signal handler; one at a time.
struct HeldThread(
    UnixStream,
    #[expect(dead_code, reason = "held for others to wait")] MutexGuard<'static, ()>,
);

static ONE: Mutex<()> = Mutex::new(());

/// Where the handler says that it has begun, and waits.
static GATE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn stand_still(_: libc::c_int) {
    let gate = GATE.load(Ordering::SeqCst);
    let mut byte = 0u8;
    // SAFETY: both calls are async-signal-safe and have one byte; the descriptor is open until the process ends.
    unsafe {
        libc::write(gate, (&raw const byte).cast(), 1);
        libc::read(gate, (&raw mut byte).cast(), 1);
    }
}

impl HeldThread {
    /// Holds the thread of this name that runs in a namespace.
    fn hold(name: &str, namespace: &Namespace) -> Self {
        let inode = |path: &str| fs::metadata(path).unwrap().ino();
        let wanted = inode(&format!("/run/netns/{}", namespace.name()));
        let threads = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
        let thread = threads
            .filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
            .find(|path| inode(path.join("ns/net").to_str().unwrap()) == wanted)
            .expect("a worker in the namespace");
        let id: libc::pid_t = thread.file_name().unwrap().to_str().unwrap().parse().unwrap();

        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut near, far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        GATE.store(far.into_raw_fd(), Ordering::SeqCst);
        let handler: extern "C" fn(libc::c_int) = stand_still;
        // SAFETY: the handler makes async-signal-safe calls alone.
        let set = unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        assert_ne!(set, libc::SIG_ERR);
        // SAFETY: no memory is passed.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), id, libc::SIGUSR1) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
        near.read_exact(&mut [0]).expect("the thread stands still");
        Self(near, turn)
    }

    fn release(mut self) {
        self.0.write_all(&[0]).unwrap();
    }
}

impl Drop for HeldThread {
    /// Whatever fails: the data plane waits for its threads.
    fn drop(&mut self) {
        let _ = self.0.write_all(&[0]);
    }
}

fn enlarge_receive_buffer(socket: &std::net::UdpSocket) {
    use std::os::fd::AsRawFd;
    let bytes: libc::c_int = 32 << 20;
    let len = size_of_val(&bytes) as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
    // SAFETY: pointer and length describe one integer.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const bytes).cast(), len) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}
