//! SAs go from busy workers to idle ones.
//!
//! Workers sample which SAs their packets are of; once a second the samples, and the time that workers were busy, become a
//! share of a worker's time for each SA. Where one worker has much to do and another little, the SA goes that brings them
//! closest. What one SA needs alone cannot be divided: several SAs for one policy can (RFC 9611).

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{DataPlane, Inner};
use crate::sa::ChildId;
use crate::worker::load::Direction;
use crate::worker::shared::Shared;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// A worker that is busy for less of its time has room, whatever others do.
const BUSY: f64 = 0.5;
/// Workers whose shares of time differ by less are left alone.
const GAP: f64 = 0.2;
/// A move must take at least so much of a gap away.
const GAIN: f64 = 0.3;
/// SAs moved at one look.
const MOST_AT_ONCE: usize = 16;
/// An SA that has moved stays at least so long.
const REST: Duration = Duration::from_secs(10);

/// A direction of a pair.
type Sa = (ChildId, Direction);

/// A worker's second.
#[derive(Clone, Debug, Default)]
struct Load {
    /// Share of the time that it was busy.
    busy: f64,
    /// The part of it that each SA took.
    sas: Vec<(Sa, f64)>,
}

/// A proposal: the SA, its worker, the worker that has room.
type Proposal = (Sa, usize, usize);

/// What was seen before.
struct Balance {
    looked: Instant,
    workers: Vec<Seen>,
    moved: HashMap<Sa, Instant>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    busy_ns: u64,
    samples: u64,
}

/// Keeps the load spread until the returned sender is dropped.
pub(super) fn keep(inner: &Arc<Inner>) -> io::Result<Sender<()>> {
    let (stop, stopped): (_, Receiver<()>) = channel();
    let inner = Arc::downgrade(inner);
    thread::Builder::new().name("balance".into()).spawn(move || {
        let mut balance = Balance { looked: Instant::now(), workers: Vec::new(), moved: HashMap::new() };
        while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let Some(inner) = inner.upgrade() else { return };
            balance.look(&DataPlane { inner });
        }
    })?;
    Ok(stop)
}

impl Balance {
    fn look(&mut self, plane: &DataPlane) {
        let now = Instant::now();
        let mut loads = self.loads(&plane.inner.shared, now);
        plane.set_busy(loads.iter().map(|load| (load.busy * 10.0) as u8).collect());
        self.moved.retain(|_, moved| now.duration_since(*moved) < REST);
        if plane.inner.is_on_veth() {
            return;
        }
        for load in &mut loads {
            load.sas.retain(|(sa, _)| !self.moved.contains_key(sa));
        }
        for _ in 0..MOST_AT_ONCE {
            let Some((sa, from, to)) = propose(&loads) else { return };
            // One that is being rekeyed, say, is looked at again the next time; nothing else is tried in its place for now.
            let moved = plane.move_sa(sa.0, sa.1, to as u8);
            let share = take(&mut loads, sa, from);
            if let Err(reason) = moved {
                tracing::debug!(child = sa.0.0, direction = ?sa.1, from, to, %reason, "an SA stays where it is");
                continue;
            }
            tracing::info!(
                child = sa.0.0,
                direction = ?sa.1,
                from,
                to,
                percent = (share * 100.0) as u8,
                "an SA goes to a worker that has more time for it"
            );
            self.moved.insert(sa, now);
            if let Some(load) = loads.get_mut(from) {
                load.busy -= share;
            }
            if let Some(load) = loads.get_mut(to) {
                load.busy += share;
            }
        }
    }

    /// What the workers did since the last look.
    fn loads(&mut self, shared: &Shared, now: Instant) -> Vec<Load> {
        let elapsed = now.duration_since(self.looked).as_nanos().max(1) as f64;
        self.looked = now;
        self.workers.resize(shared.workers.len(), Seen::default());
        let seen = self.workers.iter_mut().zip(&shared.workers);
        seen.map(|(seen, worker)| {
            let busy_ns = worker.counters.busy_ns.get();
            let busy = (busy_ns.saturating_sub(seen.busy_ns) as f64 / elapsed).min(1.0);
            seen.busy_ns = busy_ns;
            let mut costs: HashMap<Sa, u64> = HashMap::new();
            for sample in worker.load.since(&mut seen.samples) {
                *costs.entry((sample.child, sample.direction)).or_default() += sample.cost;
            }
            let all = costs.values().sum::<u64>().max(1) as f64;
            let sas = costs.into_iter().map(|(sa, cost)| (sa, busy * cost as f64 / all)).collect();
            Load { busy, sas }
        })
        .collect()
    }
}

