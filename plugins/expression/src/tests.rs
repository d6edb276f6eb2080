use super::*;
use millstream_guest::column::{Cell, ColumnBuilder};
use millstream_guest::describe::{FieldType, Schema};
use millstream_guest::field::Field;

fn schema(open: bool) -> Schema {
    let field = |path: &str, kind, nullable| FieldType { path: Field::parse(path).unwrap(), kind, nullable };
    Schema {
        fields: vec![
            field("stars", Type::Int, false),
            field("price", Type::Float, true),
            field("name", Type::Text, true),
            field("address", Type::Json, true),
            field("geo.lat", Type::Float, true),
            field("_key", Type::Int, true),
            field("a.\"b c\"", Type::Int, true),
        ],
        open,
    }
}

fn users() -> Schema {
    let field = |path: &str| FieldType { path: Field::parse(path).unwrap(), kind: Type::Text, nullable: true };
    Schema { fields: vec![field("first_name"), field("club.status")], open: false }
}

/// The first mistake: the part of the text, the message, the proposal.
fn mistake(text: &str) -> (String, String, Option<String>) {
    let (schema, users) = (schema(false), users());
    let mut problems = Expression::compile(text, &mut Scope::new(&schema).with_table("users", &users)).err().unwrap();
    let problem = problems.remove(0);
    (text[problem.span.0..problem.span.1].to_owned(), problem.message, problem.proposal)
}

fn reads(text: &str) -> Vec<(String, Type)> {
    let (schema, users) = (schema(true), users());
    let mut scope = Scope::new(&schema).with_table("users", &users);
    if let Err(problems) = Expression::compile(text, &mut scope) {
        panic!("{text}: {problems:?}");
    }
    scope.reads().iter().map(|read| (read.path.to_string(), read.kind)).collect()
}

#[test]
fn names_mean_the_longest_declared_path() {
    let read = |path: &str, kind| (path.to_owned(), kind);
    assert_eq!(reads("geo.lat < 1.0"), [read("geo.lat", Type::Float)]);
    assert_eq!(reads("geo.lon == 1"), [read("geo.lon", Type::Json)]);
    assert_eq!(reads("address.city == 'X'"), [read("address", Type::Json)]);
    assert_eq!(reads("a.`b c` == 1"), [read("a.b c", Type::Int)]);
    assert_eq!(reads("$value.users.x == 1"), [read("users.x", Type::Json)]);
    assert_eq!(reads("users.club.status == name"), [read("name", Type::Text)]);
    assert_eq!(reads("has(geo.lat) && has(b.c)"), [read("geo.lat", Type::Float), read("b.c", Type::Json)]);
    assert_eq!(reads("items.exists(stars, stars.n > 1)"), [read("items", Type::Json)]);
    assert_eq!(reads("items.map(i, i + stars)"), [read("items", Type::Json), read("stars", Type::Int)]);
}

#[test]
fn parts_of_the_record_begin_with_a_dollar() {
    let read = |path: &str, kind| (path.to_owned(), kind);
    assert_eq!(reads("$key == '$key'"), [read("$key", Type::Text)]);
    assert_eq!(reads("_key == 1"), [read("_key", Type::Int)]);
    assert_eq!(
        reads("$timestamp + $offset + $partition > size($topic)"),
        [read("$timestamp", Type::Int), read("$offset", Type::Int), read("$partition", Type::Int), read("$topic", Type::Text)]
    );
    assert_eq!(reads("$headers['x-y'] == 'a'"), [read("$headers.\"x-y\"", Type::Text)]);
    assert_eq!(reads("$headers.trace.startsWith('a')"), [read("$headers.\"trace\"", Type::Text)]);
}

#[test]
fn mistakes_say_where_what_and_what_else() {
    for (text, part, message, proposal) in [
        ("1 < satrs", "satrs", "the input has no field `satrs`", Some("did you mean `stars`?")),
        ("geo . lon > 1", "geo . lon", "the input has no field `geo.lon`", Some("did you mean `geo.lat`?")),
        ("price * 2 > 1.0", "price * 2", "this is not defined for float and int", Some("`double(2)`")),
        ("'ä' == stars", "'ä' == stars", "text and int are never equal", Some("`string(stars)`")),
        ("stars < 'a'", "stars < 'a'", "int and text cannot be compared", Some("`string(stars)`")),
        ("name < null", "null", "null has no order", None),
        ("stars && true", "stars", "`&&` needs boolean, this is int", Some("compare it: `stars == ...`, it is int")),
        ("stars.x == 1", "stars.x", "`stars` is an int and has no members", None),
        ("name.startswith('a')", "name.startswith('a')", "there is no function `startswith`", Some("did you mean `startsWith`?")),
        (
            "name.matches('a+')",
            "name.matches('a+')",
            "there is no function `matches`",
            Some("there are no regular expressions here; `startsWith`, `endsWith`, `contains` and `indexOf` are"),
        ),
        ("stars.startsWith('a')", "stars", "`startsWith` needs text, this is int", Some("`string(stars)`")),
        ("name.contains()", "name.contains()", "`contains` takes 1 arguments, here are 0", None),
        ("stars in ['a']", "'a'", "int and text are never equal", None),
        ("$kye == ''", "$kye", "`$kye` is no part of a record", Some("did you mean `$key`?")),
        ("$window.start > 1", "$window.start", "this stage has no window", None),
        (
            "users.frist_name == ''",
            "users.frist_name",
            "the table `users` declares no column `frist_name`",
            Some("did you mean `users.first_name`?"),
        ),
        ("1u == 1u", "1u", "there are no unsigned numbers here", Some("leave out the `u`")),
        ("int(true)", "true", "boolean cannot be converted to int", None),
        ("name[0]", "name[0]", "text has no members", None),
        ("stars.all(x, x > 1)", "stars", "int has no members to go through", None),
    ] {
        let (found, why, what) = mistake(text);
        assert_eq!((found.as_str(), why.as_str(), what.as_deref()), (part, message, proposal), "{text}");
    }
    assert!(mistake("has(name)").2.unwrap().contains("field != null"), "{:?}", mistake("has(name)"));
}

