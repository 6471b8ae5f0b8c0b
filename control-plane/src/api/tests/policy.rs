//! ESP policies.

use super::*;

const PLAIN: &str = "/v1/connections/plain/esp-policy";
const DEFAULT: &str = "/v1/defaults/esp-policy";

#[test]
fn an_override_is_stored_acts_shows_its_source_and_goes() {
    run(async {
        let bench = Bench::new();
        let before = bench.ask("GET", PLAIN, "").await;
        assert_eq!(before.json(), json!({"on_unreachable": "fail-closed", "source": "built-in"}));
        let put = bench.ask("PUT", PLAIN, closed()).await;
        assert_eq!((put.status, put.json()["source"].clone()), (StatusCode::OK, "api".into()));
        assert_ne!(put.etag(), before.etag());
        assert_eq!(bench.store()["stored"]["entries"]["policies"], json!({"plain": "fail-closed"}));
        assert_eq!(bench.applied(), 1);
        let status = bench.ask("GET", "/v1/status", "").await.json();
        assert_eq!(
            status["connections"][0]["policy"],
            json!({"on_unreachable": "fail-closed", "source": "api"})
        );
        let bench = bench.restarted();
        assert_eq!(bench.ask("GET", PLAIN, "").await.json()["source"], "api", "it survives a restart");
        let deleted = bench.ask("DELETE", PLAIN, "").await;
        assert_eq!((deleted.status, deleted.etag()), (StatusCode::OK, before.etag()));
        assert_eq!(bench.ask("DELETE", PLAIN, "").await.status, StatusCode::OK, "idempotent");
        let results: Vec<_> = bench.audit().iter().map(|entry| entry["result"].clone()).collect();
        assert_eq!(results, ["accepted", "done", "accepted", "done", "accepted", "done"]);
        assert_eq!(bench.audit()[0]["detail"], "on_unreachable fail-closed");
    });
}

#[test]
fn an_invalid_policy_names_the_field_and_the_allowed_values_and_changes_nothing() {
    run(async {
        let bench = Bench::new();
        for (body, field, allowed) in [
            (json!({"on_unreachable": "maybe"}), "on_unreachable", json!(["fail-closed", "tcp-fallback"])),
            (json!({"on_unreachable": null}), "on_unreachable", Value::Null),
            (json!({"on_unreachable": ["fail-closed"]}), "on_unreachable", Value::Null),
            (json!({"on_unreachable": "fail-closed", "x": 1}), "x", json!(["on_unreachable"])),
            (json!({}), "", Value::Null),
            (json!([]), "", Value::Null),
        ] {
            let answer = bench.ask("PUT", PLAIN, body.clone()).await;
            assert_eq!(
                (answer.status, answer.problem()),
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid".to_owned())
            );
            let problem = answer.json();
            assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem}");
            assert_eq!(problem["errors"][0]["allowed"], allowed, "{body}: {problem}");
        }
        assert_eq!((bench.applied(), bench.store()), (0, Value::Null));
    });
}

/// Transport policy, "Configuration": combinations that cannot work.
#[test]
fn a_policy_that_cannot_work_is_refused_by_the_rules_of_the_file() {
    run(async {
        let bench = Bench::new();
        let fallback = json!({"on_unreachable": "tcp-fallback"});
        let answer = bench.ask("PUT", "/v1/connections/udp/esp-policy", fallback.clone()).await;
        let problem = answer.json();
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(problem["errors"][0]["field"], "on_unreachable");
        assert!(problem["detail"].as_str().unwrap().contains("no TCP stream is ever opened"), "{problem}");
        // The default is judged for every connection that it would act on.
        let answer = bench.ask("PUT", DEFAULT, fallback).await;
        let problem = answer.json();
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        let fields: Vec<_> =
            problem["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
        assert!(fields.contains(&json!("connections.udp.esp.on_unreachable")), "{problem}");
        assert!(!fields.contains(&json!("connections.explicit.esp.on_unreachable")), "{problem}");
        assert_eq!(bench.applied(), 0);
    });
}

#[test]
fn the_default_acts_where_nothing_is_said() {
    run(async {
        let bench = Bench::new();
        assert_eq!(bench.ask("GET", DEFAULT, "").await.json()["source"], "built-in");
        let put = bench.ask("PUT", DEFAULT, closed()).await;
        assert_eq!(put.json(), json!({"on_unreachable": "fail-closed", "source": "api-default"}));
        let sources = || async {
            let connections = bench.ask("GET", "/v1/connections", "").await.json();
            let sources = connections.as_array().unwrap().iter().map(|c| c["policy"]["source"].clone());
            sources.collect::<Vec<_>>()
        };
        assert_eq!(sources().await, ["api-default", "configuration", "api-default"]);
        bench.ask("PUT", PLAIN, closed()).await;
        assert_eq!(sources().await, ["api", "configuration", "api-default"]);
        bench.ask("DELETE", DEFAULT, "").await;
        bench.ask("DELETE", PLAIN, "").await;
        assert_eq!(sources().await, ["built-in", "configuration", "built-in"]);
    });
}

#[test]
fn a_stale_policy_and_an_unknown_connection_are_refused() {
    run(async {
        let bench = Bench::new();
        let stale = bench.ask("GET", PLAIN, "").await;
        let if_match = [("if-match", stale.etag())];
        assert_eq!(bench.ask_with("PUT", PLAIN, closed(), &if_match).await.status, StatusCode::OK);
        for method in ["PUT", "DELETE"] {
            let answer = bench.ask_with(method, PLAIN, closed(), &if_match).await;
            assert_eq!(
                (answer.status, answer.problem()),
                (StatusCode::PRECONDITION_FAILED, "stale".to_owned())
            );
        }
        let current = bench.ask("GET", PLAIN, "").await;
        let not_modified = bench.ask_with("GET", PLAIN, "", &[("if-none-match", current.etag())]).await;
        assert_eq!(not_modified.status, StatusCode::NOT_MODIFIED);
        for method in ["GET", "PUT", "DELETE"] {
            let answer = bench.ask(method, "/v1/connections/nowhere/esp-policy", closed()).await;
            let expected = (StatusCode::NOT_FOUND, "unknown-connection".to_owned());
            assert_eq!((answer.status, answer.problem()), expected, "{method}");
        }
    });
}

fn closed() -> Value {
    json!({"on_unreachable": "fail-closed"})
}
