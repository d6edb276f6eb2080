//! The attributes that make a plugin of a function.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, FnArg, ItemFn, Lit, LitStr, Result, ReturnType, Token, Type};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Filter,
    Map,
    Aggregate,
    Stateful,
    Enrich,
}

impl Kind {
    /// What a function of this kind looks like.
    fn shape(self) -> &'static str {
        match self {
            Self::Filter => "fn keep(record: Record) -> bool, or with a second parameter `config: &Config`",
            Self::Map => "fn change(record: Record) -> Changed, or with a second parameter `config: &Config`",
            Self::Aggregate => "fn update(state: &mut State, record: Record) -> Answer, or with a third parameter `config: &Config`",
            Self::Stateful => "fn step(record: Record, rows: &mut Rows<Row>) -> Answer, or with a third parameter `config: &Config`",
            Self::Enrich => "fn join(record: Record, row: Option<TableRow>) -> Answer, or with a third parameter `config: &Config`",
        }
    }

    fn parameters(self) -> usize {
        match self {
            Self::Filter | Self::Map => 1,
            Self::Aggregate | Self::Stateful | Self::Enrich => 2,
        }
    }
}

/// What stands in the attribute's parentheses.
#[derive(Default)]
pub struct Arguments {
    name: Option<LitStr>,
    by: Vec<LitStr>,
    keys: Option<Expr>,
    timer: Option<Expr>,
    migrate: Vec<Expr>,
    table: Option<LitStr>,
    on: Option<LitStr>,
    seen: Vec<Ident>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        for pair in input.parse_terminated(Pair::parse, Token![,])? {
            match pair.name.to_string().as_str() {
                "name" => arguments.name = Some(pair.text()?),
                "table" => arguments.table = Some(pair.text()?),
                "on" => arguments.on = Some(pair.text()?),
                "by" => arguments.by = pair.texts()?,
                "keys" => arguments.keys = Some(pair.value),
                "timer" => arguments.timer = Some(pair.value),
                "migrate" => {
                    arguments.migrate = match pair.value {
                        Expr::Array(array) => array.elems.into_iter().collect(),
                        one => vec![one],
                    }
                }
                _ => return Err(Error::new(pair.name.span(), "expected `name`, `by`, `keys`, `timer`, `migrate`, `table` or `on`")),
            }
            arguments.seen.push(pair.name);
        }
        Ok(arguments)
    }
}

struct Pair {
    name: Ident,
    value: Expr,
}

impl Parse for Pair {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok(Self { name, value: input.parse()? })
    }
}

impl Pair {
    fn text(&self) -> Result<LitStr> {
        literal(&self.value)
    }

    fn texts(&self) -> Result<Vec<LitStr>> {
        match &self.value {
            Expr::Array(array) => array.elems.iter().map(literal).collect(),
            one => literal(one).map(|one| vec![one]),
        }
    }
}

fn literal(value: &Expr) -> Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.clone()),
        other => Err(Error::new_spanned(other, "expected a text in quotes")),
    }
}

