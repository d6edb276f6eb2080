//! What a change of a pipeline changes, and how it can be brought about: hot, by draining, or not under the same name.

use super::fields::{self, Change, What, listed};
use super::record::Class;
use crate::flow::plan;
use crate::io::{Guarantee, Log, LogError};
use crate::pipeline::{Pipeline, Policy, Scope, Source, Stage, Table};
use crate::plugin::describe::{Store, Window};
use crate::runtime;
use crate::store::RowType;
use crate::store::turn::{self, Way};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a stage's component may do besides logging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Permission {
    pub stage: String,
    pub permission: String,
}

/// Two pipelines compared.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    pub class: Class,
    /// Why it is not hot; one for each thing that keeps it from that.
    pub reasons: Vec<String>,
    /// Repartition topics that the active generation is to empty before the other may run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub empties: Vec<String>,
    /// Why it cannot be taken back once it runs.
    pub irreversible: Option<String>,
    /// Nothing is active, but it cannot go on from what one that was deleted has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// Why the other way, from the new pipeline to the old, could not have been taken back: for who goes back.
    #[serde(skip)]
    pub undoes: Option<String>,
    /// What holds for the pipeline as a whole.
    pub pipeline: Vec<String>,
    pub stages: Vec<Change>,
    pub sinks: Vec<Change>,
    pub stores: Vec<Change>,
    pub topics: Vec<Change>,
    pub gained: Vec<Permission>,
    pub lost: Vec<Permission>,
}

impl Diff {
    /// Nothing that hosts would do differently.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.stages, &self.sinks, &self.stores, &self.topics];
        lists.iter().all(|list| list.is_empty()) && self.pipeline.is_empty() && self.reasons.is_empty()
    }
}

/// Partitions of the topics that a pipeline reads, by topic.
pub type Counts = BTreeMap<Arc<str>, i32>;

/// Partitions of the topics that a pipeline reads: of its own repartition topics as they are, or `as_made` anew; without those that are missing.
pub fn counts(pipeline: &Pipeline, log: &dyn Log, as_made: bool) -> Result<Counts, LogError> {
    let mut found = Vec::with_capacity(pipeline.sources.len());
    for source in &pipeline.sources {
        let there = if source.carries.is_some() && as_made { None } else { log.topic(&source.topic)? };
        found.push(there.map(|topic| topic.partitions));
    }
    let most = runtime::partitions_read(pipeline, log)?;
    let known: Vec<i32> = found.iter().map(|count| count.unwrap_or(1)).collect();
    let planned = |source: &Source| runtime::repartition_count(pipeline, source, &known).or(most);
    let of = |(source, count): (&Source, Option<i32>)| {
        let count = count.or_else(|| source.carries.and_then(|_| planned(source)))?;
        Some((source.topic.clone(), count))
    };
    Ok(pipeline.sources.iter().zip(found).filter_map(of).collect())
}

/// What `new` changes about `old`, which is the active one; each with the partitions of what it reads. None: nothing is active.
pub fn diff(old: Option<(&Pipeline, &Counts)>, new: (&Pipeline, &Counts)) -> Diff {
    let (new, new_counts) = new;
    let nothing = Pipeline {
        name: new.name.clone(),
        sources: Vec::new(),
        tables: Vec::new(),
        stages: Vec::new(),
        sinks: Vec::new(),
        on_error: new.on_error.clone(),
        guarantee: new.guarantee,
    };
    let none = Counts::new();
    let (before, old_counts) = old.unwrap_or((&nothing, &none));
    let mut found = Comparison { old: before, new, classes: Vec::new(), one_way: Vec::new(), empties: Vec::new() };
    let topics = found.topics(old_counts, new_counts);
    let stores = found.stores();
    let pipeline = found.whole();
    found.segments();
    let (gained, lost) = permissions(before, new);
    let mut backwards = Comparison { old: new, new: before, classes: Vec::new(), one_way: Vec::new(), empties: Vec::new() };
    backwards.stores();
    let undoes = old.and_then(|_| joined(&backwards.one_way));
    let (class, reasons, irreversible) = match old {
        None => (Class::New, vec!["no generation of it is active".to_owned()], None),
        Some(_) => {
            let class = found.classes.iter().map(|(class, _)| *class).max().unwrap_or(Class::Hot);
            (class, found.classes.into_iter().map(|(_, reason)| reason).collect(), joined(&found.one_way))
        }
    };
    Diff {
        class,
        reasons,
        empties: found.empties,
        irreversible,
        left: None,
        undoes,
        pipeline,
        stages: fields::compare(&before.stages, &new.stages, |stage| &stage.name, |one, other| fields::stage(before, one, new, other)),
        sinks: fields::sinks(before, new),
        stores,
        topics,
        gained,
        lost,
    }
}

