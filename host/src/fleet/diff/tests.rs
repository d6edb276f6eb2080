//! Every class of a change with its reason, on real plugins.

use super::*;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::manifest;
use crate::plugin::describe::{About, Description, Request};
use crate::plugin::engine::Engine;
use crate::plugin::{CallError, DescribeError, Instance, Limits, Plugin};
use std::path::Path;

const BASE: &str = "pipeline: p
sources:
  in: { topic: in, key: text, schema: { user: text, stars: int } }
tables:
  users: { topic: users, schema: { name: text } }
  places: { topic: places, scope: partitioned, schema: { town: text } }
stages:
  - { name: low, from: in, plugin: filter, with: { where: 'stars < 3' } }
  - { name: by-user, plugin: aggregate, with: { group_by: [user], compute: { n: count() } } }
  - { name: where, from: low, plugin: enrich, with: { table: places, on: $key, add: { town: places.town } } }
sinks:
  - { from: by-user, topic: out }
  - { from: where, topic: placed }
";

fn pipeline(text: &str) -> Pipeline {
    let loaded = manifest::load_text(Path::new("p.yaml"), text.to_owned(), &Engine::new().unwrap());
    loaded.map_err(|found| found.to_string()).unwrap().pipeline
}

fn changed(from: &str, to: &str) -> Diff {
    assert!(BASE.contains(from), "{from}");
    of(&BASE.replacen(from, to, 1))
}

fn diff_of(one: (&Pipeline, &Counts), other: (&Pipeline, &Counts)) -> Diff {
    diff(Some(one), other)
}

fn of(text: &str) -> Diff {
    let counts = Counts::new();
    diff(Some((&pipeline(BASE), &counts)), (&pipeline(text), &counts))
}

#[track_caller]
fn is(diff: &Diff, class: Class, reason: &str) {
    assert_eq!(diff.class, class, "{diff:#?}");
    match class {
        Class::Hot => assert!(diff.reasons.is_empty(), "{diff:#?}"),
        _ => assert!(diff.reasons.iter().any(|known| known.contains(reason)), "{reason}: {diff:#?}"),
    }
}

fn details<'a>(changes: &'a [Change], name: &str) -> &'a [String] {
    changes.iter().find(|change| change.name == name).map(|change| change.details.as_slice()).unwrap_or_default()
}

#[test]
fn what_nobody_does_otherwise_is_no_change() {
    let diff = of(&BASE.replace("pipeline: p", "# a remark\npipeline: p"));
    assert!(diff.is_empty() && diff.class == Class::Hot, "{diff:#?}");
    let counts = Counts::new();
    let first = super::diff(None, (&pipeline(BASE), &counts));
    is(&first, Class::New, "no generation of it is active");
    assert!(first.stages.iter().all(|stage| stage.change == What::Added) && first.stages.len() == 3);
    assert!(first.irreversible.is_none() && !first.is_empty());
}

#[test]
fn plugins_configurations_limits_policies_and_sinks_are_hot() {
    let diff = changed("stars < 3", "stars < 2");
    is(&diff, Class::Hot, "");
    assert_eq!(details(&diff.stages, "low"), ["with.where: \"stars < 3\" -> \"stars < 2\""]);
    let diff = changed("plugin: filter, with: { where: 'stars < 3' }", "plugin: map, with: { set: { user: 'user + \"!\"' } }");
    is(&diff, Class::Hot, "");
    let low = details(&diff.stages, "low");
    assert!(low[0].starts_with("plugin: filter ") && low.iter().any(|line| line == "reads no longer stars: int"), "{low:?}");
    assert!(low.iter().any(|line| line == "reads user: text") && low.iter().any(|line| line.starts_with("writes user: ")), "{low:?}");
    let diff = changed("'stars < 3' } }", "'stars < 3' }, on_error: skip, limits: { cpu: 2s } }");
    is(&diff, Class::Hot, "");
    assert_eq!(details(&diff.stages, "low"), ["limits.cpu: 1s -> 2s", "on_error: fail -> skip"]);
    let diff = changed("topic: placed }", "topic: elsewhere, fields: [town] }\non_error: { dead_letter: dead }");
    is(&diff, Class::Hot, "");
    assert_eq!(
        diff.sinks.iter().map(|sink| (&*sink.name, sink.change)).collect::<Vec<_>>(),
        [("placed", What::Removed), ("elsewhere", What::Added)]
    );
    assert!(diff.topics.iter().any(|topic| topic.name == "dead" && topic.change == What::Added), "{diff:#?}");
    assert_eq!(diff.pipeline, ["on_error: fail -> dead letters to dead"]);
}

#[test]
fn what_sinks_will_write_is_told_field_by_field() {
    let diff = changed("add: { town: places.town }", "add: { place: places.town }");
    is(&diff, Class::Hot, "");
    let sink = details(&diff.sinks, "placed");
    assert!(sink.iter().any(|line| line.starts_with("will write no longer `town: text")), "{sink:?}");
    assert!(sink.iter().any(|line| line.starts_with("will write `place: text")), "{sink:?}");
}