pub fn expand(kind: Kind, arguments: Arguments, function: ItemFn) -> Result<TokenStream> {
    check(kind, &arguments, &function)?;
    let ident = &function.sig.ident;
    let plugin = format_ident!("{}", camel(&ident.to_string()), span = ident.span());
    let transform = format_ident!("__{plugin}");
    let types: Vec<_> =
        function.sig.inputs.iter().filter_map(|input| if let FnArg::Typed(input) = input { Some(&*input.ty) } else { None }).collect();
    let configured = types.len() > kind.parameters();
    let config = match types.last() {
        Some(Type::Reference(reference)) if configured => reference.elem.to_token_stream(),
        _ => quote!(::millstream_guest::records::NoConfig),
    };
    let give_config = configured.then(|| quote!(, config));
    let answer = match &function.sig.output {
        ReturnType::Type(_, answer) => in_static(answer.to_token_stream()),
        ReturnType::Default => {
            return Err(Error::new_spanned(&function.sig, format!("the function answers nothing; write {}", kind.shape())));
        }
    };
    let record = in_static(types[if kind == Kind::Aggregate { 1 } else { 0 }].to_token_stream());
    let record_span = types[if kind == Kind::Aggregate { 1 } else { 0 }].span();
    let reads = quote_spanned!(record_span=> ::millstream_guest::records::declared::<#record>());
    let name = arguments.name.as_ref().map_or_else(|| quote!(::std::env!("CARGO_PKG_NAME")), ToTokens::to_token_stream);
    let summary = summary(&function.attrs);
    let answered = quote_spanned!(function.sig.output.span()=> <#answer as ::millstream_guest::records::Answer>);

    let guest = quote!(::millstream_guest::records);
    let (wrapper, specific) = match kind {
        Kind::Filter | Kind::Map => (
            quote!(#guest::Stateless),
            quote! {
                impl #guest::Each for #transform {
                    fn record(config: &Self::Config, row: &mut #guest::Cursor<'_, '_>, sink: &mut #guest::Sink) -> ::std::result::Result<(), #guest::Reject> {
                        let _ = config;
                        #guest::Answer::answer(#ident(#guest::Member::read(row)? #give_config), sink);
                        ::std::result::Result::Ok(())
                    }
                }
            },
        ),
        Kind::Aggregate | Kind::Stateful => {
            let row = row_type(kind, types[if kind == Kind::Aggregate { 0 } else { 1 }])?;
            let by = if arguments.by.is_empty() { vec![LitStr::new("$key", Span::call_site())] } else { arguments.by.clone() };
            let work = if kind == Kind::Aggregate {
                quote! {
                    let record = #guest::Member::read(row)?;
                    let mut state: #row = rows.get(key).cloned().unwrap_or_default();
                    let answer = #ident(&mut state, record #give_config);
                    rows.put(key, state);
                    #guest::Answer::answer(answer, sink);
                }
            } else {
                quote! {
                    let _ = key;
                    #guest::Answer::answer(#ident(#guest::Member::read(row)?, rows #give_config), sink);
                }
            };
            let keys = arguments.keys.as_ref().map(|keys| {
                quote! {
                    fn keys(row: &mut #guest::Cursor<'_, '_>, keys: &mut #guest::Keys) -> ::std::result::Result<(), #guest::Reject> {
                        let keys_of = #keys;
                        keys_of(&#guest::Member::read(row)?, keys);
                        ::std::result::Result::Ok(())
                    }
                }
            });
            let timer = arguments.timer.as_ref().map(|timer| {
                quote! {
                    const TIMED: bool = true;
                    fn fired(config: &Self::Config, timer: #guest::Timer<'_>, rows: &mut #guest::Rows<Self::Row>, sink: &mut #guest::Sink) -> ::std::result::Result<(), #guest::Reject> {
                        let _ = config;
                        // As the answer for a record: both go to the same outputs.
                        let answer: #answer = (#timer)(timer, rows #give_config);
                        #guest::Answer::answer(answer, sink);
                        ::std::result::Result::Ok(())
                    }
                }
            });
            let migrate = &arguments.migrate;
            let migrations = (!migrate.is_empty()).then(|| {
                quote! {
                    fn migrations() -> ::std::vec::Vec<#guest::Migration<Self::Row>> {
                        ::std::vec![#(#guest::migration(#migrate)),*]
                    }
                }
            });
            (
                quote!(#guest::Stateful),
                quote! {
                    #(const _: () = ::std::assert!(#guest::is_field_name(#by), "`by` holds no field's name");)*
                    impl #guest::Stored for #transform {
                        type Row = #row;
                        const BY: &'static [&'static str] = &[#(#by),*];
                        #keys
                        #timer
                        #migrations
                        fn record(config: &Self::Config, row: &mut #guest::Cursor<'_, '_>, key: &str, rows: &mut #guest::Rows<Self::Row>, sink: &mut #guest::Sink) -> ::std::result::Result<(), #guest::Reject> {
                            let _ = config;
                            #work
                            ::std::result::Result::Ok(())
                        }
                    }
                },
            )
        }
        Kind::Enrich => {
            let (Some(table), Some(on)) = (&arguments.table, &arguments.on) else {
                return Err(Error::new(
                    Span::call_site(),
                    "`enrich` needs the table and the field that is its key: `#[enrich(table = \"users\", on = \"user_id\")]`",
                ));
            };
            let row = in_static(
                inner(types[1], "Option")
                    .ok_or_else(|| {
                        Error::new_spanned(types[1], "the table's row is an `Option`: it is `None` for a key that is not there")
                    })?
                    .to_token_stream(),
            );
            (
                quote!(#guest::Joined),
                quote! {
                    const _: () = ::std::assert!(#guest::is_field_name(#on), "`on` is no field's name");
                    impl #guest::Join for #transform {
                        const TABLE: &'static str = #table;
                        const ON: &'static str = #on;
                        fn columns() -> ::std::vec::Vec<#guest::Declared> {
                            #guest::declared::<#row>()
                        }
                        fn record(config: &Self::Config, row: &mut #guest::Cursor<'_, '_>, found: ::std::option::Option<&mut #guest::Cursor<'_, '_>>, sink: &mut #guest::Sink) -> ::std::result::Result<(), #guest::Reject> {
                            let _ = config;
                            let found = found.map(#guest::Member::read).transpose()?;
                            #guest::Answer::answer(#ident(#guest::Member::read(row)?, found #give_config), sink);
                            ::std::result::Result::Ok(())
                        }
                    }
                },
            )
        }
    };
    let visibility = &function.vis;
    let export = match (&arguments.timer, arguments.migrate.is_empty()) {
        (None, true) => quote!(::millstream_guest::export!(#plugin);),
        (Some(_), true) => quote!(::millstream_guest::export!(#plugin: timed);),
        (None, false) => quote!(::millstream_guest::export!(#plugin: migrating);),
        (Some(_), false) => quote!(::millstream_guest::export!(#plugin: timed, migrating);),
    };
    let doc = format!("The plugin that `{ident}` is.");
    Ok(quote! {
        #function

        #[doc = #doc]
        #visibility type #plugin = #wrapper<#transform>;

        #[doc(hidden)]
        #[derive(Debug)]
        #visibility struct #transform;

        impl #guest::Transform for #transform {
            const NAME: &'static str = #name;
            const VERSION: &'static str = ::std::env!("CARGO_PKG_VERSION");
            const SUMMARY: &'static str = #summary;
            const SELECTS: bool = #answered::SELECTS;
            type Config = #config;
            fn reads() -> ::std::vec::Vec<#guest::Declared> {
                #reads
            }
            fn outputs() -> ::std::vec::Vec<#guest::Output> {
                #answered::outputs()
            }
        }

        #specific

        #export
    })
}

fn check(kind: Kind, arguments: &Arguments, function: &ItemFn) -> Result<()> {
    let allowed: &[&str] = match kind {
        Kind::Filter | Kind::Map => &["name"],
        Kind::Aggregate => &["name", "by", "migrate"],
        Kind::Stateful => &["name", "by", "keys", "timer", "migrate"],
        Kind::Enrich => &["name", "table", "on"],
    };
    if let Some(other) = arguments.seen.iter().find(|name| !allowed.contains(&name.to_string().as_str())) {
        return Err(Error::new(other.span(), format!("here only {} can stand", allowed.join(", "))));
    }
    let signature = &function.sig;
    let count = signature.inputs.len();
    let wrong = count < kind.parameters() || count > kind.parameters() + 1 || signature.receiver().is_some();
    if wrong || signature.asyncness.is_some() || signature.generics.type_params().next().is_some() {
        return Err(Error::new_spanned(signature, format!("expected {}", kind.shape())));
    }
    if let Some(FnArg::Typed(last)) = signature.inputs.last().filter(|_| count > kind.parameters())
        && !matches!(&*last.ty, Type::Reference(reference) if reference.mutability.is_none())
    {
        return Err(Error::new_spanned(&last.ty, "the configuration comes as a reference: `config: &Config`"));
    }
    Ok(())
}

/// The type of the stored rows.
fn row_type(kind: Kind, parameter: &Type) -> Result<TokenStream> {
    match parameter {
        Type::Reference(reference) if reference.mutability.is_some() && kind == Kind::Aggregate => Ok(reference.elem.to_token_stream()),
        Type::Reference(reference) if reference.mutability.is_some() => inner(&reference.elem, "Rows")
            .map(ToTokens::to_token_stream)
            .ok_or_else(|| Error::new_spanned(&reference.elem, "expected `Rows<Row>`")),
        other => Err(Error::new_spanned(other, format!("expected {}", kind.shape()))),
    }
}

/// `T` of `Name<T>`.
fn inner<'t>(outer: &'t Type, name: &str) -> Option<&'t Type> {
    let Type::Path(path) = outer else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| if let syn::GenericArgument::Type(inner) = argument { Some(inner) } else { None })
}

/// Replaces every lifetime by `'static`: where a type is only asked what its columns are, any lifetime does.
fn in_static(tokens: TokenStream) -> TokenStream {
    let mut lifetime = false;
    let replace = |token| {
        let replaced = match token {
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), in_static(group.stream()));
                inner.set_span(group.span());
                TokenTree::Group(inner)
            }
            TokenTree::Ident(ident) if lifetime => TokenTree::Ident(Ident::new("static", ident.span())),
            other => other,
        };
        lifetime = matches!(&replaced, TokenTree::Punct(mark) if mark.as_char() == '\'');
        replaced
    };
    tokens.into_iter().map(replace).collect()
}

/// The first paragraph of the function's documentation.
fn summary(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).filter_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) => literal(&pair.value).ok().map(|text| text.value().trim().to_owned()),
        _ => None,
    });
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `drop_tests` -> `DropTests`
fn camel(name: &str) -> String {
    let words = name.trim_start_matches("r#").split('_').filter(|word| !word.is_empty());
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    words.map(capital).collect()
}
