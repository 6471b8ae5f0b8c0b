//! Errors as problem details (RFC 9457). Each kind has a stable `type` that a program may rely on.

use std::fmt;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::changes::{Precondition, Refusal};
use crate::config;
use crate::daemon::CommandError;

/// Kinds of problems.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The request is no HTTP request for us: syntax, a parameter.
    BadRequest,
    /// No token or certificate, or a wrong one.
    Unauthenticated,
    /// The role is not enough.
    Forbidden,
    /// Nothing is at this path.
    NotFound,
    /// No connection of this name.
    UnknownConnection,
    /// The connection has no child of this name.
    UnknownChild,
    /// No change of this name waits.
    UnknownChange,
    /// Not this method.
    MethodNotAllowed,
    /// The request took too long.
    RequestTimeout,
    /// It cannot be done as things are.
    Conflict,
    /// Another change waits for its confirmation.
    ChangePending,
    /// It is another version by now.
    Stale,
    /// The body is too long.
    TooLarge,
    /// The body is no JSON by its own account.
    UnsupportedMediaType,
    /// The document is not valid.
    Invalid,
    /// If-Match is missing.
    PreconditionRequired,
    /// A part of the daemon does not answer, or is not ready.
    Unavailable,
    /// The policy store cannot be read.
    StoreUnreadable,
    /// No outcome in time.
    NoOutcome,
    /// The state directory takes nothing.
    StateNotWritable,
}

/// What went wrong, for people and programs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of problem, a URN.
    #[serde(rename = "type")]
    uri: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What it is this time.
    detail: String,
    /// What is wrong with a document, value by value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Invalid>,
    #[serde(skip)]
    kind: Kind,
}

/// One wrong value of a document.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Invalid {
    /// Its key from the root of the document.
    pub field: String,
    /// What is wrong, and what would be right.
    pub detail: String,
    /// The words that would be right, where they are few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// Line of the configuration file, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
}

impl Kind {
    /// The last part of the `type`, the status, the title.
    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => ("bad-request", S::BAD_REQUEST, "bad request"),
            Self::Unauthenticated => {
                ("unauthenticated", S::UNAUTHORIZED, "a token or a client certificate is needed")
            }
            Self::Forbidden => ("forbidden", S::FORBIDDEN, "the role is not enough"),
            Self::NotFound => ("not-found", S::NOT_FOUND, "not found"),
            Self::UnknownConnection => ("unknown-connection", S::NOT_FOUND, "unknown connection"),
            Self::UnknownChild => ("unknown-child", S::NOT_FOUND, "unknown child"),
            Self::UnknownChange => ("unknown-change", S::NOT_FOUND, "unknown change"),
            Self::MethodNotAllowed => ("method-not-allowed", S::METHOD_NOT_ALLOWED, "method not allowed"),
            Self::RequestTimeout => ("request-timeout", S::REQUEST_TIMEOUT, "the request took too long"),
            Self::Conflict => ("failed", S::CONFLICT, "failed"),
            Self::ChangePending => {
                ("change-pending", S::CONFLICT, "another change waits for its confirmation")
            }
            Self::Stale => ("stale", S::PRECONDITION_FAILED, "it has changed since"),
            Self::TooLarge => ("too-large", S::PAYLOAD_TOO_LARGE, "the document is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "application/json is expected")
            }
            Self::Invalid => ("invalid", S::UNPROCESSABLE_ENTITY, "the document is not valid"),
            Self::PreconditionRequired => {
                ("precondition-required", S::PRECONDITION_REQUIRED, "If-Match is needed")
            }
            Self::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, "not answering"),
            Self::StoreUnreadable => {
                ("store-unreadable", S::SERVICE_UNAVAILABLE, "the policy store cannot be read")
            }
            Self::NoOutcome => ("timed-out", S::GATEWAY_TIMEOUT, "timed out"),
            Self::StateNotWritable => {
                ("state-not-writable", S::INSUFFICIENT_STORAGE, "the state directory cannot be written")
            }
        }
    }
}

impl Problem {
    /// A problem of a kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (name, status, title) = kind.parts();
        Self {
            uri: format!("urn:portcullis:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            kind,
        }
    }

    /// A problem of which the kind says everything.
    pub fn of(kind: Kind) -> Self {
        Self::new(kind, kind.parts().2)
    }

    /// A document that is not valid.
    pub fn invalid(problems: Vec<config::Problem>) -> Self {
        let errors: Vec<_> = problems.into_iter().map(Invalid::from).collect();
        let detail = errors.first().map(ToString::to_string).unwrap_or_default();
        let detail = match errors.len() {
            0 | 1 => detail,
            count => format!("{detail} (and {} more)", count - 1),
        };
        Self { errors, ..Self::new(Kind::Invalid, detail) }
    }

    /// A part of the daemon does not answer.
    pub fn stuck() -> Self {
        Self::new(Kind::Unavailable, "an IKE shard does not answer in time")
    }

    /// No connection of this name.
    pub fn unknown_connection(name: &str) -> Self {
        Self::new(Kind::UnknownConnection, format!("no connection '{name}' is configured"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.detail)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.detail)
    }
}

impl From<config::Problem> for Invalid {
    fn from(problem: config::Problem) -> Self {
        let line = (problem.mark.line > 0).then_some(problem.mark.line);
        Self { field: problem.key, detail: problem.message, allowed: problem.allowed, line }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (_, code, _) = self.kind.parts();
        let mut response = (code, Json(self)).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        if code == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"portcullis\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let kind = match &error {
            CommandError::UnknownConnection(_) => Kind::UnknownConnection,
            CommandError::UnknownChild(_) => Kind::UnknownChild,
            CommandError::Failed(_) => Kind::Conflict,
            CommandError::TimedOut => Kind::NoOutcome,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Invalid(problems) => return Self::invalid(problems),
            Refusal::File(refused) => return Self::invalid(refused.errors),
            Refusal::Pending(_) => Kind::ChangePending,
            Refusal::StoreUnreadable(_) => Kind::StoreUnreadable,
            Refusal::Storage(_) => Kind::StateNotWritable,
            Refusal::Failed(_) => Kind::Conflict,
            Refusal::Precondition(Precondition::NotFound(_)) => Kind::UnknownConnection,
            Refusal::Precondition(Precondition::Stale | Precondition::Exists) => Kind::Stale,
            Refusal::Precondition(Precondition::Missing) => Kind::PreconditionRequired,
            Refusal::Precondition(Precondition::InFile(_)) => Kind::Conflict,
        };
        Self::new(kind, refusal.to_string())
    }
}

/// No such path.
pub async fn not_found(uri: Uri) -> Problem {
    Problem::new(Kind::NotFound, format!("there is nothing at {}", uri.path()))
}
