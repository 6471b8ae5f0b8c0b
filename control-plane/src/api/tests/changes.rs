//! The order of a change, and what undoes it.

use std::fs;

use super::*;

const PLAIN: &str = "/v1/connections/plain/esp-policy";

#[test]
fn a_change_that_nobody_confirms_is_undone() {
    run(async {
        let bench = Bench::new();
        let mut events = bench.api.events.subscribe(None).unwrap();
        let put = bench.ask("PUT", &format!("{PLAIN}?confirm_within=300ms"), closed()).await;
        let id = put.json()["pending"]["id"].as_str().unwrap().to_owned();
        assert_eq!(bench.ask("GET", PLAIN, "").await.json()["source"], "api", "it acts at once");
        let other = bench.ask("PUT", "/v1/defaults/esp-policy", closed()).await;
        assert_eq!((other.status, other.problem()), (StatusCode::CONFLICT, "change-pending".to_owned()));
        assert!(other.json()["detail"].as_str().unwrap().contains(&id));
        while events.coming.recv().await.unwrap().kind != "change_reverted" {}
        assert_eq!(bench.ask("GET", PLAIN, "").await.json()["source"], "built-in");
        assert_eq!(bench.ask("GET", "/v1/changes", "").await.json(), json!([]));
        assert_eq!(bench.store()["stored"]["pending"], Value::Null);
        let last = bench.audit().pop().unwrap();
        assert_eq!((&last["who"], &last["result"]), (&json!("portcullis"), &json!("done")));
        let late = bench.ask("POST", &format!("/v1/changes/{id}/confirm"), "").await;
        assert_eq!((late.status, late.problem()), (StatusCode::NOT_FOUND, "unknown-change".to_owned()));
    });
}

#[test]
fn a_confirmed_change_stays() {
    run(async {
        let bench = Bench::new();
        let put = bench.ask("PUT", &format!("{PLAIN}?confirm_within=60s"), closed()).await;
        let changes = bench.ask("GET", "/v1/changes", "").await.json();
        assert_eq!(changes[0], put.json()["pending"]);
        assert_eq!(changes[0]["by"], "uid:0");
        let confirm = format!("/v1/changes/{}/confirm", changes[0]["id"].as_str().unwrap());
        assert_eq!(bench.ask("POST", &confirm, "").await.status, StatusCode::NO_CONTENT);
        assert_eq!(bench.ask("GET", "/v1/changes", "").await.json(), json!([]));
        let bench = bench.restarted();
        assert_eq!(bench.ask("GET", PLAIN, "").await.json()["source"], "api");
    });
}

#[test]
fn a_restart_does_not_make_an_unconfirmed_change_stay() {
    run(async {
        let bench = Bench::new();
        bench.ask("PUT", &format!("{PLAIN}?confirm_within=1h"), closed()).await;
        let bench = bench.restarted();
        assert_eq!(bench.ask("GET", PLAIN, "").await.json()["source"], "api", "its time is not over");
        let waiting = bench.ask("GET", "/v1/changes", "").await.json();
        assert_eq!(waiting.as_array().unwrap().len(), 1, "it can be confirmed still");
        // Its time is over while nobody runs.
        let path = bench.state().join("policy-store.json");
        let mut store = bench.store();
        store["stored"]["pending"]["deadline_ms"] = json!(1);
        fs::write(&path, store.to_string()).unwrap();
        let bench = bench.restarted();
        assert_eq!(bench.ask("GET", PLAIN, "").await.json()["source"], "built-in");
        assert_eq!(bench.store()["stored"]["pending"], Value::Null);
    });
}

#[test]
fn confirmation_times_are_bounded() {
    run(async {
        let bench = Bench::new();
        for query in ["confirm_within=25h", "confirm_within=0s", "confirm_within=soon", "confirm_within="] {
            let answer = bench.ask("PUT", &format!("{PLAIN}?{query}"), closed()).await;
            assert_eq!(
                (answer.status, answer.problem()),
                (StatusCode::BAD_REQUEST, "bad-request".to_owned())
            );
        }
        assert_eq!(bench.applied(), 0);
    });
}

