//! Accepting TCP 4500 and finding the shard of each stream.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_ike::path::StreamId;
use tokio::net::{TcpListener, TcpStream};

use super::counters::Counters;
use super::prefix_limit::PrefixLimit;
use super::route::{HEADER_PART, STREAM_PREFACE, Shards};
use super::stream;
use crate::daemon::{InputSender, Observer};

/// How long a stranger may take for the octets that say where it belongs (transport policy, "IKE over TCP").
const FIRST_OCTETS_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after accept(2) found no descriptor or memory left.
const OUT_OF_RESOURCES_PAUSE: Duration = Duration::from_millis(100);

/// Accepts streams for every shard.
#[derive(Clone, Debug)]
pub struct Acceptor {
    shards: Shards,
    inputs: Arc<[InputSender]>,
    limit: PrefixLimit,
    observer: Arc<Observer>,
    numbers: Arc<AtomicU64>,
    counters: Arc<Counters>,
}

impl Acceptor {
    /// Hands streams to `inputs`, one for each shard. Those that have not said enough are `limit`ed, strangers apart from
    /// configured peers, whom the `observer` knows.
    pub fn new(
        shards: Shards,
        inputs: Arc<[InputSender]>,
        limit: PrefixLimit,
        observer: Arc<Observer>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { shards, inputs, limit, observer, numbers: Arc::default(), counters }
    }

    /// Accepts until the process ends.
    ///
    /// # Errors
    /// If the listener cannot be used at all.
    pub fn listen(&self, listener: StdListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let acceptor = self.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((tcp, remote)) => acceptor.welcome(tcp, remote),
                    Err(error) => {
                        tracing::debug!(%error, "accepting a TCP connection failed");
                        tokio::time::sleep(OUT_OF_RESOURCES_PAUSE).await;
                    }
                }
            }
        });
        Ok(())
    }

    fn welcome(&self, tcp: TcpStream, remote: SocketAddr) {
        let permit = match self.observer.connections_to(remote.ip()) {
            0 => self.limit.admit(remote.ip()),
            connections => self.limit.admit_peer(remote.ip(), connections),
        };
        let (Some(permit), Ok(())) = (permit, stream::set_options(&tcp)) else {
            self.counters.refuse_stream();
            return;
        };
        let acceptor = self.clone();
        tokio::spawn(async move {
            let first = tokio::time::timeout(FIRST_OCTETS_TIMEOUT, acceptor.first_octets(&tcp, remote)).await;
            drop(permit);
            let Ok(Ok((shard, first))) = first else {
                acceptor.counters.refuse_stream();
                return;
            };
            let stream = StreamId::accepted(acceptor.numbers.fetch_add(1, Ordering::Relaxed));
            if let Some(input) = acceptor.inputs.get(shard) {
                stream::accepted(stream, tcp, first, input.clone()).await;
            }
        });
    }

    /// Reads until the shard is known.
    async fn first_octets(&self, tcp: &TcpStream, remote: SocketAddr) -> io::Result<(usize, Vec<u8>)> {
        let mut first = Vec::with_capacity(STREAM_PREFACE + HEADER_PART);
        loop {
            if let Some(shard) = self.shards.of_stream(&first, remote.ip()) {
                return Ok((shard, first));
            }
            tcp.readable().await?;
            match stream::read_ready(tcp) {
                Ok(bytes) if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => first.extend_from_slice(&bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
