//! The attribute and the derives of `lodestream-sdk`, which documents them. Receives a struct or a function, gives the
//! code that an author would otherwise write by hand; nothing of it is `unsafe`.

mod derive;
mod function;

use proc_macro::TokenStream;

/// Reads the fields of a struct from columns of the same names.
#[proc_macro_derive(Input, attributes(lode))]
pub fn derive_input(item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as syn::DeriveInput);
    derive::input(&item).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Writes the fields of a struct to columns of the same names.
#[proc_macro_derive(Output, attributes(lode))]
pub fn derive_output(item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as syn::DeriveInput);
    derive::output(&item).unwrap_or_else(|e| e.to_compile_error()).into()
}

/// Makes a function of a row the module's transform.
#[proc_macro_attribute]
pub fn transform(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = syn::parse_macro_input!(options as function::Options);
    let item = syn::parse_macro_input!(item as syn::ItemFn);
    function::transform(&options, &item).unwrap_or_else(|e| e.to_compile_error()).into()
}
