//! `/metrics` as Prometheus would scrape it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Scrapes `address` from inside `namespace`.
    ///
    /// # Errors
    /// If nothing answers, or with another status than 200.
    pub fn scrape(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        get(namespace, address, "/metrics").map(Self)
    }

    /// The sum of every sample of `name` whose labels include all of `labels`; `None` if there is no sample.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let values: Vec<f64> = self
            .samples()
            .filter(|(sample, found, _)| {
                *sample == name
                    && labels.iter().all(|(key, value)| found.contains(&format!("{key}=\"{value}\"")))
            })
            .map(|(_, _, value)| value)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The values of `label` in those samples of `name` that are 1 and whose labels include all of `labels`.
    pub fn ones(&self, name: &str, labels: &[(&str, &str)], label: &str) -> Vec<String> {
        let is_asked_for =
            |found: &str| labels.iter().all(|(key, value)| found.contains(&format!("{key}=\"{value}\"")));
        let of = |found: &str| {
            let (_, rest) = found.split_once(&format!("{label}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        self.samples()
            .filter(|(sample, found, value)| *sample == name && *value == 1.0 && is_asked_for(found))
            .filter_map(|(_, found, _)| of(found))
            .collect()
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.samples().count()
    }

    /// True if there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name, labels as written, and value of every sample.
    pub fn samples(&self) -> impl Iterator<Item = (&str, &str, f64)> {
        self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name, labels.trim_end_matches('}'), value.parse().ok()?))
        })
    }
}

/// The body of a successful GET.
pub(crate) fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut stream = namespace
        .enter(|| TcpStream::connect_timeout(&address, PATIENCE))
        .with_context(|| format!("connecting to {address} in {}", namespace.name()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer ends with the connection and is not chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("reading {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of header")?;
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.contains(" 200 "), "{path}: {status}: {body}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_are_named_by_their_label() {
        let metrics = Metrics(
            "s{connection=\"x\",state=\"tcp\"} 1\ns{connection=\"x\",state=\"idle\"} 0\ns{connection=\"y\",state=\"idle\"} 1\n"
                .to_owned(),
        );
        assert_eq!(metrics.ones("s", &[("connection", "x")], "state"), ["tcp"]);
        assert_eq!(metrics.ones("s", &[("connection", "z")], "state"), [""; 0]);
    }

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let metrics = Metrics(
            "# TYPE portcullis_x counter\nportcullis_x_total{a=\"1\",b=\"2\"} 3\nportcullis_x_total{a=\"1\"} 4\nup 1\n"
                .to_owned(),
        );
        assert_eq!(metrics.sum("portcullis_x_total", &[("a", "1")]), Some(7.0));
        assert_eq!(metrics.sum("portcullis_x_total", &[("b", "2"), ("a", "1")]), Some(3.0));
        assert_eq!(metrics.sum("portcullis_x_total", &[("b", "3")]), None);
        assert_eq!((metrics.sum("up", &[]), metrics.len()), (Some(1.0), 3));
    }
}
