//! Message IDs and stored messages of one IKE SA: a window of one exchange in each direction (RFC 7296 sections 2.1 to
//! 2.3).

use core::time::Duration;

use crate::path::IkeTransport;
use crate::time::Time;

/// The wait between retransmissions doubles up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(32);

/// Our requests and the peer's, each with its counter and its last message.
#[derive(Debug, Default)]
pub(crate) struct Window {
    next_request: u32,
    outstanding: Option<Outstanding>,
    expected_request: u32,
    response: Option<(u32, Messages)>,
}

/// A message as it left: one, or its fragments (RFC 7383).
pub(crate) type Messages = Vec<Vec<u8>>;

/// A request that waits for its response.
#[derive(Debug)]
pub(crate) struct Outstanding {
    /// Its Message ID.
    pub(crate) message_id: u32,
    /// Repeated octet by octet (RFC 7296 section 2.1).
    pub(crate) messages: Messages,
    /// When it left first.
    pub(crate) since: Time,
    retransmissions: u8,
    is_repeated: bool,
    retransmit_at: Option<Time>,
    wait: Duration,
}

/// Where a request of the peer belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Incoming {
    /// The next one: process it.
    Fresh,
    /// The one before: send the stored response again.
    Repeated,
    /// Outside the window (RFC 7296 section 2.3): drop it.
    Outside,
}

/// What to do about an unanswered request now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// Send it again; this is the n-th time.
    Retransmit(u8),
}

impl Window {
    /// The Message ID that the next request takes, if none is outstanding.
    pub(crate) fn next_request_id(&self) -> Option<u32> {
        // RFC 7296 section 2.2: Message IDs do not wrap.
        (self.outstanding.is_none() && self.next_request < u32::MAX).then_some(self.next_request)
    }

    /// A request has been sent. Over TCP it is not retransmitted (RFC 9329 section 6.1).
    pub(crate) fn sent(
        &mut self,
        now: Time,
        messages: Messages,
        transport: IkeTransport,
        first_wait: Duration,
    ) {
        self.outstanding = Some(Outstanding {
            message_id: self.next_request,
            messages,
            since: now,
            retransmissions: 0,
            is_repeated: false,
            retransmit_at: (transport == IkeTransport::Udp).then(|| now + first_wait),
            wait: first_wait,
        });
    }

    /// The request that waits.
    pub(crate) fn outstanding(&self) -> Option<&Outstanding> {
        self.outstanding.as_ref()
    }

    /// The request that waits leaves again, on a new stream: its response measures no round trip any more.
    pub(crate) fn repeated(&mut self) {
        if let Some(outstanding) = self.outstanding.as_mut() {
            outstanding.is_repeated = true;
        }
    }

    /// The time from a request that left once to now (RFC 6298 section 3: none if it was repeated).
    pub(crate) fn round_trip(&self, now: Time) -> Option<Duration> {
        let outstanding = self.outstanding.as_ref()?;
        let is_repeated = outstanding.is_repeated || outstanding.retransmissions > 0;
        (!is_repeated).then(|| now.since(outstanding.since))
    }

    /// An authenticated response with this Message ID arrived; true if it answers the outstanding request.
    pub(crate) fn answered(&mut self, message_id: u32) -> bool {
        let is_answer = self.outstanding.as_ref().is_some_and(|o| o.message_id == message_id);
        if is_answer {
            self.outstanding = None;
            self.next_request = self.next_request.wrapping_add(1);
        }
        is_answer
    }

    /// The outstanding request will leave again, changed, under the same Message ID; until then nothing is retransmitted.
    pub(crate) fn withdraw(&mut self) {
        self.outstanding = None;
    }

    /// Where the peer's request with this Message ID belongs.
    pub(crate) fn classify(&self, message_id: u32) -> Incoming {
        if message_id == self.expected_request {
            Incoming::Fresh
        } else if self.response.as_ref().is_some_and(|(id, _)| *id == message_id) {
            Incoming::Repeated
        } else {
            Incoming::Outside
        }
    }

    /// The peer's request with this Message ID was answered with these messages, which are kept until its next one.
    pub(crate) fn responded(&mut self, message_id: u32, messages: Messages) {
        self.expected_request = message_id.wrapping_add(1);
        self.response = Some((message_id, messages));
    }

    /// Octets of stored messages.
    pub(crate) fn kept_bytes(&self) -> usize {
        let response = self.response.iter().flat_map(|(_, messages)| messages);
        let request = self.outstanding.iter().flat_map(|outstanding| &outstanding.messages);
        response.chain(request).map(Vec::len).sum()
    }

