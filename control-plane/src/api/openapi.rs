//! The description of the API (OpenAPI 3.1), made from the handlers. `control-plane/openapi.json` is the committed copy; a
//! test compares both, so that every change of the API shows in review.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{IntoParams, Modify, OpenApi, PartialSchema, ToSchema};

use super::routes::ROUTES;
use super::{
    capture, changes, commands, connection, connections, default_policy, events, explain, health, policy,
    problem, reload, sas, views,
};

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
});

/// A change may ask to be undone.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "the form for the API description; `extract` reads it")]
pub struct ConfirmWithin {
    /// Undo the change unless `POST /v1/changes/{id}/confirm` comes within this time, up to 24 h, such as `60s`.
    #[param(required = false)]
    confirm_within: Option<String>,
}

/// The configuration of one connection: the keys and the meaning of the configuration file.
pub struct ConnectionDocument;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Portcullis control API",
        description = "The gateway over HTTP: on its Unix socket, and where `api.listen` is configured over TLS with a \
            bearer token or a client certificate. Roles: `read-only` looks, `operator` carries out what is configured, \
            `admin` changes what is configured; the scope of each operation names the least role. Errors are problem \
            details (RFC 9457).",
        license(name = "Apache-2.0 OR MIT"),
    ),
    paths(
        health::alive, health::ready, get, views::status, views::data_plane, explain::explain, capture::stream, sas::list, events::stream, connections::list,
        connection::get, connection::put, connection::delete, commands::up, commands::down, commands::rekey,
        commands::probe,
        commands::redirect,
        policy::get, policy::put, policy::delete, default_policy::get, default_policy::put,
        default_policy::delete, changes::list, changes::confirm, reload::reload
    ),
    components(schemas(problem::Problem)),
    modifiers(&Roles)
)]
struct Description;

/// Adds what every operation has: the role it needs, and the answers of whoever turns callers away.
struct Roles;

/// The description of this API.
pub fn document() -> Document {
    Description::openapi()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "status", responses((status = 200, body = Object)))]
pub async fn get() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

impl Modify for Roles {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let bearer = bearer.description(Some("A token of `api.tokens`; a client certificate does as well"));
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        for (path, item) in &mut document.paths.paths {
            let operations = [
                ("GET", &mut item.get),
                ("PUT", &mut item.put),
                ("POST", &mut item.post),
                ("DELETE", &mut item.delete),
            ];
            for (method, operation) in operations {
                let role = ROUTES.iter().find(|(m, p, _)| *m == method && p == path).map(|(.., role)| *role);
                if let (Some(operation), Some(role)) = (operation, role) {
                    complete(operation, role.label(), method != "GET");
                }
            }
        }
    }
}

fn complete(operation: &mut Operation, role: &str, is_change: bool) {
    operation.security = Some(vec![SecurityRequirement::new("bearer", [role])]);
    let all = [
        ("400", "The request is not understood", true),
        ("401", "No token or certificate, or a wrong one", true),
        ("403", "The role is not enough", true),
        ("408", "The body did not come in time", is_change),
        ("413", "The body is too long", is_change),
        ("415", "The body is no JSON by its own account", is_change),
        ("503", "A part of the daemon does not answer, or the policy store cannot be read", true),
        ("507", "The state directory cannot be written: nothing was changed", is_change),
    ];
    for (status, description, applies) in all {
        if applies {
            let response = ResponseBuilder::new().description(description).build();
            operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
        }
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
        {
            let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
            let content = ContentBuilder::new().schema(Some(schema)).build();
            response.content.clear();
            response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
        }
    }
}

impl PartialSchema for ConnectionDocument {
    fn schema() -> RefOr<Schema> {
        let text = include_str!("openapi/connection.json");
        let schema = serde_json::from_str::<Schema>(text);
        RefOr::T(schema.unwrap_or_else(|error| unreachable!("openapi/connection.json: {error}")))
    }
}

impl ToSchema for ConnectionDocument {
    fn name() -> std::borrow::Cow<'static, str> {
        "ConnectionDocument".into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::api::routes::role_of;
    use crate::config::{Secrets, read_connection};

    #[test]
    fn the_committed_description_is_the_one_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, TEXT.as_str()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == *TEXT,
            "control-plane/openapi.json is not what the code says; if the change is meant: \
             UPDATE_OPENAPI=1 cargo test -p portcullis-control-plane openapi"
        );
    }

    #[test]
    fn every_route_is_described_with_its_role_and_nothing_else_is() {
        let document = serde_json::to_value(document()).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let role = operation["security"][0]["bearer"][0].as_str().unwrap();
                described.insert((method.to_uppercase(), path.clone(), role.to_owned()));
            }
        }
        let routed = ROUTES.iter();
        let routed = routed.map(|(m, p, role)| ((*m).to_owned(), (*p).to_owned(), role.label().to_owned()));
        assert_eq!(described, routed.collect());
        assert_eq!(role_of(&axum::http::Method::PATCH, "/v1/status"), None);
    }

    /// The reader of the configuration names the keys that it knows when it meets one that it does not.
    #[test]
    fn the_schema_of_a_connection_has_the_keys_that_the_reader_knows() {
        let document = serde_json::to_value(document()).unwrap();
        let schema = &document["components"]["schemas"]["ConnectionDocument"];
        for (path, probe) in [
            ("", serde_json::json!({"?": 1})),
            ("local", serde_json::json!({"local": {"?": 1}})),
            ("remote", serde_json::json!({"remote": {"?": 1}})),
            ("ike", serde_json::json!({"ike": {"?": 1}})),
            ("esp", serde_json::json!({"esp": {"?": 1}})),
            ("redirect", serde_json::json!({"redirect": {"?": 1}})),
            ("ppk", serde_json::json!({"ppk": {"?": 1}})),
            ("esp.probe", serde_json::json!({"esp": {"probe": {"?": 1}}})),
            ("esp.fallback", serde_json::json!({"esp": {"fallback": {"?": 1}}})),
            ("children.*", serde_json::json!({"children": {"n": {"?": 1}}})),
        ] {
            let problems = read_connection("x", probe.to_string().as_bytes(), &Secrets::Skip).unwrap_err();
            let unknown = problems.iter().find(|problem| problem.key.ends_with('?')).expect(path);
            let known: BTreeSet<&str> = unknown.allowed.iter().map(String::as_str).collect();
            let mut node = schema;
            for part in path.split('.').filter(|part| !part.is_empty()) {
                node = if part == "*" { &node["additionalProperties"] } else { &node["properties"][part] };
            }
            let described = node["properties"].as_object().expect(path).keys().map(String::as_str).collect();
            assert_eq!(known, described, "keys of '{path}'");
            assert_eq!(node["additionalProperties"], Value::Bool(false), "{path}");
        }
    }
}
