//! `#[transform]`: a function of a row as a module.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Error, FnArg, Ident, ItemFn, Lifetime, LitStr, Result, ReturnType, Token, Type, TypeParamBound, parenthesized,
};

use crate::derive::with_lifetimes;

/// What stands in the parentheses of the attribute.
#[derive(Default)]
pub(crate) struct Options {
    pass_rest: bool,
    pass: Vec<LitStr>,
    drop: Vec<LitStr>,
    key: Option<Vec<LitStr>>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Options::default();
        while !input.is_empty() {
            let option: Ident = input.parse()?;
            match option.to_string().as_str() {
                "pass_rest" => options.pass_rest = true,
                "pass" => options.pass = names(input)?,
                "drop" => options.drop = names(input)?,
                "key" => options.key = Some(names(input)?),
                _ => return Err(Error::new(option.span(), "the options are pass_rest, pass(…), drop(…), key(…)")),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        options.pass_rest |= !options.drop.is_empty();
        if options.pass_rest
            && let Some(name) = options.pass.first()
        {
            return Err(Error::new(
                name.span(),
                "`pass` names columns, `pass_rest` and `drop` pass all others: choose one",
            ));
        }
        Ok(options)
    }
}

fn names(input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let inner;
    parenthesized!(inner in input);
    Ok(Punctuated::<LitStr, Token![,]>::parse_terminated(&inner)?.into_iter().collect())
}

pub(crate) fn transform(options: &Options, item: &ItemFn) -> Result<TokenStream> {
    let mut parameters = item.sig.inputs.iter().map(|argument| match argument {
        FnArg::Typed(typed) => Ok(&*typed.ty),
        FnArg::Receiver(_) => Err(Error::new_spanned(argument, "a transform is a function, not a method")),
    });
    let input = parameters
        .next()
        .ok_or_else(|| Error::new_spanned(&item.sig, "a transform takes a row, and may take `&Params` after it"))??;
    let with_params = parameters.next().transpose()?.is_some();
    if let Some(more) = parameters.next() {
        return Err(Error::new_spanned(more?, "a transform takes a row and `&Params`, nothing else"));
    }
    let ReturnType::Type(_, output) = &item.sig.output else {
        return Err(Error::new_spanned(
            &item.sig,
            "a transform gives a row: `-> Row`, or an Option, Vec or Result of it",
        ));
    };

    // The generated code is outside the function, where its lifetimes have no names.
    let inferred = Lifetime::new("'_", proc_macro2::Span::call_site());
    let input = with_lifetimes(input.clone(), &inferred);
    let output = &with_lifetimes((**output).clone(), &inferred);

    let sdk = quote!(::lodestream_sdk);
    let function = &item.sig.ident;
    let call = if with_params { quote!(#function(input, params)) } else { quote!(#function(input)) };
    let (returned, call) = match iterator_item(output) {
        Some(row) => (quote!(::std::vec::Vec<#row>), quote!(#sdk::Each(#call))),
        None => match result_of_iterator(output) {
            Some(row) => (quote!(::std::vec::Vec<#row>), quote!(#call.map(#sdk::Each))),
            None => (quote!(#output), call),
        },
    };
    let Options { pass, drop, .. } = options;
    let pass = if options.pass_rest {
        quote!(#sdk::private::Pass::RestBut(&[#(#drop),*]))
    } else {
        quote!(#sdk::private::Pass::Named(&[#(#pass),*]))
    };
    let key = match &options.key {
        Some(names) => quote!(::core::option::Option::Some(&[#(#names),*])),
        None => quote!(::core::option::Option::None),
    };
    Ok(quote! {
        #[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
        #item

        /// The module, as its host sees it.
        pub struct Module;

        impl #sdk::Transform for Module {
            fn describe(
                _: &#sdk::Params,
                relations: &[#sdk::Relation],
            ) -> ::core::result::Result<#sdk::Description, ::std::string::String> {
                #sdk::private::describe::<#input, <#returned as #sdk::Rows>::Row>(relations, &#pass, #key)
            }

            #[allow(unused_variables)]
            fn transform(
                params: &#sdk::Params,
                batch: &#sdk::Batch,
            ) -> ::core::result::Result<#sdk::Columns, ::std::string::String> {
                let readers = <#input as #sdk::Input<'_>>::open(batch)?;
                let mut sink = #sdk::Sink::new(batch.rows);
                for row in 0..batch.rows {
                    match <#input as #sdk::Input<'_>>::read(&readers, row as usize) {
                        ::core::result::Result::Ok(input) => #sdk::Rows::emit(#call, row, &mut sink),
                        ::core::result::Result::Err(reason) => sink.reject(row, reason),
                    }
                }
                ::core::result::Result::Ok(sink.finish(batch.rows))
            }
        }

        #sdk::export!(Module);
    })
}

/// The item of `impl Iterator<Item = …>`.
fn iterator_item(ty: &Type) -> Option<&Type> {
    let Type::ImplTrait(bounds) = ty else { return None };
    bounds.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let segment = bound.path.segments.last()?;
        let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
        arguments.args.iter().find_map(|argument| match argument {
            syn::GenericArgument::AssocType(item) if item.ident == "Item" => Some(&item.ty),
            _ => None,
        })
    })
}

/// The item of `Result<impl Iterator<Item = …>, …>`.
fn result_of_iterator(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let syn::PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else { return None };
    match arguments.args.first()? {
        syn::GenericArgument::Type(first) => iterator_item(first),
        _ => None,
    }
}
