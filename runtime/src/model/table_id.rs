//! Which table: its layer and its name in it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A layer of the lake, in the order in which the data meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// every record of a topic, as it came
    Bronze,
    /// the current state of a source table
    Silver,
    /// derived from Silver
    Gold,
}

impl Layer {
    /// All of them, in the order of the data.
    pub const ALL: [Layer; 3] = [Layer::Bronze, Layer::Silver, Layer::Gold];

    /// Its name, which is its folder's in the lake.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Bronze => "bronze",
            Layer::Silver => "silver",
            Layer::Gold => "gold",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A table of the lake. As text `<layer>.<name>`; a Bronze table's name is its topic's, dots and all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// its layer
    pub layer: Layer,
    /// its name in the layer
    pub name: Arc<str>,
}

impl TableId {
    /// The Bronze table of `topic`.
    pub fn bronze(topic: impl Into<Arc<str>>) -> Self {
        TableId { layer: Layer::Bronze, name: topic.into() }
    }

    /// The Silver table `name`.
    pub fn silver(name: impl Into<Arc<str>>) -> Self {
        TableId { layer: Layer::Silver, name: name.into() }
    }

    /// The Gold table `name`.
    pub fn gold(name: impl Into<Arc<str>>) -> Self {
        TableId { layer: Layer::Gold, name: name.into() }
    }

    /// Its folder below the lake's root.
    pub fn path(&self) -> String {
        format!("{}/{}", self.layer, self.name)
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.layer, self.name)
    }
}

impl FromStr for TableId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_table =
            || format!("`{text}` is no table: give it as `silver.<name>`, `bronze.<topic>` or `gold.<name>`");
        let (layer, name) = text.split_once('.').filter(|(_, name)| !name.is_empty()).ok_or_else(no_table)?;
        let layer = Layer::ALL.into_iter().find(|known| known.as_str() == layer).ok_or_else(no_table)?;
        Ok(TableId { layer, name: name.into() })
    }
}

impl Serialize for TableId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_from_its_text() {
        for id in [TableId::bronze("db.shop.orders"), TableId::silver("orders")] {
            assert_eq!(id.to_string().parse(), Ok(id.clone()));
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(serde_json::from_str::<TableId>(&json).unwrap(), id);
        }
        for text in ["orders", "silver.", "iron.orders", ""] {
            assert!(text.parse::<TableId>().is_err(), "{text}");
        }
    }
}
