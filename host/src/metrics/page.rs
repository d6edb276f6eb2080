//! A page of figures while it is gathered: pipelines add their series to families, and each family is written once, in the order in which they came up.

use crate::monitor::Histogram;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt::Error;

/// Labels of one series.
pub type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
pub enum Figure {
    Count(u64),
    Whole(i64),
    Real(f64),
    Durations(Histogram),
}

impl From<u64> for Figure {
    fn from(value: u64) -> Self {
        Self::Count(value)
    }
}

impl From<usize> for Figure {
    fn from(value: usize) -> Self {
        Self::Count(value as u64)
    }
}

impl From<i64> for Figure {
    fn from(value: i64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<Histogram> for Figure {
    fn from(value: Histogram) -> Self {
        Self::Durations(value)
    }
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    series: Vec<(Labels, Figure)>,
}

#[derive(Debug, Default)]
pub struct Page {
    families: Vec<Family>,
    /// Whose figures are being added.
    pipeline: String,
}

impl Page {
    /// What is added from now on is this pipeline's.
    pub fn of(&mut self, pipeline: &str) {
        pipeline.clone_into(&mut self.pipeline);
    }

    pub fn counter<T: Into<Figure>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        series: impl IntoIterator<Item = (Labels, T)>,
    ) {
        self.add((name, help, unit, MetricType::Counter), "pipeline", series);
    }

    pub fn gauge<T: Into<Figure>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        series: impl IntoIterator<Item = (Labels, T)>,
    ) {
        self.add((name, help, unit, MetricType::Gauge), "pipeline", series);
    }

    pub fn histogram(&mut self, name: &'static str, help: &'static str, series: impl IntoIterator<Item = (Labels, Histogram)>) {
        self.add((name, help, Some(Unit::Seconds), MetricType::Histogram), "pipeline", series);
    }

    /// Under the name and labels that dashboards for Kafka look for.
    pub fn lag(&mut self, series: Vec<(Labels, i64)>) {
        let help = "Records of a partition behind the committed position.";
        self.add(("kafka_consumergroup_lag", help, None, MetricType::Gauge), "consumergroup", series);
    }

    /// Of the process: without a pipeline, as dashboards for processes have it.
    pub fn own<T: Into<Figure>>(
        &mut self,
        (name, help, unit, kind): (&'static str, &'static str, Option<Unit>, MetricType),
        labels: Labels,
        value: T,
    ) {
        self.families.push(Family { name, help, unit, kind, series: vec![(labels, value.into())] });
    }

    fn add<T: Into<Figure>>(
        &mut self,
        (name, help, unit, kind): (&'static str, &'static str, Option<Unit>, MetricType),
        whose: &'static str,
        series: impl IntoIterator<Item = (Labels, T)>,
    ) {
        let pipeline = &self.pipeline;
        let labelled = |own: Labels| std::iter::once((whose, pipeline.clone())).chain(own).collect();
        let series = series.into_iter().map(|(own, value)| (labelled(own), value.into()));
        match self.families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.series.extend(series),
            None => {
                let series = series.collect();
                self.families.push(Family { name, help, unit, kind, series });
            }
        }
    }

    pub fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for family in &self.families {
            let mut metric = encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), family.kind)?;
            for (labels, figure) in &family.series {
                let mut one = metric.encode_family(labels)?;
                match (family.kind, figure) {
                    (MetricType::Counter, Figure::Count(value)) => one.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                    (MetricType::Counter, Figure::Real(value)) => one.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                    (_, Figure::Count(value)) => one.encode_gauge(value)?,
                    (_, Figure::Whole(value)) => one.encode_gauge(value)?,
                    (_, Figure::Real(value)) => one.encode_gauge(value)?,
                    (_, Figure::Durations(value)) => {
                        one.encode_histogram::<NoLabelSet>(value.sum.as_secs_f64(), value.count(), &value.buckets(), None)?;
                    }
                }
            }
        }
        Ok(())
    }
}
