//! A folder of files that is made whole or not at all.

use anyhow::{Context, Result, bail};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

pub struct Project {
    pub folder: PathBuf,
    pub name: String,
    files: Vec<(PathBuf, Cow<'static, str>)>,
}

impl Project {
    /// Err: the name is none, or something is there already.
    pub fn new(folder: &Path) -> Result<Self> {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let fits = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'))
        };
        if !fits(&name) || name.len() > 64 {
            bail!("`{name}` cannot be a name: it takes lower case letters, digits, `-` and `_`, at most 64, and begins with a letter");
        }
        // Names that a crate cannot have: they would hide the standard library's, the SDK's or a word of the language.
        if matches!(
            name.as_str(),
            "std"
                | "core"
                | "alloc"
                | "test"
                | "proc_macro"
                | "proc-macro"
                | "millstream-guest"
                | "millstream_guest"
                | "serde"
                | "schemars"
                | "serde_json"
        ) || is_keyword(&name)
        {
            bail!("`{name}` cannot be a name: Rust or the SDK uses it");
        }
        if folder.symlink_metadata().is_ok() {
            bail!("{} is there already; nothing was written", folder.display());
        }
        Ok(Self { folder: folder.to_owned(), name, files: Vec::new() })
    }

    pub fn add(&mut self, path: impl Into<PathBuf>, text: impl Into<Cow<'static, str>>) {
        self.files.push((path.into(), text.into()));
    }

    /// Writes into a folder beside and renames it: a failure half-way leaves nothing that looks finished.
    pub fn write(&self) -> Result<()> {
        let parent = match self.folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let made = tempfile::Builder::new()
            .prefix(".millstream-new-")
            .tempdir_in(parent)
            .with_context(|| format!("cannot write into {}", parent.display()))?;
        let inner = made.path().join(&self.name);
        for (path, text) in &self.files {
            let path = inner.join(path);
            let write = || std::fs::create_dir_all(path.parent().unwrap_or(&inner)).and_then(|()| std::fs::write(&path, text.as_bytes()));
            write().with_context(|| format!("cannot write {}", path.display()))?;
        }
        std::fs::rename(&inner, &self.folder).with_context(|| format!("cannot make {}", self.folder.display()))
    }
}

fn is_keyword(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else", "enum", "extern",
        "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override",
        "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe", "unsized",
        "use", "virtual", "where", "while", "yield",
    ];
    WORDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_folders_are_checked_before_anything_is_written() {
        let there = tempfile::tempdir().unwrap();
        for wrong in ["", "Big", "1st", "a b", "fn", "std", "serde", "ä", "..", &"a".repeat(65)] {
            assert!(Project::new(&there.path().join(wrong)).is_err(), "{wrong}");
        }
        std::fs::write(there.path().join("taken"), "mine").unwrap();
        assert!(Project::new(&there.path().join("taken")).is_err());

        let mut project = Project::new(&there.path().join("drop-tests")).unwrap();
        project.add("src/lib.rs", "text");
        project.write().unwrap();
        assert_eq!(std::fs::read_to_string(there.path().join("drop-tests/src/lib.rs")).unwrap(), "text");
        // A second time, into what another process has made meanwhile.
        project.write().unwrap_err();
        assert_eq!(std::fs::read_dir(there.path()).unwrap().count(), 2, "something was left behind");
    }
}
