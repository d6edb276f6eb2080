//! What stands under `with`.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Configuration of `mask`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Applied in this order, each to what the one before made.
    pub rules: Vec<Rule>,
}

/// Where to mask, and exactly one way how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `'**'` for every text and number of the value, the key and the header values, or a list of paths; a path stands for everything below it.
    pub fields: Fields,
    /// Card numbers, found by their check digit, whatever separates the digits.
    pub card: Option<Card>,
    /// E-mail addresses.
    pub email: Option<Email>,
    /// The whole field.
    pub whole: Option<Whole>,
    /// Texts to find, each with what stands there instead; where two fit, the longer one is taken.
    pub replace: Option<BTreeMap<String, String>>,
    /// The field's HMAC-SHA-256, hexadecimal: equal values stay equal.
    pub hash: Option<Hash>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Fields {
    One(String),
    Many(Vec<String>),
}

impl Fields {
    /// The texts with their place below `fields`, as the end of a JSON pointer.
    pub fn texts(&self) -> Vec<(String, &str)> {
        match self {
            Self::One(text) => vec![(String::new(), text)],
            Self::Many(texts) => texts.iter().enumerate().map(|(place, text)| (format!("/{place}"), text.as_str())).collect(),
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Digits to leave at the end, at most 4.
    #[serde(default = "four")]
    pub keep_last: usize,
    /// One character in the place of each digit.
    #[serde(default = "x")]
    pub char: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// Whether `@` and what follows stay.
    #[serde(default = "yes")]
    pub keep_domain: bool,
    /// What stands in place of the rest.
    #[serde(default = "stars")]
    pub with: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// What stands in place of the field.
    #[serde(default = "stars")]
    pub with: String,
}

/// `hash: { secret: NAME }`, or `hash: { key: { secret: NAME }, length: 16 }`. The host puts the secret where the reference stood.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Hash {
    Key(String),
    More(HashOptions),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashOptions {
    /// A secret of the host: `{ secret: NAME }`.
    pub key: String,
    /// Hexadecimal digits to keep, 16 to 64.
    #[serde(default = "thirty_two")]
    pub length: usize,
}

impl Hash {
    pub fn options(&self) -> HashOptions {
        match self {
            Self::Key(key) => HashOptions { key: key.clone(), length: thirty_two() },
            Self::More(options) => options.clone(),
        }
    }
}

fn four() -> usize {
    4
}

fn x() -> String {
    "x".to_owned()
}

fn yes() -> bool {
    true
}

fn stars() -> String {
    "***".to_owned()
}

fn thirty_two() -> usize {
    32
}
