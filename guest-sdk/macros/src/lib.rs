//! The derives and attributes of `millstream-guest`, which documents them where it re-exports them.

mod fields;
mod function;
mod outputs;

use proc_macro::TokenStream;

#[proc_macro_derive(Fields, attributes(field, fields))]
pub fn fields(input: TokenStream) -> TokenStream {
    expand(syn::parse(input).and_then(fields::derive))
}

#[proc_macro_derive(Outputs, attributes(output))]
pub fn outputs(input: TokenStream) -> TokenStream {
    expand(syn::parse(input).and_then(outputs::derive))
}

#[proc_macro_attribute]
pub fn filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Filter, arguments, item)
}

#[proc_macro_attribute]
pub fn map(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Map, arguments, item)
}

#[proc_macro_attribute]
pub fn aggregate(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Aggregate, arguments, item)
}

#[proc_macro_attribute]
pub fn stateful(arguments: TokenStream, item: TokenStream) -> TokenStream {
    function(function::Kind::Stateful, arguments, item)
}

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
