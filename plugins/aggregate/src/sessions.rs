//! Sessions: records of a group none of which is further than the gap from the next. A record may begin one, lengthen one, or join two.
//!
//! Rows of sessions stand in the order of time, by the last record, so that the host finds those that are closed. Which ones a group has
//! stands in a second store, by the group alone.

use crate::group::{split, window_prefix};
use crate::plan::{Emit, Plan};
use crate::process::{Fields, STORE};
use crate::value::Value;
use millstream_guest::column::{Cell, Column, ColumnBuilder, Type};
use millstream_guest::verdict::{Reject, Verdict};
use millstream_guest::{Batch, state, windows};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The store of the groups' sessions.
const SESSIONS: u32 = 1;

struct Session {
    start: i64,
    last: i64,
    stored: Vec<Value>,
    changed: bool,
}

/// A group that the batch meets.
#[derive(Default)]
struct Member {
    key: Vec<u8>,
    /// In the order of time; they do not touch.
    sessions: Vec<Session>,
    /// Last times of the rows that the store holds.
    stored: BTreeSet<i64>,
    changed: bool,
}

fn row_key(last: i64, group: &[u8]) -> Vec<u8> {
    [&window_prefix(last)[..], group].concat()
}

fn spans_of(cell: Cell<'_>) -> Vec<(i64, i64)> {
    match cell {
        Cell::Json(text) => serde_json::from_str(text).unwrap_or_default(),
        _ => Vec::new(),
    }
}

impl Plan {
    pub fn process_sessions(&self, batch: &Batch) -> Result<Verdict, String> {
        let Some(window) = self.window else { return Err("there is no window".to_owned()) };
        let stream_times = windows::stream_times();
        if stream_times.len() != batch.rows {
            return Err("the host does not tell the stream time of each row".to_owned());
        }
        let mut rejects = Vec::new();
        let (mut members, place) = self.members(batch, &mut rejects);
        self.load_sessions(&mut members);
        let mut results = self.results(if self.emit == Emit::Updates { batch.rows } else { 0 });
        let mut late = Vec::new();
        for (row, member) in place.into_iter().enumerate() {
            let Some(member) = member.and_then(|member| members.get_mut(member)) else { continue };
            let (time, open_from) = (batch.timestamps[row], window.open_from(stream_times[row]));
            let near = |session: &Session| {
                session.last >= open_from
                    && session.start.saturating_sub(window.size) <= time
                    && time <= session.last.saturating_add(window.size)
            };
            let near: Vec<usize> = (0..member.sessions.len()).filter(|place| near(&member.sessions[*place])).collect();
            if near.is_empty() && time < open_from {
                late.push(row as u32);
                continue;
            }
            match self.joined(batch, row, near.iter().map(|place| &member.sessions[*place])) {
                Err(reason) => rejects.push(Reject { row: row as u32, reason }),
                Ok(session) => {
                    if self.emit == Emit::Updates {
                        let fields = Fields::Row(&batch.fields, row);
                        let window = Some((session.start, session.last));
                        self.give_out(row as u32, &member.key, &fields, window, &session.stored, &mut results);
                    }
                    member.replace(&near, session);
                }
            }
        }
        if !late.is_empty() {
            windows::late(&late);
        }
        self.save_sessions(&members);
        let keys = matches!(self.group, crate::group::Group::Fields(_));
        Ok(self.verdict(results, keys, rejects))
    }

    /// The groups of the batch, and the group of each row.
    fn members(&self, batch: &Batch, rejects: &mut Vec<Reject>) -> (Vec<Member>, Vec<Option<usize>>) {
        let mut members: Vec<Member> = Vec::new();
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut place = Vec::with_capacity(batch.rows);
        for row in 0..batch.rows {
            let mut key = Vec::new();
            place.push(match self.group.write(&batch.fields[..self.group_reads()], row, &mut key) {
                Err(reason) => {
                    rejects.push(Reject { row: row as u32, reason });
                    None
                }
                Ok(()) => Some(*places.entry(key).or_insert_with_key(|key| {
                    members.push(Member { key: key.clone(), ..Member::default() });
                    members.len() - 1
                })),
            });
        }
        (members, place)
    }

    fn load_sessions(&self, members: &mut [Member]) {
        if members.is_empty() {
            return;
        }
        let known = state::get_many(SESSIONS, &self.groups_of(members.iter().map(|member| member.key.as_slice())));
        let spans: Vec<(usize, i64, i64)> = (0..members.len())
            .filter(|member| known.present.get(*member))
            .flat_map(|member| spans_of(known.fields[0].cell(member)).into_iter().map(move |(start, last)| (member, start, last)))
            .collect();
        if spans.is_empty() {
            return;
        }
        let keys = blobs(spans.iter().map(|(member, _, last)| row_key(*last, &members[*member].key)));
        let found = state::get_many(STORE, &keys);
        for (row, (member, start, last)) in spans.into_iter().enumerate().filter(|(row, _)| found.present.get(*row)) {
            let stored = found.fields.iter().map(|column| Value::of(column.cell(row))).collect();
            members[member].sessions.push(Session { start, last, stored, changed: false });
            members[member].stored.insert(last);
        }
    }

