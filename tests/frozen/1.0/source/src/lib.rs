//! Uses everything that the plugin contract 1.0 has, one mode at a time, and tells what it met. Not built any more: see `../../README.md`.

mod columns;
mod migration;
mod shapes;
mod stores;
mod times;

use columns::field;
use millstream_guest::column::{Column, Type};
use millstream_guest::describe::{Description, FieldType, Mistake, Occasion, Output, OutputKey, Read};
use millstream_guest::verdict::Verdict;
use millstream_guest::{Batch, Emitting, Migrating, Plugin, Setup, Timed};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: Mode,
    /// What `init` is told and `describe` is not.
    #[serde(default)]
    secret: String,
}

#[derive(Clone, Copy, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Select,
    Shapes,
    Values,
    Inputs,
    State,
    Sessions,
    Changes,
    Timers,
    Older,
    Newer,
    Mistaken,
}

pub struct Frozen {
    mode: Mode,
    secret: String,
}

/// A field that is read of all inputs and may be missing.
fn read(path: &str, kind: Type) -> Read {
    Read::of(field(path), kind)
}

/// A field that is written and may be null.
fn writes(path: &str, kind: Type) -> FieldType {
    FieldType { path: field(path), kind, nullable: true }
}

/// An output of new objects with keys of the plugin's own.
fn told(fields: &[(&str, Type)]) -> Output {
    let fields = fields.iter().map(|(path, kind)| writes(path, *kind)).collect();
    Output { name: "out".to_owned(), base: millstream_guest::describe::Base::Replace, fields, removes: Vec::new(), key: OutputKey::Text }
}

impl Plugin for Frozen {
    const NAME: &'static str = "frozen";
    const VERSION: &'static str = "1.0.0";
    const SUMMARY: &'static str = "Uses everything that the plugin contract 1.0 has.";
    const PROTECTS: bool = true;
    type Config = Config;

    fn describe(setup: &Setup<Config>) -> Result<Description, Vec<Mistake>> {
        Ok(match setup.config.mode {
            Mode::Select => shapes::select(),
            Mode::Shapes => shapes::all(),
            Mode::Values => shapes::raw(),
            Mode::Inputs => shapes::of_inputs(setup),
            Mode::State => stores::state(setup),
            Mode::Sessions => times::sessions(),
            Mode::Changes => stores::changes(),
            Mode::Timers => times::timers(),
            Mode::Older => migration::older(),
            Mode::Newer => migration::newer(),
            Mode::Mistaken => {
                let proposal = Some("select".to_owned());
                return Err(vec![Mistake {
                    at: "/mode".to_owned(),
                    span: Some((0, 3)),
                    message: "this is a mistake".to_owned(),
                    proposal,
                }]);
            }
        })
    }

    fn init(setup: Setup<Config>) -> Result<Self, String> {
        Ok(Self { mode: setup.config.mode, secret: setup.config.secret })
    }

    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        match self.mode {
            Mode::Select => shapes::process_select(&batch, &self.secret),
            Mode::Shapes => Ok(shapes::process_all(&batch)),
            Mode::Values => Ok(shapes::process_raw(&batch)),
            Mode::Inputs => Ok(shapes::process_inputs(&batch)),
            Mode::State => Ok(stores::process_state(&batch)),
            Mode::Sessions => Ok(times::process_sessions(&batch)),
            Mode::Changes => Ok(stores::process_changes(&batch)),
            Mode::Timers => Ok(times::process_timers(&batch)),
            Mode::Older => Ok(migration::process_older(&batch)),
            Mode::Newer => Ok(migration::process_newer(&batch)),
            Mode::Mistaken => Err("it has no description".to_owned()),
        }
    }
}

impl Emitting for Frozen {
    fn emit(&mut self, store: u32, occasion: Occasion, keys: Column, fields: Vec<Column>) -> Result<Verdict, String> {
        Ok(match self.mode {
            Mode::Sessions => times::emit(store, occasion, &keys, &fields),
            _ => stores::emit(store, occasion, &keys, &fields),
        })
    }
}

impl Timed for Frozen {
    fn fire(&mut self, times: Vec<i64>, keys: Column) -> Result<Verdict, String> {
        Ok(times::fire(&times, &keys))
    }
}

impl Migrating for Frozen {
    fn migrate(&mut self, store: u32, older: u32, keys: Column, fields: Vec<Column>) -> Result<Vec<Column>, String> {
        migration::migrate(store, older, &keys, &fields)
    }
}

millstream_guest::export!(Frozen: emitting, timed, migrating);
