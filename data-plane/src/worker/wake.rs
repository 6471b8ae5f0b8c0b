//! Waking a worker that sleeps in poll(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// An eventfd with a flag in front of it: waking a worker that is awake costs no system call.
pub struct Wake {
    fd: OwnedFd,
    asleep: AtomicBool,
}

impl Wake {
    /// A new one, for a worker that is awake.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, asleep: AtomicBool::new(false) })
    }

    /// The worker is about to sleep. It must look at its queues once more between this call and poll(2):
    /// what was put there before the call may not have woken it.
    pub fn fall_asleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// The worker is awake again.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        let mut count = [0u8; 8];
        // SAFETY: the buffer has the 8 bytes that an eventfd writes; an empty one answers EAGAIN.
        unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// Wakes the worker if it sleeps. What it should find must be in its queue already.
    pub fn wake(&self) {
        // Orders the caller's push before the look at the flag; `fall_asleep` does it the other way round.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the buffer has the 8 bytes that an eventfd reads.
            unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_queue::ArrayQueue;
    use std::sync::Arc;

    #[test]
    fn nothing_that_was_queued_is_slept_over() {
        let (wake, queue) = (Arc::new(Wake::new().unwrap()), Arc::new(ArrayQueue::new(16)));
        let producer = {
            let (wake, queue) = (wake.clone(), queue.clone());
            std::thread::spawn(move || {
                for i in 0..10_000 {
                    while queue.push(i).is_err() {
                        std::thread::yield_now();
                    }
                    wake.wake();
                }
            })
        };
        let mut expected = 0;
        while expected < 10_000 {
            while let Some(i) = queue.pop() {
                assert_eq!(i, expected);
                expected += 1;
            }
            wake.fall_asleep();
            if queue.is_empty() && expected < 10_000 {
                let mut fd = libc::pollfd { fd: wake.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one pollfd, as the count says.
                assert_ne!(unsafe { libc::poll(&mut fd, 1, 10_000) }, 0, "slept over an entry");
            }
            wake.awake();
        }
        producer.join().unwrap();
    }
}
