//! A stage at work: what the plugin asked for is gathered, rows that cannot be read are refused, the plugin answers, the answer becomes batches.

mod emit;
mod kept;
mod refused;
mod services;
mod timers;

pub use emit::Give;
pub use refused::write_errors;
pub use services::Below;

use services::{Shared, StageServices};

use crate::column::{Bitmap, Column, ColumnBuilder, Type};
use crate::field::Field;
use crate::flow::batch::{Base, Batch, GivenKeys, Held, HeldHeaders, Origin, Slot, nulls};
use crate::flow::kept::rows_derived;
use crate::flow::plan::{Plan, ReadFrom, SourcePlan};
use crate::flow::provenance;
use crate::flow::reject::Rejected;
use crate::flow::source::with_place;
use crate::flow::window;
use crate::key;
use crate::pipeline::{KeyFormat, Pipeline, Policy, Source, Tombstones};
use crate::plugin::describe::{self, Part};
use crate::plugin::{CallError, Derived, FROM_NONE, Input, Instance, Leaves, Outcome, Plugin, Services, Verdict};
use crate::store::{StateStore, TableView};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a stage has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub rows_in: u64,
    pub rows_out: u64,
    pub rejected: u64,
    /// Rows whose window was closed.
    pub late: u64,
    pub calls: u64,
    /// In the plugin and around it.
    pub time: Duration,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.rejected += other.rejected;
        self.late += other.late;
        self.calls += other.calls;
        self.time += other.time;
    }
}

/// A plugin's call failed: the whole batch is void.
#[derive(Debug)]
pub struct CallFailure {
    pub stage: usize,
    pub error: CallError,
    pub origin: Arc<Origin>,
    /// The records of the call, first and last; the guilty one alone if the plugin told it.
    pub rows: (usize, usize),
}

pub struct Stage {
    index: usize,
    name: String,
    plugin: Arc<dyn Plugin>,
    request: Arc<describe::Request>,
    limits: crate::plugin::Limits,
    description: Arc<describe::Description>,
    instance: Option<Box<dyn Instance>>,
    services: Box<dyn Services>,
    shared: Arc<Mutex<Shared>>,
    /// By source.
    topics: Vec<Arc<str>>,
    /// By source: the stage's input by which its records come; empty if that does not matter.
    inputs: Vec<Option<u32>>,
    /// Whether records and reasons at this stage may be shown.
    exposed: bool,
    reasons_shown: bool,
    /// Whether late records are told, not only counted.
    tells_late: bool,
    /// Windows with times below are handed over.
    closed_below: i64,
    /// Whether its results tell the rows that they were made from.
    tells_rows: bool,
    pub counters: Counters,
}

impl Stage {
    /// `request` holds the secrets.
    pub fn new(
        pipeline: &Pipeline,
        index: usize,
        request: describe::Request,
        exposed: bool,
        stores: Vec<StateStore>,
        tables: Vec<TableView>,
    ) -> Self {
        let shared = Shared { stores, tables, place: None, late: Vec::new(), timers_from: i64::MIN, touched: None };
        Self::with(pipeline, index, request, exposed, Arc::new(Mutex::new(shared)))
    }

    /// One that works on the very stores and tables of another generation's.
    pub fn over(pipeline: &Pipeline, index: usize, request: describe::Request, exposed: bool, other: &Self) -> Self {
        Self::with(pipeline, index, request, exposed, other.shared.clone())
    }

