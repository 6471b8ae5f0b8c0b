//! The table and its workers together: packets through it, reuse, reclamation, races.

mod moves;
mod races;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_common::{Spi, SteerWord};
use portcullis_esp::{Algorithm, HEAD_LEN, MAX_TAIL_LEN, NextHeader};
use zeroize::Zeroizing;

use super::*;
use crate::policy::{PolicyKey, Selector};
use crate::sa::{ChildId, InboundSa, Lifetime, OutboundSa, PathId, SaCommon, SaKey, SaSelectors};

type Table = SaTable<&'static str, &'static str>;
type Worker = WorkerSas<&'static str, &'static str>;

#[test]
fn a_packet_sealed_by_one_worker_opens_at_another() {
    let (table, mut workers) = table(8, 2);
    let (spi, index) = install_pair(&table, [0, 1], 1);
    let packet = seal(&mut workers[1], index, b"inner packet").unwrap();
    assert_eq!(open(&mut workers[0], spi, &packet).as_deref(), Some(&b"inner packet"[..]));
    assert_eq!(open(&mut workers[0], spi, &packet), None, "a replay");

    let inbound = table.inbound_usage(spi).unwrap();
    assert_eq!((inbound.packets, inbound.bytes, inbound.sequence, inbound.replays), (1, 12, 1, 1));
    assert_eq!(inbound.last_ns, 2_000);
    let outbound = table.outbound_usage(index).unwrap();
    assert_eq!((outbound.packets, outbound.bytes, outbound.sequence), (1, 12, 1));
}

#[test]
fn a_worker_is_told_who_owns_an_sa_that_is_not_its_own() {
    let (table, mut workers) = table(8, 2);
    let (spi, index) = install_pair(&table, [1, 0], 1);
    assert!(matches!(workers[0].inbound(spi), Found::Other(1)));
    assert!(matches!(workers[1].inbound(spi), Found::Mine(sa) if sa.extra == "in"));
    assert!(matches!(workers[1].outbound(index), Found::Other(0)));
    assert!(matches!(workers[0].outbound(index), Found::Mine(sa) if sa.info.child == ChildId(1)));
    assert_eq!((table.inbound_owner(spi), table.outbound_owner(index)), (Some(1), Some(0)));
}

#[test]
fn an_sa_is_found_at_once_even_in_the_middle_of_a_batch() {
    let (table, mut workers) = table(8, 1);
    workers[0].begin_batch();
    let (spi, index) = install_pair(&table, [0, 0], 1);
    assert!(matches!(workers[0].inbound(spi), Found::Mine(_)));
    assert!(matches!(workers[0].outbound(index), Found::Mine(_)));
}

#[test]
fn only_the_whole_spi_of_a_live_sa_is_known() {
    let (table, mut workers) = table(8, 1);
    let reserved = table.reserve_spi().unwrap();
    let (spi, index) = install_pair(&table, [0, 0], 1);
    let unknown = [reserved, Spi(spi.0 ^ 1 << 20), Spi(spi.index()), Spi(u32::MAX), Spi(7 | 1 << 20)];
    for spi in unknown {
        assert!(matches!(workers[0].inbound(spi), Found::Unknown), "{spi}");
    }
    for index in [OutboundIndex(index.0 ^ 1 << 20), OutboundIndex::NONE, OutboundIndex(u32::MAX)] {
        assert!(matches!(workers[0].outbound(index), Found::Unknown), "{index:?}");
    }
}

