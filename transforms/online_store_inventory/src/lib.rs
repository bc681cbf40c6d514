//! Inventory: `ReorderNeeded` is true where the stock is at its threshold or below.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Stock {
    #[lode(name = "QuantityInStock")]
    quantity: Option<i32>,
    #[lode(name = "ReorderThreshold")]
    threshold: Option<i32>,
}

#[derive(Output, Debug, PartialEq)]
struct Watched {
    #[lode(name = "ReorderNeeded")]
    reorder_needed: Option<bool>,
}

#[transform(pass_rest)]
fn watch(stock: Stock) -> Watched {
    Watched { reorder_needed: stock.quantity.zip(stock.threshold).map(|(quantity, threshold)| quantity <= threshold) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_at_its_threshold_is_ordered_again() {
        let needed = |quantity, threshold| watch(Stock { quantity, threshold }).reorder_needed;
        assert_eq!(needed(Some(11), Some(10)), Some(false));
        assert_eq!(needed(Some(10), Some(10)), Some(true));
        assert_eq!(needed(Some(-3), Some(0)), Some(true));
        assert_eq!(needed(None, Some(10)), None);
    }
}
