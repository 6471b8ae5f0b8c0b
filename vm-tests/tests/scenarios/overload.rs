//! More than the kernel's queues before a worker hold: every packet is in the books, lost ones under the name of the
//! queue. The worker stands still while they are filled, so that nothing depends on how fast anybody is.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use nix::sys::signal::Signal;
use portcullis_vm_tests::{DataPlaneMode, Gateway, Namespace, Pair, Side, until};

use crate::{SOON, up, wait_answered};

/// Well below every ring on the way.
const BURST: u64 = 64;

#[test]
fn what_finds_the_queue_of_the_tun_full_is_counted() {
    let pair = up(DataPlaneMode::Tun);
    wait_answered(&pair.lab);
    let name = tun_of(&pair.lab.gw_a);
    pair.a.process().unwrap().freeze().unwrap();
    let sent = fill(&pair, 20_000, 100, || ip_count(&pair.lab.gw_a, "ForwDatagrams"));
    pair.a.signal(Signal::SIGCONT).unwrap();
    let (read, dropped) = until(SOON, || {
        // What the kernel says has been read from it, and what it had no room for; it sends packets of its own, too.
        let at_tun = tun_packets(&pair.lab.gw_a, &name);
        let books = Books::of(&pair.a, "tun", "tun_queue_full");
        (books.received == at_tun.0 + at_tun.1 && books.dropped == at_tun.1 && books.received >= sent)
            .then_some(at_tun)
    })
    .expect("every packet that the kernel routed into the TUN is in the books");
    assert!(dropped > 0 && read > 0, "{read} read, {dropped} dropped");
    pair.drained(Side::A).unwrap();
    wait_answered(&pair.lab);
}

#[test]
fn what_finds_the_buffer_of_an_esp_socket_full_is_counted() {
    let pair = up(DataPlaneMode::Tun);
    wait_answered(&pair.lab);
    let sent_before = sent_esp(&pair.a);
    pair.b.process().unwrap().freeze().unwrap();
    fill(&pair, 20_000, 1200, || ip_count(&pair.lab.gw_b, "InReceives"));
    pair.b.signal(Signal::SIGCONT).unwrap();
    let books = until(SOON, || {
        let books = Books::of(&pair.b, "ip_socket", "socket_rx_dropped");
        (books.received == sent_esp(&pair.a)).then_some(books)
    })
    .expect("every packet that reached the socket is in the books");
    assert!(books.dropped > 0, "the buffer was full");
    assert!(books.received >= sent_before + 20_000);
    pair.drained(Side::A).unwrap();
    pair.drained(Side::B).unwrap();
    wait_answered(&pair.lab);
}

struct Books {
    received: u64,
    dropped: u64,
}

impl Books {
    fn of(gateway: &Gateway, source: &str, reason: &str) -> Self {
        let metrics = gateway.metrics().unwrap();
        let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).unwrap() as u64;
        Self {
            received: sum("portcullis_worker_received_packets_total", &[("source", source)]),
            dropped: sum("portcullis_drops_total", &[("reason", reason), ("path", "worker")]),
        }
    }
}

/// Sends datagrams from host-a to host-b, each burst when the one before has been `counted` before the queue; how many.
fn fill(pair: &Pair, packets: u64, bytes: usize, counted: impl Fn() -> u64) -> u64 {
    let before = counted();
    let (from, to) = (IpAddr::from(Side::A.host().0), IpAddr::from(Side::B.host().0));
    let sender = pair.lab.host_a.enter(|| UdpSocket::bind((from, 0))).unwrap();
    let payload = vec![0; bytes];
    let mut sent = 0;
    while sent < packets {
        for _ in 0..BURST {
            sender.send_to(&payload, (to, 9)).unwrap();
        }
        sent += BURST;
        until(SOON, || (counted() >= before + sent).then_some(()))
            .unwrap_or_else(|| panic!("{} of {sent} arrived", counted() - before));
    }
    sent
}

fn tun_of(gateway: &Namespace) -> String {
    let devices = gateway.ip(&["-o", "link", "show", "type", "tun"]).unwrap();
    devices.split(": ").nth(1).expect("the gateway has a TUN").to_owned()
}

/// Packets that were read from the TUN, and those that it had no room for.
fn tun_packets(gateway: &Namespace, name: &str) -> (u64, u64) {
    let text = read(gateway, "/proc/thread-self/net/dev");
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}:"))).unwrap();
    let field = |index: usize| line.split_whitespace().nth(index).unwrap().parse::<u64>().unwrap();
    (field(9), field(11))
}

/// ESP packets that a gateway has sent over IP.
fn sent_esp(gateway: &Gateway) -> u64 {
    let sent = [("sink", "ip_socket")];
    gateway.metrics().unwrap().sum("portcullis_worker_sent_packets_total", &sent).unwrap() as u64
}

/// A counter of the kernel's IPv4: packets forwarded, or received at all.
fn ip_count(gateway: &Namespace, name: &str) -> u64 {
    let text = read(gateway, "/proc/thread-self/net/snmp");
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let index = names.split_whitespace().position(|found| found == name).unwrap();
    values.split_whitespace().nth(index).unwrap().parse().unwrap()
}

fn read(namespace: &Namespace, path: &str) -> String {
    namespace.enter(|| std::fs::read_to_string(Path::new(path))).unwrap()
}
