//! Keeps the balance of each account.

use millstream_guest::{Fields, Reject};

#[derive(Fields)]
struct Booking {
    /// In cents; below zero when money is taken.
    amount: i64,
}

/// A row of the stage's store: one for each key, kept by the host across batches, restarts and crashes.
#[derive(Fields, Clone, Default)]
struct Account {
    balance: i64,
    bookings: i64,
}

/// What is written into the record.
#[derive(Fields)]
struct Booked {
    balance: i64,
}

/// Adds a booking to its account. Accounts go by the record's key; `aggregate(by = "account")` would go by a field.
#[millstream_guest::aggregate]
fn book(account: &mut Account, booking: Booking) -> Result<Booked, Reject> {
    let balance = account.balance.checked_add(booking.amount).ok_or_else(|| Reject::new("the balance is too large"))?;
    account.balance = balance;
    account.bookings += 1;
    // What a refused record has changed is undone.
    if balance < 0 { Err(Reject::new("the account would be overdrawn")) } else { Ok(Booked { balance }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_guest::testing::{Case, Record};
    use serde_json::json;

    // The plugin that `book` is has its name in capitals: `Book`.
    #[test]
    fn balances_go_by_the_key() {
        let booking = |account: &str, amount: i64| Record::new(json!({ "amount": amount })).key(account);
        let answers = Case::<Book>::new().run([booking("a", 50), booking("b", 7), booking("a", 25), booking("a", -80), booking("a", -60)]);
        let balances: Vec<_> = answers.values("out").iter().map(|value| value["balance"].clone()).collect();
        assert_eq!(balances, [50, 7, 75, 15]);
        assert_eq!(answers.rejects, [(3, "the account would be overdrawn".to_owned())]);
        assert_eq!(answers.state("a"), Some(&json!({ "balance": 15, "bookings": 3 })));
    }
}
