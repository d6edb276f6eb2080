//! Projection: the wanted fields of each row, by one walk over its bytes.

use super::scan::{Fault, Scanner};
use super::trie::Trie;
use super::value::{self, Literal};
use super::{open, refusal};
use crate::column::{ColumnBuilder, Indexed};
use crate::format::{Decoded, DecodedField, Decoder, FieldError, Wanted};

/// Reads the fields that it was made for.
pub struct Projection {
    trie: Trie,
    wanted: Vec<Wanted>,
    /// The node of each wanted field.
    nodes: Vec<usize>,
}

impl Projection {
    pub fn new(wanted: &[Wanted]) -> Self {
        let mut trie = Trie::default();
        let nodes = wanted.iter().map(|wanted| trie.add(&wanted.path)).collect();
        Self { trie, wanted: wanted.to_vec(), nodes }
    }
}

/// A walk over one row.
struct Walk<'a> {
    trie: &'a Trie,
    scan: Scanner<'a>,
    /// By node: what was met.
    found: &'a mut [Literal],
    /// Nodes that were met again, and where.
    repeated: &'a mut Vec<(usize, usize)>,
    scratch: &'a mut Vec<u8>,
}

impl Walk<'_> {
    fn record(&mut self) -> Result<(), Fault> {
        self.scan.space();
        if self.scan.peek() == Some(b'{') {
            self.object(0, 0)?
        } else {
            self.scan.skip(0)?
        }
        self.scan.finish()
    }

    fn object(&mut self, node: usize, depth: u32) -> Result<(), Fault> {
        self.scan.open(depth)?;
        if self.scan.peek() == Some(b'}') {
            self.scan.at += 1;
            return Ok(());
        }
        loop {
            let start = self.scan.at;
            let key = self.scan.key()?;
            match self.trie.child(node, self.scan.bytes, key, self.scratch) {
                None => self.scan.skip(depth + 1)?,
                Some(child) => {
                    if self.found[child].end != 0 {
                        self.repeated.push((child, start));
                    }
                    self.member(child, depth + 1)?;
                }
            }
            self.scan.space();
            match self.scan.peek() {
                Some(b',') => {
                    self.scan.at += 1;
                    self.scan.space();
                }
                Some(b'}') => {
                    self.scan.at += 1;
                    return Ok(());
                }
                _ => return self.scan.fault(),
            }
        }
    }

    fn member(&mut self, node: usize, depth: u32) -> Result<(), Fault> {
        let start = self.scan.at;
        let mut escaped = false;
        match self.scan.peek() {
            Some(b'"') => escaped = self.scan.string()?.escaped,
            Some(b'{') if !self.trie.node(node).children.is_empty() => self.object(node, depth)?,
            _ => self.scan.skip(depth)?,
        }
        self.found[node] = Literal { start, end: self.scan.at, escaped };
        Ok(())
    }
}

impl Decoder for Projection {
    fn decode(&self, values: Indexed<'_>, rows: usize) -> Decoded {
        let mut columns: Vec<_> = self.wanted.iter().map(|wanted| (ColumnBuilder::new(wanted.kind, rows), Vec::new())).collect();
        let mut failed = Vec::new();
        let mut found = vec![Literal::default(); self.trie.len()];
        let (mut repeated, mut scratch) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let Some(json) = values.bytes(row) else {
                columns.iter_mut().for_each(|(column, _)| column.null());
                continue;
            };
            found.fill(Literal::default());
            repeated.clear();
            let outcome = open(json).and_then(|scan| {
                let mut walk = Walk { trie: &self.trie, scan, found: &mut found, repeated: &mut repeated, scratch: &mut scratch };
                walk.record().map_err(refusal)
            });
            if let Err(refused) = outcome {
                failed.push(refused.of(row));
                columns.iter_mut().for_each(|(column, _)| column.null());
                continue;
            }
            for ((wanted, node), (column, errors)) in self.wanted.iter().zip(&self.nodes).zip(&mut columns) {
                if let Some(at) = self.twice(*node, &repeated) {
                    errors.push(duplicate(row, at));
                    column.null();
                    continue;
                }
                let place = found[*node];
                let outcome = match wanted.from {
                    None => value::read(json, place, wanted.kind, column, &mut scratch),
                    Some(from) => value::convert(json, place, from, wanted.kind, column, &mut scratch),
                };
                if let Err((code, message)) = outcome {
                    errors.push(FieldError { row: row as u32, code, message, at: Some(place.start) });
                    column.null();
                }
            }
        }
        let fields = columns.into_iter().map(|(column, errors)| DecodedField { column: column.finish(), errors }).collect();
        Decoded { fields, failed }
    }
}

impl Projection {
    /// Where a node or one that leads to it was met again.
    #[inline]
    fn twice(&self, node: usize, repeated: &[(usize, usize)]) -> Option<usize> {
        repeated.iter().find(|(again, _)| self.trie.leads_to(*again, node)).map(|(_, at)| *at)
    }
}

fn duplicate(row: usize, at: usize) -> FieldError {
    FieldError { row: row as u32, code: "duplicate_field", message: "the record has this field more than once".to_owned(), at: Some(at) }
}
