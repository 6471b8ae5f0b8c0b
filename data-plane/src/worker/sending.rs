//! Whether ESP of a path leaves this host, and what the control plane knows of it (transport policy rule 5).

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::event::LocalFailure;

/// Between two reports about one path.
const INTERVAL: Duration = Duration::from_secs(1);
/// Errno of [`LocalFailure::Refused`] in the code of a failure.
const REFUSED: u32 = 1 << 16;

/// What became of a packet on its way out of this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// It left, or waits in a ring whose link is there.
    Left,
    /// The kernel took it and looks for the neighbour: whether that is there is not known yet.
    Unresolved,
    /// It did not leave.
    Failed(LocalFailure),
    /// It did not leave, and that says nothing about the next: too long, or too many at once.
    Dropped,
}

/// What was last reported of a path. Written by the owners of its SAs and by who reads ICMP errors; on the way of a packet
/// one load while nothing changes.
#[derive(Debug, Default)]
pub struct Sending {
    reported: AtomicU32,
    /// When, in nanoseconds of the workers' clock; 0 is never.
    reported_ns: AtomicU64,
    doubted_ns: AtomicU64,
}

impl Sending {
    /// Notes what became of a packet. If that is news, and the last report is a second ago, calls `report`; if that had
    /// no room, the next packet is news again.
    #[inline]
    pub fn note(
        &self,
        departure: Departure,
        now: Duration,
        report: impl FnOnce(Option<LocalFailure>) -> bool,
    ) {
        let reported = self.reported.load(Ordering::Relaxed);
        let failure = match departure {
            // The kernel takes packets for a dead neighbour as well, and asks for it again and again.
            Departure::Unresolved if reported == code(LocalFailure::NoNeighbour) => return,
            Departure::Left | Departure::Unresolved => None,
            Departure::Failed(failure) => Some(failure),
            Departure::Dropped => return,
        };
        let code = failure.map_or(0, code);
        if code != reported {
            self.changed(reported, code, now, || report(failure));
        }
    }

    /// True if an ICMP error about the path is worth a report now: at most one a second.
    pub fn is_doubt_due(&self, now: Duration) -> bool {
        let last = self.doubted_ns.load(Ordering::Relaxed);
        let is_due = is_due(last, now);
        if is_due {
            self.doubted_ns.store(nanoseconds(now), Ordering::Relaxed);
        }
        is_due
    }

    #[cold]
    fn changed(&self, from: u32, to: u32, now: Duration, report: impl FnOnce() -> bool) {
        let last = self.reported_ns.load(Ordering::Relaxed);
        let swap = |from, to| self.reported.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        // Another worker may be reporting its own packet.
        if !is_due(last, now) || swap(from, to).is_err() {
            return;
        }
        if report() {
            self.reported_ns.store(nanoseconds(now), Ordering::Relaxed);
        } else {
            let _ = swap(to, from);
        }
    }
}

impl Departure {
    /// What an error of the kernel's says when it was given a packet.
    pub fn of(error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        Self::Failed(match errno {
            // A length is a packet's own; a full buffer empties.
            libc::EMSGSIZE | libc::EAGAIN | 0 => return Self::Dropped,
            libc::ENETUNREACH | libc::EHOSTUNREACH => LocalFailure::NoRoute,
            libc::ENETDOWN | libc::ENODEV | libc::ENXIO => LocalFailure::LinkDown,
            libc::EPERM | libc::EACCES => LocalFailure::NotPermitted,
            libc::ENOBUFS | libc::ENOMEM => LocalFailure::NoBuffer,
            errno => LocalFailure::Refused { errno },
        })
    }
}

fn is_due(last_ns: u64, now: Duration) -> bool {
    last_ns == 0 || nanoseconds(now).saturating_sub(last_ns) >= INTERVAL.as_nanos() as u64
}

fn nanoseconds(now: Duration) -> u64 {
    (now.as_nanos() as u64).max(1)
}

const fn code(failure: LocalFailure) -> u32 {
    match failure {
        LocalFailure::NoRoute => 1,
        LocalFailure::NoNeighbour => 2,
        LocalFailure::LinkDown => 3,
        LocalFailure::NotPermitted => 4,
        LocalFailure::NoBuffer => 5,
        LocalFailure::Refused { errno } => REFUSED | errno as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Departure = Departure::Failed(LocalFailure::NoRoute);

    /// Transport policy rule 5: local errors are told apart from silence, on changes only.
    #[test]
    fn changes_are_reported_once_and_at_most_one_a_second() {
        let sending = Sending::default();
        let note = |departure, ms| {
            let mut told = None;
            sending.note(departure, Duration::from_millis(ms), |failure| {
                told = Some(failure);
                true
            });
            told
        };
        assert_eq!(note(Departure::Left, 0), None, "as it should be");
        assert_eq!(note(FAILED, 1), Some(Some(LocalFailure::NoRoute)));
        assert_eq!(note(FAILED, 2), None, "known");
        assert_eq!(note(Departure::Left, 1000), None, "too soon");
        assert_eq!(note(Departure::Left, 1001), Some(None));
        assert_eq!(note(Departure::Dropped, 3000), None, "overload is no failure");
        assert_eq!(note(Departure::Failed(LocalFailure::LinkDown), 3000), Some(Some(LocalFailure::LinkDown)));
        assert_eq!(note(FAILED, 4001), Some(Some(LocalFailure::NoRoute)), "another cause");
    }

    #[test]
    fn a_dead_neighbour_stays_dead_until_it_is_found() {
        let sending = Sending::default();
        let mut reports = Vec::new();
        for (second, departure) in [
            Departure::Unresolved,
            Departure::Failed(LocalFailure::NoNeighbour),
            Departure::Unresolved,
            Departure::Left,
            Departure::Unresolved,
        ]
        .into_iter()
        .enumerate()
        {
            sending.note(departure, Duration::from_secs(2 * second as u64), |failure| {
                reports.push((second, failure));
                true
            });
        }
        assert_eq!(reports, [(1, Some(LocalFailure::NoNeighbour)), (3, None)]);
    }

    #[test]
    fn a_report_that_found_no_room_is_made_with_the_next_packet() {
        let sending = Sending::default();
        let mut count = 0;
        for has_room in [false, false, true, true] {
            sending.note(FAILED, Duration::from_millis(1), |_| {
                count += 1;
                has_room
            });
        }
        assert_eq!(count, 3);
    }

    #[test]
    fn doubt_is_reported_once_a_second() {
        let sending = Sending::default();
        let due = [1, 2, 1000, 1001, 1002, 2001].map(|ms| sending.is_doubt_due(Duration::from_millis(ms)));
        assert_eq!(due, [true, false, false, true, false, true]);
    }

    #[test]
    fn errors_about_one_packet_are_no_failure_of_the_path() {
        let of = |errno| Departure::of(&io::Error::from_raw_os_error(errno));
        assert_eq!([libc::EMSGSIZE, libc::EAGAIN].map(of), [Departure::Dropped; 2]);
        assert_eq!(of(libc::EPERM), Departure::Failed(LocalFailure::NotPermitted));
        assert_eq!(of(libc::ENETUNREACH), FAILED);
        assert_eq!(of(libc::ENETDOWN), Departure::Failed(LocalFailure::LinkDown));
        assert_eq!(of(libc::EINVAL), Departure::Failed(LocalFailure::Refused { errno: libc::EINVAL }));
        let refused = of(libc::EINVAL);
        assert!(matches!(refused, Departure::Failed(f) if f.to_string().contains("Invalid argument")));
    }
}