    /// The stored response.
    pub(crate) fn stored_response(&self) -> Option<&Messages> {
        self.response.as_ref().map(|(_, messages)| messages)
    }

    /// From `start` to `end` nothing could be answered: that time does not count.
    pub(crate) fn excuse(&mut self, start: Time, end: Time) {
        if let Some(outstanding) = self.outstanding.as_mut() {
            outstanding.since = outstanding.since + end.since(start.max(outstanding.since));
        }
    }

    /// The peer can be reached: a retransmission that was put off comes at once, and the waits start over.
    pub(crate) fn hasten(&mut self, now: Time, first_wait: Duration) {
        if let Some(outstanding) = self.outstanding.as_mut()
            && outstanding.retransmit_at.is_some_and(|at| at > now + first_wait)
        {
            outstanding.retransmit_at = Some(now);
            outstanding.wait = first_wait / 2;
        }
    }

    /// When [`Window::due`] has something to say.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.outstanding.as_ref()?.retransmit_at
    }

    /// Counts a retransmission that is due and plans the next.
    pub(crate) fn due(&mut self, now: Time) -> Due {
        let Some(outstanding) = self.outstanding.as_mut() else { return Due::Nothing };
        if outstanding.retransmit_at.is_none_or(|at| at > now) {
            return Due::Nothing;
        }
        outstanding.retransmissions = outstanding.retransmissions.saturating_add(1);
        outstanding.wait = (outstanding.wait * 2).min(LONGEST_WAIT);
        outstanding.retransmit_at = Some(now + outstanding.wait);
        Due::Retransmit(outstanding.retransmissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// RFC 7296 section 2.1 and 2.4: the intervals grow exponentially.
    #[test]
    fn an_unanswered_request_is_repeated_with_doubling_waits() {
        let mut window = Window::default();
        window.sent(Time::ZERO, vec![vec![1]], IkeTransport::Udp, SECOND);
        let mut at = Vec::new();
        for n in 1..=7 {
            let next = window.next_timeout().unwrap();
            assert_eq!(window.due(Time::ZERO), Due::Nothing);
            assert_eq!(window.due(next), Due::Retransmit(n));
            at.push(next.as_nanos() / 1_000_000_000);
        }
        assert_eq!(at, [1, 3, 7, 15, 31, 63, 95]);
        assert_eq!(window.outstanding().unwrap().messages, [vec![1]]);
    }

    /// RFC 9329 section 6.1.
    #[test]
    fn nothing_is_repeated_over_tcp() {
        let mut window = Window::default();
        window.sent(Time::ZERO, vec![vec![1]], IkeTransport::Tcp, SECOND);
        assert_eq!(window.next_timeout(), None);
    }

    /// RFC 7296 section 2.3: a window of one.
    #[test]
    fn one_request_at_a_time_and_only_its_own_response_ends_it() {
        let mut window = Window::default();
        assert_eq!(window.next_request_id(), Some(0));
        window.sent(Time::ZERO, vec![], IkeTransport::Udp, SECOND);
        assert_eq!(window.next_request_id(), None);
        assert!(!window.answered(1));
        assert!(window.answered(0));
        assert!(!window.answered(0));
        assert_eq!(window.next_request_id(), Some(1));
    }

    /// RFC 7296 section 2.2: Message IDs do not wrap.
    #[test]
    fn the_last_message_id_starts_no_exchange() {
        let mut window = Window { next_request: u32::MAX - 1, ..Window::default() };
        assert_eq!(window.next_request_id(), Some(u32::MAX - 1));
        window.sent(Time::ZERO, vec![], IkeTransport::Udp, SECOND);
        assert!(window.answered(u32::MAX - 1));
        assert_eq!(window.next_request_id(), None);
    }

    #[test]
    fn a_repeated_request_gets_the_stored_response_and_older_ones_nothing() {
        let mut window = Window::default();
        assert_eq!(window.classify(0), Incoming::Fresh);
        window.responded(0, vec![vec![9]]);
        assert_eq!(window.classify(0), Incoming::Repeated);
        assert_eq!(window.stored_response().unwrap(), &[vec![9]]);
        window.responded(1, vec![]);
        assert_eq!(window.classify(0), Incoming::Outside);
        assert_eq!(window.classify(1), Incoming::Repeated);
        assert_eq!(window.classify(2), Incoming::Fresh);
        assert_eq!(window.classify(3), Incoming::Outside);
    }
}
