//! Names, words and places that the store is filled with. All people are invented.

pub(super) const FIRST: [&str; 32] = [
    "Maria", "Jonas", "Aylin", "Priya", "Tomás", "Élise", "Kofi", "Yuki", "Ingrid", "Mateo", "Zofia", "Liam", "Noor",
    "Chen", "Amara", "Björn", "Leila", "Oskar", "Fatima", "Hugo", "Sana", "Pavel", "Greta", "Diego", "Mina", "Ivan",
    "Nadia", "Emil", "Rosa", "Kenji", "Thandi", "Luca",
];

pub(super) const LAST: [&str; 32] = [
    "Lund",
    "Okafor",
    "Yılmaz",
    "Novák",
    "García",
    "Schmidt",
    "Nakamura",
    "Patel",
    "Dubois",
    "Andersson",
    "Kowalski",
    "Mensah",
    "O'Brien",
    "Rossi",
    "Haddad",
    "Ivanova",
    "Silva",
    "Müller",
    "Larsen",
    "Wong",
    "Moreau",
    "Costa",
    "Petrov",
    "Nguyen",
    "Weber",
    "Jansen",
    "Romero",
    "Sato",
    "Berg",
    "Diallo",
    "Keller",
    "Marino",
];

pub(super) const SHOPS: [&str; 12] = [
    "Harbour Goods",
    "Oak & Ember",
    "Northlight",
    "Casa Verde",
    "Paper Moon",
    "Blue Kettle",
    "Fjord Supply",
    "The Tool Shed",
    "Little Orchard",
    "Copper Lane",
    "Wool & Co",
    "Second Chapter",
];

pub(super) const DOMAINS: [&str; 6] =
    ["example.com", "example.org", "mail.example.net", "post.example.de", "example.fr", "correo.example.es"];

pub(super) const CATEGORIES: [(&str, &str); 10] = [
    ("Kitchen", "Pots, knives and everything between"),
    ("Garden", "For beds, borders and balconies"),
    ("Books", "New, used and signed"),
    ("Toys", "From one to ninety-nine years"),
    ("Lighting", "Lamps and what they need"),
    ("Furniture", "Flat and assembled"),
    ("Clothing", "Wool, linen, cotton"),
    ("Tools", "By hand and by power"),
    ("Stationery", "Paper, ink and patience"),
    ("Sports", "Indoors and out"),
];

pub(super) const LOOKS: [&str; 16] = [
    "Oak",
    "Blue",
    "Folding",
    "Copper",
    "Small",
    "Linen",
    "Enamel",
    "Striped",
    "Travel",
    "Heavy",
    "Garden",
    "Cast-iron",
    "Woven",
    "Quiet",
    "Winter",
    "Everyday",
];

pub(super) const THINGS: [&str; 20] = [
    "chair", "kettle", "lamp", "notebook", "jumper", "trowel", "hammer", "puzzle", "blanket", "teapot", "shelf",
    "knife", "basket", "scarf", "football", "candle", "bench", "mug", "pen", "lantern",
];

pub(super) const STATUSES: [(&str, &str); 5] = [
    ("Ordered", "Placed and not yet sent"),
    ("Shipped", "On its way"),
    ("Delivered", "With the customer"),
    ("Returned", "Sent back by the customer"),
    ("Cancelled", "Will not be sent"),
];

pub(super) const METHODS: [(&str, &str); 5] = [
    ("Cash", "On delivery"),
    ("Credit Card", "Charged when the order is shipped"),
    ("Debit Card", "Charged at once"),
    ("Bank Transfer", "In advance"),
    ("Digital Wallet", "Charged at once"),
];

pub(super) const CANCELLATIONS: [&str; 4] =
    ["found it cheaper", "ordered by mistake", "delivery takes too long", "changed my mind"];

pub(super) const RETURNS: [&str; 5] =
    ["does not fit", "arrived damaged", "not as described", "wrong item", "no longer needed"];

pub(super) const COMMENTS: [&str; 10] = [
    "Exactly as described.",
    "  Arrived two days late, but well packed ",
    "Would buy again \u{2764}\u{fe0f}",
    "The colour is darker than in the picture",
    "Sturdy, and prettier than I thought",
    "\"Best in its class\", says my neighbour",
    "Broke after a week\nand the seller did not answer",
    " ",
    "C'est parfait, merci !",
    "ok",
];

pub(super) const STREETS: [&str; 10] = [
    "Harbour Street",
    "Lindenallee",
    "Rue des Lilas",
    "Calle Mayor",
    "Kirkegata",
    "Oak Avenue",
    "Via Roma",
    "Mill Lane",
    "Station Road",
    "Parkweg",
];

/// City, state, country as people type it.
pub(super) const CITIES: [(&str, Option<&str>, &str); 10] = [
    ("Berlin", None, "DE"),
    ("Lyon", None, " fr"),
    ("Málaga", Some("Andalucía"), "ES"),
    ("Portland", Some("Oregon"), "US"),
    ("Bergen", None, "no"),
    ("Kraków", None, "PL "),
    ("Torino", Some("Piemonte"), "it"),
    ("Leeds", None, "GB"),
    ("Austin", Some("Texas"), "us"),
    ("Utrecht", None, "NL"),
];
