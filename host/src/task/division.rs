//! Two generations in one task: the newer one works for some keys, the other for all else, over the same stores. A row of a store is of one key, and so of one
//! of the two.

use super::make::{sinks, stages};
use super::{Setting, Stop, Task, pipeline};
use crate::course;
use crate::field::Field;
use crate::flow::reject::Rejected;
use crate::flow::source::Taken;
use crate::generation::{CutOver, Tried, WorksBy};
use crate::io::{Guarantee, TopicPartition};
use crate::pipeline::Input;
use crate::plugin::CallError;
use crate::plugin::describe::OutputKey;
use crate::record::Records;
use crate::share::Keys;
use crate::summary::{Summary, Works};
use std::collections::HashMap;
use std::sync::Arc;

/// The newer generation's part of a task.
pub(super) struct Division {
    /// Its stages stand on the stores of the other's.
    task: Box<Task>,
    pub(super) keys: Keys,
}

/// Why tasks cannot work by `next` for some keys, and by `now` for the others: None = they can.
pub fn refusal<'p>(now: &'p pipeline::Pipeline, next: &'p pipeline::Pipeline) -> Option<String> {
    let of = |pipeline: &'p pipeline::Pipeline| pipeline.stages.iter().map(move |stage| (pipeline, stage));
    for (pipeline, stage) in of(now).chain(of(next)) {
        let described = &stage.description;
        let named = |why: &str| Some(format!("stage `{}` {why}", stage.name));
        if described.window.is_some() || described.stores.iter().any(|store| store.windowed) {
            return named("has windows, which are closed by the records of all keys");
        }
        if described.timers.is_some() {
            return named("has timers, which fire by the records of all keys");
        }
        if described.tells_inputs() {
            return named("joins its inputs");
        }
        if described.stores.iter().any(|store| !store.emits.is_empty()) {
            return named("gives out rows of its store beside its records' results");
        }
        if described.stores.iter().any(|store| store.by != [Field::Key]) {
            return named("has state by something else than the record's key");
        }
        if !described.stores.is_empty() && !keeps_keys(pipeline, &stage.from) {
            return named("has state by a key that a stage before it changes");
        }
        let formats: Vec<_> = pipeline.origins(&stage.from).into_iter().map(|source| pipeline.sources[source].key).collect();
        if !described.stores.is_empty() && formats.iter().any(|format| *format != formats[0]) {
            return named("has state of sources whose keys are of several formats");
        }
        if !described.stores.is_empty() && next.guarantee == Guarantee::AtLeastOnce {
            return named("has state, which `guarantee: at-least-once` may count by both");
        }
    }
    let changes = next.stages.iter().filter(|stage| !stage.stores.is_empty()).find(|stage| {
        let fields =
            |stage: &pipeline::Stage| stage.description.stores.iter().map(|store| (store.key, store.fields.clone())).collect::<Vec<_>>();
        !now.stages.iter().any(|known| known.stores == stage.stores && known.tables == stage.tables && fields(known) == fields(stage))
    });
    changes.map(|stage| format!("the rows of stage `{}`, or its tables, change", stage.name))
}

/// Whether records come to a stage with the keys that they were read with.
fn keeps_keys(pipeline: &pipeline::Pipeline, from: &[Input]) -> bool {
    from.iter().all(|input| match input {
        Input::Source(_) => true,
        Input::Stage(stage, output) => {
            let stage = &pipeline.stages[*stage];
            stage.description.outputs[*output].key == OutputKey::Kept && keeps_keys(pipeline, &stage.from)
        }
    })
}

impl Task {
    /// Has another generation work for some keys from now on.
    pub(crate) fn divide(&mut self, division: course::Division<'_>) -> Result<(), (Arc<Setting>, usize, CallError)> {
        self.division = None;
        let Some((setting, keys)) = division else { return Ok(()) };
        let over = Some((&self.setting.pipeline, self.stages.as_slice()));
        let stages = stages(setting, self.id, &self.tables, &mut HashMap::new(), over);
        let mut task = Box::new(self.beside(setting.clone(), stages, sinks(setting, self.id, &self.commit)));
        task.prepare().map_err(|(stage, error)| (setting.clone(), stage, error))?;
        self.division = Some(Division { task, keys });
        Ok(())
    }

    /// Whether this is by what it works.
    pub fn stands_by(&self, setting: &Arc<Setting>, division: course::Division<'_>) -> bool {
        let divided = match (&self.division, division) {
            (None, None) => true,
            (Some(own), Some((setting, keys))) => Arc::ptr_eq(own.task.setting(), setting) && own.keys == keys,
            _ => false,
        };
        divided && Arc::ptr_eq(&self.setting, setting)
    }

    /// Whether records of one of its generations tell which commit they belong to.
    pub(super) fn tells_commits(&self) -> bool {
        self.setting.tells_commits() || self.newest().tells_commits()
    }

