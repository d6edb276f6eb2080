//! Paths as a tree, so that one walk over a record meets all of them.

use super::text::Text;
use crate::field::Path;

/// Above this many members, names are searched by halving.
const FEW: usize = 16;

/// Paths as a tree. Node 0 is the record itself; a node's number is above its parent's.
#[derive(Clone, Debug)]
pub struct Trie {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
pub struct Node {
    pub parent: usize,
    pub name: Box<str>,
    /// In the order in which they were added.
    pub children: Vec<usize>,
    /// The children, ordered for the search.
    names: Vec<Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    /// The first eight bytes; a shorter name is filled up with zeros.
    head: u64,
    length: usize,
    node: usize,
    /// What follows the first eight bytes.
    rest: Box<[u8]>,
}

/// The first eight bytes of what stands at `start..end`, zeros behind its end.
#[inline]
fn head(bytes: &[u8], start: usize, end: usize) -> u64 {
    let length = end - start;
    match bytes.get(start..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(chunk) if length >= 8 => u64::from_le_bytes(*chunk),
        Some(chunk) => u64::from_le_bytes(*chunk) & ((1 << (8 * length)) - 1),
        None => bytes.get(start..end).unwrap_or_default().iter().rev().fold(0, |head, byte| head << 8 | u64::from(*byte)),
    }
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Trie {
    /// The node of a path, added if need be.
    pub fn add(&mut self, path: &Path) -> usize {
        path.0.iter().fold(0, |parent, part| {
            let known = self.nodes[parent].children.iter().copied().find(|child| *self.nodes[*child].name == **part);
            known.unwrap_or_else(|| self.grow(parent, part))
        })
    }

    fn grow(&mut self, parent: usize, part: &str) -> usize {
        let node = self.nodes.len();
        let bytes = part.as_bytes();
        let rest = bytes.get(8..).unwrap_or_default().into();
        self.nodes.push(Node { parent, name: part.into(), ..Node::default() });
        let names = &mut self.nodes[parent].names;
        let name = Name { head: head(bytes, 0, bytes.len()), length: bytes.len(), node, rest };
        names.insert(names.partition_point(|other| *other < name), name);
        self.nodes[parent].children.push(node);
        node
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn node(&self, node: usize) -> &Node {
        &self.nodes[node]
    }

    /// Whether `ancestor` is `node` or leads to it.
    pub fn leads_to(&self, ancestor: usize, mut node: usize) -> bool {
        while node > ancestor {
            node = self.nodes[node].parent;
        }
        node == ancestor
    }

    /// The path of a node.
    pub fn path(&self, mut node: usize) -> Path {
        let mut parts = Vec::new();
        while node > 0 {
            parts.push(self.nodes[node].name.to_string());
            node = self.nodes[node].parent;
        }
        parts.reverse();
        Path(parts)
    }

    /// The member of `node` that a key names. Keys are compared by what they say: `c\u0061rd` is `card`.
    #[inline]
    pub fn child(&self, node: usize, json: &[u8], key: Text, scratch: &mut Vec<u8>) -> Option<usize> {
        let names = &self.nodes[node].names;
        if key.escaped {
            // A lone surrogate is in no path.
            let says = key.unescape(json, scratch).ok()?;
            return search(names, says, 0, says.len());
        }
        search(names, json, key.start, key.end)
    }
}

#[inline]
fn search(names: &[Name], bytes: &[u8], start: usize, end: usize) -> Option<usize> {
    let (head, length) = (head(bytes, start, end), end - start);
    let from = if names.len() > FEW { names.partition_point(|name| (name.head, name.length) < (head, length)) } else { 0 };
    for name in names.get(from..)? {
        if name.head == head && name.length == length && (length <= 8 || bytes.get(start + 8..end) == Some(&name.rest)) {
            return Some(name.node);
        }
        if name.head > head {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_among_few_and_many() {
        for count in [1, 5, 16, 17, 300] {
            let mut trie = Trie::default();
            let names: Vec<String> = (0..count).map(|place| "field_".repeat(place % 3) + &place.to_string()).collect();
            let nodes: Vec<usize> = names.iter().map(|name| trie.add(&Path(vec![name.clone()]))).collect();
            for padding in ["", "xxxxxxxxxx"] {
                for (name, node) in names.iter().zip(&nodes) {
                    let json = format!("{name}{padding}");
                    let key = |end| Text { start: 0, end, escaped: false };
                    assert_eq!(trie.child(0, json.as_bytes(), key(name.len()), &mut Vec::new()), Some(*node), "{name}");
                    assert_eq!(trie.child(0, b"field_field_none", key(16), &mut Vec::new()), None);
                }
            }
        }
    }

    #[test]
    fn an_empty_name_and_zeros_are_names_too() {
        let mut trie = Trie::default();
        let (empty, zero) = (trie.add(&Path(vec![String::new()])), trie.add(&Path(vec!["\0".to_owned()])));
        let key = |end| Text { start: 0, end, escaped: false };
        assert_eq!(trie.child(0, b"", key(0), &mut Vec::new()), Some(empty));
        assert_eq!(trie.child(0, b"\0", key(1), &mut Vec::new()), Some(zero));
        assert_eq!(trie.child(0, b"\0\0", key(2), &mut Vec::new()), None);
    }

    #[test]
    fn nodes_know_their_way() {
        let mut trie = Trie::default();
        let path = Path::parse("a.\"b.c\".d").unwrap();
        let (deep, other) = (trie.add(&path), trie.add(&Path::parse("a.x").unwrap()));
        assert_eq!(trie.path(deep), path);
        assert!(trie.leads_to(1, deep) && trie.leads_to(deep, deep) && !trie.leads_to(deep, other) && !trie.leads_to(2, other));
    }
}
