//! The last things that happened, readable, printed when a test fails.

use std::collections::VecDeque;

use portcullis_ike::Time;
use portcullis_ike::codec::Header;

/// See the module.
#[derive(Default)]
pub struct Trace(VecDeque<String>);

const LINES: usize = 400;

impl Trace {
    pub fn line(&mut self, now: Time, line: String) {
        if self.0.len() == LINES {
            self.0.pop_front();
        }
        self.0.push_back(format!("{:>12.6} {line}", now.since(Time::ZERO).as_secs_f64()));
    }

    /// An IKE message leaves.
    pub fn message(&mut self, now: Time, node: usize, transport: &str, message: &[u8]) {
        let Ok((header, _)) = Header::decode(message) else { return };
        let kind = if header.flags.response { "response" } else { "request" };
        let exchange = header.exchange;
        self.line(
            now,
            format!(
                "node {node} sends {exchange:?} {kind} {} of {:x}/{:x} over {transport}, {} octets",
                header.message_id,
                header.spi_i >> 40,
                header.spi_r >> 40,
                message.len()
            ),
        );
    }

    pub fn print(&self) {
        self.0.iter().for_each(|line| eprintln!("{line}"));
    }
}
