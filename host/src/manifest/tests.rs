//! The manifest from its text: mistakes and their places, types, names. Plugins are scripted by their configuration.

use super::*;
use crate::column::Type;
use crate::field::{Field, Path as FieldPath};
use crate::pipeline::{Input, InputKeys, KeyFormat, Policy, Regroup, Start, TableKey};
use crate::plugin::describe::*;
use crate::plugin::{CallError, DescribeError, Instance, Limits, Plugin};
use serde_json::json;
use std::collections::BTreeMap;

/// A plugin that answers what its configuration says.
struct Scripted {
    about: About,
    imports: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Script {
    #[serde(default)]
    reads: BTreeMap<Field, Type>,
    #[serde(default)]
    writes: BTreeMap<Field, Type>,
    #[serde(default)]
    removes: Vec<Field>,
    #[serde(default)]
    base: Option<Base>,
    #[serde(default)]
    outputs: Vec<String>,
    #[serde(default)]
    by: Option<Vec<Field>>,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    table_keys: Vec<Option<Field>>,
    #[serde(default = "kept")]
    keys: OutputKey,
    /// By input: what is read of its rows alone.
    #[serde(default)]
    reads_of: Vec<BTreeMap<Field, Type>>,
    #[serde(default)]
    input_keys: Vec<Field>,
    #[serde(default, rename = "where")]
    condition: String,
}

fn kept() -> OutputKey {
    OutputKey::Kept
}

impl Plugin for Scripted {
    fn about(&self) -> &About {
        &self.about
    }

    fn digest(&self) -> &str {
        "0"
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }

    fn describe(&self, request: &Request) -> Result<Description, DescribeError> {
        let script: Script = serde_json::from_value(request.config.clone()).map_err(|error| {
            DescribeError::Mistakes(vec![Mistake { at: String::new(), span: None, message: error.to_string(), proposal: None }])
        })?;
        if let Some(at) = script.condition.find("wrong") {
            let mistake = Mistake {
                at: "/where".to_owned(),
                span: Some((at, at + 5)),
                message: "there is no `wrong`".to_owned(),
                proposal: Some("did you mean `right`?".to_owned()),
            };
            return Err(DescribeError::Mistakes(vec![mistake]));
        }
        let names = if script.outputs.is_empty() { vec!["out".to_owned()] } else { script.outputs };
        let fields: Vec<FieldType> =
            script.writes.iter().map(|(path, kind)| FieldType { path: path.clone(), kind: *kind, nullable: false }).collect();
        let outputs = names
            .into_iter()
            .map(|name| Output {
                name,
                base: script.base.unwrap_or(Base::Extend),
                fields: fields.clone(),
                removes: script.removes.clone(),
                key: script.keys,
            })
            .collect();
        let store = |by| Store { name: String::new(), key: Type::Text, fields: Vec::new(), by, windowed: false, emits: Vec::new() };
        let mut description: Description = serde_json::from_value(json!({ "outputs": [] })).unwrap();
        description.reads = script.reads.into_iter().map(|(path, kind)| Read::of(path, kind)).collect();
        for (reads, input) in script.reads_of.into_iter().zip(0..) {
            description.reads.extend(reads.into_iter().map(|(path, kind)| Read { input: Some(input), ..Read::of(path, kind) }));
        }
        description.input_keys = script.input_keys;
        description.outputs = outputs;
        description.stores = script.by.map(store).into_iter().collect();
        description.tables = script.tables;
        description.table_keys = script.table_keys;
        Ok(description)
    }

    fn instantiate(&self, _: &Request, _: &Description, _: Limits) -> Result<Box<dyn Instance>, CallError> {
        Err(CallError::Trapped("a script does not run".to_owned()))
    }
}

struct Scripts;

impl crate::plugin::Loader for Scripts {
    fn load(&self, component: &[u8]) -> anyhow::Result<std::sync::Arc<dyn Plugin>> {
        let name = std::str::from_utf8(component)?;
        let config = json!({
            "type": "object",
            "properties": {
                "reads": { "type": "object" }, "writes": { "type": "object" }, "removes": { "type": "array" }, "base": { "enum": ["extend", "replace"] },
                "outputs": { "type": "array" }, "by": { "type": "array" }, "tables": { "type": "array", "items": { "type": "string" } },
                "table_keys": { "type": "array" }, "keys": { "enum": ["kept", "text"] }, "reads_of": { "type": "array" }, "input_keys": { "type": "array" },
                "where": { "type": "string" }, "key": { "type": "string" },
            },
            "additionalProperties": false,
        });
        let about = About { name: name.to_owned(), version: "1.0.0".to_owned(), summary: String::new(), config, protects: name == "mask" };
        let imports =
            if name == "enrich" { vec!["tables".to_owned(), "wasi:clocks/wall-clock".to_owned()] } else { vec!["state".to_owned()] };
        Ok(std::sync::Arc::new(Scripted { about, imports }))
    }
}

fn check(text: &str) -> Result<Loaded, Diagnostics> {
    let standard = |name: &str| -> Option<&'static [u8]> {
        ["filter", "map", "mask", "enrich", "aggregate", "join"].into_iter().find(|known| *known == name).map(str::as_bytes)
    };
    let path = Path::new("test.yaml");
    load_with(path, text.to_owned(), &Scripts, &OnDisk::with_standard(path, standard))
}

