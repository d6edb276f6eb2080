//! The WIT of 1.0 against the published one, as lists of statements: additions are allowed, where plugins of 1.0 do not see them.

use super::{MEANING, read};
use std::collections::BTreeSet;
use wit_parser::{InterfaceId, Resolve, Type, TypeDefKind, TypeId, WorldItem};

const PUBLISHED: &str = "wit/plugin.wit";

/// What a WIT file says, one statement for each type, function, import and export; without comments, gates and the version.
fn statements(text: &str) -> BTreeSet<String> {
    let mut resolve = Resolve::default();
    let package = resolve.push_source("plugin.wit", text).unwrap();
    let package = &resolve.packages[package];
    let mut out = BTreeSet::new();
    for (name, id) in &package.interfaces {
        let interface = &resolve.interfaces[*id];
        for (kind, id) in &interface.types {
            out.insert(format!("type {name}.{kind} = {}", definition(&resolve, *id)));
        }
        for (function, signature) in &interface.functions {
            let parameters: Vec<_> =
                signature.params.iter().map(|parameter| format!("{}: {}", parameter.name, kind(&resolve, &parameter.ty))).collect();
            let result = signature.result.as_ref().map_or("nothing".to_owned(), |result| kind(&resolve, result));
            out.insert(format!("func {name}.{function}({}) -> {result}", parameters.join(", ")));
        }
    }
    for (name, id) in &package.worlds {
        let world = &resolve.worlds[*id];
        for (direction, items) in [("imports", &world.imports), ("exports", &world.exports)] {
            for item in items.values() {
                let WorldItem::Interface { id, .. } = item else { panic!("world {name} has something else than interfaces") };
                out.insert(format!("world {name} {direction} {}", interface_name(&resolve, *id)));
            }
        }
    }
    out
}

fn interface_name(resolve: &Resolve, id: InterfaceId) -> &str {
    resolve.interfaces[id].name.as_deref().unwrap_or_default()
}

/// A type where it is used: by its name, of the interface that defines it.
fn kind(resolve: &Resolve, kind: &Type) -> String {
    let Type::Id(id) = kind else { return format!("{kind:?}").to_lowercase() };
    let defined = &resolve.types[*id];
    match (&defined.kind, &defined.name) {
        (TypeDefKind::Type(of), _) => self::kind(resolve, of),
        (_, Some(name)) => match defined.owner {
            wit_parser::TypeOwner::Interface(owner) => format!("{}.{name}", interface_name(resolve, owner)),
            _ => name.clone(),
        },
        (_, None) => definition(resolve, *id),
    }
}

fn definition(resolve: &Resolve, id: TypeId) -> String {
    let of = |it: &Type| kind(resolve, it);
    let or_none = |it: &Option<Type>| it.as_ref().map_or("_".to_owned(), of);
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => {
            let fields: Vec<_> = record.fields.iter().map(|field| format!("{}: {}", field.name, of(&field.ty))).collect();
            format!("record {{ {} }}", fields.join(", "))
        }
        TypeDefKind::Variant(variant) => {
            let cases: Vec<_> = variant.cases.iter().map(|case| format!("{}({})", case.name, or_none(&case.ty))).collect();
            format!("variant {{ {} }}", cases.join(", "))
        }
        TypeDefKind::Enum(cases) => {
            format!("enum {{ {} }}", cases.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>().join(", "))
        }
        TypeDefKind::Option(it) => format!("option<{}>", of(it)),
        TypeDefKind::Result(result) => format!("result<{}, {}>", or_none(&result.ok), or_none(&result.err)),
        TypeDefKind::List(it) => format!("list<{}>", of(it)),
        TypeDefKind::Tuple(tuple) => format!("tuple<{}>", tuple.types.iter().map(of).collect::<Vec<_>>().join(", ")),
        TypeDefKind::Type(it) => of(it),
        // Said in full, so that a change of it is seen too.
        other => format!("{other:?}"),
    }
}

/// What of `now` would break a plugin that was built for `then`.
fn broken(then: &str, now: &str) -> Vec<String> {
    let (then, now) = (statements(then), statements(now));
    let mut broken: Vec<_> = then.difference(&now).map(|gone| format!("gone or changed: {gone}")).collect();
    let exported: BTreeSet<&str> = then.iter().filter_map(|statement| Some(statement.split_once(" exports ")?.1)).collect();
    for new in now.difference(&then) {
        let in_exported =
            new.strip_prefix("func ").and_then(|function| function.split_once('.')).is_some_and(|(name, _)| exported.contains(name));
        // A host that looks for it would not find it in a plugin that was built before.
        if in_exported || new.starts_with("world plugin exports ") {
            broken.push(format!("new, but a plugin of 1.0 does not export it: {new}"));
        }
    }
    broken
}

#[test]
fn what_the_wit_of_1_0_had_is_there() {
    let broken = broken(&read("tests/frozen/1.0/wit/plugin.wit"), &read(PUBLISHED));
    assert!(broken.is_empty(), "{PUBLISHED}: {MEANING}:\n{}", broken.join("\n"));
}

/// The SDK is published without the repository around it.
#[test]
fn the_sdk_has_the_published_wit() {
    assert!(read(PUBLISHED) == read("guest-sdk/wit/plugin.wit"), "guest-sdk/wit/plugin.wit is not {PUBLISHED}: copy it");
}

#[test]
fn changes_that_break_are_told_from_those_that_do_not() {
    let wit = read(PUBLISHED);
    let change = |from: &str, to: &str| {
        assert!(wit.contains(from), "{from}");
        broken(&wit, &wit.replacen(from, to, 1))
    };
    for (from, to, told) in [
        ("    validity: list<u8>,", "    valid: list<u8>,", "type types.column"),
        ("    rows: u32,", "    rows: u64,", "type types.batch"),
        ("    tombstones: list<u8>,\n", "    tombstones: list<u8>,\n    more: u32,\n", "type types.derived"),
        ("    jsons(strings),\n", "    jsons(strings),\n    decimals(strings),\n", "type types.values"),
        ("    closed,\n", "    closed,\n    idle,\n", "type emitting.occasion"),
        ("  stream-times: func() -> list<s64>;\n", "", "func windows.stream-times"),
        ("limit: u32) -> page", "limit: u64) -> page", "func state.scan"),
        ("row: u32, message: string)", "place: u32, message: string)", "func log.write"),
        (
            "  about: func() -> string;",
            "  about: func() -> string;\n  flush: func();",
            "new, but a plugin of 1.0 does not export it: func transform.flush",
        ),
        ("  export transform;\n", "  export transform;\n  export timed;\n", "world plugin exports timed"),
        ("  import tables;\n", "", "world plugin imports tables"),
    ] {
        let broken = change(from, to);
        assert!(broken.iter().any(|broken| broken.contains(told)), "{to}: {broken:?}");
    }
    for (from, to) in [
        ("millstream:plugin@1.0.0", "millstream:plugin@1.1.0"),
        ("/// One field of every row.", "/// Another comment."),
        ("world plugin {\n", "interface clocks {\n  now: func() -> s64;\n}\nworld plugin {\n  import clocks;\n"),
        (
            "  delete-many: func(store: u32,",
            "  @since(version = 1.0.0)\n  count: func(store: u32) -> u64;\n  delete-many: func(store: u32,",
        ),
        ("world emits {", "interface ended {\n  end: func();\n}\nworld ends {\n  export ended;\n}\nworld emits {"),
    ] {
        assert_eq!(change(from, to), Vec::<String>::new(), "{to}");
    }
}
