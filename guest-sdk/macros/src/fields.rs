//! `#[derive(Fields)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Expr, Ident, LitStr, Result, Token};

pub fn derive(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a record is a struct; for an enum of outputs derive `Outputs`"));
    };
    let syn::Fields::Named(members) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "the members of a record need names: `struct Name { member: Type }`"));
    };
    if let Some(parameter) = input.generics.params.iter().find(|parameter| !matches!(parameter, syn::GenericParam::Lifetime(_))) {
        return Err(Error::new_spanned(parameter, "a record has no type parameters"));
    }
    if let Some(second) = input.generics.lifetimes().nth(1) {
        return Err(Error::new_spanned(second, "one lifetime is enough: all that a record borrows, it borrows from the batch"));
    }
    let replace = replace(&input.attrs)?;
    let name = &input.ident;
    let batch = match input.generics.lifetimes().next() {
        Some(parameter) => parameter.lifetime.clone(),
        None => syn::Lifetime::new("'batch", name.span()),
    };
    let arguments = input.generics.lifetimes().next().map(|_| quote!(<#batch>));

    let mut declare = Vec::new();
    let mut read = Vec::new();
    let mut write = Vec::new();
    let mut flaws = Vec::new();
    let mut names = Vec::new();
    for member in &members.named {
        let (Some(ident), kind) = (&member.ident, &member.ty) else { continue };
        let Named { path, default } = named(&member.attrs)?;
        let path = match path {
            Some(path) => path,
            None => LitStr::new(&syn::ext::IdentExt::unraw(ident).to_string(), ident.span()),
        };
        let at = kind.span();
        declare.push(quote_spanned!(at=> <#kind as ::millstream_guest::records::Member<#batch>>::declare(&at.member(#path), into);));
        if let Some(default) = default {
            declare.push(quote_spanned!(default.span()=> ::millstream_guest::records::set_default(into, #default);));
        }
        read.push(quote_spanned!(at=> #ident: <#kind as ::millstream_guest::records::Member<#batch>>::read(row)?,));
        write.push(quote_spanned!(at=> <#kind as ::millstream_guest::records::Member<#batch>>::write(&self.#ident, row);));
        flaws.push(quote_spanned!(at=> .or_else(|| <#kind as ::millstream_guest::records::Member<#batch>>::flaw(&self.#ident, #path))));
        let wrong = format!(
            "`{}` is no field's name: a path `a.b`, with quotes around a part with a dot, or a pseudo-field like `$key`",
            path.value()
        );
        names.push(quote_spanned!(path.span()=> const _: () = assert!(::millstream_guest::records::is_field_name(#path), #wrong);));
    }
    Ok(quote! {
        #(#names)*
        #[automatically_derived]
        impl<#batch> ::millstream_guest::records::Fields<#batch> for #name #arguments {
            const REPLACE: bool = #replace;
        }
        #[automatically_derived]
        impl<#batch> ::millstream_guest::records::Member<#batch> for #name #arguments {
            fn declare(at: &::millstream_guest::records::At, into: &mut ::std::vec::Vec<::millstream_guest::records::Declared>) {
                #(#declare)*
            }
            #[inline]
            fn read(row: &mut ::millstream_guest::records::Cursor<'_, #batch>) -> ::std::result::Result<Self, ::millstream_guest::Reject> {
                ::std::result::Result::Ok(Self { #(#read)* })
            }
            #[inline]
            fn write(&self, row: &mut ::millstream_guest::records::Writer<'_>) {
                #(#write)*
            }
            fn flaw(&self, _: &str) -> ::std::option::Option<::std::string::String> {
                ::std::option::Option::None #(#flaws)*
            }
        }
        #[automatically_derived]
        impl<#batch> ::millstream_guest::records::Answer for #name #arguments {
            fn outputs() -> ::std::vec::Vec<::millstream_guest::records::Output> {
                ::std::vec![::millstream_guest::records::Output::of::<Self>("out")]
            }
            fn answer(self, sink: &mut ::millstream_guest::records::Sink) {
                sink.emit(0, &self);
            }
        }
    })
}

/// What stands in `#[field(...)]`.
#[derive(Default)]
struct Named {
    path: Option<LitStr>,
    default: Option<Expr>,
}

impl Parse for Named {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut named = Self::default();
        if input.peek(LitStr) {
            named.path = Some(input.parse()?);
            if input.is_empty() {
                return Ok(named);
            }
            input.parse::<Token![,]>()?;
        }
        let word: Ident = input.parse()?;
        if word != "default" {
            return Err(Error::new(word.span(), "expected the field's name in quotes, or `default = value`"));
        }
        input.parse::<Token![=]>()?;
        named.default = Some(input.parse()?);
        Ok(named)
    }
}

/// `#[field("a.b")]`, `#[field(default = 0)]`, `#[field("a.b", default = 0)]`
fn named(attributes: &[Attribute]) -> Result<Named> {
    let found = attributes.iter().find(|attribute| attribute.path().is_ident("field"));
    found.map(|attribute| attribute.parse_args()).transpose().map(Option::unwrap_or_default)
}

/// `#[fields(replace)]`
fn replace(attributes: &[Attribute]) -> Result<bool> {
    let mut replace = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("fields")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("replace") {
                return Err(meta.error("expected `replace`"));
            }
            replace = true;
            Ok(())
        })?;
    }
    Ok(replace)
}
