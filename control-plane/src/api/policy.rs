//! The ESP policy of one connection: what happens when no direct carrier passes ESP.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::change_view::PendingChange;
use super::etag::Tag;
use super::extract::{Change, Name};
use super::problem::{Kind, Problem};
use crate::changes::{News, Precondition, Refusal, Waiting};
use crate::config::{self, Connection};
use crate::store::{PolicyWord, check_policy};

/// The policy that holds, and who says so.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct EspPolicyView {
    /// What happens when no direct carrier passes ESP.
    pub on_unreachable: PolicyWord,
    /// `api`: an override; `configuration`: `esp.on_unreachable` of the connection; `api-default`, `built-in`: nothing was
    /// said about it; `store-unreadable`: fail-closed until the policy store can be read.
    pub source: &'static str,
    /// The change that is undone unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// The wanted policy.
#[derive(Deserialize, ToSchema)]
#[schema(as = EspPolicy)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the form for the API description; the reader of the configuration reads it")]
pub struct EspPolicyDocument {
    /// What is to happen when no direct carrier passes ESP.
    pub on_unreachable: PolicyWord,
}

/// The policy of a connection that holds now.
#[utoipa::path(get, path = "/v1/connections/{name}/esp-policy", tag = "policy",
    params(("name" = String, Path, description = "Name of the connection")),
    responses((status = 200, body = EspPolicyView), (status = 304, description = "The caller has this version"),
        (status = 404, body = Problem)))]
pub async fn get(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    headers: axum::http::HeaderMap,
) -> Result<Response, Problem> {
    let config = api.running.config();
    let connection = config.connection(&name).ok_or_else(|| Problem::unknown_connection(&name))?;
    let tag = tag(connection);
    if super::etag::Conditions::of(&headers).has(&tag) {
        return Ok((axum::http::StatusCode::NOT_MODIFIED, [tag.header()]).into_response());
    }
    Ok(answer(connection, None))
}

/// Overrides the policy of a connection. It is on the disk before it acts, and acts on live SAs within a second.
#[utoipa::path(put, path = "/v1/connections/{name}/esp-policy", tag = "policy",
    params(("name" = String, Path, description = "Name of the connection"), super::openapi::ConfirmWithin,
        ("if-match" = Option<String>, Header, description = "Only if this version holds")),
    request_body = EspPolicyDocument,
    responses((status = 200, body = EspPolicyView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 422, body = Problem)))]
pub async fn put(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    change: Change,
    body: Bytes,
) -> Result<Response, Problem> {
    let word = read(&body)?;
    let request = change.request(format!("on_unreachable {}", word.label()));
    let news = news(Some(&name), word.label());
    let (conditions, wanted) = (change.conditions, name.clone());
    let waiting = api
        .changes
        .change(request, news, move |entries, config| {
            let connection = config.connection(&wanted).ok_or_else(|| unknown(&wanted))?;
            conditions.check(Some(&tag(connection))).map_err(Refusal::Precondition)?;
            let problems = check_policy(connection, word);
            if !problems.is_empty() {
                // The document of the request has one key; the others are where the contradiction is.
                return Err(Refusal::Invalid(problems.into_iter().map(at_root).collect()));
            }
            entries.policies.insert(wanted, word);
            Ok(())
        })
        .await?;
    now(&api, &name, waiting)
}

/// Removes the override: what the configuration says holds again.
#[utoipa::path(delete, path = "/v1/connections/{name}/esp-policy", tag = "policy",
    params(("name" = String, Path, description = "Name of the connection"), super::openapi::ConfirmWithin,
        ("if-match" = Option<String>, Header, description = "Only if this version holds")),
    responses((status = 200, body = EspPolicyView), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem)))]
pub async fn delete(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    change: Change,
) -> Result<Response, Problem> {
    let request = change.request("override removed");
    let news = news(Some(&name), "override removed");
    let (conditions, wanted) = (change.conditions, name.clone());
    let waiting = api
        .changes
        .change(request, news, move |entries, config| {
            let connection = config.connection(&wanted).ok_or_else(|| unknown(&wanted))?;
            conditions.check(Some(&tag(connection))).map_err(Refusal::Precondition)?;
            entries.policies.remove(&wanted);
            Ok(())
        })
        .await?;
    now(&api, &name, waiting)
}

/// What readers of the events stream are told.
pub(super) fn news(connection: Option<&str>, what: impl Into<String>) -> News {
    News { kind: "policy_changed", connection: connection.map(str::to_owned), what: what.into() }
}

/// Reads the wanted policy with the reader of the configuration.
pub(super) fn read(body: &Bytes) -> Result<PolicyWord, Problem> {
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        return Err(Problem::new(Kind::BadRequest, format!("the body is no JSON: {error}")));
    }
    config::read_policy(body).map(PolicyWord::from).map_err(Problem::invalid)
}

fn now(api: &Api, name: &str, waiting: Option<Waiting>) -> Result<Response, Problem> {
    let config = api.running.config();
    let connection = config.connection(name).ok_or_else(|| Problem::unknown_connection(name))?;
    Ok(answer(connection, waiting))
}

fn answer(connection: &Connection, waiting: Option<Waiting>) -> Response {
    let view = EspPolicyView {
        on_unreachable: connection.ike.esp.on_unreachable.into(),
        source: connection.policy_source.label(),
        pending: waiting.map(PendingChange::from),
    };
    ([tag(connection).header()], Json(view)).into_response()
}

fn tag(connection: &Connection) -> Tag {
    let word = PolicyWord::from(connection.ike.esp.on_unreachable);
    Tag::of(&[word.label(), connection.policy_source.label()])
}

fn unknown(name: &str) -> Refusal {
    Refusal::Precondition(Precondition::NotFound(format!("no connection '{name}' is configured")))
}

fn at_root(problem: config::Problem) -> config::Problem {
    match problem.key.strip_prefix("esp.on_unreachable") {
        Some("") => config::Problem { key: "on_unreachable".to_owned(), ..problem },
        _ => problem,
    }
}
