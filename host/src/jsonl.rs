//! Records as lines of text: what `produce` reads and `consume` prints.
//!
//! An envelope is a JSON object with `value`, `value_text` or `value_base64`:
//!
//! | member | meaning |
//! |---|---|
//! | `value` | the value's bytes are this JSON text, as it stands; `null` is a tombstone |
//! | `value_text` | the value's bytes are this string's: for values that are no JSON, or JSON over several lines |
//! | `value_base64` | for values that are no UTF-8 |
//! | `key`, `key_base64` | a string is the key's text; any other JSON is the key as it stands; `null` or missing is no key |
//! | `timestamp` | milliseconds since the epoch; missing is now |
//! | `headers` | `{"name": value}`, or `[["name", value], ...]` where names repeat or are no UTF-8; a value is a string, `null`, a number or boolean (its text), or `{"base64": "..."}`, which can be a name too |
//! | `partition` | where the record goes |
//! | `topic`, `offset` | printed, not read |
//!
//! A line that is no envelope is `key<TAB>value`. What is printed reads back as the same bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::borrow::Cow;
use std::io::Write;

/// Bytes of a record's part; None = null.
pub type Part<'a> = Option<Cow<'a, [u8]>>;

/// A header: its name and value.
pub type Header<'a> = (Cow<'a, [u8]>, Part<'a>);

/// A record, read from a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line<'a> {
    pub partition: Option<i32>,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
    pub key: Part<'a>,
    /// None is a tombstone.
    pub value: Part<'a>,
    pub headers: Vec<Header<'a>>,
}

/// How lines are read.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// Envelopes, else key and value with this between them.
    Records { separator: &'a [u8] },
    /// Every line is a value.
    Values,
}

impl Default for Form<'_> {
    fn default() -> Self {
        Self::Records { separator: b"\t" }
    }
}

/// Why a line is no record. Never quotes what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", .at.map(|at| format!(" (byte {at})")).unwrap_or_default())]
pub struct LineError {
    pub message: String,
    /// Byte of the line, from 0.
    pub at: Option<usize>,
}

impl LineError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: None }
    }

    fn at(at: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), at: Some(at) }
    }
}

/// Reads a line, without or with its end (`\n` or `\r\n`). None for a blank one, unless every line is a value.
pub fn parse<'a>(line: &'a [u8], form: Form<'_>) -> Result<Option<Line<'a>>, LineError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let separator = match form {
        Form::Values => return Ok(Some(Line { value: Some(Cow::Borrowed(line)), ..Line::default() })),
        Form::Records { separator } => separator,
    };
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let split = memchr::memmem::find(line, separator).filter(|_| !separator.is_empty());
    let envelope = if line.trim_ascii_start().starts_with(b"{") {
        match members(line) {
            Ok(members) if members.iter().any(|member| member.name.starts_with("value")) => return read_envelope(&members).map(Some),
            Ok(_) => Some(LineError::new("it is a JSON object without `value`")),
            Err(error) => Some(error),
        }
    } else {
        None
    };
    match (envelope, split) {
        // A key that is an object is whole before the separator; else the separator is just a byte of a broken envelope.
        (Some(error), Some(at)) if members(&line[..at]).is_err() => Err(error),
        (_, Some(at)) => {
            let (key, value) = (&line[..at], &line[at + separator.len()..]);
            Ok(Some(Line { key: Some(Cow::Borrowed(key)), value: Some(Cow::Borrowed(value)), ..Line::default() }))
        }
        (Some(error), None) => Err(error),
        (None, None) => Err(LineError::new(
            "it is neither a JSON object with `value` nor a key, the separator and a value; where every line is a value as it stands, say --raw",
        )),
    }
}

/// A member of an object: its name, and its value's source text with its place in the line.
struct Member<'a> {
    name: String,
    source: &'a str,
    at: usize,
}

impl Member<'_> {
    fn read<T: DeserializeOwned>(&self, expected: &str) -> Result<T, LineError> {
        serde_json::from_str(self.source).map_err(|_| LineError::at(self.at, format!("`{}` is not {expected}", self.name)))
    }
}

/// The members of a line that is one JSON object.
fn members(line: &[u8]) -> Result<Vec<Member<'_>>, LineError> {
    let text = std::str::from_utf8(line).map_err(|error| LineError::at(error.valid_up_to(), "it is not UTF-8"))?;
    let mut place = Place { text, at: 0 };
    let mut found: Vec<Member<'_>> = Vec::new();
    place.take(b'{')?;
    if !place.next_is(b'}') {
        loop {
            let at = place.at;
            let name = serde_json::from_str::<String>(place.value()?)
                .map_err(|_| LineError::at(at, "it is not JSON: a member's name is expected"))?;
            place.take(b':')?;
            let (at, source) = (place.skip(), place.value()?);
            if found.iter().any(|member| member.name == name) {
                return Err(LineError::at(at, "a member stands twice"));
            }
            found.push(Member { name, source, at });
            if !place.next_is(b',') {
                break;
            }
            place.take(b',')?;
        }
    }
    place.take(b'}')?;
    if place.skip() < text.len() {
        return Err(LineError::at(place.at, "there is more behind the JSON object"));
    }
    Ok(found)
}

