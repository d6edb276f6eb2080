//! From configuration and input to what is read and written, and every mistake in the configuration.

use crate::config::{Config, Rule};
use millstream_guest::column::Type;
use millstream_guest::describe::{Base, Description, FieldType, Mistake, Output, OutputKey, Part, Read, Schema};
use millstream_guest::field::{Field, Path};

/// Where a rule looks.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// `**`.
    pub everything: bool,
    pub paths: Vec<Path>,
    pub key: bool,
    pub headers: Vec<String>,
}

/// A field that is read and written as a column. All others are masked through the leaves.
#[derive(Clone, Debug)]
pub struct Target {
    pub path: Path,
    pub kind: Type,
    pub nullable: bool,
    /// Indices of the rules that hold for it.
    pub rules: Vec<usize>,
}

#[derive(Debug)]
pub struct Plan {
    pub scopes: Vec<Scope>,
    pub targets: Vec<Target>,
    /// Whether the value's leaves are needed.
    pub leaves: bool,
    /// The key's type: text, unless the source says otherwise.
    pub key: Type,
    warnings: Vec<String>,
}

/// Whether a rule replaces whatever stands in a field.
fn replaces_all(rule: &Rule) -> bool {
    rule.whole.is_some() || rule.hash.is_some()
}

impl Plan {
    pub fn new(config: &Config, input: &Schema) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut plan = Self { scopes: Vec::new(), targets: Vec::new(), leaves: false, key: key_type(input), warnings: Vec::new() };
        if config.rules.is_empty() {
            mistakes.push(mistake(
                "/rules".to_owned(),
                "there is no rule, so nothing is masked",
                Some("- { fields: '**', card: { keep_last: 4 } }"),
            ));
        }
        for (index, rule) in config.rules.iter().enumerate() {
            check_action(rule, &format!("/rules/{index}"), &mut mistakes);
            let scope = plan.scope(index, rule, input, &mut mistakes);
            plan.scopes.push(scope);
        }
        plan.find_targets(config, input);
        if plan.reads_key() {
            if plan.key == Type::Int
                && config.rules.iter().zip(&plan.scopes).any(|(rule, scope)| plan.masks_key(scope) && replaces_all(rule))
            {
                mistakes.push(mistake(
                    "/rules".to_owned(),
                    "the key is a binary number, which has no room for a text",
                    Some("declare the source's key as text, or name the value's fields instead of '**' or $key"),
                ));
            }
            plan.warnings.push(
                "the key is masked: records whose masked keys are equal are one key from here on, in partitioning and in state by key"
                    .to_owned(),
            );
        }
        if mistakes.is_empty() { Ok(plan) } else { Err(mistakes) }
    }

    fn scope(&mut self, index: usize, rule: &Rule, input: &Schema, mistakes: &mut Vec<Mistake>) -> Scope {
        let mut scope = Scope::default();
        let texts = rule.fields.texts();
        if texts.is_empty() {
            mistakes.push(mistake(format!("/rules/{index}/fields"), "no field is named", Some("'**' for all, or a list of paths")));
        }
        for (place, text) in texts {
            let at = format!("/rules/{index}/fields{place}");
            match Field::parse(text) {
                _ if text == "**" => scope.everything = true,
                Ok(Field::Key) => scope.key = true,
                Ok(Field::Header(name)) => scope.headers.push(name),
                Ok(Field::Value(path)) => {
                    if let Err(mistake) = self.check_path(&path, at, rule, input) {
                        mistakes.push(mistake);
                    }
                    scope.paths.push(path);
                }
                Ok(other) => mistakes.push(mistake(
                    at,
                    &format!("{other} cannot be masked"),
                    Some("paths into the value, $key, $headers.\"name\", or '**' for all of these"),
                )),
                Err(error) => mistakes.push(mistake(at, &error.to_string(), None)),
            }
        }
        self.leaves |= scope.everything;
        scope
    }

    /// Decides whether a named path needs the leaves.
    fn check_path(&mut self, path: &Path, at: String, rule: &Rule, input: &Schema) -> Result<(), Mistake> {
        match declared(input).find(|(declared, _)| *declared == path) {
            Some((_, field)) if field.kind == Type::Bytes => Err(mistake(
                at,
                &format!("`{path}` is declared as bytes, and only texts and numbers can be masked"),
                Some("declare it as text, or remove it by `map`"),
            )),
            Some((_, field)) if field.kind == Type::Boolean && !replaces_all(rule) => Err(mistake(
                at,
                &format!("`{path}` is declared as boolean: there is nothing in it to find"),
                Some("whole: { with: '***' }"),
            )),
            Some((_, field)) if field.kind == Type::Json => {
                self.leaves = true;
                Ok(())
            }
            Some(_) => Ok(()),
            None => {
                self.leaves = true;
                let below = declared(input).any(|(declared, _)| path.is_prefix_of(declared));
                let inside = declared(input).any(|(declared, field)| declared.is_prefix_of(path) && field.kind == Type::Json);
                if below || inside {
                    return Ok(());
                }
                if !input.open {
                    let known: Vec<_> = declared(input).map(|(path, _)| path.to_string()).collect();
                    return Err(mistake(at, &format!("there is no field `{path}`"), Some(&format!("one of: {}", known.join(", ")))));
                }
                self.warnings.push(format!(
                    "`{path}` is not in the schema: every text and number at or below it is masked, and if the name is misspelt, nothing is"
                ));
                Ok(())
            }
        }
    }

    /// Fields that are read and written as columns: numbers and booleans that become texts, so that later stages see the new type; and, as
    /// long as nothing needs the leaves, texts.
    fn find_targets(&mut self, config: &Config, input: &Schema) {
        for (path, field) in declared(input) {
            let named = |scope: &Scope| scope.paths.iter().any(|named| named.is_prefix_of(path));
            let mut rules = config.rules.iter().zip(&self.scopes);
            let is_target = match field.kind {
                Type::Text => !self.leaves && rules.any(|(_, scope)| named(scope)),
                Type::Int | Type::Float => rules.any(|(rule, scope)| named(scope) || (scope.everything && replaces_all(rule))),
                Type::Boolean => rules.any(|(rule, scope)| named(scope) && replaces_all(rule)),
                Type::Bytes | Type::Json => false,
            };
            if is_target {
                let rules = (0..self.scopes.len()).filter(|rule| self.scopes[*rule].everything || named(&self.scopes[*rule])).collect();
                self.targets.push(Target { path: path.clone(), kind: field.kind, nullable: field.nullable, rules });
            }
        }
    }

    fn masks_key(&self, scope: &Scope) -> bool {
        scope.everything || scope.key
    }

    pub fn reads_key(&self) -> bool {
        self.scopes.iter().any(|scope| self.masks_key(scope))
    }

    pub fn reads_headers(&self) -> bool {
        self.scopes.iter().any(|scope| scope.everything || !scope.headers.is_empty())
    }

    pub fn describe(self) -> Description {
        let parts = [(Part::Key, self.reads_key()), (Part::Headers, self.reads_headers())];
        let field = |target: &Target| FieldType { path: Field::Value(target.path.clone()), kind: Type::Text, nullable: target.nullable };
        Description {
            reads: self.targets.iter().map(|target| Read::of(Field::Value(target.path.clone()), target.kind)).collect(),
            leaves: self.leaves,
            // A delete must meet the key that its record was given.
            tombstones: self.reads_key() || self.reads_headers(),
            parts: parts.into_iter().filter_map(|(part, wanted)| wanted.then_some(part)).collect(),
            outputs: vec![Output {
                name: "out".to_owned(),
                base: Base::Extend,
                fields: self.targets.iter().map(field).collect(),
                removes: Vec::new(),
                key: if self.reads_key() { OutputKey::AsRead } else { OutputKey::Kept },
            }],
            stores: Vec::new(),
            tables: Vec::new(),
            table_keys: Vec::new(),
            input_keys: Vec::new(),
            window: None,
            timers: None,
            warnings: self.warnings,
        }
    }
}

