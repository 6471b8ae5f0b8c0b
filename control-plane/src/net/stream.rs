//! One TCP connection: raw octets between the kernel and a shard. RFC 9329's framing is the endpoint's; where ESP is
//! carried too, [`super::esp_stream`] takes over.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_data_plane::stream::{Incoming, StreamEnd, StreamPort};
use portcullis_ike::endpoint::StreamDown;
use portcullis_ike::path::StreamId;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::bind::stream_options;
use super::esp_stream;
use crate::daemon::{Input, InputSender};

/// Octets that may wait for a peer that does not read; more means that it is not alive.
const MAX_QUEUED: usize = 1 << 20;
/// Octets read at a time.
const READ_SIZE: usize = 16 * 1024;
/// A connection whose data stays unacknowledged for this long is broken (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Idle time after which the kernel asks whether the peer is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// How long a closed stream may take to deliver what was sent before.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A shard's end of a stream. Dropping it ends the stream after what was sent has left.
#[derive(Debug)]
pub struct StreamHandle {
    pub(super) out: mpsc::UnboundedSender<ToStream>,
    queued: Arc<AtomicUsize>,
    /// The data plane's side, once ESP is carried.
    pub(super) esp: Option<Box<StreamPort>>,
}

/// What a shard has for a stream's task.
#[derive(Debug)]
pub(super) enum ToStream {
    /// Octets to write.
    Octets(Vec<u8>),
    /// Carry ESP from now on.
    CarryEsp(Box<StreamEnd>),
}

impl StreamHandle {
    /// Queues octets; false if the peer takes too few of them, and the stream is to be given up.
    pub fn send(&self, bytes: Vec<u8>) -> bool {
        let len = bytes.len();
        let before = self.queued.fetch_add(len, Ordering::Relaxed);
        before + len <= MAX_QUEUED && self.out.send(ToStream::Octets(bytes)).is_ok()
    }
}

/// Dials on `network`, reports the outcome to the shard and then carries octets. How long a dial may take is the
/// endpoint's to say: dropping the handle gives it up.
pub fn dial(
    stream: StreamId,
    local: Option<IpAddr>,
    remote: SocketAddr,
    shard: InputSender,
    network: &Handle,
) -> StreamHandle {
    let (handle, mut queue) = channel();
    network.spawn(async move {
        let connected = tokio::select! {
            connected = connect(local, remote) => connected,
            () = queue.abandoned() => return,
        };
        match connected {
            Ok(tcp) => carry(stream, tcp, Vec::new(), queue, shard).await,
            Err(error) => down(&shard, stream, cause(&error)).await,
        }
    });
    handle
}

/// Carries an accepted connection; `first` are the octets that were read to find its shard.
pub fn accepted(stream: StreamId, tcp: TcpStream, first: Vec<u8>, shard: InputSender) {
    tokio::spawn(async move {
        let (handle, queue) = channel();
        if shard.send(Input::Accepted { stream, handle }).await.is_ok() {
            carry(stream, tcp, first, queue, shard).await;
        }
    });
}

/// Options that every IKE stream has: small messages leave at once, dead peers are noticed.
///
/// # Errors
/// What the kernel refuses.
pub fn set_options(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY))
}

/// Reads what is there into memory of its own length, so that an idle stream holds no buffer.
///
/// # Errors
/// What the kernel reports; WouldBlock if nothing is there. An empty result is the end of the stream.
pub fn read_ready(tcp: &TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; READ_SIZE];
    let len = tcp.try_read(&mut buffer)?;
    Ok(buffer.get(..len).unwrap_or_default().to_vec())
}

pub(super) struct Queue {
    pub(super) out: mpsc::UnboundedReceiver<ToStream>,
    pub(super) queued: Arc<AtomicUsize>,
    /// ESP is to be carried as soon as the stream is up.
    esp: Option<Box<StreamEnd>>,
}