/// A place in JSON text.
struct Place<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Place<'a> {
    /// Goes behind white space.
    fn skip(&mut self) -> usize {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at
    }

    fn next_is(&mut self, byte: u8) -> bool {
        let at = self.skip();
        self.text.as_bytes().get(at) == Some(&byte)
    }

    fn take(&mut self, byte: u8) -> Result<(), LineError> {
        if self.next_is(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(LineError::at(self.at, format!("it is not JSON: `{}` is expected", char::from(byte))))
    }

    /// The source text of the value here.
    fn value(&mut self) -> Result<&'a str, LineError> {
        let at = self.skip();
        let rest = self.text.get(at..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                let length = values.byte_offset();
                self.at += length;
                Ok(rest.get(..length).unwrap_or_default())
            }
            // serde_json's message would quote a member's name or a literal at most, but its place is not that of the line.
            _ => Err(LineError::at(at, "it is not JSON: a value is expected, or the one that begins here is broken")),
        }
    }
}

fn read_envelope<'a>(members: &[Member<'a>]) -> Result<Line<'a>, LineError> {
    let mut line = Line::default();
    let (mut keys, mut values) = (0, 0);
    for member in members {
        let bytes = |text: &'a str| Cow::Borrowed(text.as_bytes());
        match member.name.as_str() {
            "value" => (line.value, values) = ((member.source != "null").then(|| bytes(member.source)), values + 1),
            "value_text" => (line.value, values) = (Some(Cow::Owned(member.read::<String>("a string")?.into_bytes())), values + 1),
            "value_base64" => (line.value, values) = (Some(Cow::Owned(base64(member)?)), values + 1),
            "key" if member.source.starts_with('"') => {
                (line.key, keys) = (Some(Cow::Owned(member.read::<String>("a string without lone surrogates")?.into_bytes())), keys + 1);
            }
            "key" => (line.key, keys) = ((member.source != "null").then(|| bytes(member.source)), keys + 1),
            "key_base64" => (line.key, keys) = (Some(Cow::Owned(base64(member)?)), keys + 1),
            "timestamp" => line.timestamp = member.read::<Option<i64>>("a whole number of milliseconds")?,
            "partition" => line.partition = member.read::<Option<i32>>("a partition's number")?,
            "headers" => line.headers = read_headers(member)?,
            "topic" | "offset" => {}
            _ => {
                let known = "`key`, `key_base64`, `value`, `value_text`, `value_base64`, `timestamp`, `headers`, `partition`";
                return Err(LineError::at(
                    member.at,
                    format!("a member is none of {known}; where every line is a value as it stands, say --raw"),
                ));
            }
        }
    }
    if keys > 1 || values > 1 {
        return Err(LineError::new(if keys > 1 { "it has two keys" } else { "it has two values" }));
    }
    Ok(line)
}

fn base64(member: &Member<'_>) -> Result<Vec<u8>, LineError> {
    let text: String = member.read("a string")?;
    STANDARD.decode(text).map_err(|_| LineError::at(member.at, format!("`{}` is not base64", member.name)))
}

fn read_headers<'a>(member: &Member<'a>) -> Result<Vec<Header<'a>>, LineError> {
    use serde_json::Value;
    let wrong = || {
        LineError::at(
            member.at,
            "a header is not as in {\"name\": \"text\"} or [[\"name\", {\"base64\": \"...\"}]]: values are strings, null, numbers, booleans or base64",
        )
    };
    let bytes = |value: &Value| -> Result<Part<'a>, LineError> {
        match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(Cow::Owned(text.clone().into_bytes()))),
            Value::Bool(_) | Value::Number(_) => Ok(Some(Cow::Owned(value.to_string().into_bytes()))),
            Value::Object(object) if object.len() == 1 => {
                let text = object.get("base64").and_then(Value::as_str).ok_or_else(wrong)?;
                Ok(Some(Cow::Owned(STANDARD.decode(text).map_err(|_| wrong())?)))
            }
            _ => Err(wrong()),
        }
    };
    // An object through our own reader: serde_json would keep only the last of headers of one name.
    if member.source.starts_with('{') {
        let entries = members(member.source.as_bytes()).map_err(|error| LineError { at: error.at.map(|at| at + member.at), ..error })?;
        let entry = |entry: Member<'_>| {
            let value = bytes(&entry.read("a header's value")?)?;
            Ok((Cow::Owned(entry.name.into_bytes()), value))
        };
        return entries.into_iter().map(entry).collect();
    }
    let entries: Option<Vec<(Value, Value)>> = member.read("an object, or an array of pairs")?;
    let entry = |(name, value): (Value, Value)| match name {
        Value::String(_) | Value::Object(_) => Ok((bytes(&name)?.ok_or_else(wrong)?, bytes(&value)?)),
        _ => Err(wrong()),
    };
    entries.unwrap_or_default().into_iter().map(entry).collect()
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    pub topic: Option<&'a str>,
    pub partition: i32,
    /// None = it is not written yet.
    pub offset: Option<i64>,
}

