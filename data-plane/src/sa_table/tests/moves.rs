//! SAs that go from one worker to another.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;

/// One value, one sequence of numbers (RFC 4303 section 3.3.3): what the old owner seals last is followed by what the new
/// one seals first, and nobody is without the SA or beside another with it.
#[test]
fn an_outbound_sa_moves_between_two_packets() {
    let (table, mut workers) = table(8, 2);
    let (spi, index) = install_pair(&table, [0, 0], 1);
    begin(&mut workers);
    let first = seal(&mut workers[0], index, b"1").unwrap();
    let name = SaName::Outbound(index);
    assert_eq!(table.move_sa(name, 1), Ok(0));
    assert_eq!(table.outbound_owner(index), Some(1), "packets go there");

    assert!(matches!(workers[1].outbound(index), Found::Coming), "in the middle of a batch");
    let second = seal(&mut workers[0], index, b"2").unwrap();
    workers[0].begin_batch();
    let leaving = workers[0].next_leaving().unwrap();
    assert_eq!((leaving.name, leaving.to), (name, 1));
    assert!(!workers[0].others_know(&leaving), "worker 1 may have a packet for worker 0 in hand");
    begin(&mut workers);
    assert!(workers[0].others_know(&leaving));
    let third = seal(&mut workers[0], index, b"3").unwrap();
    let sa = workers[0].give_up(&leaving).unwrap();
    assert!(matches!(workers[0].outbound(index), Found::Other(1)), "before the other has it");
    workers[1].begin_batch();
    assert!(matches!(workers[1].outbound(index), Found::Coming));
    workers[0].send_off(&leaving, sa);

    assert!(
        matches!(workers[1].outbound(index), Found::Coming),
        "what waited goes first, at the next boundary"
    );
    assert_eq!(workers[1].next_settled(), None);
    workers[1].begin_batch();
    assert_eq!(workers[1].next_settled(), Some(name));
    let fourth = seal(&mut workers[1], index, b"4").unwrap();
    for (number, packet) in (1..).zip([first, second, third, fourth]) {
        assert_eq!(packet[4..8], u32::to_be_bytes(number));
        assert_eq!(open(&mut workers[0], spi, &packet).unwrap(), number.to_string().as_bytes());
    }
    assert_eq!(table.outbound_usage(index).unwrap().packets, 4);
}

/// RFC 4303 section 3.4.3: the window goes with its SA.
#[test]
fn an_inbound_sa_moves_with_its_window() {
    let (table, mut workers) = table(8, 3);
    let (spi, index) = install_pair(&table, [1, 0], 1);
    begin(&mut workers);
    let packets: Vec<_> = (0..3).map(|_| seal(&mut workers[0], index, b"inner").unwrap()).collect();
    assert!(open(&mut workers[1], spi, &packets[1]).is_some());
    complete(&table, &mut workers, SaName::Inbound(spi), 2);
    assert!(open(&mut workers[2], spi, &packets[1]).is_none(), "a replay, whoever opened it before");
    assert!(
        open(&mut workers[2], spi, &packets[0]).is_some()
            && open(&mut workers[2], spi, &packets[2]).is_some()
    );
    complete(&table, &mut workers, SaName::Inbound(spi), 1);
    assert!(open(&mut workers[1], spi, &packets[0]).is_none());
    let usage = table.inbound_usage(spi).unwrap();
    assert_eq!((usage.packets, usage.replays), (3, 2));
}

#[test]
fn an_sa_that_cannot_move_says_why() {
    let (table, mut workers) = table(8, 2);
    let (spi, index) = install_pair(&table, [0, 0], 1);
    let reserved = table.reserve_spi().unwrap();
    begin(&mut workers);
    let (inbound, outbound) = (SaName::Inbound(spi), SaName::Outbound(index));
    assert_eq!(table.move_sa(inbound, 2), Err(MoveRefused::NoSuchWorker(2)));
    assert_eq!(table.move_sa(inbound, 0), Err(MoveRefused::There(0)));
    assert_eq!(table.move_sa(SaName::Inbound(reserved), 1), Err(MoveRefused::Unknown));
    assert_eq!(table.move_sa(outbound, 1), Ok(0));
    assert_eq!(table.move_sa(outbound, 0), Err(MoveRefused::OnItsWay));
    assert_eq!((table.mover(outbound), table.mover(inbound)), (Some(0), None));
    assert!(table.remove_outbound(index));
    assert_eq!(table.move_sa(outbound, 0), Err(MoveRefused::Unknown));
}

