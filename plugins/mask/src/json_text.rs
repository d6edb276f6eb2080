//! Texts and numbers inside JSON source text, for keys and header values that hold JSON.

use serde::de::IgnoredAny;

/// A member's name that `refuse` refused.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedName;

/// Whether the bytes are JSON with something inside: an object, an array or a text.
pub fn is_json(bytes: &[u8]) -> bool {
    let start = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(start, Some(b'{' | b'[' | b'"')) && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Valid JSON with each text and number passed through `change`, which sees escapes resolved and answers None where nothing changes.
/// What changes is written as text, every other byte stays.
pub fn change_leaves(
    json: &[u8],
    mut change: impl FnMut(&[u8]) -> Option<Vec<u8>>,
    refuse: impl Fn(&str) -> bool,
) -> Result<Option<Vec<u8>>, RefusedName> {
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let changed = match byte {
            b'"' => {
                let end = end_of_text(json, at);
                let literal = &json[at..end];
                let is_name = json[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                // A lone surrogate has no text: then what stands between the quotes is looked at as it is.
                let text = serde_json::from_slice::<String>(literal)
                    .unwrap_or_else(|_| String::from_utf8_lossy(literal.get(1..literal.len() - 1).unwrap_or_default()).into_owned());
                if is_name && refuse(&text) {
                    return Err(RefusedName);
                }
                let changed = if is_name { None } else { change(text.as_bytes()) };
                at = end;
                changed.map(|changed| (at - literal.len(), changed))
            }
            b'-' | b'0'..=b'9' => {
                let len = json[at..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
                let start = at;
                at += len;
                change(&json[start..at]).map(|changed| (start, changed))
            }
            _ => {
                at += 1;
                None
            }
        };
        if let Some((start, changed)) = changed {
            let out = out.get_or_insert_with(Vec::new);
            out.extend_from_slice(&json[copied..start]);
            out.extend_from_slice(serde_json::Value::from(String::from_utf8_lossy(&changed)).to_string().as_bytes());
            copied = at;
        }
    }
    Ok(out.map(|mut out| {
        out.extend_from_slice(&json[copied..]);
        out
    }))
}

/// Where the text that opens at `open` ends: behind its closing quote.
fn end_of_text(json: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upper(text: &[u8]) -> Option<Vec<u8>> {
        (text != b"keep").then(|| text.to_ascii_uppercase())
    }

    #[test]
    fn leaves_change_and_the_rest_stays() {
        let json = br#" { "a" : "x\u0079\"" , "n":[-1.5e3,true,null], "k":"keep","":{} } "#;
        let out = change_leaves(json, upper, |_| false).unwrap().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#" { "a" : "XY\"" , "n":["-1.5E3",true,null], "k":"keep","":{} } "#);
        assert_eq!(change_leaves(br#"{"a":"keep"}"#, upper, |_| false), Ok(None));
        assert_eq!(change_leaves(br#"{"\u0061b":"keep"}"#, upper, |name| name == "ab"), Err(RefusedName));
        assert_eq!(change_leaves(br#"["ab"]"#, |_| None, |name| name == "ab"), Ok(None));
    }

    #[test]
    fn what_is_json() {
        assert!(is_json(br#" {"a":1}"#) && is_json(b"[]") && is_json(br#""a""#));
        assert!(!is_json(b"4444") && !is_json(b"{") && !is_json(b"") && !is_json(b"abc"));
    }
}
