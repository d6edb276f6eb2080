//! Writes the customer's level into orders.

use millstream_guest::Fields;

#[derive(Fields)]
struct Order {
    /// In cents.
    amount: i64,
}

/// What is read of a table's row. The table stands in the pipeline's file under `tables`.
#[derive(Fields)]
struct Customer<'a> {
    level: &'a str,
}

#[derive(Fields)]
struct WithLevel<'a> {
    level: Option<&'a str>,
    discount: i64,
}

/// Finds the customer of an order. To answer `None` would drop the order.
#[millstream_guest::enrich(table = "customers", on = "customer_id")]
fn add_level<'a>(order: Order, customer: Option<Customer<'a>>) -> Option<WithLevel<'a>> {
    let level = customer.map(|customer| customer.level);
    let discount = if level == Some("gold") { order.amount / 10 } else { 0 };
    Some(WithLevel { level, discount })
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_guest::testing::Case;
    use serde_json::json;

    // The plugin that `add_level` is has its name in capitals: `AddLevel`.
    #[test]
    fn gold_customers_have_a_discount() {
        let customers = [("7", json!({ "level": "gold" }))];
        let answers = Case::<AddLevel>::new()
            .table("customers", &[("level", "text")], customers)
            .run([json!({ "customer_id": "7", "amount": 500 }), json!({ "customer_id": "8", "amount": 500 })]);
        assert_eq!(
            answers.values("out"),
            [
                json!({ "customer_id": "7", "amount": 500, "level": "gold", "discount": 50 }),
                json!({ "customer_id": "8", "amount": 500, "level": null, "discount": 0 })
            ]
        );
    }
}
