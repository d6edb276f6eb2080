//! The types that a store's rows have had: columns in order, each with a name and a type. Memory, local copies and the embedded log hold rows of several
//! types at a time, and each row tells which by a small number. The numbers are this folder's own; in a changelog, records tell the type itself.

use super::row::MOST_NUMBERS;
use crate::column::Type;
use crate::io::{CommittedState, LogError};
use crate::plugin::describe::{Store, StoreField};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A column of a store's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowColumn {
    pub name: String,
    pub kind: Type,
    pub nullable: bool,
}

/// The type of a store's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowType {
    pub columns: Vec<RowColumn>,
    /// As it is written: `[["count","int"],["name","text?"]]`; `?` = may be null.
    text: Box<str>,
}

impl RowType {
    pub fn of(fields: &[StoreField]) -> Self {
        let column = |field: &StoreField| RowColumn { name: field.name.clone(), kind: field.kind, nullable: field.nullable };
        Self::new(fields.iter().map(column).collect())
    }

    fn new(columns: Vec<RowColumn>) -> Self {
        let pair = |column: &RowColumn| (column.name.clone(), format!("{}{}", column.kind, if column.nullable { "?" } else { "" }));
        let pairs: Vec<_> = columns.iter().map(pair).collect();
        Self { columns, text: serde_json::to_string(&pairs).unwrap_or_default().into() }
    }

    /// None: it is written in a way that this program does not know.
    pub fn read(text: &str) -> Option<Self> {
        let pairs: Vec<(String, String)> = serde_json::from_str(text).ok()?;
        let column = |(name, kind): (String, String)| {
            let nullable = kind.ends_with('?');
            let kind = serde_json::from_value(kind.trim_end_matches('?').into()).ok()?;
            Some(RowColumn { name, kind, nullable })
        };
        Some(Self::new(pairs.into_iter().map(column).collect::<Option<_>>()?))
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn kinds(&self) -> Vec<Type> {
        self.columns.iter().map(|column| column.kind).collect()
    }
}

impl std::fmt::Display for RowType {
    /// As people read it: `count: int, name: text?`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, column) in self.columns.iter().enumerate() {
            let (comma, mark) = (if place > 0 { ", " } else { "" }, if column.nullable { "?" } else { "" });
            write!(f, "{comma}{}: {}{mark}", column.name, column.kind)?;
        }
        Ok(())
    }
}

/// What is kept beside a store's rows.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct Kept {
    /// By number.
    types: Vec<String>,
    /// The one that rows are written as now.
    last: u8,
    /// Tasks whose rows are all of one type.
    #[serde(default)]
    clean: BTreeMap<i32, u8>,
}

struct Known {
    types: Vec<Arc<RowType>>,
    kept: Kept,
}

/// The types of one store's rows, by number.
pub struct RowTypes {
    store: Arc<str>,
    /// None: in memory only.
    home: Option<Arc<dyn CommittedState>>,
    known: RwLock<Known>,
}

impl RowTypes {
    /// Types that are kept nowhere.
    pub fn in_memory(store: &str) -> Arc<Self> {
        let known = Known { types: Vec::new(), kept: Kept::default() };
        Arc::new(Self { store: store.into(), home: None, known: RwLock::new(known) })
    }

    /// Those that are kept beside the rows. `keeps`: new ones are to be kept there too.
    pub fn open(store: &str, home: Arc<dyn CommittedState>, keeps: bool) -> Result<Arc<Self>, LogError> {
        let kept = read(store, &*home)?;
        let known = Known { types: types_of(store, &kept)?, kept };
        Ok(Arc::new(Self { store: store.into(), home: keeps.then_some(home), known: RwLock::new(known) }))
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> Result<T, LogError> {
        let mut known: RwLockWriteGuard<'_, Known> = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut kept = match &self.home {
            Some(home) => read(&self.store, &**home)?,
            None => known.kept.clone(),
        };
        let changed = change(&mut kept);
        if kept != known.kept {
            let types = types_of(&self.store, &kept)?;
            if let Some(home) = &self.home {
                home.keep_row_types(&self.store, &serde_json::to_vec(&kept).map_err(|error| LogError::stop(error.to_string()))?)?;
            }
            *known = Known { types, kept };
        }
        Ok(changed)
    }

