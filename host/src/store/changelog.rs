//! Changelogs: the state of a store as an ordinary compacted topic, one record for each key that a commit changed. Anybody can read it: the key as the
//! plugin gave it, the value a JSON object of the row's columns; a tombstone is a deleted row. Written to the partition of the task's number.

use super::row::{self, FoundBuilder, Row};
use crate::column::{Bitmap, Column, ColumnBuilder, Indexed, Type};
use crate::field::Path;
use crate::format::{Change, Decoder, Format, Wanted};
use crate::io::{LocalState, LogError, Remedy, StateWrites, TopicPartition};
use crate::pipeline::FormatKind;
use crate::plugin::describe::Store;
use crate::record::{HeadersBuilder, Records};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The header that tells the version of the row's type.
const VERSION_HEADER: &[u8] = b"millstream.version";
const VERSION: &[u8] = b"1";
/// Bytes of a windowed row's key before the rest: the window's start.
const START: usize = 8;

/// A row's encoded key, and the encoded row; None = deleted.
pub type Written = (Vec<u8>, Option<Vec<u8>>);

/// The changelog of a store.
pub struct Changelog {
    pub topic: Arc<str>,
    pub store: Arc<str>,
    /// The segment of the pipeline whose tasks keep the store.
    pub segment: usize,
    key: Type,
    windowed: bool,
    columns: Vec<(Path, Type)>,
    format: &'static dyn Format,
    decoder: Box<dyn Decoder>,
}

/// The changelogs of a pipeline's stores.
pub struct Changelogs {
    /// In the order of stages and their stores.
    pub stores: Vec<Changelog>,
    pub local: Arc<dyn LocalState>,
    pub claims: Arc<Claims>,
    /// How long a tombstone can be read: local copies that are older are rebuilt.
    pub tombstones: Duration,
    /// The topics are there; else (a dry run before the first run) there is nothing to restore.
    pub exist: bool,
}

/// Which worker of a host has the local copies of a task: the one that took them last. Workers of a host share a folder, and one that is slow to learn
/// that its task has gone to another must not write there any more.
#[derive(Default)]
pub struct Claims(Mutex<HashMap<(usize, i32), Arc<Mutex<u64>>>>);

/// A worker's right to the local copies of a task.
#[derive(Clone)]
pub struct Claim {
    last: Arc<Mutex<u64>>,
    number: u64,
}

impl Claims {
    /// Takes the copies of a segment's task over.
    pub fn take(&self, segment: usize, task: i32) -> Claim {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((segment, task)).or_default().clone();
        let mut number = last.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        Claim { number: *number, last: last.clone() }
    }
}

impl Claim {
    /// Works on the copies, while nobody takes them over.
    pub fn hold<T>(&self, work: impl FnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != self.number {
            let message = "another worker of this host has taken the state of a task over".to_owned();
            return Err(LogError { remedy: Remedy::Rewind, message });
        }
        work()
    }
}

impl Changelogs {
    pub fn find(&self, store: &str) -> Option<&Changelog> {
        self.stores.iter().find(|changelog| &*changelog.store == store)
    }
}

/// The topic of a store's changelog.
pub fn topic_of(pipeline: &str, store: &str) -> String {
    format!("{pipeline}.{store}.changelog")
}

impl Changelog {
    pub fn new(pipeline: &str, store: &str, segment: usize, described: &Store) -> Self {
        let format = crate::format::of(FormatKind::Json);
        let columns: Vec<_> = described.fields.iter().map(|field| (Path(vec![field.name.clone()]), field.kind)).collect();
        let wanted: Vec<_> = columns.iter().map(|(path, kind)| Wanted { path: path.clone(), kind: *kind, from: None }).collect();
        Self {
            topic: topic_of(pipeline, store).into(),
            store: store.into(),
            segment,
            key: described.key,
            windowed: described.windowed,
            columns,
            format,
            decoder: format.decoder(&wanted),
        }
    }

