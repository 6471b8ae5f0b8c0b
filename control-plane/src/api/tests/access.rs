//! Who may do what.

use super::*;
use crate::api::routes::ROUTES;
use crate::config::ApiRole;

/// Every route with every role, and without any.
#[test]
fn every_route_needs_its_role() {
    run(async {
        let bench = Bench::new();
        let roles = [(READER, ApiRole::ReadOnly), (OPERATOR, ApiRole::Operator), (ADMIN, ApiRole::Admin)];
        for (method, path, needed) in ROUTES.iter().filter(|(_, path, _)| *path != "/v1/events") {
            let path = path.replace("{name}", "nowhere");
            let nobody = bench.ask_as(stranger(), method, &path, "", &[]).await;
            assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(nobody.problem(), "unauthenticated");
            assert_eq!(nobody.headers["www-authenticate"], "Bearer realm=\"portcullis\"");
            for (token, role) in roles {
                let headers = [("authorization", bearer(token))];
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let answer = bench.ask_as(stranger(), method, &path, "", &headers).await;
                let is_refused = answer.status == StatusCode::FORBIDDEN;
                assert_eq!(is_refused, role < *needed, "{method} {path} as {role}: {}", answer.status);
            }
        }
    });
}

#[test]
fn a_wrong_token_is_refused_counted_and_audited() {
    run(async {
        let bench = Bench::new();
        for value in ["Bearer wrong", "Bearer ", "Basic YTpi", "bearer", "", &bearer(&ADMIN[1..])] {
            let answer = bench
                .ask_as(stranger(), "PUT", "/v1/defaults/esp-policy", "", &[("authorization", value)])
                .await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{value}");
        }
        let forbidden = [("authorization", bearer(READER))];
        let headers = [(forbidden[0].0, forbidden[0].1.as_str())];
        let answer = bench.ask_as(stranger(), "POST", "/v1/reload", "", &headers).await;
        assert_eq!((answer.status, answer.problem()), (StatusCode::FORBIDDEN, "forbidden".to_owned()));
        let audit = bench.audit();
        assert_eq!(audit.len(), 7);
        assert_eq!((&audit[0]["who"], &audit[0]["from"]), (&json!("nobody"), &json!("192.0.2.9:5000")));
        assert_eq!(audit[0]["action"], "PUT /v1/defaults/esp-policy");
        assert!(audit[0]["result"].as_str().unwrap().starts_with("refused: 401"));
        assert_eq!(audit[6]["who"], "token:wall");
        assert!(audit[6]["result"].as_str().unwrap().starts_with("refused: 403"));
        let text = std::fs::read_to_string(bench.state().join("audit.log")).unwrap();
        assert!(!text.contains(&ADMIN[1..]) && !text.contains(READER), "{text}");
        assert_eq!(bench.api.counters.read().denied[..2], [6, 1]);
        assert_eq!(bench.applied(), 0);
    });
}

#[test]
fn the_control_socket_knows_its_owner_and_its_group() {
    run(async {
        let bench = Bench::new();
        let group = || Peer::Unix { uid: 4_000_000 };
        let up = bench.ask_as(group(), "POST", "/v1/connections/plain/up", "", &[]).await;
        assert_eq!(up.status, StatusCode::OK);
        assert_eq!(bench.audit()[0]["who"], "uid:4000000");
        let reload = bench.ask_as(group(), "POST", "/v1/reload", "", &[]).await;
        assert_eq!(reload.status, StatusCode::FORBIDDEN);
        assert_eq!(bench.ask("POST", "/v1/reload", "").await.status, StatusCode::OK);
    });
}

#[test]
fn a_method_that_is_not_for_a_path_is_told_which_are() {
    run(async {
        let bench = Bench::new();
        let answer = bench.ask("DELETE", "/v1/status", "").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(
            (answer.problem(), &answer.headers["allow"]),
            ("method-not-allowed".to_owned(), &"GET".parse().unwrap())
        );
        let answer = bench.ask("GET", "/v1/nothing", "").await;
        assert_eq!((answer.status, answer.problem()), (StatusCode::NOT_FOUND, "not-found".to_owned()));
        assert_eq!(bench.ask("HEAD", "/v1/status", "").await.status, StatusCode::OK);
    });
}

#[test]
fn bodies_are_bounded_and_json() {
    run(async {
        let bench = Bench::new();
        let path = "/v1/defaults/esp-policy";
        let answer = bench.ask("PUT", path, &*" ".repeat(256 * 1024 + 1)).await;
        assert_eq!(
            (answer.status, answer.problem()),
            (StatusCode::PAYLOAD_TOO_LARGE, "too-large".to_owned())
        );
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let answer = bench.ask_with("PUT", path, "a=b", &form).await;
        assert_eq!(answer.problem(), "unsupported-media-type");
        for text in ["", "{", "nonsense", "{} {}"] {
            let answer = bench.ask("PUT", path, text).await;
            assert_eq!(
                (answer.status, answer.problem()),
                (StatusCode::BAD_REQUEST, "bad-request".to_owned()),
                "{text}"
            );
        }
        let answer = bench.ask("POST", "/v1/connections/plain/up", json!({"child": 7})).await;
        assert_eq!(answer.problem(), "invalid");
        let answer = bench.ask("POST", "/v1/connections/plain/down", " [] ").await;
        assert_eq!(answer.problem(), "invalid", "an array is no object");
        assert_eq!(bench.applied(), 0);
    });
}