/// Every diagnostic as `line:column severity message | help`.
fn found(text: &str) -> Vec<String> {
    let found = match check(text) {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    };
    found
        .0
        .iter()
        .map(|one| {
            format!("{}:{} {} {} | {}", one.line(), one.column(), one.severity.name(), one.message, one.help.as_deref().unwrap_or_default())
        })
        .collect()
}

#[track_caller]
fn expect(text: &str, wanted: &[&str]) {
    let found = found(text);
    let fits = found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| found.starts_with(wanted));
    assert!(fits, "found:\n{}\nexpected:\n{}", found.join("\n"), wanted.join("\n"));
}

/// The same without warnings.
#[track_caller]
fn expect_errors(text: &str, wanted: &[&str]) {
    let found: Vec<String> = found(text).into_iter().filter(|one| one.contains(" error ")).collect();
    let fits = found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| found.starts_with(wanted));
    assert!(fits, "found:\n{}\nexpected:\n{}", found.join("\n"), wanted.join("\n"));
}

/// Lines from 5 on are the caller's stages.
fn with_stages(stages: &str) -> String {
    let last = stages.rsplit("- name: ").next().and_then(|rest| rest.lines().next()).unwrap_or_default().to_owned();
    let stages: String = stages.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "pipeline: test\nsources:\n  in: {{ topic: in, schema: {{ stars: int, name: text?, address.city: text, extra: json, closed: true }} }}\nstages:\n{stages}sinks: [{{ from: {last}, topic: out }}]\n"
    )
}

#[test]
fn six_mistakes_show_six_diagnostics() {
    expect(
        "\
pipeline: ratings
sources:
  ratings:
    topic: ratings
    fromat: json
    schema: { stars: integer, name: text? }
stages:
  - name: first
    plugin: filtre
  - name: second
    from: ratngs
    plugin: filter
    with: { where: 'stars < wrong' }
    limits: { cpu: 1 sec, memory: 64MB }
sinks:
  - { from: second }
",
        &[
            "5:5 error a source has no key `fromat` | did you mean `format`?",
            "6:22 error `integer` is not a type",
            "9:13 error there is no standard plugin `filtre` | did you mean `filter`?",
            "11:11 error there is no source or stage `ratngs` | did you mean `ratings`?",
            "14:20 error `1 sec` is not a duration",
            "14:35 error `64MB` is not a size",
            "16:7 error a sink needs the key `topic`",
        ],
    );
}

#[test]
fn a_declared_conversion_must_exist() {
    expect(
        "pipeline: p\nsources: { a: { topic: a, schema: { n: { type: int, from: text }, b: { type: int, from: boolean } } } }\nsinks: [{ from: a, topic: b }]\n",
        &["2:89 error there is no conversion from boolean to int"],
    );
}

#[test]
fn yaml_mistakes_have_a_place() {
    expect("a: [1\nb: 2\n", &["2:2 error this is not YAML"]);
    expect("a: 1\n\tb: 2\n", &["1:4 error this is not YAML"]);
    expect("", &["1:1 error the file is empty"]);
    expect("a: &x [*x]\n", &["1:8 error this alias stands inside of what it names"]);
    expect("pipeline: a\n---\npipeline: b\n", &["2:1 error a second document begins here"]);
    expect("- 1\n", &["1:3 error expected a pipeline (a block with pipeline, "]);
    let twice = with_stages("- name: a\n  plugin: filter\n  plugin: mask");
    expect(&twice, &["7:5 error the key `plugin` stands here a second time | it is also in line 6"]);
}