    fn with(pipeline: &Pipeline, index: usize, request: describe::Request, exposed: bool, shared: Arc<Mutex<Shared>>) -> Self {
        let stage = &pipeline.stages[index];
        let reasons_shown = exposed || stage.log_unsafe;
        let services = StageServices {
            shared: shared.clone(),
            pipeline: pipeline.name.clone(),
            stage: stage.name.clone(),
            topics: pipeline.sources.iter().map(|source| source.topic.clone()).collect(),
            exposed: reasons_shown,
        };
        Self {
            index,
            name: stage.name.clone(),
            plugin: stage.plugin.clone(),
            request: Arc::new(request),
            limits: stage.limits,
            description: Arc::new(stage.description.clone()),
            instance: None,
            services: Box::new(services),
            shared,
            topics: pipeline.sources.iter().map(|source| source.topic.clone()).collect(),
            inputs: if stage.description.tells_inputs() { pipeline.inputs_of(stage).unwrap_or_default() } else { Vec::new() },
            exposed,
            reasons_shown,
            tells_late: stage.on_late != Policy::Skip,
            closed_below: i64::MIN,
            tells_rows: !stage.stores.is_empty() && provenance::tells_rows(pipeline)[index],
            counters: Counters::default(),
        }
    }

    /// Takes an instance that was made ahead.
    pub fn take_ready(&mut self, ahead: Option<Box<dyn Instance>>) {
        self.instance = self.instance.take().or(ahead);
    }

    /// Makes an instance if there is none; at the start, so that a plugin which does not load is found before the first record.
    pub fn prepare(&mut self) -> Result<(), CallError> {
        if self.instance.is_none() {
            self.instance = Some(self.plugin.instantiate(&self.request, &self.description, self.limits)?);
        }
        Ok(())
    }

    /// Drops the instance, and with it all that it remembers.
    pub fn reset(&mut self) {
        self.instance = None;
        // What was handed over since the last batch may be there again.
        self.closed_below = i64::MIN;
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (shared.timers_from, shared.touched) = (i64::MIN, None);
    }

