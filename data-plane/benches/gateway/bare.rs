//! The limit: the same rings, and a loop that does nothing but give each packet to the other side, and sleeps as a worker does.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_data_plane::bpf::{
    InterfacePlan, LanClasses, Steering, XdpInstance, XdpInterface, find_object, release,
};
use portcullis_data_plane::config::{OpeningLimits, Role};
use portcullis_data_plane::xsk::{BindMode, FrameCache, FramePool, Received, Socket, SocketConfig, Umem};

use crate::frames::{ethernet, index, inner, mac};
use crate::gateway::Namespace;
use crate::generator::Flood;
use crate::paced::{Passage, pass};
use crate::program::{Attached, Program};
use crate::stamps::Stamps;
use crate::tunnel::{HOST_A, HOST_B, policies, veth};
use crate::{MEASURED, WARM_UP};

const RING: u32 = 4096;
const FRAMES: u32 = 4 * RING;
const BATCH: usize = 64;
/// How long the loop sleeps when nothing arrives, in milliseconds.
const NAP: libc::c_int = 100;
/// And while what was sent has not left yet.
const NAP_WHILE_SENDING: libc::c_int = 1;

pub struct Bare {
    gateway: Namespace,
    /// One on either side.
    hosts: [Namespace; 2],
    stamps: Stamps,
    sender: Program,
    _receiving: [Attached; 2],
    ends: std::sync::Mutex<Ends>,
    instance: String,
    _programs: Vec<XdpInterface>,
    _maps: XdpInstance,
}

struct Ends {
    sockets: [Socket; 2],
    cache: FrameCache,
}

impl Bare {
    pub fn new() -> Self {
        let gateway = Namespace::new();
        let hosts = [Namespace::new(), Namespace::new()];
        let names = ["left0", "right0"];
        for (name, host) in names.iter().zip(&hosts) {
            veth((&gateway, name), (host, "eth0"), 1);
        }
        let stamps = Stamps::new();
        let receiving =
            hosts.each_ref().map(|host| host.run(|| stamps.receiver().attach(index(host, "eth0"))));
        let instance = format!("bare-{}", std::process::id());
        let (ends, programs, maps) = gateway.run(|| open(&instance, names));
        Self {
            gateway,
            hosts,
            sender: stamps.sender(),
            stamps,
            _receiving: receiving,
            ends: std::sync::Mutex::new(ends),
            instance,
            _programs: programs,
            _maps: maps,
        }
    }

    /// Packets that leave in a second, of an inner packet's length.
    pub fn measure(&self, both: bool, len: usize) -> f64 {
        let flood = |side: usize| {
            Flood::start(&self.hosts[side], index(&self.hosts[side], "eth0"), self.frame(side, len))
        };
        let _left = flood(0);
        let _right = both.then(|| flood(1));
        self.while_forwarding(|sent| {
            std::thread::sleep(WARM_UP);
            let (start, before) = (Instant::now(), sent.load(Ordering::Relaxed));
            std::thread::sleep(MEASURED);
            (sent.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
        })
    }

    /// What becomes of packets that come with a pause between them.
    pub fn pass(&self, len: usize, packets_per_second: f64) -> Passage {
        let (host, frame) = (&self.hosts[0], self.frame(0, len));
        let way = (host, index(host, "eth0"));
        self.while_forwarding(|_| {
            pass(way, &frame, &self.sender, &self.stamps, frame.len(), packets_per_second)
        })
    }

    fn frame(&self, side: usize, len: usize) -> Vec<u8> {
        let (to, source, destination) =
            if side == 0 { ("left0", HOST_A, HOST_B) } else { ("right0", HOST_B, HOST_A) };
        ethernet(&mac(&self.gateway, to), &inner(source, destination, len))
    }

    fn while_forwarding<T>(&self, body: impl FnOnce(&AtomicU64) -> T) -> T {
        let (is_over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| self.ends.lock().unwrap().forward(&is_over, &sent));
            let _over = Over(&is_over);
            body(&sent)
        })
    }
}

/// Ends the loop, after a panic too.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = release(&self.instance);
    }
}

impl Ends {
    fn forward(&mut self, is_over: &AtomicBool, sent: &AtomicU64) {
        let mut received: Vec<Received> = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let mut worked = 0;
            for from in 0..2 {
                self.sockets[from].receive(&mut self.cache, &mut received, BATCH);
                self.sockets[from].refill(&mut self.cache);
                let other = &mut self.sockets[1 - from];
                let count = received.len() as u64;
                for packet in received.drain(..) {
                    if let Err(frame) = other.transmit(packet.frame, packet.start, packet.len) {
                        self.cache.put(frame);
                    }
                }
                if count > 0 {
                    let _ = other.flush();
                    sent.fetch_add(count, Ordering::Relaxed);
                }
                other.reap(&mut self.cache);
                worked += count;
            }
            if worked == 0 {
                self.sleep();
            }
        }
    }

    fn sleep(&mut self) {
        let is_sending = self.sockets.iter_mut().any(|socket| socket.pending_transmits() > 0);
        let mut fds = self.sockets.each_ref().map(|socket| libc::pollfd {
            fd: socket.fd().unwrap().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
        let nap = if is_sending { NAP_WHILE_SENDING } else { NAP };
        // SAFETY: pointer and count describe the array.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, nap) };
    }
}

fn open(instance: &str, names: [&str; 2]) -> (Ends, Vec<XdpInterface>, XdpInstance) {
    let object = find_object(None).unwrap();
    let mut maps = XdpInstance::open(instance, &object, 64, &OpeningLimits::default()).unwrap();
    let (umem, frames) = Umem::new(FRAMES, 4096).unwrap();
    let umem = Arc::new(umem);
    let mut cache = FrameCache::new(FramePool::new(frames), 512);
    let (mut sockets, mut programs) = (Vec::<Socket>::new(), Vec::new());
    for name in names {
        let plan = InterfacePlan {
            name: name.into(),
            role: Role::Lan,
            steering: Steering::Redirect,
            protected: true,
        };
        let mut program = maps.load(&plan).unwrap();
        program.attach(true).unwrap();
        let config = SocketConfig {
            ifindex: program.index(),
            queue: 0,
            ring_size: RING,
            mode: BindMode::Copy,
            multi_buffer: false,
            busy_retry: Duration::from_secs(5),
        };
        let mut socket = Socket::bind(&config, umem.clone(), sockets.first()).unwrap();
        program.set_socket(0, &socket.fd().unwrap()).unwrap();
        socket.refill(&mut cache);
        sockets.push(socket);
        programs.push(program);
    }
    // Both sides' networks are a worker's to decide on.
    let mut set = policies(1);
    set.policies.extend(policies(2).policies);
    maps.shared().unwrap().set_lan_classes(LanClasses::new(&set)).unwrap();
    let sockets = sockets.try_into().unwrap_or_else(|_| panic!("two sockets"));
    (Ends { sockets, cache }, programs, maps)
}
