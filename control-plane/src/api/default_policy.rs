//! The ESP policy of connections that say nothing about it themselves.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::change_view::PendingChange;
use super::etag::Tag;
use super::extract::Change;
use super::policy::{EspPolicyDocument, EspPolicyView, news, read};
use super::problem::Problem;
use crate::changes::{Refusal, Waiting};
use crate::config::PolicySource;
use crate::store::PolicyWord;

/// The policy of connections that say nothing themselves.
#[utoipa::path(get, path = "/v1/defaults/esp-policy", tag = "policy",
    responses((status = 200, body = EspPolicyView)))]
pub async fn get(State(api): State<Arc<Api>>) -> Response {
    answer(&api, None)
}

/// Sets it. It acts on connections whose configuration has no `esp.on_unreachable` and that have no override.
#[utoipa::path(put, path = "/v1/defaults/esp-policy", tag = "policy", request_body = EspPolicyDocument,
    params(super::openapi::ConfirmWithin, ("if-match" = Option<String>, Header, description = "Only if this version holds")),
    responses((status = 200, body = EspPolicyView), (status = 409, body = Problem), (status = 412, body = Problem),
        (status = 422, body = Problem)))]
pub async fn put(State(api): State<Arc<Api>>, change: Change, body: Bytes) -> Result<Response, Problem> {
    let word = read(&body)?;
    set(&api, change, Some(word)).await
}

/// Removes it: fail-closed, the built-in default, holds again.
#[utoipa::path(delete, path = "/v1/defaults/esp-policy", tag = "policy",
    params(super::openapi::ConfirmWithin, ("if-match" = Option<String>, Header, description = "Only if this version holds")),
    responses((status = 200, body = EspPolicyView), (status = 409, body = Problem), (status = 412, body = Problem)))]
pub async fn delete(State(api): State<Arc<Api>>, change: Change) -> Result<Response, Problem> {
    set(&api, change, None).await
}

async fn set(api: &Arc<Api>, change: Change, word: Option<PolicyWord>) -> Result<Response, Problem> {
    let what = word.map_or("removed", PolicyWord::label);
    let request = change.request(format!("default on_unreachable {what}"));
    let news = news(None, format!("default {what}"));
    let conditions = change.conditions;
    let waiting = api
        .changes
        .change(request, news, move |entries, _| {
            conditions.check(Some(&tag(entries.default_policy))).map_err(Refusal::Precondition)?;
            entries.default_policy = word;
            Ok(())
        })
        .await?;
    Ok(answer(api, waiting))
}

fn answer(api: &Api, waiting: Option<Waiting>) -> Response {
    let word = api.changes.default_policy();
    let view = EspPolicyView {
        on_unreachable: word.unwrap_or(PolicyWord::FailClosed),
        source: source(word),
        pending: waiting.map(PendingChange::from),
    };
    ([tag(word).header()], Json(view)).into_response()
}

fn source(word: Option<PolicyWord>) -> &'static str {
    word.map_or(PolicySource::BuiltIn, |_| PolicySource::ApiDefault).label()
}

fn tag(word: Option<PolicyWord>) -> Tag {
    Tag::of(&[word.unwrap_or(PolicyWord::FailClosed).label(), source(word)])
}
