//! What stands before a peer without TCP: it takes streams of RFC 9329 on TCP 4500 and passes each frame on to the peer's
//! UDP 4500 as a datagram, and back.
//!
//! A frame is a length and what a datagram on UDP 4500 holds: IKE behind the non-ESP marker, or ESP (RFC 9329 section 3,
//! RFC 3948 section 2). So nothing but the length comes and goes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::SockRef;

use crate::netns::Namespace;
use crate::wait::Event;

/// What the originator of a stream sends once, before its first frame.
const PREFIX: &[u8] = b"IKETCP";
const PORT: u16 = 4500;
const MARKER: [u8; 4] = [0; 4];
/// NAT keepalives, which have no place in TCP (RFC 9329 section 6.6).
const KEEPALIVE: &[u8] = &[0xff];
/// How often threads look whether the relay still exists.
const LOOK_AT_STOP: Duration = Duration::from_millis(20);

/// A running relay. Dropping it closes its streams.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Event<Shared>>,
    acceptor: Option<JoinHandle<()>>,
}

/// What has passed so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Relayed {
    /// Streams with the prefix.
    pub streams: u64,
    /// Streams closed for something that is not RFC 9329.
    pub refused: u64,
    /// IKE messages towards the peer.
    pub ike_in: u64,
    /// ESP packets towards the peer.
    pub esp_in: u64,
    /// IKE messages from the peer.
    pub ike_out: u64,
    /// ESP packets from the peer.
    pub esp_out: u64,
}

#[derive(Default, Debug)]
struct Shared {
    relayed: Relayed,
    streams: Vec<TcpStream>,
    stop: bool,
}

impl Relay {
    /// Listens at `outside` in `namespace` and passes on to `peer` from `inside`.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn start(namespace: &Namespace, outside: Ipv4Addr, inside: Ipv4Addr, peer: Ipv4Addr) -> Result<Self> {
        let listener = namespace.enter(|| TcpListener::bind((outside, PORT))).context("listening")?;
        let towards = {
            let namespace = namespace.clone();
            move || {
                let socket = namespace.enter(|| UdpSocket::bind((inside, 0)))?;
                socket.connect((peer, PORT))?;
                Ok(socket)
            }
        };
        Self::serve(listener, towards)
    }

    fn serve(
        listener: TcpListener,
        towards: impl Fn() -> Result<UdpSocket> + Send + 'static,
    ) -> Result<Self> {
        SockRef::from(&listener).set_read_timeout(Some(LOOK_AT_STOP))?;
        let shared = Arc::new(Event::new(Shared::default()));
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared, towards)
        });
        Ok(Self { shared, acceptor: Some(acceptor) })
    }

    /// What has passed so far.
    pub fn relayed(&self) -> Relayed {
        self.shared.read(|shared| shared.relayed)
    }

    /// Waits until `reached` holds, at most `limit`; `None` when the limit passed.
    pub fn wait(&self, limit: Duration, reached: impl Fn(&Relayed) -> bool) -> Option<Relayed> {
        self.shared.wait(limit, |shared| reached(&shared.relayed).then_some(shared.relayed))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.update(|shared| {
            shared.stop = true;
            // An error means that the other end has closed it before.
            shared.streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        });
        if let Some(acceptor) = self.acceptor.take() {
            let ended = acceptor.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the relay has panicked");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Event<Shared>, towards: impl Fn() -> Result<UdpSocket>) {
    std::thread::scope(|scope| {
        while !shared.read(|shared| shared.stop) {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if is_no_news(&error) => continue,
                Err(error) => return eprintln!("relay: {error}"),
            };
            match register(shared, &stream).and_then(|()| towards()) {
                Ok(socket) => drop(scope.spawn(move || relay(stream, &socket, shared))),
                Err(error) => eprintln!("relay: {error:#}"),
            }
        }
    });
}

/// Keeps a handle, by which the relay ends the stream.
fn register(shared: &Event<Shared>, stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    // It has inherited the listener's.
    stream.set_read_timeout(None)?;
    let handle = stream.try_clone()?;
    shared.update(|shared| {
        anyhow::ensure!(!shared.stop, "a stream came too late");
        shared.streams.push(handle);
        Ok(())
    })
}

/// Both ways of one stream, until it ends.
fn relay(stream: TcpStream, socket: &UdpSocket, shared: &Event<Shared>) {
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| from_peer(&stream, socket, shared, &has_ended));
        let outcome = to_peer(&stream, socket, shared);
        has_ended.store(true, Ordering::Relaxed);
        // An error means that the other end has closed it before.
        drop(stream.shutdown(Shutdown::Both));
        if let Err(error) = outcome {
            eprintln!("relay: {error:#}");
            shared.update(|shared| shared.relayed.refused += 1);
        }
    });
}

