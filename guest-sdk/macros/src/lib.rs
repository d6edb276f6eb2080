//! The derives and attributes of `millstream-guest`, which documents them where it re-exports them.

mod fields;
mod function;
mod outputs;

use proc_macro::TokenStream;

/// Makes a struct a record: what a plugin reads, writes, or keeps as a row of state.
///
/// - `#[field("a.b")]` on a member names the field, which is else named as the member; also `"$key"` and the other pseudo-fields.
/// - `#[fields(replace)]` on the struct: as an answer it is a new record, instead of fields written into the input's.
#[proc_macro_derive(Fields, attributes(field, fields))]
pub fn fields(input: TokenStream) -> TokenStream {
    expand(syn::parse(input).and_then(fields::derive))
}

/// Makes an enum an answer with several outputs: `Name(Record)`, or `Name` for the record as it is. An output has the variant's name in
/// small letters with dashes; `#[output("name")]` names another, and `out` is what a stage's name alone means.
#[proc_macro_derive(Outputs, attributes(output))]
pub fn outputs(input: TokenStream) -> TokenStream {
    expand(syn::parse(input).and_then(outputs::derive))
}

/// Makes a plugin of `fn(Record) -> bool`: whether a record is kept, unchanged. The plugin's type is the function's name in capitals.
///
/// A last parameter `config: &Config` is what the manifest says under `with`. `name = "..."` names the plugin, which is else named as
/// its crate. The answer may be a `Result<bool, Reject>`.
#[proc_macro_attribute]
pub fn filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Filter, arguments, item)
}

/// Makes a plugin of `fn(Record) -> Answer`, where the answer is a struct of the fields to write, an enum of outputs, an `Option` or a
/// `Vec` of these, or a `Result<_, Reject>`. Configuration and name are as for [`macro@filter`].
#[proc_macro_attribute]
pub fn map(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Map, arguments, item)
}

/// Makes a plugin of `fn(&mut State, Record) -> Answer`: a row of state for each key, `Default` at first. The key is the record's own;
/// `by = "field"` or `by = ["a", "b"]` are fields instead. What a refused record changes is undone. Answers are as for [`macro@map`].
/// `migrate = function`, of type `fn(OlderState) -> State`, makes rows of those that were written as `OlderState`; `migrate = [one, other]` of several older
/// types. It may be called again for the same row, and must depend on nothing else.
#[proc_macro_attribute]
pub fn aggregate(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Aggregate, arguments, item)
}

/// Makes a plugin of `fn(Record, &mut Rows<State>) -> Answer`, which reads and writes rows by any keys. `by` as for
/// [`macro@aggregate`]; `keys = function`, of type `fn(&Record, &mut Keys)`, announces keys besides the record's own, so that a batch
/// fetches all of its rows in one call. `timer = function`, of type `fn(Timer, &mut Rows<State>) -> Answer`, is called for timers that are due, which
/// `rows.set_timer(time, key)` sets; its answer is of the same type, a new record. `migrate` as for [`macro@aggregate`].
#[proc_macro_attribute]
pub fn stateful(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Stateful, arguments, item)
}

/// Makes a plugin of `fn(Record, Option<TableRow>) -> Answer`: `table = "users"` is a table of the manifest, `on = "user_id"` the field
/// whose text (of a number: its digits) is the key there. Answers are as for [`macro@map`].
#[proc_macro_attribute]
pub fn enrich(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Enrich, arguments, item)
}

fn function(kind: function::Kind, arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(syn::parse(arguments).and_then(|arguments| function::expand(kind, arguments, syn::parse(item)?)))
}

fn expand(result: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    result.unwrap_or_else(|error| error.into_compile_error()).into()
}
