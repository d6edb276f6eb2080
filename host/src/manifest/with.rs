//! A stage's configuration: held against the plugin's JSON schema, and the way back from JSON pointers to places in the file.
//!
//! The schema comes first because it finds every mistake of form at once and the same way for every plugin; `describe` then judges the meaning.
//! `jsonschema` does it: it names the instance's place, the keyword and what was expected as data, of which the messages and proposals here are
//! made. `boon` does so too and was the other candidate; it would bring `url` and `idna` with their tables.

use super::diagnostic::{Report, Span, nearest, propose};
use super::yaml::{Node, Value, place_in_text};
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value as Json;

/// Reports what of the configuration does not fit the schema; true if all does.
pub(crate) fn validate(report: &Report, stage: &str, schema: &Json, config: &Json, node: Option<&Node>, at: Span) -> bool {
    if schema.is_null() {
        return true;
    }
    let validator = match jsonschema::draft7::new(schema) {
        Ok(validator) => validator,
        Err(error) => {
            report.error(
                at,
                format!("the plugin of stage `{stage}` has a schema that is none: {error}"),
                "mend `config` in the plugin's `about`".to_owned(),
            );
            return false;
        }
    };
    let errors: Vec<ValidationError<'_>> = validator.iter_errors(config).collect();
    // A key that is written wrong is not missing as well.
    let meant: Vec<(&str, String)> = errors
        .iter()
        .filter_map(|error| match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => Some((error, unexpected)),
            _ => None,
        })
        .flat_map(|(error, unexpected)| {
            let known = known_keys(schema, error.schema_path().as_str());
            let near = move |key: &String| nearest(key, known.iter().map(String::as_str)).map(str::to_owned);
            unexpected.iter().filter_map(near).map(|key| (error.instance_path().as_str(), key)).collect::<Vec<_>>()
        })
        .collect();
    for error in &errors {
        let is_meant = match error.kind() {
            ValidationErrorKind::Required { property } => {
                meant.iter().any(|(at, key)| *at == error.instance_path().as_str() && property.as_str() == Some(key.as_str()))
            }
            _ => false,
        };
        if !is_meant {
            explain(report, schema, error, node, at);
        }
    }
    errors.is_empty()
}

fn explain(report: &Report, schema: &Json, error: &ValidationError<'_>, node: Option<&Node>, at: Span) {
    let pointer = error.instance_path().as_str();
    let place = place(node, pointer, at);
    let here = if pointer.is_empty() { "the configuration".to_owned() } else { format!("`{}`", dotted(pointer)) };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known = known_keys(schema, error.schema_path().as_str());
            for key in unexpected {
                let place = key_place(node, pointer, key).unwrap_or(place);
                report.error(place, format!("{here} has no key `{key}`"), propose(key, known.iter().map(String::as_str)));
            }
        }
        ValidationErrorKind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            let about = schema
                .pointer(&format!("{}/properties/{}", parent(error.schema_path().as_str()), property.replace('~', "~0").replace('/', "~1")))
                .and_then(|schema| schema.get("description")?.as_str().map(str::to_owned));
            report.error(place, format!("{here} needs the key `{property}`"), about);
        }
        ValidationErrorKind::Type { kind } => {
            report.error(place, format!("{here}: expected {}, found {}", types(kind), found(error.instance())), None);
        }
        ValidationErrorKind::Enum { options } => {
            let words: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
            let help = match error.instance().as_str() {
                Some(word) => propose(word, words.iter().copied()),
                None => Some(format!("one of {options}")),
            };
            report.error(place, format!("{here}: {} is not one of the words known here", error.instance()), help);
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            explain_choice(report, schema, error, context, node, at, place, &here);
        }
        _ => report.error(place, format!("{here}: {error}"), None),
    }
}

/// None of several forms fits: the one that fits best is what was meant.
#[allow(clippy::too_many_arguments)]
fn explain_choice(
    report: &Report,
    schema: &Json,
    error: &ValidationError<'_>,
    context: &[Vec<ValidationError<'static>>],
    node: Option<&Node>,
    at: Span,
    place: Span,
    here: &str,
) {
    let pointer = error.instance_path().as_str();
    let wrong_here = |one: &&ValidationError<'static>| {
        one.instance_path().as_str() == pointer
            && matches!(
                one.kind(),
                ValidationErrorKind::Type { .. } | ValidationErrorKind::Constant { .. } | ValidationErrorKind::Enum { .. }
            )
    };
    let meant: Vec<&Vec<ValidationError<'static>>> = context.iter().filter(|errors| !errors.iter().any(|one| wrong_here(&one))).collect();
    if let Some(best) = meant.iter().min_by_key(|errors| errors.len()) {
        return best.iter().for_each(|one| explain(report, schema, one, node, at));
    }
    // Words, if that is what all forms are.
    let words: Vec<&str> = context
        .iter()
        .flatten()
        .flat_map(|one| match one.kind() {
            ValidationErrorKind::Constant { expected_value } => expected_value.as_str().into_iter().collect::<Vec<_>>(),
            ValidationErrorKind::Enum { options } => options.as_array().into_iter().flatten().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        })
        .collect();
    if let (Some(word), false) = (error.instance().as_str(), words.is_empty()) {
        return report.error(place, format!("{here}: `{word}` is not one of the words known here"), propose(word, words));
    }
    let expected: Vec<String> = context
        .iter()
        .flatten()
        .filter_map(|one| match one.kind() {
            ValidationErrorKind::Type { kind } => Some(types(kind)),
            _ => None,
        })
        .collect();
    report.error(place, format!("{here}: expected {}, found {}", expected.join(" or "), found(error.instance())), None);
}

