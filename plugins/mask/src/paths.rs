//! Which rules hold for a leaf, by its path.

use crate::plan::{Plan, Scope};
use std::collections::HashMap;
use std::rc::Rc;

/// Paths come from records, so what is remembered of them is bounded.
const REMEMBERED: usize = 4096;

/// Indices of rules, increasing.
pub type Set = Rc<[usize]>;

/// Finds the rules of a leaf. Records of a topic mostly have the same members in the same order, so the path of the record before at the same
/// place is compared first.
#[derive(Debug)]
pub struct LeafRules {
    everywhere: Set,
    none: Set,
    /// For each rule the paths that it names, as leaves spell them; None = every path.
    named: Vec<Option<Vec<Vec<u8>>>>,
    /// Paths that are masked as columns.
    columns: Vec<Vec<u8>>,
    /// Whether the path decides anything.
    by_path: bool,
    at_place: Vec<Option<(Vec<u8>, Set)>>,
    known: HashMap<Vec<u8>, Set>,
    /// What was found last beyond the places that are remembered.
    beyond: Set,
}

impl LeafRules {
    pub fn new(plan: &Plan) -> Self {
        let spell = |path: &millstream_guest::field::Path| path.to_string().into_bytes();
        let paths = |scope: &Scope| (!scope.everything).then(|| scope.paths.iter().map(spell).collect::<Vec<_>>());
        let named: Vec<_> = plan.scopes.iter().map(paths).collect();
        let columns: Vec<_> = plan.targets.iter().map(|target| spell(&target.path)).collect();
        Self {
            everywhere: (0..named.len()).filter(|rule| named[*rule].is_none()).collect(),
            none: Rc::from([]),
            beyond: Rc::from([]),
            by_path: !columns.is_empty() || named.iter().any(|paths| paths.as_ref().is_some_and(|paths| !paths.is_empty())),
            named,
            columns,
            at_place: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// The rules that hold for every leaf, if the path decides nothing.
    pub fn for_all(&self) -> Option<Set> {
        (!self.by_path).then(|| self.everywhere.clone())
    }

    /// The rules of the leaf at `path`, the record's leaf number `place`.
    pub fn of(&mut self, place: usize, path: &[u8]) -> &[usize] {
        if !matches!(self.at_place.get(place), Some(Some((last, _))) if last == path) {
            self.find(place, path);
        }
        match self.at_place.get(place) {
            Some(Some((_, set))) => set,
            _ => &self.beyond,
        }
    }

    /// Finds the rules of `path` and remembers them at `place`, or as what is beyond the places.
    fn find(&mut self, place: usize, path: &[u8]) {
        let set = match self.known.get(path) {
            Some(set) => set.clone(),
            None => {
                let set = self.rules(path);
                if self.known.len() >= REMEMBERED {
                    self.known.clear();
                }
                self.known.insert(path.to_vec(), set.clone());
                set
            }
        };
        if place >= REMEMBERED {
            self.beyond = set;
            return;
        }
        if self.at_place.len() <= place {
            self.at_place.resize(place + 1, None);
        }
        self.at_place[place] = Some((path.to_vec(), set));
    }

    fn rules(&self, path: &[u8]) -> Set {
        if self.columns.iter().any(|column| column == path) {
            return self.none.clone();
        }
        let holds = |names: &Option<Vec<Vec<u8>>>| names.as_ref().is_none_or(|names| names.iter().any(|name| leads_to(name, path)));
        (0..self.named.len()).filter(|rule| holds(&self.named[*rule])).collect()
    }
}

/// Whether the leaf at `path` stands at or below `name`.
fn leads_to(name: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(name).is_some_and(|rest| matches!(rest.first(), None | Some(b'.' | b'[')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_a_path() {
        for (name, path, holds) in [
            ("a", "a", true),
            ("a", "a.b", true),
            ("a", "a[0].b", true),
            ("a", "ab", false),
            ("a.b", "a", false),
            ("a.\"b.c\"", "a.\"b.c\".d", true),
        ] {
            assert_eq!(leads_to(name.as_bytes(), path.as_bytes()), holds, "{name} {path}");
        }
    }
}