#[test]
fn all_mistakes_of_an_expression_are_reported() {
    let schema = schema(false);
    let problems = Expression::compile("satrs == 1 && nmae == 'a' || stars == 'b'", &mut Scope::new(&schema)).err().unwrap();
    assert_eq!(problems.len(), 3, "{problems:?}");
}

/// Too deep or too long ends in a mistake, not in an overflow of the stack.
#[test]
fn nesting_has_a_limit() {
    let schema = schema(false);
    for text in [
        format!("{}stars{} == 1", "(".repeat(2000), ")".repeat(2000)),
        vec!["stars"; 3000].join("+"),
        format!("name == '{}'", "a".repeat(20_000)),
    ] {
        assert!(Expression::compile(&text, &mut Scope::new(&schema)).is_err(), "{:.20}", text);
    }
    assert!(Expression::compile(&vec!["stars == 1"; 500].join(" || "), &mut Scope::new(&schema)).is_ok());
}

fn one(text: &str, json: &str) -> Result<String, String> {
    let schema = Schema { fields: Vec::new(), open: true };
    let mut scope = Scope::new(&schema);
    let expression = Expression::compile(text, &mut scope).map_err(|problems| format!("{problems:?}"))?;
    let whole: serde_json::Value = serde_json::from_str(json).unwrap();
    let fields: Vec<Column> = scope
        .reads()
        .iter()
        .map(|read| {
            let Field::Value(path) = &read.path else { panic!("{}", read.path) };
            let value = path.0.iter().fold(&whole, |value, name| &value[name]);
            let mut out = ColumnBuilder::new(Type::Json, 1);
            if value.is_null() {
                out.null()
            } else {
                out.bytes(value.to_string().as_bytes())
            }
            out.finish()
        })
        .collect();
    let mut evaluated = expression.eval(Columns { rows: 1, fields: &fields, table: &[] });
    match evaluated.errors.pop() {
        Some(error) => Err(error.reason),
        None => Ok(match evaluated.column.cell(0) {
            Cell::Text(text) => format!("'{text}'"),
            Cell::Json(text) => text.to_owned(),
            cell => format!("{cell:?}"),
        }),
    }
}

#[test]
fn json_is_looked_into() {
    let json = r#"{"items": [{"price": 2, "name": "a"}, {"price": 3.5, "name": "b"}], "tags": ["x", "y"], "m": {"k": null}, "n": 5}"#;
    for (text, result) in [
        ("items.exists(i, i.price > 3)", Ok("Bool(true)")),
        ("items.map(i, i.name)", Ok(r#"["a","b"]"#)),
        ("items.filter(i, i.price == 2)[0].name", Ok("\"a\"")),
        ("items[1].price", Ok("3.5")),
        ("items[2].price", Err("`items[2].price`: the index is out of bounds")),
        ("items[0].nothing", Err("`items[0].nothing`: there is no such key")),
        ("has(items[0].name) && !has(items[0].nothing)", Ok("Bool(true)")),
        ("'x' in tags && size(tags) == 2", Ok("Bool(true)")),
        ("tags.join('-')", Ok("'x-y'")),
        ("m.k == null && m.l == null && !has(m.l)", Ok("Bool(true)")),
        ("n + 1", Ok("Int(6)")),
        ("n + 1.5", Err("`n + 1.5`: an operand has a type for which this is not defined")),
        ("n / (n - 5)", Err("`n / (n - 5)`: division by zero")),
        ("{'a': n, 'b': [n]}", Ok(r#"{"a":5,"b":[5]}"#)),
        ("n == 5.0", Ok("Bool(true)")),
        ("tags + [n]", Ok(r#"["x","y",5]"#)),
    ] {
        assert_eq!(one(text, json), result.map(str::to_owned).map_err(str::to_owned), "{text}");
    }
}

/// A batch may be full of reasons.
#[test]
fn a_reason_quotes_the_beginning_of_a_long_expression() {
    let reason = one(&format!("n + {}", vec!["'äöü'"; 100].join(" + ")), "{\"n\": 1}").unwrap_err();
    assert!(reason.starts_with("`n + 'ä"), "{reason}");
    assert!(reason.len() < 200, "{reason}");
}

/// Infinities cannot be written into a record.
#[test]
fn what_is_no_finite_number_is_an_error() {
    assert_eq!(one("1.0 / 0.0", "{}"), Err("`1.0 / 0.0`: the result is not a finite number".to_owned()));
    assert_eq!(one("1.0 / 0.0 > 5.0", "{}"), Ok("Bool(true)".to_owned()));
}
