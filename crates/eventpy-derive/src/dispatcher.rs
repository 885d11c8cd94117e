//! `#[eventpy::dispatcher]`

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Error, ItemImpl};

const PLACE: &str = "`#[eventpy::dispatcher]` goes above `impl EventDispatcher for ..`";

pub fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    let item: ItemImpl =
        syn::parse2(item).map_err(|error| Error::new(error.span(), format!("{PLACE}: {error}")))?;
    require_trait(&item)?;
    if !item.generics.params.is_empty() {
        return Ok(refuse_parameters(&item));
    }

    let dispatcher = &item.self_ty;
    let conditions: Vec<&Attribute> =
        item.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).collect();
    Ok(quote! {
        #item

        #(#conditions)*
        #[automatically_derived]
        impl ::eventpy::Registered for #dispatcher {}

        #(#conditions)*
        ::eventpy::__private::inventory::submit! {
            ::eventpy::__private::Registration::of::<#dispatcher>()
        }
    })
}

fn require_trait(item: &ItemImpl) -> syn::Result<()> {
    let named = item.trait_.as_ref().and_then(|(path, _)| path.segments.last());
    match named {
        Some(segment) if segment.ident == "EventDispatcher" => Ok(()),
        _ => Err(Error::new_spanned(&item.self_ty, PLACE)),
    }
}

/// The child process finds a dispatcher by the name of its type, and only types that are written
/// out can be listed there. The type counts as registered all the same, so that the compiler does
/// not advise to add the attribute that it has.
fn refuse_parameters(item: &ItemImpl) -> TokenStream {
    let error = Error::new_spanned(
        &item.generics,
        "a dispatcher must be one concrete type, which its process can find by name: write \
         `impl EventDispatcher for Watch<Disk>`, once for each type that is used, and let them \
         share a generic function",
    )
    .into_compile_error();
    let dispatcher = &item.self_ty;
    let (parameters, _, bounds) = item.generics.split_for_impl();
    quote! {
        #error
        #item
        impl #parameters ::eventpy::Registered for #dispatcher #bounds {}
    }
}