#[test]
fn on_and_yes_are_texts() {
    let loaded = check("pipeline: on\nsources: { yes: { topic: no } }\nsinks: [{ from: yes, topic: off }]\n").unwrap();
    assert_eq!((loaded.pipeline.name.as_str(), loaded.pipeline.sources[0].name.as_str()), ("on", "yes"));
    expect(
        "pipeline: 12\nsources: { a: { topic: true } }\nsinks: [{ from: a, topic: b }]\n",
        &[
            "1:11 error expected a pipeline's name, found a number | a text",
            "2:24 error expected a topic's name, found true or false | a text",
        ],
    );
}

const WHOLE: &str = "\
pipeline: p
sources:
  a: { topic: ta, key: int64, start: 2026-01-01T00:00:00Z, time: { field: t, unit: s, max_ahead: 10m }, tombstones: drop, schema: { t: int, n: { type: int, from: text, nullable: true } } }
  b: { topic: tb, key: int64 }
tables: { users: { topic: tu, key: json, schema: { id: int } } }
stages:
  - { name: one, from: [a, b], plugin: mask, with: { key: { secret: no-such-secret } } }
  - { name: two, plugin: aggregate, with: { by: [$key], tables: [users] }, on_error: { dead_letter: dead, include: original }, limits: { memory: 1MiB } }
  - { name: three, from: one, plugin: filter, with: { outputs: [x, y] }, log: unsafe, protects: true }
sinks:
  - { from: [two, three.y, b], topic: o1, key: text, create: true, fields: [n, t] }
  - { from: three.x, topic: o2 }
on_error: skip
limits: { cpu: 250ms }
tests:
  - name: a case
    given:
      users: [{ key: 3, value: { id: 3 } }]
      b: [{ value: null }, { raw: '{', headers: { h: 1 }, timestamp: 5, partition: 1 }]
    expect:
      o2: []
      o1: [{ key: null, value: { n: 1, gone: !missing, list: [1] }, exact: true, timestamp: 5 }]
";

#[test]
fn a_whole_pipeline_becomes_what_it_says() {
    let loaded = check(WHOLE).map_err(|found| found.to_string()).unwrap();
    let pipeline = &loaded.pipeline;
    let a = &pipeline.sources[0];
    assert_eq!((a.key, a.start), (KeyFormat::Int64, Start::At(1_767_225_600_000)));
    assert_eq!(a.time.as_ref().map(|time| (time.unit, time.max_ahead)), Some((1000, 600_000)));
    assert_eq!(a.schema.from[0].1, Type::Text);
    let [one, two, three] = pipeline.stages.as_slice() else { panic!("three stages") };
    assert_eq!(one.from, [Input::Source(0), Input::Source(1)]);
    assert!(one.protects && !two.protects && three.protects && three.log_unsafe);
    assert_eq!(two.from, [Input::Stage(0, 0)]);
    assert_eq!((two.stores.as_slice(), two.tables.as_slice()), (&["two".to_owned()][..], &[0][..]));
    assert_eq!(two.on_error, Policy::DeadLetter { topic: "dead".into(), include_original: true });
    assert_eq!((two.limits.memory, two.limits.cpu.as_millis()), (1 << 20, 250));
    assert_eq!((&three.on_error, one.limits.memory), (&Policy::Skip, 64 << 20));
    assert_eq!(pipeline.sinks[0].from, [Input::Stage(1, 0), Input::Stage(2, 1), Input::Source(1)]);
    assert!(pipeline.sinks[0].create && !pipeline.sinks[1].create);
    assert!(pipeline.sinks.iter().all(|sink| sink.regroup.is_none()));
    assert!(one.input.fields.iter().any(|field| field.path == Field::Key && field.kind == Type::Int));
    assert_eq!(one.with["key"]["secret"], "no-such-secret");
    let warnings: Vec<&str> = loaded.warnings.0.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(warnings, ["the secret `no-such-secret` is not set on this machine"]);

    let case = &loaded.cases[0];
    assert_eq!((case.given[0].to, case.given[1].to), (Target::Table(0), Target::Source(1)));
    assert_eq!(case.given[1].records[0].value, GivenValue::Tombstone);
    assert_eq!(case.given[1].records[1].value, GivenValue::Raw("{".to_owned()));
    assert_eq!(case.given[1].records[1].headers, [("h".to_owned(), Some("1".to_owned()))]);
    assert!(case.expect[0].records.is_empty());
    let expected = &case.expect[1].records[0];
    assert!(expected.exact && expected.key.as_ref().is_some_and(|(key, _)| key.is_null()));
    let Some(Expected { what: ExpectedValue::Fields(fields), .. }) = &expected.value else { panic!("fields") };
    assert!(matches!(fields[1].1.what, ExpectedValue::Missing));
    assert_eq!(loaded.source.place(fields[1].1.span.start), (22, 40));
}

