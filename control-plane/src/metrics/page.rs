//! Families that are made for one scrape.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelValue, LabelValueEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

/// The families of a scrape, in the order they are added.
#[derive(Default, Debug)]
pub(super) struct Page(Vec<Family>);

/// Samples of one name.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Vec<(&'static str, Label)>, Value)>,
}

/// The value of a label.
#[derive(Clone, Debug)]
pub(super) enum Label {
    Word(&'static str),
    Name(Arc<str>),
    Text(String),
}

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Count(u64),
    Measure(f64),
}

impl Page {
    /// Starts a family of things that only grow; its name ends in `_total` on the page.
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, MetricType::Counter)
    }

    /// Starts a family of things that go up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, MetricType::Gauge)
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: MetricType) -> &mut Family {
        self.0.push(Family { name, help, kind, samples: Vec::new() });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

impl Family {
    /// Adds a sample.
    pub(super) fn sample<const N: usize>(
        &mut self,
        labels: [(&'static str, Label); N],
        value: impl Into<Value>,
    ) {
        self.samples.push((labels.into(), value.into()));
    }

    /// Adds the only sample of a family without labels.
    pub(super) fn only(&mut self, value: impl Into<Value>) {
        self.sample([], value);
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for family in &self.0 {
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (labels, value) in &family.samples {
                let labels = labels.as_slice();
                let mut sample = metric.encode_family(&labels)?;
                match (family.kind, value) {
                    (MetricType::Counter, Value::Count(n)) => {
                        sample.encode_counter(n, None::<&Exemplar<NoLabelSet, f64>>)?;
                    }
                    (MetricType::Counter, Value::Measure(x)) => {
                        sample.encode_counter(x, None::<&Exemplar<NoLabelSet, f64>>)?;
                    }
                    (_, Value::Count(n)) => sample.encode_gauge(n)?,
                    (_, Value::Measure(x)) => sample.encode_gauge(x)?,
                }
            }
        }
        Ok(())
    }
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let text = match self {
            Self::Word(word) => word,
            Self::Name(name) => &**name,
            Self::Text(text) => text.as_str(),
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl From<&'static str> for Label {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<Arc<str>> for Label {
    fn from(name: Arc<str>) -> Self {
        Self::Name(name)
    }
}

impl From<String> for Label {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Count(u64::from(yes))
    }
}

impl From<f64> for Value {
    fn from(measure: f64) -> Self {
        Self::Measure(measure)
    }
}
