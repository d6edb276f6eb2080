//! Plugins over records. The attribute macros `filter`, `map`, `aggregate`, `stateful` and `enrich` make one of a function; what they
//! stand on is here: a function over the rows of a batch, reading columns, answering into a sink.

mod answer;
mod join;
mod member;
mod migrate;
mod rows;
mod stateful;
#[cfg(test)]
mod tests;
mod timed;

pub use answer::{Answer, Output, Sink};
pub use join::{Join, Joined};
pub use member::{At, Change, Cursor, Declared, Fields, Json, JsonText, Member, Prepared, Scalar, Writer, declared, is_field_name};
pub use migrate::{Migration, migration, set_default};
pub use rows::{Row, Rows};
pub use stateful::{Keys, Stateful, Stored};
pub use timed::Timer;

use crate::describe::{Description, Mistake, Read};
use crate::plugin::{Batch, Plugin, Setup};
use crate::verdict::Verdict;

/// Refuses a record: the stage's error policy (`fail`, `skip`, `dead_letter`) decides what becomes of it. The state it wrote is discarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Reject {
    pub reason: String,
}

impl Reject {
    /// Never quote values of the record: reasons are read by more people than the topic.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// The configuration of a plugin that has none: anything under `with` is a mistake.
#[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// What all kinds of plugins say of themselves. The macros write it.
pub trait Transform: 'static {
    const NAME: &'static str;
    const VERSION: &'static str;
    const SUMMARY: &'static str;
    /// See [`Answer::SELECTS`].
    const SELECTS: bool;
    type Config: serde::de::DeserializeOwned + schemars::JsonSchema + 'static;
    fn reads() -> Vec<Declared>;
    fn outputs() -> Vec<Output>;
}

/// A transform that looks at one record and nothing else.
pub trait Each: Transform {
    fn record(config: &Self::Config, row: &mut Cursor<'_, '_>, sink: &mut Sink) -> Result<(), Reject>;
}

/// The plugin of an [`Each`].
#[derive(Debug)]
pub struct Stateless<T: Transform> {
    config: T::Config,
    reads: Vec<Declared>,
    outputs: Vec<Output>,
}

impl<T: Each> Plugin for Stateless<T> {
    const NAME: &'static str = T::NAME;
    const VERSION: &'static str = T::VERSION;
    const SUMMARY: &'static str = T::SUMMARY;
    type Config = T::Config;

    fn describe(_: &Setup<T::Config>) -> Result<Description, Vec<Mistake>> {
        description::<T>(&T::reads())
    }

    fn init(setup: Setup<T::Config>) -> Result<Self, String> {
        Ok(Self { config: setup.config, reads: T::reads(), outputs: T::outputs() })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        let columns = Prepared::all(&batch.fields)?;
        Ok(each_row::<T>(&self.outputs, batch.rows, |row, sink| {
            let result = T::record(&self.config, &mut Cursor::new(&columns, &self.reads, row), sink);
            sink.close(result);
        }))
    }
}

/// Goes over a batch. `work` closes the sink's record itself.
fn each_row<T: Transform>(outputs: &[Output], rows: usize, mut work: impl FnMut(usize, &mut Sink)) -> Verdict {
    let mut sink = Sink::new(outputs, rows);
    for row in 0..rows {
        crate::log::set_current_row(Some(row as u32));
        sink.open(row);
        work(row, &mut sink);
    }
    crate::log::set_current_row(None);
    sink.finish(T::SELECTS, rows)
}

/// What `describe` answers for any kind; stores and tables are added by the kinds that have them.
fn description<T: Transform>(reads: &[Declared]) -> Result<Description, Vec<Mistake>> {
    let outputs: Result<Vec<_>, _> = T::outputs().iter().map(Output::describe).collect();
    let read = |column: &Declared| Read { required: !column.nullable, ..Read::of(column.path.clone(), column.kind) };
    Ok(Description {
        reads: reads.iter().map(read).collect(),
        outputs: outputs.map_err(|mistake| vec![mistake])?,
        ..Description::default()
    })
}

/// The place of a field in `reads`, appended as a `T` if the record type does not read it.
fn place_of<'a, T: Member<'a>>(reads: &mut Vec<Declared>, field: &str) -> usize {
    let mut wanted = Vec::new();
    T::declare(&At::RECORD.member(field), &mut wanted);
    match reads.iter().position(|column| wanted.iter().any(|wanted| wanted.path == column.path)) {
        Some(place) => place,
        None => {
            reads.append(&mut wanted);
            reads.len() - 1
        }
    }
}
