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

/// A search that goes on.
#[derive(Debug)]
pub struct Isolation {
    /// Rows of the next commit.
    rows: usize,
    guilty: Option<Guilty>,
    /// The log's words at the beginning.
    reason: String,
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
    /// `rows`: of the commit that was refused.
    pub fn begin(rows: usize, reason: String) -> Self {
        Self { rows: rows.div_ceil(2).max(1), guilty: None, reason }
    }

    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// At most so many rows are to be processed and committed at once.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn guilty(&self) -> Option<&Guilty> {
        self.guilty.as_ref()
    }

    /// A commit of so many rows was refused; `last`: the last of them.
    pub fn refused(&mut self, rows: usize, last: Option<Guilty>) -> Finding {
        match last {
            Some(last) if rows == 1 => {
                let again = self.guilty.as_ref().is_some_and(|known| (&known.at, known.offset) == (&last.at, last.offset));
                self.guilty = Some(last);
                self.rows = 1;
                if again { Finding::Hopeless } else { Finding::Narrower }
            }
            _ if rows == 0 => Finding::Hopeless,
            _ => {
                self.rows = rows.div_ceil(2);
                Finding::Narrower
            }
        }
    }

    /// A commit went well. True: commits have their full size again.
    pub fn committed(&mut self, full: usize) -> bool {
        self.rows = self.rows.saturating_mul(2);
        self.rows >= full
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
                let search = isolation.get_or_insert_with(|| Isolation::begin(rows, String::new()));
                assert_eq!(search.refused(rows, (rows == 1).then_some(last)), Finding::Narrower);
                found.extend(search.guilty().map(|guilty| guilty.offset).filter(|_| rows == 1));
            } else {
                next += rows;
                if isolation.as_mut().is_some_and(|search| search.committed(full)) {
                    isolation = None;
                }
            }
        }
        (commits, found)
    }

    #[test]
    fn every_guilty_record_is_found_and_no_other() {
        for (records, guilty) in [(1, vec![0]), (1000, vec![0]), (1000, vec![999]), (1000, vec![17, 18, 400]), (50_000, vec![31_415])] {
            let (commits, found) = search(records, &guilty, 50_000);
            assert_eq!(found, guilty.iter().map(|at| *at as i64).collect::<Vec<_>>());
            assert!(commits < 150 * guilty.len(), "{commits} commits for {guilty:?}");
        }
    }

    #[test]
    fn a_record_that_is_refused_in_spite_of_its_policy_ends_the_search() {
        let mut search = Isolation::begin(1, String::new());
        let last = || Some(Guilty { at: TopicPartition::new("t", 0), offset: 7, reason: String::new() });
        assert_eq!(search.refused(1, last()), Finding::Narrower);
        assert_eq!(search.refused(1, last()), Finding::Hopeless);
        assert_eq!(search.refused(0, None), Finding::Hopeless);
    }
}
