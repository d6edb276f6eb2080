//! What a pipeline needs decoded: one slot for each field and type that some stage reads, and from which sources it is wanted.

use crate::column::Type;
use crate::field::{Field, Path};
use crate::format::{Decoder, Format, Wanted};
use crate::pipeline::{Input, Pipeline, Regroup};
use crate::plugin::describe::Base;

/// Where a stage's field comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadFrom {
    /// A slot of the batch.
    Slot(usize),
    /// The rest of a record, or its window.
    Pseudo(Field, Type),
}

/// The fields of a source.
pub struct SourcePlan {
    /// By slot; with the conversions that this source declares.
    pub wanted: Vec<Wanted>,
    /// The slots that a stage behind this source reads.
    pub decoded: Vec<usize>,
    pub decoder: Box<dyn Decoder>,
    /// The slot of the time field.
    pub time: Option<usize>,
    /// Some stage has windows or timers: a record's time must be one that they can count with.
    pub counts_time: bool,
    pub format: &'static dyn Format,
}

/// A part of a pipeline between repartition topics. Its tasks are one for each partition number of its sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub sources: Vec<usize>,
    /// The stages that its records reach.
    pub stages: Vec<bool>,
    /// The sinks that write repartition topics.
    pub sends: Vec<usize>,
    /// Segments that send to this one.
    pub upstream: Vec<usize>,
    /// Repartition topics between the user's sources and this segment, at most.
    pub level: usize,
    /// It keeps windows, or a segment that it sends to does: then those that send to it tell their time.
    pub timed: bool,
}

/// Sources whose records meet in a stage, as a stream's and its partitioned table's do, or on their way into one repartition topic, are of one segment.
pub fn segments(pipeline: &Pipeline) -> Vec<Segment> {
    let mut part: Vec<usize> = (0..pipeline.sources.len()).collect();
    let sent = pipeline.sinks.iter().filter(|sink| sink.regroup.is_some()).map(|sink| pipeline.origins(&sink.from));
    for together in pipeline.stages.iter().map(|stage| pipeline.meeting(stage)).chain(sent) {
        if let Some(first) = together.first().map(|source| part[*source]) {
            let others: Vec<usize> = together.iter().map(|source| part[*source]).collect();
            part.iter_mut().filter(|part| others.contains(part)).for_each(|part| *part = first);
        }
    }
    let mut names: Vec<usize> = part.clone();
    names.sort_unstable();
    names.dedup();
    let of = |source: usize| names.binary_search(&part[source]).unwrap_or_default();
    let mut segments = vec![Segment { stages: vec![false; pipeline.stages.len()], ..Segment::default() }; names.len()];
    for source in 0..pipeline.sources.len() {
        segments[of(source)].sources.push(source);
    }
    for (index, stage) in pipeline.stages.iter().enumerate() {
        for source in pipeline.origins(&stage.from) {
            segments[of(source)].stages[index] = true;
            segments[of(source)].timed |= stage.description.window.is_some();
        }
    }
    for (index, sink) in pipeline.sinks.iter().enumerate().filter(|(_, sink)| sink.regroup.is_some()) {
        let from = pipeline.origins(&sink.from).first().map(|source| of(*source));
        let to = pipeline.sources.iter().position(|source| source.carries == Some(index)).map(of);
        if let (Some(from), Some(to)) = (from, to) {
            segments[from].sends.push(index);
            segments[to].upstream.push(from);
        }
    }
    // Segments have no cycle (`sends_to_itself` is a mistake of the manifest), so this settles.
    for _ in 0..segments.len() {
        for at in 0..segments.len() {
            for upstream in segments[at].upstream.clone() {
                segments[at].level = segments[at].level.max(segments[upstream].level + 1);
                segments[upstream].timed |= segments[at].timed;
            }
        }
    }
    segments
}

/// Whether records of a segment come back to it.
pub fn sends_to_itself(segments: &[Segment], at: usize) -> bool {
    let mut seen = vec![false; segments.len()];
    let mut next = segments[at].upstream.clone();
    while let Some(upstream) = next.pop() {
        if upstream == at {
            return true;
        }
        if !std::mem::replace(&mut seen[upstream], true) {
            next.extend(&segments[upstream].upstream);
        }
    }
    false
}

/// Slots and where they are read.
pub struct Plan {
    pub segments: Vec<Segment>,
    /// By source.
    pub segment_of: Vec<usize>,
    pub sources: Vec<SourcePlan>,
    /// By segment: how records of all its sources are read at once, where a batch may hold several. The sides of a join come in turn: batches of one alone
    /// would be of a record or two.
    pub together: Vec<Option<SourcePlan>>,
    /// By stage, in the order of `reads`.
    pub reads: Vec<Vec<ReadFrom>>,
}

