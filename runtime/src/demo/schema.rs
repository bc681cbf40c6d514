//! The online store's fifteen source tables.
//!
//! Promises names, types and order of the columns as the database has them: an integer key first, `CreatedAt` and
//! `UpdatedAt` last.

/// A source table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Addresses,
    CartItems,
    Customers,
    Inventory,
    OrderItems,
    OrderStatus,
    Orders,
    PaymentMethods,
    Payments,
    ProductCategories,
    Products,
    Reasons,
    Reviews,
    Sellers,
    ShoppingCarts,
}

/// A column's type in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Varchar(u16),
    Text,
    /// DECIMAL(12,2)
    Money,
    /// TIMESTAMP, whole seconds
    Timestamp,
    Bit,
    Enum(&'static [&'static str]),
}

/// A column of a source table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) nullable: bool,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, nullable: false }
}

const fn optional(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, nullable: true }
}

macro_rules! columns {
    ($($column:expr),* $(,)?) => {
        const { &[$($column),*, column("CreatedAt", Kind::Timestamp), column("UpdatedAt", Kind::Timestamp)] }
    };
}

impl Table {
    /// Every table, by name: the order in which a connector takes its snapshot.
    pub(super) const ALL: [Table; 15] = [
        Table::Addresses,
        Table::CartItems,
        Table::Customers,
        Table::Inventory,
        Table::OrderItems,
        Table::OrderStatus,
        Table::Orders,
        Table::PaymentMethods,
        Table::Payments,
        Table::ProductCategories,
        Table::Products,
        Table::Reasons,
        Table::Reviews,
        Table::Sellers,
        Table::ShoppingCarts,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Addresses => "Addresses",
            Table::CartItems => "CartItems",
            Table::Customers => "Customers",
            Table::Inventory => "Inventory",
            Table::OrderItems => "OrderItems",
            Table::OrderStatus => "OrderStatus",
            Table::Orders => "Orders",
            Table::PaymentMethods => "PaymentMethods",
            Table::Payments => "Payments",
            Table::ProductCategories => "ProductCategories",
            Table::Products => "Products",
            Table::Reasons => "Reasons",
            Table::Reviews => "Reviews",
            Table::Sellers => "Sellers",
            Table::ShoppingCarts => "ShoppingCarts",
        }
    }

    /// The columns in order; the first is the key.
    pub(super) fn columns(self) -> &'static [Column] {
        use Kind::{Bit, Enum, Int, Money, Text, Varchar};
        match self {
            Table::Addresses => columns![
                column("AddressID", Int),
                column("CustomerID", Int),
                column("AddressLine", Varchar(255)),
                column("City", Varchar(100)),
                optional("State", Varchar(100)),
                optional("ZipCode", Varchar(20)),
                column("Country", Varchar(100)),
                column("IsBillingAddress", Bit),
                column("IsShippingAddress", Bit),
            ],
            Table::CartItems => columns![
                column("CartItemID", Int),
                column("CartID", Int),
                column("ProductID", Int),
                column("Quantity", Int),
            ],
            Table::Customers => columns![
                column("CustomerID", Int),
                column("Name", Varchar(255)),
                optional("Email", Varchar(255)),
                optional("PhoneNumber", Varchar(50)),
            ],
            Table::Inventory => columns![
                column("InventoryID", Int),
                column("InventoryName", Varchar(255)),
                column("ProductID", Int),
                column("QuantityInStock", Int),
                column("ReorderThreshold", Int),
            ],
            Table::OrderItems => columns![
                column("OrderItemID", Int),
                column("OrderID", Int),
                column("ProductID", Int),
                column("Quantity", Int),
                column("CurrentPrice", Money),
            ],
            Table::OrderStatus => columns![
                column("StatusID", Int),
                column("StatusName", Varchar(50)),
                optional("StatusDescription", Text),
            ],
            Table::Orders => columns![
                column("OrderID", Int),
                column("OrderNumber", Varchar(50)),
                column("TotalAmount", Money),
                column("StatusID", Int),
                column("CustomerID", Int),
            ],
            Table::PaymentMethods => columns![
                column("PaymentMethodID", Int),
                column("MethodName", Varchar(50)),
                optional("MethodDescription", Text),
            ],
            Table::Payments => columns![
                column("PaymentID", Int),
                column("OrderID", Int),
                column("PaymentMethodID", Int),
                column("Amount", Money),
            ],
            Table::ProductCategories => columns![
                column("CategoryID", Int),
                column("CategoryName", Varchar(255)),
                optional("CategoryDescription", Text),
            ],
            Table::Products => columns![
                column("ProductID", Int),
                column("Name", Varchar(255)),
                optional("Description", Text),
                column("Price", Money),
                column("Cost", Money),
                column("CategoryID", Int),
                column("SellerID", Int),
            ],
            Table::Reasons => columns![
                column("ReasonID", Int),
                column("OrderID", Int),
                column("ReasonType", Enum(&["Cancellation", "Return"])),
                optional("ReasonDescription", Text),
            ],
            Table::Reviews => columns![
                column("ReviewID", Int),
                column("ProductID", Int),
                column("CustomerID", Int),
                column("Rating", Int),
                optional("Comment", Text),
            ],
            Table::Sellers => columns![
                column("SellerID", Int),
                column("Name", Varchar(255)),
                optional("Email", Varchar(255)),
                optional("PhoneNumber", Varchar(50)),
            ],
            Table::ShoppingCarts => columns![column("CartID", Int), column("CustomerID", Int)],
        }
    }

    /// The key's column.
    pub(super) fn key(self) -> &'static str {
        self.columns().first().map_or("", |column| column.name)
    }

    /// Place of a column.
    pub(super) fn place(self, name: &str) -> Option<usize> {
        self.columns().iter().position(|column| column.name == name)
    }
}