    /// The session of a record and those that it is near to, in the order of time.
    fn joined<'a>(&self, batch: &Batch, row: usize, near: impl Iterator<Item = &'a Session>) -> Result<Session, String> {
        let time = batch.timestamps[row];
        let mut joined: Option<Session> = None;
        for session in near {
            let Some(joined) = &mut joined else {
                joined = Some(Session { start: session.start, last: session.last, stored: session.stored.clone(), changed: true });
                continue;
            };
            for result in &self.results {
                let (kept, later) = (&mut joined.stored[result.columns.clone()], &session.stored[result.columns.clone()]);
                if let Some(reason) = result.computed.refuses_merge(kept, later) {
                    return Err(format!("`{}`: {reason}", result.name));
                }
                result.computed.merge(kept, later);
            }
            joined.last = session.last;
        }
        let mut session = joined.unwrap_or_else(|| Session { start: time, last: time, stored: self.start(time), changed: true });
        if let Some(reason) = self.refusal(batch, row, &session.stored) {
            return Err(reason);
        }
        session.start = session.start.min(time);
        session.last = session.last.max(time);
        session.stored[0] = Value::Int(session.last);
        session.stored[1] = Value::Int(session.start);
        self.take_in(batch, row, &mut session.stored);
        Ok(session)
    }

    fn save_sessions(&self, members: &[Member]) {
        let gone: Vec<_> = members.iter().flat_map(Member::gone).collect();
        if !gone.is_empty() {
            state::delete_many(STORE, &blobs(gone.into_iter()));
        }
        let changed: Vec<(&Member, &Session)> = members
            .iter()
            .flat_map(|member| member.sessions.iter().map(move |session| (member, session)))
            .filter(|(_, session)| session.changed)
            .collect();
        let keys = blobs(changed.iter().map(|(member, session)| row_key(session.last, &member.key)));
        self.put(keys, changed.iter().map(|(_, session)| session.stored.as_slice()));
        let lists: Vec<_> = members.iter().filter(|member| member.changed).collect();
        let spans = lists.iter().map(|member| member.sessions.iter().map(|session| (session.start, session.last)).collect());
        self.put_lists(lists.iter().map(|member| member.key.as_slice()), spans);
    }

    /// Writes which sessions groups have.
    fn put_lists<'a>(&self, keys: impl ExactSizeIterator<Item = &'a [u8]>, spans: impl Iterator<Item = Vec<(i64, i64)>>) {
        if keys.len() == 0 {
            return;
        }
        let mut lists = ColumnBuilder::new(Type::Json, keys.len());
        spans.for_each(|spans| lists.bytes(serde_json::to_string(&spans).unwrap_or_default().as_bytes()));
        state::put_many(SESSIONS, self.groups_of(keys), vec![lists.finish()]);
    }

    fn groups_of<'a>(&self, groups: impl Iterator<Item = &'a [u8]>) -> Column {
        let mut keys = ColumnBuilder::new(self.group_key(), 0);
        groups.for_each(|group| keys.bytes(group));
        keys.finish()
    }

    /// Takes closed sessions out of their groups' lists.
    pub fn forget(&self, keys: &Column, rows: usize) {
        let mut closed: BTreeMap<&[u8], BTreeSet<i64>> = BTreeMap::new();
        for (last, group) in (0..rows).filter_map(|row| split(keys.bytes(row)?)) {
            closed.entry(group).or_default().insert(last);
        }
        if closed.is_empty() {
            return;
        }
        let found = state::get_many(SESSIONS, &self.groups_of(closed.keys().copied()));
        let left: Vec<(&[u8], Vec<(i64, i64)>)> = closed
            .iter()
            .enumerate()
            .map(|(row, (group, closed))| {
                (*group, spans_of(found.fields[0].cell(row)).into_iter().filter(|(_, last)| !closed.contains(last)).collect())
            })
            .collect();
        let (none, some): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, spans)| spans.is_empty());
        if !none.is_empty() {
            state::delete_many(SESSIONS, &self.groups_of(none.iter().map(|(group, _)| *group)));
        }
        let keys: Vec<_> = some.iter().map(|(group, _)| *group).collect();
        self.put_lists(keys.into_iter(), some.into_iter().map(|(_, spans)| spans));
    }
}

impl Member {
    /// Puts one session in place of those that it was made of.
    fn replace(&mut self, old: &[usize], session: Session) {
        for place in old.iter().rev() {
            self.sessions.remove(*place);
        }
        let place = self.sessions.partition_point(|other| other.last < session.last);
        self.sessions.insert(place, session);
        self.changed = true;
    }

    /// The keys of rows that the store holds and nobody needs any more.
    fn gone(&self) -> impl Iterator<Item = Vec<u8>> {
        let gone = self.stored.iter().filter(|last| !self.sessions.iter().any(|session| session.last == **last));
        gone.map(|last| row_key(*last, &self.key))
    }
}

fn blobs(keys: impl Iterator<Item = Vec<u8>>) -> Column {
    let mut column = ColumnBuilder::new(Type::Bytes, 0);
    keys.for_each(|key| column.bytes(&key));
    column.finish()
}
