//! `{ secret: NAME }` anywhere in a stage's `with`: the name stands in the manifest, the value comes from this machine.

use serde_json::Value;
use std::collections::BTreeMap;

/// The prefix of environment variables that hold secrets.
pub const ENVIRONMENT: &str = "MILLSTREAM_SECRET_";
/// The environment variable that names a file with secrets.
pub const FILE: &str = "MILLSTREAM_SECRETS";

fn name_of(value: &Value) -> Option<&str> {
    let members = value.as_object()?;
    if members.len() == 1 { members.get("secret")?.as_str() } else { None }
}

fn replace(value: &Value, with: &mut dyn FnMut(&str) -> Value) -> Value {
    if let Some(name) = name_of(value) {
        return with(name);
    }
    match value {
        Value::Array(items) => items.iter().map(|item| replace(item, with)).collect(),
        Value::Object(members) => members.iter().map(|(key, member)| (key.clone(), replace(member, with))).collect(),
        other => other.clone(),
    }
}

/// The configuration as `describe` sees it: the text `<secret NAME>` for each secret.
pub fn hide_secrets(with: &Value) -> Value {
    replace(with, &mut |name| Value::String(format!("<secret {name}>")))
}

/// The names of all secrets in a configuration.
pub fn secret_names(with: &Value) -> Vec<String> {
    let mut names = Vec::new();
    replace(with, &mut |name| {
        names.push(name.to_owned());
        Value::Null
    });
    names
}

/// The configuration as `init` gets it. Err: the names of secrets that nobody knows.
pub fn resolve_secrets(with: &Value, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Value, Vec<String>> {
    let mut missing = Vec::new();
    let resolved = replace(with, &mut |name| match lookup(name) {
        Some(secret) => Value::String(secret),
        None => {
            missing.push(name.to_owned());
            Value::Null
        }
    });
    if missing.is_empty() { Ok(resolved) } else { Err(missing) }
}

/// The environment variable of a secret: upper case, `_` for what stands in no variable's name.
pub fn variable(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("{ENVIRONMENT}{name}")
}

/// This machine's secrets: environment variables first, then the file that `MILLSTREAM_SECRETS` names (TOML, `NAME = "value"`).
#[derive(Clone, Default)]
pub struct Secrets {
    file: BTreeMap<String, String>,
}

impl Secrets {
    /// Err: the file cannot be read. Never quotes it.
    pub fn load() -> anyhow::Result<Self> {
        let Some(path) = std::env::var_os(FILE) else {
            return Ok(Self::default());
        };
        let shown = std::path::Path::new(&path).display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| anyhow::anyhow!("cannot read the secrets file {shown} (from {FILE}): {error}"))?;
        let file = toml::from_str(&text)
            .map_err(|_| anyhow::anyhow!("the secrets file {shown} (from {FILE}) is not what it should be: lines of NAME = \"value\""))?;
        Ok(Self { file })
    }

    pub fn get(&self, name: &str) -> Option<String> {
        std::env::var(variable(name)).ok().or_else(|| self.file.get(name).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_hidden_then_resolved() {
        let with = json!({ "rules": [{ "hash": { "key": { "secret": "pepper" } } }], "secret": { "secret": "x", "more": 1 } });
        assert_eq!(hide_secrets(&with)["rules"][0]["hash"]["key"], "<secret pepper>");
        assert_eq!(secret_names(&with), ["pepper"]);
        assert_eq!(resolve_secrets(&with, &|_| None), Err(vec!["pepper".to_owned()]));
        let resolved = resolve_secrets(&with, &|name| Some(format!("{name}!"))).unwrap();
        assert_eq!(resolved["rules"][0]["hash"]["key"], "pepper!");
        assert_eq!(resolved["secret"]["more"], 1);
    }

    #[test]
    fn variables_have_plain_names() {
        assert_eq!(variable("card-pepper"), "MILLSTREAM_SECRET_CARD_PEPPER");
    }
}
