//! Captures: who may, what is refused, what is written down. With packets in it: the scenarios.

use super::*;

#[test]
fn one_captures_at_a_time_and_the_audit_log_says_who() {
    run(async {
        let bench = Bench::new();
        let answer = bench.ask("GET", "/v1/capture?connection=plain&packets=3", "").await;
        assert_eq!((answer.status, &*answer.problem()), (StatusCode::CONFLICT, "failed"));
        let audit = bench.audit();
        for (entry, result) in audit.iter().zip(["accepted", "failed: somebody captures already"]) {
            assert_eq!((&entry["action"], &entry["result"]), (&json!("GET /v1/capture"), &json!(result)));
            assert!(entry["detail"].as_str().unwrap().contains("plain"), "{entry}");
        }
        assert_eq!(audit.len(), 2);
    });
}

#[test]
fn a_capture_of_nothing_is_refused_with_the_reason() {
    run(async {
        let bench = Bench::new();
        for (query, status, kind) in [
            ("connection=nobody", StatusCode::NOT_FOUND, "unknown-connection"),
            ("snaplen=0", StatusCode::BAD_REQUEST, "bad-request"),
            ("packets=0", StatusCode::BAD_REQUEST, "bad-request"),
            ("seconds=86401", StatusCode::BAD_REQUEST, "bad-request"),
            ("snaplen=65536", StatusCode::BAD_REQUEST, "bad-request"),
            ("file=x", StatusCode::BAD_REQUEST, "bad-request"),
        ] {
            let answer = bench.ask("GET", &format!("/v1/capture?{query}"), "").await;
            assert_eq!((answer.status, &*answer.problem()), (status, kind), "{query}");
        }
        assert!(bench.audit().is_empty());
    });
}
