//! A scanner that validates JSON (RFC 8259) and says where values stand, without making anything of them.

use super::text::Text;

/// Objects and arrays may be nested this deep.
pub const MAX_DEPTH: u32 = 128;

/// Why a text is no JSON that can be read, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NotJson(usize),
    TooDeep(usize),
}

/// A place in a text of JSON. The text must be UTF-8, which is checked elsewhere.
#[derive(Debug)]
pub struct Scanner<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub fn fault<T>(&self) -> Result<T, Fault> {
        Err(Fault::NotJson(self.at))
    }

    #[inline]
    pub fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    pub fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return self.fault();
        }
        self.at += 1;
        Ok(())
    }

    /// White space up to the end of the text.
    #[inline]
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { self.fault() }
    }

    /// Steps into an object or array that lies in `depth` others.
    #[inline]
    pub fn open(&mut self, depth: u32) -> Result<(), Fault> {
        if depth >= MAX_DEPTH {
            return Err(Fault::TooDeep(self.at));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// A member's name and what stands up to its value.
    #[inline]
    pub fn key(&mut self) -> Result<Text, Fault> {
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(key)
    }

    /// A string, from its opening quote on.
    #[inline]
    pub fn string(&mut self) -> Result<Text, Fault> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = plain(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    let text = Text { start, end: self.at, escaped };
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.fault(),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return self.fault();
                    }
                    self.at += 1;
                }
            }
            _ => return self.fault(),
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.fault() } else { Ok(()) }
    }

    #[inline]
    pub fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        // A zero stands alone; what follows it is no number's business and fails elsewhere.
        if self.peek() == Some(b'0') {
            self.at += 1
        } else {
            self.digits()?
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    #[inline]
    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        for byte in word {
            self.expect(*byte)?;
        }
        Ok(())
    }

    /// A number, `true`, `false` or `null`.
    #[inline]
    pub fn bare(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => self.fault(),
        }
    }

    /// Any value, which lies in `depth` objects and arrays. Without recursion.
    #[inline]
    pub fn skip(&mut self, depth: u32) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'{' | b'[') => self.skip_nested(depth),
            _ => self.bare(),
        }
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), Fault> {
        // What is open, innermost in the lowest bit: 1 = an object. MAX_DEPTH bits suffice.
        let (mut objects, mut open) = (0_u128, 0);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(opening @ (b'{' | b'[')) => {
                    self.open(depth + open)?;
                    let is_object = opening == b'{';
                    if self.peek() == Some(if is_object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        objects = objects << 1 | u128::from(is_object);
                        open += 1;
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                _ => self.bare()?,
            }
            // A value has ended: close what ends with it.
            loop {
                if open == 0 {
                    return Ok(());
                }
                self.space();
                let in_object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.space();
                        if in_object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ => return self.fault(),
                }
                self.at += 1;
                objects >>= 1;
                open -= 1;
            }
        }
    }
}

/// The first byte from `at` on that is a quote, a backslash or a control character; the length if there is none.
#[inline]
pub fn plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // Marks bytes below `limit` (at most 128); marks above the lowest one may be wrong.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let special = below(word, 0x20) | below(word ^ (ONES * u64::from(b'"')), 1) | below(word ^ (ONES * u64::from(b'\\')), 1);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\') {
        at += 1;
    }
    at
}

/// Whether a text is JSON of a depth that is read.
pub fn validate(bytes: &[u8]) -> Result<(), Fault> {
    let mut scan = Scanner::new(bytes);
    scan.space();
    scan.skip(0)?;
    scan.finish()
}
