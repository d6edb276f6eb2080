//! Mistakes that tests plant, to see that the simulator (`simulation`) finds them. In the program itself none is ever there.

/// A mistake that others have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Rows reach the local copy before their commit is through.
    ApplyBeforeCommit,
    /// A restore reads to the last stable offset only.
    RestoreToLastStable,
    /// A transaction carries no positions.
    NoPositions,
    /// Positions lie one too far.
    OnePastPositions,
    /// Tasks keep what was not committed after an abort.
    OverlayKept,
    /// A checkpoint is made of an end that no later commit has proved.
    UnprovedCheckpoint,
    /// The same producer goes on after a commit of which nobody knows how it ended.
    GoesOnAfterIndefinite,
    /// Timers are kept beside the transaction, in the local copy alone.
    TimersApart,
    /// Records meet a table's rows as they come, not as of their place.
    NoPatience,
    /// That a generation begins to work is not told with the positions.
    NoCut,
    /// A task is taken although it is at a newer generation.
    NotBehind,
    /// The sweep does not see what is newer than the local copy.
    SweepBelow,
    /// A task that is made anew inherits the pauses of the one before.
    PausesKept,
    /// A deployment does not wait until repartition topics are empty.
    NotEmptied,
    /// Workers go on taking records of sources that are shut.
    NotShut,
    /// A host takes of the sources again without having looked what came of the deployment.
    #[cfg(test)]
    OpensUnheard,
    /// The member does not tell its generation with the positions.
    #[cfg(test)]
    NoGeneration,
    /// Positions are committed beside the transaction.
    #[cfg(test)]
    PositionsApart,
    /// At least once: positions are committed before what was written is acknowledged.
    #[cfg(test)]
    PositionsFirst,
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted(_: Mistake) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::{plant, planted};

#[cfg(test)]
mod switch {
    use super::Mistake;
    use std::cell::Cell;

    thread_local!(static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) });

    pub(crate) fn planted(mistake: Mistake) -> bool {
        PLANTED.get() == Some(mistake)
    }

    /// Plants a mistake in this thread, or takes it out again.
    pub(crate) fn plant(mistake: Option<Mistake>) {
        PLANTED.set(mistake);
    }
}
