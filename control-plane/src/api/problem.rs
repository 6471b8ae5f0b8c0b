//! Errors as problem details (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::daemon::CommandError;

/// What went wrong, for people and programs.
#[derive(Debug, Serialize)]
pub struct Problem {
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip)]
    code: StatusCode,
}

impl Problem {
    /// A problem of a kind.
    pub fn new(code: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { title, status: code.as_u16(), detail: detail.into(), code }
    }

    /// A part of the daemon does not answer.
    pub fn stuck() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not answering", "an IKE shard does not answer in time")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.code;
        let mut response = (code, Json(self)).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let (code, title) = match &error {
            CommandError::UnknownConnection(_) => (StatusCode::NOT_FOUND, "unknown connection"),
            CommandError::UnknownChild(_) => (StatusCode::NOT_FOUND, "unknown child"),
            CommandError::Failed(_) => (StatusCode::CONFLICT, "failed"),
            CommandError::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "timed out"),
        };
        Self::new(code, title, error.to_string())
    }
}

/// No such path.
pub async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not found", format!("there is nothing at {}", uri.path()))
}
