//! Bodies of requests: small, quick, and JSON.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::problem::{Kind, Problem};

/// The longest document that is taken: a connection with hundreds of children.
const MAX_BODY: usize = 256 * 1024;
/// A body is here within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the whole body before its handler sees it, or answers 408, 413 or 415.
pub async fn read(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let declares_json = parts.headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        let media = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        media.eq_ignore_ascii_case("application/json")
    });
    let bytes = match tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("a document has at most {MAX_BODY} octets");
            return Problem::new(Kind::TooLarge, detail).into_response();
        }
        Ok(Err(error)) => return Problem::new(Kind::BadRequest, error.to_string()).into_response(),
        Err(_) => return Problem::of(Kind::RequestTimeout).into_response(),
    };
    if !bytes.is_empty() && !declares_json {
        return Problem::of(Kind::UnsupportedMediaType).into_response();
    }
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

/// A body as JSON of a known form; an empty one is the default.
///
/// # Errors
/// If it is no JSON (400), or of another form (422).
pub fn parse<T: serde::de::DeserializeOwned + Default>(body: &Bytes) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { parse_needed(body) }
}

/// A body as JSON of a known form.
///
/// # Errors
/// If it is no JSON (400), or of another form (422).
pub fn parse_needed<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    // serde takes an array for a structure, by position.
    if body.iter().find(|octet| !octet.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Problem::new(Kind::Invalid, "an object is expected"));
    }
    serde_json::from_slice(body).map_err(|error| {
        let kind = if error.is_data() { Kind::Invalid } else { Kind::BadRequest };
        Problem::new(kind, error.to_string())
    })
}
