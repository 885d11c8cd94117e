//! `#[derive(Event)]`

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{DeriveInput, LitStr, parse_quote};

/// What `#[event(..)]` says.
#[derive(Default)]
struct Settings {
    name: Option<LitStr>,
    plain: bool,
}

pub fn derive(item: TokenStream) -> syn::Result<TokenStream> {
    let mut item: DeriveInput = syn::parse2(item)?;
    let settings = Settings::read(&item)?;

    let ident = &item.ident;
    let name = match &settings.name {
        Some(name) => name.to_token_stream(),
        None => ident.unraw().to_string().to_token_stream(),
    };
    let (encoding, needs) = match settings.plain {
        true => (quote!(Plain), quote!(ForPlain)),
        false => (quote!(Serde), quote!(ForSerde)),
    };
    if !item.generics.params.is_empty() {
        // A type without parameters is checked right here, which gives the better errors.
        let bounds = &mut item.generics.make_where_clause().predicates;
        bounds.push(parse_quote!(
            Self: ::eventpy::__private::#needs + ::core::marker::Send + 'static
        ));
    }
    let (parameters, arguments, bounds) = item.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #parameters ::eventpy::Event for #ident #arguments #bounds {
            const NAME: &'static str = #name;
            type Encoding = ::eventpy::__private::#encoding;
        }
    })
}

impl Settings {
    fn read(item: &DeriveInput) -> syn::Result<Settings> {
        let mut settings = Settings::default();
        for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("event")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("plain") {
                    settings.plain = true;
                } else if meta.path.is_ident("name") {
                    settings.name = Some(meta.value()?.parse()?);
                } else {
                    return Err(meta.error("expected `plain` or `name = \"..\"`"));
                }
                Ok(())
            })?;
        }
        Ok(settings)
    }
}