impl Queue {
    /// Completes when the shard has dropped its end.
    async fn abandoned(&mut self) {
        // No octets are sent before the stream is up.
        while let Some(what) = self.out.recv().await {
            if let ToStream::CarryEsp(end) = what {
                self.esp = Some(end);
            }
        }
    }
}

fn channel() -> (StreamHandle, Queue) {
    let (sender, out) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    (StreamHandle { out: sender, queued: Arc::clone(&queued), esp: None }, Queue { out, queued, esp: None })
}

async fn connect(local: Option<IpAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    stream_options(&socket, remote.is_ipv6())?;
    if let Some(local) = local {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    let tcp = socket.connect(remote).await?;
    set_options(&tcp)?;
    Ok(tcp)
}

/// Moves octets both ways until one side ends.
async fn carry(stream: StreamId, tcp: TcpStream, first: Vec<u8>, mut queue: Queue, shard: InputSender) {
    let (local, remote) = match (tcp.local_addr(), tcp.peer_addr()) {
        (Ok(local), Ok(remote)) => (local, remote),
        (Err(error), _) | (_, Err(error)) => return down(&shard, stream, cause(&error)).await,
    };
    let mut incoming = if stream.is_accepted() { Incoming::accepted() } else { Incoming::dialled() };
    incoming.follow(&first);
    if shard.send(Input::StreamUp { stream, local, remote }).await.is_err()
        || (!first.is_empty() && shard.send(Input::StreamBytes { stream, bytes: first }).await.is_err())
    {
        return;
    }
    let mut writing: Option<(Vec<u8>, usize)> = None;
    loop {
        if let Some(end) = queue.esp.take() {
            return Box::pin(esp_stream::carry(stream, tcp, *end, incoming, queue, shard)).await;
        }
        let interest =
            if writing.is_some() { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        tokio::select! {
            ready = tcp.ready(interest) => {
                let ready = match ready {
                    Ok(ready) => ready,
                    Err(error) => return down(&shard, stream, cause(&error)).await,
                };
                if ready.is_writable() && let Some((bytes, sent)) = writing.take() {
                    match write_ready(&tcp, &bytes, sent) {
                        Ok(sent) if sent < bytes.len() => writing = Some((bytes, sent)),
                        Ok(_) => {
                            queue.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
                        }
                        Err(error) => return down(&shard, stream, cause(&error)).await,
                    }
                }
                if ready.is_readable() {
                    match read_ready(&tcp) {
                        Ok(bytes) if bytes.is_empty() => return down(&shard, stream, StreamDown::Closed).await,
                        Ok(bytes) => {
                            incoming.follow(&bytes);
                            if shard.send(Input::StreamBytes { stream, bytes }).await.is_err() {
                                return;
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return down(&shard, stream, cause(&error)).await,
                    }
                }
            }
            next = queue.out.recv(), if writing.is_none() => match next {
                Some(ToStream::Octets(bytes)) => writing = Some((bytes, 0)),
                Some(ToStream::CarryEsp(end)) => queue.esp = Some(end),
                // The shard has dropped its end, and everything before that has been written.
                None => return close(tcp).await,
            },
        }
    }
}

/// Closes a stream after what was written.
pub(super) async fn close(mut tcp: TcpStream) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, tcp.shutdown()).await;
}

/// Writes from `sent` on and returns how far it got.
fn write_ready(tcp: &TcpStream, bytes: &[u8], sent: usize) -> io::Result<usize> {
    match tcp.try_write(bytes.get(sent..).unwrap_or_default()) {
        Ok(len) => Ok(sent + len),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(sent),
        Err(error) => Err(error),
    }
}

pub(super) async fn down(shard: &InputSender, stream: StreamId, cause: StreamDown) {
    let _ = shard.send(Input::StreamDown { stream, cause }).await;
}

pub(super) fn cause(error: &io::Error) -> StreamDown {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => StreamDown::Refused,
        io::ErrorKind::TimedOut => StreamDown::TimedOut,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            StreamDown::Reset
        }
        _ => StreamDown::Local(error.to_string()),
    }
}
