//! What customers, sellers and the store itself do, one transaction each.

use super::{Store, Value, text};
use crate::demo::names;
use crate::demo::schema::Table;

const ORDERED: i64 = 1;
const SHIPPED: i64 = 2;
const DELIVERED: i64 = 3;
const RETURNED: i64 = 4;
const CANCELLED: i64 = 5;

impl Store {
    /// One of the things that happen, as often as they do.
    pub(super) fn act(&mut self) {
        match self.below(160) {
            0..25 => self.place_order(),
            25..45 => self.advance_order(),
            45..58 => self.pay(),
            58..62 => self.correct_payment(),
            62..72 => self.review(),
            72..77 => self.edit_review(),
            77..80 => self.delete_review(),
            80..94 => self.fill_cart(),
            94..102 => self.change_cart_item(),
            102..110 => self.delete_any(Table::CartItems),
            110..113 => self.rekey(Table::CartItems, "CartItemID"),
            113..115 => self.rekey(Table::Inventory, "InventoryID"),
            115..123 => self.change_contact(Table::Customers),
            123..127 => self.change_contact(Table::Sellers),
            127..134 => self.change_price(),
            134..139 => self.restock(),
            139..144 => self.add_customer(),
            144..146 => self.add_seller(),
            146..148 => self.add_product(),
            148..152 => self.move_house(),
            152..153 => self.delete_any(Table::Addresses),
            153..155 => self.purge_order(),
            155..157 => self.touch(Table::ProductCategories, "CategoryDescription"),
            157..158 => self.touch(Table::OrderStatus, "StatusDescription"),
            158..159 => self.touch(Table::PaymentMethods, "MethodDescription"),
            _ => self.renew_cart(),
        }
    }

    pub(super) fn add_seller(&mut self) {
        let (name, person) = (self.pick_text(&names::SHOPS), self.person());
        let (email, phone) = (self.email(&person), self.phone());
        self.insert(Table::Sellers, vec![text(name), email, phone]);
    }

    pub(super) fn add_product(&mut self) {
        let (Some(category), Some(seller)) = (self.any(Table::ProductCategories), self.any(Table::Sellers)) else {
            return;
        };
        let (look, thing) = (self.pick_text(&names::LOOKS), self.pick_text(&names::THINGS));
        let name = if self.chance(20) { format!(" {look}  {thing} ") } else { format!("{look} {thing}") };
        let description =
            if self.chance(15) { Value::Null } else { text(format!("A {thing}, {}", look.to_lowercase())) };
        let cost = 100 + self.below(20_000);
        let price = cost * (110 + self.below(150)) / 100;
        let values = vec![
            text(name),
            description,
            Value::Money(price),
            Value::Money(cost),
            Value::Int(category),
            Value::Int(seller),
        ];
        let product = self.insert(Table::Products, values);
        let (stock, threshold) = (20 + self.below(200), 5 + self.below(20));
        let values = vec![
            text(format!("Shelf {}-{product}", 1 + product % 9)),
            Value::Int(product),
            Value::Int(stock),
            Value::Int(threshold),
        ];
        self.insert(Table::Inventory, values);
    }

    pub(super) fn add_customer(&mut self) {
        let person = self.person();
        let (email, phone) = (self.email(&person), self.phone());
        let customer = self.insert(Table::Customers, vec![text(person), email, phone]);
        self.insert(Table::ShoppingCarts, vec![Value::Int(customer)]);
        let (line, city) = (self.street(), self.pick(&names::CITIES));
        let (name, state, country) = city.unwrap_or_default();
        let zip = if self.chance(10) { Value::Null } else { text(format!("{:05}", self.below(100_000))) };
        let (billing, shipping) = (self.chance(70), self.chance(80));
        let values = vec![
            Value::Int(customer),
            line,
            text(name),
            state.map_or(Value::Null, text),
            zip,
            text(country),
            Value::Flag(billing),
            Value::Flag(shipping),
        ];
        self.insert(Table::Addresses, values);
    }

