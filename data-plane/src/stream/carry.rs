//! The task of a stream that carries ESP beside IKE: reads and writes until one side ends.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::outgoing::Left;
use super::queue::Ends;
use super::{Incoming, NOT_SENT_BYTES, PATIENCE, StreamEnd};

/// Octets read at a time.
const READ_BYTES: usize = 128 * 1024;
/// How long the peer may take to end its side of a stream that the control plane has ended.
const LINGER: Duration = Duration::from_secs(5);
/// Portions written before what has arrived gets its turn.
const WRITES_PER_TURN: usize = 16;

thread_local! {
    /// Where octets are read to; none of them stay, so that one buffer serves all streams of a thread.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Who speaks IKE on a stream. ESP passes it by.
pub trait Ike {
    /// The next octets to write, whole messages, or `None` when nothing more will come and the stream is to end.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>>;

    /// So many octets of what it wanted written were given to the kernel.
    fn written(&mut self, octets: usize);

    /// Octets arrived; false if nobody wants them any more.
    fn arrived(&mut self, octets: Vec<u8>) -> impl Future<Output = bool> + Send;
}

/// How a stream ended.
#[derive(Debug)]
pub enum Ended {
    /// The peer closed it.
    ByPeer,
    /// The one who speaks IKE did; everything that it said has been given to the kernel, and the peer has had time to take it.
    ByIke,
    /// It broke.
    Broken(io::Error),
}

/// Carries ESP and IKE until one side ends. `incoming` has followed the octets that were read before.
pub async fn carry(tcp: &TcpStream, mut end: StreamEnd, mut incoming: Incoming, ike: &mut impl Ike) -> Ended {
    let ends = match prepare(tcp) {
        Ok(ends) => ends,
        Err(error) => return Ended::Broken(error),
    };
    end.up();
    loop {
        let written = match write(tcp, &mut end, ike).await {
            Ok(Written::AllForIke) => return linger(tcp, end, incoming, ends).await,
            Ok(written) => written,
            Err(error) => return Ended::Broken(error),
        };
        let is_blocked = matches!(written, Written::Blocked);
        let interest = match written {
            Written::All => Interest::READABLE,
            _ => Interest::READABLE | Interest::WRITABLE,
        };
        let wants_ike = end.outgoing.wants_ike();
        tokio::select! {
            ready = tcp.ready(interest) => match ready {
                Ok(ready) if !ready.is_readable() => {}
                Ok(_) => match read(tcp, &end, &mut incoming, ends) {
                    Ok(Read::End) => return Ended::ByPeer,
                    Ok(Read::Nothing) => {}
                    Ok(Read::Octets(octets)) if octets.is_empty() => {}
                    Ok(Read::Octets(octets)) => {
                        if !ike.arrived(octets).await {
                            return Ended::ByIke;
                        }
                    }
                    Err(error) => return Ended::Broken(error),
                },
                Err(error) => return Ended::Broken(error),
            },
            next = poll_fn(|context| ike.poll_next(context)), if wants_ike => match next {
                Some(octets) => end.outgoing.push_ike(octets),
                None => return linger(tcp, end, incoming, ends).await,
            },
            () = poll_fn(|context| end.packets.poll(context)), if !is_blocked => {}
            // What waits behind a peer that reads nothing is of no use, and others need the memory.
            () = tokio::time::sleep(PATIENCE), if is_blocked => end.packets.expire(end.now()),
        }
    }
}

/// Ends the sending side and reads on until the peer has done the same: a socket that is closed with octets unread resets the
/// connection, and what was said last may never arrive (RFC 9293 section 3.6.1). ESP on its way is opened as before.
async fn linger(tcp: &TcpStream, end: StreamEnd, mut incoming: Incoming, ends: Ends) -> Ended {
    end.closing();
    let until_the_end = async {
        SockRef::from(tcp).shutdown(std::net::Shutdown::Write)?;
        loop {
            tcp.readable().await?;
            if let Read::End = read(tcp, &end, &mut incoming, ends)? {
                return io::Result::Ok(());
            }
        }
    };
    // Nobody is left to be told of an error.
    let _ = tokio::time::timeout(LINGER, until_the_end).await;
    Ended::ByIke
}

/// Keeps the kernel's part of the queue short.
fn prepare(tcp: &TcpStream) -> io::Result<Ends> {
    let ends = Ends { local: tcp.local_addr()?, remote: tcp.peer_addr()? };
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
    Ok(ends)
}

enum Written {
    /// Nothing waits.
    All,
    /// The kernel takes no more now.
    Blocked,
    /// There may be more; others have their turn first.
    Turn,
    /// Everything that the one who speaks IKE wanted, who has ended.
    AllForIke,
}

async fn write(tcp: &TcpStream, end: &mut StreamEnd, ike: &mut impl Ike) -> io::Result<Written> {
    for _ in 0..WRITES_PER_TURN {
        if end.outgoing.wants_ike() {
            match poll_fn(|context| Poll::Ready(ike.poll_next(context))).await {
                Poll::Ready(Some(octets)) => end.outgoing.push_ike(octets),
                Poll::Ready(None) => return Ok(Written::AllForIke),
                Poll::Pending => {}
            }
        }
        end.fill();
        let Some(octets) = end.outgoing.next() else {
            end.outgoing.rest();
            return Ok(Written::All);
        };
        // With the end of a record after each portion the kernel looks at its limit before each, and does not append
        // to what it has.
        let sent = tcp.try_io(Interest::WRITABLE, || {
            SockRef::from(tcp).send_with_flags(octets, libc::MSG_EOR | libc::MSG_NOSIGNAL)
        });
        match sent {
            Ok(sent) => match end.outgoing.advance(sent) {
                Left::Ike(octets) => ike.written(octets),
                Left::PartOfIke => {}
                Left::Esp { packets, bytes } => end.sent(packets, bytes),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Written::Blocked),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Written::Turn)
}

enum Read {
    Octets(Vec<u8>),
    Nothing,
    End,
}

/// Reads a portion, opens what is ESP, and returns what is not.
fn read(tcp: &TcpStream, end: &StreamEnd, incoming: &mut Incoming, ends: Ends) -> io::Result<Read> {
    READ_BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(READ_BYTES, 0);
        let len = match tcp.try_read(buffer) {
            Ok(0) => return Ok(Read::End),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Nothing),
            Err(error) => return Err(error),
        };
        let mut inject = end.inject(ends);
        let mut rest = Vec::new();
        incoming.take(
            buffer.get(..len).unwrap_or_default(),
            end.accepts(),
            |octets| rest.extend_from_slice(octets),
            |packet| inject.packet(packet),
        );
        Ok(Read::Octets(rest))
    })
}
