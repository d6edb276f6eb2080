use super::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// What is described, by method and path.
fn described(document: &Value) -> BTreeMap<(String, String), &Value> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| methods.as_object().unwrap().iter().map(move |one| (path, one)));
    operations.map(|(path, (method, operation))| ((method.to_uppercase(), path.clone()), operation)).collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = document();
    let described: BTreeSet<_> = described(&document).into_keys().collect();
    let routes = routes().into_iter().map(|(method, path, handler)| {
        // What the handler answers to is what the table says.
        assert!(format!("{handler:?}").contains(&format!("{}: Boxed", method.to_lowercase())), "{method} {path}: {handler:?}");
        (method.to_owned(), path.to_owned())
    });
    let own = ["/metrics", "/healthz"].map(|path| ("GET".to_owned(), path.to_owned()));
    assert_eq!(described, routes.chain(own).collect());
}

/// The names of query parameters that a command knows.
fn known<T: clap::Args>() -> BTreeSet<String> {
    let command = T::augment_args(clap::Command::new("flags"));
    command.get_arguments().filter_map(|argument| Some(argument.get_long()?.replace('-', "_"))).collect()
}

#[test]
fn every_flag_is_described_and_nothing_else() {
    let document = document();
    let described = described(&document);
    let parameters = |path: &str| -> BTreeSet<String> {
        let all = described[&("POST".to_owned(), path.to_owned())]["parameters"].as_array().unwrap();
        all.iter().filter(|one| one["in"] == "query").map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(parameters("/v1/pipelines"), known::<How>());
    assert_eq!(parameters("/v1/pipelines/{name}/swap"), known::<How>());
    assert_eq!(parameters("/v1/pipelines/{name}/rollback"), known::<Back>());
}

#[test]
fn every_exit_has_a_code_and_a_name_that_is_described() {
    let exits = [
        (Exit::Failure, 400),
        (Exit::Usage, 400),
        (Exit::Manifest, 422),
        (Exit::Record, 422),
        (Exit::Plugin, 422),
        (Exit::Log, 503),
        (Exit::Test, 422),
        (Exit::Conflict, 409),
        (Exit::Refused, 422),
        (Exit::Timeout, 504),
        (Exit::Denied, 403),
        (Exit::Interrupted, 503),
    ];
    let document = document();
    let names = document["components"]["schemas"]["Failure"]["properties"]["name"]["enum"].as_array().unwrap();
    assert_eq!(names.len(), exits.len());
    for (exit, expected) in exits {
        assert_eq!(code(&Failure::new(exit, String::new())), expected, "{exit:?}");
        assert!(names.contains(&exit.name().into()), "{exit:?}");
    }
    assert_eq!(code(&NotThere(String::new()).into()), 404);
}
