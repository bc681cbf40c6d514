//! Products: titles without surplus white space, article numbers in capitals.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Product<'a> {
    sku: Option<&'a str>,
    title: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Clean {
    sku: Option<String>,
    title: Option<String>,
}

#[transform(pass_rest)]
fn clean(product: Product) -> Clean {
    Clean {
        sku: product.sku.map(|sku| sku.trim().to_ascii_uppercase()),
        title: product.title.map(|title| title.split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_trimmed_and_article_numbers_are_capitals() {
        let product = clean(Product { sku: Some(" ab-12ü "), title: Some("  Garden \t chair\n") });
        assert_eq!(product, Clean { sku: Some("AB-12ü".into()), title: Some("Garden chair".into()) });
        assert_eq!(clean(Product { sku: None, title: None }), Clean { sku: None, title: None });
    }
}
