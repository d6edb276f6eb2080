//! E-mail addresses in text.

/// Masks e-mail addresses: the part before the `@`, or all of it.
#[derive(Clone, Debug)]
pub struct Emails {
    pub keep_domain: bool,
    pub with: String,
}

impl Emails {
    /// The text with its addresses masked; None if there is none.
    pub fn mask(&self, text: &str) -> Option<String> {
        if !may_hold_address(text.as_bytes()) {
            return None;
        }
        let mut out: Option<String> = None;
        let mut copied = 0;
        for (at, sign) in text.char_indices().filter(|(_, letter)| is_at(*letter)) {
            if at < copied {
                continue;
            }
            let before = &text[copied..at];
            let local = local_part(before);
            let after = &text[at + sign.len_utf8()..];
            let domain = domain(after);
            if local == 0 || domain == 0 {
                continue;
            }
            let out = out.get_or_insert_with(String::new);
            out.push_str(&before[..before.len() - local]);
            out.push_str(&self.with);
            copied = if self.keep_domain { at } else { at + sign.len_utf8() + domain };
        }
        out.map(|mut out| {
            out.push_str(&text[copied..]);
            out
        })
    }
}

/// Whether there is an `@`, full-width ones included.
pub fn may_hold_address(text: &[u8]) -> bool {
    memchr::memchr2(b'@', 0xef, text).is_some()
}

fn is_at(letter: char) -> bool {
    matches!(letter, '@' | '\u{ff20}' | '\u{fe6b}')
}

/// Length of the local part at the end of `text`, in bytes: an unquoted one, or one in quotes.
fn local_part(text: &str) -> usize {
    if let Some(quoted) = text.strip_suffix('"') {
        return quoted.rfind('"').map_or(0, |open| text.len() - open);
    }
    let allowed = |letter: char| letter.is_alphanumeric() || ".!#$%&'*+-/=?^_`{|}~".contains(letter);
    text.chars().rev().take_while(|letter| allowed(*letter)).map(char::len_utf8).sum()
}

/// Length of the domain at the beginning of `text`, in bytes: names, or an address in brackets.
fn domain(text: &str) -> usize {
    if text.starts_with('[') {
        return text.find(']').map_or(0, |close| close + 1);
    }
    if !text.starts_with(|first: char| first.is_alphanumeric()) {
        return 0;
    }
    let all: usize = text.chars().take_while(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '-')).map(char::len_utf8).sum();
    text[..all].trim_end_matches(['.', '-']).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let keep = Emails { keep_domain: true, with: "***".to_owned() };
        let all = Emails { keep_domain: false, with: "***".to_owned() };
        for (text, kept, gone) in [
            ("jane.doe+news@example.com", "***@example.com", "***"),
            ("to <a@b.org>, and to c_d@e-f.co.uk.", "to <***@b.org>, and to ***@e-f.co.uk.", "to <***>, and to ***."),
            ("\"John Smith\"@example.com", "***@example.com", "***"),
            ("root@localhost", "***@localhost", "***"),
            ("a@[10.0.0.1]!", "***@[10.0.0.1]!", "***!"),
            ("jürgen＠münchen.de", "***＠münchen.de", "***"),
            ("a@b@c.de", "***@***@c.de", "***@c.de"),
        ] {
            assert_eq!(keep.mask(text).as_deref(), Some(kept), "{text}");
            assert_eq!(all.mask(text).as_deref(), Some(gone), "{text}");
        }
        for text in ["me @ home", "@handle", "a@", "@", "", "5 @ 3€", "ｆull"] {
            assert_eq!(keep.mask(text), None, "{text}");
        }
    }
}