    /// By which the newest of its generations works.
    fn newest(&self) -> &Arc<Setting> {
        self.division.as_ref().map_or(&self.setting, |division| &division.task.setting)
    }

    /// Its generations.
    pub fn works_by(&self) -> WorksBy {
        let divided = self.division.as_ref().map(|division| (division.keys, self.setting.generation_number()));
        WorksBy { newest: self.newest().generation_number(), divided }
    }

    /// What is to be told of a partition in which its generations began at `offset`. `base`: the one for the other keys, too.
    pub(super) fn cut_over(&self, at: &TopicPartition, offset: i64, base: bool, tried: Option<Tried>) -> impl Iterator<Item = CutOver> {
        let keys = self.division.as_ref().map(|division| division.keys);
        let over =
            |setting: &Setting, keys, tried| Some(CutOver { generation: setting.generation.clone()?, at: at.clone(), offset, keys, tried });
        let own = if base && keys.is_some() { over(&self.setting, None, None) } else { None };
        own.into_iter().chain(over(self.newest(), keys, tried))
    }

    /// By which the record was processed that stops the task.
    pub fn stopped_by(&self, stop: &Stop) -> &Arc<Setting> {
        let key = match stop {
            Stop::Call(failure) => failure.origin.records.keys.bytes(failure.rows.0),
            Stop::Record(rejected) => rejected.origin.records.keys.bytes(rejected.origin_row),
            Stop::Rows { .. } | Stop::Log(_) => None,
        };
        match &self.division {
            Some(division) if division.keys.hold(key) => &division.task.setting,
            _ => &self.setting,
        }
    }

    /// What each of its generations did in it.
    pub fn works(&self) -> Vec<(u64, Works)> {
        let mut own = self.own_works();
        let Some(division) = &self.division else { return vec![(self.setting.generation_number(), own)] };
        let other = division.task.own_works();
        // Records are counted by the batch.
        own.records = own.records.saturating_sub(other.records);
        vec![(self.setting.generation_number(), own), (division.task.setting.generation_number(), other)]
    }

    /// What the newer generation did for its keys, in numbers of its pipeline.
    pub fn divided_summary(&self) -> Option<(&Arc<Setting>, Summary)> {
        self.division.as_ref().map(|division| (&division.task.setting, division.task.summary()))
    }

    /// What becomes of a refused record with this key, by whatever generation works for it.
    pub(super) fn settle_guilty(
        &mut self,
        refused: Vec<Rejected>,
        key: Option<&[u8]>,
        appends: &mut Vec<(TopicPartition, Records)>,
    ) -> Result<(), Stop> {
        match &mut self.division {
            Some(division) if division.keys.hold(key) => {
                division.task.taken += 1;
                self.taken += 1;
                division.task.settle(refused, appends)
            }
            _ => self.settle(refused, appends),
        }
    }

    /// Each of the records is processed by the generation that works for its key. Answers stream time behind them.
    pub(super) fn pass_all(&mut self, source: usize, taken: Taken, appends: &mut Vec<(TopicPartition, Records)>) -> Result<i64, Stop> {
        let Some(mut division) = self.division.take() else { return self.pass_batch(source, taken, None, appends) };
        let Division { task, keys } = &mut division;
        let (figures, refused, buried) =
            (task.figures(), (self.refused.clone(), task.refused.clone()), (self.buried.clone(), task.buried.clone()));
        task.stream_time = self.stream_time;
        let held = (0..taken.offsets.len()).filter(|row| keys.hold(taken.records.keys.bytes(*row))).count();
        let passed = self.pass_batch(source, taken.clone(), Some(&|key| !keys.hold(key)), appends);
        let passed = passed.and_then(|time| task.pass_batch(source, taken, Some(&|key| keys.hold(key)), appends).map(|_| time));
        match &passed {
            Ok(_) => task.taken += held as u64,
            Err(_) => {
                // Rows and the task's own figures are put back by whoever began the batch.
                task.reset_stages(&figures);
                (self.refused, task.refused) = refused;
                (self.buried, task.buried) = buried;
            }
        }
        self.division = Some(division);
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metadata;
    use crate::share::Keys;

    #[test]
    fn a_position_that_names_two_generations_fits() {
        let metadata = Metadata {
            generation: u64::MAX,
            from: Some(i64::MAX),
            keys: Keys::of_share(0.9),
            beside: Some(u64::MAX - 1),
            stream_time: Some(i64::MIN + 1),
            state: true,
            closed: true,
            commit: Some(i64::MAX),
        };
        let text = metadata.text();
        assert!(text.len() <= 512, "{} bytes", text.len());
        assert_eq!(Metadata::of(&text).map(|read| read.works_by()), Some(metadata.works_by()));
    }
}
