//! From a file to a checked pipeline.
