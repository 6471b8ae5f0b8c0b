//! The events stream.

use super::*;

#[test]
fn the_stream_shows_a_change_and_resumes_after_it() {
    run(async {
        let bench = Bench::new();
        let mut stream = open(&bench, None).await;
        bench.ask("PUT", "/v1/connections/plain/esp-policy", json!({"on_unreachable": "fail-closed"})).await;
        let text = next(&mut stream).await;
        assert!(text.contains("event: policy_changed\n"), "{text}");
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&data["event"], &data["connection"]), (&json!("policy_changed"), &json!("plain")));
        assert_eq!(data["detail"], "fail-closed by uid:0");
        let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
        drop(stream);
        bench.ask("POST", "/v1/reload", "").await;
        let mut resumed = open(&bench, Some(&id)).await;
        assert!(next(&mut resumed).await.contains("event: reloaded\n"));
        let mut unknown = open(&bench, Some("1-1")).await;
        assert!(next(&mut unknown).await.starts_with("event: gap\n"));
        assert!(next(&mut unknown).await.contains(&format!("id: {id}\n")));
    });
}

async fn open(bench: &Bench, last: Option<&str>) -> Body {
    let mut request = Request::builder().uri("/v1/events").extension(Peer::Unix { uid: 0 });
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = bench.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response.into_body()
}

async fn next(stream: &mut Body) -> String {
    let frame = stream.frame().await.unwrap().unwrap().into_data().unwrap();
    String::from_utf8(frame.to_vec()).unwrap()
}
