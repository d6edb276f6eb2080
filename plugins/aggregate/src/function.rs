//! The functions of `compute`: what each keeps, and how a record changes it.

use crate::value::Value;
use millstream_guest::column::{Cell, Type};

/// How many values `collect` keeps if nothing is said, and at most.
pub const COLLECT_DEFAULT: u64 = 1000;
pub const COLLECT_MAX: u64 = 100_000;

pub const NAMES: &str = "count(), count(path), sum(path), min(path), max(path), avg(path), first(path), last(path), collect(path, limit)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Records.
    Count,
    /// Values that are not null.
    CountValues,
    Sum,
    Min,
    Max,
    Avg,
    First,
    Last,
    Collect {
        limit: i64,
    },
}

/// A function over a field of type `of` (int for `count()`, which reads none).
#[derive(Clone, Copy, Debug)]
pub struct Computed {
    pub function: Function,
    pub of: Type,
}

impl Function {
    /// The types that it takes; None = all.
    pub fn takes(self) -> Option<&'static [Type]> {
        match self {
            Self::Sum | Self::Avg => Some(&[Type::Int, Type::Float]),
            Self::Min | Self::Max => Some(&[Type::Int, Type::Float, Type::Text]),
            Self::Collect { .. } => Some(&[Type::Boolean, Type::Int, Type::Float, Type::Text, Type::Json]),
            Self::Count | Self::CountValues | Self::First | Self::Last => None,
        }
    }

    /// As what a field is read that nobody declares.
    pub fn assumes(self) -> Type {
        match self {
            Self::Sum | Self::Avg | Self::Min | Self::Max => Type::Float,
            Self::Count | Self::CountValues | Self::First | Self::Last | Self::Collect { .. } => Type::Json,
        }
    }
}

impl Computed {
    /// The columns that it keeps: the end of each name, the type, and whether it may be null.
    pub fn columns(self) -> Vec<(&'static str, Type, bool)> {
        match self.function {
            Function::Count | Function::CountValues => vec![("", Type::Int, false)],
            Function::Sum | Function::Min | Function::Max | Function::First | Function::Last => vec![("", self.of, true)],
            Function::Avg => vec![(".sum", Type::Float, false), (".count", Type::Int, false)],
            Function::Collect { .. } => vec![("", Type::Json, false), (".count", Type::Int, false)],
        }
    }

    /// What it keeps of a group without records.
    pub fn start(self) -> Vec<Value> {
        match self.function {
            Function::Count | Function::CountValues => vec![Value::Int(0)],
            Function::Sum | Function::Min | Function::Max | Function::First | Function::Last => vec![Value::Null],
            Function::Avg => vec![Value::Float(0.0), Value::Int(0)],
            Function::Collect { .. } => vec![Value::Bytes(b"[]".to_vec()), Value::Int(0)],
        }
    }

    /// The result's type, and whether it may be null.
    pub fn result_type(self) -> (Type, bool) {
        match self.function {
            Function::Count | Function::CountValues => (Type::Int, false),
            Function::Avg => (Type::Float, true),
            Function::Collect { .. } => (Type::Json, false),
            Function::Sum | Function::Min | Function::Max | Function::First | Function::Last => (self.of, true),
        }
    }

    pub fn result(self, kept: &[Value]) -> Value {
        match (self.function, kept) {
            (Function::Avg, [sum, count]) if count.int() > 0 => Value::Float(sum.float() / count.int() as f64),
            (Function::Avg, _) => Value::Null,
            (_, [value, ..]) => value.clone(),
            (_, []) => Value::Null,
        }
    }

