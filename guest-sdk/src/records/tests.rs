//! The macros and what stands behind them, by plugins as an author writes them.

use crate::testing::{Case, Record};
use crate::{Change, Fields, Json, Outputs, Reject, Rows};
use serde_json::json;

#[derive(Fields)]
struct Rating<'a> {
    channel: &'a str,
    stars: i64,
    #[field("user.id")]
    user_id: Option<i64>,
}

/// Drops what the test channel sent.
///
/// More about it.
#[crate::filter(name = "drop-tests")]
fn keep(rating: Rating) -> bool {
    assert!(rating.stars < 1000, "more stars than there are");
    rating.channel != "iOS-test" && rating.user_id != Some(0)
}

#[test]
fn a_filter_keeps_records_as_they_are() {
    let records = [
        json!({ "channel": "web", "stars": 1, "other": [1, 2] }),
        json!({ "channel": "iOS-test", "stars": 2 }),
        json!({ "stars": 3 }),
        json!({ "channel": "web", "stars": "4" }),
        json!({ "channel": "web", "stars": 5, "user": { "id": 0 } }),
        json!(null),
    ];
    let answers = Case::<Keep>::new().run(records.clone());
    assert_eq!(answers.values("out"), [records[0].clone(), json!(null)]);
    assert_eq!(answers.rejects, [(2, "`channel` is missing".to_owned()), (3, "`stars` is not of type int".to_owned())]);
}

#[test]
fn a_plugin_says_what_it_is() {
    let about = crate::transform::about::<Keep>();
    assert_eq!((about.name.as_str(), about.summary.as_str()), ("drop-tests", "Drops what the test channel sent."));
    let description = Case::<Keep>::new().describe().unwrap();
    let reads: Vec<_> = description.reads.iter().map(|read| (read.path.to_string(), read.kind.name(), read.required)).collect();
    assert_eq!(reads, [("channel".to_owned(), "text", true), ("stars".to_owned(), "int", true), ("user.id".to_owned(), "int", false)]);
    let mistakes = Case::<Keep>::new().config(json!({ "where": 1 })).describe().unwrap_err();
    assert_eq!(mistakes[0].at, "/where");
}

#[test]
fn a_panic_knows_its_row() {
    let records = [json!({ "channel": "web", "stars": 1 }), json!({ "channel": "web", "stars": 1000 })];
    std::panic::catch_unwind(|| Case::<Keep>::new().run(records)).unwrap_err();
    assert_eq!(crate::log::current_row(), Some(1));
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scale {
    factor: i64,
}

#[derive(Fields)]
struct Scaled<'a> {
    stars: i64,
    channel: Change<&'a str>,
    tags: Json<Vec<String>>,
    #[field("$key")]
    key: String,
    ratio: f64,
}

#[crate::map]
fn scale_stars<'a>(rating: Rating<'a>, scale: &Scale) -> Result<Option<Scaled<'a>>, Reject> {
    let stars = rating.stars.checked_mul(scale.factor).ok_or_else(|| Reject::new("too many stars"))?;
    if stars == 0 {
        return Ok(None);
    }
    let channel = match rating.channel {
        "keep" => Change::Keep,
        "remove" => Change::Remove,
        other => Change::Set(&other[..1]),
    };
    let tags = Json(vec![rating.channel.to_owned()]);
    Ok(Some(Scaled { stars, channel, tags, key: stars.to_string(), ratio: 1.0 / (stars - 7) as f64 }))
}

