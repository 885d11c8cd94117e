//! `#[eventpy::test]`

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt;
use syn::{Error, Ident, ItemFn, parse_quote};

pub fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    let mut test: ItemFn = syn::parse2(item)?;
    if let Some(asyncness) = &test.sig.asyncness {
        let message = "`#[eventpy::test]` needs a function that is not async";
        return Err(Error::new_spanned(asyncness, message));
    }
    if !test.sig.inputs.is_empty() {
        let message = "a test takes no arguments";
        return Err(Error::new_spanned(&test.sig.inputs, message));
    }
    let name = test.sig.ident.unraw().to_string();
    let guard = Ident::new("launch", Span::mixed_site());
    let first = parse_quote! {
        let #guard = ::eventpy::__private::begin_test(
            ::core::concat!(::core::module_path!(), "::", #name),
        );
    };
    test.block.stmts.insert(0, first);
    Ok(quote! {
        #[::core::prelude::v1::test]
        #test
    })
}
