//! Types of expressions.

use millstream_guest::column::Type;

/// What an expression yields. A value of any kind may be null where it is `nullable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Int,
    Double,
    Text,
    Bytes,
    List,
    Map,
    /// Known row by row only: a field of type `json`, or what was computed from one.
    Dyn,
}

impl Kind {
    pub fn of(field: Type) -> Self {
        match field {
            Type::Boolean => Self::Bool,
            Type::Int => Self::Int,
            Type::Float => Self::Double,
            Type::Text => Self::Text,
            Type::Bytes => Self::Bytes,
            Type::Json => Self::Dyn,
        }
    }

    /// The type of a column that holds it.
    pub fn column(self) -> Type {
        match self {
            Self::Bool => Type::Boolean,
            Self::Int => Type::Int,
            Self::Double => Type::Float,
            Self::Text => Type::Text,
            Self::Bytes => Type::Bytes,
            Self::Null | Self::List | Self::Map | Self::Dyn => Type::Json,
        }
    }

    /// In the words of a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "boolean",
            Self::Int => "int",
            Self::Double => "float",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::Map => "map",
            Self::Dyn => "json",
        }
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double)
    }

    /// Whether a value of kind `self` may be used where `other` is wanted, as far as is known before the run.
    pub fn fits(self, other: Self) -> bool {
        self == other || self == Self::Dyn || other == Self::Dyn
    }
}