impl Plan {
    pub fn new(pipeline: &Pipeline) -> Self {
        let mut slots: Vec<(Path, Type)> = Vec::new();
        let mut slot_of = |path: &Path, kind: Type| {
            slots.iter().position(|slot| slot.0 == *path && slot.1 == kind).unwrap_or_else(|| {
                slots.push((path.clone(), kind));
                slots.len() - 1
            })
        };
        let reads: Vec<Vec<ReadFrom>> = pipeline
            .stages
            .iter()
            .map(|stage| {
                let read = |read: &crate::plugin::describe::Read| match &read.path {
                    Field::Value(path) => ReadFrom::Slot(slot_of(path, read.kind)),
                    other => ReadFrom::Pseudo(other.clone(), read.kind),
                };
                stage.description.reads.iter().map(read).collect()
            })
            .collect();
        let inputs: Vec<_> = pipeline
            .stages
            .iter()
            .map(|stage| stage.description.tells_inputs().then(|| pipeline.inputs_of(stage).ok()).flatten())
            .collect();
        let times: Vec<_> =
            pipeline.sources.iter().map(|source| source.time.as_ref().map(|time| slot_of(&time.field, Type::Int))).collect();
        let counts_time = pipeline.stages.iter().any(|stage| stage.description.window.is_some() || stage.description.timers.is_some());
        let sources: Vec<SourcePlan> = pipeline
            .sources
            .iter()
            .enumerate()
            .map(|(index, source)| {
                let mut decoded: Vec<usize> = reached(pipeline, index)
                    .into_iter()
                    .flat_map(|stage| {
                        // What is read of another input's rows only is not looked for in these.
                        let input = inputs[stage].as_ref().and_then(|of| of[index]);
                        let described = &pipeline.stages[stage].description.reads;
                        reads[stage]
                            .iter()
                            .zip(described)
                            .filter(move |(_, read)| input.is_none() || read.input.is_none_or(|of| Some(of) == input))
                    })
                    .filter_map(|(read, _)| match read {
                        ReadFrom::Slot(slot) => Some(*slot),
                        ReadFrom::Pseudo(..) => None,
                    })
                    .chain(times[index])
                    .collect();
                decoded.sort_unstable();
                decoded.dedup();
                let wanted: Vec<_> = slots
                    .iter()
                    .map(|(path, kind)| Wanted {
                        path: path.clone(),
                        kind: *kind,
                        from: source.schema.from.iter().find(|(declared, _)| declared == path).map(|(_, from)| *from),
                    })
                    .collect();
                let format = crate::format::of(source.format);
                let decoder = format.decoder(&decoded.iter().map(|slot| wanted[*slot].clone()).collect::<Vec<_>>());
                SourcePlan { wanted, decoded, decoder, time: times[index], counts_time, format }
            })
            .collect();
        let segments = segments(pipeline);
        let together = segments.iter().map(|segment| together(pipeline, segment, &sources)).collect();
        let segment_of = (0..pipeline.sources.len())
            .map(|source| segments.iter().position(|segment| segment.sources.contains(&source)).unwrap_or_default())
            .collect();
        Self { segments, segment_of, sources, together, reads }
    }
}

/// Whether records of several inputs meet in a segment, or on their way from it: then a source that is ahead of the others would make their records late.
pub fn joins(pipeline: &Pipeline, segment: &Segment) -> bool {
    let mut stages = pipeline.stages.iter().zip(&segment.stages).filter(|(_, reached)| **reached);
    let mut sends = segment.sends.iter().map(|sink| &pipeline.sinks[*sink].regroup);
    stages.any(|(stage, _)| !stage.description.input_keys.is_empty()) || sends.any(|regroup| matches!(regroup, Some(Regroup::Inputs(_))))
}

/// One plan for the sources of a segment that joins them, or sends them to where they are joined, if they are read alike.
fn together(pipeline: &Pipeline, segment: &Segment, plans: &[SourcePlan]) -> Option<SourcePlan> {
    let first = &pipeline.sources[*segment.sources.first()?];
    let alike = |source: &usize| {
        let source = &pipeline.sources[*source];
        let kinds = (source.format, source.key, source.tombstones) == (first.format, first.key, first.tombstones);
        kinds && source.is_stream() && source.time.is_none() && source.schema.from.is_empty()
    };
    if segment.sources.len() < 2 || !joins(pipeline, segment) || !segment.sources.iter().all(alike) {
        return None;
    }
    let mut decoded: Vec<usize> = segment.sources.iter().flat_map(|source| &plans[*source].decoded).copied().collect();
    decoded.sort_unstable();
    decoded.dedup();
    let SourcePlan { wanted, counts_time, format, .. } = &plans[segment.sources[0]];
    let decoder = format.decoder(&decoded.iter().map(|slot| wanted[*slot].clone()).collect::<Vec<_>>());
    Some(SourcePlan { wanted: wanted.clone(), decoded, decoder, time: None, counts_time: *counts_time, format: *format })
}

/// The stages that see a source's own fields: those behind it, but not behind an output that starts a new object.
fn reached(pipeline: &Pipeline, source: usize) -> Vec<usize> {
    let mut seen = vec![false; pipeline.stages.len()];
    for (index, stage) in pipeline.stages.iter().enumerate() {
        seen[index] = stage.from.iter().any(|input| match *input {
            Input::Source(other) => other == source,
            Input::Stage(earlier, output) => {
                seen[earlier] && pipeline.stages[earlier].description.outputs.get(output).is_some_and(|output| output.base == Base::Extend)
            }
        });
    }
    (0..seen.len()).filter(|stage| seen[*stage]).collect()
}

/// The stages after which nothing is secret any more: all that protect lie before them.
pub fn exposed(pipeline: &Pipeline) -> Vec<bool> {
    let count = pipeline.stages.len();
    let mut before: Vec<Vec<bool>> = Vec::with_capacity(count);
    for stage in &pipeline.stages {
        let mut ancestors = vec![false; count];
        for input in stage.from.iter().flat_map(|input| pipeline.upstream(input)) {
            if let Input::Stage(earlier, _) = *input {
                ancestors[earlier] = true;
                for (mark, inherited) in ancestors.iter_mut().zip(&before[earlier]) {
                    *mark |= inherited;
                }
            }
        }
        before.push(ancestors);
    }
    (0..count).map(|stage| (0..count).all(|other| !pipeline.stages[other].protects || before[stage][other])).collect()
}
