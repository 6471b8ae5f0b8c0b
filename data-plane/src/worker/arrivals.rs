//! What several sockets brought, in the order in which it arrived.
//!
//! ESP of one SA comes to whichever socket its carrier leads to, and its carrier changes: probes go by another, and so does
//! everything once they are answered. Behind sockets that are read in turn, what came to the emptier one overtakes what waits in the fuller one,
//! and a replay window (RFC 4303 section 3.4.3) drops what it leaves behind.

use std::time::Duration;

/// Errors read from one socket before the others get their turn: whoever makes them come may make very many.
const ERRORS_AT_ONCE: usize = 64;

/// What a socket gave.
#[derive(Debug)]
pub(super) enum Read<M> {
    /// A message, and when it arrived by the wall clock of the kernel; without that it counts as the first of all.
    Message(M, Option<Duration>),
    /// An error about something else: there may be more.
    Retry,
    /// There is no more now.
    Empty,
}

/// Sockets by number, each with at most one message that was read and waits for its turn.
#[derive(Debug)]
pub(super) struct Arrivals<M> {
    places: Box<[Place<M>]>,
    began: Duration,
}

impl<M> Default for Arrivals<M> {
    fn default() -> Self {
        Self { places: Box::default(), began: Duration::ZERO }
    }
}

#[derive(Debug)]
struct Place<M> {
    waiting: Option<Waiting<M>>,
    /// The socket had no more in this round.
    is_empty: bool,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct Waiting<M> {
    message: M,
    arrived: Duration,
    /// It was read in an earlier round, and all other sockets were looked at since.
    is_old: bool,
}

impl<M> Arrivals<M> {
    /// So many sockets, with room for `bytes` of each.
    pub(super) fn new(sockets: usize, bytes: usize) -> Self {
        let place = || Place { waiting: None, is_empty: false, buffer: vec![0; bytes].into() };
        Self { places: std::iter::repeat_with(place).take(sockets).collect(), began: Duration::ZERO }
    }

    /// Begins a round: at this time of the wall clock, and before any socket is read in it.
    pub(super) fn begin(&mut self, now: Duration) {
        self.began = now;
        for place in &mut self.places {
            place.is_empty = false;
            if let Some(waiting) = &mut place.waiting {
                waiting.is_old = true;
            }
        }
    }

    /// The message that arrived first of all that sockets hold and its bytes' buffer, or `None` if what is left arrived after the round began: a socket
    /// that was empty may have got something earlier.
    pub(super) fn next(
        &mut self,
        mut read: impl FnMut(usize, &mut [u8]) -> Read<M>,
    ) -> Option<(M, &mut [u8])> {
        for (number, place) in self.places.iter_mut().enumerate() {
            let mut errors = 0;
            while place.waiting.is_none() && !place.is_empty {
                match read(number, &mut place.buffer) {
                    Read::Message(message, arrived) => {
                        let arrived = arrived.unwrap_or_default();
                        place.waiting = Some(Waiting { message, arrived, is_old: false });
                    }
                    Read::Retry if errors < ERRORS_AT_ONCE => errors += 1,
                    Read::Retry | Read::Empty => place.is_empty = true,
                }
            }
        }
        let arrived = |place: &&mut Place<M>| place.waiting.as_ref().map_or(Duration::MAX, |w| w.arrived);
        let first = self.places.iter_mut().min_by_key(arrived)?;
        let is_due = |waiting: &mut Waiting<M>| waiting.is_old || waiting.arrived <= self.began;
        let waiting = first.waiting.take_if(is_due)?;
        Some((waiting.message, &mut first.buffer))
    }

