//! The published schemas of `about` and `describe`: generated from the types that host and SDK share.

use crate::plugin::describe::{About, Description, Mistake, Request};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;

/// File names under `wit/` and what they hold: JSON schema, draft 7.
pub fn contract_schemas() -> [(&'static str, serde_json::Value); 4] {
    [
        ("about.schema.json", schema::<About>("What a plugin's `about` answers")),
        ("describe-request.schema.json", schema::<Request>("What a plugin's `describe` and `init` get")),
        ("describe-answer.schema.json", schema::<Description>("What a plugin's `describe` answers")),
        ("describe-errors.schema.json", schema::<Vec<Mistake>>("What a plugin's `describe` answers to a wrong configuration")),
    ]
}

fn schema<T: JsonSchema>(title: &str) -> serde_json::Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

#[cfg(test)]
mod tests {
    /// `millstream schema contract` prints them; MILLSTREAM_BLESS=1 writes them.
    #[test]
    fn the_published_schemas_are_current() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        for (name, schema) in super::contract_schemas() {
            let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            if std::env::var_os("MILLSTREAM_BLESS").is_some() {
                std::fs::write(folder.join(name), &text).unwrap();
            }
            let published = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(published == text, "wit/{name} is not what the types say: run this test with MILLSTREAM_BLESS=1");
        }
    }
}
