//! From the exported functions to a `Plugin`.

use crate::bindings::exports::millstream::plugin::transform as wit;
use crate::plugin::{Batch, Plugin};
use crate::verdict::Verdict;
use crate::{log, transform};
use std::cell::RefCell;
use std::marker::PhantomData;

/// What `export!` hands to the generated bindings.
pub struct Exported<P>(PhantomData<P>);

trait Process {
    fn process(&mut self, batch: Batch) -> Result<Verdict, String>;
}

impl<P: Plugin> Process for P {
    fn process(&mut self, batch: Batch) -> Result<Verdict, String> {
        Plugin::process(self, batch)
    }
}

thread_local! {
    /// The plugin after `init`. A static cannot be generic, hence the box.
    static INSTANCE: RefCell<Option<Box<dyn Process>>> = const { RefCell::new(None) };
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
        log::set_current_row(None);
        INSTANCE.with_borrow_mut(|instance| match instance {
            Some(plugin) => plugin.process(input.into()).map(Into::into),
            None => Err("`process` was called before `init`".to_owned()),
        })
    }
}