    /// The number of a type, which is a new one if there is none yet.
    pub fn number(&self, wanted: &RowType) -> Result<u8, LogError> {
        if let Some(number) = self.find(wanted.text()) {
            return Ok(number);
        }
        self.change(|kept| {
            let place = kept.types.iter().position(|known| *known == wanted.text()).unwrap_or_else(|| {
                kept.types.push(wanted.text().to_owned());
                kept.types.len() - 1
            });
            u8::try_from(place).ok().filter(|number| *number < MOST_NUMBERS)
        })?
        .ok_or_else(|| {
            LogError::stop(format!(
                "the rows of store `{}` have had {MOST_NUMBERS} types here, and cannot have more: run the pipeline with another data folder",
                self.store
            ))
        })
    }

    /// The number of a type as it is written.
    pub fn find(&self, text: &str) -> Option<u8> {
        self.read().types.iter().position(|known| known.text() == text).and_then(|place| u8::try_from(place).ok())
    }

    pub fn of(&self, number: u8) -> Option<Arc<RowType>> {
        self.read().types.get(usize::from(number)).cloned()
    }

    /// Every one, by number.
    pub fn all(&self) -> Vec<Arc<RowType>> {
        self.read().types.clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read().types.len()
    }

    /// The type that rows were written as last, before this run. None: none were.
    pub fn last(&self) -> Option<(u8, Arc<RowType>)> {
        let known = self.read();
        known.types.get(usize::from(known.kept.last)).map(|last| (known.kept.last, last.clone()))
    }

    /// Rows are written as this type from now on.
    pub fn writes(&self, number: u8) -> Result<(), LogError> {
        if self.read().kept.last == number {
            return Ok(());
        }
        self.change(|kept| kept.last = number)
    }

    /// Whether all rows of a task are known to be of this type.
    pub fn is_clean(&self, task: i32, number: u8) -> bool {
        let known = self.read();
        known.types.len() < 2 || known.kept.clean.get(&task) == Some(&number)
    }

    /// All rows of a task are of this type, and that is committed.
    pub fn clean(&self, task: i32, number: u8) -> Result<(), LogError> {
        self.change(|kept| {
            kept.clean.insert(task, number);
        })
    }

    /// Rows of this type have come to a task from elsewhere.
    pub fn seen(&self, task: i32, number: u8) -> Result<(), LogError> {
        if self.read().kept.clean.get(&task).is_none_or(|clean| *clean == number) {
            return Ok(());
        }
        self.change(|kept| {
            kept.clean.remove(&task);
        })
    }
}

fn read(store: &str, home: &dyn CommittedState) -> Result<Kept, LogError> {
    let Some(bytes) = home.row_types(store)? else { return Ok(Kept::default()) };
    serde_json::from_slice(&bytes).map_err(|error| unreadable(store, &error.to_string()))
}

fn types_of(store: &str, kept: &Kept) -> Result<Vec<Arc<RowType>>, LogError> {
    let of = |text: &String| RowType::read(text).map(Arc::new).ok_or_else(|| unreadable(store, text));
    kept.types.iter().map(of).collect()
}

fn unreadable(store: &str, what: &str) -> LogError {
    LogError::stop(format!(
        "what is kept of the types of the rows of store `{store}` cannot be read ({what}): was it written by a newer version of the program? Use that version"
    ))
}

/// The types of the rows of all stores of a pipeline.
#[derive(Default)]
pub struct StoreTypes {
    home: Option<Arc<dyn CommittedState>>,
    keeps: bool,
    stores: Mutex<HashMap<Arc<str>, Arc<RowTypes>>>,
}