    /// Why a record cannot be taken in, if so. Asked of all functions before any of them changes, so that a refused record leaves no trace.
    pub fn refuses(self, kept: &[Value], cell: Cell<'_>) -> Option<&'static str> {
        match (self.function, kept, cell) {
            (Function::Sum, [Value::Int(sum)], Cell::Int(value)) => {
                sum.checked_add(value).is_none().then_some("the sum would leave the range of int (64 bits)")
            }
            (Function::Sum | Function::Avg, [sum, ..], Cell::Float(value)) => {
                (!(sum.float() + value).is_finite()).then_some("the sum would leave the range of float")
            }
            _ => None,
        }
    }

    /// Takes a record in.
    pub fn add(self, kept: &mut [Value], cell: Cell<'_>) {
        let is_null = matches!(cell, Cell::Null);
        match (self.function, kept) {
            (Function::Count, [Value::Int(count)]) => *count += 1,
            (_, _) if is_null => {}
            (Function::CountValues, [Value::Int(count)]) => *count += 1,
            (Function::Sum, [sum]) => {
                *sum = match cell {
                    Cell::Int(value) => Value::Int(sum.int().saturating_add(value)),
                    Cell::Float(value) => Value::Float(sum.float() + value),
                    _ => return,
                }
            }
            (Function::Avg, [sum, count]) => {
                *sum = Value::Float(sum.float() + Value::of(cell).float());
                *count = Value::Int(count.int() + 1);
            }
            (Function::Min, [least]) if before(cell, least) => *least = Value::of(cell),
            (Function::Max, [most]) if after(cell, most) => *most = Value::of(cell),
            (Function::First, [first @ Value::Null]) => *first = Value::of(cell),
            (Function::Last, [last]) => *last = Value::of(cell),
            (Function::Collect { limit }, [Value::Bytes(list), Value::Int(count)]) if *count < limit => {
                list.pop();
                if *count > 0 {
                    list.push(b',');
                }
                write_json(cell, list);
                list.push(b']');
                *count += 1;
            }
            _ => {}
        }
    }
}

impl Computed {
    /// Why two groups cannot become one, if so.
    pub fn refuses_merge(self, kept: &[Value], later: &[Value]) -> Option<&'static str> {
        self.refuses(kept, if matches!(self.function, Function::Sum | Function::Avg) { number(later) } else { Cell::Null })
    }

    /// Takes in what a later group kept.
    pub fn merge(self, kept: &mut [Value], later: &[Value]) {
        match (self.function, kept, later) {
            (Function::Count | Function::CountValues, [Value::Int(count)], [more]) => *count += more.int(),
            (Function::Avg, [sum, count], [more, times]) => {
                *sum = Value::Float(sum.float() + more.float());
                *count = Value::Int(count.int() + times.int());
            }
            (Function::First, [first], [value]) if *first == Value::Null => *first = value.clone(),
            (Function::Last, [last], [value]) if *value != Value::Null => *last = value.clone(),
            (Function::Sum, kept, later) => self.add(kept, number(later)),
            (Function::Min | Function::Max, kept, [value]) => self.add(kept, value.cell(self.of)),
            (Function::Collect { limit }, [Value::Bytes(list), Value::Int(count)], [Value::Bytes(more), _]) => {
                // The list is this plugin's own JSON.
                let values: Vec<&serde_json::value::RawValue> = serde_json::from_slice(more).unwrap_or_default();
                for value in values {
                    if *count >= limit {
                        break;
                    }
                    list.pop();
                    if *count > 0 {
                        list.push(b',');
                    }
                    list.extend_from_slice(value.get().as_bytes());
                    list.push(b']');
                    *count += 1;
                }
            }
            _ => {}
        }
    }
}

/// A sum that was kept.
fn number(kept: &[Value]) -> Cell<'_> {
    match kept.first() {
        Some(Value::Int(value)) => Cell::Int(*value),
        Some(Value::Float(value)) => Cell::Float(*value),
        _ => Cell::Null,
    }
}

fn before(cell: Cell<'_>, least: &Value) -> bool {
    match (cell, least) {
        (_, Value::Null) => true,
        (Cell::Int(value), Value::Int(least)) => value < *least,
        (Cell::Float(value), Value::Float(least)) => value < *least,
        (Cell::Text(value), Value::Bytes(least)) => value.as_bytes() < least.as_slice(),
        _ => false,
    }
}

fn after(cell: Cell<'_>, most: &Value) -> bool {
    match (cell, most) {
        (_, Value::Null) => true,
        (Cell::Int(value), Value::Int(most)) => value > *most,
        (Cell::Float(value), Value::Float(most)) => value > *most,
        (Cell::Text(value), Value::Bytes(most)) => value.as_bytes() > most.as_slice(),
        _ => false,
    }
}

