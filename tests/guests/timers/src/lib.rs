//! A guest with timers, as an author writes one: it counts the records of a visit, which ends 1000 ms after its last record, and is reminded of once
//! each 300 ms meanwhile.

use millstream_guest::{Fields, Rows, Timer};

const SILENCE: i64 = 1000;
const REMINDER: i64 = 300;

#[derive(Fields)]
struct Visit {
    #[field("$timestamp")]
    time: i64,
    #[field("$key")]
    key: String,
    n: i64,
}

#[derive(Fields, Clone, Default)]
struct State {
    records: i64,
    sum: i64,
    ends: i64,
}

#[derive(Fields)]
#[fields(replace)]
struct Told {
    what: String,
    records: i64,
    sum: i64,
}

/// Tells of visits when they end.
#[millstream_guest::stateful(timer = silence)]
fn visits(visit: Visit, rows: &mut Rows<State>) -> Vec<Told> {
    let mut state = rows.get(&visit.key).cloned().unwrap_or_default();
    if state.records > 0 {
        rows.delete_timer(state.ends, &visit.key);
    } else {
        rows.set_timer(visit.time + REMINDER, &visit.key);
    }
    state = State { records: state.records + 1, sum: state.sum + visit.n, ends: state.ends.max(visit.time + SILENCE) };
    rows.set_timer(state.ends, &visit.key);
    rows.put(&visit.key, state);
    Vec::new()
}

fn silence(timer: Timer<'_>, rows: &mut Rows<State>) -> Vec<Told> {
    let Some(state) = rows.get(timer.key).cloned() else { return Vec::new() };
    let (records, sum) = (state.records, state.sum);
    if state.ends == timer.time {
        rows.delete(timer.key);
        return vec![Told { what: "end".to_owned(), records, sum }];
    }
    rows.set_timer(timer.time + REMINDER, timer.key);
    vec![Told { what: "reminder".to_owned(), records, sum }]
}

#[cfg(test)]
mod tests {
    use super::Visits;
    use millstream_guest::testing::{Case, Record};
    use serde_json::json;

    #[test]
    fn visits_end() {
        let record = |time, key: &str| Record::new(json!({ "n": 1 })).key(key).timestamp(time);
        let answers = Case::<Visits>::new().run([record(0, "a"), record(500, "a"), record(2000, "b"), record(2001, "b")]);
        let told: Vec<_> =
            answers.output("out").iter().map(|record| (record.key.clone().unwrap(), record.timestamp, record.value.clone())).collect();
        // The timer at 300 is due before the record at 500; what it sets to 600, and the end at 1500, before that at 2000.
        let told = told.iter().map(|(key, time, value)| format!("{key} {time} {value}")).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                r#"a 300 {"what":"reminder","records":1,"sum":1}"#,
                r#"a 600 {"what":"reminder","records":2,"sum":2}"#,
                r#"a 1500 {"what":"end","records":2,"sum":2}"#,
            ]
        );
        assert_eq!(answers.timers.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [2300, 3001]);
    }
}
