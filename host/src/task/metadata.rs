//! What a task keeps with its positions.

use crate::generation::WorksBy;
use crate::share::Keys;

/// What is kept with a position, at most 512 bytes of JSON.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Metadata {
    /// Of the pipeline's deployment, whose work this position is the end of; 0 = run without a fleet.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// The offset from which on it works in this partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// It works for these keys alone, beside another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// That works for the other keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<u64>,
    /// Milliseconds; absent before the first record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_time: Option<i64>,
    /// The task has committed rows of stores.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub state: bool,
    /// At the end of a run the task closed every window, and has read nothing since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// The number of the commit, where records tell which one they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<i64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Metadata {
    /// None: the position is of another program's making.
    pub fn of(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn works_by(&self) -> WorksBy {
        WorksBy { newest: self.generation, divided: self.keys.zip(self.beside) }
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
