//! Keeps the orders that are worth more than the configuration says.

use millstream_guest::Fields;

/// The fields that are read. A record in which one is missing is refused before it comes here, unless it is an `Option`.
#[derive(Fields)]
struct Order<'a> {
    /// In cents.
    amount: i64,
    currency: &'a str,
    /// A path into the record's value.
    #[field("customer.country")]
    country: Option<&'a str>,
}

/// What stands under `with` in the pipeline's file. The comments become part of its schema.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Cents from which on an order is kept.
    at_least: i64,
}

/// Keeps the orders in euros that are worth at least `at_least` cents.
#[millstream_guest::filter]
fn keep(order: Order, config: &Config) -> bool {
    order.currency == "EUR" && order.country != Some("XX") && order.amount >= config.at_least
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_guest::testing::Case;
    use serde_json::json;

    // The plugin that `keep` is has its name in capitals: `Keep`.
    #[test]
    fn small_orders_are_dropped() {
        let large = json!({ "amount": 5000, "currency": "EUR", "anything": ["else"] });
        let small = json!({ "amount": 4999, "currency": "EUR" });
        let broken = json!({ "currency": "EUR" });
        let answers = Case::<Keep>::new().config(json!({ "at_least": 5000 })).run([large.clone(), small, broken]);
        assert_eq!(answers.values("out"), [large]);
        assert_eq!(answers.rejects, [(2, "`amount` is missing".to_owned())]);
    }
}
