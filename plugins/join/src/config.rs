//! What stands under `with`.

use millstream_expression::Ordered;
use schemars::JsonSchema;
use serde::Deserialize;

/// Configuration of `join`. The stage's `from` names the left input first, then the right one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is joined.
    #[serde(default)]
    pub of: Of,
    /// What records of both inputs meet by. Omitted: their keys.
    pub on: Option<On>,
    /// Of streams: how far apart the times of two records may be: `10m`.
    pub within: Option<String>,
    /// Of streams: how long records that come out of order are waited for: `1m`. Default none.
    pub grace: Option<String>,
    /// What becomes of a left record without a right one.
    #[serde(default)]
    pub join: Join,
    /// The result, a new object: path to a field of one side: `amount: left.amount`, `paid_at: right.$timestamp`.
    pub fields: Ordered<String>,
}

/// What is joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// Each pair of records of the same key that are within a time of each other gives a result.
    #[default]
    Streams,
    /// The last record of a key is its row; each change of a row gives a result.
    Tables,
}

/// What becomes of a left record without a right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// It gives no result.
    #[default]
    Inner,
    /// It gives one of its own, with nulls for the right side.
    Left,
}

/// Fields by which records meet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum On {
    /// A field that both have, or `$key`.
    Both(String),
    Each(OnEach),
}

/// A field of each side, or `$key`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnEach {
    pub left: String,
    pub right: String,
}
