//! A stream that carries ESP beside IKE (RFC 9329 section 3): the data plane moves its octets, and what is IKE's comes
//! and goes here.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use portcullis_data_plane::handle::DataPlane;
use portcullis_data_plane::sa::PathId;
use portcullis_data_plane::stream::{Ended, Ike, Incoming, StreamEnd, StreamKey, StreamPort};
use portcullis_ike::endpoint::StreamDown;
use portcullis_ike::path::StreamId;
use tokio::net::TcpStream;

use super::stream::{Queue, StreamHandle, ToStream, cause, down};
use crate::daemon::{Input, InputSender};

impl StreamHandle {
    /// Whose ESP packets are opened when they arrive.
    pub fn accept_esp(&mut self, data_plane: &DataPlane, path: Option<PathId>) {
        self.esp(data_plane).accept(path);
    }

    /// Opens a packet that arrived between these addresses, before the stream's task knew that it is accepted.
    pub fn deliver_esp(
        &mut self,
        data_plane: &DataPlane,
        (local, remote): (SocketAddr, SocketAddr),
        packet: &[u8],
    ) {
        self.esp(data_plane).deliver(local, remote, packet);
    }

    /// The name by which a path sends ESP in this stream.
    pub fn esp_key(&mut self, data_plane: &DataPlane) -> StreamKey {
        self.esp(data_plane).key()
    }

    /// The data plane's side of it; from the first use on the stream's task carries ESP.
    fn esp(&mut self, data_plane: &DataPlane) -> &StreamPort {
        let out = &self.out;
        self.esp.get_or_insert_with(|| {
            let (port, end) = data_plane.open_stream();
            // A task that has ended drops its end, which is all that is to be said.
            let _ = out.send(ToStream::CarryEsp(Box::new(end)));
            Box::new(port)
        })
    }
}

/// Carries a connected stream until one side ends.
pub(super) async fn carry(
    stream: StreamId,
    tcp: TcpStream,
    end: StreamEnd,
    incoming: Incoming,
    queue: Queue,
    shard: InputSender,
) {
    let mut speaker = Speaker { stream, queue, shard };
    match portcullis_data_plane::stream::carry(&tcp, end, incoming, &mut speaker).await {
        Ended::ByPeer => down(&speaker.shard, stream, StreamDown::Closed).await,
        Ended::Broken(error) => down(&speaker.shard, stream, cause(&error)).await,
        Ended::ByIke => {}
    }
}

/// A shard, as the one who speaks IKE.
struct Speaker {
    stream: StreamId,
    queue: Queue,
    shard: InputSender,
}

impl Ike for Speaker {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        loop {
            match self.queue.out.poll_recv(context) {
                Poll::Ready(Some(ToStream::Octets(octets))) => return Poll::Ready(Some(octets)),
                // Said once for each stream, and heard already.
                Poll::Ready(Some(ToStream::CarryEsp(_))) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn written(&mut self, octets: usize) {
        self.queue.queued.fetch_sub(octets, Ordering::Relaxed);
    }

    async fn arrived(&mut self, octets: Vec<u8>) -> bool {
        self.shard.send(Input::StreamBytes { stream: self.stream, bytes: octets }).await.is_ok()
    }
}
