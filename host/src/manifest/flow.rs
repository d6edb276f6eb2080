//! What is known of the records between two stages: the fields with their types and where they come from.

use super::diagnostic::{nearest, propose};
use crate::column::Type;
use crate::field::{Field, Path};
use crate::pipeline::{FormatKind, KeyFormat};
use crate::plugin::describe::{Base, FieldType, Output, OutputKey, Schema};

/// A field that records are known to have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub path: Path,
    pub kind: Type,
    pub nullable: bool,
    /// As in "declared at line 3" or "written by stage `clean`".
    pub origin: String,
    /// In a merge: the type and origin that it has on another way.
    pub other: Option<(Type, String)>,
}

/// The records that leave a source or an output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Flow {
    pub fields: Vec<Known>,
    /// Fields that are gone, and what removed them.
    pub removed: Vec<(Path, String)>,
    /// Whether there may be fields that are not listed.
    pub open: bool,
    pub format: FormatKind,
    /// None: not the same for all records.
    pub key: Option<KeyFormat>,
    /// The key is still the source's, so that records of one key are in one partition.
    pub source_key: bool,
}

/// What came of asking for a field.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    Fine,
    /// Nobody declares it; its type is assumed.
    Assumed,
    Wrong {
        message: String,
        help: Option<String>,
    },
}

fn wrong(message: String, help: impl Into<Option<String>>) -> Found {
    Found::Wrong { message, help: help.into() }
}

/// The type of `$key`.
pub(crate) fn key_type(format: KeyFormat) -> Type {
    match format {
        KeyFormat::Text => Type::Text,
        KeyFormat::Json => Type::Json,
        KeyFormat::Int32 | KeyFormat::Int64 => Type::Int,
        KeyFormat::Bytes => Type::Bytes,
    }
}

impl Flow {
    /// What `describe` is told. `$key` is listed where it is not the text that it is by default.
    pub fn schema(&self) -> Schema {
        let mut fields: Vec<FieldType> = self
            .fields
            .iter()
            .filter(|field| field.other.is_none())
            .map(|field| FieldType { path: Field::Value(field.path.clone()), kind: field.kind, nullable: field.nullable })
            .collect();
        if let Some(kind) = self.key.map(key_type).filter(|kind| *kind != Type::Text) {
            fields.push(FieldType { path: Field::Key, kind, nullable: true });
        }
        Schema { fields, open: self.open }
    }

    /// What several ways have in common.
    pub fn merge(flows: &[&Flow]) -> Flow {
        let Some((first, rest)) = flows.split_first() else {
            return Flow { fields: Vec::new(), removed: Vec::new(), open: true, format: FormatKind::Json, key: None, source_key: false };
        };
        rest.iter().fold((*first).clone(), |merged, next| merged.meet(next))
    }

    fn meet(&self, other: &Flow) -> Flow {
        let fields = self
            .fields
            .iter()
            .filter_map(|mine| {
                let theirs = other.fields.iter().find(|theirs| theirs.path == mine.path)?;
                let mut both = mine.clone();
                both.nullable |= theirs.nullable;
                if both.other.is_none() && mine.kind != theirs.kind {
                    both.other = Some((theirs.kind, theirs.origin.clone()));
                } else if both.other.is_none() {
                    both.other.clone_from(&theirs.other);
                }
                Some(both)
            })
            .collect();
        Flow {
            fields,
            removed: self.removed.iter().filter(|(path, _)| other.removed.iter().any(|(theirs, _)| theirs == path)).cloned().collect(),
            open: self.open || other.open,
            format: if self.format == other.format { self.format } else { FormatKind::Json },
            key: self.key.filter(|key| Some(*key) == other.key),
            source_key: self.source_key && other.source_key && self.key == other.key,
        }
    }

