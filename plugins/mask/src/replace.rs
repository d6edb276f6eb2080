//! Literal replacements in text.

use memchr::memmem::Finder;

/// Replaces texts, in one pass: what a replacement writes is not looked at again.
#[derive(Debug)]
pub struct Replacements {
    /// The longest first, so that the first that fits is the longest.
    pairs: Vec<(Finder<'static>, String)>,
}

impl Replacements {
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().map(|(find, with)| (Finder::new(find).into_owned(), with.clone())).collect();
        pairs.sort_by_key(|(finder, _)| std::cmp::Reverse(finder.needle().len()));
        Self { pairs }
    }

    /// Length of the shortest text to find, in bytes.
    pub fn shortest(&self) -> usize {
        self.pairs.last().map_or(0, |(finder, _)| finder.needle().len())
    }

    pub fn may_apply(&self, text: &[u8]) -> bool {
        self.pairs.iter().any(|(finder, _)| finder.find(text).is_some())
    }

    /// The text with all replacements; None if nothing is found.
    pub fn apply(&self, text: &str) -> Option<String> {
        let mut out: Option<String> = None;
        let mut copied = 0;
        while let Some((at, finder, with)) = self.first(&text[copied..]) {
            let out = out.get_or_insert_with(String::new);
            out.push_str(&text[copied..copied + at]);
            out.push_str(with);
            copied += at + finder.needle().len();
        }
        out.map(|mut out| {
            out.push_str(&text[copied..]);
            out
        })
    }

    /// The earliest find, and the longest of those at one place.
    fn first(&self, text: &str) -> Option<(usize, &Finder<'static>, &str)> {
        // `min_by_key` keeps the first of equals: the longest.
        self.pairs
            .iter()
            .filter_map(|(finder, with)| finder.find(text.as_bytes()).map(|at| (at, finder, with.as_str())))
            .min_by_key(|(at, _, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_fits_first_and_results_are_not_read_again() {
        let pairs = [("a", "b"), ("b", "a"), ("ab", "-"), ("é", "e")].map(|(find, with)| (find.to_owned(), with.to_owned()));
        let replacements = Replacements::new(pairs.iter().map(|(find, with)| (find, with)));
        assert_eq!(replacements.apply("a.b.ab.ba.é").as_deref(), Some("b.a.-.ab.e"));
        assert_eq!(replacements.apply("xyz"), None);
        assert!(replacements.may_apply(b"xaz") && !replacements.may_apply(b"xyz"));
    }
}
