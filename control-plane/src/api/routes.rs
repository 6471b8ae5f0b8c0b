//! Every route, and the role that it needs. What is not in [`ROUTES`] is served to nobody.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};

use super::{
    Api, access, body, capture, changes, commands, connection, connections, default_policy, events, explain,
    health, openapi, policy, problem, reload, sas, views,
};
use crate::config::ApiRole;

/// Method, path, role.
pub const ROUTES: &[(&str, &str, ApiRole)] = &[
    ("GET", "/healthz", ApiRole::ReadOnly),
    ("GET", "/readyz", ApiRole::ReadOnly),
    ("GET", "/openapi.json", ApiRole::ReadOnly),
    ("GET", "/v1/status", ApiRole::ReadOnly),
    ("GET", "/v1/data-plane", ApiRole::ReadOnly),
    ("GET", "/v1/explain", ApiRole::ReadOnly),
    ("GET", "/v1/capture", ApiRole::Admin),
    ("GET", "/v1/sas", ApiRole::ReadOnly),
    ("GET", "/v1/events", ApiRole::ReadOnly),
    ("GET", "/v1/connections", ApiRole::ReadOnly),
    ("GET", "/v1/connections/{name}", ApiRole::ReadOnly),
    ("PUT", "/v1/connections/{name}", ApiRole::Admin),
    ("DELETE", "/v1/connections/{name}", ApiRole::Admin),
    ("POST", "/v1/connections/{name}/up", ApiRole::Operator),
    ("POST", "/v1/connections/{name}/down", ApiRole::Operator),
    ("POST", "/v1/connections/{name}/rekey", ApiRole::Operator),
    ("POST", "/v1/connections/{name}/probe", ApiRole::Operator),
    ("POST", "/v1/connections/{name}/redirect", ApiRole::Operator),
    ("GET", "/v1/connections/{name}/esp-policy", ApiRole::ReadOnly),
    ("PUT", "/v1/connections/{name}/esp-policy", ApiRole::Admin),
    ("DELETE", "/v1/connections/{name}/esp-policy", ApiRole::Admin),
    ("GET", "/v1/defaults/esp-policy", ApiRole::ReadOnly),
    ("PUT", "/v1/defaults/esp-policy", ApiRole::Admin),
    ("DELETE", "/v1/defaults/esp-policy", ApiRole::Admin),
    ("GET", "/v1/changes", ApiRole::ReadOnly),
    ("POST", "/v1/changes/{name}/confirm", ApiRole::Admin),
    ("POST", "/v1/reload", ApiRole::Admin),
];

/// The role that a request needs; `None` if nobody may do it.
pub fn role_of(method: &Method, path: &str) -> Option<ApiRole> {
    // HEAD is GET without the body (RFC 9110 section 9.3.2).
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    ROUTES.iter().find(|(m, p, _)| *m == method && *p == path).map(|(_, _, role)| *role)
}

/// The methods of a path.
pub fn methods_of(path: &str) -> Vec<&'static str> {
    ROUTES.iter().filter(|(_, p, _)| *p == path).map(|(method, _, _)| *method).collect()
}

/// The control API, for the Unix socket and for TLS.
pub fn control(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi::get))
        .route("/v1/status", get(views::status))
        .route("/v1/data-plane", get(views::data_plane))
        .route("/v1/explain", get(explain::explain))
        .route("/v1/capture", get(capture::stream))
        .route("/v1/sas", get(sas::list))
        .route("/v1/events", get(events::stream))
        .route("/v1/connections", get(connections::list))
        .route("/v1/connections/{name}", get(connection::get).put(connection::put).delete(connection::delete))
        .route("/v1/connections/{name}/up", post(commands::up))
        .route("/v1/connections/{name}/down", post(commands::down))
        .route("/v1/connections/{name}/rekey", post(commands::rekey))
        .route("/v1/connections/{name}/probe", post(commands::probe))
        .route("/v1/connections/{name}/redirect", post(commands::redirect))
        .route("/v1/connections/{name}/esp-policy", put(policy::put).get(policy::get).delete(policy::delete))
        .route(
            "/v1/defaults/esp-policy",
            put(default_policy::put).get(default_policy::get).delete(default_policy::delete),
        )
        .route("/v1/changes", get(changes::list))
        .route("/v1/changes/{name}/confirm", post(changes::confirm))
        .route("/v1/reload", post(reload::reload))
        .fallback(problem::not_found)
        .layer(from_fn(body::read))
        .layer(from_fn_with_state(Arc::clone(&api), access::check))
        .with_state(api)
}

/// `/metrics`, `/healthz` and `/readyz` for whoever reaches them, and nothing that changes anything.
pub fn metrics(api: Arc<Api>) -> Router {
    Router::new()
        .route("/metrics", get(views::metrics))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(problem::not_found)
        .layer(from_fn(body::read))
        .with_state(api)
}