fn joined(reasons: &[String]) -> Option<String> {
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// By stage, in the order of stages.
fn permissions(old: &Pipeline, new: &Pipeline) -> (Vec<Permission>, Vec<Permission>) {
    let beyond = |one: &Pipeline, other: &Pipeline| {
        let mut found = Vec::new();
        for stage in &one.stages {
            let has = other.stages.iter().find(|known| known.name == stage.name).map(|known| known.plugin.imports()).unwrap_or_default();
            let more = stage.plugin.imports().iter().filter(|import| *import != "log" && !has.contains(import));
            found.extend(more.map(|permission| Permission { stage: stage.name.clone(), permission: permission.clone() }));
        }
        found
    };
    (beyond(new, old), beyond(old, new))
}

struct Comparison<'a> {
    old: &'a Pipeline,
    new: &'a Pipeline,
    classes: Vec<(Class, String)>,
    /// What cannot be taken back, and why.
    one_way: Vec<String>,
    /// Repartition topics.
    empties: Vec<String>,
}

impl Comparison<'_> {
    fn because(&mut self, class: Class, reason: String) {
        self.classes.push((class, reason));
    }

    fn whole(&mut self) -> Vec<String> {
        let (old, new) = (self.old, self.new);
        let mut told = Vec::new();
        if old.on_error != new.on_error {
            told.push(format!("on_error: {} -> {}", fields::policy(&old.on_error), fields::policy(&new.on_error)));
        }
        if old.guarantee != new.guarantee {
            let name = |guarantee| if guarantee == Guarantee::AtLeastOnce { "at-least-once" } else { "exactly-once" };
            let change = format!("guarantee: {} -> {}", name(old.guarantee), name(new.guarantee));
            self.because(Class::New, format!("{change}: positions and outputs of the two do not fit together"));
            told.push(change);
        }
        told
    }

    /// Topics that are read: sources, tables and repartition topics. And sinks' and dead letters', which matter to nobody's class.
    fn topics(&mut self, old_counts: &Counts, new_counts: &Counts) -> Vec<Change> {
        let mut changes = Vec::new();
        let (old, new) = (self.old, self.new);
        let by_topic = |pipeline: &Pipeline, topic: &str| pipeline.sources.iter().find(|source| *source.topic == *topic).cloned();
        for source in &old.sources {
            if by_topic(new, &source.topic).is_none() {
                match source.carries {
                    None => self.because(Class::Drain, format!("{} `{}` is no longer read", what(source), source.topic)),
                    Some(_) => self.emptied(&source.topic, "is no longer read"),
                }
                changes.push(Change::of(&source.topic, What::Removed, vec![what(source).to_owned()]));
            }
        }
        for source in &new.sources {
            let Some(before) = by_topic(old, &source.topic) else {
                self.because(Class::Drain, format!("{} `{}` is read newly", what(source), source.topic));
                changes.push(Change::of(&source.topic, What::Added, vec![what(source).to_owned()]));
                continue;
            };
            let mut details = Vec::new();
            if before.key != source.key {
                let change = format!("key: {:?} -> {:?}", before.key, source.key).to_lowercase();
                let topic = &source.topic;
                self.because(
                    Class::New,
                    format!(
                        "the keys of `{topic}` are read as others ({change}): records of a key would be in other partitions than its rows"
                    ),
                );
                details.push(change);
            }
            if let (Some(had), Some(has)) = (old_counts.get(&source.topic), new_counts.get(&source.topic))
                && had != has
            {
                let change = format!("partitions: {had} -> {has}");
                let topic = &source.topic;
                self.because(
                    Class::New,
                    format!(
                        "`{topic}` would have another number of partitions ({change}): keys would be in other partitions than their rows"
                    ),
                );
                details.push(change);
            }
            let other = fields::source(&before, source);
            let grouped = |pipeline: &Pipeline, source: &Source| source.carries.and_then(|sink| pipeline.sinks[sink].regroup.clone());
            let regrouped = !fields::same_regroup(grouped(old, &before).as_ref(), grouped(new, source).as_ref());
            if regrouped {
                self.emptied(&source.topic, "brings records together by something else");
                details.push("brings records together by something else".to_owned());
            }
            // What a repartition topic holds is told by the stages before it; the user's own are declared.
            if source.carries.is_none() && !other.is_empty() {
                self.because(Class::Drain, format!("{} `{}` is read in another way: {}", what(source), source.topic, other.join("; ")));
            }
            details.extend(other.into_iter().filter(|_| source.carries.is_none()));
            if !details.is_empty() {
                changes.push(Change::of(&source.topic, What::Changed, details));
            }
        }
        changes.extend(self.global_tables());
        let written = |pipeline: &Pipeline| {
            let sinks = pipeline.sinks.iter().filter(|sink| sink.regroup.is_none()).map(|sink| (sink.topic.clone(), "a sink's topic"));
            let dead = pipeline.policies().filter_map(|policy| match policy {
                Policy::DeadLetter { topic, .. } => Some((topic.clone(), "a topic for dead letters")),
                _ => None,
            });
            sinks.chain(dead).collect::<BTreeMap<_, _>>()
        };
        let (had, has) = (written(old), written(new));
        let missing = |one: &BTreeMap<Arc<str>, &str>, other: &BTreeMap<Arc<str>, &str>, change| {
            let gone = one.iter().filter(|(topic, _)| !other.contains_key(*topic));
            gone.map(|(topic, what)| Change::of(topic, change, vec![(*what).to_owned()])).collect::<Vec<_>>()
        };
        changes.extend(missing(&had, &has, What::Removed));
        changes.extend(missing(&has, &had, What::Added));
        changes
    }

    /// A repartition topic whose records are to be processed to the end before the other generation runs. Rows that its records have led to are in its
    /// partitions: a store of theirs that is kept would not be found again.
    fn emptied(&mut self, topic: &Arc<str>, how: &str) {
        let (had, has) = (kept(self.old), kept(self.new));
        let reads = |source: &usize| self.old.sources[*source].topic == *topic;
        let behind: Vec<plan::Segment> = plan::segments(self.old).into_iter().filter(|segment| segment.sources.iter().any(reads)).collect();
        let stages = self.old.stages.iter().enumerate().filter(|(index, _)| behind.iter().any(|segment| segment.stages[*index]));
        let stores = stages.flat_map(|(_, stage)| &stage.stores).find(|store| had.contains_key(*store) && has.contains_key(*store));
        match stores.cloned() {
            Some(store) => {
                let why = format!("the rows of the store `{store}`, which is kept, are in other partitions than their records would be");
                self.because(Class::New, format!("the repartition topic `{topic}` {how}: {why}"));
            }
            None => {
                self.because(Class::Drain, format!("the repartition topic `{topic}` {how}: it is emptied first"));
                self.empties.push(topic.to_string());
            }
        }
    }

    /// Partitioned ones are sources too, and told as such.
    fn global_tables(&mut self) -> Vec<Change> {
        let global =
            |pipeline: &Pipeline| -> Vec<Table> { pipeline.tables.iter().filter(|table| table.scope == Scope::Global).cloned().collect() };
        let found = fields::compare(
            &global(self.old),
            &global(self.new),
            |table| &table.name,
            |one, other| {
                let mut details = fields::schema("", &one.schema.schema, &other.schema.schema);
                if one.topic != other.topic {
                    details.push(format!("topic: {} -> {}", one.topic, other.topic));
                }
                if (one.format, one.key) != (other.format, other.key) || one.schema.from != other.schema.from {
                    details.push("its records are read in another format".to_owned());
                }
                details
            },
        );
        for change in &found {
            self.because(Class::Drain, format!("the table `{}` is {}", change.name, change.change.name()));
        }
        let table = |change: Change| Change { details: [vec!["a global table".to_owned()], change.details].concat(), ..change };
        found.into_iter().map(table).collect()
    }

    /// Kept by name: which stage they belong to does not matter.
    fn stores(&mut self) -> Vec<Change> {
        let (had, has) = (kept(self.old), kept(self.new));
        let mut changes = Vec::new();
        for (name, before) in &had {
            match has.get(name) {
                None => {
                    self.because(Class::Drain, format!("the store `{name}` is no longer kept"));
                    changes.push(Change::of(name, What::Removed, Vec::new()));
                }
                Some(after) => {
                    let (kept, rows) = (before.changed(after), before.changed_rows(after));
                    if !kept.is_empty() {
                        let details = [kept, rows].concat();
                        self.because(
                            Class::New,
                            format!(
                                "the store `{name}` would get another schema, by which its rows cannot be read: {}",
                                details.join("; ")
                            ),
                        );
                        self.one_way.push(format!(
                            "the schema of the store `{name}` changes: rows written from then on are none for the generation before"
                        ));
                        changes.push(Change::of(name, What::Changed, details));
                    } else if !rows.is_empty() {
                        let details = self.rows(name, before, after, rows);
                        changes.push(Change::of(name, What::Changed, details));
                    }
                }
            }
        }
        for name in has.keys().filter(|name| !had.contains_key(*name)) {
            self.because(Class::Drain, format!("the store `{name}` is kept newly"));
            changes.push(Change::of(name, What::Added, Vec::new()));
        }
        changes
    }

    /// The rows of a store change their type: whether those that there are can become rows of the newer one, and those of the newer one go back.
    fn rows(&mut self, name: &str, before: &Kept, after: &Kept, mut details: Vec<String>) -> Vec<String> {
        let (Some(old), Some(new)) = (&before.store, &after.store) else {
            // A table's rows lack what its records may have had.
            self.because(
                Class::New,
                format!(
                    "the store `{name}` of a table would get another schema, and its rows lack what their records may have had: {}",
                    details.join("; ")
                ),
            );
            self.one_way
                .push(format!("the schema of the store `{name}` changes: rows written from then on are none for the generation before"));
            return details;
        };
        let (from, to) = (RowType::of(&old.fields), RowType::of(&new.fields));
        let forth = turn::way(&from, new).and_then(|way| turn::allowed(&way, self.new.guarantee).map(|()| way));
        match &forth {
            Ok(Way::ByName(_)) => details.push("rows that there are become rows of the newer type by name".to_owned()),
            Ok(Way::ByPlugin(..)) => details.push("rows that there are go through the plugin's `migration`".to_owned()),
            Err(why) => {
                let reason = format!(
                    "the rows of the store `{name}` cannot become rows of the newer type: {why}; let the plugin export `migration`"
                );
                self.because(Class::New, reason);
                return details;
            }
        }
        let back = turn::way(&to, old).and_then(|way| turn::allowed(&way, self.old.guarantee).map(|()| way));
        let dropped: Vec<_> = from.columns.iter().filter(|column| !to.columns.iter().any(|kept| kept.name == column.name)).collect();
        let why = match (&forth, back) {
            (_, Ok(Way::ByPlugin(..))) => None,
            (_, Err(why)) => Some(why),
            (Ok(Way::ByPlugin(..)), Ok(Way::ByName(_))) => {
                Some("they went through the plugin's `migration`, and the plugin before has none back".to_owned())
            }
            _ if !dropped.is_empty() => {
                let names: Vec<_> = dropped.iter().map(|column| format!("`{}`", column.name)).collect();
                Some(format!("what was in {} is gone then", names.join(", ")))
            }
            _ => None,
        };
        self.one_way.extend(why.map(|why| format!("rows of the store `{name}` that are of the newer type do not go back: {why}")));
        details
    }

    /// Which sources meet in a task. That topics come and go is told already.
    fn segments(&mut self) {
        let together = |pipeline: &Pipeline| -> Vec<Vec<Arc<str>>> {
            let topics = |segment: &plan::Segment| segment.sources.iter().map(|source| pipeline.sources[*source].topic.clone()).collect();
            plan::segments(pipeline).iter().map(topics).collect()
        };
        if self.classes.iter().all(|(class, _)| *class == Class::Hot) && together(self.old) != together(self.new) {
            self.because(Class::Drain, "other sources than before meet in a task, or they stand in another order".to_owned());
        }
    }
}