    /// The records of an output, given those that the stage takes.
    pub fn after(&self, stage: &str, output: &Output) -> Flow {
        let origin = format!("written by stage `{stage}`");
        let written = |path: &Path, field: &FieldType| Known {
            path: path.clone(),
            kind: field.kind,
            nullable: field.nullable,
            origin: origin.clone(),
            other: None,
        };
        let mut flow = match output.base {
            Base::Extend => self.clone(),
            // Without fields, the plugin writes whole values: nothing is known of them.
            Base::Replace => Flow {
                fields: Vec::new(),
                removed: Vec::new(),
                open: output.fields.is_empty(),
                format: if output.fields.is_empty() { self.format } else { FormatKind::Json },
                ..self.clone()
            },
        };
        flow.source_key &= output.key == OutputKey::Kept;
        // Whether a plugin gives new keys is told by each of its answers, so there may be those of the source beside its texts, which are bytes too.
        if output.key == OutputKey::Text && !matches!(flow.key, Some(KeyFormat::Text | KeyFormat::Bytes)) {
            flow.key = None;
        }
        for field in &output.removes {
            if let Field::Value(path) = field {
                flow.fields.retain(|known| !path.is_prefix_of(&known.path));
                flow.removed.push((path.clone(), format!("removed by stage `{stage}`")));
            }
        }
        // A field that is removed in every row stands among the written ones too, with each row marked.
        for field in output.fields.iter().filter(|field| !output.removes.contains(&field.path)) {
            if let Field::Value(path) = &field.path {
                flow.removed.retain(|(removed, _)| !path.is_prefix_of(removed));
                match flow.fields.iter_mut().find(|known| known.path == *path) {
                    // In its place: fields keep their order.
                    Some(known) => *known = written(path, field),
                    None => flow.fields.push(written(path, field)),
                }
                flow.fields.retain(|known| known.path == *path || !path.is_prefix_of(&known.path));
            }
        }
        flow
    }

    /// Whether a field of the value can be read with this type; `kind` None = whatever it has.
    pub fn find(&self, path: &Path, kind: Option<Type>) -> Found {
        if let Some(known) = self.fields.iter().find(|known| known.path == *path) {
            return match (&known.other, kind) {
                (Some((other, origin)), Some(_)) => wrong(
                    format!("`{path}` is {} ({}) on one way that leads here, and {other} ({origin}) on another", known.kind, known.origin),
                    "make it one type on all ways, or do not merge them".to_owned(),
                ),
                (None, Some(kind)) if kind != known.kind => {
                    wrong(format!("reads `{path}` as {kind}, but it is {} ({})", known.kind, known.origin), None)
                }
                _ => Found::Fine,
            };
        }
        if let Some((_, by)) = self.removed.iter().find(|(removed, _)| removed.is_prefix_of(path)) {
            return wrong(format!("`{path}` is not there any more: {by}"), None);
        }
        let assumed = if kind.is_none_or(|kind| kind == Type::Json) { Found::Fine } else { Found::Assumed };
        if let Some(parent) = self.fields.iter().find(|known| known.path.is_prefix_of(path)) {
            return match parent.kind {
                Type::Json => assumed,
                kind => wrong(format!("`{path}` cannot be there: `{}` is {kind} ({})", parent.path, parent.origin), None),
            };
        }
        // An object whose members are declared.
        if self.fields.iter().any(|known| path.is_prefix_of(&known.path)) {
            return match kind {
                Some(kind) if kind != Type::Json => {
                    wrong(format!("reads `{path}` as {kind}, but it is an object"), "read it as json, or one of its fields".to_owned())
                }
                _ => Found::Fine,
            };
        }
        let names: Vec<String> = self.fields.iter().map(|known| known.path.to_string()).collect();
        if self.open {
            return assumed;
        }
        if self.format == FormatKind::Raw {
            return wrong(format!("there is no field `{path}`: values of format `raw` have no fields"), None);
        }
        let help = propose(&path.to_string(), names.iter().map(String::as_str));
        wrong(format!("there is no field `{path}`"), help)
    }

    /// The declared field that an undeclared one may have been meant to be.
    pub fn similar(&self, path: &Path) -> Option<String> {
        let names: Vec<String> = self.fields.iter().map(|known| known.path.to_string()).collect();
        nearest(&path.to_string(), names.iter().map(String::as_str)).map(str::to_owned)
    }
}