#[test]
fn a_map_writes_into_the_record() {
    let record = |channel: &str, stars: i64| Record::new(json!({ "channel": channel, "stars": stars, "other": true })).timestamp(stars);
    let records = [record("keep", 2), record("remove", 4), record("web", 6), record("web", 0), record("web", i64::MAX), record("nan", 7)];
    let answers = Case::<ScaleStars>::new().config(json!({ "factor": 1 })).run(records.clone());
    assert_eq!(
        answers.values("out"),
        [
            json!({ "channel": "keep", "stars": 2, "other": true, "tags": ["keep"], "ratio": -0.2 }),
            json!({ "stars": 4, "other": true, "tags": ["remove"], "ratio": -1.0 / 3.0 }),
            json!({ "channel": "w", "stars": 6, "other": true, "tags": ["web"], "ratio": -1.0 }),
            json!({ "channel": "w", "stars": i64::MAX, "other": true, "tags": ["web"], "ratio": 1.0 / (i64::MAX - 7) as f64 }),
        ]
    );
    assert_eq!(answers.rejects, [(5, "`ratio` is no finite number".to_owned())]);
    let keys: Vec<_> = answers.output("out").iter().map(|record| (record.key.clone().unwrap(), record.timestamp)).collect();
    assert_eq!(keys[1], ("4".to_owned(), 4));
    let answers = Case::<ScaleStars>::new().config(json!({ "factor": 2 })).run(records);
    assert_eq!(answers.rejects, [(4, "too many stars".to_owned())]);
}

#[derive(Fields)]
struct Basket {
    id: i64,
    items: Json<Vec<String>>,
}

#[derive(Fields)]
#[fields(replace)]
struct Item {
    basket: i64,
    item: String,
}

#[derive(Outputs)]
enum Routed {
    #[output("out")]
    Item(Item),
    EmptyBasket,
}

#[crate::map]
fn explode(basket: Basket) -> Vec<Result<Routed, Reject>> {
    if basket.items.0.is_empty() {
        return vec![Ok(Routed::EmptyBasket)];
    }
    let item =
        |item: String| if item == "bad" { Err(Reject::new("a bad item")) } else { Ok(Routed::Item(Item { basket: basket.id, item })) };
    basket.items.0.into_iter().map(item).collect()
}

#[test]
fn one_record_becomes_many_for_several_outputs() {
    let records = [
        json!({ "id": 1, "items": ["a", "b"] }),
        json!({ "id": 2, "items": [] }),
        json!({ "id": 3, "items": ["c", "bad", "d"] }),
        json!({ "id": 4, "items": "x" }),
        json!({ "id": 5, "items": ["e"] }),
    ];
    let answers = Case::<Explode>::new().run(records);
    let item = |basket: i64, item: &str| json!({ "basket": basket, "item": item });
    assert_eq!(answers.values("out"), [item(1, "a"), item(1, "b"), item(5, "e")]);
    assert_eq!(answers.values("empty-basket"), [json!({ "id": 2, "items": [] })]);
    assert_eq!(answers.rejects, [(2, "a bad item".to_owned()), (3, "`items` does not hold what the plugin expects there".to_owned())]);
}

#[derive(Fields)]
struct Booking {
    amount: f64,
}

#[derive(Fields, Clone, Default)]
struct Account {
    balance: f64,
    bookings: i64,
}

#[derive(Fields)]
struct Balance {
    balance: f64,
}

#[crate::aggregate(by = ["bank", "account"])]
fn keep_balance(state: &mut Account, booking: Booking) -> Result<Balance, Reject> {
    state.balance += booking.amount;
    state.bookings += 1;
    if state.balance < 0.0 { Err(Reject::new("overdrawn")) } else { Ok(Balance { balance: state.balance }) }
}

