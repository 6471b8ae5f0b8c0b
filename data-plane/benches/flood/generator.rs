//! Frames as fast as the kernel makes them: `BPF_PROG_TEST_RUN` with live frames, and a program that sends each out of an
//! interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::gateway::Namespace;

/// `r0 = XDP_TX; exit`.
pub const SEND_BACK: [u64; 2] = [0x0000_0003_0000_00b7, 0x0000_0000_0000_0095];
/// `r0 = XDP_DROP; exit`.
pub const DROP: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const XDP_PROGRAM: u32 = 6;
const ATTACH_XDP: u32 = 37;
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames of one system call: some milliseconds.
const REPEAT: u32 = 1 << 14;

/// A program of two instructions.
pub struct Program(OwnedFd);

/// A program on an interface, until it is dropped.
pub struct Attached(#[allow(dead_code, reason = "held")] OwnedFd);

/// The part of `union bpf_attr` for BPF_PROG_LOAD that is needed.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    rest: [u64; 4],
}

/// The part for BPF_LINK_CREATE.
#[repr(C)]
struct Link {
    program: u32,
    target: u32,
    attach: u32,
    flags: u32,
    rest: [u64; 4],
}

/// The part for BPF_PROG_TEST_RUN.
#[repr(C)]
struct TestRun {
    program: u32,
    answer: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    rest: u32,
}

/// `struct xdp_md`.
#[repr(C)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue: u32,
    egress_ifindex: u32,
}

impl Program {
    pub fn load(code: &[u64; 2]) -> Self {
        let (code, licence) = (code.as_ptr() as u64, c"GPL".as_ptr() as u64);
        let mut load = Load { kind: XDP_PROGRAM, instructions: 2, code, licence, rest: [0; 4] };
        let fd = bpf(BPF_PROG_LOAD, &mut load).unwrap();
        // SAFETY: a descriptor that bpf(2) has just made.
        Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    pub fn attach(&self, interface: u32) -> Attached {
        let program = self.0.as_raw_fd() as u32;
        let mut link = Link { program, target: interface, attach: ATTACH_XDP, flags: 0, rest: [0; 4] };
        let fd = bpf(BPF_LINK_CREATE, &mut link).unwrap();
        // SAFETY: a descriptor that bpf(2) has just made.
        Attached(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

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
                match run(&program, interface, &frame) {
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

fn run(program: &Program, interface: u32, frame: &[u8]) -> io::Result<()> {
    let len = frame.len() as u32;
    let context = Context {
        data: 0,
        data_end: len,
        data_meta: 0,
        ingress_ifindex: interface,
        rx_queue: 0,
        egress_ifindex: 0,
    };
    let mut run = TestRun {
        program: program.0.as_raw_fd() as u32,
        answer: 0,
        size_in: len,
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: REPEAT,
        duration: 0,
        context_size_in: size_of::<Context>() as u32,
        context_size_out: 0,
        context_in: std::ptr::from_ref(&context) as u64,
        context_out: 0,
        flags: LIVE_FRAMES,
        cpu: 0,
        batch: 64,
        rest: 0,
    };
    bpf(BPF_PROG_TEST_RUN, &mut run).map(drop)
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are as long as said, laid out for the command, and what they point to is alive.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
