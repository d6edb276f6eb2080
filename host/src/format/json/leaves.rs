//! Every leaf of each row, and new texts in their places. Literals and empty containers are leaves too, so that no member's name is hidden.

use super::encode::all_but;
use super::scan::Scanner;
use super::text::{self, Text};
use super::{Refusal, open};
use crate::column::{Column, Indexed, Strings, Values};
use crate::format::FieldError;
use crate::plugin::{Leaves, ReplacedLeaves};

/// Above this many members, an object's names are sorted to find one that is there twice.
const FEW: usize = 16;

/// A member's name, to find those that are there twice.
#[derive(Clone, Copy, Debug)]
struct Key {
    /// Length and first bytes, to tell most names apart by.
    mark: u64,
    /// Where the name stands: in the record, or, with its escapes resolved, in `Walk::resolved`.
    start: usize,
    end: usize,
    resolved: bool,
    /// Its place in the record, for messages.
    at: usize,
}

/// A walk over one row.
struct Walk<'a> {
    scan: Scanner<'a>,
    leaves: &'a mut Leaves,
    scratch: &'a mut Scratch,
}

/// Buffers, kept from row to row.
#[derive(Default)]
struct Scratch {
    /// The path of the value at hand.
    path: Vec<u8>,
    /// The names of the objects that are open, one object behind the other.
    keys: Vec<Key>,
    /// Names with escapes, resolved.
    resolved: Vec<u8>,
}

fn lone_surrogate(at: usize) -> Refusal {
    Refusal::new("lone_surrogate", "a text holds half a pair of surrogates, which is no Unicode", at)
}

impl Walk<'_> {
    fn record(&mut self) -> Result<(), Refusal> {
        self.scan.space();
        self.value(0)?;
        Ok(self.scan.finish()?)
    }

    fn value(&mut self, depth: u32) -> Result<(), Refusal> {
        let start = self.scan.at;
        match self.scan.peek() {
            Some(b'"') => {
                let text = self.scan.string()?;
                let raw = self.scan.bytes.get(text.start..text.end).unwrap_or_default();
                if text.escaped {
                    text::unescape(raw, &mut self.leaves.values.data).map_err(|_| lone_surrogate(start))?;
                } else {
                    self.leaves.values.data.extend_from_slice(raw);
                }
                self.close_leaf(start);
                Ok(())
            }
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            _ => {
                self.scan.bare()?;
                self.leaves.values.data.extend_from_slice(self.scan.bytes.get(start..self.scan.at).unwrap_or_default());
                self.close_leaf(start);
                Ok(())
            }
        }
    }

    fn close_leaf(&mut self, start: usize) {
        self.leaves.values.close();
        self.leaves.paths.push(&self.scratch.path);
        self.leaves.spans.push((start as u32, self.scan.at as u32));
    }

    fn object(&mut self, depth: u32) -> Result<(), Refusal> {
        let start = self.scan.at;
        self.scan.open(depth)?;
        if self.scan.peek() == Some(b'}') {
            self.scan.at += 1;
            self.leaves.values.data.extend_from_slice(b"{}");
            self.close_leaf(start);
            return Ok(());
        }
        let (parent, first) = (self.scratch.path.len(), self.scratch.keys.len());
        loop {
            let at = self.scan.at;
            let key = self.scan.key()?;
            self.name(key, at, first)?;
            self.value(depth + 1)?;
            self.scratch.path.truncate(parent);
            self.scan.space();
            match self.scan.peek() {
                Some(b',') => {
                    self.scan.at += 1;
                    self.scan.space();
                }
                Some(b'}') => break,
                _ => return Ok(self.scan.fault()?),
            }
        }
        self.scan.at += 1;
        self.distinct(first)?;
        self.scratch.keys.truncate(first);
        Ok(())
    }

    fn array(&mut self, depth: u32) -> Result<(), Refusal> {
        let start = self.scan.at;
        self.scan.open(depth)?;
        if self.scan.peek() == Some(b']') {
            self.scan.at += 1;
            self.leaves.values.data.extend_from_slice(b"[]");
            self.close_leaf(start);
            return Ok(());
        }
        let parent = self.scratch.path.len();
        for place in 0_u64.. {
            self.scratch.path.push(b'[');
            push_digits(place, &mut self.scratch.path);
            self.scratch.path.push(b']');
            self.value(depth + 1)?;
            self.scratch.path.truncate(parent);
            self.scan.space();
            match self.scan.peek() {
                Some(b',') => {
                    self.scan.at += 1;
                    self.scan.space();
                }
                Some(b']') => break,
                _ => return Ok(self.scan.fault()?),
            }
        }
        self.scan.at += 1;
        Ok(())
    }

    /// Steps into a member: its name joins the path, and those of its object, which begin at `first`.
    fn name(&mut self, key: Text, at: usize, first: usize) -> Result<(), Refusal> {
        let Scratch { path, keys, resolved } = &mut *self.scratch;
        let (mut start, mut end) = (key.start, key.end);
        if key.escaped {
            start = resolved.len();
            text::unescape(self.scan.bytes.get(key.start..key.end).unwrap_or_default(), resolved).map_err(|_| lone_surrogate(at))?;
            end = resolved.len();
        }
        let name = if key.escaped { &resolved[start..end] } else { self.scan.bytes.get(start..end).unwrap_or_default() };
        if !path.is_empty() {
            path.push(b'.');
        }
        let needs_quotes = name.is_empty() || name[0] == b'$' || name.iter().any(|byte| matches!(byte, b'.' | b'"' | b'\\'));
        if needs_quotes {
            path.push(b'"');
            for byte in name {
                if matches!(byte, b'"' | b'\\') {
                    path.push(b'\\');
                }
                path.push(*byte);
            }
            path.push(b'"');
        } else {
            path.extend_from_slice(name);
        }
        let mark = mark(name);
        if keys.len() - first < FEW {
            let again = keys[first..].iter().find(|other| other.mark == mark && other.name(self.scan.bytes, resolved) == name);
            if again.is_some() {
                return Err(duplicate(at));
            }
        }
        keys.push(Key { mark, start, end, resolved: key.escaped, at });
        Ok(())
    }

    /// Looks for a name that an object of many members, the first of them `first`, has twice.
    fn distinct(&mut self, first: usize) -> Result<(), Refusal> {
        let Scratch { keys, resolved, .. } = &mut *self.scratch;
        let members = keys.get_mut(first..).unwrap_or_default();
        if members.len() <= FEW {
            return Ok(());
        }
        let name = |key: &Key| key.name(self.scan.bytes, resolved);
        members
            .sort_unstable_by(|one, other| one.mark.cmp(&other.mark).then_with(|| name(one).cmp(name(other))).then(one.at.cmp(&other.at)));
        match members.windows(2).find(|pair| pair[0].mark == pair[1].mark && name(&pair[0]) == name(&pair[1])) {
            Some(pair) => Err(duplicate(pair[1].at)),
            None => Ok(()),
        }
    }
}

