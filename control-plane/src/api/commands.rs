//! What an operator can ask of a connection. Each request is answered with its outcome.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use portcullis_ike::command::CommandKind;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body;
use super::extract::{Change, Name};
use super::problem::Problem;

/// What is meant; an empty body means everything of the connection.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// One child.
    #[serde(default)]
    child: Option<String>,
    /// The IKE SA itself (`rekey` only).
    #[serde(default)]
    ike: bool,
}

/// Another gateway.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Its address.
    #[schema(value_type = String)]
    to: IpAddr,
}

/// The outcome.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    /// In words.
    result: String,
}

/// Brings a connection up and waits for the outcome.
#[utoipa::path(post, path = "/v1/connections/{name}/up", tag = "commands", request_body = Option<Wish>,
    params(("name" = String, Path, description = "Name of the connection")),
    responses((status = 200, body = Done), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 504, body = Problem)))]
pub async fn up(
    api: State<Arc<Api>>,
    name: Name,
    change: Change,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    carry_out(api, name, change, &body, |wish| CommandKind::Up { child: wish.child }).await
}

/// Takes a connection down. Its traffic stays shut.
#[utoipa::path(post, path = "/v1/connections/{name}/down", tag = "commands", request_body = Option<Wish>,
    params(("name" = String, Path, description = "Name of the connection")),
    responses((status = 200, body = Done), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 504, body = Problem)))]
pub async fn down(
    api: State<Arc<Api>>,
    name: Name,
    change: Change,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    carry_out(api, name, change, &body, |wish| CommandKind::Down { child: wish.child }).await
}

/// New keys now, without loss.
#[utoipa::path(post, path = "/v1/connections/{name}/rekey", tag = "commands", request_body = Option<Wish>,
    params(("name" = String, Path, description = "Name of the connection")),
    responses((status = 200, body = Done), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 504, body = Problem)))]
pub async fn rekey(
    api: State<Arc<Api>>,
    name: Name,
    change: Change,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    let kind = |wish: Wish| match wish.ike {
        true => CommandKind::RekeyIke,
        false => CommandKind::RekeyChild { child: wish.child },
    };
    carry_out(api, name, change, &body, kind).await
}

/// Verifies direct carriers by ESP echo now, or tries them while ESP is in TCP. Does not wait for what it comes to: that is an
/// event, and in the status.
#[utoipa::path(post, path = "/v1/connections/{name}/probe", tag = "commands",
    params(("name" = String, Path, description = "Name of the connection")),
    responses((status = 200, body = Done), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 504, body = Problem)))]
pub async fn probe(
    api: State<Arc<Api>>,
    name: Name,
    change: Change,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    carry_out(api, name, change, &body, |_: Wish| CommandKind::Probe).await
}

/// Sends the peers of a connection to another gateway (RFC 5685): those that have initiated an IKE SA with this one and know
/// REDIRECT. They go when they have an IKE SA there, or after `redirect.grace`.
#[utoipa::path(post, path = "/v1/connections/{name}/redirect", tag = "commands", request_body = Elsewhere,
    params(("name" = String, Path, description = "Name of the connection")),
    responses((status = 200, body = Done), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 504, body = Problem)))]
pub async fn redirect(
    api: State<Arc<Api>>,
    name: Name,
    change: Change,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    let Elsewhere { to } = body::parse_needed(&body)?;
    run(api, name, change, CommandKind::Redirect { to }).await
}

async fn carry_out(
    api: State<Arc<Api>>,
    name: Name,
    change: Change,
    body: &Bytes,
    kind: impl FnOnce(Wish) -> CommandKind,
) -> Result<Json<Done>, Problem> {
    run(api, name, change, kind(body::parse(body)?)).await
}

async fn run(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    change: Change,
    kind: CommandKind,
) -> Result<Json<Done>, Problem> {
    let request = change.request(format!("{kind:?}"));
    api.changes.record(&request, "accepted")?;
    match api.running.command(name, kind).await {
        Ok(result) => {
            api.changes.record_outcome(&request, "done");
            Ok(Json(Done { result: if result.is_empty() { "done".to_owned() } else { result } }))
        }
        Err(error) => {
            api.changes.record_outcome(&request, &format!("failed: {error}"));
            Err(error.into())
        }
    }
}