#[test]
fn types_are_followed_from_source_to_sink() {
    // A wrong type, a field that no one provides, below a scalar, an object read as a scalar.
    expect(
        &with_stages(
            "- { name: a, plugin: filter, with: { reads: { stars: text } } }
- { name: b, plugin: filter, with: { reads: { strs: int } } }
- { name: c, plugin: filter, with: { reads: { name.first: text } } }
- { name: d, plugin: filter, with: { reads: { address: text } } }
- name: e
  plugin: filter
  with: { reads: { address: json, address.city: text, extra.x: json } }",
        ),
        &[
            "5:49 error stage `a`: reads `stars` as text, but it is int (declared at line 3)",
            "6:49 error stage `b`: there is no field `strs` | did you mean `stars`?",
            "7:49 error stage `c`: `name.first` cannot be there: `name` is text (declared at line 3)",
            "8:49 error stage `d`: reads `address` as text, but it is an object",
        ],
    );
    // What a stage writes and removes holds for the next.
    expect(
        &with_stages(
            "- { name: a, plugin: map, with: { writes: { stars: text, new: int, name: json }, removes: [name] } }
- { name: b, plugin: filter, with: { reads: { stars: int } } }
- { name: c, plugin: filter, with: { reads: { name: text } } }
- { name: d, plugin: map, with: { base: replace, writes: { n: int } } }
- name: e
  plugin: filter
  with: { reads: { stars: text } }",
        ),
        &[
            "6:49 error stage `b`: reads `stars` as int, but it is text (written by stage `a`)",
            "7:49 error stage `c`: `name` is not there any more: removed by stage `a`",
            "11:22 error stage `e`: there is no field `stars` | known here: `n`",
        ],
    );
}

#[test]
fn an_open_schema_assumes_and_says_so() {
    let text = "pipeline: p\nsources: { in: { topic: in, schema: { stars: int } } }\nstages:\n  - { name: a, plugin: filter, with: { reads: { star: int, any: json } } }\nsinks: [{ from: a, topic: out }]\n";
    expect(
        text,
        &[
            "4:49 warning stage `a` reads `star` as int, which no schema declares: it is assumed | did you mean `stars`? Else declare it in the source's schema: `star: int`",
        ],
    );
}

#[test]
fn what_two_ways_have_in_common() {
    let head = "pipeline: p\nsources:\n  x: { topic: x, schema: { a: int, b: int, closed: true } }\n  y: { topic: y, schema: { a: text, c: int, closed: true } }\nstages:\n";
    expect(
        &format!(
            "{head}  - {{ name: m, from: [x, y], plugin: filter, with: {{ reads: {{ a: int, c: int }} }} }}\nsinks: [{{ from: m, topic: out }}]\n"
        ),
        &[
            "6:63 error stage `m`: `a` is int (declared at line 3) on one way that leads here, and text (declared at line 4) on another",
            "6:71 error stage `m`: there is no field `c` | known here: `a`",
        ],
    );
}

