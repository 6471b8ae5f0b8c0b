//! Reading the configuration file again.

use super::*;

#[test]
fn a_dry_run_shows_the_difference_and_changes_nothing() {
    run(async {
        let bench = Bench::new();
        let file = bench.directory.path().join("portcullis.yaml");
        let before = std::fs::read_to_string(&file).unwrap();
        let after = before
            .replace("  explicit:\n", "  renamed:\n")
            .replace("ike: { transport: udp, ", "ike: { transport: udp, dead_after: 60s, ");
        std::fs::write(&file, after).unwrap();
        let dry = bench.ask("POST", "/v1/reload?dry_run=true", "").await;
        assert_eq!(dry.status, StatusCode::OK, "{:?}", dry.body);
        let difference = dry.json()["difference"].clone();
        assert_eq!(
            (&difference["added"], &difference["removed"]),
            (&json!(["renamed"]), &json!(["explicit"]))
        );
        assert_eq!(difference["changed"], json!({"udp": [{"field": "ike.dead_after", "to": "60s"}]}));
        assert_eq!((bench.applied(), bench.audit().len()), (0, 0));
        let real = bench.ask("POST", "/v1/reload", "").await.json();
        assert_eq!((&real["dry_run"], &real["difference"]), (&json!(false), &difference));
        assert!(bench.running.config().connection("renamed").is_some());
        let again = bench.ask("POST", "/v1/reload?dry_run=true", "").await.json()["difference"].clone();
        assert_eq!((&again["added"], &again["changed"]), (&json!([]), &json!({})));
    });
}

#[test]
fn a_changed_secret_shows_without_the_secret() {
    run(async {
        let bench = Bench::new();
        std::fs::write(bench.directory.path().join("psk"), "another secret that is hard").unwrap();
        let dry = bench.ask("POST", "/v1/reload?dry_run=true", "").await;
        assert_eq!(dry.json()["difference"]["changed"]["plain"][0], json!({"field": "local: the secret"}));
        assert!(!String::from_utf8_lossy(&dry.body).contains("hard"));
    });
}

#[test]
fn a_file_with_an_error_or_that_needs_a_restart_changes_nothing() {
    run(async {
        let bench = Bench::new();
        let file = bench.directory.path().join("portcullis.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{good}nonsense: 1\n")).unwrap();
        let answer = bench.ask("POST", "/v1/reload", "").await;
        assert_eq!(
            (answer.status, answer.problem()),
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid".to_owned())
        );
        let problem = answer.json();
        assert_eq!(problem["errors"][0]["field"], "nonsense");
        assert!(problem["errors"][0]["line"].is_number(), "{problem}");
        std::fs::write(&file, format!("instance: other\n{good}")).unwrap();
        let dry = bench.ask("POST", "/v1/reload?dry_run=true", "").await.json();
        assert_eq!(dry["difference"]["needs_restart"], "instance");
        let answer = bench.ask("POST", "/v1/reload", "").await;
        assert_eq!((answer.status, answer.problem()), (StatusCode::CONFLICT, "failed".to_owned()));
        assert_eq!(bench.applied(), 0);
        assert_eq!(bench.ask("POST", "/v1/reload?dry_run=maybe", "").await.status, StatusCode::BAD_REQUEST);
    });
}

#[test]
fn overrides_survive_a_reload_and_one_that_cannot_work_any_more_refuses_it() {
    run(async {
        let bench = Bench::new();
        bench.ask("PUT", "/v1/connections/plain/esp-policy", json!({"on_unreachable": "fail-closed"})).await;
        assert_eq!(bench.ask("POST", "/v1/reload", "").await.status, StatusCode::OK);
        let policy = bench.ask("GET", "/v1/connections/plain/esp-policy", "").await.json();
        assert_eq!(policy["source"], "api");
        let file = bench.directory.path().join("portcullis.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        // Fail-closed with IKE on TCP and no separate transports passes nothing.
        let off = "  plain:\n    ike: { transport: tcp, separate_transports: off }\n";
        std::fs::write(&file, text.replacen("  plain:\n", off, 1)).unwrap();
        let answer = bench.ask("POST", "/v1/reload", "").await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    });
}
