//! A generation on trial: it works in some partitions, beside the generation that works in the others, until hosts find that it does worse and roll it
//! back, or has done well for long enough and is promoted. Each host judges by what it sees itself; the first whose judgement is made decides.

use super::control::{Control, ControlError};
use super::record::{Entry, Generation, Head, Key, Kind, Mode, Terms, Trial, Value};
use super::rollout::withdrawn;
use super::view::{Deployment, View};
use crate::shadow::Report;
use crate::summary::Works;
use std::collections::BTreeSet;

/// The share of refused records that a host without a partition beside the canary takes for too many.
const BLIND: f64 = 0.05;
/// Fewer records say nothing of a share.
const FEW: u64 = 50;
/// Fewer say nothing of the time that a record takes.
const FEW_TIMED: u64 = 1000;

/// Kinds of differences that a reason names.
const TOLD: usize = 5;

/// What a host makes of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    Undecided,
    Promote,
    RollBack(String),
}

/// Judges a trial by what its generation and the one beside it did on this host. `compared`: how it compares on all hosts, where that is asked for. `parked`:
/// why one of its tasks stands still. `lasts`: milliseconds since it began here.
pub fn judge(terms: &Terms, trial: Works, beside: Works, compared: Option<&Report>, parked: Option<&str>, lasts: i64) -> Judgement {
    if let Some(why) = parked {
        return Judgement::RollBack(why.to_owned());
    }
    let share = |works: Works| if works.records == 0 { 0.0 } else { works.refused as f64 / works.records as f64 };
    let allowed = if beside.records >= FEW { share(beside) + terms.errors } else { terms.errors.max(BLIND) };
    if trial.records >= FEW && trial.refused > 1 && share(trial) > allowed {
        return Judgement::RollBack(format!(
            "{} of {} records were refused ({:.2} %); beside it {} of {} ({:.2} %), and {:.2} % are allowed",
            trial.refused,
            trial.records,
            100.0 * share(trial),
            beside.refused,
            beside.records,
            100.0 * share(beside),
            100.0 * allowed
        ));
    }
    let nanos = |works: Works| works.time.as_nanos() as f64 / works.records.max(1) as f64;
    if let Some(slower) = terms.slower
        && trial.records >= FEW_TIMED
        && beside.records >= FEW_TIMED
        && nanos(trial) > slower * nanos(beside)
    {
        return Judgement::RollBack(format!(
            "a record takes {:.0} ns; beside it {:.0} ns, and {slower} times as much is allowed",
            nanos(trial),
            nanos(beside)
        ));
    }
    if let Some(allowed) = terms.differences
        && let Some(why) = compared.and_then(|report| differs(allowed, report))
    {
        return Judgement::RollBack(why);
    }
    // One that saw nothing has shown nothing.
    let shown = trial.records > 0 && (terms.differences.is_none() || compared.is_some_and(|report| report.records > 0));
    match terms.promote_after {
        Some(after) if lasts >= after && shown => Judgement::Promote,
        _ => Judgement::Undecided,
    }
}

/// Why a canary gives too much that the generation beside it does not give; `allowed`: the share of records.
fn differs(allowed: f64, report: &Report) -> Option<String> {
    if let Some(why) = &report.ended {
        return Some(format!("what it gives can be compared no more: {why}"));
    }
    let share = report.differing as f64 / report.records.max(1) as f64;
    // One may be anybody's, unless none is allowed.
    let few = report.records < FEW || report.differing <= u64::from(allowed > 0.0);
    if few || share <= allowed {
        return None;
    }
    let mut kinds: Vec<_> = report.differences.iter().collect();
    kinds.sort_by_key(|(_, difference)| std::cmp::Reverse(difference.count));
    let told: Vec<String> = kinds.iter().take(TOLD).map(|(what, difference)| difference.told(what)).collect();
    let more = kinds.len().saturating_sub(TOLD);
    Some(format!(
        "of {} of {} records something else came than beside it ({:.2} %), and {:.2} % are allowed: {}{}",
        report.differing,
        report.records,
        100.0 * share,
        100.0 * allowed,
        told.join("; "),
        if more > 0 { format!("; and {more} kinds more") } else { String::new() }
    ))
}

