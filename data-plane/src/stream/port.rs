//! The two ends of a stream's ESP: the control plane decides, the stream's task carries.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_common::DropReason;

use super::inject::Inject;
use super::outgoing::Outgoing;
use super::queue::Ends;
use super::reader::Reader;
use super::{StreamKey, StreamQueue};
use crate::handle::{DataPlane, Inner};
use crate::sa::PathId;

/// The control plane's end.
pub struct StreamPort {
    queue: Arc<StreamQueue>,
    plane: DataPlane,
}

/// The task's end. Dropping it says that the stream has ended: what waits for it is dropped as `stream_down`.
pub struct StreamEnd {
    /// Packets that wait to be sent.
    pub(super) packets: Reader,
    /// What is being sent.
    pub(super) outgoing: Outgoing,
    plane: Arc<Inner>,
}

impl DataPlane {
    /// Makes ESP possible in a TCP stream of the control plane. Paths name it by its key. Nothing is sent before its task
    /// runs [`carry`](super::carry), and nothing that arrives is opened before [`StreamPort::accept`].
    pub fn open_stream(&self) -> (StreamPort, StreamEnd) {
        let queue = self.inner.shared.streams.open();
        let (packets, outgoing) = (Reader::new(Arc::clone(&queue)), Outgoing::default());
        let end = StreamEnd { packets, outgoing, plane: Arc::clone(&self.inner) };
        (StreamPort { queue, plane: self.clone() }, end)
    }
}

impl StreamPort {
    /// Its name in paths.
    pub fn key(&self) -> StreamKey {
        self.queue.key()
    }

    /// Whose ESP packets are opened when they arrive, from the next frame on: a stream carries those of one IKE SA (RFC
    /// 9329 section 5). With `None` they are left among the octets that are the control plane's.
    pub fn accept(&self, path: Option<PathId>) {
        self.queue.set_accepts(path);
    }

    /// Opens a packet that arrived between these addresses before it was known that they are to be accepted.
    pub fn deliver(&self, local: SocketAddr, remote: SocketAddr, packet: &[u8]) {
        Inject::new(&self.plane.inner, &self.queue, Ends { local, remote }).packet(packet);
    }
}

impl fmt::Debug for StreamPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamPort").field(&self.key()).finish()
    }
}

impl StreamEnd {
    /// The stream is connected.
    pub(super) fn up(&self) {
        self.packets.queue().up();
    }

    /// Nothing more is sent.
    pub(super) fn closing(&self) {
        self.plane.shared.streams.close(self.packets.queue());
    }

    /// See [`StreamPort::accept`].
    pub(super) fn accepts(&self) -> bool {
        self.packets.queue().accepts().is_some()
    }

    /// Takes packets that arrived between these addresses.
    pub(super) fn inject(&self, ends: Ends) -> Inject<'_> {
        Inject::new(&self.plane, self.packets.queue(), ends)
    }

    /// Time as packets are stamped with it.
    pub(super) fn now(&self) -> Duration {
        self.plane.shared.now()
    }

    /// Packets were given to the kernel.
    pub(super) fn sent(&self, packets: u64, bytes: u64) {
        if packets > 0 {
            self.packets.queue().counters().count_sent(packets, bytes);
        }
    }

    /// Adds frames to what is being sent as long as they are wanted and wait.
    pub(super) fn fill(&mut self) {
        let now = self.now();
        self.packets.fill(&mut self.outgoing, now);
    }
}

impl fmt::Debug for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamEnd").field(&self.packets.queue().key()).finish()
    }
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.packets.queue().counters().count_drops(DropReason::StreamDown, self.outgoing.packets());
        self.plane.shared.streams.close(self.packets.queue());
    }
}