    pub fn partition(&self, task: i32) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: task }
    }

    /// The writes of a commit as records with this timestamp. Err: what is wrong, which would be a mistake in the program.
    pub fn encode(&self, writes: &StateWrites, timestamp: i64) -> Result<Records, String> {
        let count = writes.rows.len();
        let kinds: Vec<Type> = self.columns.iter().map(|(_, kind)| *kind).collect();
        let mut keys = ColumnBuilder::new(Type::Bytes, count);
        let mut found = FoundBuilder::new(&kinds, count);
        let mut headers = HeadersBuilder::default();
        let mut key = Vec::new();
        for (encoded, row) in &writes.rows {
            key.clear();
            self.write_key(encoded, &mut key)?;
            keys.bytes(&key);
            match row {
                Some(row) => {
                    found.push(&Row::decode(row, &kinds).ok_or_else(|| format!("a row of store `{}` cannot be read", self.store))?)
                }
                None => found.absent(),
            }
            headers.push(VERSION_HEADER, Some(VERSION));
            headers.close();
        }
        let found = found.finish();
        let none = Bitmap::default();
        let changes: Vec<_> = self
            .columns
            .iter()
            .zip(&found.fields)
            .map(|((path, _), column)| Change { path, column: Indexed { column, index: None }, kept: &none, removed: &none })
            .collect();
        let encoded = self.format.encode(None, count, &changes);
        if let Some(error) = encoded.failed.first() {
            return Err(format!("a row of store `{}` cannot be written: {}", self.store, error.error.message));
        }
        let mut values = encoded.values;
        // A row that was deleted is a tombstone.
        values.validity = found.present;
        Ok(Records { timestamps: vec![timestamp; count], keys: keys.finish(), values, headers: headers.finish() })
    }

    fn write_key(&self, encoded: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if self.windowed {
            let (start, rest) =
                encoded.split_first_chunk::<START>().ok_or_else(|| format!("a key of store `{}` has no window", self.store))?;
            let start = super::decode_int(start).unwrap_or_default();
            let rest = match std::str::from_utf8(rest) {
                Ok(text) => format!("\"key\":{}", serde_json::Value::from(text)),
                Err(_) => format!("\"base64\":\"{}\"", BASE64.encode(rest)),
            };
            out.extend_from_slice(format!("{{{rest},\"start\":{start}}}").as_bytes());
        } else if self.key == Type::Int {
            let number = super::decode_int(encoded).ok_or_else(|| format!("a key of store `{}` is no int", self.store))?;
            out.extend_from_slice(number.to_string().as_bytes());
        } else {
            out.extend_from_slice(encoded);
        }
        Ok(())
    }

    /// Adds the rows of the changelog's records. Err: the first record that is not of this store's making, and why.
    pub fn decode(&self, records: &Records, rows: &mut Vec<Written>) -> Result<(), (usize, String)> {
        let decoded = self.decoder.decode(Indexed { column: &records.values, index: None }, records.len());
        if let Some(error) = decoded.failed.first() {
            return Err((error.row as usize, error.message.clone()));
        }
        for (field, (path, _)) in decoded.fields.iter().zip(&self.columns) {
            if let Some(error) = field.errors.first() {
                return Err((error.row as usize, format!("field `{path}`: {}", error.message)));
            }
        }
        let columns: Vec<&Column> = decoded.fields.iter().map(|field| &field.column).collect();
        rows.reserve(records.len());
        for record in 0..records.len() {
            let key = records.keys.bytes(record).ok_or_else(|| (record, "it has no key".to_owned()))?;
            let key = self.read_key(key).ok_or_else(|| (record, "its key is not one of this store".to_owned()))?;
            if records.values.bytes(record).is_some_and(|value| value.first() != Some(&b'{')) {
                return Err((record, "its value is no object".to_owned()));
            }
            let row = (!records.values.is_null(record)).then(|| row::encode(columns.iter().map(|column| column.cell(record))));
            rows.push((key, row));
        }
        Ok(())
    }

    fn read_key(&self, key: &[u8]) -> Option<Vec<u8>> {
        if self.windowed {
            #[derive(serde::Deserialize)]
            struct Windowed {
                #[serde(default)]
                key: Option<String>,
                #[serde(default)]
                base64: Option<String>,
                start: i64,
            }
            let windowed: Windowed = serde_json::from_slice(key).ok()?;
            let mut encoded = super::encode_int(windowed.start).to_vec();
            match (windowed.key, windowed.base64) {
                (Some(text), None) => encoded.extend_from_slice(text.as_bytes()),
                (None, Some(text)) => encoded.extend_from_slice(&BASE64.decode(text).ok()?),
                _ => return None,
            }
            return Some(encoded);
        }
        match self.key {
            Type::Int => Some(super::encode_int(std::str::from_utf8(key).ok()?.parse().ok()?).to_vec()),
            Type::Text => std::str::from_utf8(key).ok().map(|text| text.as_bytes().to_vec()),
            _ => Some(key.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::Cell;
    use crate::plugin::describe::StoreField;
    use crate::record::RecordsBuilder;

    fn store(key: Type, windowed: bool) -> Store {
        let field = |name: &str, kind| StoreField { name: name.to_owned(), kind, nullable: true };
        let fields = vec![
            field("n", Type::Int),
            field("x", Type::Float),
            field("t\"", Type::Text),
            field("b", Type::Bytes),
            field("ok", Type::Boolean),
            field("j", Type::Json),
            field("none", Type::Int),
        ];
        Store { name: String::new(), key, fields, by: Vec::new(), windowed, emits: Vec::new() }
    }

    fn row(n: i64, x: f64) -> Vec<u8> {
        let cells = [
            Cell::Int(n),
            Cell::Float(x),
            Cell::Text("é\n\"x"),
            Cell::Blob(&[0, 255]),
            Cell::Bool(false),
            Cell::Json("{ \"a\":[1] }"),
            Cell::Null,
        ];
        super::super::row::encode(cells.into_iter())
    }

    #[test]
    fn rows_survive_the_way_through_the_changelog() {
        let ints = |value| super::super::encode_int(value).to_vec();
        let windowed = |start, rest: &[u8]| [super::super::encode_int(start).as_slice(), rest].concat();
        for (described, keys) in [
            (store(Type::Text, false), vec![b"a".to_vec(), "é".as_bytes().to_vec(), Vec::new()]),
            (store(Type::Bytes, false), vec![vec![0, 255], b"x".to_vec()]),
            (store(Type::Int, false), vec![ints(i64::MIN), ints(-1), ints(i64::MAX)]),
            (store(Type::Bytes, true), vec![windowed(-60_000, b"gold"), windowed(60_000, &[255, 0]), windowed(0, b"\"")]),
        ] {
            let changelog = Changelog::new("p", "s", 0, &described);
            let floats = [0.1, -0.0, 1e300, f64::MIN_POSITIVE, 5.0];
            let numbers = [i64::MIN, i64::MAX, 0, -1, 1 << 60];
            let mut rows: Vec<Written> =
                keys.into_iter().enumerate().map(|(at, key)| (key, Some(row(numbers[at % 5], floats[at % 5])))).collect();
            if let Some(last) = rows.last_mut() {
                last.1 = None;
            }
            let writes = StateWrites { store: "s".into(), task: 0, rows: rows.clone() };
            let records = changelog.encode(&writes, 5).unwrap();
            let mut back = Vec::new();
            changelog.decode(&records, &mut back).unwrap();
            assert_eq!(back, rows, "{described:?}");
        }
    }

    #[test]
    fn a_changelog_reads_as_plain_json() {
        let changelog = Changelog::new("shop", "by-club", 0, &store(Type::Bytes, true));
        assert_eq!(&*changelog.topic, "shop.by-club.changelog");
        let key = [super::super::encode_int(60_000).as_slice(), b"gold"].concat();
        let records = changelog.encode(&StateWrites { store: "by-club".into(), task: 0, rows: vec![(key, Some(row(7, 0.5)))] }, 5).unwrap();
        assert_eq!(records.keys.bytes(0), Some(&br#"{"key":"gold","start":60000}"#[..]));
        let value = std::str::from_utf8(records.values.bytes(0).unwrap()).unwrap();
        assert_eq!(value, "{\"n\":7,\"x\":0.5,\"t\\\"\":\"é\\n\\\"x\",\"b\":\"AP8=\",\"ok\":false,\"j\":{ \"a\":[1] },\"none\":null}");
    }

    #[test]
    fn who_took_copies_last_has_them() {
        let claims = Claims::default();
        let (first, other) = (claims.take(0, 1), claims.take(1, 1));
        assert!(first.hold(|| Ok(())).is_ok());
        let second = claims.take(0, 1);
        let refused = first.hold(|| -> Result<(), LogError> { panic!("it is another's") }).unwrap_err();
        assert_eq!(refused.remedy, Remedy::Rewind);
        assert!(second.hold(|| Ok(())).is_ok() && other.hold(|| Ok(())).is_ok());
    }

    #[test]
    fn records_of_others_are_told() {
        let changelog = Changelog::new("p", "s", 0, &store(Type::Text, false));
        for (key, value, told) in [
            (None, Some(&b"{}"[..]), "no key"),
            (Some(&b"a"[..]), Some(&b"[]"[..]), "no object"),
            (Some(b"a"), Some(b"{\"n\":\"1\"}"), "`n`"),
            (Some(&[255][..]), None, "key is not one"),
        ] {
            let mut records = RecordsBuilder::default();
            records.push(0, key, value, []);
            let (_, message) = changelog.decode(&records.finish(), &mut Vec::new()).unwrap_err();
            assert!(message.contains(told), "{message}");
        }
    }
}
