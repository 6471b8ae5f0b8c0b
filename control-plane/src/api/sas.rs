//! Security associations of every connection.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use crate::status::{IkeSa, Status};

/// An IKE SA with its Child SAs.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub struct Sa {
    /// The connection that it belongs to.
    pub connection: String,
    /// The IKE SA.
    #[serde(flatten)]
    pub sa: IkeSa,
}

/// Every IKE SA with its Child SAs.
#[utoipa::path(get, path = "/v1/sas", tag = "connections", responses((status = 200, body = [Sa])))]
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Sa>>, Problem> {
    let snapshot = api.running.snapshot().await.ok_or_else(Problem::stuck)?;
    let connections = Status::of(&snapshot).connections.into_iter();
    let sas = connections.flat_map(|connection| {
        let name = connection.name;
        connection.ike_sas.into_iter().map(move |sa| Sa { connection: name.clone(), sa })
    });
    Ok(Json(sas.collect()))
}