fn to_peer(mut stream: &TcpStream, socket: &UdpSocket, shared: &Event<Shared>) -> Result<()> {
    let mut prefix = [0; PREFIX.len()];
    if stream.read_exact(&mut prefix).is_err() {
        return Ok(());
    }
    anyhow::ensure!(prefix == PREFIX, "a stream begins with {prefix:02x?}");
    shared.update(|shared| shared.relayed.streams += 1);
    let mut length = [0; 2];
    let mut content = Vec::new();
    loop {
        if stream.read_exact(&mut length).is_err() {
            return Ok(());
        }
        let Some(octets) = usize::from(u16::from_be_bytes(length)).checked_sub(length.len()) else {
            bail!("a frame says that it is shorter than its length");
        };
        content.resize(octets, 0);
        if stream.read_exact(&mut content).is_err() {
            return Ok(());
        }
        if content.is_empty() || content == KEEPALIVE {
            continue;
        }
        // Counted first: whoever sees the answer sees the count.
        shared.update(|Shared { relayed, .. }| count(&content, &mut relayed.ike_in, &mut relayed.esp_in));
        // What the peer refuses is lost, as any datagram may be.
        let _ = socket.send(&content);
    }
}

fn from_peer(mut stream: &TcpStream, socket: &UdpSocket, shared: &Event<Shared>, has_ended: &AtomicBool) {
    const LONGEST: usize = u16::MAX as usize;
    let mut frame = vec![0; LONGEST];
    if socket.set_read_timeout(Some(LOOK_AT_STOP)).is_err() {
        return;
    }
    while !has_ended.load(Ordering::Relaxed) {
        let octets = match socket.recv(&mut frame[2..]) {
            Ok(octets) => octets,
            // Refused: the peer's ICMP. It may listen again.
            Err(error) if is_no_news(&error) || error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) => return eprintln!("relay: {error}"),
        };
        let length = octets + 2;
        if octets == 0 || &frame[2..length] == KEEPALIVE {
            continue;
        }
        frame[..2].copy_from_slice(&(length as u16).to_be_bytes());
        let content = &frame[2..length];
        shared.update(|Shared { relayed, .. }| count(content, &mut relayed.ike_out, &mut relayed.esp_out));
        if stream.write_all(&frame[..length]).is_err() {
            return;
        }
    }
}

fn count(content: &[u8], ike: &mut u64, esp: &mut u64) {
    *if content.starts_with(&MARKER) { ike } else { esp } += 1;
}

fn is_no_news(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn frames_become_datagrams_and_datagrams_frames() {
        let (relay, mut stream, peer) = relayed();
        stream.write_all(b"IKETCP\0\x0a\0\0\0\0IKE!\0\x02\0\x03\xff\0\x08\0\0\x01\0ES").unwrap();
        let mut buffer = [0; 64];
        let (octets, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..octets], b"\0\0\0\0IKE!");
        let (octets, _) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..octets], b"\0\0\x01\0ES");

        for datagram in [&b"\xff"[..], b"\0\0\0\0ike", b"\0\0\x02\0es"] {
            peer.send_to(datagram, from).unwrap();
        }
        let mut frames = [0; 17];
        stream.read_exact(&mut frames).unwrap();
        assert_eq!(&frames, b"\0\x09\0\0\0\0ike\0\x08\0\0\x02\0es");
        let expected = Relayed { streams: 1, refused: 0, ike_in: 1, esp_in: 1, ike_out: 1, esp_out: 1 };
        assert_eq!(relay.relayed(), expected);
    }

    #[test]
    fn another_prefix_or_a_length_of_one_closes_the_stream() {
        for octets in [&b"GET / HTTP"[..], b"IKETCP\0\x01"] {
            let (relay, mut stream, _peer) = relayed();
            stream.write_all(octets).unwrap();
            assert!(relay.wait(PATIENCE, |r| r.refused == 1).is_some(), "{octets:?}");
            // End of stream or a reset, as there were octets left to read or not.
            assert!(!matches!(stream.read(&mut [0; 8]), Ok(1..)), "{octets:?}");
        }
    }

    fn relayed() -> (Relay, TcpStream, UdpSocket) {
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = peer.local_addr().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let towards = move || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(to)?;
            Ok(socket)
        };
        let relay = Relay::serve(listener, towards).unwrap();
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (relay, stream, peer)
    }
}