/// Writes a record as a line with its end.
pub fn write<'a>(
    out: &mut Vec<u8>,
    standing: Option<Standing<'_>>,
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) {
    out.push(b'{');
    if let Some(standing) = standing {
        if let Some(topic) = standing.topic {
            out.extend_from_slice(b"\"topic\":");
            string(out, topic);
            out.push(b',');
        }
        put(out, format_args!("\"partition\":{},", standing.partition));
        if let Some(offset) = standing.offset {
            put(out, format_args!("\"offset\":{offset},"));
        }
    }
    put(out, format_args!("\"timestamp\":{timestamp},"));
    match key.map(|key| std::str::from_utf8(key).map_err(|_| key)) {
        None => out.extend_from_slice(b"\"key\":null,"),
        Some(Ok(key)) => {
            out.extend_from_slice(b"\"key\":");
            string(out, key);
            out.push(b',');
        }
        Some(Err(key)) => put(out, format_args!("\"key_base64\":\"{}\",", STANDARD.encode(key))),
    }
    write_value(out, value);
    let headers: Vec<_> = headers.into_iter().collect();
    if !headers.is_empty() {
        out.extend_from_slice(b",\"headers\":");
        write_headers(out, &headers);
    }
    out.extend_from_slice(b"}\n");
}

/// A value as it stands if it is one line of JSON; else in a form that reads back as the same bytes.
fn write_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else {
        out.extend_from_slice(b"\"value\":null");
        return;
    };
    let Ok(text) = std::str::from_utf8(value) else {
        put(out, format_args!("\"value_base64\":\"{}\"", STANDARD.encode(value)));
        return;
    };
    if is_plain_json(text) {
        out.extend_from_slice(b"\"value\":");
        out.extend_from_slice(value);
    } else {
        out.extend_from_slice(b"\"value_text\":");
        string(out, text);
    }
}

