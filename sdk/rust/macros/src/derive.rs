//! `#[derive(Input)]` and `#[derive(Output)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::visit_mut::VisitMut;
use syn::{Data, DeriveInput, Error, Field, Fields, GenericParam, Ident, Lifetime, LitStr, Result, Type};

struct Columns {
    idents: Vec<Ident>,
    names: Vec<String>,
    types: Vec<Type>,
}

pub(crate) fn input(item: &DeriveInput) -> Result<TokenStream> {
    let Columns { idents, names, types } = columns(item)?;
    let name = &item.ident;
    let lifetime = only_lifetime(item)?;
    let row = Lifetime::new("'row", proc_macro2::Span::call_site());
    let arguments = lifetime.as_ref().map(|_| quote!(<#row>));
    let types: Vec<Type> = types.into_iter().map(|ty| with_lifetimes(ty, &row)).collect();
    let readers = format_ident!("{name}Readers");
    let positions = 0..idents.len();
    let sdk = quote!(::lodestream_sdk);
    Ok(quote! {
        const _: () = {
            #[doc(hidden)]
            pub struct #readers<#row> {
                #(#idents: <#types as #sdk::Cell<#row>>::Reader,)*
                marker: ::core::marker::PhantomData<&#row ()>,
            }

            impl<#row> #sdk::Input<#row> for #name #arguments {
                type Readers = #readers<#row>;

                fn wanted() -> ::std::vec::Vec<#sdk::Wanted> {
                    ::std::vec![#(#sdk::Wanted {
                        name: #names,
                        expects: <#types as #sdk::Cell<#row>>::expects(),
                        accepts: <#types as #sdk::Cell<#row>>::accepts,
                    }),*]
                }

                fn open(batch: &#row #sdk::Batch) -> ::core::result::Result<Self::Readers, ::std::string::String> {
                    ::core::result::Result::Ok(#readers {
                        #(#idents: #sdk::private::open_at::<#types>(batch, #positions)?,)*
                        marker: ::core::marker::PhantomData,
                    })
                }

                #[inline]
                fn read(readers: &Self::Readers, row: usize) -> ::core::result::Result<Self, ::std::string::String> {
                    ::core::result::Result::Ok(#name {
                        #(#idents: match <#types as #sdk::Cell<#row>>::read(&readers.#idents, row) {
                            ::core::option::Option::Some(value) => value,
                            ::core::option::Option::None => {
                                return ::core::result::Result::Err(
                                    ::std::string::String::from(concat!("`", #names, "` is null")),
                                );
                            }
                        },)*
                    })
                }
            }
        };
    })
}

pub(crate) fn output(item: &DeriveInput) -> Result<TokenStream> {
    let Columns { idents, names, types } = columns(item)?;
    only_lifetime(item)?;
    if idents.is_empty() {
        return Err(Error::new_spanned(&item.ident, "an output row needs a field"));
    }
    let name = &item.ident;
    let fixed = Lifetime::new("'static", proc_macro2::Span::call_site());
    let fixed: Vec<Type> = types.iter().cloned().map(|ty| with_lifetimes(ty, &fixed)).collect();
    let builders = format_ident!("{name}Builders");
    let (generics, arguments, bounds) = item.generics.split_for_impl();
    let sdk = quote!(::lodestream_sdk);
    Ok(quote! {
        const _: () = {
            #[doc(hidden)]
            pub struct #builders {
                #(#idents: <#fixed as #sdk::Value>::Builder,)*
            }

            impl #generics #sdk::Output for #name #arguments #bounds {
                type Builders = #builders;

                fn fields() -> ::std::vec::Vec<#sdk::Field> {
                    ::std::vec![#(#sdk::Field {
                        name: ::std::string::String::from(#names),
                        format: <#fixed as #sdk::Value>::format(),
                        nullable: <#fixed as #sdk::Value>::NULLABLE,
                    }),*]
                }

                fn builders(rows: usize) -> Self::Builders {
                    #builders { #(#idents: #sdk::Build::with_capacity(rows),)* }
                }

                #[inline]
                fn push(self, builders: &mut Self::Builders) {
                    #(#sdk::Value::append_to(self.#idents, &mut builders.#idents);)*
                }

                fn finish(builders: Self::Builders) -> ::std::vec::Vec<#sdk::Column> {
                    ::std::vec![#(#sdk::Build::finish(builders.#idents)),*]
                }
            }

            impl #generics #sdk::Rows for #name #arguments #bounds {
                type Row = Self;

                #[inline]
                fn emit(self, row: u32, sink: &mut #sdk::Sink<Self>) {
                    sink.push(row, self);
                }
            }
        };
    })
}

fn columns(item: &DeriveInput) -> Result<Columns> {
    let Data::Struct(data) = &item.data else {
        return Err(Error::new_spanned(&item.ident, "a row is a struct with named fields"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&item.ident, "a row is a struct with named fields"));
    };
    let mut columns = Columns { idents: Vec::new(), names: Vec::new(), types: Vec::new() };
    for field in &fields.named {
        let Some(ident) = &field.ident else { continue };
        columns.names.push(column_name(field)?.unwrap_or_else(|| ident.unraw().to_string()));
        columns.idents.push(ident.clone());
        columns.types.push(field.ty.clone());
    }
    Ok(columns)
}

fn column_name(field: &Field) -> Result<Option<String>> {
    let mut name = None;
    for attribute in field.attrs.iter().filter(|a| a.path().is_ident("lode")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("the only option of a field is `name`"));
            }
            name = Some(meta.value()?.parse::<LitStr>()?.value());
            Ok(())
        })?;
    }
    Ok(name)
}

fn only_lifetime(item: &DeriveInput) -> Result<Option<Lifetime>> {
    let mut found = None;
    for parameter in &item.generics.params {
        match parameter {
            GenericParam::Lifetime(lifetime) if found.is_none() => found = Some(lifetime.lifetime.clone()),
            other => return Err(Error::new_spanned(other, "a row has at most one lifetime and no type parameters")),
        }
    }
    Ok(found)
}

/// `ty` with every lifetime replaced.
pub(crate) fn with_lifetimes(mut ty: Type, lifetime: &Lifetime) -> Type {
    struct Replace<'a>(&'a Lifetime);
    impl VisitMut for Replace<'_> {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            if lifetime.ident != "static" {
                *lifetime = self.0.clone();
            }
        }
    }
    Replace(lifetime).visit_type_mut(&mut ty);
    ty
}