/// The SA whose move brings the busiest and the idlest worker closest, if that is worth it.
fn propose(loads: &[Load]) -> Option<Proposal> {
    let by_busy = |one: &(usize, &Load), other: &(usize, &Load)| one.1.busy.total_cmp(&other.1.busy);
    let (from, busiest) = loads.iter().enumerate().max_by(by_busy)?;
    let (to, idlest) = loads.iter().enumerate().min_by(by_busy)?;
    let gap = busiest.busy - idlest.busy;
    if busiest.busy < BUSY || gap < GAP {
        return None;
    }
    let left = |share: f64| (gap - 2.0 * share).abs();
    let (sa, share) = busiest.sas.iter().min_by(|one, other| left(one.1).total_cmp(&left(other.1)))?;
    (left(*share) <= gap * (1.0 - GAIN)).then_some((*sa, from, to))
}

/// Takes an SA off the list of its worker and returns its share.
fn take(loads: &mut [Load], sa: Sa, worker: usize) -> f64 {
    let Some(load) = loads.get_mut(worker) else { return 0.0 };
    let Some(at) = load.sas.iter().position(|(other, _)| *other == sa) else { return 0.0 };
    load.sas.swap_remove(at).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sa_goes_that_leaves_workers_closest() {
        let loads = [load(&[(1, 0.3), (2, 0.2), (3, 0.1)]), load(&[(4, 0.1)])];
        // The gap is half of the time: 0.3 leaves 0.1 of it, and so does 0.2, the other way round.
        let (sa, from, to) = propose(&loads).unwrap();
        assert!(sa == sa_of(1) || sa == sa_of(2), "{sa:?}");
        assert_eq!((from, to), (0, 1));
        let loads = [load(&[(1, 0.7), (2, 0.2), (3, 0.02)]), load(&[])];
        assert_eq!(propose(&loads), Some((sa_of(1), 0, 1)));
    }

    #[test]
    fn what_one_sa_needs_alone_stays() {
        assert_eq!(propose(&[load(&[(1, 0.9)]), load(&[])]), None);
        assert_eq!(
            propose(&[load(&[(1, 0.9), (2, 0.05)]), load(&[])]),
            None,
            "the small one helps too little"
        );
    }

    #[test]
    fn workers_with_time_to_spare_are_left_alone() {
        assert_eq!(propose(&[load(&[(1, 0.2), (2, 0.2)]), load(&[])]), None, "nobody is busy");
        assert_eq!(propose(&[load(&[(1, 0.4), (2, 0.2)]), load(&[(3, 0.45)])]), None, "all are");
        assert_eq!(propose(&[]), None);
    }

    /// However the shares are: moves end, and each of them helps.
    #[test]
    fn moves_come_to_an_end() {
        for seed in 1..200_u64 {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f64 / (1 << 24) as f64
            };
            let mut loads: Vec<Load> = (0..4)
                .map(|worker| {
                    let shares: Vec<_> = (0..5).map(|number| (worker * 5 + number, next() * 0.2)).collect();
                    load(&shares)
                })
                .collect();
            let spread = |loads: &[Load]| {
                let busy = loads.iter().map(|load| load.busy);
                busy.clone().fold(0.0, f64::max) - busy.fold(1.0, f64::min)
            };
            let before = spread(&loads);
            let mut moves = 0;
            while let Some((sa, from, to)) = propose(&loads) {
                let share = take(&mut loads, sa, from);
                loads[from].busy -= share;
                loads[to].busy += share;
                loads[to].sas.push((sa, share));
                moves += 1;
                assert!(moves < 50, "seed {seed}");
            }
            assert!(spread(&loads) <= before + 1e-9, "seed {seed}");
        }
    }

    fn load(shares: &[(u64, f64)]) -> Load {
        let sas: Vec<_> = shares.iter().map(|(child, share)| (sa_of(*child), *share)).collect();
        Load { busy: shares.iter().map(|(_, share)| share).sum(), sas }
    }

    fn sa_of(child: u64) -> Sa {
        (ChildId(child), Direction::Outbound)
    }
}
