//! What a seed makes of a run.

use crate::simulation::random::Random;
use crate::simulation::workload::Kind;
use crate::simulation::world::Faults;
use std::time::Duration;

/// What happens most in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Whatever a seed makes of it.
    Any,
    /// Two hosts stand still often and write checkpoints all the time.
    Restless,
    /// Two hosts hand tasks over one by one, while partitions are paused and appends are not taken: tasks that stay begin anew.
    Parting,
}

/// What a seed makes of a run.
#[derive(Clone, Debug)]
pub struct Shape {
    pub workers: usize,
    /// The workers are of one process, with one folder.
    pub one_host: bool,
    pub partitions: i32,
    pub kind: Kind,
    /// Rows of a table come only when all before them is processed, and records of the stream too: then it is known what they meet.
    pub gated: bool,
    /// Members keep through a rebalance what stays theirs.
    pub partial: bool,
    /// New generations of the pipeline come while it runs.
    pub swaps: bool,
    /// So many runs to the end, each over a part of the records; 0 = one that goes on.
    pub runs: usize,
    /// The last of them closes every window.
    pub close: bool,
    /// By user: how many numbers come.
    pub counts: Vec<i64>,
    pub steps: usize,
    pub batch_rows: usize,
    pub queue_rows: usize,
    pub commit_interval: Duration,
    pub commit_rows: usize,
    pub checkpoint_interval: Duration,
    pub faults: Faults,
    pub slow: usize,
}

impl Shape {
    pub fn of(random: &mut Random, kind: Kind, mood: Mood) -> Self {
        let workers = 1 + random.below(2);
        let users = 1 + random.below(4);
        let shape = Self {
            workers,
            one_host: workers > 1 && random.once_in(3),
            partitions: 1 + random.below(2) as i32,
            kind,
            gated: random.once_in(2),
            partial: random.once_in(3),
            swaps: kind.swaps() && random.once_in(2),
            runs: random.of(&[0, 0, 0, 1, 2, 3]),
            close: random.once_in(2),
            counts: (0..users).map(|_| 1 + random.below(14) as i64).collect(),
            steps: 40 + random.below(120),
            batch_rows: 1 + random.below(5),
            queue_rows: random.of(&[2, 100]),
            commit_interval: Duration::from_millis(random.of(&[0, 5, 50])),
            commit_rows: 1 + random.below(12),
            // As often marks are repeated, which is no rest.
            checkpoint_interval: Duration::from_millis(random.of(if kind == Kind::Chained { &[400, 1000] } else { &[0, 0, 20, 400] })),
            faults: Faults {
                crash: random.of(&[0, 60, 150, 400]),
                still: random.of(&[0, 30, 100]),
                away: random.of(&[0, 0, 100, 400]),
                untaken: random.of(&[0, 0, 30, 100]),
                indefinite: random.of(&[0, 3, 10]),
            },
            slow: random.of(&[2, 2, 8]),
        };
        let shape = match kind {
            // Each host has one worker, and goes on through all generations.
            Kind::Emptied => {
                // Records for all of them.
                let counts = shape.counts.iter().map(|count| 3 * count).collect();
                // What is processed waits longer for its commit than a worker for telling how far it is.
                let (commit_interval, commit_rows) =
                    (random.of(&[shape.commit_interval, Duration::from_secs(1)]), random.of(&[shape.commit_rows, 1000]));
                Self { one_host: false, runs: 0, counts, steps: 2 * shape.steps, commit_interval, commit_rows, ..shape }
            }
            _ => Self { swaps: shape.swaps && shape.runs == 0, ..shape },
        };
        let faults = shape.faults;
        match mood {
            Mood::Any => shape,
            Mood::Restless => Self {
                workers: 2,
                one_host: false,
                runs: 0,
                partial: false,
                steps: 160,
                checkpoint_interval: Duration::ZERO,
                faults: Faults { still: 15, crash: 400, away: 0, indefinite: 0, ..faults },
                ..shape
            },
            Mood::Parting => Self {
                workers: 2,
                one_host: false,
                partial: true,
                partitions: 2,
                queue_rows: 2,
                counts: vec![14; 4],
                faults: Faults { still: 30, untaken: 30, ..faults },
                ..shape
            },
        }
    }
}
