//! Names of fields: paths into a record's value, and the pseudo-fields that name the rest of a record.

use serde::{Deserialize, Serialize};

/// A path into an object: `a.b`; a literal dot or quote as `a."b.c"` (inside quotes `\"` and `\\`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(pub Vec<String>);

/// A field of a record as a manifest or plugin names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    Value(Path),
    /// `$key`, text unless the source's key format says otherwise.
    Key,
    /// `$timestamp`, int, milliseconds.
    Timestamp,
    /// `$topic`, text.
    Topic,
    /// `$partition`, int.
    Partition,
    /// `$offset`, int.
    Offset,
    /// `$headers."name"`, text: the last header of that name.
    Header(String),
    /// `$input`, int: the place in the stage's `from` of the input that the record came by.
    Input,
    /// `$window.start`, int, milliseconds: only for a stage with a window.
    WindowStart,
    /// `$window.end`, int, milliseconds, exclusive.
    WindowEnd,
}

/// Why a text is no field name: what is wrong, from which byte on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at character {at} of `{text}`)")]
pub struct FieldSyntax {
    pub text: String,
    pub at: usize,
    pub message: &'static str,
}

impl Path {
    pub fn parse(text: &str) -> Result<Self, FieldSyntax> {
        let wrong = |at: usize, message| FieldSyntax { text: text.to_owned(), at: at + 1, message };
        let mut parts = Vec::new();
        let mut chars = text.char_indices().peekable();
        loop {
            let mut part = String::new();
            match chars.peek().copied() {
                Some((open, '"')) => {
                    chars.next();
                    loop {
                        match chars.next() {
                            Some((_, '"')) => break,
                            Some((at, '\\')) => match chars.next() {
                                Some((_, literal @ ('"' | '\\'))) => part.push(literal),
                                _ => return Err(wrong(at, "a backslash stands only before a quote or a backslash")),
                            },
                            Some((_, literal)) => part.push(literal),
                            None => return Err(wrong(open, "this quote is never closed")),
                        }
                    }
                }
                _ => {
                    while let Some((_, literal)) = chars.next_if(|(_, c)| *c != '.' && *c != '"') {
                        part.push(literal);
                    }
                    if part.is_empty() {
                        return Err(wrong(chars.peek().map_or(text.len(), |(at, _)| *at), "a name is missing"));
                    }
                }
            }
            parts.push(part);
            match chars.next() {
                None => return Ok(Self(parts)),
                Some((_, '.')) => {}
                Some((at, _)) => return Err(wrong(at, "a dot must stand between two names")),
            }
        }
    }

    /// Whether `self` is `other` or leads to it.
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, part) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(".")?;
            }
            if part.is_empty() || part.contains(['.', '"', '\\']) || part.starts_with('$') {
                write!(f, "\"{}\"", part.replace('\\', "\\\\").replace('"', "\\\""))?;
            } else {
                f.write_str(part)?;
            }
        }
        Ok(())
    }
}

impl Field {
    pub fn parse(text: &str) -> Result<Self, FieldSyntax> {
        let wrong = |message| FieldSyntax { text: text.to_owned(), at: 1, message };
        match text {
            "$key" => Ok(Self::Key),
            "$timestamp" => Ok(Self::Timestamp),
            "$topic" => Ok(Self::Topic),
            "$partition" => Ok(Self::Partition),
            "$offset" => Ok(Self::Offset),
            "$input" => Ok(Self::Input),
            "$window.start" => Ok(Self::WindowStart),
            "$window.end" => Ok(Self::WindowEnd),
            _ => match text.strip_prefix("$headers.") {
                Some(name) => match Path::parse(name)?.0.as_slice() {
                    [name] => Ok(Self::Header(name.clone())),
                    _ => Err(wrong("a header's name with a dot is written in quotes: $headers.\"a.b\"")),
                },
                None if text.starts_with('$') => Err(wrong(
                    "pseudo-fields are $key, $timestamp, $topic, $partition, $offset, $input, $headers.\"name\", $window.start and $window.end",
                )),
                None => Path::parse(text).map(Self::Value),
            },
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(path) => path.fmt(f),
            Self::Key => f.write_str("$key"),
            Self::Timestamp => f.write_str("$timestamp"),
            Self::Topic => f.write_str("$topic"),
            Self::Partition => f.write_str("$partition"),
            Self::Offset => f.write_str("$offset"),
            Self::Input => f.write_str("$input"),
            Self::Header(name) => write!(f, "$headers.\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
            Self::WindowStart => f.write_str("$window.start"),
            Self::WindowEnd => f.write_str("$window.end"),
        }
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string" })
            }
        }
    };
}
as_text!(Path);
as_text!(Field);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_printing_and_parsing() {
        for text in
            ["a", "a.b", "a.\"b.c\"", "\"quote\\\"\\\\\".d", "$key", "$headers.\"x-y\"", "$input", "\"$key\"", "\"\"", "$window.start"]
        {
            assert_eq!(Field::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_name_says_where() {
        for (text, at) in [("", 1), ("a.", 3), (".a", 1), ("a..b", 3), ("\"a", 1), ("a\"b\"", 2), ("$keys", 1)] {
            assert_eq!(Field::parse(text).unwrap_err().at, at, "{text}");
        }
    }
}