#[test]
fn names_must_lead_somewhere() {
    expect(
        "\
pipeline: p
sources: { a: { topic: ta }, b: { topic: ta } }
tables: { t: { topic: tt } }
stages:
  - { name: one, plugin: filter }
  - { name: two, from: three, plugin: filter }
  - { name: three, from: t, plugin: filter }
  - { name: a, from: a, plugin: filter, with: { outputs: [left, right] } }
  - { name: five, plugin: filter }
  - { name: six, from: one.x, plugin: oci://host/x }
sinks:
  - { from: a.x, topic: ta }
  - { from: [b, b], topic: out }
  - { from: b, topic: out }
on_error: { dead_letter: ta }
tests:
  - { name: n, given: { bb: [] }, expect: { ou: [] } }
",
        &[
            "2:42 error the topic `ta` is the source `a` already",
            "5:7 error with several sources, the first stage names what it reads",
            "6:24 error the stage `three` stands below, in line 7",
            "7:26 error `t` is a table, no stream",
            "8:13 error the name `a` is taken",
            "9:7 error the stage `a` has several outputs: say with `from`",
            "10:39 error plugins from a registry are not offered yet",
            "12:13 error the source `a` has no output `x`",
            "12:25 error the topic `ta` is the source `a`",
            "13:17 error `b` is listed twice",
            "14:23 error the topic `out` has a sink already, in line 13",
            "15:26 error the topic `ta` is the source `a`",
            "17:25 error there is no source or table `bb`",
            "17:45 error no sink writes the topic `ou` | did you mean `out`?",
        ],
    );
}

#[test]
fn what_nobody_reads_is_a_warning() {
    expect(
        "\
pipeline: p
sources: { a: { topic: ta }, b: { topic: tb } }
tables: { t: { topic: tt } }
stages:
  - { name: one, from: a, plugin: filter, with: { outputs: [left, right] } }
  - { name: two, from: one.left, plugin: filter }
sinks: [{ from: a, topic: out }]
",
        &[
            "2:30 warning nobody reads the source `b`",
            "3:11 warning no stage uses the table `t`",
            "5:13 warning nobody reads the output `one.right`",
            "6:13 warning nobody reads the stage `two`",
        ],
    );
}

#[test]
fn configurations_are_held_against_the_plugins_schema() {
    expect(
        &with_stages(
            "- name: a
  plugin: filter
  with:
    wher: x
    base: extnd
    tables: [1]
- name: b
  plugin: filter
  with: 'text'",
        ),
        &[
            "8:7 error the configuration has no key `wher` | did you mean `where`?",
            "9:13 error `base`: \"extnd\" is not one of the words known here | did you mean `extend`?",
            "10:16 error `tables[0]`: expected a text, found a number",
            "13:11 error the configuration: expected a block of keys, found a text",
        ],
    );
}

#[test]
fn a_mistake_inside_of_a_text_has_its_column() {
    for (with, place) in [
        ("with: { where: 'a == ''x'' && wrong' }", "7:35"),
        ("with: { where: \"é\\\"\\u0041 wrong\" }", "7:31"),
        ("with: { where: '''''==wrong' }", "7:27"),
        ("with: { where: a < wrong }", "7:24"),
        ("with:\n    where: >-\n      a <\n      b &&\n        wrong", "11:11"),
        ("with:\n    where: |\n      a <\n\n      wrong", "11:9"),
        ("with:\n    where: a <\n      wrong", "9:9"),
    ] {
        let text = with_stages(&format!("- name: a\n  plugin: filter\n  {with}"));
        expect(&text, &[&format!("{place} error there is no `wrong` | did you mean `right`?")]);
    }
}

#[test]
fn imports_and_contract_are_held() {
    expect_errors(
        &with_stages(
            "- { name: a, plugin: enrich, allow: [clock] }
- { name: b, from: in, plugin: map, with: { writes: { x: int, x.y: int, $key: text } } }
- { name: c, from: in, plugin: map, with: { writes: { name.first: int } } }
- { name: d, from: in, plugin: map, with: { tables: [nobody] } }
- { name: e, from: in, plugin: map, with: { by: [stars] }, store: [x, y] }
- name: f
  from: in
  plugin: map
  with: { reads: { $window.start: int, $key: boolean } }",
        ),
        &[
            "5:24 error the plugin of stage `a` wants `wasi:clocks/wall-clock`",
            "5:40 error `clock` cannot be allowed",
            "6:34 error the plugin of stage `b` breaks the contract: it writes `x` and `x.y`",
            "6:34 error the plugin of stage `b` breaks the contract: it lists `$key`",
            "7:57 error stage `c` writes `name.first`, but `name` is text",
            "8:56 error stage `d` looks up `nobody`, but there is no such table",
            "9:70 error stage `e` has 1 stores, but 2 names stand here",
            "12:13 error the plugin of stage `f` breaks the contract: it reads `$window.start`, but has no window",
            "13:42 error stage `f`: reads `$key` as boolean, but it is text",
        ],
    );
}

#[test]
fn groups_by_other_than_the_key_go_through_a_repartition_topic() {
    let regroups = |stages: &str| match check(&with_stages(stages)) {
        Ok(loaded) => {
            let by: Vec<_> = loaded.pipeline.sinks.iter().filter_map(|sink| sink.regroup.clone()).collect();
            let carried: Vec<_> = loaded.pipeline.sources.iter().filter(|source| source.carries.is_some()).collect();
            assert_eq!(by.len(), carried.len());
            assert!(carried.iter().all(|source| source.topic.ends_with("a.repartition")), "named after the stage");
            by
        }
        Err(found) => panic!("{found}"),
    };
    let fields = |name: &str| vec![Regroup::Fields(vec![(crate::field::Path(vec![name.to_owned()]), Type::Text)])];
    assert_eq!(regroups("- name: a\n  plugin: aggregate\n  with: { by: [$key] }"), []);
    assert_eq!(regroups("- name: a\n  plugin: aggregate\n  with: { reads: { name: text }, by: [name] }"), fields("name"));
    assert_eq!(regroups("- name: a\n  plugin: aggregate\n  with: { by: [] }"), [Regroup::One]);
    assert_eq!(regroups("- { name: f, plugin: filter }\n- name: a\n  plugin: aggregate\n  with: { by: [$key] }"), []);
    // A second grouping by the key that the first one made.
    let twice = "- { name: fa, plugin: aggregate, with: { reads: { name: text }, by: [name] } }\n- name: a\n  plugin: aggregate\n  with: { by: [$key] }";
    assert_eq!(regroups(twice), [fields("name"), vec![Regroup::Key]].concat());
    let changed = "- { name: f, plugin: map, with: { keys: text } }\n- name: a\n  plugin: aggregate\n  with: { by: [$key] }";
    assert_eq!(regroups(changed), [Regroup::Key]);
}

#[test]
fn schemas_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.yaml"), "stars: int\nname: txt\nclosed: true\n").unwrap();
    std::fs::write(folder.path().join("p.wasm"), "filter").unwrap();
    let text = "pipeline: p\nsources: { in: { topic: in, schema: { file: s.yaml, more: int } } }\nstages: [{ name: a, plugin: ./p.wasm, with: { reads: { star: int } } }]\nsinks: [{ from: a, topic: out }]\n";
    let path = folder.path().join("pipeline.yaml");
    let found = load_text(&path, text.to_owned(), &Scripts).err().unwrap();
    let lines: Vec<(String, usize, &str)> = found
        .0
        .iter()
        .map(|one| (one.source.path.file_name().unwrap().to_string_lossy().into_owned(), one.line(), one.message.as_str()))
        .collect();
    assert_eq!(lines[0], ("pipeline.yaml".to_owned(), 3, "stage `a`: there is no field `star`"));
    assert_eq!((lines[1].0.as_str(), lines[1].1), ("s.yaml", 2));
    assert_eq!(lines.len(), 2);
    std::fs::write(folder.path().join("s.yaml"), "star: int\nname: text\nclosed: true\n").unwrap();
    let loaded = load_text(&path, text.to_owned(), &Scripts).map_err(|found| found.to_string()).unwrap();
    assert!(!loaded.pipeline.sources[0].schema.schema.open);
    assert_eq!(loaded.pipeline.sources[0].schema.schema.fields.len(), 3);
}

