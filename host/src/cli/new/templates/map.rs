//! Writes each order's total into it.

use millstream_guest::{Change, Fields, Reject};

/// The fields that are read. A record in which one is missing is refused before it comes here, unless it is an `Option`.
#[derive(Fields)]
struct Order<'a> {
    /// In cents.
    price: i64,
    quantity: i64,
    note: Option<&'a str>,
}

/// The fields that are written. Everything else of the record stays as it is, byte for byte.
#[derive(Fields)]
struct Priced<'a> {
    total: i64,
    /// `Change` may also leave a field as it is, or remove it.
    note: Change<&'a str>,
}

/// Writes `total`, and shortens notes. An error refuses the record: the stage's policy decides what becomes of it.
#[millstream_guest::map]
fn price(order: Order<'_>) -> Result<Priced<'_>, Reject> {
    let total = order.price.checked_mul(order.quantity).ok_or_else(|| Reject::new("the total is too large"))?;
    let note = match order.note {
        None => Change::Keep,
        Some(note) if note.trim().is_empty() => Change::Remove,
        Some(note) => Change::Set(note.trim()),
    };
    Ok(Priced { total, note })
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_guest::testing::Case;
    use serde_json::json;

    // The plugin that `price` is has its name in capitals: `Price`.
    #[test]
    fn the_total_is_written_into_the_order() {
        let answers = Case::<Price>::new().run([
            json!({ "price": 250, "quantity": 4, "note": " gift ", "id": 1 }),
            json!({ "price": 100, "quantity": 1, "note": "  ", "id": 2 }),
            json!({ "price": i64::MAX, "quantity": 2 }),
        ]);
        assert_eq!(
            answers.values("out"),
            [json!({ "price": 250, "quantity": 4, "note": "gift", "id": 1, "total": 1000 }), json!({ "price": 100, "quantity": 1, "id": 2, "total": 100 })]
        );
        assert_eq!(answers.rejects, [(2, "the total is too large".to_owned())]);
    }
}
