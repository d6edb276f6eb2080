//! Rules made ready: what one does to a text, and to bytes that may hold JSON.

use crate::card::{self, Cards};
use crate::config::{Config, Rule};
use crate::email::{self, Emails};
use crate::hash::KeyedHash;
use crate::json_text::{self, RefusedName};
use crate::replace::Replacements;
use std::borrow::Cow;

#[derive(Debug)]
pub enum Action {
    Card(Cards),
    Email(Emails),
    Whole(String),
    Replace(Replacements),
    Hash(KeyedHash),
}

/// The actions of all rules, in their order. A *set* names some of them by index, increasing.
#[derive(Debug)]
pub struct Actions(Vec<Action>);

/// Which actions may change anything in a batch.
pub type Active = Vec<bool>;

impl Action {
    /// Err: for the user, when the stage starts.
    fn new(rule: &Rule) -> Result<Self, String> {
        if let Some(card) = &rule.card {
            let mask = card.char.chars().next().ok_or("`char` is empty")?;
            Ok(Self::Card(Cards { keep_last: card.keep_last, mask }))
        } else if let Some(email) = &rule.email {
            Ok(Self::Email(Emails { keep_domain: email.keep_domain, with: email.with.clone() }))
        } else if let Some(whole) = &rule.whole {
            Ok(Self::Whole(whole.with.clone()))
        } else if let Some(pairs) = &rule.replace {
            Ok(Self::Replace(Replacements::new(pairs)))
        } else if let Some(hash) = &rule.hash {
            let options = hash.options();
            Ok(Self::Hash(KeyedHash::new(options.key.as_bytes(), options.length)?))
        } else {
            Err("a rule says nothing to do".to_owned())
        }
    }

    /// Whether it may find something in `data`, the texts of a batch one behind the other.
    fn may_apply(&self, data: &[u8]) -> bool {
        match self {
            Self::Card(_) => card::may_hold_card(data),
            Self::Email(_) => email::may_hold_address(data),
            Self::Whole(_) | Self::Hash(_) => true,
            Self::Replace(replacements) => replacements.may_apply(data),
        }
    }

    /// The fewest bytes of a text that it may change.
    fn shortest(&self) -> usize {
        match self {
            Self::Card(_) => card::MIN_DIGITS,
            Self::Email(_) => "a@b".len(),
            Self::Replace(replacements) => replacements.shortest(),
            Self::Whole(_) | Self::Hash(_) => 0,
        }
    }

    /// The changed text; None if it stays.
    fn change(&self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Card(cards) => cards.mask(text),
            Self::Email(emails) => in_text(text, |text| emails.mask(text)),
            Self::Replace(replacements) => in_text(text, |text| replacements.apply(text)),
            Self::Whole(with) => (text != with.as_bytes()).then(|| with.clone().into_bytes()),
            Self::Hash(hash) => Some(hash.of(text).into_bytes()),
        }
    }
}

/// Changes the stretches of valid UTF-8.
fn in_text(bytes: &[u8], change: impl Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return change(text).map(String::into_bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut changed = false;
    for chunk in bytes.utf8_chunks() {
        match change(chunk.valid()) {
            Some(text) => {
                changed = true;
                out.extend_from_slice(text.as_bytes());
            }
            None => out.extend_from_slice(chunk.valid().as_bytes()),
        }
        out.extend_from_slice(chunk.invalid());
    }
    changed.then_some(out)
}

impl Actions {
    pub fn new(config: &Config) -> Result<Self, String> {
        config.rules.iter().map(Action::new).collect::<Result<_, _>>().map(Self)
    }

    /// Which actions may change some text of `data`.
    pub fn active(&self, data: &[u8]) -> Active {
        // What an earlier rule writes may be what a later one looks for.
        let mut written = false;
        let mut active = |action: &Action| {
            let may = written || action.may_apply(data);
            written |= may && matches!(action, Action::Whole(_) | Action::Replace(_));
            may
        };
        self.0.iter().map(&mut active).collect()
    }

    /// The fewest bytes of a text that any active action may change.
    pub fn shortest(&self, active: &Active) -> usize {
        self.0.iter().zip(active).filter(|(_, active)| **active).map(|(action, _)| action.shortest()).min().unwrap_or(usize::MAX)
    }

    /// As `active`, for bytes that may hold JSON with escapes.
    pub fn active_in_bytes(&self, data: &[u8]) -> Active {
        if memchr::memchr(b'\\', data).is_some() { vec![true; self.0.len()] } else { self.active(data) }
    }

    /// A text after the actions of `set`; None if it stays.
    #[inline]
    pub fn change_text(&self, set: &[usize], active: &Active, text: &[u8]) -> Option<Vec<u8>> {
        let mut changed: Option<Vec<u8>> = None;
        for index in set {
            if active[*index]
                && let Some(next) = self.0[*index].change(changed.as_deref().unwrap_or(text))
            {
                changed = Some(next);
            }
        }
        changed
    }

    /// A key or header value after the actions of `set`. Where it holds JSON, card numbers, addresses and replacements are done text by text inside;
    /// `is_json`: it must stay JSON.
    pub fn change_bytes(&self, set: &[usize], active: &Active, bytes: &[u8], is_json: bool) -> Result<Option<Vec<u8>>, RefusedName> {
        let mut current = Cow::Borrowed(bytes);
        for action in set.iter().filter(|index| active[**index]).map(|index| &self.0[*index]) {
            let inside = !matches!(action, Action::Whole(_) | Action::Hash(_)) && json_text::is_json(&current);
            let next = if inside {
                let refuse = |name: &str| matches!(action, Action::Card(_)) && action.change(name.as_bytes()).is_some();
                json_text::change_leaves(&current, |text| action.change(text), refuse)?
            } else if is_json {
                action.change(&current).map(|text| serde_json::Value::from(String::from_utf8_lossy(&text)).to_string().into_bytes())
            } else {
                action.change(&current)
            };
            if let Some(next) = next {
                current = Cow::Owned(next);
            }
        }
        Ok(match current {
            Cow::Borrowed(_) => None,
            Cow::Owned(bytes) => Some(bytes),
        })
    }

    /// Whether a card rule of `set` finds something.
    pub fn finds_card(&self, set: &[usize], text: &[u8]) -> bool {
        set.iter().any(|index| matches!(&self.0[*index], Action::Card(cards) if cards.mask(text).is_some()))
    }

    /// The card rule that alone of `set` is active: what a text looks like is then asked without a way through all rules.
    pub fn only_cards(&self, set: &[usize], active: &Active) -> Option<&Cards> {
        let mut acting = set.iter().filter(|index| active[**index]).map(|index| &self.0[*index]);
        match (acting.next(), acting.next()) {
            (Some(Action::Card(cards)), None) => Some(cards),
            _ => None,
        }
    }

    /// The first card rule of `set`.
    pub fn card_rule(&self, set: &[usize]) -> Option<&Cards> {
        set.iter().find_map(|index| match &self.0[*index] {
            Action::Card(cards) => Some(cards),
            _ => None,
        })
    }

    pub fn has_cards(&self) -> bool {
        self.0.iter().any(|action| matches!(action, Action::Card(_)))
    }
}
