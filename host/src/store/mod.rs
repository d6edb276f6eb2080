//! State stores of a task.
