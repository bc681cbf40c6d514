//! FactSales: what an order item sold for, what it cost when it was ordered, and whether it is paid.
//!
//! Reads the lookups `orders` and `products` as they are now, `then`, the product as it was when the order was made, and
//! `payment`, a payment of the order. An item whose order or product is gone stays, with nulls. Money is exact; what
//! DECIMAL(18,2) cannot hold is rejected.

use lodestream_sdk::prelude::*;

/// Money of the warehouse.
type Money = Decimal<18, 2>;

#[derive(Input, Default)]
struct Item {
    #[lode(name = "Quantity")]
    quantity: Option<i32>,
    #[lode(name = "CurrentPrice")]
    price: Option<Decimal<12, 2>>,
    #[lode(name = "then.Cost")]
    cost: Option<Decimal<12, 2>>,
    #[lode(name = "payment.PaymentID")]
    payment: Option<i32>,
}

#[derive(Output, Debug, PartialEq)]
struct Sale {
    #[lode(name = "CurrentPrice")]
    price: Option<Money>,
    #[lode(name = "UnitCost")]
    cost: Option<Money>,
    #[lode(name = "Revenue")]
    revenue: Option<Money>,
    #[lode(name = "Profit")]
    profit: Option<Money>,
    #[lode(name = "IsPaid")]
    is_paid: bool,
}

#[transform(pass(
    "OrderItemID",
    "OrderID",
    "ProductID",
    "Quantity",
    "orders.CustomerID",
    "orders.OrderDateKey",
    "orders.StatusID",
    "products.CategoryID",
    "products.SellerID"
))]
fn sell(item: Item) -> Result<Sale, String> {
    let revenue = times(item.quantity, item.price, "Revenue")?;
    let spent = times(item.quantity, item.cost, "the cost of all pieces")?;
    let profit = match revenue.zip(spent) {
        Some((revenue, spent)) => Some(fitting(revenue.0 - spent.0, "Profit")?),
        None => None,
    };
    let (price, cost) = (item.price.map(|price| Decimal(price.0)), item.cost.map(|cost| Decimal(cost.0)));
    Ok(Sale { price, cost, revenue, profit, is_paid: item.payment.is_some() })
}

fn times(quantity: Option<i32>, price: Option<Decimal<12, 2>>, what: &str) -> Result<Option<Money>, String> {
    let Some((quantity, price)) = quantity.zip(price) else { return Ok(None) };
    fitting(i128::from(quantity) * price.0, what).map(Some)
}

fn fitting(unscaled: i128, what: &str) -> Result<Money, String> {
    Money::checked(unscaled).ok_or_else(|| format!("{what} does not fit DECIMAL(18,2)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revenue_is_quantity_times_price_and_profit_what_is_left_of_it() {
        let item =
            Item { quantity: Some(3), price: Some(Decimal(1_999)), cost: Some(Decimal(1_250)), payment: Some(7) };
        let sale = sell(item).expect("a sale");
        assert_eq!((sale.revenue, sale.profit), (Some(Decimal(5_997)), Some(Decimal(2_247))));
        assert_eq!((sale.price, sale.cost, sale.is_paid), (Some(Decimal(1_999)), Some(Decimal(1_250)), true));
    }

    #[test]
    fn what_is_not_known_is_null() {
        let sale = sell(Item { quantity: Some(3), price: Some(Decimal(1_999)), ..Item::default() }).expect("a sale");
        assert_eq!((sale.revenue, sale.cost, sale.profit, sale.is_paid), (Some(Decimal(5_997)), None, None, false));
    }

    #[test]
    fn a_sum_that_its_type_cannot_hold_is_rejected() {
        let item = Item { quantity: Some(i32::MAX), price: Some(Decimal(999_999_999_999)), ..Item::default() };
        assert_eq!(sell(item), Err("Revenue does not fit DECIMAL(18,2)".to_owned()));
    }
}