/// However far the move is: the SA is gone at once, what waited for it is told, and its slot is used again only when neither
/// worker can have it.
#[test]
fn an_sa_that_is_removed_on_its_way_is_gone() {
    for stage in 0..4 {
        let (table, mut workers) = table(1, 2);
        let (spi, _) = install_pair(&table, [0, 0], 1);
        let name = SaName::Inbound(spi);
        begin(&mut workers);
        table.move_sa(name, 1).unwrap();
        if stage >= 1 {
            assert!(matches!(workers[1].inbound(spi), Found::Coming));
            begin(&mut workers);
        }
        let leaving = if stage >= 2 { workers[0].next_leaving() } else { None };
        if stage >= 3 {
            begin(&mut workers);
            give_away(&mut workers[0], &leaving.unwrap());
        }
        assert!(table.remove_inbound(spi), "stage {stage}");
        assert_eq!(table.mover(name), None);
        assert!(table.reserve_spi().is_err(), "stage {stage}: both may have it");
        workers[1].begin_batch();
        assert!(table.reserve_spi().is_err(), "stage {stage}: worker 0 has it, or gave it away a moment ago");
        begin(&mut workers);
        while workers[1].next_settled().is_some() {}
        assert!(matches!(workers[0].inbound(spi), Found::Unknown), "stage {stage}");
        assert!(matches!(workers[1].inbound(spi), Found::Unknown), "stage {stage}");
        if let Some(leaving) = leaving.or_else(|| workers[0].next_leaving()) {
            assert!(workers[0].give_up(&leaving).is_none(), "stage {stage}");
        }
        let next = table.reserve_spi().unwrap();
        assert_eq!(next.index(), spi.index(), "stage {stage}");
        assert_eq!(workers[1].each_inbound().count() + workers[0].each_inbound().count(), 0, "stage {stage}");
    }
}

#[test]
fn a_worker_with_an_sa_to_give_or_to_settle_does_not_sleep() {
    let (table, mut workers) = table(8, 2);
    let (spi, _) = install_pair(&table, [0, 0], 1);
    begin(&mut workers);
    table.move_sa(SaName::Inbound(spi), 1).unwrap();
    assert!(!workers[0].park(), "it has one to give");
    let leaving = workers[0].next_leaving().unwrap();
    assert!(workers[1].park(), "packets will wake it");
    begin(&mut workers);
    give_away(&mut workers[0], &leaving);
    assert!(!workers[1].park(), "packets may wait for it");
    assert_eq!(workers[1].next_settled(), Some(SaName::Inbound(spi)));
    assert!(workers[1].park());
}

/// Workers seal as fast as they can while the SA goes round among them: no number is used twice and none is left out.
#[test]
fn no_number_is_used_twice_while_an_sa_goes_round() {
    const PACKETS: u64 = 200_000;
    let (table, workers) = table(4, 3);
    let (_, index) = install_pair(&table, [0, 0], 1);
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let numbers = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let (stop, count) = (&stop, &count);
                scope.spawn(move || seal_what_it_can(worker, index, stop, count))
            })
            .collect();
        let mut moves = 0;
        for to in (0..3_u8).cycle() {
            if count.load(Ordering::Relaxed) >= PACKETS && moves > 100 {
                break;
            }
            if table.move_sa(SaName::Outbound(index), to).is_ok() {
                moves += 1;
            }
            thread::yield_now();
        }
        stop.store(true, Ordering::Release);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut sorted = numbers;
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(1..=sorted.len() as u64), "{} packets", sorted.len());
}

fn seal_what_it_can(
    mut worker: Worker,
    index: OutboundIndex,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> Vec<u64> {
    let (mut numbers, mut departures) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Acquire) {
        worker.begin_batch();
        while worker.next_settled().is_some() {}
        departures.extend(std::iter::from_fn(|| worker.next_leaving()));
        departures.retain(|leaving| {
            let is_due = worker.others_know(leaving);
            if is_due {
                give_away(&mut worker, leaving);
            }
            !is_due
        });
        for _ in 0..16 {
            if let Found::Mine(sa) = worker.outbound(index) {
                let mut buffer = [0; HEAD_LEN + 8 + MAX_TAIL_LEN];
                let sealed = sa.esp.seal(&mut buffer, HEAD_LEN..HEAD_LEN + 8, NextHeader::IPV4, 0).unwrap();
                numbers.push(sealed.sequence);
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    numbers
}

/// Two batch boundaries of every worker: one at which it learns, one that shows that it has.
fn begin(workers: &mut [Worker]) {
    for _ in 0..2 {
        workers.iter_mut().for_each(Worker::begin_batch);
    }
}

fn complete(table: &Table, workers: &mut [Worker], name: SaName, to: u8) {
    let from = usize::from(table.move_sa(name, to).unwrap());
    begin(workers);
    let leaving = workers[from].next_leaving().unwrap();
    assert!(workers[from].others_know(&leaving));
    give_away(&mut workers[from], &leaving);
    begin(workers);
    assert_eq!(workers[usize::from(to)].next_settled(), Some(name));
}

fn give_away(worker: &mut Worker, leaving: &Leaving) {
    let sa = worker.give_up(leaving).unwrap();
    worker.send_off(leaving, sa);
}
