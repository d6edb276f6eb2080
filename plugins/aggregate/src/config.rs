//! What stands under `with`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

/// Configuration of `aggregate`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Fields whose values make a group. Omitted: the record's key.
    #[serde(default)]
    pub group_by: Vec<String>,
    /// Without it, a group is kept for ever.
    pub window: Option<Window>,
    /// When results are given out: `updates`, one for each record; `changes`, one for each changed group at a commit; `final`, one for each closed window.
    #[serde(default = "updates")]
    pub emit: String,
    /// Fields of the result, in this order: `count()`, `count(path)`, `sum(path)`, `min(path)`, `max(path)`, `avg(path)`, `first(path)`,
    /// `last(path)`, `collect(path, limit)`.
    pub compute: Compute,
}

/// Windows of record time: `tumbling`, `hopping` or `session`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The length of windows that follow one another without a gap: `1m`.
    pub tumbling: Option<String>,
    /// The length of windows that overlap, one each `advance`: `5m`.
    pub hopping: Option<String>,
    /// From one hopping window's start to the next: `1m`.
    pub advance: Option<String>,
    /// A session of a group ends after this long without a record: `30m`.
    pub session: Option<String>,
    /// How long after its end a window still takes late records: `10s`.
    #[serde(default = "none")]
    pub grace: String,
}

/// Names and calls, in the order written.
#[derive(Clone, Debug)]
pub struct Compute(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Compute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Compute;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("names with what to compute, as in `ratings: count()`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Compute, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Compute(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl JsonSchema for Compute {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Compute".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object", "additionalProperties": { "type": "string" } })
    }
}

fn updates() -> String {
    "updates".to_owned()
}

fn none() -> String {
    "0s".to_owned()
}