/// JSON that can stand in a line and is read back without a byte more or less; `null` would be a tombstone.
fn is_plain_json(text: &str) -> bool {
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']).len() == text.len();
    trimmed
        && text != "null"
        && memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none()
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn write_headers(out: &mut Vec<u8>, headers: &[(&[u8], Option<&[u8]>)]) {
    let object = headers
        .iter()
        .enumerate()
        .all(|(place, (name, _))| std::str::from_utf8(name).is_ok() && headers.iter().take(place).all(|(before, _)| before != name));
    out.push(if object { b'{' } else { b'[' });
    for (place, (name, value)) in headers.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        if !object {
            out.push(b'[');
        }
        bytes(out, name);
        out.push(if object { b':' } else { b',' });
        match value {
            Some(value) => bytes(out, value),
            None => out.extend_from_slice(b"null"),
        }
        if !object {
            out.push(b']');
        }
    }
    out.push(if object { b'}' } else { b']' });
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => string(out, text),
        Err(_) => put(out, format_args!("{{\"base64\":\"{}\"}}", STANDARD.encode(bytes))),
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    let written = serde_json::to_writer(&mut *out, text);
    debug_assert!(written.is_ok(), "a string always fits a vector");
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok(), "text always fits a vector");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(line: &str) -> Result<Option<Line<'_>>, String> {
        parse(line.as_bytes(), Form::default()).map_err(|error| error.to_string())
    }

    fn part(text: &str) -> Part<'_> {
        Some(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn envelopes_are_read() {
        let line = read(
            "  {\"key\" : 3, \"value\": {\"a\": [1.50,  \"x\"]} ,\"timestamp\":17,\"partition\":2,\"offset\":9,\"headers\":{\"h\":\"v\",\"n\":null,\"b\":{\"base64\":\"/w==\"}}}\r\n",
        );
        let headers = vec![
            (Cow::Borrowed(&b"h"[..]), part("v")),
            (Cow::Borrowed(&b"n"[..]), None),
            (Cow::Borrowed(&b"b"[..]), Some(Cow::Borrowed(&b"\xff"[..]))),
        ];
        let expected = Line { partition: Some(2), timestamp: Some(17), key: part("3"), value: part("{\"a\": [1.50,  \"x\"]}"), headers };
        assert_eq!(line, Ok(Some(expected)));
        for (line, key, value) in [
            ("{\"key\":\"k\",\"value\":null}", part("k"), None),
            ("{\"value_text\":\"\"}", None, part("")),
            ("{\"key\":{\"id\":3},\"value\":\"x\"}", part("{\"id\":3}"), part("\"x\"")),
            ("{\"key\":null,\"value_base64\":\"YQ==\"}", None, part("a")),
            ("k\tv\tw", part("k"), part("v\tw")),
            ("\tv", part(""), part("v")),
            ("{\"id\":3}\t{\"value\":1}", part("{\"id\":3}"), part("{\"value\":1}")),
            ("{\"value\":\t1}", None, part("1")),
        ] {
            assert_eq!(read(line), Ok(Some(Line { key, value, ..Line::default() })), "{line}");
        }
        assert_eq!(read(" \n"), Ok(None));
        assert_eq!(parse(b"\xff\n", Form::Values).unwrap().unwrap().value.as_deref(), Some(&b"\xff"[..]));
    }

    #[test]
    fn what_is_no_record_is_an_error_that_quotes_nothing() {
        for (line, why) in [
            ("4111111111111111", "neither"),
            ("{\"card\":4111111111111111}", "without `value`"),
            ("{\"card\":\t4111111111111111}", "without `value`"),
            ("{\"value\":4111111111111111,", "byte 26"),
            ("{\"value\":4111,\t", "not JSON"),
            ("{\"value\":1} 4111", "more behind"),
            ("{\"value\":1,\"value\":4111}", "twice"),
            ("{\"value\":1,\"value_text\":\"4111\"}", "two values"),
            ("{\"value\":1,\"key\":4111,\"key_base64\":\"\"}", "two keys"),
            ("{\"value\":1,\"kye\":4111}", "none of"),
            ("{\"value\":1,\"timestamp\":\"4111\"}", "`timestamp` is not a whole number"),
            ("{\"value\":1,\"headers\":{\"h\":[4111]}}", "a header is not"),
            ("{\"value\":1,\"headers\":[[4111,\"x\"]]}", "a header is not"),
            ("{\"value_base64\":\"4111!\"}", "not base64"),
            ("{\"key\":\"\\ud800 4111\",\"value\":1}", "surrogates"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(why) && !error.contains("4111"), "{line}: {error}");
        }
        assert!(parse(b"{\"value\":\"\xff\"}", Form::default()).is_err());
    }

    #[test]
    fn json_values_stand_as_they_are() {
        for (value, printed) in [
            ("{\"a\" : 1.0}", "\"value\":{\"a\" : 1.0}"),
            ("null", "\"value_text\":\"null\""),
            (" 1", "\"value_text\":\" 1\""),
            ("{\n}", "\"value_text\":\"{\\n}\""),
            ("{a}", "\"value_text\":\"{a}\""),
        ] {
            let mut out = Vec::new();
            write(&mut out, None, 5, None, Some(value.as_bytes()), []);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{{\"timestamp\":5,\"key\":null,{printed}}}\n"));
        }
    }

    fn any_part() -> impl Strategy<Value = Option<Vec<u8>>> {
        let text = prop_oneof!["\\PC{0,8}", "[0-9]{1,3}", "[ \\t\\r\\n]{0,3}", r#"\{"a": ?[0-9]{1,2}\}"#, "null|true|\"x\""];
        prop_oneof![Just(None), text.prop_map(|text| Some(text.into_bytes())), proptest::collection::vec(any::<u8>(), 0..6).prop_map(Some)]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            key in any_part(), value in any_part(), timestamp: i64,
            headers in proptest::collection::vec((any_part(), any_part()), 0..4),
        ) {
            let headers: Vec<(Vec<u8>, Option<Vec<u8>>)> = headers.into_iter().map(|(name, value)| (name.unwrap_or_default(), value)).collect();
            let mut out = Vec::new();
            let standing = Standing { topic: Some("t"), partition: 3, offset: Some(9) };
            let borrowed = headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
            write(&mut out, Some(standing), timestamp, key.as_deref(), value.as_deref(), borrowed);
            prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            let line = parse(&out, Form::default()).unwrap().unwrap();
            prop_assert_eq!(line.key.as_deref(), key.as_deref());
            prop_assert_eq!(line.value.as_deref(), value.as_deref());
            prop_assert_eq!((line.partition, line.timestamp), (Some(3), Some(timestamp)));
            let read: Vec<_> = line.headers.iter().map(|(name, value)| (name.to_vec(), value.as_deref().map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(read, headers);
        }
    }
}
