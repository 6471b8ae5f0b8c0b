//! Control plane and workers at the same time, on threads of their own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use super::*;

const ROUNDS: u64 = 1_500;

/// Two workers look up, seal, open and hand over while SAs come and go in a small table, so that slots are
/// reused all the time. Every packet that opens is the one that its own SA sealed.
#[test]
fn slots_are_reused_under_traffic_and_no_packet_meets_the_wrong_sa() {
    let (table, workers) = table(4, 2);
    let (stop, current, opened) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut hand_over: Vec<mpsc::Sender<Packet>> = Vec::new();
    let mut inboxes = Vec::new();
    for _ in &workers {
        let (sender, receiver) = mpsc::channel();
        hand_over.push(sender);
        inboxes.push(receiver);
    }
    thread::scope(|scope| {
        for (worker, inbox) in workers.into_iter().zip(inboxes) {
            let (stop, current, opened, hand_over) = (&stop, &current, &opened, hand_over.clone());
            scope.spawn(move || run(worker, &inbox, &hand_over, stop, current, opened));
        }
        let mut previous: Option<(Spi, OutboundIndex)> = None;
        let mut last_of_slot = [Spi(0); 4];
        for round in 0..ROUNDS {
            let owners = [(round % 2) as u8, (round / 2 % 2) as u8];
            let Some(spi) = retry(|| table.reserve_spi().ok()) else { panic!("round {round}: no SPI") };
            assert_ne!(last_of_slot[spi.index() as usize], spi, "an SPI came twice in a row");
            last_of_slot[spi.index() as usize] = spi;
            table.install_inbound(&inbound(spi, round), owners[0], "in", 0).unwrap();
            let outbound = OutboundSa { spi, ..outbound(round) };
            let index = retry(|| table.install_outbound(&outbound, owners[1], "out", 0).ok()).unwrap();
            current.store(u64::from(spi.0) << 32 | u64::from(index.0), Ordering::Release);
            if let Some((spi, index)) = previous.replace((spi, index)) {
                assert!(table.remove_inbound(spi) && table.remove_outbound(index));
            }
        }
        // The last pair stays until a packet has gone through it.
        assert!(retry(|| (opened.load(Ordering::Acquire) > 0).then_some(())).is_some());
        stop.store(true, Ordering::Release);
    });
    assert_eq!(table.counters().unwrap_failures, 0);
}

/// A sealed packet on its way to the owner of its inbound SA.
struct Packet {
    spi: Spi,
    index: OutboundIndex,
    bytes: Option<Vec<u8>>,
}

fn run(
    mut worker: Worker,
    inbox: &mpsc::Receiver<Packet>,
    hand_over: &[mpsc::Sender<Packet>],
    stop: &AtomicBool,
    current: &AtomicU64,
    opened: &AtomicU64,
) {
    while !stop.load(Ordering::Acquire) {
        worker.begin_batch();
        let word = current.load(Ordering::Acquire);
        let named = Packet { spi: Spi((word >> 32) as u32), index: OutboundIndex(word as u32), bytes: None };
        for mut packet in inbox.try_iter().take(16).chain([named]) {
            if packet.bytes.is_none() {
                let payload = payload(packet.spi, packet.index);
                match worker.outbound(packet.index) {
                    Found::Mine(_) => packet.bytes = seal(&mut worker, packet.index, &payload),
                    Found::Other(owner) => {
                        send(hand_over, owner, packet);
                        continue;
                    }
                    Found::Coming | Found::Unknown => continue,
                }
            }
            let Some(bytes) = &packet.bytes else { panic!("an SA of our own did not seal") };
            match worker.inbound(packet.spi) {
                Found::Mine(_) => {
                    let inner = open(&mut worker, packet.spi, bytes).expect("what its SA sealed");
                    assert_eq!(inner, payload(packet.spi, packet.index));
                    opened.fetch_add(1, Ordering::AcqRel);
                }
                Found::Other(owner) => send(hand_over, owner, packet),
                Found::Coming | Found::Unknown => {}
            }
        }
    }
}

/// A worker that has seen `stop` first takes nothing any more.
fn send(hand_over: &[mpsc::Sender<Packet>], owner: u8, packet: Packet) {
    let _ = hand_over[usize::from(owner)].send(packet);
}

fn payload(spi: Spi, index: OutboundIndex) -> Vec<u8> {
    [spi.0.to_ne_bytes(), index.0.to_ne_bytes()].concat()
}

/// Until it succeeds; the workers free slots as they pass.
fn retry<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..10_000_000 {
        if let Some(value) = attempt() {
            return Some(value);
        }
        thread::yield_now();
    }
    None
}
