//! Packets of the fast path, as a pcapng file that grows.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt};
use portcullis_data_plane::handle::Capture;
use portcullis_data_plane::tap::TapOptions;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Change, query};
use super::problem::{Kind, Problem};
use crate::capture;

/// After this much silence the file grows by a count, so that a reader who left is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const DEFAULT_SNAPLEN: u32 = 65_535;

/// What to capture.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only packets of this connection.
    #[param(required = false)]
    connection: Option<String>,
    /// Octets to keep of each packet; all by default.
    #[param(required = false, minimum = 1, maximum = 65535)]
    snaplen: Option<u16>,
    /// The file ends after so many packets.
    #[param(required = false, minimum = 1)]
    packets: Option<u64>,
    /// The file ends after so many seconds.
    #[param(required = false, minimum = 1, maximum = 86400)]
    seconds: Option<u32>,
}

/// What passes the workers, in clear and as ESP, in both directions, until the reader leaves: AF_XDP takes packets past tcpdump.
/// There is one capture at a time. Whoever reads it reads the traffic, so it is for `admin` and in the audit log.
#[utoipa::path(get, path = "/v1/capture", tag = "status", params(Wanted),
    responses((status = 200, description = "A file in pcapng", body = Vec<u8>, content_type = "application/x-pcapng"),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub async fn stream(State(api): State<Arc<Api>>, change: Change, uri: Uri) -> Result<Response, Problem> {
    let wanted: Wanted = query(&uri)?;
    let is_in_range = wanted.snaplen != Some(0) && wanted.packets != Some(0) && wanted.seconds != Some(0);
    if !is_in_range || wanted.seconds.is_some_and(|seconds| seconds > 86_400) {
        return Err(Problem::new(
            Kind::BadRequest,
            "snaplen, packets and seconds are at least 1, seconds at most 86400",
        ));
    }
    if let Some(name) = &wanted.connection
        && api.running.config().connection(name).is_none()
    {
        return Err(Problem::new(Kind::UnknownConnection, format!("no connection {name}")));
    }
    let snaplen = wanted.snaplen.map_or(DEFAULT_SNAPLEN, u32::from) as usize;
    let request = change.request(format!("{wanted:?}"));
    api.changes.record(&request, "accepted")?;
    let options = TapOptions { connection: wanted.connection.as_deref().map(Arc::from), snaplen };
    let Some(capture) = api.running.capture(options) else {
        const REASON: &str = "somebody captures already";
        api.changes.record_outcome(&request, &format!("failed: {REASON}"));
        return Err(Problem::new(Kind::Conflict, REASON));
    };
    let file = stream::iter([capture::head(snaplen)]).chain(packets(capture, &wanted));
    let body = Body::from_stream(file.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/x-pcapng")], body).into_response())
}

/// What is left to do of a capture.
struct Rest {
    capture: Capture,
    packets: Option<u64>,
    until: Option<Instant>,
    is_over: bool,
}

fn packets(capture: Capture, wanted: &Wanted) -> impl Stream<Item = Vec<u8>> + use<> {
    let until = wanted.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let rest = Rest { capture, packets: wanted.packets, until, is_over: false };
    stream::unfold(rest, |mut rest| async move {
        if rest.is_over {
            return None;
        }
        let due = Instant::now() + KEEP_ALIVE;
        let due = rest.until.map_or(due, |until| due.min(until));
        let part = tokio::select! {
            seen = rest.capture.next() => seen.map(|seen| capture::packet(&seen)),
            () = tokio::time::sleep_until(due) => None,
        };
        if part.is_some() {
            rest.packets = rest.packets.map(|packets| packets - 1);
        }
        rest.is_over = rest.packets == Some(0) || rest.until.is_some_and(|until| Instant::now() >= until);
        let mut part = part.unwrap_or_default();
        if part.is_empty() || rest.is_over {
            part.extend(capture::statistics(rest.capture.missed()));
        }
        Some((part, rest))
    })
}
