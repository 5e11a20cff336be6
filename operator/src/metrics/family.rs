//! A metric family that is made anew at each scrape, from what is true then.
//!
//! Used by collectors whose label values come and go with objects: a vector of the library's would have to be told of
//! every series that ends.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Name, kind and labels of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Gauge,
    Counter,
}

impl Shape {
    pub(super) const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self { name, help, labels, kind: Kind::Gauge }
    }

    pub(super) const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Self {
        Self { name, help, labels, kind: Kind::Counter }
    }
}

/// A family in the making.
pub(super) struct Family {
    shape: Shape,
    metrics: Vec<Metric>,
}

impl Family {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, metrics: vec![] }
    }

    /// Adds a series, whose label values are in the order of the shape's labels.
    pub(super) fn add(&mut self, values: &[&str], number: f64) {
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut metric = Metric::from_label(self.shape.labels.iter().zip(values).map(pair).collect());
        match self.shape.kind {
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(number);
                metric.set_gauge(gauge);
            }
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(number);
                metric.set_counter(counter);
            }
        }
        self.metrics.push(metric);
    }

    /// The family; none without series, which the text format has no words for.
    pub(super) fn finish(self) -> Option<MetricFamily> {
        if self.metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.shape.name.to_owned());
        family.set_help(self.shape.help.to_owned());
        family.set_field_type(match self.shape.kind {
            Kind::Gauge => MetricType::GAUGE,
            Kind::Counter => MetricType::COUNTER,
        });
        family.set_metric(self.metrics);
        Some(family)
    }
}
