//! Accepting connections and speaking HTTP/1.1 on them, within limits: of connections, of header sizes, of time.

mod impatient;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::access::Peer;
use super::counters::{ApiCounters, Denial};
use crate::changes::Running;
use crate::net::PrefixLimit;
use impatient::Impatient;

/// A caller finishes its TLS handshake, and the headers of each request, within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// A caller that reads nothing of what it is sent for this long is gone.
const STALL: Duration = Duration::from_secs(20);
/// The request line and all headers together.
const MAX_HEAD: usize = 16 * 1024;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// Connections of each listener.
const MAX_CONNECTIONS: usize = 256;
/// Connections from one source prefix.
const MAX_PER_PREFIX: usize = 64;
/// Wait after a failed accept, which is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the control socket: the kernel says who is there.
pub fn unix(listener: UnixListener, router: Router, counters: Arc<ApiCounters>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(credentials) = stream.peer_cred() else { continue };
            let (router, counters) = (router.clone(), Arc::clone(&counters));
            let peer = Peer::Unix { uid: credentials.uid() };
            tokio::spawn(async move {
                speak(stream, peer, router, &counters).await;
                drop(place);
            });
        }
    });
}

/// Serves TLS; certificate and key are those of the configuration in force.
pub fn tls(listener: TcpListener, router: Router, running: Arc<dyn Running>, counters: Arc<ApiCounters>) {
    accept(listener, Arc::clone(&counters), move |stream, address| {
        let (router, counters, config) = (router.clone(), Arc::clone(&counters), running.config());
        async move {
            let Some(tls) = &config.api.tls else { return };
            let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
            let stream = match tokio::time::timeout(PATIENCE, handshake).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    counters.denied(Denial::Unauthenticated);
                    return tracing::debug!(%address, %error, "API: TLS handshake failed");
                }
                Err(_) => return counters.denied(Denial::Slow),
            };
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificate = certificates.first().map(|certificate| Arc::from(certificate.as_ref()));
            speak(stream, Peer::Tls { address, certificate }, router, &counters).await;
        }
    });
}

/// Serves without TLS: nothing there changes anything or needs to be known.
pub fn plain(listener: TcpListener, router: Router, counters: Arc<ApiCounters>) {
    accept(listener, Arc::clone(&counters), move |stream, address| {
        let (router, counters) = (router.clone(), Arc::clone(&counters));
        async move { speak(stream, Peer::Tls { address, certificate: None }, router, &counters).await }
    });
}

fn accept<F>(
    listener: TcpListener,
    counters: Arc<ApiCounters>,
    mut welcome: impl FnMut(tokio::net::TcpStream, SocketAddr) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let limit = PrefixLimit::new(MAX_CONNECTIONS, MAX_PER_PREFIX, MAX_PER_PREFIX);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => match limit.admit(address.ip()) {
                    Some(permit) => {
                        let conversation = welcome(stream, address);
                        tokio::spawn(async move {
                            conversation.await;
                            drop(permit);
                        });
                    }
                    None => counters.denied(Denial::Busy),
                },
                Err(error) => {
                    tracing::debug!(%error, "accepting an HTTP connection failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
}

/// One connection until its end.
async fn speak<S>(stream: S, peer: Peer, router: Router, counters: &ApiCounters)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (router, peer) = (router.clone(), peer.clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            router.oneshot(request).await.map_err(|error: Infallible| error)
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Impatient::new(stream, STALL)), service);
    if let Err(error) = conversation.await {
        if error.is_timeout() || is_stall(&error) {
            counters.denied(Denial::Slow);
        }
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

fn is_stall(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}
