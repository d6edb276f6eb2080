//! Raw bytes: no fields. For pipelines whose plugins read the value itself.

use super::{Change, Decoded, DecodedField, Decoder, EncodeError, Encoded, FieldError, Format, Wanted};
use crate::column::{Column, ColumnBuilder, Indexed, Type};
use crate::plugin::{Leaves, ReplacedLeaves};

/// The format `raw`.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

/// Every field that is asked for is missing.
struct Missing(Vec<Type>);

impl Decoder for Missing {
    fn decode(&self, _values: Indexed<'_>, rows: usize) -> Decoded {
        let nulls = |kind: &Type| {
            let mut column = ColumnBuilder::new(*kind, rows);
            for _ in 0..rows {
                column.null();
            }
            DecodedField { column: column.finish(), errors: Vec::new() }
        };
        Decoded { fields: self.0.iter().map(nulls).collect(), failed: Vec::new() }
    }
}

fn no_fields(row: usize, message: String) -> FieldError {
    FieldError { row: row as u32, code: "no_fields", message, at: None }
}

impl Format for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn decoder(&self, wanted: &[Wanted]) -> Box<dyn Decoder> {
        Box::new(Missing(wanted.iter().map(|wanted| wanted.kind).collect()))
    }

    fn encode(&self, base: Option<Indexed<'_>>, rows: usize, changes: &[Change<'_>]) -> Encoded {
        let mut values = ColumnBuilder::new(Type::Bytes, rows);
        let mut failed = Vec::new();
        for row in 0..rows {
            let change = changes.iter().position(|change| !change.kept.get(row));
            let message = match (base.map(|base| base.bytes(row)), change) {
                (None, _) => "a value of format `raw` cannot be made of fields".to_owned(),
                (Some(Some(_)), Some(change)) => {
                    format!("`{}` cannot be written: a value of format `raw` has no fields", changes[change].path)
                }
                (Some(Some(bytes)), None) => {
                    values.bytes(bytes);
                    continue;
                }
                (Some(None), _) => {
                    values.null();
                    continue;
                }
            };
            failed.push(EncodeError { change, error: no_fields(row, message) });
            values.null();
        }
        Encoded { values: values.finish(), failed }
    }

    fn leaves(&self, values: Indexed<'_>, rows: usize) -> (Leaves, Vec<FieldError>) {
        let failed = (0..rows)
            .filter(|row| values.bytes(*row).is_some())
            .map(|row| no_fields(row, "a value of format `raw` has no fields to look into".to_owned()))
            .collect();
        (Leaves { offsets: vec![0; rows + 1], ..Leaves::default() }, failed)
    }

    fn replace_leaves(&self, values: Indexed<'_>, rows: usize, _leaves: &Leaves, _replaced: &ReplacedLeaves) -> Column {
        let mut unchanged = ColumnBuilder::new(Type::Bytes, rows);
        for row in 0..rows {
            match values.bytes(row) {
                Some(bytes) => unchanged.bytes(bytes),
                None => unchanged.null(),
            }
        }
        unchanged.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::{Bitmap, Cell};
    use crate::field::Path;

    fn blobs(rows: &[Option<&[u8]>]) -> Column {
        let mut column = ColumnBuilder::new(Type::Bytes, rows.len());
        for row in rows {
            match row {
                Some(bytes) => column.bytes(bytes),
                None => column.null(),
            }
        }
        column.finish()
    }

    #[test]
    fn fields_are_missing() {
        let values = blobs(&[Some(b"\xff{"), None]);
        let wanted = Wanted { path: Path::parse("a").unwrap(), kind: Type::Int, from: None };
        let decoded = Raw.decode(Indexed { column: &values, index: None }, 2, &[wanted]);
        assert!(decoded.failed.is_empty() && decoded.fields[0].errors.is_empty());
        assert_eq!([decoded.fields[0].column.cell(0), decoded.fields[0].column.cell(1)], [Cell::Null, Cell::Null]);
    }

    #[test]
    fn only_what_is_unchanged_can_be_written() {
        let values = blobs(&[Some(b"\xff"), Some(b"b"), None]);
        let base = Indexed { column: &values, index: None };
        assert_eq!(Raw.encode(Some(base), 3, &[]).values, values);

        let (path, ints) = (Path::parse("a").unwrap(), blobs(&[None, None, None]));
        let mut kept = Bitmap::filled(3, false);
        kept.set(0);
        let change = Change { path: &path, column: Indexed { column: &ints, index: None }, kept: &kept, removed: &Bitmap::default() };
        let encoded = Raw.encode(Some(base), 3, &[change]);
        assert_eq!([encoded.values.bytes(0), encoded.values.bytes(1), encoded.values.bytes(2)], [Some(&b"\xff"[..]), None, None]);
        let failed: Vec<_> = encoded.failed.iter().map(|failed| (failed.change, failed.error.row, failed.error.code)).collect();
        assert_eq!(failed, [(Some(0), 1, "no_fields")]);
        assert_eq!(Raw.encode(None, 2, &[]).failed.len(), 2);
    }

    #[test]
    fn there_is_nothing_to_look_into() {
        let values = blobs(&[Some(b"4444"), None]);
        let (leaves, failed) = Raw.leaves(Indexed { column: &values, index: None }, 2);
        assert_eq!((leaves.offsets, failed.len()), (vec![0, 0, 0], 1));
    }
}
