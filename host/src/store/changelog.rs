//! Changelogs: the state of a store as an ordinary compacted topic, one record for each key that a commit changed. Anybody can read it: the key as the
//! plugin gave it, the value a JSON object of the row's columns; a tombstone is a deleted row. Written to the partition of the task's number.

use super::row::{self, FoundBuilder, Row};
use super::types::{RowType, RowTypes};
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

/// The header that tells the version of the row: its type, as `RowType::text`. Records of programs before that hold the text `1`, and tell no type.
pub const VERSION_HEADER: &[u8] = b"millstream.version";
/// The header that tells the commit that wrote the row, where a sink tells the rows that its records were made from: a number that rises with each commit of the task.
pub const COMMIT_HEADER: &[u8] = b"millstream.commit";
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
    format: &'static dyn Format,
    /// Of the store's rows; that of the description is among them.
    pub types: Arc<RowTypes>,
    described: RowType,
    /// By the number of their type.
    forms: Mutex<HashMap<u8, Arc<Form>>>,
}

/// How rows of one type are written and read.
struct Form {
    version: Box<[u8]>,
    kinds: Vec<Type>,
    paths: Vec<Path>,
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
    /// With which generation stores came or went last: what an earlier one has kept was in others. 0 = never, as far as is known.
    pub since: u64,
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

/// The key of a windowed row as its record has it.
pub fn windowed_key(rest: &[u8], start: i64) -> String {
    let rest = match std::str::from_utf8(rest) {
        Ok(text) => format!("\"key\":{}", serde_json::Value::from(text)),
        Err(_) => format!("\"base64\":\"{}\"", BASE64.encode(rest)),
    };
    format!("{{{rest},\"start\":{start}}}")
}

impl Changelog {
    pub fn new(pipeline: &str, store: &str, segment: usize, described: &Store, types: Arc<RowTypes>) -> Self {
        Self {
            topic: topic_of(pipeline, store).into(),
            store: store.into(),
            segment,
            key: described.key,
            windowed: described.windowed,
            format: crate::format::of(FormatKind::Json),
            types,
            described: RowType::of(&described.fields),
            forms: Mutex::default(),
        }
    }

    fn form(&self, number: u8) -> Option<Arc<Form>> {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(form) = forms.get(&number) {
            return Some(form.clone());
        }
        let row_type = self.types.of(number)?;
        let paths: Vec<_> = row_type.columns.iter().map(|column| Path(vec![column.name.clone()])).collect();
        let kinds = row_type.kinds();
        let wanted: Vec<_> = paths.iter().zip(&kinds).map(|(path, kind)| Wanted { path: path.clone(), kind: *kind, from: None }).collect();
        let decoder = self.format.decoder(&wanted);
        let form = Arc::new(Form { version: row_type.text().as_bytes().into(), kinds, paths, decoder });
        forms.insert(number, form.clone());
        Some(form)
    }

