//! Three network namespaces in a row, as real as the kernel makes them: a protected host, a gateway, and what lies
//! beyond its WAN interface. Plain routes to the inner networks are everywhere, so that a leak arrives.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long something that must happen may take; reached only by a failing test.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const HOST: &str = "10.1.0.5";
pub const GATEWAY_LAN: &str = "10.1.0.1";
pub const GATEWAY_WAN: &str = "198.51.100.1";
pub const FAR_WAN: &str = "198.51.100.2";
pub const FAR_INNER: &str = "10.2.0.7";
pub const HOST_V6: &str = "fd01::5";
pub const GATEWAY_LAN_V6: &str = "fd01::1";
pub const FAR_WAN_V6: &str = "2001:db8::2";
pub const FAR_INNER_V6: &str = "fd02::7";

/// The namespaces; gone when dropped.
pub struct Gateway {
    pub host: Namespace,
    pub gateway: Namespace,
    pub far: Namespace,
}

/// A named network namespace.
pub struct Namespace(String);

impl Gateway {
    pub fn new() -> Self {
        let this = Self { host: Namespace::new(), gateway: Namespace::new(), far: Namespace::new() };
        this.gateway.veth("lan0", &this.host, "eth0");
        this.gateway.veth("wan0", &this.far, "eth0");
        for (name, value) in [("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")] {
            this.gateway.sysctl(name, value);
        }
        this.host.ip(&["addr", "add", "10.1.0.5/24", "dev", "eth0"]);
        this.host.ip(&["addr", "add", "fd01::5/64", "dev", "eth0", "nodad"]);
        this.gateway.ip(&["addr", "add", "10.1.0.1/24", "dev", "lan0"]);
        this.gateway.ip(&["addr", "add", "fd01::1/64", "dev", "lan0", "nodad"]);
        this.gateway.ip(&["addr", "add", "198.51.100.1/24", "dev", "wan0"]);
        this.gateway.ip(&["addr", "add", "2001:db8::1/64", "dev", "wan0", "nodad"]);
        this.far.ip(&["addr", "add", "198.51.100.2/24", "dev", "eth0"]);
        this.far.ip(&["addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad"]);
        this.far.ip(&["addr", "add", "10.2.0.7/32", "dev", "lo"]);
        this.far.ip(&["addr", "add", "fd02::7/128", "dev", "lo", "nodad"]);
        this.host.ip(&["route", "add", "default", "via", "10.1.0.1"]);
        this.host.ip(&["route", "add", "default", "via", "fd01::1"]);
        this.gateway.ip(&["route", "add", "10.2.0.0/16", "via", FAR_WAN]);
        this.gateway.ip(&["route", "add", "fd02::/16", "via", FAR_WAN_V6]);
        this.far.ip(&["route", "add", "10.1.0.0/16", "via", GATEWAY_WAN]);
        this.far.ip(&["route", "add", "fd01::/16", "via", "2001:db8::1"]);
        this
    }
}

/// Whether a datagram sent from one namespace arrives in another. A second one that nothing stops follows it on
/// the same path, so that "not arrived" is known without waiting.
pub fn arrives(from: (&Namespace, &str), to: (&Namespace, &str), marker: (&str, &str)) -> bool {
    let receiver = to.0.run(|| UdpSocket::bind("[::]:0").unwrap());
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let (sender, marker_sender) = from.0.run(|| (bind(from.1), bind(marker.0)));
    let sent = sender.send_to(b"inner", (address(to.1), port));
    if let Err(error) = sent {
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}");
        return false;
    }
    marker_sender.send_to(b"marker", (address(marker.1), port)).unwrap();
    let mut buffer = [0; 16];
    let (len, _) = receiver.recv_from(&mut buffer).expect("the marker arrives");
    if &buffer[..len] == b"marker" {
        return false;
    }
    let (len, _) = receiver.recv_from(&mut buffer).expect("the marker arrives");
    assert_eq!(&buffer[..len], b"marker");
    true
}

