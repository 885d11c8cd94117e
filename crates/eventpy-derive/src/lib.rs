//! The derive and the attributes of the `eventpy` crate, which re-exports and explains them.
//!
//! | macro | file | what it writes |
//! |---|---|---|
//! | `#[derive(Event)]` | `event.rs` | `impl Event`: the type's name and encoding |
//! | `#[dispatcher]` | `dispatcher.rs` | the entry in the registry that the child process looks into |
//! | `#[main]` | `main_fn.rs` | a first line that runs the dispatcher in a dispatcher process |
//! | `#[test]` | `test_fn.rs` | the same for a test, which is its own child process |
//!
//! What they write names everything through `::eventpy`, so a user needs no other dependency than
//! `serde`.

#![forbid(unsafe_code)]

mod dispatcher;
mod event;
mod main_fn;
mod test_fn;

use proc_macro::TokenStream;

/// Makes a type an event. Explained at `eventpy::Event`.
#[proc_macro_derive(Event, attributes(event))]
pub fn derive_event(item: TokenStream) -> TokenStream {
    event::derive(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a dispatcher known to its own process. Explained at `eventpy::dispatcher`.
#[proc_macro_attribute]
pub fn dispatcher(arguments: TokenStream, item: TokenStream) -> TokenStream {
    attribute(arguments, item, dispatcher::expand)
}

/// Runs a dispatcher in place of `main` in a dispatcher process. Explained at `eventpy::main`.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    attribute(arguments, item, main_fn::expand)
}

/// A test that deploys dispatchers. Explained at `eventpy::test`.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    attribute(arguments, item, test_fn::expand)
}

type Expand = fn(proc_macro2::TokenStream) -> syn::Result<proc_macro2::TokenStream>;

/// An item that can't be expanded stays in the program as it was, beside the error, so that the
/// compiler does not also report everything that uses it.
fn attribute(arguments: TokenStream, item: TokenStream, expand: Expand) -> TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    let expanded = refuse_arguments(arguments.into()).and_then(|()| expand(item.clone()));
    match expanded {
        Ok(expanded) => expanded.into(),
        Err(error) => {
            let error = error.into_compile_error();
            quote::quote!(#error #item).into()
        }
    }
}

fn refuse_arguments(arguments: proc_macro2::TokenStream) -> syn::Result<()> {
    match arguments.is_empty() {
        true => Ok(()),
        false => Err(syn::Error::new_spanned(arguments, "this attribute takes no arguments")),
    }
}
