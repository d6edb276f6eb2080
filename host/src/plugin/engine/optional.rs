//! Exports that a plugin may have: looked up one by one, absent = not offered.

use super::contract::CONTRACT;
use super::host::Data;
use super::{Guest, convert, within};
use crate::column::Column;
use crate::plugin::CallError;
use crate::plugin::bindings::millstream::plugin::types;
use crate::plugin::describe::Occasion;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, ComponentType, Lower};

#[derive(Clone)]
pub struct Optional {
    emit: Option<ComponentExportIndex>,
    fire: Option<ComponentExportIndex>,
    migrate: Option<ComponentExportIndex>,
}

/// `emitting.occasion` of the contract.
#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
enum Why {
    #[component(name = "changed")]
    Changed,
    #[component(name = "closed")]
    Closed,
}

type Answer = (Result<types::Verdict, String>,);
type Rows = (Result<Vec<types::ColumnResult>, String>,);

impl Optional {
    /// Of what this version is of the contract, or of an older one with the same first number: the look-up takes what is compatible.
    pub fn of(component: &Component) -> Self {
        let function = |interface: &str, name: &str| {
            let interface = component.get_export_index(None, format!("millstream:plugin/{interface}@{CONTRACT}.0").as_str())?;
            component.get_export_index(Some(&interface), name)
        };
        Self { emit: function("emitting", "emit"), fire: function("timed", "fire"), migrate: function("migration", "migrate") }
    }

    pub fn offers(&self, interface: &str) -> bool {
        match interface {
            "emitting" => self.emit.is_some(),
            "timed" => self.fire.is_some(),
            "migration" => self.migrate.is_some(),
            _ => false,
        }
    }

    pub fn migrate(
        &self,
        guest: &mut Guest,
        store: usize,
        older: usize,
        keys: &Column,
        fields: &[Column],
    ) -> Result<Result<Vec<types::ColumnResult>, String>, CallError> {
        let function = self.migrate.as_ref().ok_or_else(|| absent("migration"))?;
        let instance = guest.instance;
        let fields: Vec<_> = fields.iter().map(convert::lend_column).collect();
        let answer = within(&mut guest.store, guest.ticker, |into: &mut Store<Data>| {
            let function =
                instance.get_typed_func::<(u32, u32, types::ColumnParam<'_>, &[types::ColumnParam<'_>]), Rows>(&mut *into, function)?;
            function.call(into, (store as u32, older as u32, convert::lend_column(keys), &fields))
        })?;
        Ok(answer.0)
    }

    pub fn fire(&self, guest: &mut Guest, times: &[i64], keys: &Column) -> Result<Result<types::Verdict, String>, CallError> {
        let function = self.fire.as_ref().ok_or_else(|| absent("timed"))?;
        let instance = guest.instance;
        let answer = within(&mut guest.store, guest.ticker, |into: &mut Store<Data>| {
            let function = instance.get_typed_func::<(&[i64], types::ColumnParam<'_>), Answer>(&mut *into, function)?;
            function.call(into, (times, convert::lend_column(keys)))
        })?;
        Ok(answer.0)
    }

    pub fn emit(
        &self,
        guest: &mut Guest,
        store: usize,
        occasion: Occasion,
        keys: &Column,
        fields: &[Column],
    ) -> Result<Result<types::Verdict, String>, CallError> {
        let function = self.emit.as_ref().ok_or_else(|| absent("emitting"))?;
        let instance = guest.instance;
        let fields: Vec<_> = fields.iter().map(convert::lend_column).collect();
        let why = match occasion {
            Occasion::Changed => Why::Changed,
            Occasion::Closed => Why::Closed,
        };
        let answer = within(&mut guest.store, guest.ticker, |into: &mut Store<Data>| {
            let function =
                instance.get_typed_func::<(u32, Why, types::ColumnParam<'_>, &[types::ColumnParam<'_>]), Answer>(&mut *into, function)?;
            function.call(into, (store as u32, why, convert::lend_column(keys), &fields))
        })?;
        Ok(answer.0)
    }
}

fn absent(interface: &str) -> CallError {
    CallError::Trapped(format!("the plugin does not export `{interface}`"))
}
