//! `about`, `describe` and `init` in JSON, for any plugin.

use crate::describe::{About, Mistake, Request};
use crate::plugin::{Plugin, Setup};

/// The answer to `about`.
pub fn about<P: Plugin>() -> About {
    let config = schemars::generate::SchemaSettings::draft07().into_generator().into_root_schema_for::<P::Config>();
    About {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        summary: P::SUMMARY.to_owned(),
        config: config.to_value(),
        protects: P::PROTECTS,
    }
}

/// A request with its configuration as the plugin's own type, or what is wrong with it.
pub fn setup<P: Plugin>(request: Request) -> Result<Setup<P::Config>, Vec<Mistake>> {
    let Request { config, input, inputs, tables } = request;
    // A stage without `with` has no configuration at all: to a struct whose members are all optional that is an empty object.
    let config = if config.is_null() { serde_json::json!({}) } else { config };
    let config = serde_path_to_error::deserialize(config).map_err(|error| vec![mistake(&error)])?;
    Ok(Setup { config, input, inputs, tables })
}

fn mistake(error: &serde_path_to_error::Error<serde_json::Error>) -> Mistake {
    use serde_path_to_error::Segment;
    let mut at = String::new();
    for segment in error.path().iter() {
        match segment {
            Segment::Seq { index } => at.push_str(&format!("/{index}")),
            Segment::Map { key } => at.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            // Of the type, not of the text.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    Mistake { at, span: None, message: error.inner().to_string(), proposal: None }
}

/// `about` as the host calls it.
pub fn about_json<P: Plugin>() -> String {
    serde_json::to_string(&about::<P>()).unwrap_or_default()
}

/// `describe` as the host calls it.
pub fn describe_json<P: Plugin>(request: &str) -> Result<String, String> {
    let described = parse(request).and_then(setup::<P>).and_then(|setup| P::describe(&setup));
    match described {
        Ok(description) => Ok(serde_json::to_string(&description).unwrap_or_default()),
        Err(mistakes) => Err(serde_json::to_string(&mistakes).unwrap_or_default()),
    }
}

/// `init` as the host calls it.
pub fn init_json<P: Plugin>(request: &str) -> Result<P, String> {
    let setup = parse(request).and_then(setup::<P>).map_err(|mistakes| {
        let texts: Vec<_> = mistakes.iter().map(|mistake| format!("with{}: {}", mistake.at, mistake.message)).collect();
        texts.join("; ")
    })?;
    P::init(setup)
}

fn parse(request: &str) -> Result<Request, Vec<Mistake>> {
    serde_json::from_str(request).map_err(|error| {
        let message = format!("the host's request does not parse: {error}");
        vec![Mistake { at: String::new(), span: None, message, proposal: None }]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::Description;
    use serde_json::json;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Config {
        /// What is done.
        rules: Vec<Rule>,
    }

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Rule {
        #[serde(rename = "a/b")]
        count: Option<u8>,
    }

    struct Strict;

    impl Plugin for Strict {
        const NAME: &'static str = "strict";
        const VERSION: &'static str = "1";
        const SUMMARY: &'static str = "";
        type Config = Config;

        fn describe(_: &Setup<Config>) -> Result<Description, Vec<Mistake>> {
            Ok(Description::default())
        }

        fn init(setup: Setup<Config>) -> Result<Self, String> {
            if setup.config.rules.is_empty() { Err("no rules".to_owned()) } else { Ok(Self) }
        }

        fn process(&mut self, _: crate::Batch) -> Result<crate::verdict::Verdict, String> {
            Err("not asked".to_owned())
        }
    }

    fn request(config: serde_json::Value) -> String {
        json!({ "config": config, "input": { "fields": [], "open": true } }).to_string()
    }

    #[test]
    fn a_mistake_points_to_its_place() {
        for (config, at) in [
            (json!({}), ""),
            (json!(null), ""),
            (json!({ "rules": 1 }), "/rules"),
            (json!({ "rules": [{}, { "a/b": 256 }] }), "/rules/1/a~1b"),
            (json!({ "rules": [{ "c~d": 1 }] }), "/rules/0/c~0d"),
            (json!({ "rule": [] }), "/rule"),
        ] {
            let mistakes: Vec<Mistake> = serde_json::from_str(&describe_json::<Strict>(&request(config.clone())).unwrap_err()).unwrap();
            assert_eq!(mistakes[0].at, at, "{config}: {}", mistakes[0].message);
        }
        assert!(describe_json::<Strict>(&request(json!({ "rules": [] }))).is_ok());
    }

    #[test]
    fn init_says_why_it_does_not_start() {
        assert_eq!(init_json::<Strict>(&request(json!({ "rules": [] }))).err().unwrap(), "no rules");
        assert!(init_json::<Strict>(&request(json!({ "rules": 1 }))).err().unwrap().starts_with("with/rules: "));
        assert!(init_json::<Strict>("{").err().unwrap().contains("does not parse"));
        assert!(init_json::<Strict>(&request(json!({ "rules": [{}] }))).is_ok());
    }

    #[test]
    fn the_schema_of_the_configuration_is_draft_7() {
        let about: serde_json::Value = serde_json::from_str(&about_json::<Strict>()).unwrap();
        assert_eq!(about["config"]["$schema"], "http://json-schema.org/draft-07/schema#");
        assert_eq!(about["config"]["properties"]["rules"]["description"], "What is done.");
    }
}