/// Judges a generation in the shadow by what all hosts have reported.
pub fn judge_shadow(clean: Option<u64>, report: &Report) -> Judgement {
    if let Some(why) = &report.ended {
        return Judgement::RollBack(why.clone());
    }
    match clean {
        Some(clean) if report.clean >= clean => Judgement::Promote,
        _ => Judgement::Undecided,
    }
}

/// The partition numbers of a trial that is to have a share of them: at least one, never all. None: there is but one.
pub fn share_of(partitions: i32, share: f64) -> Option<BTreeSet<i32>> {
    if partitions < 2 {
        return None;
    }
    let count = ((f64::from(partitions) * share).round() as i32).clamp(1, partitions - 1);
    // Spread, as hosts have neighbours.
    Some((0..count).map(|number| number * partitions / count).collect())
}

/// The trial of a pipeline, if one is on.
pub fn of<'v>(view: &'v View, pipeline: &str) -> Option<(&'v Deployment, &'v Head, &'v Trial)> {
    let known = view.pipeline(pipeline)?;
    let head = known.head.as_ref()?;
    Some((known, head, head.trial.as_ref()?))
}

/// Ends a trial: its generation works everywhere.
///
/// False: it is no longer on.
pub fn promote(control: &mut Control, pipeline: &str, generation: u64, now: i64, by: &str) -> Result<bool, ControlError> {
    let mut done = false;
    control.change(|view| {
        done = false;
        let Some((_, head, _)) = of(view, pipeline).filter(|(.., trial)| trial.generation == generation) else { return Ok(Vec::new()) };
        done = true;
        let head = Head { generation, trial: None, next: None, at: now, by: by.to_owned(), ..head.clone() };
        Ok(vec![(Key::Head(pipeline.to_owned()), Some(Value::Head(head)))])
    })?;
    Ok(done)
}