#[test]
fn a_removed_slot_is_reused_only_after_its_owner_and_every_busy_worker_passed() {
    let (table, mut workers) = table(1, 3);
    let (spi, index) = install_pair(&table, [0, 0], 1);
    workers.iter_mut().for_each(Worker::begin_batch);
    assert!(table.remove_inbound(spi) && table.remove_outbound(index));
    assert!(!table.remove_inbound(spi) && !table.remove_outbound(index), "once");
    assert_eq!(table.counters().waiting, 2);

    assert!(table.reserve_spi().is_err());
    workers[0].begin_batch();
    assert!(table.reserve_spi().is_err(), "workers 1 and 2 may still have the packets in hand");
    workers[1].begin_batch();
    assert!(table.reserve_spi().is_err());
    assert!(workers[2].park(), "a sleeping worker has nothing in hand");
    let next = table.reserve_spi().unwrap();
    assert_eq!(next.index(), spi.index());
    assert_ne!(next, spi);
    assert_eq!((table.counters().waiting, table.counters().full), (0, 3));
    assert!(matches!(workers[0].inbound(spi), Found::Unknown));
    assert!(matches!(workers[0].outbound(index), Found::Unknown));
}

#[test]
fn an_owner_that_sleeps_keeps_its_slot() {
    let (table, mut workers) = table(1, 1);
    let (spi, _) = install_pair(&table, [0, 0], 1);
    assert!(workers[0].park());
    assert!(table.remove_inbound(spi));
    assert!(table.reserve_spi().is_err(), "the expanded key is still in the worker's hands");
    workers[0].begin_batch();
    assert!(table.reserve_spi().is_ok());
}

#[test]
fn the_next_sa_of_a_slot_starts_from_nothing() {
    let (table, mut workers) = table(1, 1);
    let (spi, index) = install_pair(&table, [0, 0], 1);
    let packet = seal(&mut workers[0], index, b"first").unwrap();
    open(&mut workers[0], spi, &packet).unwrap();
    assert!(table.remove_inbound(spi) && table.remove_outbound(index));
    workers[0].begin_batch();

    let (spi, index) = install_pair(&table, [0, 0], 2);
    let fresh = (table.inbound_usage(spi).unwrap(), table.outbound_usage(index).unwrap());
    assert_eq!((fresh.0.sequence, fresh.0.packets, fresh.1.sequence), (0, 0, 0));
    let packet = seal(&mut workers[0], index, b"second").unwrap();
    assert_eq!(open(&mut workers[0], spi, &packet).as_deref(), Some(&b"second"[..]), "window is clean");
}

#[test]
fn an_install_that_cannot_be_says_why_and_leaves_the_spi_reserved() {
    let (table, _workers) = table(2, 1);
    let spi = table.reserve_spi().unwrap();
    let sa = inbound(spi, 1);
    let install = |sa: &InboundSa, owner| table.install_inbound(sa, owner, "in", 0);
    assert_eq!(install(&sa, 1), Err(InstallError::NoSuchWorker(1)));
    let window = InboundSa { replay_window: Some(65537), ..sa.clone() };
    assert!(matches!(install(&window, 0), Err(InstallError::Window(_))));
    let mut short = sa.clone();
    short.common.key = SaKey(Zeroizing::new(vec![1; 35]));
    assert_eq!(install(&short, 0), Err(InstallError::KeyLength));
    let other = InboundSa { spi: Spi(spi.0 ^ 1 << 20), ..sa.clone() };
    assert_eq!(install(&other, 0), Err(InstallError::NotReserved(other.spi)));
    assert_eq!(install(&sa, 0), Ok(()));
    assert_eq!(install(&sa, 0), Err(InstallError::NotReserved(spi)), "live already");

    for _ in 0..2 {
        table.install_outbound(&outbound(2), 0, "out", 0).unwrap();
    }
    let full = table.install_outbound(&outbound(2), 0, "out", 0);
    assert_eq!(full, Err(InstallError::Full(TableFull { slots: 2 })));
    assert_eq!(table.counters().full, 1);
}

#[test]
fn a_released_spi_is_not_given_out_again_at_once() {
    let (table, _workers) = table(1, 1);
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        let spi = table.reserve_spi().unwrap();
        assert!(seen.insert(spi));
        assert!(table.release_spi(spi) && !table.release_spi(spi));
    }
}

