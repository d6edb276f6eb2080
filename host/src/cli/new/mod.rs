//! `millstream new`: a plugin or a pipeline to start from, which builds and passes its tests as it is.

mod project;
mod sdk;

use super::{Context, Outcome, Output};
use clap::{Subcommand, ValueEnum};
use project::Project;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A plugin in Rust, with the SDK beside it
    Plugin {
        /// The folder to make; its last part is the plugin's name
        #[arg(value_name = "NAME")]
        path: PathBuf,
        /// What the plugin does
        #[arg(long, value_enum, default_value_t)]
        kind: Kind,
    },
    /// A pipeline with a source, a filter, a sink, data and a test
    Pipeline {
        /// The folder to make; its last part is the pipeline's name
        #[arg(value_name = "NAME")]
        path: PathBuf,
    },
}

/// Kinds of plugins: one for each attribute of the SDK, and `route` for a map to several outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Keeps or drops records
    #[default]
    Filter,
    /// Writes fields into records
    Map,
    /// Makes any number of records of one, for several outputs
    Route,
    /// Keeps a row of state for each key
    Aggregate,
    /// Joins records with a table
    Enrich,
}

impl Kind {
    fn source(self) -> &'static str {
        match self {
            Self::Filter => include_str!("templates/filter.rs"),
            Self::Map => include_str!("templates/map.rs"),
            Self::Route => include_str!("templates/route.rs"),
            Self::Aggregate => include_str!("templates/aggregate.rs"),
            Self::Enrich => include_str!("templates/enrich.rs"),
        }
    }
}

pub fn run(args: &Args, context: &Context) -> Outcome {
    let (project, next) = match &args.what {
        What::Plugin { path, kind } => {
            let mut project = Project::new(path)?;
            let name = project.name.clone();
            let fill = |text: &str| text.replace("{name}", &name);
            project.add("Cargo.toml", fill(include_str!("templates/plugin.toml")));
            project.add("Cargo.lock", sdk::LOCK);
            project.add("README.md", fill(include_str!("templates/plugin.md")));
            project.add(".gitignore", "/target\n*.wasm\n");
            project.add("src/lib.rs", kind.source());
            for (file, text) in sdk::files()? {
                project.add(format!("vendor/millstream-guest/{file}"), text);
            }
            (project, ["cargo test", "millstream build"])
        }
        What::Pipeline { path } => {
            let mut project = Project::new(path)?;
            let name = project.name.clone();
            let fill = |text: &str| text.replace("{name}", &name);
            project.add("pipeline.yaml", fill(include_str!("templates/pipeline.yaml")));
            project.add("data/orders.jsonl", include_str!("templates/orders.jsonl"));
            project.add("README.md", fill(include_str!("templates/pipeline.md")));
            project.add(".gitignore", "/.millstream\n");
            (project, ["millstream check pipeline.yaml", "millstream test pipeline.yaml"])
        }
    };
    project.write()?;
    match context.global.output {
        Output::Json => println!("{}", serde_json::json!({ "path": project.folder, "name": project.name })),
        Output::Text => {
            println!("made {}; next:", project.folder.display());
            println!("  cd {}", project.folder.display());
            next.iter().for_each(|command| println!("  {command}"));
            println!("and see its README.md");
        }
    }
    Ok(())
}