#[test]
fn sources_tables_repartitions_and_stores_are_drained_for() {
    let diff = changed("sources:\n", "sources:\n  more: { topic: more }\n").reasons.join("\n");
    assert!(diff.contains("the source's topic `more` is read newly"), "{diff}");
    is(&changed("{ topic: in,", "{ topic: other,"), Class::Drain, "the source's topic `in` is no longer read");
    is(&changed("stars: int }", "stars: int, more: text }"), Class::Drain, "`in` is read in another way: `more: text`");
    is(&changed("key: text,", "tombstones: drop,"), Class::Drain, "tombstones: pass -> drop");
    is(&changed("{ name: text }", "{ name: text? }"), Class::Drain, "the table `users` is changed");
    let diff = changed("name: by-user, ", "name: by-user, store: totals, ");
    is(&diff, Class::Drain, "the store `totals` is kept newly");
    assert!(diff.irreversible.is_none() && diff.reasons.iter().any(|why| why.contains("`by-user` is no longer kept")), "{diff:#?}");
}

#[test]
fn rows_of_another_type_are_hot_if_there_is_a_way() {
    let store = |diff: &Diff| details(&diff.stores, "by-user").join("; ");
    let diff = changed("n: count()", "n: count(), most: max(stars)");
    is(&diff, Class::Hot, "");
    assert_eq!(store(&diff), "`most: int?` is added; rows that there are become rows of the newer type by name");
    assert_eq!(diff.irreversible, None);
    assert!(diff.undoes.is_some_and(|why| why.contains("`most` is gone")), "who drops it cannot go back");
    let diff = changed("n: count()", "n: count(), mean: avg(stars), all: collect(stars)");
    is(&diff, Class::Hot, "");
    assert!(store(&diff).starts_with("`mean.sum: float` is added; `mean.count: int` is added; `all: json` is added; "), "{diff:#?}");
    // What is dropped is gone.
    let more = BASE.replace("n: count()", "n: count(), most: max(stars)");
    let counts = Counts::new();
    let between = |one: &str, other: &str| diff_of((&pipeline(one), &counts), (&pipeline(other), &counts));
    let diff = between(&more, BASE);
    is(&diff, Class::Hot, "");
    assert!(diff.irreversible.as_ref().is_some_and(|why| why.contains("`by-user`") && why.contains("`most` is gone")), "{diff:#?}");
    assert_eq!(diff.undoes, None, "who has added it can");
    let float = BASE.replace("stars: int }", "stars: float }");
    let summed = |text: &str| text.replace("n: count()", "n: sum(stars)");
    let widened = between(&summed(BASE), &summed(&float));
    assert!(widened.irreversible.as_ref().is_some_and(|why| why.contains("`n` was float and is int")), "{widened:#?}");
    assert!(store(&widened).starts_with("`n` is widened: int? -> float?"), "{widened:#?}");
    let narrowed = between(&summed(&float), &summed(BASE));
    is(&narrowed, Class::New, "the rows of the store `by-user` cannot become rows of the newer type: `n` was float and is int");
}

#[test]
fn sources_that_meet_anew_are_drained_for() {
    let two = "pipeline: p
sources: { a: { topic: a, schema: { x: int } }, b: { topic: b, schema: { x: int } } }
stages:
  - { name: one, from: a, plugin: filter, with: { where: 'x > 0' } }
  - { name: two, from: b, plugin: filter, with: { where: 'x > 0' } }
sinks: [{ from: one, topic: out }, { from: two, topic: other }]
";
    let counts = Counts::new();
    let between = |one: &str, other: &str| diff(Some((&pipeline(one), &counts)), (&pipeline(other), &counts));
    is(&between(two, &two.replace("from: b,", "from: [a, b],")), Class::Drain, "other sources than before meet in a task");
    let (a, b) = ("a: { topic: a, schema: { x: int } }", "b: { topic: b, schema: { x: int } }");
    is(&between(two, &two.replace(&format!("{a}, {b}"), &format!("{b}, {a}"))), Class::Drain, "in another order");
}

#[test]
fn what_the_same_name_cannot_have_is_new() {
    let windowed = changed("compute: { n: count() }", "window: { tumbling: 1m }, compute: { n: count() }");
    is(&windowed, Class::New, "the store `by-user` would get another schema");
    is(&changed("{ town: text }", "{ town: text, zip: int }"), Class::New, "the store `places` of a table would get another schema");
    is(&changed("group_by: [user]", "group_by: [user, stars]"), Class::New, "brings records together by something else");
    is(&changed("key: text,", "key: json,"), Class::New, "the keys of `in` are read as others (key: text -> json)");
    is(&of(&format!("{BASE}guarantee: at-least-once\n")), Class::New, "guarantee: exactly-once -> at-least-once");
    let (one, other) = (pipeline(BASE), pipeline(&BASE.replace("stars < 3", "stars < 2")));
    let counts = |count: i32| Counts::from([("in".into(), 4), ("p.by-user.repartition".into(), count)]);
    is(&diff(Some((&one, &counts(4))), (&other, &counts(4))), Class::Hot, "");
    let diff = diff(Some((&one, &counts(4))), (&other, &counts(6)));
    is(&diff, Class::New, "`p.by-user.repartition` would have another number of partitions (partitions: 4 -> 6)");
}

