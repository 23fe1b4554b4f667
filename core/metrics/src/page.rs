//! A page: families of numbers, and their text.
//!
//! Families stand in the order in which they were first named, and their points in the order in
//! which they were added. A point whose labels a family has already is left out: a reader refuses
//! the whole page for one that stands there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit as ClientUnit};

/// The media type of a page's text.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values that tell points of a family apart. Shared, since many families have a point
/// for each node.
pub type Labels = Arc<[(&'static str, String)]>;

/// Labels from pairs.
#[must_use]
pub fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

/// What a family's numbers are counted in; the end of its name says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    None,
    /// A part of one.
    Ratio,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Seconds.
    Seconds,
    /// Degrees Celsius.
    Celsius,
    /// Watts.
    Watts,
    /// Hertz.
    Hertz,
}

impl Unit {
    fn of_client(self) -> Option<ClientUnit> {
        Some(match self {
            Self::None => return None,
            Self::Ratio => ClientUnit::Other("ratio".into()),
            Self::Bytes => ClientUnit::Bytes,
            Self::BytesPerSecond => ClientUnit::Other("bytes_per_second".into()),
            Self::Seconds => ClientUnit::Seconds,
            Self::Celsius => ClientUnit::Celsius,
            Self::Watts => ClientUnit::Other("watts".into()),
            Self::Hertz => ClientUnit::Other("hertz".into()),
        })
    }
}

/// How a family's numbers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They rise and fall.
    Gauge,
    /// They only rise, until what counts begins anew; `_total` ends the name.
    Counter,
    /// They are 1, and the labels are what they say; `_info` ends the name.
    Info,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole one.
    Whole(u64),
    /// Any other.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// One family: what its numbers are, and the numbers.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<ClientUnit>,
    kind: Kind,
    points: Vec<(Labels, Value)>,
    known: BTreeSet<Labels>,
}

impl Family {
    /// Adds a point.
    pub fn add(&mut self, labels: &Labels, value: impl Into<Value>) {
        if self.known.insert(labels.clone()) {
            self.points.push((labels.clone(), value.into()));
        }
    }

    /// Adds a point where there is a reading.
    pub fn add_some(&mut self, labels: &Labels, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(labels, value);
        }
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
            Kind::Info => MetricType::Info,
        };
        let unit = self.unit.as_ref();
        let mut all = encoder.encode_descriptor(self.name, self.help, unit, kind)?;
        for (labels, value) in &self.points {
            if self.kind == Kind::Info {
                all.encode_info(&pairs(labels))?;
                continue;
            }
            let pairs = pairs(labels);
            let mut one = all.encode_family(&pairs)?;
            let no_exemplar: Option<&Exemplar<NoLabelSet, f64>> = None;
            match (self.kind, value) {
                (Kind::Counter, Value::Whole(value)) => one.encode_counter(value, no_exemplar)?,
                (Kind::Counter, Value::Real(value)) => one.encode_counter(value, no_exemplar)?,
                (_, Value::Whole(value)) => one.encode_gauge(value)?,
                (_, Value::Real(value)) => one.encode_gauge(value)?,
            }
        }
        Ok(())
    }
}

fn pairs(labels: &Labels) -> Vec<(&str, &str)> {
    labels.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// Families in their order.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<Family>,
    places: BTreeMap<&'static str, usize>,
}

impl Page {
    /// The family of a name without its unit; made where it is new. The first one to name it says
    /// what it is.
    pub fn family(
        &mut self,
        name: &'static str,
        unit: Unit,
        kind: Kind,
        help: &'static str,
    ) -> &mut Family {
        let new = self.families.len();
        let place = *self.places.entry(name).or_insert(new);
        if place == new {
            let unit = unit.of_client();
            let (points, known) = (Vec::new(), BTreeSet::new());
            self.families.push(Family { name, help, unit, kind, points, known });
        }
        &mut self.families[place]
    }

    /// A family of numbers that rise and fall.
    pub fn gauge(&mut self, name: &'static str, unit: Unit, help: &'static str) -> &mut Family {
        self.family(name, unit, Kind::Gauge, help)
    }

    /// A family of numbers that only rise.
    pub fn counter(&mut self, name: &'static str, unit: Unit, help: &'static str) -> &mut Family {
        self.family(name, unit, Kind::Counter, help)
    }

    /// What every daemon says first: its version, and which daemon it is.
    pub fn build(&mut self, daemon: &str, version: &str) {
        let help = "Which daemon this is, and its version";
        let labels = labels([("daemon", daemon), ("version", version)]);
        self.family("gantry_build", Unit::None, Kind::Info, help).add(&labels, 1_u64);
    }

    /// The page as text.
    #[must_use]
    pub fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut text, &registry);
        text
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // A family without a point would only say its own name.
        let families = self.families.iter().filter(|family| !family.points.is_empty());
        families.into_iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_text_in_the_open_metrics_format() {
        let mut page = Page::default();
        page.build("scheduler", "1.2.3");
        let node = labels([("node", "a \"b\"\\\n")]);
        let memory = page.gauge("gantry_node_memory_used", Unit::Bytes, "Memory in use");
        memory.add(&node, 1_u64 << 40);
        memory.add(&node, 5_u64);
        memory.add_some(&labels([("node", "c")]), None::<u64>);
        page.gauge("gantry_empty", Unit::None, "Nothing");
        page.counter("gantry_ecc", Unit::None, "Errors").add(&labels([]), 7_u64);
        page.gauge("gantry_node_cpu", Unit::Ratio, "Use").add(&node, 0.25);
        let text = page.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "# HELP gantry_build Which daemon this is, and its version",
                "# TYPE gantry_build info",
                "gantry_build_info{daemon=\"scheduler\",version=\"1.2.3\"} 1",
                "# HELP gantry_node_memory_used_bytes Memory in use",
                "# TYPE gantry_node_memory_used_bytes gauge",
                "# UNIT gantry_node_memory_used_bytes bytes",
                "gantry_node_memory_used_bytes{node=\"a \\\"b\\\"\\\\\\n\"} 1099511627776",
                "# HELP gantry_ecc Errors",
                "# TYPE gantry_ecc counter",
                "gantry_ecc_total 7",
                "# HELP gantry_node_cpu_ratio Use",
                "# TYPE gantry_node_cpu_ratio gauge",
                "# UNIT gantry_node_cpu_ratio ratio",
                "gantry_node_cpu_ratio{node=\"a \\\"b\\\"\\\\\\n\"} 0.25",
                "# EOF",
            ]
        );
    }
}
