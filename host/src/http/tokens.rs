//! Who may use the API: bearer tokens, each with what it allows. Tokens are kept as digests, and stand in no log and no message.

use axum::http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The environment variable that holds tokens themselves, as a file of `--tokens` would.
pub const ENVIRONMENT: &str = "MILLSTREAM_TOKENS";
/// Shorter ones could be guessed.
const SHORTEST: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looks only.
    Read,
    /// Deploys, deletes, and all the rest.
    Admin,
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub role: Role,
    pub name: Option<String>,
}

#[derive(Clone, Default)]
pub struct Tokens(Vec<([u8; 32], Holder)>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(_, holder)| holder)).finish()
    }
}

impl Tokens {
    /// Of the file, else of the environment; none where neither is given.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let (text, place) = match file {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("--tokens: cannot read {}", file.display()))?;
                (text, file.display().to_string())
            }
            None => match std::env::var(ENVIRONMENT) {
                Ok(text) => (text, ENVIRONMENT.to_owned()),
                Err(std::env::VarError::NotPresent) => return Ok(Self::default()),
                Err(std::env::VarError::NotUnicode(_)) => anyhow::bail!("{ENVIRONMENT} is no text"),
            },
        };
        let tokens = Self::parse(&text).map_err(|why| anyhow::anyhow!("{place}: {why}"))?;
        // Whoever means to have tokens must not end up with none.
        anyhow::ensure!(
            !tokens.is_empty(),
            "{place}: there is no token in it; a line is TOKEN, ROLE TOKEN or ROLE NAME TOKEN, and the role `admin` or `read`"
        );
        Ok(tokens)
    }

    /// A token a line: `TOKEN`, `ROLE TOKEN` or `ROLE NAME TOKEN`; what begins with `#` is a comment. Err: what is wrong, in which line, without the token.
    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (role, name, token) = match words[..] {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                [token] => ("admin", None, token),
                [role, token] => (role, None, token),
                [role, name, token] => (role, Some(name.to_owned()), token),
                _ => return Err(format!("line {number} has more than a role, a name and a token")),
            };
            let role = match role {
                "admin" => Role::Admin,
                "read" => Role::Read,
                // It may be the token, misplaced: it is not repeated.
                _ => return Err(format!("line {number} begins with no role: there are `admin` and `read`")),
            };
            if token.len() < SHORTEST {
                return Err(format!("line {number}: the token is shorter than {SHORTEST} characters; `openssl rand -hex 32` makes one"));
            }
            tokens.push((Sha256::digest(token).into(), Holder { role, name }));
        }
        Ok(Self(tokens))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who asks, by the header `Authorization`. None: no token that is known.
    pub fn holder(&self, headers: &HeaderMap) -> Option<Holder> {
        let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        self.find(token.trim())
    }

    /// Takes as long whatever is wrong with a token: digests are compared whole, and all of them.
    fn find(&self, token: &str) -> Option<Holder> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for (known, holder) in &self.0 {
            let difference = known.iter().zip(&digest).fold(0, |sum, (one, other)| sum | (one ^ other));
            if std::hint::black_box(difference) == 0 {
                found = Some(holder);
            }
        }
        found.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210";

    #[test]
    fn tokens_have_roles_and_names() {
        let tokens = Tokens::parse(&format!("# who may\n\n{ONE}\nread {TWO}\n  admin alice {ONE}{TWO}\n")).unwrap();
        let holder = |role, name: Option<&str>| Some(Holder { role, name: name.map(str::to_owned) });
        assert_eq!(tokens.find(ONE), holder(Role::Admin, None));
        assert_eq!(tokens.find(TWO), holder(Role::Read, None));
        assert_eq!(tokens.find(&format!("{ONE}{TWO}")), holder(Role::Admin, Some("alice")));
        for wrong in ["", &ONE[1..], "0123456789abcdeg", &ONE.to_uppercase()] {
            assert_eq!(tokens.find(wrong), None, "{wrong}");
        }
        assert!(!format!("{tokens:?}").contains(ONE));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_token() {
        for (text, says) in [
            (format!("{ONE}\nshort"), "line 2: the token is shorter"),
            (format!("{ONE} {TWO}"), "line 1 begins with no role"),
            (format!("admin a b {ONE}"), "line 1 has more than"),
        ] {
            let why = Tokens::parse(&text).unwrap_err();
            assert!(why.contains(says) && !why.contains(ONE) && !why.contains("short\n"), "{why}");
        }
    }

    #[test]
    fn only_a_bearer_has_a_token() {
        let tokens = Tokens::parse(ONE).unwrap();
        let holder = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            tokens.holder(&headers).is_some()
        };
        assert!(holder(&format!("Bearer {ONE}")) && holder(&format!("bearer {ONE}")));
        assert!(!holder(ONE) && !holder(&format!("Basic {ONE}")) && !holder("Bearer") && !holder("Bearer "));
        assert_eq!(tokens.holder(&HeaderMap::new()), None);
    }
}