fn declared(input: &Schema) -> impl Iterator<Item = (&Path, &FieldType)> {
    input.fields.iter().filter_map(|field| match &field.path {
        Field::Value(path) => Some((path, field)),
        _ => None,
    })
}

fn key_type(input: &Schema) -> Type {
    input.fields.iter().find(|field| field.path == Field::Key).map_or(Type::Text, |field| field.kind)
}

fn mistake(at: String, message: &str, proposal: Option<&str>) -> Mistake {
    Mistake { at, span: None, message: message.to_owned(), proposal: proposal.map(str::to_owned) }
}

fn check_action(rule: &Rule, at: &str, mistakes: &mut Vec<Mistake>) {
    let given = [rule.card.is_some(), rule.email.is_some(), rule.whole.is_some(), rule.replace.is_some(), rule.hash.is_some()];
    match given.iter().filter(|given| **given).count() {
        1 => {}
        0 => mistakes.push(mistake(at.to_owned(), "the rule says nothing to do", Some("one of card, email, whole, replace, hash"))),
        _ => mistakes.push(mistake(at.to_owned(), "a rule does one thing", Some("a rule for each of them, in the order wanted"))),
    }
    if let Some(card) = &rule.card {
        if card.keep_last > 4 {
            mistakes.push(mistake(format!("{at}/card/keep_last"), "at most the last 4 digits may stay readable", Some("4")));
        }
        let mut letters = card.char.chars();
        let first = letters.next();
        if letters.next().is_some() || first.is_none_or(char::is_numeric) {
            mistakes.push(mistake(format!("{at}/card/char"), "one character that is no digit is wanted", Some("x")));
        }
    }
    if let Some(pairs) = &rule.replace {
        if pairs.is_empty() {
            mistakes.push(mistake(format!("{at}/replace"), "there is nothing to replace", Some("{ 'text': 'what stands there instead' }")));
        }
        if pairs.contains_key("") {
            mistakes.push(mistake(format!("{at}/replace"), "an empty text is everywhere and cannot be replaced", None));
        }
    }
    if let Some(hash) = &rule.hash
        && !(16..=64).contains(&hash.options().length)
    {
        mistakes.push(mistake(format!("{at}/hash/length"), "from 16 to 64 hexadecimal digits", Some("32")));
    }
}

/// Secrets have no place in a manifest: `describe`, which sees placeholders, tells a text from a reference.
pub fn check_secrets(config: &Config) -> Vec<Mistake> {
    let hashes = config.rules.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.hash.as_ref()?.options())));
    hashes
        .filter(|(_, options)| !(options.key.starts_with("<secret ") && options.key.ends_with('>')))
        .map(|(index, _)| {
            mistake(format!("/rules/{index}/hash"), "the key of a hash is a secret and is not written here", Some("hash: { secret: NAME }"))
        })
        .collect()
}
