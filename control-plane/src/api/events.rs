//! The events stream (server-sent events).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::stream::{self, Stream, StreamExt};

use super::Api;
use super::problem::{Kind, Problem};
use crate::events::{Events, MAX_READERS, Numbered, Subscription};

/// A comment is sent after this much silence, so that a lost connection shows.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What happens, as it happens. Each event has an `id`; a reader that comes back with `Last-Event-ID` gets what it missed.
/// An event `gap` comes first if some of it is not kept any more. A reader that does not keep up is cut off.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(("last-event-id" = Option<String>, Header, description = "The `id` of the last event that was seen")),
    responses((status = 200, description = "Events, each with one JSON object as its data", body = String,
        content_type = "text/event-stream"), (status = 503, body = Problem)))]
pub async fn stream(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default());
    let Some(Subscription { has_gap, missed, coming }) = api.events.subscribe(last) else {
        return Err(Problem::new(Kind::Unavailable, format!("{MAX_READERS} readers are here already")));
    };
    let gap = has_gap.then(|| Event::default().event("gap").data("{\"event\":\"gap\"}"));
    let events = Arc::clone(&api.events);
    let coming = stream::unfold(coming, |mut coming| async move { Some((coming.recv().await?, coming)) });
    let numbered = stream::iter(missed).chain(coming).map(move |event| written(&events, &event));
    let all = stream::iter(gap).chain(numbered).map(Ok);
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn written(events: &Events, event: &Numbered) -> Event {
    Event::default().id(events.id(event.number)).event(event.kind).data(&*event.data)
}
