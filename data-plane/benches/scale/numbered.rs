//! Numbered datagrams from one host to very many addresses of another, in turn: what was lost, doubled and out of order at each.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::gateway::{Namespace, bind, wait_until};

/// Datagrams that leave at once when some are due.
const LONGEST_BURST: u64 = 16;
const PAUSE: Duration = Duration::from_micros(500);
/// Octets that the receiving socket holds while its thread does not run.
const ROOM: libc::c_int = 256 << 20;
const PAYLOAD: usize = 200;
/// Number of the address, then of the datagram.
const HEADER: usize = 12;

/// Traffic that runs until it is finished.
pub struct Numbered {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Disorder>,
}

/// Datagrams that did not come as the next of their address.
#[derive(Default)]
pub struct Disorder {
    pub lost: u64,
    /// Doubled, or after a later one.
    pub late: u64,
}

impl Numbered {
    /// So many datagrams a second in all, to each address in turn.
    pub fn start(
        from: (&Namespace, &str),
        to: &Namespace,
        addresses: Vec<IpAddr>,
        packets_per_second: f64,
    ) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let [sent, received] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let count = addresses.len();
        let receiving = to.run(|| bind("0.0.0.0"));
        make_room(&receiving);
        receiving.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let port = receiving.local_addr().unwrap().port();
        let sending = from.0.run(|| bind(from.1));
        let receiver = std::thread::spawn({
            let (is_over, received) = (is_over.clone(), received.clone());
            move || receive(&receiving, count, &received, &is_over)
        });
        let destinations: Vec<_> = addresses.into_iter().map(|a| SocketAddr::new(a, port)).collect();
        let sender = std::thread::spawn({
            let (is_over, sent) = (is_over.clone(), sent.clone());
            move || send(&sending, &destinations, packets_per_second, &sent, &is_over)
        });
        Self { is_over, sent, received, sender, receiver }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Stops sending, and counts when `is_drained` says that nothing is under way any more.
    pub fn finish(self, is_drained: impl FnMut() -> bool) -> (u64, Disorder) {
        self.is_over.store(true, Ordering::SeqCst);
        self.sender.join().unwrap();
        wait_until("traffic has drained", is_drained);
        let mut disorder = self.receiver.join().unwrap();
        let (sent, received) = (self.sent.load(Ordering::SeqCst), self.received.load(Ordering::SeqCst));
        disorder.lost = sent.saturating_sub(received - disorder.late);
        (sent, disorder)
    }
}

fn send(
    socket: &UdpSocket,
    destinations: &[SocketAddr],
    packets_per_second: f64,
    sent: &AtomicU64,
    is_over: &AtomicBool,
) {
    let (began, mut number) = (Instant::now(), 0);
    // What a sender that was held up has missed it does not send: it would come in bursts.
    let mut missed = 0;
    let mut payload = [0x5a; PAYLOAD];
    while !is_over.load(Ordering::SeqCst) {
        let waiting = (began.elapsed().as_secs_f64() * packets_per_second) as u64 - missed - number;
        let burst = waiting.min(LONGEST_BURST);
        missed += waiting - burst;
        for _ in 0..burst {
            let (turn, address) = (number / destinations.len() as u64, number % destinations.len() as u64);
            payload[..4].copy_from_slice(&(address as u32).to_be_bytes());
            payload[4..HEADER].copy_from_slice(&turn.to_be_bytes());
            // Before it can arrive.
            sent.fetch_add(1, Ordering::SeqCst);
            socket.send_to(&payload, destinations[address as usize]).unwrap();
            number += 1;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Until the time is over and nothing comes any more.
fn receive(socket: &UdpSocket, addresses: usize, received: &AtomicU64, is_over: &AtomicBool) -> Disorder {
    let mut next = vec![0; addresses];
    let mut disorder = Disorder::default();
    let mut buffer = [0; 2 * PAYLOAD];
    loop {
        let Ok(len) = socket.recv(&mut buffer) else {
            if is_over.load(Ordering::SeqCst) {
                return disorder;
            }
            continue;
        };
        assert_eq!(len, PAYLOAD);
        received.fetch_add(1, Ordering::SeqCst);
        let address = u32::from_be_bytes(buffer[..4].try_into().unwrap());
        let turn = u64::from_be_bytes(buffer[4..HEADER].try_into().unwrap());
        let next: &mut u64 = &mut next[address as usize];
        disorder.late += u64::from(turn < *next);
        *next = (*next).max(turn + 1);
    }
}

fn make_room(socket: &UdpSocket) {
    // SAFETY: pointer and length describe an integer.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            std::ptr::from_ref(&ROOM).cast(),
            size_of_val(&ROOM) as libc::socklen_t,
        )
    };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}