    /// Works on the stage's stores.
    pub fn stores<T>(&mut self, work: impl FnOnce(&mut [StateStore]) -> T) -> T {
        work(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner).stores)
    }

    /// What its stores hold, newest first, for whoever stands on it.
    pub fn below(&self) -> Vec<Below> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let below = |(index, store): (usize, &StateStore)| Below { name: store.name().clone(), shared: self.shared.clone(), index };
        shared.stores.iter().enumerate().map(below).collect()
    }

    /// Leaves the stage without its stores.
    pub fn take_stores(&mut self) -> Vec<StateStore> {
        std::mem::take(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner).stores)
    }

    /// Sends a batch through the plugin; answers with a batch for each output.
    pub fn run(
        &mut self,
        batch: Batch,
        plan: &Plan,
        source: &Source,
        rejected: &mut Vec<Rejected>,
    ) -> Result<Vec<Option<Batch>>, CallFailure> {
        let rows = self.description.window.map_or(usize::MAX, window::rows_of_a_call);
        if batch.rows <= rows {
            return self.run_whole(batch, plan, source, rejected);
        }
        // Rows that come once for each of their windows are many: cut, lest a call has more than a guest can hold.
        let mut parts: Vec<Vec<Batch>> = vec![Vec::new(); self.description.outputs.len()];
        for first in (0..batch.rows).step_by(rows) {
            let part = batch.select((first as u32..batch.rows.min(first + rows) as u32).collect());
            for (parts, output) in parts.iter_mut().zip(self.run_whole(part, plan, source, rejected)?) {
                parts.extend(output);
            }
        }
        let source_plan = &plan.sources[batch.origin.source];
        let mut whole = Vec::with_capacity(parts.len());
        for parts in parts {
            let (merged, errors) = Batch::merge(parts, source_plan.format, &source_plan.wanted);
            self.refuse_writes(errors, &batch.origin, rejected);
            whole.push(merged);
        }
        Ok(whole)
    }

    fn run_whole(
        &mut self,
        mut batch: Batch,
        plan: &Plan,
        source: &Source,
        rejected: &mut Vec<Rejected>,
    ) -> Result<Vec<Option<Batch>>, CallFailure> {
        let description = self.description.clone();
        let source_plan = &plan.sources[batch.origin.source];
        let format = source_plan.format;
        self.counters.rows_in += batch.rows as u64;

        if let Some(window) = description.window {
            let late = window::late(&batch, window);
            self.counters.late += late.count as u64;
            if !late.rows.0.is_empty() {
                self.tell_late((0..batch.rows).filter(|row| late.rows.get(*row)), &batch, format, rejected);
                batch = batch.without(&late.rows);
            }
        }

        // Where the stage's input has keys of several formats, its plugin was told of none: it gets them as text.
        let told = || self.request.input.fields.iter().any(|field| field.path == Field::Key);
        if description.parts.contains(&Part::Key) && !told() && (batch.keys.is_some() || source.key != KeyFormat::Text) {
            batch.keys = Some(batch.text_keys(source.key));
        }

        // Tombstones go around plugins that do not ask for them.
        let split = source.tombstones != Tombstones::Deliver && !description.tombstones && batch.may_hold_tombstones();
        let tombstones: Vec<u32> =
            if split { (0..batch.rows as u32).filter(|row| batch.is_tombstone(*row as usize)).collect() } else { Vec::new() };

        if description.leaves || description.parts.contains(&Part::Value) {
            let (whole, errors) = batch.materialize(format);
            self.refuse_writes(errors, &batch.origin, rejected);
            batch = whole;
        }
        self.refresh(&mut batch, plan, source_plan, rejected);

        let mut refused = Bitmap::default();
        for row in &tombstones {
            refused.set(*row as usize);
        }
        let mut reasons: Vec<(usize, &'static str, String)> = Vec::new();
        self.check_sizes(&batch, &mut refused, &mut reasons);
        self.check_reads(&batch, plan, &mut refused, &mut reasons);
        let pseudo = self.pseudo(&batch, source, &mut refused, &mut reasons);
        self.refuse(&batch, format, reasons, rejected);

        // `live` are the rows that the plugin sees.
        let selection: Option<Vec<u32>> =
            refused.any(batch.rows).then(|| (0..batch.rows as u32).filter(|row| !refused.get(*row as usize)).collect());
        let mut pseudo: Vec<Option<Column>> = match &selection {
            None => pseudo,
            Some(rows) => pseudo.into_iter().map(|column| column.map(|column| column.gather(rows))).collect(),
        };
        let mut live = match &selection {
            None => batch.clone(),
            Some(rows) => batch.select(rows.clone()),
        };
        let passing = |batch: &Batch| (!tombstones.is_empty()).then(|| batch.select(tombstones.clone()));
        if live.rows == 0 {
            let passing = passing(&batch);
            self.counters.rows_out += passing.as_ref().map_or(0, |batch| batch.rows as u64);
            return Ok(description.outputs.iter().map(|output| passing.clone().filter(|_| extends(output))).collect());
        }

        let windows = description.window.map(|window| window::assign(&live, window));
        let repeated = windows.as_ref().and_then(|windows| windows.rows.as_deref());
        if let Some(rows) = repeated {
            live = live.select(rows.to_vec());
            pseudo = pseudo.into_iter().map(|column| column.map(|column| column.gather(rows))).collect();
        }
        for (column, read) in pseudo.iter_mut().zip(&description.reads) {
            if let (Field::WindowStart | Field::WindowEnd, Some(windows)) = (&read.path, &windows) {
                *column = Some(windows.column(read.path == Field::WindowEnd));
            }
        }

        let mut leaves = None;
        if description.leaves {
            let Base::Value(values) = &live.base else { unreachable!("the batch was materialized") };
            let (mut found, errors) = format.leaves(values.view(), live.rows);
            if !errors.is_empty() {
                let mut failed = Bitmap::default();
                for error in &errors {
                    failed.set(error.row as usize);
                }
                let reasons = errors.into_iter().map(|error| (error.row as usize, error.code, with_place(&error.message, error.at)));
                self.refuse(&live, format, reasons.collect(), rejected);
                live = live.without(&failed);
                let Base::Value(values) = &live.base else { unreachable!("the batch was materialized") };
                found = format.leaves(values.view(), live.rows).0;
                if live.rows == 0 {
                    let passing = passing(&batch);
                    return Ok(description.outputs.iter().map(|output| passing.clone().filter(|_| extends(output))).collect());
                }
            }
            leaves = Some(found);
        }

        let verdict = self.call(&live, plan, &pseudo, leaves.as_ref())?;
        self.counters.calls += 1;
        tracing::trace!(stage = self.name, rows = live.rows, rejected = verdict.rejects.len(), "a plugin took a batch");

        let late = std::mem::take(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner).late);
        self.counters.late += late.len() as u64;
        self.tell_late(late.into_iter().map(|row| row as usize), &live, format, rejected);

        let mut gone = Bitmap::default();
        if !verdict.rejects.is_empty() {
            let mut reasons = Vec::with_capacity(verdict.rejects.len());
            for reject in verdict.rejects {
                gone.set(reject.row as usize);
                let reason = if self.reasons_shown { reject.reason } else { "withheld: no stage before has masked the record".to_owned() };
                reasons.push((reject.row as usize, "rejected", reason));
            }
            if let Some(rows) = repeated {
                // Refused for several of its windows, it is refused once.
                reasons.dedup_by_key(|(row, ..)| rows[*row]);
            }
            self.refuse(&live, format, reasons, rejected);
        }
        if self.tells_rows {
            let starts = windows.as_ref().map(|windows| windows.starts.as_slice()).filter(|starts| starts.len() == live.rows);
            live.kept = Some(self.rows_of_call(&live, plan, &pseudo, starts));
        }
        let outputs = self.apply(verdict.outcome, &live, &gone, leaves.as_ref(), source_plan);
        let passing = passing(&batch);
        let mut whole = Vec::with_capacity(outputs.len());
        for (output, described) in outputs.into_iter().zip(&description.outputs) {
            let parts: Vec<_> = output.into_iter().chain(passing.clone().filter(|_| extends(described))).collect();
            let origin = batch.origin.clone();
            let (merged, errors) = Batch::merge(parts, format, &source_plan.wanted);
            self.refuse_writes(errors, &origin, rejected);
            self.counters.rows_out += merged.as_ref().map_or(0, |batch| batch.rows as u64);
            whole.push(merged);
        }
        Ok(whole)
    }

    /// Brings stale slots that this stage reads up to date.
    fn refresh(&mut self, batch: &mut Batch, plan: &Plan, source: &SourcePlan, rejected: &mut Vec<Rejected>) {
        let stale: Vec<usize> = plan.reads[self.index]
            .iter()
            .filter_map(|read| match read {
                ReadFrom::Slot(slot) if matches!(batch.fields[*slot], Slot::Stale) => Some(*slot),
                _ => None,
            })
            .collect();
        if stale.is_empty() {
            return;
        }
        let (whole, errors) = batch.materialize(source.format);
        self.refuse_writes(errors, &batch.origin, rejected);
        *batch = whole;
        batch.decode(source.format, &source.wanted, &stale);
    }

    /// The stage's input by which a row came.
    fn input_of(&self, batch: &Batch, row: usize) -> Option<u32> {
        self.inputs.get(batch.origin.place(batch.origin_row(row)).0).copied().flatten()
    }

    /// The columns of pseudo-fields, in the batch's rows; None where a slot or a window is read.
    fn pseudo(
        &self,
        batch: &Batch,
        source: &Source,
        refused: &mut Bitmap,
        reasons: &mut Vec<(usize, &'static str, String)>,
    ) -> Vec<Option<Column>> {
        let topics = &self.topics;
        let reads = self.description.reads.iter();
        reads
            .map(|read| {
                let mut builder = ColumnBuilder::new(read.kind, batch.rows);
                let number = |builder: &mut ColumnBuilder, value: i64| match read.kind {
                    Type::Int => builder.int(value),
                    Type::Float => builder.float(value as f64),
                    Type::Text | Type::Json => builder.bytes(value.to_string().as_bytes()),
                    _ => builder.null(),
                };
                let of_input = |row: usize| read.input.is_none() || read.input == self.input_of(batch, row);
                match &read.path {
                    Field::Value(_) => return None,
                    Field::Key => {
                        for row in 0..batch.rows {
                            if !of_input(row) {
                                builder.null();
                                continue;
                            }
                            let format = batch.key_format(row, source.key);
                            if let Err(message) = key::read(batch.key(row), format, read.kind, &mut builder) {
                                builder.null();
                                if !refused.get(row) {
                                    refused.set(row);
                                    reasons.push((row, "wrong_type", message.to_owned()));
                                }
                            } else if read.required && batch.key(row).is_none() && !refused.get(row) {
                                refused.set(row);
                                reasons.push((row, "missing_field", "the record has no key".to_owned()));
                            }
                        }
                    }
                    Field::Timestamp => (0..batch.rows).for_each(|row| number(&mut builder, batch.time(row))),
                    Field::Partition => {
                        (0..batch.rows).for_each(|row| number(&mut builder, batch.origin.partitions[batch.origin_row(row)].into()));
                    }
                    Field::Offset => (0..batch.rows).for_each(|row| number(&mut builder, batch.origin.offsets[batch.origin_row(row)])),
                    Field::Input => (0..batch.rows).for_each(|row| match self.input_of(batch, row) {
                        Some(input) => number(&mut builder, input.into()),
                        None => builder.null(),
                    }),
                    Field::Topic => (0..batch.rows).for_each(|row| match read.kind {
                        Type::Text => builder.bytes(topics[batch.origin.place(batch.origin_row(row)).0].as_bytes()),
                        _ => builder.null(),
                    }),
                    Field::Header(name) => {
                        let (headers, index) = batch.headers();
                        for row in 0..batch.rows {
                            if !of_input(row) {
                                builder.null();
                                continue;
                            }
                            let at = index.as_ref().map_or(row, |index| index[row] as usize);
                            let value = headers.last(at, name.as_bytes()).flatten();
                            match (value, read.kind) {
                                (Some(bytes), Type::Bytes) => builder.bytes(bytes),
                                (Some(bytes), Type::Text) if std::str::from_utf8(bytes).is_ok() => builder.bytes(bytes),
                                (Some(_), _) => {
                                    builder.null();
                                    if !refused.get(row) {
                                        refused.set(row);
                                        reasons.push((row, "wrong_type", format!("`{}` is not UTF-8", read.path)));
                                    }
                                }
                                (None, _) => builder.null(),
                            }
                        }
                    }
                    // Of the windows, which come later.
                    Field::WindowStart | Field::WindowEnd => return None,
                }
                Some(builder.finish())
            })
            .collect()
    }

    fn call(&mut self, live: &Batch, plan: &Plan, pseudo: &[Option<Column>], leaves: Option<&Leaves>) -> Result<Verdict, CallFailure> {
        let fields: Vec<Arc<Column>> = plan.reads[self.index]
            .iter()
            .zip(pseudo)
            .zip(&self.description.reads)
            .map(|((read, pseudo), described)| match (read, pseudo) {
                (ReadFrom::Slot(slot), _) => match &live.fields[*slot] {
                    Slot::Held(held) => held.gathered(),
                    _ => Arc::new(nulls(described.kind, live.rows)),
                },
                (_, Some(column)) => Arc::new(column.clone()),
                (_, None) => Arc::new(nulls(described.kind, live.rows)),
            })
            .collect();
        let fields: Vec<&Column> = fields.iter().map(|column| &**column).collect();
        let parts = &self.description.parts;
        let keys = parts.contains(&Part::Key).then(|| match &live.keys {
            Some(keys) => keys.held.gathered(),
            None => Held { column: Arc::new(live.origin.records.keys.clone()), index: live.from.clone(), errors: None }.gathered(),
        });
        let values = parts.contains(&Part::Value).then(|| match &live.base {
            Base::Value(held) => held.gathered(),
            Base::Empty => Arc::new(nulls(Type::Bytes, live.rows)),
        });
        let headers = parts.contains(&Part::Headers).then(|| {
            let (headers, index) = live.headers();
            let mut headers = match index {
                None => headers.clone(),
                Some(index) => headers.gather(index),
            };
            if headers.offsets.is_empty() {
                headers.offsets = vec![0; live.rows + 1];
            }
            headers
        });
        let timestamps: Vec<i64> = (0..live.rows).map(|row| live.time(row)).collect();
        let input = Input {
            rows: live.rows,
            stream_time: live.origin.stream_times[live.origin_row(0)],
            timestamps: &timestamps,
            fields: &fields,
            keys: keys.as_deref(),
            values: values.as_deref(),
            headers: headers.as_ref(),
            leaves,
        };
        let from: Vec<u32> = (0..live.rows).map(|row| live.origin_row(row) as u32).collect();
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).begin(live.origin.clone(), from.clone());
        // What earlier calls of the batch wrote (timers that fired, rows cut for their windows) could not be told from what this one writes.
        let alone = self.stores(|stores| stores.iter().all(StateStore::is_clean));
        let mut result = self.prepare().and_then(|()| match &mut self.instance {
            Some(instance) => instance.call(&input, &mut self.services),
            None => Err(CallError::Trapped("there is no instance".to_owned())),
        });
        if alone && matches!(result, Err(CallError::OutOfTime(_))) {
            // A call that ran out of time is run once more before anyone is blamed.
            tracing::warn!(stage = self.name, "a call ran out of CPU time and is run once more");
            self.reset();
            self.stores(|stores| stores.iter_mut().for_each(StateStore::drop_batch));
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).begin(live.origin.clone(), from);
            result = self.prepare().and_then(|()| match &mut self.instance {
                Some(instance) => instance.call(&input, &mut self.services),
                None => Err(CallError::Trapped("there is no instance".to_owned())),
            });
        }
        result.map_err(|error| {
            self.reset();
            let rows = match &error {
                CallError::Panicked { row: Some(row), .. } if (*row as usize) < live.rows => {
                    let row = live.origin_row(*row as usize);
                    (row, row)
                }
                _ => (live.origin_row(0), live.origin_row(live.rows - 1)),
            };
            let error = self.withheld(error);
            CallFailure { stage: self.index, error, origin: live.origin.clone(), rows }
        })
    }

    /// What a plugin says may quote the record.
    fn withheld(&self, error: CallError) -> CallError {
        match error {
            CallError::Panicked { message, row } if !self.reasons_shown => {
                // The place is the plugin's; the message may quote the record.
                let place = message.rsplit_once(", at ").map_or("an unknown place", |(_, place)| place);
                CallError::Panicked { message: format!("message withheld (`log: unsafe` shows it), at {place}"), row }
            }
            CallError::Failed(_) if !self.reasons_shown => CallError::Failed("message withheld (`log: unsafe` shows it)".to_owned()),
            other => other,
        }
    }

    /// Turns the plugin's outcome into a batch for each output.
    fn apply(&self, outcome: Outcome, live: &Batch, gone: &Bitmap, leaves: Option<&Leaves>, source: &SourcePlan) -> Vec<Option<Batch>> {
        let mut outputs: Vec<Option<Batch>> = vec![None; self.description.outputs.len()];
        match outcome {
            Outcome::All if gone.0.is_empty() => outputs[0] = Some(live.clone()),
            Outcome::All => outputs[0] = Some(live.without(gone)),
            Outcome::Select(rows) => outputs[0] = Some(live.select(rows)),
            Outcome::Derive(derived) => {
                for derived in derived {
                    let output = derived.output;
                    outputs[output] = Some(self.derive(derived, live, leaves, source));
                }
            }
        }
        outputs.into_iter().map(|output| output.filter(|batch| batch.rows > 0)).collect()
    }

    fn derive(&self, derived: Derived, live: &Batch, leaves: Option<&Leaves>, source: &SourcePlan) -> Batch {
        let output = &self.description.outputs[derived.output];
        let mut edited;
        let mut from = live;
        if let (Some(replaced), Some(leaves)) = (&derived.leaves, leaves)
            && let Base::Value(held) = &live.base
            && !replaced.entries.is_empty()
        {
            let values = source.format.replace_leaves(held.view(), live.rows, leaves, replaced);
            let mut changed: Vec<u32> =
                replaced.entries.iter().map(|entry| leaves.offsets.partition_point(|offset| offset <= entry) as u32 - 1).collect();
            changed.dedup();
            edited = live.clone();
            edited.replace_values(values, &changed, source.format, &source.wanted);
            from = &edited;
        }
        // A row from none stands with the row before it, for order and provenance; it has no headers of it.
        let mut last = 0;
        let rows: Vec<u32> = derived
            .source
            .iter()
            .map(|row| {
                if *row != FROM_NONE {
                    last = *row;
                }
                last
            })
            .collect();
        let same = rows.len() == from.rows && rows.iter().enumerate().all(|(at, row)| at as u32 == *row);
        let mut batch = if same { from.clone() } else { from.select(rows) };
        batch.kept = batch.kept.map(|rows| rows_derived(rows, &derived.source, self.index));
        if output.base == describe::Base::Replace {
            batch.base = Base::Empty;
            batch.changes.clear();
            batch.tombstones = None;
            batch.fields.iter_mut().for_each(|slot| *slot = Slot::Missing);
        }
        if let Some(values) = derived.values {
            batch.base = Base::Value(Held::new(values));
            batch.changes.clear();
            batch.tombstones = None;
            batch.fields.iter_mut().for_each(|slot| *slot = Slot::Stale);
        }
        for (written, field) in derived.fields.into_iter().zip(&output.fields) {
            if let Field::Value(path) = &field.path {
                let path = Arc::new(path.clone());
                batch.write(&path, self.index, written.column, written.kept, written.removed, &source.wanted);
            }
        }
        if !derived.tombstones.0.is_empty() && derived.tombstones.any(batch.rows) {
            let mut marks = derived.tombstones;
            for row in (0..batch.rows).filter(|row| batch.is_tombstone(*row)).collect::<Vec<_>>() {
                marks.set(row);
            }
            batch.tombstones = Some((Arc::new(marks), None));
        }
        if let Some(keys) = derived.keys {
            let texts = match output.key {
                // As the keys in whose place they stand: no mark, the source's format.
                describe::OutputKey::AsRead => batch.keys.take().map_or_else(Default::default, |read| read.texts),
                // What a plugin writes stands for itself: text, or bytes of its own making.
                _ => (Arc::new(Bitmap::filled(batch.rows, true)), None),
            };
            batch.keys = Some(GivenKeys { held: Held::new(keys), texts });
        }
        if let Some(headers) = derived.headers {
            batch.headers = Some(HeldHeaders { headers: Arc::new(headers), index: None });
        } else if derived.source.last() == Some(&FROM_NONE) {
            batch.headers =
                Some(HeldHeaders { headers: Arc::new(batch.headers_where(|row| derived.source[row] != FROM_NONE)), index: None });
        }
        if let Some(times) = derived.timestamps {
            batch.times = Some((Arc::new(times), None));
        }
        batch
    }
}

fn extends(output: &describe::Output) -> bool {
    output.base == describe::Base::Extend
}