#[test]
fn diagnostics_for_people_and_scripts() {
    let found = check("pipelin: x\n").err().unwrap();
    assert_eq!(found.errors(), 3);
    let json = found.to_json();
    let first = &json[0];
    assert_eq!((first["file"].as_str(), first["line"].as_u64(), first["column"].as_u64()), (Some("test.yaml"), Some(1), Some(1)));
    assert!(found.render(false).contains("test.yaml:1:1: error: a pipeline has no key `pipelin`\n  help: did you mean `pipeline`?\n"));
    assert!(found.render(true).contains("pipelin: x"));
    assert_eq!(found.summary(), "3 mistakes");
}

/// Whatever somebody types, `check` answers: every diagnostic has a place in the file, nothing panics.
#[test]
fn any_text_has_an_answer() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
    println!("MILLSTREAM_SEED={seed}");
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let pieces = [
        "{", "}", "[", "]", ": ", "\n", "  ", "'", "\"", "é", "!missing", "&a ", "*a", "|", "$key", "a.b", "0x1f", "-", "#", "\t", "~", "9",
    ];
    for _ in 0..3000 {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len());
            match random(3) {
                0 => drop(text.drain(at..(at + random(20)).min(text.len()))),
                1 => drop(text.splice(at..at, pieces[random(pieces.len())].chars())),
                _ => {
                    let from = random(text.len());
                    let copy: Vec<char> = text[from..(from + random(60)).min(text.len())].to_vec();
                    drop(text.splice(at..at, copy));
                }
            }
        }
        let text: String = text.into_iter().collect();
        let found = match check(&text) {
            Ok(loaded) => loaded.warnings,
            Err(found) => {
                assert!(found.errors() > 0);
                found
            }
        };
        for one in &found.0 {
            assert!(one.span.start <= one.span.end && one.span.end <= text.len(), "{one:?}");
            one.to_plain();
        }
        found.render(true);
    }
}