/// Tables of an earlier process lie in maps that outlive it.
#[test]
fn a_start_over_old_maps_finds_them_wiped() {
    let steer = memory::memfd(c"test-steer", libc::MFD_CLOEXEC).unwrap();
    let keys = memory::memfd(c"test-keys", libc::MFD_CLOEXEC).unwrap();
    let [steer_file, keys_file] = [&steer, &keys].map(|file| std::fs::File::from(file.try_clone().unwrap()));
    let spi = Spi(0x0050_0003);
    let old = SteerWord::new(spi, 0, portcullis_common::steer::SlotState::Live, 1).0.to_ne_bytes();
    std::os::unix::fs::FileExt::write_all_at(&steer_file, &[old; 8].concat(), 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&keys_file, &[0xaa; 2 * 8 * 64], 0).unwrap();

    let config = TableConfig { slots: 8, workers: 1 };
    let (_table, mut workers) = create::<(), ()>(config, Backing::Maps { steer, keys }).unwrap();
    assert!(matches!(workers[0].inbound(spi), Found::Unknown));
    for (file, len) in [(steer_file, 64), (keys_file, 1024)] {
        let mut bytes = vec![1; len];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn no_key_is_in_the_maps_and_none_of_it_after_the_sa_is_gone() {
    let steer = memory::memfd(c"test-steer", libc::MFD_CLOEXEC).unwrap();
    let keys = memory::memfd(c"test-keys", libc::MFD_CLOEXEC).unwrap();
    let files = [&steer, &keys].map(|file| std::fs::File::from(file.try_clone().unwrap()));
    files[0].set_len(8 * 8).unwrap();
    files[1].set_len(2 * 8 * 64).unwrap();
    let config = TableConfig { slots: 8, workers: 1 };
    let (table, mut workers) = create(config, Backing::Maps { steer, keys }).unwrap();
    let (spi, index) = install_pair(&table, [0, 0], 1);
    let packet = seal(&mut workers[0], index, b"works").unwrap();
    open(&mut workers[0], spi, &packet).unwrap();

    let dump = || -> Vec<u8> {
        let mut bytes = vec![0; 2 * 8 * 64];
        std::os::unix::fs::FileExt::read_exact_at(&files[1], &mut bytes, 0).unwrap();
        bytes
    };
    let key = keymat(1);
    for part in key.windows(4) {
        assert!(!dump().windows(4).any(|window| window == part));
    }
    assert!(dump().iter().any(|byte| *byte != 0));
    assert!(table.remove_inbound(spi) && table.remove_outbound(index));
    workers[0].begin_batch();
    table.reclaim();
    assert!(dump().iter().all(|byte| *byte == 0));
}

#[test]
fn a_changed_key_slot_is_not_used() {
    let steer = memory::memfd(c"test-steer", libc::MFD_CLOEXEC).unwrap();
    let keys = memory::memfd(c"test-keys", libc::MFD_CLOEXEC).unwrap();
    let files = [&steer, &keys].map(|file| std::fs::File::from(file.try_clone().unwrap()));
    files[0].set_len(8).unwrap();
    files[1].set_len(128).unwrap();
    let config = TableConfig { slots: 1, workers: 1 };
    let (table, mut workers) = create(config, Backing::Maps { steer, keys }).unwrap();
    let (spi, _) = install_pair(&table, [0, 0], 1);
    std::os::unix::fs::FileExt::write_all_at(&files[1], &[0; 1], 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&files[1], &[1; 1], 21).unwrap();
    assert!(matches!(workers[0].inbound(spi), Found::Unknown));
    assert_eq!(table.counters().unwrap_failures, 1);
}

#[test]
fn more_installs_than_one_batch_takes_are_all_taken() {
    let (table, mut workers) = table(1000, 1);
    let pairs: Vec<_> = (0..1000).map(|n| install_pair(&table, [0, 0], n)).collect();
    assert!(!workers[0].park(), "not all were taken");
    while !workers[0].park() {}
    assert_eq!((workers[0].each_inbound().count(), workers[0].each_outbound().count()), (1000, 1000));
    for (spi, index) in pairs {
        assert!(table.remove_inbound(spi) && table.remove_outbound(index));
    }
    while !workers[0].park() {}
    table.reclaim();
    assert_eq!(workers[0].each_inbound().count() + workers[0].each_outbound().count(), 0);
    let counters = table.counters();
    assert_eq!((counters.inbound_used, counters.outbound_used, counters.waiting), (0, 0, 0));
}

/// Issue: at most 10 KiB for an IKE SA with one Child SA; the table's share of it.
#[test]
fn a_pair_of_sas_stays_below_three_kibibytes() {
    let owned = size_of::<OwnedInbound<[u64; 16]>>() + size_of::<OwnedOutbound<[u64; 16]>>();
    let shared = 2 * (64 + 64 + 8) + 512;
    let books = 2 * size_of::<usize>() + 2 * size_of::<arena::WindowBits>();
    assert!(owned + shared + books <= 3 << 10, "{owned} + {shared} + {books}");
}

fn table(slots: u32, workers: u8) -> (Table, Vec<Worker>) {
    create(TableConfig { slots, workers }, Backing::Memory).unwrap()
}

/// An inbound and an outbound SA with one key, so that one opens what the other seals.
fn install_pair(table: &Table, [inbound_owner, outbound_owner]: [u8; 2], child: u64) -> (Spi, OutboundIndex) {
    let spi = table.reserve_spi().unwrap();
    table.install_inbound(&inbound(spi, child), inbound_owner, "in", 1_000).unwrap();
    let outbound = OutboundSa { spi, ..outbound(child) };
    (spi, table.install_outbound(&outbound, outbound_owner, "out", 1_000).unwrap())
}

fn seal(worker: &mut Worker, index: OutboundIndex, payload: &[u8]) -> Option<Vec<u8>> {
    let Found::Mine(sa) = worker.outbound(index) else { return None };
    let mut buffer = vec![0; HEAD_LEN + payload.len() + MAX_TAIL_LEN];
    let inner = HEAD_LEN..HEAD_LEN + payload.len();
    buffer[inner.clone()].copy_from_slice(payload);
    let sealed = sa.esp.seal(&mut buffer, inner, NextHeader::IPV4, 2_000).ok()?;
    Some(buffer[sealed.packet].to_vec())
}

fn open(worker: &mut Worker, spi: Spi, packet: &[u8]) -> Option<Vec<u8>> {
    let Found::Mine(sa) = worker.inbound(spi) else { return None };
    let mut buffer = packet.to_vec();
    let opened = sa.esp.open(&mut buffer, 0..packet.len(), 2_000).ok()?;
    Some(buffer[opened.inner].to_vec())
}

fn inbound(spi: Spi, child: u64) -> InboundSa {
    InboundSa { common: common(child), spi, replay_window: Some(4096) }
}

fn outbound(child: u64) -> OutboundSa {
    OutboundSa { common: common(child), spi: Spi(0x1234_5678) }
}

fn common(child: u64) -> SaCommon {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED)..=IpAddr::V4(Ipv4Addr::BROADCAST);
    let selector: Arc<[Selector]> = [Selector { addresses: any, protocol: None, ports: 0..=u16::MAX }].into();
    SaCommon {
        child: ChildId(child),
        path: PathId(1),
        policy: PolicyKey { connection: "west".into(), child: "net".into() },
        algorithm: Algorithm::Aes256Gcm16,
        key: SaKey(Zeroizing::new(keymat(child).to_vec())),
        resource: 0,
        esn: true,
        selectors: SaSelectors { local: Arc::clone(&selector), remote: selector },
        lifetime: Lifetime {
            soft_bytes: u64::MAX,
            hard_bytes: u64::MAX,
            soft_packets: u64::MAX,
            hard_packets: u64::MAX,
            hard_time: Duration::from_secs(3600),
        },
    }
}

fn keymat(child: u64) -> [u8; 36] {
    core::array::from_fn(|n| (n as u8 + 1).wrapping_mul(7) ^ child as u8)
}
