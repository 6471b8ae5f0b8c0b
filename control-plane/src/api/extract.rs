//! Parts of requests that several handlers take.

use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::access::Caller;
use super::etag::Conditions;
use super::problem::{Kind, Problem};
use crate::changes;
use crate::config::duration;

/// Confirmation is asked for within this time at most.
const MAX_CONFIRM: Duration = Duration::from_secs(24 * 3600);

/// The name in a path.
#[derive(Debug)]
pub struct Name(pub String);

/// A request that wants to change something: who, from where, on what conditions.
#[derive(Debug)]
pub struct Change {
    /// What its author takes for granted.
    pub conditions: Conditions,
    caller: Caller,
    method: Method,
    uri: Uri,
    confirm_within: Option<Duration>,
}

#[derive(Deserialize)]
struct Confirmation {
    confirm_within: Option<String>,
}

impl Change {
    /// For the changes and the audit log; `detail` says in a few words what is asked for.
    pub fn request(&self, detail: impl Into<String>) -> changes::Request {
        changes::Request {
            who: self.caller.who.clone(),
            from: self.caller.from.clone(),
            action: format!("{} {}", self.method, self.uri.path()),
            detail: detail.into(),
            confirm_within: self.confirm_within,
        }
    }
}

/// The query of a request as a known form.
///
/// # Errors
/// If it has another one (400).
pub fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    Query::try_from_uri(uri)
        .map(|Query(query)| query)
        .map_err(|error| Problem::new(Kind::BadRequest, error.body_text()))
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(error) => Err(Problem::new(Kind::BadRequest, error.body_text())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Change {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let Confirmation { confirm_within } = query(&parts.uri)?;
        let confirm_within = confirm_within.map(|text| match duration(&text) {
            Ok(within) if within <= MAX_CONFIRM => Ok(within),
            Ok(_) => Err(Problem::new(Kind::BadRequest, "confirm_within is at most 24h")),
            Err(message) => Err(Problem::new(Kind::BadRequest, format!("confirm_within: {message}"))),
        });
        Ok(Self {
            conditions: Conditions::of(&parts.headers),
            caller: caller.ok_or_else(|| Problem::of(Kind::Unauthenticated))?,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            confirm_within: confirm_within.transpose()?,
        })
    }
}