    pub(super) fn place_order(&mut self) {
        let Some(customer) = self.any(Table::Customers) else { return };
        let mut lines = Vec::new();
        for _ in 0..=self.below(4) {
            let quantity = 1 + self.below(3);
            if let Some(product) = self.any(Table::Products)
                && let Some(row) = self.row(Table::Products, product)
            {
                lines.push((product, quantity, row.number("Price")));
            }
        }
        let total = lines.iter().map(|(_, quantity, price)| quantity * price).sum();
        let number = text(format!("ON-{:08}", self.below(100_000_000)));
        let values = vec![number, Value::Money(total), Value::Int(ORDERED), Value::Int(customer)];
        let order = self.insert(Table::Orders, values);
        for (product, quantity, price) in &lines {
            let values = vec![Value::Int(order), Value::Int(*product), Value::Int(*quantity), Value::Money(*price)];
            self.insert(Table::OrderItems, values);
        }
        for (product, quantity, _) in lines {
            for stock in self.keys_where(Table::Inventory, "ProductID", product) {
                self.update(Table::Inventory, stock, |row| {
                    row.put("QuantityInStock", Value::Int(row.number("QuantityInStock") - quantity));
                });
            }
        }
    }

    pub(super) fn advance_order(&mut self) {
        let Some(order) = self.any(Table::Orders) else { return };
        let status = self.row(Table::Orders, order).map_or(0, |row| row.number("StatusID"));
        let next = match status {
            ORDERED if self.chance(10) => CANCELLED,
            ORDERED => SHIPPED,
            SHIPPED => DELIVERED,
            DELIVERED if self.chance(10) => RETURNED,
            _ => return,
        };
        self.update(Table::Orders, order, |row| row.put("StatusID", Value::Int(next)));
        let reason = match next {
            CANCELLED => ("Cancellation", self.pick_text(&names::CANCELLATIONS)),
            RETURNED => ("Return", self.pick_text(&names::RETURNS)),
            _ => return,
        };
        self.insert(Table::Reasons, vec![Value::Int(order), text(reason.0), text(reason.1)]);
    }

    pub(super) fn pay(&mut self) {
        let (Some(order), Some(method)) = (self.any(Table::Orders), self.any(Table::PaymentMethods)) else { return };
        let amount = self.row(Table::Orders, order).map_or(0, |row| row.number("TotalAmount"));
        self.insert(Table::Payments, vec![Value::Int(order), Value::Int(method), Value::Money(amount)]);
    }

    /// The same payment by another method: taken away and made again under its key.
    fn correct_payment(&mut self) {
        let (Some(payment), Some(method)) = (self.any(Table::Payments), self.any(Table::PaymentMethods)) else {
            return;
        };
        if let Some(mut row) = self.delete(Table::Payments, payment) {
            row.put("PaymentMethodID", Value::Int(method));
            row.put("UpdatedAt", Value::Time(self.now));
            self.put(row);
        }
    }

    pub(super) fn review(&mut self) {
        let (Some(product), Some(customer)) = (self.any(Table::Products), self.any(Table::Customers)) else { return };
        let rating = match self.chance(4) {
            true => self.pick(&[0, 6, 9]).unwrap_or_default(),
            false => 1 + self.below(5),
        };
        let comment = if self.chance(10) { Value::Null } else { text(self.pick_text(&names::COMMENTS)) };
        self.insert(Table::Reviews, vec![Value::Int(product), Value::Int(customer), Value::Int(rating), comment]);
    }

    fn edit_review(&mut self) {
        let Some(review) = self.any(Table::Reviews) else { return };
        let (rating, comment) = (1 + self.below(5), self.pick_text(&names::COMMENTS));
        self.update(Table::Reviews, review, |row| {
            row.put("Rating", Value::Int(rating));
            row.put("Comment", text(comment));
        });
    }

    fn delete_review(&mut self) {
        self.delete_any(Table::Reviews);
    }

    pub(super) fn fill_cart(&mut self) {
        let (Some(cart), Some(product)) = (self.any(Table::ShoppingCarts), self.any(Table::Products)) else { return };
        let quantity = 1 + self.below(5);
        self.insert(Table::CartItems, vec![Value::Int(cart), Value::Int(product), Value::Int(quantity)]);
    }

    fn change_cart_item(&mut self) {
        let Some(item) = self.any(Table::CartItems) else { return };
        let quantity = 1 + self.below(9);
        self.update(Table::CartItems, item, |row| row.put("Quantity", Value::Int(quantity)));
    }

