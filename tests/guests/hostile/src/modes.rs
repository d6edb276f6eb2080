//! The modes, shared by the guest and its test, which has an arm for each.

macro_rules! modes {
    ($($mode:ident),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mode { $($mode),* }

        impl Mode {
            pub const ALL: &[Mode] = &[$(Mode::$mode),*];

            /// As in the configuration `{"mode": "<name>"}`.
            pub fn name(self) -> &'static str {
                match self { $(Mode::$mode => stringify!($mode)),* }
            }
        }
    };
}

modes! {
    // Well-behaved.
    Identity, Half, Echo, Good, State, Log,
    // Runs wild.
    EndlessLoop, MemoryHog, Unreachable, Panic, Recursion, RecursionWithFrames, WildPointer, FailProcess,
    FailInit, PanicInit, LoopInit, StateInInit,
    LoopDescribe, MemoryDescribe, GarbageDescribe, EmptyDescribe, TwoOutputsOfAName, UnknownTable, FloatKeys, StateInDescribe,
    MistakesDescribe, NoMistakes,
    // Uses state and tables wrongly.
    UnknownStore, KeysOfAnotherType, NullKey, TooFewFields, FieldOfAnotherType, FieldTooShort, NullField, ScanWithTwoKeys, TextKeysNotUtf8,
    TableUnknown, TableRowOutOfRange, TableLengths, Refused,
    // Answers what cannot be read at all.
    ReasonNotUtf8, ManyLongReasons,
    // Answers what breaks a rule.
    SelectFalls, SelectRepeats, SelectOutOfRange, SelectRejected, RejectOutOfRange, RejectTwice,
    OutputUnknown, OutputTwice, SourceFalls, SourceOutOfRange, SourceRejected, FromNoneInExtend, FromNoneWithoutKeys, FromNoneWithoutTimestamps,
    FieldsMissing, FieldsTooMany, FieldTypeWrong, IntsTooFew, IntsTooMany, FloatNan, FloatInfinite, BoolsTooShort,
    OffsetsTooFew, OffsetsEmpty, OffsetsNotFromZero, OffsetsFall, OffsetsBeyondData, OffsetsBeforeEnd,
    TextNotUtf8, TextCutsCharacter, JsonInvalid, JsonInjects, JsonNull, JsonTooDeep, JsonNotUtf8,
    ValidityTooShort, ValidityTooLong, KeptTooShort, KeptInReplace, RemovedTooLong, NullNeverNull, TombstonesTooLong, TimestampsTooFew,
    KeysOfText, KeysTooFew, ValuesWithFields, ValuesOfText, ValuesTooMany,
    HeadersTooFew, HeadersFall, HeaderNamesTooFew, HeaderValuesTooFew, HeaderValuesOfText,
    LeavesNotAsked, LeavesInReplace, LeavesOfRepeatedRow, LeavesFall, LeavesRepeat, LeavesOutOfRange, LeavesTooFew, LeavesNotUtf8,
}
