//! Splice: changed fields are written into each row's bytes by one walk over them; every other byte stays.

use super::scan::{Fault, Scanner};
use super::trie::Trie;
use super::{Refusal, open, refusal, text, value};
use crate::column::{Bitmap, Column, Indexed, Strings, Values};
use crate::format::{Change, EncodeError, Encoded};
use std::ops::Range;

/// What happens at a node in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Action {
    /// Something happens here or below.
    live: bool,
    /// Something is written here or below.
    writes: bool,
    /// The change that ends here.
    change: Option<usize>,
}

/// Changes no two of which meet, so that one walk applies them all.
struct Group<'c> {
    changes: &'c [Change<'c>],
    /// The place of the first one among all changes.
    first: usize,
    trie: Trie,
    /// The node of each change.
    nodes: Vec<usize>,
    /// Whether the actions are the same in every row.
    uniform: bool,
    /// By node, for the row at hand.
    actions: Vec<Action>,
    /// By node: met in the row at hand.
    seen: Vec<bool>,
}

impl<'c> Group<'c> {
    fn new(all: &'c [Change<'c>], places: Range<usize>, rows: usize) -> Self {
        let first = places.start;
        let changes = &all[places];
        let mut trie = Trie::default();
        // A new parent stands where the first field that is written into it is declared: what is only removed must not make its place.
        for change in changes.iter().filter(|change| (0..rows).any(|row| !change.removed.get(row))) {
            trie.add(change.path);
        }
        let nodes = changes.iter().map(|change| trie.add(change.path)).collect();
        let uniform = changes.iter().all(|change| !change.kept.any(rows) && !change.removed.any(rows));
        let (actions, seen) = (vec![Action::default(); trie.len()], vec![false; trie.len()]);
        let mut group = Self { changes, first, trie, nodes, uniform, actions, seen };
        if uniform {
            group.choose(0);
        }
        group
    }

    /// Lays out what happens in a row; whether anything does.
    fn choose(&mut self, row: usize) -> bool {
        self.actions.fill(Action::default());
        for (place, (change, node)) in self.changes.iter().zip(&self.nodes).enumerate() {
            if !change.kept.get(row) {
                self.actions[*node] = Action { live: true, writes: !change.removed.get(row), change: Some(place) };
            }
        }
        for node in (1..self.actions.len()).rev() {
            let Action { live, writes, .. } = self.actions[node];
            let parent = &mut self.actions[self.trie.node(node).parent];
            parent.live |= live;
            parent.writes |= writes;
        }
        self.actions[0].live
    }

    /// Writes a row of which `json` is the base.
    fn splice(&mut self, row: usize, json: &[u8], out: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Result<(), Refused> {
        if !self.uniform && !self.choose(row) || !self.actions[0].live {
            out.extend_from_slice(json);
            return Ok(());
        }
        self.seen.fill(false);
        let Self { changes, trie, actions, seen, .. } = self;
        let outcome = open(json).map_err(Refused::from).and_then(|scan| {
            let mut walk = Walk { row, changes, trie, actions, seen, scan, out, copied: 0, scratch };
            walk.record()?;
            let rest = json.get(walk.copied..).unwrap_or_default();
            walk.out.extend_from_slice(rest);
            Ok(())
        });
        outcome.map_err(|refused| Refused { change: self.guilty(&refused, row), ..refused })
    }

    /// The first of all changes that asks for something in a row at or below the node where it was refused.
    fn guilty(&self, refused: &Refused, row: usize) -> Option<usize> {
        let below = |mut node: usize| {
            while node != refused.node && node != 0 {
                node = self.trie.node(node).parent;
            }
            node == refused.node
        };
        let asks = |change: &Change<'_>| !(change.kept.get(row) || refused.writing && change.removed.get(row));
        self.changes.iter().zip(&self.nodes).position(|(change, node)| asks(change) && below(*node)).map(|place| self.first + place)
    }
}

/// A row that cannot be written.
struct Refused {
    refusal: Refusal,
    /// The node at which it happened: the root if the base cannot be read.
    node: usize,
    /// Whether something was to be written there, not only removed.
    writing: bool,
    /// By its place among all changes; filled in by the group.
    change: Option<usize>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, node: 0, writing: false, change: None }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        refusal(fault)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        refusal(fault).into()
    }
}

