//! JSON's strings: what they say, and how a text is written as one.

use super::scan::plain;

/// Where a string stands: its content, without the quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    pub start: usize,
    pub end: usize,
    /// Whether there is a backslash in it.
    pub escaped: bool,
}

/// A `\u` escape of half a pair of surrogates: no Unicode text can hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoneSurrogate;

impl Text {
    /// What it says. `scratch` is used only if there are escapes; the text must have been scanned.
    #[inline]
    pub fn unescape<'a>(&self, json: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], LoneSurrogate> {
        let raw = json.get(self.start..self.end).unwrap_or_default();
        if !self.escaped {
            return Ok(raw);
        }
        scratch.clear();
        unescape(raw, scratch)?;
        Ok(scratch)
    }
}

/// Appends what a string's content says.
pub fn unescape(mut raw: &[u8], out: &mut Vec<u8>) -> Result<(), LoneSurrogate> {
    while let Some(at) = memchr::memchr(b'\\', raw) {
        let (before, from) = raw.split_at(at);
        out.extend_from_slice(before);
        let (escape, after) = from.split_at(2.min(from.len()));
        raw = after;
        out.push(match escape.last() {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let (unit, after) = code_unit(raw);
                raw = after;
                let code = match unit {
                    0xd800..=0xdbff => {
                        let (low, after) = code_unit(raw.strip_prefix(b"\\u").ok_or(LoneSurrogate)?);
                        raw = after;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(LoneSurrogate);
                        }
                        0x10000 + ((unit - 0xd800) << 10 | (low - 0xdc00))
                    }
                    _ => unit,
                };
                let character = char::from_u32(code).ok_or(LoneSurrogate)?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            literal => literal.copied().unwrap_or(b'\\'),
        });
    }
    out.extend_from_slice(raw);
    Ok(())
}

/// The four hexadecimal digits that `raw` starts with.
fn code_unit(raw: &[u8]) -> (u32, &[u8]) {
    let (digits, after) = raw.split_at(4.min(raw.len()));
    (digits.iter().fold(0, |code, digit| code << 4 | char::from(*digit).to_digit(16).unwrap_or(0)), after)
}

/// Appends a text as a string of JSON, quotes included; only what must be escaped is.
pub fn write(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut from = 0;
    loop {
        let at = plain(text, from);
        out.extend_from_slice(text.get(from..at).unwrap_or_default());
        let Some(byte) = text.get(at).copied() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control)]);
            }
        }
        from = at + 1;
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved() {
        for (raw, says) in [
            (r#"a\"\\\/\b\f\n\r\tz"#, "a\"\\/\u{8}\u{c}\n\r\tz"),
            (r"c\u0061rd", "card"),
            (r"\ud83d\uDE00!", "😀!"),
            (r"\u0000", "\0"),
            ("ä\\u00e4", "ää"),
        ] {
            let mut out = Vec::new();
            unescape(raw.as_bytes(), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), says);
        }
    }

    #[test]
    fn lone_surrogates_are_refused() {
        for raw in [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\n", r"\ud800\ud800", r"\ud800\u0061", r"\udc00\ud800"] {
            assert_eq!(unescape(raw.as_bytes(), &mut Vec::new()), Err(LoneSurrogate), "{raw}");
        }
    }

    #[test]
    fn written_texts_say_the_same() {
        for text in ["", "plain", "\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}", "ä😀 and a longer text \" with a quote far behind"] {
            let mut json = Vec::new();
            write(text.as_bytes(), &mut json);
            assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