/// Ends a trial: what worked beside it works everywhere again. Behind a canary that is a new generation, since partitions have committed by the one on trial.
///
/// The number of the generation that works; None: the trial is no longer on.
pub fn roll_back(
    control: &mut Control,
    pipeline: &str,
    generation: u64,
    reason: &str,
    now: i64,
    by: &str,
) -> Result<Option<u64>, ControlError> {
    let mut number = None;
    control.change(|view| {
        number = None;
        let Some((known, head, trial)) = of(view, pipeline).filter(|(.., trial)| trial.generation == generation) else {
            return Ok(Vec::new());
        };
        let Some(beside) = known.generations.get(&head.generation) else { return Ok(Vec::new()) };
        let tried = known.generations.get(&generation);
        let withdrawn = tried.map(|tried| withdrawn(pipeline, tried, format!("rolled back: {reason}")));
        if let Mode::Shadow { .. } = trial.mode {
            // It has committed nothing: what works goes on as it is.
            number = Some(head.generation);
            let head = Head { trial: None, at: now, by: by.to_owned(), ..head.clone() };
            return Ok(withdrawn.into_iter().chain([(Key::Head(pipeline.to_owned()), Some(Value::Head(head)))]).collect());
        }
        let next = known.next_number();
        number = Some(next);
        let back = Generation {
            number: next,
            base: head.generation,
            kind: Kind::Rollback { of: head.generation },
            at: now,
            by: by.to_owned(),
            withdrawn: None,
            ..beside.clone()
        };
        let mut entries: Vec<Entry> = vec![(Key::Generation(pipeline.to_owned(), next), Some(Value::Generation(back)))];
        entries.extend(withdrawn);
        let head = Head { generation: next, trial: None, next: None, at: now, by: by.to_owned(), ..head.clone() };
        entries.push((Key::Head(pipeline.to_owned()), Some(Value::Head(head))));
        Ok(entries)
    })?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shadow::Difference;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn works(records: u64, refused: u64, nanos: u64) -> Works {
        Works { records, refused, time: Duration::from_nanos(nanos * records) }
    }

    const TERMS: Terms = Terms { promote_after: Some(60_000), errors: 0.001, slower: Some(2.0), differences: None };

    #[test]
    fn a_trial_is_judged_by_errors_time_and_patience() {
        use Judgement::*;
        let beside = works(100_000, 100, 500);
        let judged = |trial, lasts| judge(&TERMS, trial, beside, None, None, lasts);
        // As many as beside it, and a few more.
        assert_eq!(judged(works(10_000, 19, 500), 1000), Undecided);
        assert!(matches!(judged(works(10_000, 21, 500), 1000), RollBack(why) if why.contains("21 of 10000")));
        assert_eq!(judged(works(49, 49, 500), 1000), Undecided, "too few to say");
        assert_eq!(judged(works(200, 1, 500), 1000), Undecided, "one may be anybody's");
        assert!(matches!(judged(works(200, 2, 500), 1000), RollBack(_)), "one in a hundred");
        assert!(matches!(judged(works(2000, 0, 1001), 1000), RollBack(why) if why.contains("1001 ns")));
        assert_eq!(judged(works(999, 0, 9000), 1000), Undecided);
        assert_eq!(judged(works(1, 0, 500), 60_000), Promote);
        assert_eq!(judged(works(0, 0, 0), 600_000), Undecided, "it saw nothing");
        let blind = |refused| judge(&TERMS, works(200, refused, 1), works(0, 0, 1), None, None, 0);
        assert_eq!(blind(10), Undecided, "how many are usual is not known here");
        assert!(matches!(blind(11), RollBack(_)));
        assert!(matches!(judge(&TERMS, works(1, 0, 1), beside, None, Some("trapped"), 0), RollBack(why) if why == "trapped"));
        let patient = Terms { promote_after: None, slower: None, ..TERMS };
        assert_eq!(judge(&patient, works(5000, 0, 9000), beside, None, None, i64::MAX), Undecided);
    }

    #[test]
    fn a_trial_is_judged_by_what_comes_of_its_records() {
        use Judgement::*;
        let difference = |count, example: &str| Difference { count, examples: vec![example.to_owned()] };
        let report = |records, differing| Report {
            records,
            differing,
            differences: BTreeMap::from([("out: a".to_owned(), difference(1, "in/0@1")), ("out: b".to_owned(), difference(9, "in/0@7"))]),
            ..Report::default()
        };
        let judged = |differences, report: Option<&Report>| {
            let terms = Terms { differences, ..TERMS };
            judge(&terms, works(1000, 0, 1), works(1000, 0, 1), report, None, 60_000)
        };
        assert_eq!(judged(None, Some(&report(1000, 1000))), Promote, "that was not asked for");
        assert_eq!(judged(Some(0.01), None), Undecided, "nothing is compared yet");
        assert_eq!(judged(Some(0.01), Some(&report(0, 0))), Undecided);
        assert_eq!(judged(Some(0.01), Some(&report(1000, 10))), Promote);
        let RollBack(why) = judged(Some(0.01), Some(&report(1000, 11))) else { panic!("eleven are too many") };
        assert!(why.contains("11 of 1000") && why.contains("1.10 %") && why.contains("out: b: 9 (in/0@7); out: a: 1 (in/0@1)"), "{why}");
        assert_eq!(judged(Some(0.01), Some(&report(49, 49))), Promote, "too few to say");
        assert_eq!(judged(Some(0.01), Some(&report(60, 1))), Promote, "one may be anybody's");
        assert!(matches!(judged(Some(0.0), Some(&report(60, 1))), RollBack(_)), "none is allowed");
        let ended = Report { ended: Some("it trapped".to_owned()), ..report(1000, 0) };
        assert!(matches!(judged(Some(0.01), Some(&ended)), RollBack(why) if why.contains("it trapped")));
    }

    #[test]
    fn a_share_is_at_least_one_and_never_all() {
        let share = |partitions, share| share_of(partitions, share).map(|chosen| chosen.into_iter().collect::<Vec<_>>());
        assert_eq!(share(1, 0.5), None);
        assert_eq!(share(4, 0.01), Some(vec![0]));
        assert_eq!(share(4, 0.5), Some(vec![0, 2]));
        assert_eq!(share(4, 1.0), Some(vec![0, 1, 2]));
        assert_eq!(share(12, 0.25), Some(vec![0, 4, 8]));
    }
}