#[test]
fn an_aggregate_keeps_a_row_for_each_key() {
    let booking = |account: &str, amount: f64| json!({ "bank": "b", "account": account, "amount": amount });
    let records =
        [booking("x", 50.0), booking("y", 1.0), booking("x", -60.0), booking("x", f64::MAX), booking("x", f64::MAX), booking("x", 25.0)];
    let answers = Case::<KeepBalance>::new().run(records);
    let balances: Vec<_> = answers.values("out").iter().map(|value| value["balance"].as_f64().unwrap()).collect();
    assert_eq!(balances, [50.0, 1.0, f64::MAX, f64::MAX]);
    assert_eq!(answers.rejects, [(2, "overdrawn".to_owned()), (4, "`balance` is no finite number".to_owned())]);
    assert_eq!(answers.state(r#"{"bank":"b","account":"x"}"#), Some(&json!({ "balance": f64::MAX, "bookings": 3 })));
    let store = &Case::<KeepBalance>::new().describe().unwrap().stores[0];
    assert_eq!(store.by.iter().map(ToString::to_string).collect::<Vec<_>>(), ["bank", "account"]);
}

#[derive(Fields)]
struct Transfer<'a> {
    from: &'a str,
    to: &'a str,
    amount: i64,
}

#[derive(Fields, Clone, Default)]
struct Purse {
    cents: i64,
}

#[crate::stateful(by = "from", keys = |transfer: &Transfer, keys: &mut crate::Keys| keys.add(transfer.to))]
fn carry_out(transfer: Transfer, purses: &mut Rows<Purse>) -> Result<bool, Reject> {
    let cents = purses.get(transfer.to).map_or(0, |purse| purse.cents);
    purses.put(transfer.to, Purse { cents: cents + transfer.amount });
    let cents = purses.get(transfer.from).map_or(100, |purse| purse.cents) - transfer.amount;
    if cents == 0 {
        purses.delete(transfer.from)
    } else {
        purses.put(transfer.from, Purse { cents })
    }
    if cents < 0 { Err(Reject::new("not enough")) } else { Ok(transfer.amount > 0) }
}

#[test]
fn what_a_refused_record_wrote_is_undone() {
    let transfer = |from: &str, to: &str, amount: i64| json!({ "from": from, "to": to, "amount": amount });
    let records = [transfer("a", "b", 30), transfer("a", "c", 80), transfer("b", "c", 30), transfer("c", "d", 0), transfer("e", "f", 101)];
    let answers = Case::<CarryOut>::new().run(records.clone());
    assert_eq!(answers.values("out"), [records[0].clone(), records[2].clone()]);
    assert_eq!(answers.rejects, [(1, "not enough".to_owned()), (4, "not enough".to_owned())]);
    let purses: Vec<_> = answers.stores[0].iter().map(|(key, row)| (key.as_str(), row["cents"].as_i64().unwrap())).collect();
    assert_eq!(purses, [("a", 70), ("c", 30), ("d", 0)]);
}

#[derive(Fields)]
struct User<'a> {
    club_status: &'a str,
    #[field("name.last")]
    last_name: Option<&'a str>,
}

#[derive(Fields)]
struct WithUser<'a> {
    club_status: Option<&'a str>,
    last_name: Change<&'a str>,
}

#[crate::enrich(table = "users", on = "user.id")]
fn add_user<'a>(rating: Rating<'a>, user: Option<User<'a>>) -> Option<WithUser<'a>> {
    if rating.stars == 0 && user.is_none() {
        return None;
    }
    let last_name = user.as_ref().and_then(|user| user.last_name).map_or(Change::Keep, Change::Set);
    Some(WithUser { club_status: user.map(|user| user.club_status), last_name })
}

#[test]
fn a_join_finds_rows_by_the_digits_of_an_int() {
    let columns = [("age", "int?"), ("name.last", "text?"), ("club_status", "text")];
    let case = || Case::<AddUser>::new();
    let users = || [("3", json!({ "club_status": "Platinum", "name": { "last": "Doe" } })), ("4", json!({ "club_status": "Gold" }))];
    let rating = |user: i64, stars: i64| json!({ "channel": "web", "stars": stars, "user": { "id": user } });
    let records = [rating(3, 1), rating(4, 1), rating(5, 0), rating(6, 1), json!({ "channel": "web", "stars": 1 })];
    let answers = case().table("users", &columns, users()).run(records);
    let joined: Vec<_> =
        answers.values("out").iter().map(|value| (value["club_status"].clone(), value.get("last_name").cloned())).collect();
    assert_eq!(joined, [(json!("Platinum"), Some(json!("Doe"))), (json!("Gold"), None), (json!(null), None), (json!(null), None)]);

    let wrong = |columns: &[(&str, &str)]| case().table("users", columns, []).describe().unwrap_err()[0].message.clone();
    assert!(case().describe().unwrap_err()[0].message.contains("`users`"));
    assert!(wrong(&[("club_status", "text")]).contains("`name.last`"));
    assert!(wrong(&[("club_status", "int"), ("name.last", "text?")]).contains("as text, but it is int"));
    assert!(wrong(&[("club_status", "text?"), ("name.last", "text?")]).contains("allows null"));
}