impl Key {
    #[inline]
    fn name<'k>(&self, json: &'k [u8], resolved: &'k [u8]) -> &'k [u8] {
        if self.resolved { resolved } else { json }.get(self.start..self.end).unwrap_or_default()
    }
}

fn duplicate(at: usize) -> Refusal {
    Refusal::new("duplicate_field", "an object has a member more than once", at)
}

/// Length, first and last bytes of a name.
#[inline]
fn mark(name: &[u8]) -> u64 {
    let head = match name.first_chunk::<4>() {
        Some(chunk) => u32::from_le_bytes(*chunk),
        None => name.iter().fold(0, |head, byte| head << 8 | u32::from(*byte)),
    };
    let last = name.last_chunk::<2>().map_or(0, |chunk| u16::from_le_bytes(*chunk));
    u64::from(head) | u64::from(last) << 32 | (name.len() as u64 & 0xffff) << 48
}

fn push_digits(number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let mut rest = number;
    loop {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[start..].reverse();
}

pub fn leaves(values: Indexed<'_>, rows: usize) -> (Leaves, Vec<FieldError>) {
    let mut leaves = Leaves { offsets: Vec::with_capacity(rows + 1), ..Leaves::default() };
    leaves.offsets.push(0);
    let mut failed = Vec::new();
    let mut scratch = Scratch::default();
    for row in 0..rows {
        let (entries, path_bytes, value_bytes) = (leaves.spans.len(), leaves.paths.data.len(), leaves.values.data.len());
        if let Some(json) = values.bytes(row) {
            scratch.path.clear();
            scratch.keys.clear();
            scratch.resolved.clear();
            let outcome = open(json).and_then(|scan| Walk { scan, leaves: &mut leaves, scratch: &mut scratch }.record());
            if let Err(refused) = outcome {
                failed.push(refused.of(row));
                leaves.spans.truncate(entries);
                for (strings, bytes) in [(&mut leaves.paths, path_bytes), (&mut leaves.values, value_bytes)] {
                    strings.offsets.truncate(entries + 1);
                    strings.data.truncate(bytes);
                }
            }
        }
        leaves.offsets.push(leaves.spans.len() as u32);
    }
    (leaves, failed)
}

pub fn replace(values: Indexed<'_>, rows: usize, leaves: &Leaves, replaced: &ReplacedLeaves) -> Column {
    let size: usize = (0..rows).filter_map(|row| values.bytes(row)).map(<[u8]>::len).sum();
    let mut out = Strings::with_capacity(rows, size + replaced.values.data.len());
    let mut nulls = Vec::new();
    let mut next = replaced.entries.iter().map(|entry| *entry as usize).zip(replaced.values.iter()).peekable();
    for row in 0..rows {
        let end = leaves.offsets.get(row + 1).map_or(0, |end| *end as usize);
        let Some(json) = values.bytes(row) else {
            nulls.push(row);
            out.close();
            continue;
        };
        let mut copied = 0;
        while let Some((entry, new)) = next.next_if(|(entry, _)| *entry < end) {
            let Some((from, to)) = leaves.spans.get(entry).map(|(from, to)| (*from as usize, *to as usize)) else { continue };
            out.data.extend_from_slice(json.get(copied..from).unwrap_or_default());
            text::write(new, &mut out.data);
            copied = to;
        }
        out.data.extend_from_slice(json.get(copied..).unwrap_or_default());
        out.close();
    }
    Column { values: Values::Blobs(out), validity: all_but(&nulls, rows) }
}
