//! Connections as documents.

use super::*;

const NEW: &str = "/v1/connections/new";

#[test]
fn a_connection_is_created_read_replaced_and_removed() {
    run(async {
        let bench = Bench::new();
        let created = bench.ask("PUT", NEW, document(&bench.directory)).await;
        assert_eq!(created.status, StatusCode::CREATED, "{:?}", created.body);
        assert_eq!(created.json(), json!({"name": "new", "result": "created"}));
        let read = bench.ask("GET", NEW, "").await;
        let view = read.json();
        assert_eq!((read.etag(), &view["configured_by"]), (created.etag(), &json!("api")));
        assert_eq!((&view["name"], &view["state"]), (&json!("new"), &json!("idle")));
        assert!(!read.body.windows(3).any(|w| w == b"psk\"" || w == b"/ps"), "where the secret is: {view}");
        let bench = bench.restarted();
        assert_eq!(bench.ask("GET", NEW, "").await.etag(), created.etag(), "it survives a restart");

        // What was read can be put back: the secret stays.
        let mut changed = view["configuration"].clone();
        changed["ike"] = json!({"dead_after": "60s"});
        let missing = bench.ask("PUT", NEW, changed.clone()).await;
        let expected = (StatusCode::PRECONDITION_REQUIRED, "precondition-required".to_owned());
        assert_eq!((missing.status, missing.problem()), expected);
        let replaced = bench.ask_with("PUT", NEW, changed.clone(), &[("if-match", created.etag())]).await;
        assert_eq!(replaced.status, StatusCode::OK, "{:?}", replaced.body);
        let config = bench.running.config();
        let connection = config.connection("new").unwrap();
        assert_eq!(connection.ike.ike.dead_after, Duration::from_secs(60));
        let portcullis_ike::config::LocalAuth::Psk(secret) = &connection.ike.local_auth else { panic!() };
        assert_eq!(secret.expose(), b"a secret that nobody can guess");

        for method in ["PUT", "DELETE"] {
            let stale = bench.ask_with(method, NEW, changed.clone(), &[("if-match", created.etag())]).await;
            assert_eq!(
                (stale.status, stale.problem()),
                (StatusCode::PRECONDITION_FAILED, "stale".to_owned())
            );
        }
        assert_eq!(bench.ask("DELETE", NEW, "").await.status, StatusCode::PRECONDITION_REQUIRED);
        bench.ask("PUT", &format!("{NEW}/esp-policy"), json!({"on_unreachable": "fail-closed"})).await;
        let removed = bench.ask_with("DELETE", NEW, "", &[("if-match", replaced.etag())]).await;
        assert_eq!((removed.status, removed.json()["result"].clone()), (StatusCode::OK, "removed".into()));
        assert_eq!(bench.ask("GET", NEW, "").await.status, StatusCode::NOT_FOUND);
        assert_eq!(bench.ask("DELETE", NEW, "").await.problem(), "unknown-connection");
        let entries = bench.store()["stored"]["entries"].clone();
        assert_eq!((&entries["policies"], &entries["connections"]), (&json!({}), &json!({})));
    });
}

#[test]
fn a_connection_of_the_file_can_be_overridden_and_comes_back() {
    run(async {
        let bench = Bench::new();
        let path = "/v1/connections/plain";
        let read = bench.ask("GET", path, "").await;
        assert_eq!(read.json()["configured_by"], "configuration");
        let in_file = bench.ask_with("DELETE", path, "", &[("if-match", "*")]).await;
        assert_eq!((in_file.status, in_file.problem()), (StatusCode::CONFLICT, "failed".to_owned()));
        let mut document = read.json()["configuration"].clone();
        document["metrics"] = json!(true);
        let put = bench.ask_with("PUT", path, document, &[("if-match", read.etag())]).await;
        assert_eq!((put.status, put.json()["result"].clone()), (StatusCode::OK, "replaced".into()));
        assert_eq!(bench.running.config().connections.len(), 3);
        assert!(bench.running.config().connection("plain").unwrap().metrics);
        let removed = bench.ask_with("DELETE", path, "", &[("if-match", put.etag())]).await;
        assert_eq!(removed.status, StatusCode::OK);
        assert_eq!(bench.ask("GET", path, "").await.etag(), read.etag());
    });
}

#[test]
fn an_invalid_document_names_the_fields_and_changes_nothing() {
    run(async {
        let bench = Bench::new();
        let good = document(&bench.directory);
        let with = |pointer: &str, value: Value| {
            let mut document = good.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap()[key] = value;
            document
        };
        for (document, field, message) in [
            (with("/ike", json!({"transport": "pigeon"})), "ike.transport", "udp-then-tcp"),
            (with("/local/secret_file", json!("/nonexistent")), "local.secret_file", "No such file"),
            (with("/local/secret", json!("hunter2")), "local.secret", "unknown key"),
            (with("/children/net/local_ts", json!([])), "children.net.local_ts", "at least one"),
            (
                with("/children/net/remote_ts", json!(["10.2.0.0/16"])),
                "children.net",
                "selectors of different",
            ),
            (
                with("/remote", json!({"address": "192.0.2.2", "id": "b.example", "auth": "psk"})),
                "",
                "told apart",
            ),
            (with("/esp", json!({"probe": 5})), "esp.probe", "keys with values"),
            (json!("text"), "", "keys with values"),
            (json!({}), "", "'local' is missing"),
        ] {
            let answer = bench.ask("PUT", NEW, document).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{field}: {:?}", answer.body);
            let problem = answer.json();
            let errors = problem["errors"].as_array().unwrap();
            let is_it = |error: &&Value| {
                error["field"] == field && error["detail"].as_str().unwrap().contains(message)
            };
            assert!(errors.iter().any(|error| is_it(&error)), "{field} {message}: {problem}");
        }
        let allowed = bench.ask("PUT", NEW, with("/ike", json!({"transport": "pigeon"}))).await.json();
        assert_eq!(allowed["errors"][0]["allowed"], json!(["udp", "udp-then-tcp", "tcp"]));
        let twice = "{\"local\":{},\"local\":{}}";
        assert!(bench.ask("PUT", NEW, twice).await.json()["detail"].as_str().unwrap().contains("twice"));
        let name = bench.ask("PUT", "/v1/connections/-bad-", good).await;
        assert!(name.json()["detail"].as_str().unwrap().contains("is not a name"));
        assert_eq!((bench.applied(), bench.store()), (0, Value::Null));
    });
}

#[test]
fn creating_can_be_made_to_fail_when_it_is_there() {
    run(async {
        let bench = Bench::new();
        let create = [("if-none-match", "*")];
        let document = document(&bench.directory);
        assert_eq!(bench.ask_with("PUT", NEW, document.clone(), &create).await.status, StatusCode::CREATED);
        let again = bench.ask_with("PUT", NEW, document.clone(), &create).await;
        assert_eq!(again.status, StatusCode::PRECONDITION_FAILED);
        let replace = bench.ask_with("PUT", "/v1/connections/other", document, &[("if-match", "*")]).await;
        assert_eq!(replace.status, StatusCode::PRECONDITION_FAILED, "If-Match: * means it is there");
    });
}
