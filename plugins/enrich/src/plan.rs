//! From the configuration to what is read, looked up and written, with every mistake on the way.

use crate::{Config, Join};
use millstream_expression::{Expression, Kind, Scope, nearest, pointer};
use millstream_guest::Setup;
use millstream_guest::column::Type;
use millstream_guest::describe::{Base, Description, FieldType, Mistake, Output, OutputKey};
use millstream_guest::field::{Field, Path};

pub struct Plan {
    pub key: Expression,
    pub join: Join,
    pub adds: Vec<Add>,
    description: Description,
}

/// A field that is added.
pub struct Add {
    pub path: Path,
    pub expression: Expression,
}

impl Plan {
    pub fn new(setup: &Setup<Config>) -> Result<Self, Vec<Mistake>> {
        let config = &setup.config;
        let mut mistakes = Vec::new();
        let mut scope = Scope::new(&setup.input);
        let key = match Expression::compile_at("/on", &config.on, &mut scope) {
            Ok(key) if matches!(key.cel_kind(), Kind::Text | Kind::Int | Kind::Dyn) => Some(key),
            Ok(key) => {
                let message = format!("keys are looked up by text or int, this is {}", key.cel_kind().name());
                mistakes.push(Mistake { at: "/on".to_owned(), span: None, message, proposal: Some("`string(...)`".to_owned()) });
                None
            }
            Err(found) => {
                mistakes.extend(found);
                None
            }
        };
        // Before the table's columns join in.
        let by = Field::parse(config.on.trim()).ok().filter(|field| matches!(scope.reads(), [read] if read.path == *field));
        let Some(table) = setup.tables.get(&config.table) else {
            mistakes.push(unknown_table(setup));
            return Err(mistakes);
        };
        let mut scope = scope.with_table(&config.table, table);
        let mut adds: Vec<Add> = Vec::new();
        for (target, text) in &config.add.0 {
            let at = pointer(&["add", target]);
            let mistake = |message: String, proposal: Option<&str>| Mistake {
                at: at.clone(),
                span: None,
                message,
                proposal: proposal.map(str::to_owned),
            };
            let path = match Field::parse(target) {
                Ok(Field::Value(path)) => Some(path),
                Ok(other) => {
                    mistakes.push(mistake(format!("`{other}` is not a field of the value"), Some("`map` can set $key and $timestamp")));
                    None
                }
                Err(error) => {
                    mistakes.push(mistake(error.to_string(), None));
                    None
                }
            };
            let expression = Expression::compile_at(&at, text, &mut scope).map_err(|found| mistakes.extend(found)).ok();
            let (Some(path), Some(expression)) = (path, expression) else { continue };
            if let Some(earlier) = adds.iter().find(|add| add.path.is_prefix_of(&path) || path.is_prefix_of(&add.path)) {
                let message = format!("`{}` and `{path}` cannot both be added: one holds the other", earlier.path);
                mistakes.push(mistake(message, None));
            }
            adds.push(Add { path, expression });
        }
        let Some(key) = key.filter(|_| mistakes.is_empty()) else { return Err(mistakes) };
        let field = |add: &Add| {
            let (kind, nullable): (Type, bool) = add.expression.kind();
            FieldType { path: Field::Value(add.path.clone()), kind, nullable: nullable || config.join == Join::Left }
        };
        let description = Description {
            reads: scope.reads().to_vec(),
            outputs: vec![Output {
                name: "out".to_owned(),
                base: Base::Extend,
                fields: adds.iter().map(field).collect(),
                removes: Vec::new(),
                key: OutputKey::Kept,
            }],
            tables: vec![config.table.clone()],
            table_keys: vec![by],
            warnings: scope.warnings().to_vec(),
            ..Description::default()
        };
        Ok(Self { key, join: config.join, adds, description })
    }

    pub fn describe(self) -> Description {
        self.description
    }
}

fn unknown_table(setup: &Setup<Config>) -> Mistake {
    let name = &setup.config.table;
    let known = || setup.tables.keys().map(String::as_str);
    let proposal = match (nearest(name, known()), setup.tables.len()) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, 0) => "declare it under `tables:`".to_owned(),
        (None, _) => format!("there are: {}", known().collect::<Vec<_>>().join(", ")),
    };
    Mistake { at: "/table".to_owned(), span: None, message: format!("there is no table `{name}`"), proposal: Some(proposal) }
}
