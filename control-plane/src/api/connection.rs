//! One connection: how it is, what is configured, and the way to change that.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::change_view::PendingChange;
use super::etag::Tag;
use super::extract::{Change, Name};
use super::problem::{Kind, Problem};
use crate::changes::{News, Precondition, Refusal};
use crate::config::{self, Config, Secrets};
use crate::status::{Connection, Status};
use crate::store::read_document;

/// The keys that name a secret: taken, never told.
const SECRET_KEYS: [&str; 3] = ["secret_file", "credential", "key"];
/// The sections that have them.
const SECTIONS_WITH_SECRETS: [&str; 3] = ["local", "remote", "ppk"];

/// A connection: how it is, and what is configured.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct ConnectionView {
    /// How its traffic travels now.
    #[serde(flatten)]
    pub live: Connection,
    /// What is configured, with the keys of the configuration file. Where secrets come from is not told.
    #[schema(value_type = super::openapi::ConnectionDocument)]
    pub configuration: Value,
    /// `configuration`: the file; `api`: `PUT`.
    pub configured_by: &'static str,
}

/// What became of a connection.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct ConnectionChanged {
    /// Its name.
    pub name: String,
    /// `created`, `replaced` or `removed`; after `removed` the file's connection of that name holds again, if it has one.
    pub result: &'static str,
    /// The change that is undone unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingChange>,
}

/// One connection. Its ETag names the configuration; the live state changes without it.
#[utoipa::path(get, path = "/v1/connections/{name}", tag = "connections",
    params(("name" = String, Path, description = "Name of the connection")),
    responses((status = 200, body = ConnectionView), (status = 404, body = Problem)))]
pub async fn get(State(api): State<Arc<Api>>, Name(name): Name) -> Result<Response, Problem> {
    let snapshot = api.running.snapshot().await.ok_or_else(Problem::stuck)?;
    let unknown = || Problem::unknown_connection(&name);
    let configured = snapshot.config.connection(&name).ok_or_else(unknown)?;
    let live = Status::of_connection(&snapshot, &name).ok_or_else(unknown)?;
    let view = ConnectionView {
        live,
        configuration: without_secrets(document(configured)),
        configured_by: if configured.is_from_api { "api" } else { "configuration" },
    };
    Ok(([tag(configured).header()], Json(view)).into_response())
}

/// Creates or replaces a connection. To replace one, say with If-Match which version is meant. Secrets are named, by file
/// or credential; where a replacement names none, those of before stay.
#[utoipa::path(put, path = "/v1/connections/{name}", tag = "connections",
    params(("name" = String, Path, description = "Name of the connection"), super::openapi::ConfirmWithin,
        ("if-match" = Option<String>, Header, description = "Needed to replace: the ETag that was read, or `*`"),
        ("if-none-match" = Option<String>, Header, description = "`*`: only create")),
    request_body = super::openapi::ConnectionDocument,
    responses((status = 200, body = ConnectionChanged), (status = 201, body = ConnectionChanged),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 422, body = Problem),
        (status = 428, body = Problem)))]
pub async fn put(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    change: Change,
    body: Bytes,
) -> Result<Response, Problem> {
    // Twice: the reader of the configuration refuses what JSON allows, such as a key that is there twice.
    let document: Value = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(Kind::BadRequest, format!("the body is no JSON: {error}")))?;
    let existed = api.running.config().connection(&name).is_some();
    let read = config::read_connection(&name, &body, &Secrets::Skip);
    // A replacement may leave its secrets out; then the whole is read below.
    if let (Err(problems), false) = (read, existed) {
        return Err(Problem::invalid(problems));
    }
    let (conditions, wanted) = (change.conditions.clone(), name.clone());
    let edit = move |entries: &mut crate::store::Entries, config: &Config| {
        let present = config.connection(&wanted);
        conditions.check_needed(present.map(tag).as_ref()).map_err(Refusal::Precondition)?;
        let document = match present {
            Some(present) => with_secrets_of(document, &self::document(present)),
            None => document,
        };
        read_document(&wanted, &document, &Secrets::of_this_process()).map_err(Refusal::Invalid)?;
        entries.connections.insert(wanted, document);
        Ok(())
    };
    let (status, result) =
        if existed { (StatusCode::OK, "replaced") } else { (StatusCode::CREATED, "created") };
    let news =
        News { kind: "connection_configured", connection: Some(name.clone()), what: result.to_owned() };
    let waiting = api.changes.change(change.request(""), news, edit).await;
    let waiting = waiting.map_err(|refusal| in_document(refusal, &name))?;
    let config = api.running.config();
    let tag = config.connection(&name).map(|connection| tag(connection).header());
    let changed = ConnectionChanged { name, result, pending: waiting.map(PendingChange::from) };
    let mut response = (status, Json(changed)).into_response();
    response.headers_mut().extend(tag);
    Ok(response)
}

