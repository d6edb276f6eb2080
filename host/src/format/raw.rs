//! Raw bytes: no fields.