#[test]
fn a_name_is_checked_by_the_compiler_as_by_the_host() {
    let names = ["a", "a.b", "a.\"b.c\"", "\"q\\\"\\\\\".d", "$key", "$headers.\"x-y\"", "$headers.x", "\"$key\"", "\"\"", "$window.start"];
    let wrong = ["", "a.", ".a", "a..b", "\"a", "a\"b\"", "$keys", "$headers.a.b", "\"a\\n\"", "\"a\"b", "$headers."];
    for name in names.iter().chain(&wrong) {
        assert_eq!(super::is_field_name(name), crate::field::Field::parse(name).is_ok(), "{name}");
    }
    assert!(names.iter().all(|name| super::is_field_name(name)));
}

#[derive(Fields)]
struct Order<'a> {
    #[field("$timestamp")]
    time: i64,
    id: &'a str,
    wait: i64,
}

#[derive(Fields, Clone, Default)]
struct Waiting {
    orders: i64,
}

#[derive(Fields)]
#[fields(replace)]
struct Forgotten {
    #[field("$key")]
    key: String,
    #[field("$timestamp")]
    time: i64,
    orders: i64,
}

#[crate::stateful(by = "id", timer = forgotten)]
fn wait(order: Order, rows: &mut Rows<Waiting>) -> Result<Option<Forgotten>, Reject> {
    let orders = rows.get(order.id).map_or(0, |row| row.orders);
    rows.put(order.id, Waiting { orders: orders + 1 });
    rows.set_timer(order.time + order.wait.abs(), order.id);
    if order.wait < 0 { Err(Reject::new("waits for the past")) } else { Ok(None) }
}

fn forgotten(timer: crate::Timer<'_>, rows: &mut Rows<Waiting>) -> Result<Option<Forgotten>, Reject> {
    let orders = rows.get(timer.key).map_or(0, |row| row.orders);
    rows.delete(timer.key);
    Ok((orders > 0).then(|| Forgotten { key: format!("<{}>", timer.key), time: timer.time + 1, orders }))
}

#[test]
fn timers_fire_in_order_and_go_with_a_refused_record() {
    let description = Case::<Wait>::new().describe().unwrap();
    assert_eq!(description.timers.unwrap().by, description.stores[0].by);
    let order = |time, id: &str, wait: i64| Record::new(json!({ "id": id, "wait": wait })).timestamp(time);
    let records =
        [order(0, "b", 5), order(1, "a", 4), order(2, "c", -1), order(2, "a", 100), order(2, "d", 0), order(9, "b", 50), order(10, "e", 7)];
    let answers = Case::<Wait>::new().run(records);
    let told: Vec<_> = answers
        .output("out")
        .iter()
        .map(|record| (record.key.as_deref().unwrap(), record.timestamp, record.value["orders"].as_i64().unwrap()))
        .collect();
    // What is due at 5, by key; the one of `d`, whose time had passed, at the next advance: together with them, and before them.
    assert_eq!(told, [("<d>", 3, 1), ("<a>", 6, 2), ("<b>", 6, 1)]);
    assert_eq!(answers.rejects.len(), 1);
    let left: Vec<_> = answers.timers.iter().map(|(time, key)| format!("{time} {key:?}")).collect();
    assert_eq!(left, [r#"17 Text("e")"#, r#"59 Text("b")"#, r#"102 Text("a")"#]);
}

#[crate::stateful(by = "id")]
fn deaf(order: Order, rows: &mut Rows<Waiting>) -> bool {
    rows.set_timer(order.time + order.wait, order.id);
    true
}

#[test]
#[should_panic(expected = "names no function")]
fn timers_that_nobody_hears_are_a_mistake() {
    Case::<Deaf>::new().run([Record::new(json!({ "id": "a", "wait": 1 }))]);
}
