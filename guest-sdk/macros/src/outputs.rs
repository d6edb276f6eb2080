//! `#[derive(Outputs)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Result};

pub fn derive(input: DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "outputs are the variants of an enum; for a struct of fields derive `Fields`"));
    };
    let mut declared = Vec::new();
    let mut arms = Vec::new();
    for (place, variant) in data.variants.iter().enumerate() {
        let ident = &variant.ident;
        let attribute = variant.attrs.iter().find(|attribute| attribute.path().is_ident("output"));
        let name = match attribute {
            Some(attribute) => attribute.parse_args::<LitStr>()?,
            None => LitStr::new(&kebab(&ident.to_string()), ident.span()),
        };
        match &variant.fields {
            Fields::Unit => {
                declared.push(quote!(::millstream_guest::records::Output::unchanged(#name)));
                arms.push(quote!(Self::#ident => sink.pass(#place),));
            }
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                let kind = &fields.unnamed[0].ty;
                declared.push(quote!(::millstream_guest::records::Output::of::<#kind>(#name)));
                arms.push(quote!(Self::#ident(record) => sink.emit(#place, &record),));
            }
            _ => return Err(Error::new_spanned(variant, "an output is `Name` (the record as it is) or `Name(Record)`")),
        }
    }
    let name = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::millstream_guest::records::Answer for #name #arguments #bounds {
            fn outputs() -> ::std::vec::Vec<::millstream_guest::records::Output> {
                ::std::vec![#(#declared),*]
            }
            fn answer(self, sink: &mut ::millstream_guest::records::Sink) {
                match self { #(#arms)* }
            }
        }
    })
}

/// `PoorRatings` -> `poor-ratings`
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (place, letter) in name.char_indices() {
        if letter.is_uppercase() && place > 0 {
            out.push('-');
        }
        out.extend(letter.to_lowercase());
    }
    out
}
