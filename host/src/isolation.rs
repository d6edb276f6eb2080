//! Finds a record that the log refuses. A refusal spoils the whole transaction and does not say whose it was: the same records are read again and
//! committed in ever smaller parts, until a commit of one record is refused. That record gets its policy; then the commits grow back.

use crate::io::TopicPartition;

/// What the log refused, by the record whose results it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guilty {
    pub at: TopicPartition,
    pub offset: i64,
    /// The log's words.
    pub reason: String,
}

/// A search that goes on. It begins with a refusal.
#[derive(Debug, Default)]
pub struct Isolation {
    /// Rows of the next commit.
    rows: usize,
    /// Rows of refused commits that are not committed yet.
    left: usize,
    guilty: Vec<Guilty>,
}

/// What a refused commit leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// Read again, and commit less.
    Narrower,
    /// It cannot be found, or its dead letter is refused as well.
    Hopeless,
}

impl Isolation {
    /// At most so many rows are to be processed and committed at once.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The records that were found.
    pub fn guilty(&self) -> &[Guilty] {
        &self.guilty
    }

    pub fn found(&self) -> bool {
        !self.guilty.is_empty()
    }

    /// A commit of so many rows was refused. `last`: the last of them, if all results were of records.
    pub fn refused(&mut self, rows: usize, last: Option<Guilty>) -> Finding {
        self.left = self.left.max(rows);
        self.rows = rows.div_ceil(2).max(1);
        match last {
            _ if rows == 0 => Finding::Hopeless,
            _ if rows > 1 => Finding::Narrower,
            None => Finding::Hopeless,
            Some(last) if self.guilty.iter().any(|known| (&known.at, known.offset) == (&last.at, last.offset)) => Finding::Hopeless,
            Some(last) => {
                self.guilty.push(last);
                Finding::Narrower
            }
        }
    }

    /// A commit of so many rows went well. True: all that was refused is committed.
    pub fn committed(&mut self, rows: usize, full: usize) -> bool {
        self.left = self.left.saturating_sub(rows);
        self.rows = self.rows.saturating_mul(2).min(full);
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many commits it takes until all are through, and which records were found.
    fn search(records: usize, guilty: &[usize], full: usize) -> (usize, Vec<i64>) {
        let (mut next, mut commits, mut found) = (0, 0, Vec::new());
        let mut isolation: Option<Isolation> = None;
        while next < records {
            let rows = isolation.as_ref().map_or(full, Isolation::rows).min(records - next);
            let passes = |at: &usize| !found.contains(&(*at as i64));
            commits += 1;
            if guilty.iter().any(|at| (next..next + rows).contains(at) && passes(at)) {
                let last = Guilty { at: TopicPartition::new("t", 0), offset: (next + rows - 1) as i64, reason: String::new() };
                let search = isolation.get_or_insert_default();
                assert_eq!(search.refused(rows, Some(last)), Finding::Narrower);
                found = search.guilty().iter().map(|guilty| guilty.offset).chain(found).collect();
                found.sort_unstable();
                found.dedup();
            } else {
                next += rows;
                if let Some(ended) = isolation.take_if(|search| search.committed(rows, full)) {
                    assert!(ended.found(), "it ended before it found any");
                }
            }
        }
        (commits, found)
    }

    #[test]
    fn every_guilty_record_is_found_and_no_other() {
        for (records, guilty) in [
            (1, vec![0]),
            (1000, vec![0]),
            (1000, vec![999]),
            (1000, vec![17, 18, 400]),
            (50_000, vec![31_415]),
            (120_000, vec![3, 49_999, 50_000, 119_999]),
        ] {
            let (commits, found) = search(records, &guilty, 50_000);
            assert_eq!(found, guilty.iter().map(|at| *at as i64).collect::<Vec<_>>());
            assert!(commits < 150 * guilty.len(), "{commits} commits for {guilty:?}");
        }
    }

    #[test]
    fn a_record_that_is_refused_in_spite_of_its_policy_ends_the_search() {
        let mut search = Isolation::default();
        let last = || Some(Guilty { at: TopicPartition::new("t", 0), offset: 7, reason: String::new() });
        assert_eq!(search.refused(1, last()), Finding::Narrower);
        assert_eq!(search.refused(1, last()), Finding::Hopeless);
        assert_eq!(search.refused(0, None), Finding::Hopeless);
        // Results of no record are no record's fault.
        assert_eq!(Isolation::default().refused(1, None), Finding::Hopeless);
        assert_eq!(Isolation::default().refused(2, None), Finding::Narrower);
    }
}
