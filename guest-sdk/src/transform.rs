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
    let Request { config, input, tables } = request;
    // A stage without `with` has no configuration at all: to a struct whose members are all optional that is an empty object.
    let config = if config.is_null() { serde_json::json!({}) } else { config };
    let config = serde_path_to_error::deserialize(config).map_err(|error| vec![mistake(&error)])?;
    Ok(Setup { config, input, tables })
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
