//! The small language of `compute`: `name(path)` or `name(path, number)`.

use millstream_guest::field::Field;
use std::ops::Range;

/// A call, with the places of its parts in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: String,
    pub name_at: Range<usize>,
    pub path: Option<(Field, Range<usize>)>,
    pub number: Option<(u64, Range<usize>)>,
}

/// What is wrong, and where in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub at: Range<usize>,
    pub message: String,
}

fn wrong<T>(at: Range<usize>, message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { at, message: message.into() })
}

/// The range without the blanks at its ends.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// The arguments' ranges: commas split, except inside quotes.
fn arguments(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = range.start;
    let mut quoted = false;
    let mut escaped = false;
    for (at, letter) in text[range.clone()].char_indices().map(|(at, letter)| (range.start + at, letter)) {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(trimmed(text, start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(trimmed(text, start..range.end));
    parts
}

pub fn parse(text: &str) -> Result<Call, Wrong> {
    let all = trimmed(text, 0..text.len());
    let Some(open) = text.find('(') else {
        return wrong(all, "a call is wanted, as in `count()` or `sum(amount)`");
    };
    let name_at = trimmed(text, 0..open);
    if name_at.is_empty() {
        return wrong(open..open + 1, "the name of a function stands before the parenthesis");
    }
    if !text[all.clone()].ends_with(')') || all.end <= open + 1 {
        return wrong(open..all.end, "this parenthesis is never closed, or something stands behind it");
    }
    let inside = trimmed(text, open + 1..all.end - 1);
    let mut call = Call { name: text[name_at.clone()].to_owned(), name_at, path: None, number: None };
    if inside.is_empty() {
        return Ok(call);
    }
    let mut parts = arguments(text, inside).into_iter();
    if let Some(at) = parts.next() {
        let field = Field::parse(&text[at.clone()]).or_else(|error| {
            let start = at.start + text[at.clone()].char_indices().nth(error.at.saturating_sub(1)).map_or(0, |(place, _)| place);
            wrong(start..at.end.max(start), error.message)
        })?;
        call.path = Some((field, at));
    }
    if let Some(at) = parts.next() {
        match text[at.clone()].parse() {
            Ok(number) => call.number = Some((number, at)),
            Err(_) => return wrong(at, "a whole number is wanted"),
        }
    }
    match parts.next() {
        Some(at) => wrong(at.start..all.end - 1, "there are too many arguments"),
        None => Ok(call),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let call = parse(" collect ( a.\"b,)\" , 10 ) ").unwrap();
        assert_eq!((call.name.as_str(), call.name_at), ("collect", 1..8));
        assert_eq!(call.path, Some((Field::parse("a.\"b,)\"").unwrap(), 11..18)));
        assert_eq!(call.number, Some((10, 21..23)));
        let call = parse("count()").unwrap();
        assert_eq!((call.path, call.number), (None, None));
    }

    #[test]
    fn mistakes_have_places() {
        for (text, at) in [
            ("count", 0..5),
            ("", 0..0),
            ("(x)", 0..1),
            ("sum(x", 3..5),
            ("sum(x) y", 3..8),
            ("sum(", 3..4),
            ("sum(a..b)", 6..8),
            ("sum(\"a)", 4..6),
            ("collect(a, ten)", 11..14),
            ("collect(a, 1, 2)", 14..15),
            ("sum($nothing)", 4..12),
            ("sum(, 3)", 4..4),
        ] {
            assert_eq!(parse(text).unwrap_err().at, at, "{text}");
        }
    }
}