/// MILLSTREAM_BLESS=1 writes it.
#[test]
fn the_published_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manifest.schema.json");
    let text = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if std::env::var_os("MILLSTREAM_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).is_ok_and(|published| published == text),
        "run with MILLSTREAM_BLESS=1 to write {}",
        path.display()
    );
    jsonschema::draft7::new(&json_schema()).unwrap();
}

/// The reference has a table row for every key.
#[test]
fn the_reference_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manifest.md");
    let text = std::fs::read_to_string(path).unwrap();
    for (what, key) in grammar::all_keys() {
        assert!(text.contains(&format!("| `{key}` |")), "{what}: `{key}` is not in docs/manifest.md");
    }
}

const PARTITIONED: &str = "\
pipeline: p
sources: { a: { topic: ta, schema: { u: int } } }
tables: { t: { topic: tt, key: KEY, scope: partitioned } }
stages:
  - { name: one, plugin: filter, with: { tables: [t], reads: { u: int }, table_keys: [BY] } }
sinks: [{ from: one, topic: out }]
";

#[test]
fn records_are_brought_to_the_rows_of_a_partitioned_table() {
    let regroup = |by: &str, key: &str| {
        let text = PARTITIONED.replace("BY", by).replace("KEY", key);
        let pipeline = check(&text).map_err(|found| found.to_string()).unwrap().pipeline;
        let table = pipeline.sources.iter().position(|source| source.table == Some(0)).unwrap();
        assert_eq!(crate::flow::plan::segments(&pipeline).iter().filter(|segment| segment.sources.contains(&table)).count(), 1);
        pipeline.sinks.iter().find_map(|sink| sink.regroup.clone())
    };
    let table = |field, format| Some(Regroup::Table(TableKey { field, format, topic: "tt".into() }));
    assert_eq!(regroup("$key", "text"), None);
    assert_eq!(regroup("$key", "bytes"), None, "the bytes are the same");
    assert_eq!(regroup("$key", "int64"), table(None, KeyFormat::Int64));
    assert_eq!(regroup("u", "int32"), table(Some((FieldPath::parse("u").unwrap(), Type::Int)), KeyFormat::Int32));
}

/// Who looks up a partitioned table by a field gets records where its rows are, and so do the stages behind.
#[test]
fn records_at_the_rows_of_a_table_are_not_by_their_keys() {
    let text = PARTITIONED.replace("BY", "u").replace("KEY", "text");
    let text =
        text.replace("sinks:", "  - { name: two, plugin: aggregate, with: { by: [$key] } }\nsinks:").replace("from: one", "from: two");
    let pipeline = check(&text).map_err(|found| found.to_string()).unwrap().pipeline;
    assert_eq!(pipeline.sinks.iter().filter_map(|sink| sink.regroup.clone()).next_back(), Some(Regroup::Key));
}

#[test]
fn what_keys_are_behind_a_stage() {
    let keys = |stages: &str| {
        let loaded = check(&with_stages(stages).replace("topic: in,", "topic: in, key: json,")).map_err(|found| found.to_string()).unwrap();
        let input = &loaded.pipeline.stages.last().unwrap().input;
        input.fields.iter().find(|field| field.path == Field::Key).map(|field| field.kind)
    };
    let kept = "- { name: f, plugin: filter }\n- name: a\n  plugin: filter";
    assert_eq!(keys(kept), Some(Type::Json));
    let given = "- { name: f, plugin: filter, with: { keys: text } }\n- name: a\n  plugin: filter";
    assert_eq!(keys(given), None, "text, if it gives any");
}

