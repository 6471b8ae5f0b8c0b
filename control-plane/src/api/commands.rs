//! What an operator can ask for. Each request is answered with its outcome.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use portcullis_ike::command::CommandKind;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::daemon::Gateway;

/// The body of a request; an empty one means everything of the connection.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// One child.
    #[serde(default)]
    child: Option<String>,
    /// The IKE SA itself (`rekey` only).
    #[serde(default)]
    ike: bool,
}

/// The body of an answer.
#[derive(Debug, Serialize)]
pub struct Done {
    result: String,
}

/// `POST /v1/connections/{name}/up`.
pub async fn up(state: State<Arc<Gateway>>, path: Path<String>, body: Bytes) -> Result<Json<Done>, Problem> {
    carry_out(state, path, &body, |wish| CommandKind::Up { child: wish.child }).await
}

/// `POST /v1/connections/{name}/down`.
pub async fn down(
    state: State<Arc<Gateway>>,
    path: Path<String>,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    carry_out(state, path, &body, |wish| CommandKind::Down { child: wish.child }).await
}

/// `POST /v1/connections/{name}/rekey`.
pub async fn rekey(
    state: State<Arc<Gateway>>,
    path: Path<String>,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    let kind = |wish: Wish| match wish.ike {
        true => CommandKind::RekeyIke,
        false => CommandKind::RekeyChild { child: wish.child },
    };
    carry_out(state, path, &body, kind).await
}

async fn carry_out(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    body: &[u8],
    kind: impl FnOnce(Wish) -> CommandKind,
) -> Result<Json<Done>, Problem> {
    let wish = if body.is_empty() {
        Wish::default()
    } else {
        serde_json::from_slice(body).map_err(|error| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid request", error.to_string())
        })?
    };
    let result = gateway.command(&name, kind(wish)).await?;
    Ok(Json(Done { result: if result.is_empty() { "done".to_owned() } else { result } }))
}