    /// True if something was read and has not had its turn.
    pub(super) fn are_waiting(&self) -> bool {
        self.places.iter().any(|place| place.waiting.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Sockets whose messages are named by when they arrived; what is there at `now` can be read.
    struct Sockets {
        queues: Vec<VecDeque<u64>>,
        now: u64,
    }

    impl Sockets {
        fn new(queues: &[&[u64]]) -> Self {
            Self { queues: queues.iter().map(|q| q.iter().copied().collect()).collect(), now: 0 }
        }

        fn read(&mut self, number: usize) -> Read<u64> {
            let now = self.now;
            match self.queues[number].pop_front_if(|arrived| *arrived <= now) {
                Some(arrived) => Read::Message(arrived, Some(Duration::from_nanos(arrived))),
                None => Read::Empty,
            }
        }

        /// One round at `now`, in which `later` is the time at each read.
        fn round(
            &mut self,
            arrivals: &mut Arrivals<u64>,
            now: u64,
            mut later: impl FnMut() -> u64,
        ) -> Vec<u64> {
            self.now = now;
            arrivals.begin(Duration::from_nanos(now));
            let mut order = Vec::new();
            while let Some((message, _)) = arrivals.next(|number, _| {
                self.now = self.now.max(later());
                self.read(number)
            }) {
                order.push(message);
            }
            order
        }
    }

    #[test]
    fn a_short_queue_does_not_overtake_a_long_one() {
        let mut sockets = Sockets::new(&[&[5000], &(0..5000).collect::<Vec<_>>()]);
        let mut arrivals = Arrivals::new(2, 0);
        let order = sockets.round(&mut arrivals, 6000, || 0);
        assert_eq!(order, (0..=5000).collect::<Vec<_>>());
        assert!(!arrivals.are_waiting());
    }

    /// The first socket is found empty; then a message comes to it, and after that one to the second, which is read.
    #[test]
    fn what_came_while_sockets_were_read_waits_until_all_were_looked_at() {
        let mut sockets = Sockets::new(&[&[11], &[12]]);
        let mut arrivals = Arrivals::new(2, 0);
        let mut times = [10, 12].into_iter();
        assert_eq!(sockets.round(&mut arrivals, 10, || times.next().unwrap_or(12)), [0; 0]);
        assert!(arrivals.are_waiting());
        assert_eq!(sockets.round(&mut arrivals, 13, || 13), [11, 12]);
    }

    /// The wall clock goes back by an hour: nothing waits for ever.
    #[test]
    fn a_clock_that_goes_back_delays_by_a_round() {
        let mut sockets = Sockets::new(&[&[4000, 4001], &[4002]]);
        let mut arrivals = Arrivals::new(2, 0);
        assert_eq!(sockets.round(&mut arrivals, 400, || 5000), [0; 0]);
        assert_eq!(sockets.round(&mut arrivals, 400, || 5000), [4000]);
        assert_eq!(sockets.round(&mut arrivals, 400, || 5000), [4001, 4002]);
    }

    #[test]
    fn without_a_time_sockets_take_turns_and_errors_are_read_over() {
        let mut script = [Read::Retry, Read::Message('a', None), Read::Retry, Read::Empty].into_iter();
        let mut arrivals = Arrivals::new(1, 4);
        arrivals.begin(Duration::ZERO);
        let (message, buffer) = arrivals.next(|_, _| script.next().unwrap()).unwrap();
        assert_eq!((message, buffer.len()), ('a', 4));
        assert!(arrivals.next(|_, _| script.next().unwrap()).is_none());
    }

    #[test]
    fn errors_without_end_are_left_for_the_next_round() {
        let mut arrivals = Arrivals::new(2, 0);
        for _ in 0..2 {
            arrivals.begin(Duration::ZERO);
            let mut reads = 0;
            let message = arrivals.next(|number, _| {
                reads += 1;
                if number == 0 { Read::Retry } else { Read::Message('a', None) }
            });
            assert_eq!((message.unwrap().0, reads), ('a', ERRORS_AT_ONCE + 2));
        }
    }

    proptest! {
        /// Whatever came when, to whichever socket, and however the time goes on between two reads: order of arrival.
        #[test]
        fn order_is_that_of_arrival(
            sockets in prop::collection::vec(0usize..4, 1..200),
            steps in prop::collection::vec(0u64..8, 1..40),
        ) {
            let mut queues = vec![Vec::new(); 4];
            for (arrived, socket) in sockets.iter().enumerate() {
                queues[*socket].push(arrived as u64 + 1);
            }
            let queues: Vec<_> = queues.iter().map(Vec::as_slice).collect();
            let mut world = Sockets::new(&queues);
            let mut arrivals = Arrivals::new(4, 0);
            let mut steps = steps.iter().cycle();
            let (mut order, mut now) = (Vec::new(), 0);
            while order.len() < sockets.len() {
                now = world.now.max(now) + 1;
                let mut clock = now;
                order.extend(world.round(&mut arrivals, now, || {
                    clock += steps.next().unwrap();
                    clock
                }));
            }
            prop_assert_eq!(order, (1..=sockets.len() as u64).collect::<Vec<_>>());
        }
    }
}