/// Removes a connection that the API has made. The guard covers its traffic until its SAs are gone.
#[utoipa::path(delete, path = "/v1/connections/{name}", tag = "connections",
    params(("name" = String, Path, description = "Name of the connection"), super::openapi::ConfirmWithin,
        ("if-match" = Option<String>, Header, description = "Needed: the ETag that was read, or `*`")),
    responses((status = 200, body = ConnectionChanged), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 428, body = Problem)))]
pub async fn delete(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    change: Change,
) -> Result<Json<ConnectionChanged>, Problem> {
    let (conditions, wanted) = (change.conditions.clone(), name.clone());
    let edit = move |entries: &mut crate::store::Entries, config: &Config| {
        let present = config.connection(&wanted).ok_or_else(|| {
            Refusal::Precondition(Precondition::NotFound(format!("no connection '{wanted}' is configured")))
        })?;
        if !present.is_from_api {
            let detail = format!("{wanted} is in the configuration file: remove it there and reload");
            return Err(Refusal::Precondition(Precondition::InFile(detail)));
        }
        conditions.check_needed(Some(&tag(present))).map_err(Refusal::Precondition)?;
        entries.remove_connection(&wanted);
        Ok(())
    };
    let news =
        News { kind: "connection_removed", connection: Some(name.clone()), what: "removed".to_owned() };
    let waiting = api.changes.change(change.request(""), news, edit).await?;
    let pending = waiting.map(PendingChange::from);
    Ok(Json(ConnectionChanged { name, result: "removed", pending }))
}

/// Names the configuration of a connection.
fn tag(connection: &config::Connection) -> Tag {
    Tag::of(&[&connection.document, if connection.is_from_api { "api" } else { "configuration" }])
}

fn document(connection: &config::Connection) -> Value {
    serde_json::from_str(&connection.document).unwrap_or_default()
}

fn without_secrets(mut document: Value) -> Value {
    for section in SECTIONS_WITH_SECRETS {
        if let Some(section) = document.get_mut(section).and_then(Value::as_object_mut) {
            section.retain(|key, _| !SECRET_KEYS.contains(&key.as_str()));
        }
    }
    document
}

/// A section that names no secret keeps the one of `before`, unless it proves an identity by another method now.
fn with_secrets_of(mut document: Value, before: &Value) -> Value {
    for section in SECTIONS_WITH_SECRETS {
        let (Some(new), Some(old)) = (
            document.get_mut(section).and_then(Value::as_object_mut),
            before.get(section).and_then(Value::as_object),
        ) else {
            continue;
        };
        let is_same_method = new.get("auth") == old.get("auth");
        if is_same_method && !SECRET_KEYS.iter().any(|key| new.contains_key(*key)) {
            let secrets = old.iter().filter(|(key, _)| SECRET_KEYS.contains(&key.as_str()));
            new.extend(secrets.map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    document
}

/// Keys count from the document of the request.
fn in_document(refusal: Refusal, name: &str) -> Refusal {
    let prefix = format!("connections.{name}");
    match refusal {
        Refusal::Invalid(problems) => {
            let strip = |problem: config::Problem| match problem.key.strip_prefix(&prefix) {
                Some(key) => config::Problem { key: key.trim_start_matches('.').to_owned(), ..problem },
                None => problem,
            };
            Refusal::Invalid(problems.into_iter().map(strip).collect())
        }
        refusal => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn where_secrets_come_from_is_never_told_and_survives_a_replacement() {
        let before = json!({"local": {"id": "a", "secret_file": "/s"}, "remote": {"credential": "c"},
            "ppk": {"id": "p", "secret_file": "/p"}});
        let told = without_secrets(before.clone());
        assert_eq!(told, json!({"local": {"id": "a"}, "remote": {}, "ppk": {"id": "p"}}));
        assert_eq!(with_secrets_of(told, &before), before);
        let other = json!({"local": {"credential": "new"}, "remote": {"secret_file": "/t"},
            "ppk": {"id": "p", "credential": "q"}});
        assert_eq!(with_secrets_of(other.clone(), &before), other);
        let before = json!({"local": {"auth": "cert", "certificate": "/c", "key": "/k"}, "remote": {}});
        let told = without_secrets(before.clone());
        assert_eq!(told, json!({"local": {"auth": "cert", "certificate": "/c"}, "remote": {}}));
        assert_eq!(with_secrets_of(told, &before), before);
        let other = json!({"local": {"auth": "psk"}, "remote": {}});
        assert_eq!(with_secrets_of(other.clone(), &before), other);
    }
}