fn what(source: &Source) -> &'static str {
    match (source.carries, source.table) {
        (Some(_), _) => "the repartition topic",
        (_, Some(_)) => "the partitioned table's topic",
        _ => "the source's topic",
    }
}

/// What is kept under a store's name.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    key: String,
    by: String,
    fields: Vec<String>,
    window: Option<Window>,
    /// As a stage's plugin describes it.
    store: Option<Store>,
}

impl Kept {
    fn new(store: &Store, window: Option<Window>) -> Self {
        let field = |field: &crate::plugin::describe::StoreField| {
            format!("{}: {}{}", field.name, field.kind, if field.nullable { "?" } else { "" })
        };
        Self {
            key: store.key.to_string(),
            by: listed(store.by.iter()),
            fields: store.fields.iter().map(field).collect(),
            window: window.filter(|_| store.windowed),
            store: Some(store.clone()),
        }
    }

    /// What changes about the rows, column by column.
    fn changed_rows(&self, other: &Self) -> Vec<String> {
        match (&self.store, &other.store) {
            (Some(before), Some(after)) => turn::told(&RowType::of(&before.fields), &RowType::of(&after.fields)),
            _ if self.fields != other.fields => vec![format!("fields: {} -> {}", self.fields.join(", "), other.fields.join(", "))],
            _ => Vec::new(),
        }
    }

