//! From the exported functions to a `Plugin`.

use crate::bindings::emits::exports::millstream::plugin::emitting;
use crate::bindings::exports::millstream::plugin::transform as wit;
use crate::bindings::fires::exports::millstream::plugin::timed;
use crate::bindings::migrates::exports::millstream::plugin::migration;
use crate::describe::Occasion;
use crate::plugin::{Emitting, Migrating, Plugin, Timed};
use crate::{log, transform};
use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;

/// What `export!` hands to the generated bindings.
pub struct Exported<P>(PhantomData<P>);

thread_local! {
    /// The plugin after `init`. A static cannot be generic, hence the box.
    static INSTANCE: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// Works with the plugin after `init`.
fn with<P: Plugin, R>(work: impl FnOnce(&mut P) -> Result<R, String>) -> Result<R, String> {
    log::set_current_row(None);
    INSTANCE.with_borrow_mut(|instance| match instance.as_mut().and_then(|plugin| plugin.downcast_mut::<P>()) {
        Some(plugin) => work(plugin),
        None => Err("the plugin was called before `init`".to_owned()),
    })
}

/// On this target a panic's message would be lost with the trap.
fn report_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("a panic without a message");
            let place = panic.location().map(|place| format!(", at {}:{}", place.file(), place.line()));
            log::write(log::PANIC, log::current_row(), &format!("{message}{}", place.unwrap_or_default()));
        }));
    });
}

impl<P: Plugin> wit::Guest for Exported<P> {
    fn about() -> String {
        report_panics();
        transform::about_json::<P>()
    }

    fn describe(request: String) -> Result<String, String> {
        report_panics();
        transform::describe_json::<P>(&request)
    }

    fn init(request: String) -> Result<(), String> {
        report_panics();
        let plugin = transform::init_json::<P>(&request)?;
        INSTANCE.with_borrow_mut(|instance| *instance = Some(Box::new(plugin)));
        Ok(())
    }

    fn process(input: wit::Batch) -> Result<wit::Verdict, String> {
        with::<P, _>(|plugin| plugin.process(input.into()).map(Into::into))
    }
}

impl<P: Emitting> emitting::Guest for Exported<P> {
    fn emit(
        store: u32,
        occasion: emitting::Occasion,
        keys: emitting::Column,
        fields: Vec<emitting::Column>,
    ) -> Result<emitting::Verdict, String> {
        let occasion = match occasion {
            emitting::Occasion::Changed => Occasion::Changed,
            emitting::Occasion::Closed => Occasion::Closed,
        };
        with::<P, _>(|plugin| plugin.emit(store, occasion, keys.into(), crate::convert::each(fields)).map(Into::into))
    }
}

impl<P: Timed> timed::Guest for Exported<P> {
    fn fire(times: Vec<i64>, keys: timed::Column) -> Result<timed::Verdict, String> {
        with::<P, _>(|plugin| plugin.fire(times, keys.into()).map(Into::into))
    }
}

impl<P: Migrating> migration::Guest for Exported<P> {
    fn migrate(store: u32, older: u32, keys: migration::Column, fields: Vec<migration::Column>) -> Result<Vec<migration::Column>, String> {
        with::<P, _>(|plugin| plugin.migrate(store, older, keys.into(), crate::convert::each(fields)).map(crate::convert::each))
    }
}
