//! The params of the pipeline file: a JSON object, read once a batch.

/// The params that the pipeline file gives a module.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    root: Json,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// a number, as it was written
    Number(String),
    /// a text
    Text(String),
    /// a list
    List(Vec<Json>),
    /// an object, in its order
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Member `name` of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, where it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Json::Number(number) => number.parse().ok(),
            _ => None,
        }
    }
}

impl Params {
    /// Parses the text of a JSON object.
    ///
    /// # Errors
    /// It is not JSON, or no object.
    pub fn parse(text: &str) -> Result<Params, String> {
        let mut parser = Parser { text, at: 0 };
        let root = parser.value(0)?;
        parser.space();
        match root {
            Json::Null | Json::Object(_) if parser.at == text.len() => Ok(Params { root }),
            _ => Err("the params are no JSON object".to_owned()),
        }
    }

    /// Param `name`.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.root.get(name)
    }

    /// Param `name` as a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.text()
    }

    /// Param `name` as an integer.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name)?.integer()
    }
}

/// JSON's own grammar of numbers. Rust's parser of floats would add 20 KB to every module.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, part) = mantissa.split_once('.').map_or((mantissa, None), |(w, p)| (w, Some(p)));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && part.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

const MOST_DEPTH: usize = 64;

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn wrong(&self) -> String {
        format!("the params are not JSON at byte {}", self.at)
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth > MOST_DEPTH {
            return Err(self.wrong());
        }
        for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
            if self.eat(word) {
                return Ok(value);
            }
        }
        if self.eat("[") {
            let mut items = Vec::new();
            if self.eat("]") {
                return Ok(Json::List(items));
            }
            loop {
                items.push(self.value(depth + 1)?);
                if self.eat("]") {
                    return Ok(Json::List(items));
                }
                if !self.eat(",") {
                    return Err(self.wrong());
                }
            }
        }
        if self.eat("{") {
            let mut members = Vec::new();
            if self.eat("}") {
                return Ok(Json::Object(members));
            }
            loop {
                let key = self.string()?;
                if !self.eat(":") {
                    return Err(self.wrong());
                }
                members.push((key, self.value(depth + 1)?));
                if self.eat("}") {
                    return Ok(Json::Object(members));
                }
                if !self.eat(",") {
                    return Err(self.wrong());
                }
            }
        }
        self.space();
        if self.rest().starts_with('"') {
            return Ok(Json::Text(self.string()?));
        }
        let number: &str = self.rest().split([',', ']', '}', ' ', '\t', '\n', '\r']).next().unwrap_or_default();
        if !is_number(number) {
            return Err(self.wrong());
        }
        self.at += number.len();
        Ok(Json::Number(number.to_owned()))
    }

    fn string(&mut self) -> Result<String, String> {
        if !self.eat("\"") {
            return Err(self.wrong());
        }
        let mut text = String::new();
        loop {
            let c = self.next().ok_or_else(|| self.wrong())?;
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                c if c < ' ' => return Err(self.wrong()),
                c => text.push(c),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn escape(&mut self) -> Result<char, String> {
        Ok(match self.next().ok_or_else(|| self.wrong())? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let high = self.hex()?;
                match high {
                    0xd800..=0xdbff => {
                        if !(self.next() == Some('\\') && self.next() == Some('u')) {
                            return Err(self.wrong());
                        }
                        let low = self.hex()?.wrapping_sub(0xdc00);
                        let code = 0x10000 + ((high - 0xd800) << 10) + low;
                        (low < 0x400).then(|| char::from_u32(code)).flatten().ok_or_else(|| self.wrong())?
                    }
                    code => char::from_u32(code).ok_or_else(|| self.wrong())?,
                }
            }
            c @ ('"' | '\\' | '/') => c,
            _ => return Err(self.wrong()),
        })
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok()).ok_or_else(|| self.wrong())?;
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_read() {
        let text = r#" {"currency": "EU\u0052", "n": -12, "list": [1, {"x": null}, []], "s": "\ud83d\ude00\n"} "#;
        let params = Params::parse(text).unwrap();
        assert_eq!(params.text("currency"), Some("EUR"));
        assert_eq!(params.integer("n"), Some(-12));
        assert_eq!(params.text("s"), Some("😀\n"));
        assert!(matches!(params.get("list"), Some(Json::List(items)) if items.len() == 3));
        assert_eq!(params.get("absent"), None);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = "[".repeat(10_000);
        for text in [
            "",
            "[]",
            "{",
            "{\"a\"}",
            "{\"a\":1,}",
            "{\"a\":1} x",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":+1}",
            "{\"a\":01}",
            "{\"a\":1.}",
            &deep,
        ] {
            assert!(Params::parse(text).is_err(), "{}", &text[..text.len().min(20)]);
        }
    }
}
