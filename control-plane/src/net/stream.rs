//! One TCP connection: raw octets between the kernel and a shard. RFC 9329's framing is the endpoint's; where ESP is
//! carried too, [`super::esp_stream`] takes over.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_data_plane::stream::{Incoming, StreamEnd, StreamPort};
use portcullis_ike::endpoint::StreamDown;
use portcullis_ike::path::StreamId;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::bind::stream_options;
use super::esp_stream;
use super::outbox::{Receiver, Sender, outbox};
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
/// Streams that wait for that at the same time; further ones are closed at once.
static CLOSING: Semaphore = Semaphore::const_new(1024);

/// A shard's end of a stream. Dropping it ends the stream after what was sent has left.
#[derive(Debug)]
pub struct StreamHandle {
    pub(super) out: Sender<ToStream>,
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
            // A task of its own: this one is as large as a dial needs.
            Ok(tcp) => drop(tokio::spawn(carry(stream, tcp, Vec::new(), queue, shard))),
            Err(error) => down(&shard, stream, cause(&error)).await,
        }
    });
    handle
}

/// Carries an accepted connection; `first` are the octets that were read to find its shard.
pub async fn accepted(stream: StreamId, tcp: TcpStream, first: Vec<u8>, shard: InputSender) {
    let (handle, queue) = channel();
    if shard.send(Input::Accepted { stream, handle }).await.is_ok() {
        tokio::spawn(carry(stream, tcp, first, queue, shard));
    }
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
    pub(super) out: Receiver<ToStream>,
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
    let (sender, out) = outbox();
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

/// What a stream is ready for.
#[derive(Default)]
struct Ready {
    to_read: bool,
    to_write: bool,
    /// What is to be written next; its inner `None` is the end.
    next: Option<Option<ToStream>>,
}

/// Moves octets both ways until one side ends.
///
/// There are as many of these as open streams, and nearly all of them wait in the one place where nothing is going on:
/// what is needed elsewhere only is boxed there.
async fn carry(stream: StreamId, tcp: TcpStream, first: Vec<u8>, mut queue: Queue, shard: InputSender) {
    let (local, remote) = match (tcp.local_addr(), tcp.peer_addr()) {
        (Ok(local), Ok(remote)) => (local, remote),
        (Err(error), _) | (_, Err(error)) => return down(&shard, stream, cause(&error)).await,
    };
    let mut incoming = if stream.is_accepted() { Incoming::accepted() } else { Incoming::dialled() };
    incoming.follow(&first);
    if !tell(&shard, Input::StreamUp { stream, local, remote }).await
        || (!first.is_empty() && !tell(&shard, Input::StreamBytes { stream, bytes: first }).await)
    {
        return;
    }
    let mut writing: Option<(Vec<u8>, usize)> = None;
    loop {
        if let Some(end) = queue.esp.take() {
            return Box::pin(esp_stream::carry(stream, tcp, *end, incoming, queue, shard)).await;
        }
        let ready = match poll_fn(|cx| poll_ready(cx, &tcp, &mut queue, writing.is_some())).await {
            Ok(ready) => ready,
            Err(error) => return down(&shard, stream, cause(&error)).await,
        };
        if ready.to_write
            && let Some((bytes, sent)) = writing.take()
        {
            match write_ready(&tcp, &bytes, sent) {
                Ok(sent) if sent < bytes.len() => writing = Some((bytes, sent)),
                Ok(_) => {
                    queue.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
                }
                Err(error) => return down(&shard, stream, cause(&error)).await,
            }
        }
        match ready.next {
            Some(Some(ToStream::Octets(bytes))) => writing = Some((bytes, 0)),
            Some(Some(ToStream::CarryEsp(end))) => queue.esp = Some(end),
            // The shard has dropped its end, and everything before that has been written.
            Some(None) => return Box::pin(close(tcp)).await,
            None => {}
        }
        if ready.to_read {
            match read_ready(&tcp) {
                Ok(bytes) if bytes.is_empty() => return down(&shard, stream, StreamDown::Closed).await,
                Ok(bytes) => {
                    incoming.follow(&bytes);
                    if !tell(&shard, Input::StreamBytes { stream, bytes }).await {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return down(&shard, stream, cause(&error)).await,
            }
        }
    }
}

/// Ready as soon as anything can be done. While something is being written, nothing more is taken from the queue.
fn poll_ready(
    cx: &mut Context<'_>,
    tcp: &TcpStream,
    queue: &mut Queue,
    is_writing: bool,
) -> Poll<io::Result<Ready>> {
    let mut ready = Ready::default();
    if is_writing {
        ready.to_write = tcp.poll_write_ready(cx)?.is_ready();
    } else if let Poll::Ready(next) = queue.out.poll_recv(cx) {
        ready.next = Some(next);
    }
    ready.to_read = tcp.poll_read_ready(cx)?.is_ready();
    if ready.to_read || ready.to_write || ready.next.is_some() {
        Poll::Ready(Ok(ready))
    } else {
        Poll::Pending
    }
}

/// Closes a stream after what was written, and reads until the peer has closed it too: a socket that is closed with octets
/// unread resets the connection, and what was written last may never arrive (RFC 9293 section 3.6.1).
async fn close(mut tcp: TcpStream) {
    // Strangers could fill the descriptors with streams that wait here.
    let Ok(_place) = CLOSING.try_acquire() else { return };
    let until_the_end = async {
        tcp.shutdown().await?;
        loop {
            tcp.readable().await?;
            match read_ready(&tcp) {
                Ok(bytes) if bytes.is_empty() => return io::Result::Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    };
    // Nobody is left to be told of an error.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, until_the_end).await;
}

/// Writes from `sent` on and returns how far it got.
fn write_ready(tcp: &TcpStream, bytes: &[u8], sent: usize) -> io::Result<usize> {
    match tcp.try_write(bytes.get(sent..).unwrap_or_default()) {
        Ok(len) => Ok(sent + len),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(sent),
        Err(error) => Err(error),
    }
}

/// Waits for room in the shard's queue; false if the shard has ended.
fn tell(shard: &InputSender, input: Input) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
    Box::pin(async move { shard.send(input).await.is_ok() })
}

pub(super) async fn down(shard: &InputSender, stream: StreamId, cause: StreamDown) {
    tell(shard, Input::StreamDown { stream, cause }).await;
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// There is one for each open stream (10 000 of them within 4 KiB each).
    #[test]
    fn the_task_of_an_idle_stream_is_small() {
        assert!(size_of_future(&carry) <= 544, "{}", size_of_future(&carry));
    }

    #[tokio::test]
    async fn what_was_written_last_arrives_although_the_peer_still_writes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut near, _) = listener.accept().await.unwrap();
        near.write_all(&[1; 10_000]).await.unwrap();
        let closing = tokio::spawn(close(near));
        // The sending side has ended: an implementation that closes does it now.
        far.peek(&mut [0]).await.unwrap();
        for _ in 0..3 {
            far.write_all(&[2; 1000]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [1; 10_000]);
        drop(far);
        closing.await.unwrap();
    }

    fn size_of_future<A, B, C, D, E, F>(_: &impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }
}