/// Refused where something was to be written.
fn unwritten(node: usize, code: &'static str, message: String, at: usize) -> Refused {
    Refused { refusal: Refusal::new(code, message, at), node, writing: true, change: None }
}

/// A walk over one row, which copies as it goes.
struct Walk<'a> {
    row: usize,
    changes: &'a [Change<'a>],
    trie: &'a Trie,
    actions: &'a [Action],
    seen: &'a mut [bool],
    scan: Scanner<'a>,
    out: &'a mut Vec<u8>,
    /// The base's bytes before this one are copied or gone.
    copied: usize,
    scratch: &'a mut Vec<u8>,
}

impl Walk<'_> {
    fn record(&mut self) -> Result<(), Refused> {
        self.scan.space();
        if self.scan.peek() == Some(b'{') {
            self.object(0, 0)?;
        } else if self.actions[0].writes {
            let at = self.scan.at;
            self.scan.skip(0)?;
            self.scan.finish()?;
            return Err(unwritten(0, "not_an_object", "the value is not an object, so no field can be written into it".to_owned(), at));
        } else {
            self.scan.skip(0)?;
        }
        Ok(self.scan.finish()?)
    }

    /// Copies what stands before `to`.
    fn copy(&mut self, to: usize) {
        self.out.extend_from_slice(self.scan.bytes.get(self.copied..to).unwrap_or_default());
        self.copied = to;
    }

    fn object(&mut self, node: usize, depth: u32) -> Result<(), Refused> {
        // Where members are added: behind the last one.
        let mut end = self.scan.at + 1;
        // Whether some member stays, so that the next one needs a comma.
        let mut stays = false;
        let mut comma = end;
        self.scan.open(depth)?;
        while self.scan.peek() != Some(b'}') {
            let start = self.scan.at;
            let key = self.scan.key()?;
            let child = self.trie.child(node, self.scan.bytes, key, self.scratch).filter(|child| self.actions[*child].live);
            let removed = match child {
                None => self.scan.skip(depth + 1).map(|()| false)?,
                Some(child) => self.member(child, start, depth + 1)?,
            };
            end = self.scan.at;
            if removed {
                self.copy(if stays { comma } else { start });
                self.copied = end;
            }
            // Its comma goes with a removed member: the one before it, or, if nothing stays before it, the one behind it.
            let with_next = removed && !stays;
            stays |= !removed;
            self.scan.space();
            comma = self.scan.at;
            match self.scan.peek() {
                Some(b',') => {
                    self.scan.at += 1;
                    self.scan.space();
                    if self.scan.peek() != Some(b'"') {
                        return Ok(self.scan.fault()?);
                    }
                    if with_next {
                        self.copied = self.scan.at;
                    }
                }
                Some(b'}') => {}
                _ => return Ok(self.scan.fault()?),
            }
        }
        self.scan.at += 1;
        self.add(node, end, stays)
    }

    /// A member to which something happens; whether it is to be removed.
    fn member(&mut self, node: usize, start: usize, depth: u32) -> Result<bool, Refused> {
        if std::mem::replace(&mut self.seen[node], true) {
            let message = format!("the record has `{}` more than once, so it cannot be written", self.trie.path(node));
            return Err(Refused { node, ..Refusal::new("duplicate_field", message, start).into() });
        }
        let Action { writes, change, .. } = self.actions[node];
        let at = self.scan.at;
        match change {
            Some(change) if writes => {
                self.copy(at);
                self.write(node, change, at)?;
                self.scan.skip(depth)?;
                self.copied = self.scan.at;
            }
            Some(_) => {
                self.scan.skip(depth)?;
                return Ok(true);
            }
            None if self.scan.peek() == Some(b'{') => self.object(node, depth)?,
            None if writes => {
                let message = format!("`{}` is not an object, so no field can be written into it", self.trie.path(node));
                return Err(unwritten(node, "not_an_object", message, at));
            }
            // There is nothing to remove.
            None => self.scan.skip(depth)?,
        }
        Ok(false)
    }

    /// Adds what is written into an object and was not met.
    fn add(&mut self, node: usize, end: usize, mut stays: bool) -> Result<(), Refused> {
        let trie = self.trie;
        for child in &trie.node(node).children {
            if self.actions[*child].writes && !self.seen[*child] {
                self.copy(end);
                if std::mem::replace(&mut stays, true) {
                    self.out.push(b',');
                }
                self.create(*child, end)?;
            }
        }
        Ok(())
    }

    /// A new member, with its parents as far as they are missing.
    fn create(&mut self, node: usize, at: usize) -> Result<(), Refused> {
        let trie = self.trie;
        text::write(trie.node(node).name.as_bytes(), self.out);
        self.out.push(b':');
        if let Some(change) = self.actions[node].change {
            return self.write(node, change, at);
        }
        let mut before = b'{';
        for child in trie.node(node).children.iter().filter(|child| self.actions[**child].writes) {
            self.out.push(std::mem::replace(&mut before, b','));
            self.create(*child, at)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn write(&mut self, node: usize, change: usize, at: usize) -> Result<(), Refused> {
        let Change { path, column, .. } = self.changes[change];
        value::write(column, self.row, self.out)
            .ok_or_else(|| unwritten(node, "out_of_range", format!("`{path}` is NaN or infinite, which JSON cannot say"), at))
    }
}

/// Cuts changes, in their order, so that within a group no path is another's or leads to it: what a later stage changes again has its own walk.
fn groups<'c>(changes: &'c [Change<'c>], rows: usize) -> Vec<Group<'c>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for place in 0..changes.len() {
        let path = changes[place].path;
        if changes[start..place].iter().any(|earlier| earlier.path.is_prefix_of(path) || path.is_prefix_of(earlier.path)) {
            groups.push(Group::new(changes, start..place, rows));
            start = place;
        }
    }
    if start < changes.len() {
        groups.push(Group::new(changes, start..changes.len(), rows));
    }
    groups
}

pub fn encode(base: Option<Indexed<'_>>, rows: usize, changes: &[Change<'_>]) -> Encoded {
    let mut groups = groups(changes, rows);
    let size = base.map_or(2 * rows, |base| (0..rows).filter_map(|row| base.bytes(row)).map(<[u8]>::len).sum());
    // A guess at what is added; too little costs a copy.
    let mut values = Strings::with_capacity(rows, size + 16 * rows * changes.len());
    let mut nulls = Vec::new();
    let mut failed = Vec::new();
    let (mut before, mut after, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        let json = match base {
            None => Some(&b"{}"[..]),
            Some(base) => base.bytes(row),
        };
        let start = values.data.len();
        match json.map(|json| splice(&mut groups, row, json, &mut values.data, (&mut before, &mut after), &mut scratch)) {
            Some(Ok(())) => {}
            Some(Err(refused)) => {
                failed.push(EncodeError { change: refused.change, error: refused.refusal.of(row) });
                values.data.truncate(start);
                nulls.push(row);
            }
            None => nulls.push(row),
        }
        values.close();
    }
    Encoded { values: Column { values: Values::Blobs(values), validity: all_but(&nulls, rows) }, failed }
}

/// One walk for each group; between two, the row waits in a buffer.
fn splice(
    groups: &mut [Group<'_>],
    row: usize,
    json: &[u8],
    out: &mut Vec<u8>,
    (before, after): (&mut Vec<u8>, &mut Vec<u8>),
    scratch: &mut Vec<u8>,
) -> Result<(), Refused> {
    let Some((last, first)) = groups.split_last_mut() else {
        out.extend_from_slice(json);
        return Ok(());
    };
    if first.is_empty() {
        return last.splice(row, json, out, scratch);
    }
    before.clear();
    before.extend_from_slice(json);
    for group in first {
        after.clear();
        group.splice(row, before, after, scratch)?;
        std::mem::swap(before, after);
    }
    last.splice(row, before, out, scratch)
}

/// Validity of `rows` rows, `nulls` of which are null.
pub(super) fn all_but(nulls: &[usize], rows: usize) -> Bitmap {
    if nulls.is_empty() {
        return Bitmap::default();
    }
    let mut validity = Bitmap::filled(rows, true);
    for row in nulls.iter().copied().chain(rows..rows.next_multiple_of(8)) {
        validity.clear(row);
    }
    validity
}