#[test]
fn a_store_that_cannot_be_written_refuses_the_change() {
    run(async {
        let bench = Bench::new();
        bench.ask("PUT", PLAIN, closed()).await;
        // Root writes everywhere: a directory where the new file would be does what a full disk does.
        let obstacle = bench.state().join("policy-store.json.new");
        fs::create_dir(&obstacle).unwrap();
        let answer = bench.ask("DELETE", PLAIN, "").await;
        let expected = (StatusCode::INSUFFICIENT_STORAGE, "state-not-writable".to_owned());
        assert_eq!((answer.status, answer.problem()), expected);
        assert_eq!(bench.ask("GET", PLAIN, "").await.json()["source"], "api", "the running policy stays");
        assert_eq!(bench.applied(), 1);
        fs::remove_dir(obstacle).unwrap();
        assert_eq!(bench.ask("DELETE", PLAIN, "").await.status, StatusCode::OK);
    });
}

#[test]
fn an_audit_log_that_cannot_be_written_refuses_the_change() {
    run(async {
        let bench = Bench::new();
        fs::create_dir_all(bench.state().join("audit.log")).unwrap();
        for (method, path) in [("PUT", PLAIN), ("POST", "/v1/reload"), ("POST", "/v1/connections/plain/up")] {
            let body = if method == "PUT" { closed().to_string() } else { String::new() };
            let answer = bench.ask(method, path, body.as_str()).await;
            assert_eq!(answer.problem(), "state-not-writable", "{path}");
        }
        assert_eq!((bench.applied(), bench.store()), (0, Value::Null));
    });
}

#[test]
fn what_runs_may_refuse_and_the_store_is_put_back() {
    run(async {
        let bench = Bench::new();
        bench.running.is_stubborn.store(true, Ordering::SeqCst);
        let answer = bench.ask("PUT", PLAIN, closed()).await;
        assert_eq!((answer.status, answer.problem()), (StatusCode::CONFLICT, "failed".to_owned()));
        assert_eq!(bench.store()["stored"]["entries"]["policies"], json!({}));
        assert_eq!(bench.ask("GET", PLAIN, "").await.json()["source"], "built-in");
    });
}

#[test]
fn an_unreadable_store_makes_everything_fail_closed_and_says_so() {
    run(async {
        let bench = Bench::new();
        bench.ask("PUT", "/v1/connections/new", document(&bench.directory)).await;
        let path = bench.state().join("policy-store.json");
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        let bench = bench.restarted();
        let status = bench.ask("GET", "/v1/status", "").await.json();
        assert!(status["policy_store_problem"].as_str().unwrap().contains("policy-store.json"), "{status}");
        let connections = status["connections"].as_array().unwrap();
        assert_eq!(connections.len(), 3, "nobody knows the connections of the API");
        for connection in connections {
            let policy = json!({"on_unreachable": "fail-closed", "source": "store-unreadable"});
            assert_eq!(connection["policy"], policy);
        }
        let answer = bench.ask("PUT", PLAIN, closed()).await;
        let expected = (StatusCode::SERVICE_UNAVAILABLE, "store-unreadable".to_owned());
        assert_eq!((answer.status, answer.problem()), expected);
        assert_eq!(fs::read(&path).unwrap(), &good[..good.len() / 2], "the evidence is not overwritten");
        // Mended, and read again.
        fs::write(&path, good).unwrap();
        assert_eq!(bench.ask("POST", "/v1/reload", "").await.status, StatusCode::OK);
        assert_eq!(bench.ask("GET", "/v1/connections/new", "").await.status, StatusCode::OK);
        assert_eq!(bench.ask("PUT", PLAIN, closed()).await.status, StatusCode::OK);
    });
}

fn closed() -> Value {
    json!({"on_unreachable": "fail-closed"})
}