/// Appends a value as JSON source text.
pub fn write_json(cell: Cell<'_>, out: &mut Vec<u8>) {
    let json = match cell {
        Cell::Null => serde_json::Value::Null,
        Cell::Bool(value) => value.into(),
        Cell::Int(value) => value.into(),
        Cell::Float(value) => value.into(),
        Cell::Text(text) => text.into(),
        Cell::Blob(bytes) => String::from_utf8_lossy(bytes).into(),
        Cell::Json(text) => return out.extend_from_slice(text.as_bytes()),
    };
    out.extend_from_slice(json.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(function: Function, of: Type, cells: &[Cell<'_>]) -> Value {
        let computed = Computed { function, of };
        let mut kept = computed.start();
        for cell in cells {
            assert_eq!(computed.refuses(&kept, *cell), None);
            computed.add(&mut kept, *cell);
        }
        assert_eq!(computed.columns().len(), kept.len());
        computed.result(&kept)
    }

    #[test]
    fn functions_pass_over_nulls() {
        let ints = [Cell::Null, Cell::Int(3), Cell::Int(-1), Cell::Null, Cell::Int(5)];
        for (function, expected) in [
            (Function::Count, Value::Int(5)),
            (Function::CountValues, Value::Int(3)),
            (Function::Sum, Value::Int(7)),
            (Function::Min, Value::Int(-1)),
            (Function::Max, Value::Int(5)),
            (Function::Avg, Value::Float(7.0 / 3.0)),
            (Function::First, Value::Int(3)),
            (Function::Last, Value::Int(5)),
            (Function::Collect { limit: 2 }, Value::Bytes(b"[3,-1]".to_vec())),
        ] {
            assert_eq!(fold(function, Type::Int, &ints), expected, "{function:?}");
        }
    }

    #[test]
    fn nothing_but_nulls() {
        for function in [Function::Sum, Function::Min, Function::Max, Function::Avg, Function::First, Function::Last] {
            assert_eq!(fold(function, Type::Float, &[Cell::Null]), Value::Null, "{function:?}");
        }
        assert_eq!(fold(Function::CountValues, Type::Text, &[Cell::Null]), Value::Int(0));
        assert_eq!(fold(Function::Collect { limit: 9 }, Type::Text, &[Cell::Null]), Value::Bytes(b"[]".to_vec()));
    }

    #[test]
    fn texts_floats_and_json() {
        let texts = [Cell::Text("b"), Cell::Text("a\"é"), Cell::Text("c")];
        assert_eq!(fold(Function::Min, Type::Text, &texts), Value::Bytes("a\"é".into()));
        assert_eq!(fold(Function::Max, Type::Text, &texts), Value::Bytes(b"c".to_vec()));
        assert_eq!(fold(Function::Collect { limit: 2 }, Type::Text, &texts), Value::Bytes("[\"b\",\"a\\\"é\"]".into()));
        assert_eq!(fold(Function::Sum, Type::Float, &[Cell::Float(0.5), Cell::Float(1.0)]), Value::Float(1.5));
        assert_eq!(fold(Function::Max, Type::Float, &[Cell::Float(-0.5), Cell::Float(-1.0)]), Value::Float(-0.5));
        let jsons = [Cell::Json("{ \"a\" : 1 }"), Cell::Json("[2]")];
        assert_eq!(fold(Function::Collect { limit: 9 }, Type::Json, &jsons), Value::Bytes(b"[{ \"a\" : 1 },[2]]".to_vec()));
        assert_eq!(fold(Function::Last, Type::Json, &jsons), Value::Bytes(b"[2]".to_vec()));
    }

    /// Two groups come to what one with the records of both comes to.
    #[test]
    fn groups_merge() {
        let cells = [Cell::Null, Cell::Int(3), Cell::Int(-1), Cell::Null, Cell::Int(5), Cell::Int(4)];
        let all = [
            Function::Count,
            Function::CountValues,
            Function::Sum,
            Function::Min,
            Function::Max,
            Function::Avg,
            Function::First,
            Function::Last,
        ];
        for function in all.into_iter().chain([Function::Collect { limit: 3 }, Function::Collect { limit: 9 }]) {
            let computed = Computed { function, of: Type::Int };
            for cut in 0..=cells.len() {
                let keep = |cells: &[Cell<'_>]| {
                    let mut kept = computed.start();
                    cells.iter().for_each(|cell| computed.add(&mut kept, *cell));
                    kept
                };
                let (mut kept, later) = (keep(&cells[..cut]), keep(&cells[cut..]));
                assert_eq!(computed.refuses_merge(&kept, &later), None);
                computed.merge(&mut kept, &later);
                assert_eq!(kept, keep(&cells), "{function:?}, cut at {cut}");
            }
        }
        let sum = Computed { function: Function::Sum, of: Type::Int };
        assert!(sum.refuses_merge(&[Value::Int(i64::MAX)], &[Value::Int(1)]).is_some());
    }

    #[test]
    fn overflows_are_refused() {
        let sum = Computed { function: Function::Sum, of: Type::Int };
        assert!(sum.refuses(&[Value::Int(i64::MAX)], Cell::Int(1)).is_some());
        assert!(sum.refuses(&[Value::Int(i64::MAX)], Cell::Int(0)).is_none());
        let avg = Computed { function: Function::Avg, of: Type::Float };
        assert!(avg.refuses(&[Value::Float(f64::MAX), Value::Int(1)], Cell::Float(f64::MAX)).is_some());
    }
}