    pub fn partition(&self, task: i32) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: task }
    }

    /// The writes of a commit as records with this timestamp, those of each type together. `commit`: its number, where that is told. Err: what is wrong, which would be a mistake in the program.
    pub fn encode(&self, writes: &StateWrites, timestamp: i64, commit: Option<i64>) -> Result<Vec<Records>, String> {
        // What is deleted goes with the rows that are written.
        let first = writes.rows.iter().find_map(|(_, row)| row.as_ref());
        let first = first.map_or_else(|| self.types.find(self.described.text()).unwrap_or_default(), |row| row::split(row).0);
        let of = |row: &Option<Vec<u8>>| row.as_ref().map_or(first, |row| row::split(row).0);
        let mut numbers: Vec<u8> = writes.rows.iter().map(|(_, row)| of(row)).filter(|number| *number != first).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let numbers = std::iter::once(first).chain(numbers);
        let commit = commit.map(|number| number.to_string());
        let stamp = (timestamp, commit.as_deref());
        numbers.map(|number| self.encode_of(number, writes.rows.iter().filter(|(_, row)| of(row) == number), stamp)).collect()
    }

    /// Rows of one type as records. With their time, and the number of the commit.
    fn encode_of<'r>(
        &self,
        number: u8,
        rows: impl Iterator<Item = &'r Written> + Clone,
        (timestamp, commit): (i64, Option<&str>),
    ) -> Result<Records, String> {
        let unreadable = || format!("a row of store `{}` cannot be read", self.store);
        let form = self.form(number).ok_or_else(unreadable)?;
        let count = rows.clone().count();
        let mut keys = ColumnBuilder::new(Type::Bytes, count);
        let mut found = FoundBuilder::new(&form.kinds, count);
        let mut headers = HeadersBuilder::default();
        let mut key = Vec::new();
        for (encoded, row) in rows {
            key.clear();
            self.write_key(encoded, &mut key)?;
            keys.bytes(&key);
            match row {
                Some(row) => found.push(&Row::decode(row::split(row).1, &form.kinds).ok_or_else(unreadable)?),
                None => found.absent(),
            }
            headers.push(VERSION_HEADER, Some(&form.version));
            if let Some(commit) = commit {
                headers.push(COMMIT_HEADER, Some(commit.as_bytes()));
            }
            headers.close();
        }
        let found = found.finish();
        let none = Bitmap::default();
        let changes: Vec<_> = form
            .paths
            .iter()
            .zip(&found.fields)
            .map(|(path, column)| Change { path, column: Indexed { column, index: None }, kept: &none, removed: &none })
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
            out.extend_from_slice(windowed_key(rest, super::decode_int(start).unwrap_or_default()).as_bytes());
        } else if self.key == Type::Int {
            let number = super::decode_int(encoded).ok_or_else(|| format!("a key of store `{}` is no int", self.store))?;
            out.extend_from_slice(number.to_string().as_bytes());
        } else {
            out.extend_from_slice(encoded);
        }
        Ok(())
    }

    /// Adds the rows of the changelog's records, each of the type that its record tells, and answers with the numbers of those. Err: the first record that is
    /// not of this store's making, and why.
    pub fn decode(&self, records: &Records, rows: &mut Vec<Written>) -> Result<Vec<u8>, (usize, String)> {
        let (mut at, mut numbers) = (0, Vec::new());
        while at < records.len() {
            let version = records.headers.last(at, VERSION_HEADER).flatten();
            let same = |record: &usize| records.headers.last(*record, VERSION_HEADER).flatten() == version;
            let end = (at..records.len()).take_while(same).count() + at;
            let number = self.number_of(version).map_err(|message| (at, message))?;
            let form = self.form(number).ok_or_else(|| (at, "the type of its row is not known".to_owned()))?;
            if at == 0 && end == records.len() {
                self.decode_of(number, &form, records, rows)?;
            } else {
                let part: Vec<u32> = (at as u32..end as u32).collect();
                self.decode_of(number, &form, &records.gather(&part), rows).map_err(|(record, message)| (at + record, message))?;
            }
            if !numbers.contains(&number) {
                numbers.push(number);
            }
            at = end;
        }
        Ok(numbers)
    }

    /// The number of the type that a record's header tells.
    fn number_of(&self, version: Option<&[u8]>) -> Result<u8, String> {
        let text = version.and_then(|version| std::str::from_utf8(version).ok()).unwrap_or_default();
        if let Some(number) = self.types.find(text) {
            return Ok(number);
        }
        let told = match text {
            "" | "1" => self.described.clone(),
            text => RowType::read(text).ok_or("the version of its row cannot be read: is it of a newer version of the program?")?,
        };
        self.types.number(&told).map_err(|error| error.message)
    }

    /// Records of one type.
    fn decode_of(&self, number: u8, form: &Form, records: &Records, rows: &mut Vec<Written>) -> Result<(), (usize, String)> {
        let decoded = form.decoder.decode(Indexed { column: &records.values, index: None }, records.len());
        if let Some(error) = decoded.failed.first() {
            return Err((error.row as usize, error.message.clone()));
        }
        for (field, path) in decoded.fields.iter().zip(&form.paths) {
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
            let row = (!records.values.is_null(record)).then(|| row::encode(number, columns.iter().map(|column| column.cell(record))));
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
        let field = |name: &str, kind| StoreField { name: name.to_owned(), kind, nullable: true, default: None };
        let fields = vec![
            field("n", Type::Int),
            field("x", Type::Float),
            field("t\"", Type::Text),
            field("b", Type::Bytes),
            field("ok", Type::Boolean),
            field("j", Type::Json),
            field("none", Type::Int),
        ];
        Store { name: String::new(), key, fields, by: Vec::new(), windowed, emits: Vec::new(), migrates: Vec::new() }
    }

    fn changelog(pipeline: &str, store: &str, described: &Store) -> Changelog {
        let types = RowTypes::in_memory(store);
        types.number(&RowType::of(&described.fields)).unwrap();
        Changelog::new(pipeline, store, 0, described, types)
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
        super::super::row::encode(0, cells.into_iter())
    }

    fn one(mut records: Vec<Records>) -> Records {
        assert_eq!(records.len(), 1);
        records.remove(0)
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
            let changelog = changelog("p", "s", &described);
            let floats = [0.1, -0.0, 1e300, f64::MIN_POSITIVE, 5.0];
            let numbers = [i64::MIN, i64::MAX, 0, -1, 1 << 60];
            let mut rows: Vec<Written> =
                keys.into_iter().enumerate().map(|(at, key)| (key, Some(row(numbers[at % 5], floats[at % 5])))).collect();
            if let Some(last) = rows.last_mut() {
                last.1 = None;
            }
            let writes = StateWrites { store: "s".into(), task: 0, rows: rows.clone() };
            let records = one(changelog.encode(&writes, 5, None).unwrap());
            let mut back = Vec::new();
            changelog.decode(&records, &mut back).unwrap();
            assert_eq!(back, rows, "{described:?}");
        }
    }

    #[test]
    fn a_changelog_reads_as_plain_json() {
        let changelog = changelog("shop", "by-club", &store(Type::Bytes, true));
        assert_eq!(&*changelog.topic, "shop.by-club.changelog");
        let key = [super::super::encode_int(60_000).as_slice(), b"gold"].concat();
        let rows = vec![(key, Some(row(7, 0.5)))];
        let records = one(changelog.encode(&StateWrites { store: "by-club".into(), task: 0, rows }, 5, None).unwrap());
        assert_eq!(records.keys.bytes(0), Some(&br#"{"key":"gold","start":60000}"#[..]));
        let value = std::str::from_utf8(records.values.bytes(0).unwrap()).unwrap();
        assert_eq!(value, "{\"n\":7,\"x\":0.5,\"t\\\"\":\"é\\n\\\"x\",\"b\":\"AP8=\",\"ok\":false,\"j\":{ \"a\":[1] },\"none\":null}");
    }

    #[test]
    fn each_record_tells_the_type_of_its_row() {
        let older = Store { fields: vec![StoreField::new("n", Type::Int, false)], ..store(Type::Text, false) };
        let newer = Store { fields: vec![StoreField::new("n", Type::Float, true)], ..older.clone() };
        let here = changelog("p", "s", &older);
        let second = here.types.number(&RowType::of(&newer.fields)).unwrap();
        let key = |text: &str| text.as_bytes().to_vec();
        let old = |n| Some(super::super::row::encode(0, [Cell::Int(n)].into_iter()));
        let new = |n| Some(super::super::row::encode(second, [Cell::Float(n)].into_iter()));
        let rows = vec![(key("a"), old(1)), (key("b"), new(2.5)), (key("c"), None), (key("d"), old(4))];
        let records = here.encode(&StateWrites { store: "s".into(), task: 0, rows }, 5, None).unwrap();
        let told = |records: &Records| {
            let one = |row: usize| String::from_utf8_lossy(records.headers.last(row, VERSION_HEADER).flatten().unwrap()).into_owned();
            (0..records.len()).map(one).collect::<Vec<_>>()
        };
        assert_eq!(records.iter().map(told).collect::<Vec<_>>(), [vec![r#"[["n","int"]]"#; 3], vec![r#"[["n","float?"]]"#]]);
        // Read where the newer type came first, so that the numbers are others.
        let there = changelog("p", "s", &newer);
        let mut back = Vec::new();
        let numbers: Vec<_> = records.iter().map(|records| there.decode(records, &mut back).unwrap()).collect();
        assert_eq!(numbers, [[1], [0]]);
        assert_eq!(back[0].1, Some(super::super::row::encode(1, [Cell::Int(1)].into_iter())));
        assert_eq!(back[1], (key("c"), None));
        assert_eq!(back[3], (key("b"), Some(super::super::row::encode(0, [Cell::Float(2.5)].into_iter()))));
        // All in one piece; and what a program has written that told no type is of the one that is described.
        let mut whole = RecordsBuilder::default();
        for (version, value) in [(r#"[["n","int"]]"#, "1"), ("1", "2.5"), (r#"[["n","float?"]]"#, "3.5")] {
            let header = (VERSION_HEADER, Some(version.as_bytes()));
            whole.push(0, Some(version.as_bytes()), Some(format!("{{\"n\":{value}}}").as_bytes()), [header]);
        }
        let mut back = Vec::new();
        assert_eq!(there.decode(&whole.finish(), &mut back).unwrap(), [1, 0]);
        assert_eq!(back[1].1, Some(super::super::row::encode(0, [Cell::Float(2.5)].into_iter())));
        let mut unknown = RecordsBuilder::default();
        unknown.push(0, Some(b"a"), Some(b"{}"), [(VERSION_HEADER, Some(&b"[[[]]]"[..]))]);
        let (_, message) = there.decode(&unknown.finish(), &mut Vec::new()).unwrap_err();
        assert!(message.contains("newer version"), "{message}");
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
        let changelog = changelog("p", "s", &store(Type::Text, false));
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