    /// Everything in a cart is taken out, and the cart is touched.
    fn renew_cart(&mut self) {
        let Some(cart) = self.any(Table::ShoppingCarts) else { return };
        for item in self.keys_where(Table::CartItems, "CartID", cart) {
            self.delete(Table::CartItems, item);
        }
        self.update(Table::ShoppingCarts, cart, |_| {});
    }

    fn delete_any(&mut self, table: Table) {
        if let Some(key) = self.any(table) {
            self.delete(table, key);
        }
    }

    /// A row gets another key. Only of tables that no other names.
    fn rekey(&mut self, table: Table, column: &str) {
        if let Some(key) = self.any(table) {
            let next = self.next_key(table);
            self.update(table, key, |row| row.put(column, Value::Int(next)));
        }
    }

    pub(super) fn change_contact(&mut self, table: Table) {
        let Some(key) = self.any(table) else { return };
        let person = self.person();
        let (email, phone) = (self.email(&person), self.phone());
        self.update(table, key, |row| {
            row.put("Email", email);
            row.put("PhoneNumber", phone);
        });
    }

    fn change_price(&mut self) {
        let Some(product) = self.any(Table::Products) else { return };
        let (price, cost) = (90 + self.below(25), 95 + self.below(11));
        self.update(Table::Products, product, |row| {
            row.put("Price", Value::Money(row.number("Price") * price / 100 + 1));
            row.put("Cost", Value::Money(row.number("Cost") * cost / 100 + 1));
        });
    }

    fn restock(&mut self) {
        let Some(stock) = self.any(Table::Inventory) else { return };
        let (more, threshold) = (20 + self.below(100), 5 + self.below(20));
        self.update(Table::Inventory, stock, |row| {
            row.put("QuantityInStock", Value::Int(row.number("QuantityInStock") + more));
            row.put("ReorderThreshold", Value::Int(threshold));
        });
    }

    fn move_house(&mut self) {
        let Some(address) = self.any(Table::Addresses) else { return };
        let (line, billing) = (self.street(), self.chance(70));
        self.update(Table::Addresses, address, |row| {
            row.put("AddressLine", line);
            row.put("IsBillingAddress", Value::Flag(billing));
        });
    }

    /// A cancelled order goes with everything that names it.
    fn purge_order(&mut self) {
        let Some(order) = self.keys_where(Table::Orders, "StatusID", CANCELLED).first().copied() else { return };
        for table in [Table::Reasons, Table::Payments, Table::OrderItems] {
            for key in self.keys_where(table, "OrderID", order) {
                self.delete(table, key);
            }
        }
        self.delete(Table::Orders, order);
    }

    fn touch(&mut self, table: Table, column: &str) {
        let Some(key) = self.any(table) else { return };
        let note = format!("Reworded, edition {}", 1 + self.below(1_000));
        self.update(table, key, |row| row.put(column, text(note)));
    }

    fn person(&mut self) -> String {
        format!("{} {}", self.pick_text(&names::FIRST), self.pick_text(&names::LAST))
    }

    /// As people type it: with capitals, white space, and now and then no address at all.
    fn email(&mut self, person: &str) -> Value {
        let domain = self.pick_text(&names::DOMAINS);
        let name: String = person.chars().map(|c| if c.is_alphanumeric() { c } else { '.' }).collect();
        let number = self.below(100);
        match self.below(20) {
            0 => Value::Null,
            1 => text("none"),
            2..5 => text(format!(" {name}@{domain} ")),
            5..8 => text(format!("{}{number}@{}", name.to_uppercase(), domain.to_uppercase())),
            _ => text(format!("{}{number}@{domain}", name.to_lowercase())),
        }
    }

    fn phone(&mut self) -> Value {
        let (country, area, number) = (1 + self.below(98), 10 + self.below(900), 1_000 + self.below(9_999_000));
        match self.below(12) {
            0 => Value::Null,
            1 => text("on request"),
            2..5 => text(format!("00{country} {area} {number}")),
            5..8 => text(format!(" +{country} ({area}) {number}")),
            _ => text(format!("0{area}/{number}")),
        }
    }

    fn street(&mut self) -> Value {
        text(format!("{} {}", self.pick_text(&names::STREETS), 1 + self.below(200)))
    }
}
