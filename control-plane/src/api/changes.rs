//! Changes that wait for their confirmation.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Api;
use super::change_view::PendingChange;
use super::extract::{Change, Name};
use super::problem::{Kind, Problem};
use crate::changes::{Precondition, Refusal};

/// Changes that wait for their confirmation; there is one at most.
#[utoipa::path(get, path = "/v1/changes", tag = "changes", responses((status = 200, body = [PendingChange])))]
pub async fn list(State(api): State<Arc<Api>>) -> Json<Vec<PendingChange>> {
    Json(api.changes.waiting().map(PendingChange::from).into_iter().collect())
}

/// Lets a change stay. Without it the change is undone when its time is over, also after a restart.
#[utoipa::path(post, path = "/v1/changes/{name}/confirm", tag = "changes",
    params(("name" = String, Path, description = "The `id` of the change")),
    responses((status = 204), (status = 404, body = Problem)))]
pub async fn confirm(
    State(api): State<Arc<Api>>,
    Name(id): Name,
    change: Change,
) -> Result<axum::http::StatusCode, Problem> {
    let request = change.request("");
    match api.changes.confirm(request, id).await {
        Ok(()) => Ok(axum::http::StatusCode::NO_CONTENT),
        Err(Refusal::Precondition(Precondition::NotFound(detail))) => {
            Err(Problem::new(Kind::UnknownChange, detail))
        }
        Err(refusal) => Err(refusal.into()),
    }
}
