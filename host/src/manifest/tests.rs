//! The manifest from its text: mistakes and their places, types, names.