#[test]
fn partitions_are_those_of_the_log() {
    let log = EmbeddedLog::temporary(Options::default()).unwrap();
    let pipeline = pipeline(BASE);
    assert!(!counts(&pipeline, &log, true).unwrap().contains_key("in"));
    log.create_topic("in", 3).unwrap();
    log.create_topic("p.by-user.repartition", 2).unwrap();
    let repartition = |as_made| counts(&pipeline, &log, as_made).unwrap().get("p.by-user.repartition").copied();
    assert_eq!((repartition(false), repartition(true)), (Some(2), Some(3)));
}

#[test]
fn permissions_that_come_and_go_are_told_by_stage() {
    let text = "pipeline: p
sources: { in: { topic: in, schema: { stars: int } } }
stages: [{ name: low, plugin: filter, with: { where: 'stars < 3' } }]
sinks: [{ from: low, topic: out }]
";
    let other = text.replace("plugin: filter, with: { where: 'stars < 3' }", "plugin: aggregate, with: { compute: { most: max(stars) } }");
    let counts = Counts::new();
    let (one, other) = (pipeline(text), pipeline(&other));
    let diff = super::diff(Some((&one, &counts)), (&other, &counts));
    let names = |list: &[Permission]| list.iter().map(|one| format!("{}={}", one.stage, one.permission)).collect::<Vec<_>>();
    assert!(names(&diff.gained).contains(&"low=state".to_owned()), "{diff:#?}");
    assert!(!names(&diff.gained).iter().any(|one| one.contains("log")), "{diff:#?}");
    let back = super::diff(Some((&other, &counts)), (&one, &counts));
    assert_eq!(names(&back.lost), names(&diff.gained));
    assert!(back.gained.is_empty());
}

/// A plugin that asks for more than it needs.
struct Asking(Arc<dyn Plugin>, Vec<String>);

impl Plugin for Asking {
    fn about(&self) -> &About {
        self.0.about()
    }
    fn digest(&self) -> &str {
        self.0.digest()
    }
    fn imports(&self) -> &[String] {
        &self.1
    }
    fn describe(&self, request: &Request) -> Result<Description, DescribeError> {
        self.0.describe(request)
    }
    fn instantiate(&self, request: &Request, description: &Description, limits: Limits) -> Result<Box<dyn Instance>, CallError> {
        self.0.instantiate(request, description, limits)
    }
}

#[test]
fn to_log_needs_no_permission() {
    let mut asking = pipeline(BASE);
    let imports = ["log", "state", "wasi:clocks/wall-clock"].map(str::to_owned).to_vec();
    asking.stages[0].plugin = Arc::new(Asking(asking.stages[0].plugin.clone(), imports));
    let counts = Counts::new();
    let diff = diff(Some((&pipeline(BASE), &counts)), (&asking, &counts));
    let gained: Vec<_> = diff.gained.iter().map(|one| (one.stage.as_str(), one.permission.as_str())).collect();
    assert_eq!(gained, [("low", "state"), ("low", "wasi:clocks/wall-clock")]);
}

#[test]
fn secrets_stay_names() {
    let text = BASE.replace(
        "{ name: low, from: in, plugin: filter, with: { where: 'stars < 3' } }",
        "{ name: low, from: in, plugin: mask, with: { rules: [{ fields: [user], hash: { key: { secret: one } } }] } }",
    );
    let other = text.replace("secret: one", "secret: two");
    let counts = Counts::new();
    let diff = diff(Some((&pipeline(&text), &counts)), (&pipeline(&other), &counts));
    let low = details(&diff.stages, "low");
    assert!(low.len() == 1 && low[0].contains("<secret one>") && low[0].contains("<secret two>"), "{low:?}");
}

#[test]
fn a_repartition_topic_is_emptied_unless_rows_behind_it_are_kept() {
    // Another stage in its place: the store goes with it.
    let diff = of(&BASE.replace("by-user", "by-name"));
    is(&diff, Class::Drain, "the repartition topic `p.by-user.repartition` is no longer read: it is emptied first");
    assert_eq!(diff.empties, ["p.by-user.repartition"]);
    // The store stays by its name.
    let diff = of(&BASE.replace("by-user", "by-name").replace("name: by-name, ", "name: by-name, store: by-user, "));
    is(&diff, Class::New, "the rows of the store `by-user`, which is kept, are in other partitions than their records would be");
    assert!(diff.empties.is_empty(), "{diff:#?}");
}
