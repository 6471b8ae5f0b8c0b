//! Many connections that lose their peers at once: no storm when the outage is over (rule 5).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_ike::action::Action;
use portcullis_ike::config::{EndpointConfig, StartMode, StartTransport};
use portcullis_ike::endpoint::StreamDown;
use portcullis_ike::path::StreamId;

use crate::configuration::{A, connection};
use crate::node::Node;

const CONNECTIONS: usize = 200;

/// Every peer refuses TCP; the connections start together and fail together, again and again. After the first start, which is
/// not held back, no more leave in any second than the configuration allows.
#[test]
fn two_hundred_connections_that_failed_together_return_at_the_configured_rate() {
    for per_second in [50, 10] {
        let config = EndpointConfig { reestablish_per_second: per_second, ..EndpointConfig::default() };
        let connections = (0..CONNECTIONS).map(|n| {
            let remote: IpAddr = format!("198.51.{}.{}", 100 + n / 200, n % 200 + 1).parse().unwrap();
            let mut connection =
                connection("a", &format!("peer{n}"), A, remote, "10.1.0.0/16", "10.2.0.0/16");
            connection.name = format!("c{n}").into();
            connection.ike.transport = StartTransport::Tcp;
            connection.children[0].start = StartMode::Always;
            connection
        });
        let mut node = Node::new(config, connections.collect(), A, 9, 0);
        let mut dials: Vec<Duration> = Vec::new();
        let mut now = portcullis_ike::Time::ZERO;
        while now < portcullis_ike::Time::ZERO + Duration::from_secs(300) {
            let mut refused: Vec<StreamId> = Vec::new();
            while let Some(action) = node.endpoint.poll_action() {
                if let Action::Dial { stream, remote, .. } = action {
                    assert_eq!(remote, SocketAddr::new(remote.ip(), 4500));
                    dials.push(now.since(portcullis_ike::Time::ZERO));
                    refused.push(stream);
                }
            }
            for stream in refused {
                node.endpoint.handle_stream_down(now, stream, StreamDown::Refused);
            }
            now = node.endpoint.poll_timeout().unwrap().max(now);
            node.endpoint.handle_timeout(now);
        }
        let again = &dials[CONNECTIONS..];
        assert!(again.len() >= 3 * CONNECTIONS, "{}", again.len());
        let limit = per_second as usize;
        let is_slow = |window: &[Duration]| window[limit] - window[0] >= Duration::from_millis(999);
        assert!(again.windows(limit + 1).all(is_slow), "{per_second} a second");
    }
}