#[test]
fn what_keeps_records_from_the_rows_of_a_partitioned_table() {
    let text = |by: &str| PARTITIONED.replace("BY", by).replace("KEY", "text");
    let other = "5:51 error stage `one` looks up the partitioned table `t` by something else than a field or the key";
    expect_errors(&text("null"), &[other]);
    expect_errors(&text("$topic"), &[other]);
    let again = text("u").replace("sinks:", "  - { name: two, from: a, plugin: filter, with: { tables: [t], table_keys: [$key] } }\n  - { name: n, from: one, plugin: filter, with: { by: [u] } }\n  - { name: three, plugin: filter, with: { tables: [t], table_keys: [$key] } }\nsinks:");
    expect_errors(
        &again.replace("from: one, topic", "from: [two, three], topic"),
        &["3:11 error the partitioned table `t` is looked up before a repartition and behind it, but its records are read once"],
    );
    let topics = text("u").replace("topic: tt", "topic: ta").replace("sinks: [", "sinks: [{ from: one, topic: tt }, ");
    expect_errors(&topics, &["3:23 error the topic `ta` is the source `a` already: a partitioned table's is read for it alone"]);
    expect_errors(
        &text("u").replace("sinks: [", "sinks: [{ from: one, topic: tt }, "),
        &["6:29 error the topic `tt` is the partitioned table `t`: the pipeline would read what it writes"],
    );
    let both = text("u").replace("table_keys", "by: [v], table_keys");
    expect_errors(&both, &["5:26 error stage `one` needs its records by the keys of its store and by those of its partitioned table"]);
    let stored = text("$key").replace("table_keys", "by: [$key], table_keys").replace("plugin: filter", "store: t, plugin: filter");
    expect_errors(&stored, &["5:25 error the store `t` is the partitioned table's of that name"]);
}

const JOINED: &str = "\
pipeline: p
sources:
  a: { topic: ta, key: KEY, schema: { n: int, closed: true } }
  b: { topic: tb, schema: { n: text?, m: int } }
stages:
  - { name: one, plugin: filter, from: a }
  - { name: two, plugin: join, from: [one, b], with: { input_keys: [BY], reads_of: [{ n: int }, { n: text, m: int }] } }
sinks: [{ from: two, topic: out }]
";

#[test]
fn records_of_several_inputs_are_brought_together() {
    let keys = |by: &str, key: &str| {
        let pipeline = check(&JOINED.replace("BY", by).replace("KEY", key)).map_err(|found| found.to_string()).unwrap().pipeline;
        assert_eq!(pipeline.inputs_of(&pipeline.stages[1]).unwrap()[..2], [Some(0), Some(1)], "by source, also behind a repartition");
        assert_eq!(pipeline.stages[1].inputs.len(), 2);
        pipeline.sinks.iter().find_map(|sink| sink.regroup.clone())
    };
    let inputs = |fields: [Option<(&str, Type)>; 2]| {
        let fields = fields.map(|field| field.map(|(name, kind)| (FieldPath::parse(name).unwrap(), kind))).into();
        Some(Regroup::Inputs(InputKeys { fields, of: vec![Some(0), Some(1)] }))
    };
    assert_eq!(keys("$key, $key", "text"), None);
    assert_eq!(keys("$key, $key", "bytes"), None, "the bytes are the same");
    assert_eq!(keys("$key, $key", "int64"), inputs([None, None]));
    assert_eq!(keys("n, m", "text"), inputs([Some(("n", Type::Int)), Some(("m", Type::Int))]));
    assert_eq!(keys("$key, n", "text"), inputs([None, Some(("n", Type::Text))]));
}

#[test]
fn what_is_read_of_one_input_is_held_against_that_input() {
    let text = JOINED.replace("BY", "$key, $key").replace("KEY", "text");
    expect(&text, &[]);
    expect_errors(
        &text.replace("[{ n: int }, { n: text, m: int }]", "[{ n: text }, { n: text, m: int }]"),
        &["7:95 error stage `two`: reads `n` as text, but it is int (declared at line 3)"],
    );
    expect_errors(&text.replace("[{ n: int }, { n: text, m: int }]", "[{ m: int }]"), &["7:95 error stage `two`: there is no field `m`"]);
    let breach = "7:26 error the plugin of stage `two` breaks the contract:";
    let found = |text: &str, told: &str| expect_errors(text, &[&format!("{breach} {told}")]);
    found(&text.replace("$key, $key", "$key"), "the keys of its inputs are one field of the value, or $key, for each input");
    found(&text.replace("$key, $key", "$key, $topic"), "the keys of its inputs are one field of the value, or $key, for each input");
    found(&text.replace("}, { n: text, m: int }]", "}, {}, { n: text }]"), "it reads `n` of an input that the stage does not have");
}

#[test]
fn no_source_comes_by_two_inputs() {
    let text = JOINED.replace("BY", "$key, $key").replace("KEY", "text").replace("from: [one, b]", "from: [one, a]");
    let text = text.replace("reads_of: [{ n: int }, { n: text, m: int }]", "reads_of: []");
    let told = "7:39 error stage `two` tells its inputs apart by the sources of their records, and those of `a` come by two of them";
    expect_errors(&text, &[told]);
    expect_errors(&text.replace("input_keys: [$key, $key]", "input_keys: [n, n]"), &[told]);
}
