//! Makes a record of each of an order's items, and puts large ones apart.

use millstream_guest::{Fields, Json, Outputs};

#[derive(Fields)]
struct Order<'a> {
    id: &'a str,
    /// Anything nested is read by serde.
    items: Json<Vec<Article>>,
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Article {
    name: String,
    /// In cents.
    price: i64,
}

/// `replace`: a new record of these fields, instead of the order with these fields written into it.
#[derive(Fields)]
#[fields(replace)]
struct Item {
    order: String,
    name: String,
    price: i64,
}

/// The outputs. `out` is what the stage's name alone means; another is `STAGE.NAME` in the pipeline's file.
#[derive(Outputs)]
enum Routed {
    #[output("out")]
    Item(Item),
    #[output("large")]
    Large(Item),
    /// The order as it is.
    #[output("empty")]
    Empty,
}

/// Takes orders apart.
#[millstream_guest::map]
fn take_apart(order: Order) -> Vec<Routed> {
    if order.items.0.is_empty() {
        return vec![Routed::Empty];
    }
    let route = |article: Article| {
        let item = Item { order: order.id.to_owned(), name: article.name, price: article.price };
        if item.price >= 100_000 { Routed::Large(item) } else { Routed::Item(item) }
    };
    order.items.0.into_iter().map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_guest::testing::Case;
    use serde_json::json;

    // The plugin that `take_apart` is has its name in capitals: `TakeApart`.
    #[test]
    fn every_item_goes_where_it_belongs() {
        let empty = json!({ "id": "b", "items": [] });
        let answers = Case::<TakeApart>::new().run([
            json!({ "id": "a", "items": [{ "name": "pen", "price": 99 }, { "name": "desk", "price": 100_000 }] }),
            empty.clone(),
        ]);
        assert_eq!(answers.values("out"), [json!({ "order": "a", "name": "pen", "price": 99 })]);
        assert_eq!(answers.values("large"), [json!({ "order": "a", "name": "desk", "price": 100_000 })]);
        assert_eq!(answers.values("empty"), [empty]);
    }
}
