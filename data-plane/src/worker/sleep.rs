//! Sleeping until there is something to do.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use super::Worker;
use super::shared::Shared;
use crate::config::Idle;

/// How long a worker sleeps when nothing wakes it: held packets expire and kernel drops are read meanwhile.
const NAP: Duration = Duration::from_millis(100);
/// How long while sent packets have not left yet.
const NAP_WHILE_SENDING: Duration = Duration::from_millis(1);

impl Worker {
    /// What to do when a round found nothing.
    pub(super) fn wait(&mut self, shared: &Shared) {
        match shared.settings.idle {
            Idle::Sleep => self.sleep(shared),
            // Whoever shares the core goes first; nobody does on a core of its own.
            Idle::Spin | Idle::BusyPoll { .. } => std::thread::yield_now(),
        }
    }

    /// Sleeps until a packet, an order or a handed-over packet arrives, or some time has passed.
    fn sleep(&mut self, shared: &Shared) {
        let Some(mailbox) = shared.workers.get(usize::from(self.id)) else { return };
        mailbox.wake.fall_asleep();
        let queues_empty = mailbox.work.is_empty()
            && mailbox.from_streams.is_empty()
            && mailbox.commands.is_empty()
            && !self.moves.are_pending()
            && !self.from_sockets.are_waiting()
            && self.sas.park();
        if queues_empty && !shared.is_stopping() {
            let sending = self.ports.iter().any(|p| p.dirty);
            self.poll(
                shared,
                mailbox.wake.as_fd().as_raw_fd(),
                if sending { NAP_WHILE_SENDING } else { NAP },
            );
        }
        mailbox.wake.awake();
    }

    fn poll(&mut self, shared: &Shared, wake: RawFd, nap: Duration) {
        let readable = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = vec![readable(wake)];
        fds.extend(self.ports.iter().filter_map(|p| p.socket.fd()).map(|fd| readable(fd.as_raw_fd())));
        fds.extend(shared.kernel.fds(self.id).into_iter().map(readable));
        let milliseconds = nap.as_millis() as libc::c_int;
        // SAFETY: pointer and count describe the vector; a failed poll is a short nap.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) };
        // An error queue that nobody empties would end every nap.
        self.path_errors.pending |= fds.iter().any(|fd| fd.revents & libc::POLLERR != 0);
    }
}