/// The keys that a schema's object knows, given the path of its `additionalProperties`.
fn known_keys(schema: &Json, keyword: &str) -> Vec<String> {
    schema
        .pointer(parent(keyword))
        .and_then(|object| object.get("properties")?.as_object())
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default()
}

fn parent(pointer: &str) -> &str {
    pointer.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn types(kind: &TypeKind) -> String {
    let words = |name: &str| {
        match name {
            "string" => "a text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a block of keys",
            _ => "nothing",
        }
        .to_owned()
    };
    match kind {
        TypeKind::Single(one) => words(&one.to_string()),
        TypeKind::Multiple(several) => several.iter().map(|one| words(&one.to_string())).collect::<Vec<_>>().join(" or "),
    }
}

fn found(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a block of keys",
    }
}

fn tokens(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// `/rules/0/fields` as `rules[0].fields`.
pub(crate) fn dotted(pointer: &str) -> String {
    let mut text = String::new();
    for token in tokens(pointer) {
        if token.bytes().all(|byte| byte.is_ascii_digit()) && !token.is_empty() {
            text.push_str(&format!("[{token}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(&token);
        }
    }
    text
}

/// The node that a JSON pointer leads to, or the last on the way; None without a configuration.
fn walk<'n>(node: Option<&'n Node>, pointer: &str) -> Option<(&'n Node, Option<Span>)> {
    let mut node = node?;
    let mut key = None;
    for token in tokens(pointer) {
        let next = match &node.value {
            Value::Map(_) => match node.entry(&token) {
                Some(entry) => {
                    key = Some(entry.key_span);
                    Some(&entry.value)
                }
                None => None,
            },
            Value::List(items) => token.parse::<usize>().ok().and_then(|at| items.get(at)),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    Some((node, key))
}

/// The place of what a JSON pointer names; `at` without a configuration.
pub(crate) fn place(node: Option<&Node>, pointer: &str, at: Span) -> Span {
    match walk(node, pointer) {
        Some((node, _)) if node.span.start != node.span.end => node.head(),
        Some((_, Some(key))) => key,
        _ => at,
    }
}

/// The place of a stretch of a text that a JSON pointer names.
pub(crate) fn place_inside(file: &str, node: Option<&Node>, pointer: &str, inside: (usize, usize), at: Span) -> Span {
    match walk(node, pointer) {
        Some((node, _)) if node.text().is_some() => {
            let start = place_in_text(file, node, inside.0);
            let end = place_in_text(file, node, inside.1.max(inside.0));
            Span::new(start, end)
        }
        _ => place(node, pointer, at),
    }
}

fn key_place(node: Option<&Node>, pointer: &str, key: &str) -> Option<Span> {
    let (node, _) = walk(node, pointer)?;
    Some(node.entry(key)?.key_span)
}

/// The first place of a configuration where a word stands: a field's name in an expression, a list or a key.
pub(crate) fn mention(file: &str, node: &Node, word: &str) -> Option<Span> {
    let mut places = Vec::new();
    collect(file, node, word, &mut places);
    places.into_iter().min_by_key(|span: &Span| span.start)
}

fn collect(file: &str, node: &Node, word: &str, places: &mut Vec<Span>) {
    if let Some(text) = node.text()
        && let Some(at) = find_word(text, word)
    {
        places.push(Span::new(place_in_text(file, node, at), place_in_text(file, node, at + word.len())));
    }
    for entry in node.entries() {
        if entry.key == word {
            places.push(entry.key_span);
        }
        collect(file, &entry.value, word, places);
    }
    node.items().iter().for_each(|item| collect(file, item, word, places));
}

fn find_word(text: &str, word: &str) -> Option<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = text.get(..*at).and_then(|text| text.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(|c| part(c) || c == '.') && !after.is_some_and(part)
    })
}