impl StoreTypes {
    /// `keeps`: new types are to be kept beside the rows.
    pub fn new(home: Arc<dyn CommittedState>, keeps: bool) -> Self {
        Self { home: Some(home), keeps, stores: Mutex::default() }
    }

    pub fn of(&self, store: &str) -> Result<Arc<RowTypes>, LogError> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = stores.get(store) {
            return Ok(known.clone());
        }
        let types = match &self.home {
            Some(home) => RowTypes::open(store, home.clone(), self.keeps)?,
            None => RowTypes::in_memory(store),
        };
        stores.insert(store.into(), types.clone());
        Ok(types)
    }

    /// Gives the type of a store's rows its number.
    pub fn add(&self, store: &str, described: &Store) -> Result<(), LogError> {
        self.of(store)?.number(&RowType::of(&described.fields)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LocalMemory;

    fn row_type(text: &str) -> RowType {
        RowType::read(text).unwrap()
    }

    #[test]
    fn a_type_is_read_as_it_is_written() {
        let field = |name: &str, kind, nullable| StoreField { name: name.to_owned(), kind, nullable, default: None };
        let written = RowType::of(&[field("a,\"b", Type::Int, false), field("c?", Type::Json, true)]);
        assert_eq!(written.text(), r#"[["a,\"b","int"],["c?","json?"]]"#);
        assert_eq!(RowType::read(written.text()), Some(written));
        for broken in ["1", "", "[[\"a\",\"integer\"]]", "[[\"a\"]]"] {
            assert_eq!(RowType::read(broken), None, "{broken}");
        }
        assert_eq!(row_type("[[\"n\",\"int\"],[\"t\",\"text?\"]]").to_string(), "n: int, t: text?");
    }

    #[test]
    fn numbers_and_marks_outlive_who_gave_them() {
        let home: Arc<dyn CommittedState> = Arc::new(LocalMemory::default());
        let (one, two, three) = (row_type("[]"), row_type("[[\"n\",\"int\"]]"), row_type("[[\"n\",\"float\"]]"));
        let types = RowTypes::open("s", home.clone(), true).unwrap();
        let other = RowTypes::open("s", home.clone(), true).unwrap();
        assert!(types.last().is_none());
        assert_eq!((types.number(&one).unwrap(), types.number(&two).unwrap(), types.number(&one).unwrap()), (0, 1, 0));
        assert_eq!(other.number(&three).unwrap(), 2, "what another has given is not given again");
        assert_eq!(other.number(&two).unwrap(), 1);
        types.writes(1).unwrap();
        types.clean(3, 1).unwrap();
        let again = RowTypes::open("s", home.clone(), false).unwrap();
        assert_eq!(again.last().map(|(number, last)| (number, last.text().to_owned())), Some((1, two.text().to_owned())));
        assert!(again.is_clean(3, 1) && !again.is_clean(3, 0) && !again.is_clean(2, 1) && again.count() == 3);
        types.seen(3, 1).unwrap();
        assert!(types.is_clean(3, 1));
        types.seen(3, 0).unwrap();
        assert!(!types.is_clean(3, 1), "older rows came");
        let dry = RowTypes::open("s", home.clone(), false).unwrap();
        dry.number(&row_type("[[\"x\",\"int\"]]")).unwrap();
        assert_eq!(RowTypes::open("s", home, false).unwrap().count(), 3, "who keeps nothing leaves nothing");
    }

    #[test]
    fn there_are_so_many_numbers_and_no_more() {
        let types = RowTypes::in_memory("s");
        let nth = |n: usize| row_type(&format!("[[\"n{n}\",\"int\"]]"));
        for n in 0..usize::from(MOST_NUMBERS) {
            assert_eq!(usize::from(types.number(&nth(n)).unwrap()), n);
        }
        let error = types.number(&nth(999)).unwrap_err().message;
        assert!(error.contains("cannot have more"), "{error}");
    }
}