    fn changed(&self, other: &Self) -> Vec<String> {
        let mut details = Vec::new();
        if self.key != other.key {
            details.push(format!("keys: {} -> {}", self.key, other.key));
        }
        if self.by != other.by {
            details.push(format!("keyed by: {} -> {}", self.by, other.by));
        }
        if self.window != other.window {
            details.push("other windows".to_owned());
        }
        details
    }
}

fn kept(pipeline: &Pipeline) -> BTreeMap<String, Kept> {
    let mut found = BTreeMap::new();
    let of = |stage: &Stage| {
        let description = &stage.description;
        let timers = description.timers.as_ref().map(|timers| {
            let by = listed(timers.by.iter());
            Kept { key: timers.key.to_string(), by, fields: Vec::new(), window: None, store: None }
        });
        let stores = description.stores.iter().map(|store| Kept::new(store, description.window));
        stage.stores.iter().cloned().zip(stores.chain(timers)).collect::<Vec<_>>()
    };
    found.extend(pipeline.stages.iter().flat_map(of));
    for table in pipeline.sources.iter().filter_map(|source| source.table).map(|table| &pipeline.tables[table]) {
        let fields = fields::columns(&table.schema.schema);
        found.insert(
            table.name.clone(),
            Kept { key: format!("{:?}", table.key).to_lowercase(), by: "$key".to_owned(), fields, window: None, store: None },
        );
    }
    found
}

#[cfg(test)]
mod tests;
