//! `#[eventpy::main]`

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, parse_quote};

pub fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    let mut main: ItemFn = syn::parse2(item)?;
    if main.sig.ident != "main" {
        let message = "`#[eventpy::main]` goes above `fn main`, where every process begins; \
                       a test has `#[eventpy::test]`";
        return Err(Error::new_spanned(&main.sig.ident, message));
    }
    if let Some(asyncness) = &main.sig.asyncness {
        let message = "`#[eventpy::main]` needs a `main` that is not async: a dispatcher process \
                       runs before any runtime; put the runtime's own attribute above this one";
        return Err(Error::new_spanned(asyncness, message));
    }
    let first = parse_quote!(::eventpy::__private::run_if_dispatcher_process(););
    main.block.stmts.insert(0, first);
    Ok(quote!(#main))
}
