//! Frames as fast as the kernel makes them: `BPF_PROG_TEST_RUN` with live frames, and a program that sends each out of an
//! interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::gateway::Namespace;
use crate::program::{Program, SEND_BACK};

/// Frames of one system call: some milliseconds.
const REPEAT: u32 = 1 << 14;

/// Sends copies of one frame until it is dropped.
pub struct Flood {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Out of the interface of this index, in that namespace: its other end needs XDP.
    pub fn start(namespace: &Namespace, interface: u32, frame: Vec<u8>) -> Self {
        let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let program = Program::load(&SEND_BACK);
        let (over, count) = (is_over.clone(), sent.clone());
        let send = move || {
            while !over.load(Ordering::Relaxed) {
                match program.run_live(interface, &frame, REPEAT) {
                    Ok(()) => count.fetch_add(u64::from(REPEAT), Ordering::Relaxed),
                    Err(error) if error.raw_os_error() == Some(libc::EINTR) => 0,
                    Err(error) => panic!("live frames: {error}"),
                };
            }
        };
        let thread = namespace.run(|| std::thread::spawn(send));
        Self { is_over, sent, thread: Some(thread) }
    }

    /// Frames so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
