//! TCP flows from host to host, and how fast they are.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::{Namespace, address};

use super::{HOST_A, HOST_B};

/// Before flows are measured: their windows are open by then.
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(1);
const BUFFER: usize = 1 << 17;

/// Mbit/s of what `count` flows from one host to the other carry together.
pub fn tcp(from: &Namespace, to: &Namespace, count: usize) -> f64 {
    let listener = to.run(|| TcpListener::bind((address(HOST_B), 0)).unwrap());
    let destination = listener.local_addr().unwrap();
    let (done, received) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..count {
            let sender = from.run(|| connect(destination));
            let (receiver, _) = listener.accept().unwrap();
            scope.spawn(|| send(sender, &done));
            scope.spawn(|| receive(receiver, &received));
        }
        thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), received.load(Ordering::Relaxed));
        thread::sleep(MEASURED);
        let octets = received.load(Ordering::Relaxed) - before;
        let speed = octets as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6;
        done.store(true, Ordering::Relaxed);
        speed
    })
}

fn connect(destination: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(address(HOST_A), 0).into()).unwrap();
    socket.connect(&destination.into()).unwrap();
    socket.into()
}

fn send(mut tcp: TcpStream, done: &AtomicBool) {
    tcp.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let octets = vec![0x5a; BUFFER];
    while !done.load(Ordering::Relaxed) {
        match tcp.write(&octets) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads until the sender ends.
fn receive(mut tcp: TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match tcp.read(&mut buffer).unwrap() {
            0 => return,
            len => received.fetch_add(len as u64, Ordering::Relaxed),
        };
    }
}
