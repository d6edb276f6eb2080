//! Why an expression has no value for a row. Never with the value.

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    Overflow = 1,
    DivisionByZero,
    NullOperand,
    NotOrdered,
    WrongType,
    NotBoolean,
    MissingKey,
    OutOfBounds,
    Conversion,
    NotFinite,
    Malformed,
    Null,
}

impl Fault {
    const ALL: [Self; 12] = [
        Self::Overflow,
        Self::DivisionByZero,
        Self::NullOperand,
        Self::NotOrdered,
        Self::WrongType,
        Self::NotBoolean,
        Self::MissingKey,
        Self::OutOfBounds,
        Self::Conversion,
        Self::NotFinite,
        Self::Malformed,
        Self::Null,
    ];

    pub fn message(self) -> &'static str {
        match self {
            Self::Overflow => "the result does not fit into an int",
            Self::DivisionByZero => "division by zero",
            Self::NullOperand => "an operand is null",
            Self::NotOrdered => "the values have no order (null, NaN, or of different types)",
            Self::WrongType => "an operand has a type for which this is not defined",
            Self::NotBoolean => "not a boolean",
            Self::MissingKey => "there is no such key",
            Self::OutOfBounds => "the index is out of bounds",
            Self::Conversion => "a function cannot convert its argument",
            Self::NotFinite => "the result is not a finite number",
            Self::Malformed => "a field is not valid JSON",
            Self::Null => "the result is null",
        }
    }
}

/// A fault and the node at which it arose, in one word; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Code(u32);

impl Code {
    pub const NONE: Self = Self(0);

    pub fn new(node: u16, fault: Fault) -> Self {
        Self(u32::from(node) << 8 | fault as u32)
    }

    #[inline]
    pub fn is_some(self) -> bool {
        self.0 != 0
    }

    pub fn node(self) -> usize {
        (self.0 >> 8) as usize
    }

    pub fn fault(self) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| *fault as u32 == self.0 & 0xff)
    }
}