/// What protected traffic can do at the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaks {
    /// From the protected host to the far network.
    pub forwarded_out: bool,
    /// From the far network to the protected host.
    pub forwarded_in: bool,
    /// From the gateway's own protected address.
    pub own_out: bool,
    /// To the gateway's own protected address.
    pub own_in: bool,
}

impl Leaks {
    pub const ALL: Self = Self { forwarded_out: true, forwarded_in: true, own_out: true, own_in: true };
    pub const NONE: Self = Self { forwarded_out: false, forwarded_in: false, own_out: false, own_in: false };
}

/// Tries every direction with real packets.
pub fn leaks(net: &Gateway) -> Leaks {
    Leaks {
        forwarded_out: arrives((&net.host, HOST), (&net.far, FAR_INNER), (HOST, FAR_WAN)),
        forwarded_in: arrives((&net.far, FAR_INNER), (&net.host, HOST), (FAR_WAN, HOST)),
        own_out: arrives((&net.gateway, GATEWAY_LAN), (&net.far, FAR_INNER), (GATEWAY_WAN, FAR_WAN)),
        own_in: arrives((&net.far, FAR_INNER), (&net.gateway, GATEWAY_LAN), (FAR_WAN, GATEWAY_LAN)),
    }
}

/// The same over IPv6.
pub fn leaks_v6(net: &Gateway) -> Leaks {
    Leaks {
        forwarded_out: arrives((&net.host, HOST_V6), (&net.far, FAR_INNER_V6), (HOST_V6, FAR_WAN_V6)),
        forwarded_in: arrives((&net.far, FAR_INNER_V6), (&net.host, HOST_V6), (FAR_WAN_V6, HOST_V6)),
        own_out: arrives(
            (&net.gateway, GATEWAY_LAN_V6),
            (&net.far, FAR_INNER_V6),
            ("2001:db8::1", FAR_WAN_V6),
        ),
        own_in: arrives(
            (&net.far, FAR_INNER_V6),
            (&net.gateway, GATEWAY_LAN_V6),
            (FAR_WAN_V6, GATEWAY_LAN_V6),
        ),
    }
}

pub fn bind(text: &str) -> UdpSocket {
    UdpSocket::bind(SocketAddr::new(address(text), 0)).unwrap()
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Polls a condition of the kernel that has no notification of its own.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::yield_now();
    }
}

impl Namespace {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let this = Self(format!("guardtest-{}-{number}", std::process::id()));
        checked(Command::new("ip").args(["netns", "add", &this.0]));
        // Before any interface: neither router solicitations nor duplicate address detection disturb a count.
        this.sysctl("net.ipv6.conf.default.accept_ra", "0");
        // Multicast reports are repeated within this many milliseconds, and not a second later in the middle of a count.
        this.sysctl("net.ipv6.conf.default.mldv2_unsolicited_report_interval", "1");
        this.sysctl("net.ipv6.conf.default.accept_dad", "0");
        this.ip(&["link", "set", "lo", "up"]);
        this
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip` inside; it must succeed.
    pub fn ip(&self, arguments: &[&str]) -> String {
        checked(Command::new("ip").args(["-n", &self.0]).args(arguments))
    }

    /// Runs any command inside; it must succeed.
    pub fn command(&self, program: &str, arguments: &[&str]) -> String {
        checked(Command::new("ip").args(["netns", "exec", &self.0, program]).args(arguments))
    }

    pub fn sysctl(&self, name: &str, value: &str) {
        self.command("sysctl", &["-qw", &format!("{name}={value}")]);
    }

    /// A pair of interfaces, one end in each namespace, both up.
    pub fn veth(&self, name: &str, peer: &Namespace, peer_name: &str) {
        let peer_end = ["peer", "name", peer_name, "netns", &peer.0];
        self.ip(&[&["link", "add", name, "type", "veth"], &peer_end[..]].concat());
        self.ip(&["link", "set", name, "up"]);
        peer.ip(&["link", "set", peer_name, "up"]);
    }

    /// Runs `body` on a thread inside; threads that it starts stay inside.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.0).unwrap();
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn enter(name: &str) -> io::Result<()> {
    let file = File::open(format!("/run/netns/{name}"))?;
    // SAFETY: no pointers are passed, and the descriptor is open.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn checked(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
