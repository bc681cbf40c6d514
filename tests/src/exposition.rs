//! Prometheus' text format 0.0.4, read more strictly than Prometheus does.

use std::collections::BTreeMap;

/// Labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// A page: each family's kind and samples.
#[derive(Debug, Default)]
pub struct Exposition {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, BTreeMap<Labels, f64>>,
}

impl Exposition {
    /// Reads a page.
    ///
    /// # Errors
    /// What of the format it breaks: a family without help and kind before its samples, or with samples in two places; a
    /// name, a label or a number that is none; a sample twice; a counter that does not end in `_total` or is negative; a
    /// histogram whose classes do not add up.
    pub fn parse(text: &str) -> Result<Exposition, String> {
        if !text.is_empty() && !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        let mut page = Exposition::default();
        let (mut helped, mut family) = (String::new(), String::new());
        for (number, line) in text.lines().enumerate() {
            let at = |what: &str| format!("line {}: {what}: {line}", number + 1);
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| at("help without a text"))?;
                if page.kinds.contains_key(name) || help.is_empty() {
                    return Err(at("a family that was there before"));
                }
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| at("type without a kind"))?;
                if name != helped || !is_name(name) {
                    return Err(at("a type that does not follow on its help"));
                }
                if !["counter", "gauge", "histogram"].contains(&kind) {
                    return Err(at("an unknown kind"));
                }
                if (kind == "counter") != name.ends_with("_total") {
                    return Err(at("a counter ends in `_total`, and nothing else does"));
                }
                page.kinds.insert(name.to_owned(), kind.to_owned());
                family = name.to_owned();
            } else {
                let (name, labels, value) = sample(line).ok_or_else(|| at("no sample"))?;
                let suffix = name.strip_prefix(&family).ok_or_else(|| at("a sample away from its family"))?;
                let histogram = page.kinds.get(&family).is_some_and(|kind| kind == "histogram");
                if histogram != ["_bucket", "_sum", "_count"].contains(&suffix) || !histogram && !suffix.is_empty() {
                    return Err(at("a sample of another family"));
                }
                if page.samples.entry(name).or_default().insert(labels, value).is_some() {
                    return Err(at("a sample twice"));
                }
            }
        }
        page.check()?;
        Ok(page)
    }

    fn check(&self) -> Result<(), String> {
        for (name, kind) in &self.kinds {
            if kind == "counter" && self.of(name).any(|(_, value)| value < 0.0) {
                return Err(format!("`{name}` counts below 0"));
            }
            if kind == "histogram" {
                self.check_histogram(name)?;
            }
        }
        Ok(())
    }

    fn check_histogram(&self, name: &str) -> Result<(), String> {
        let mut all: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for (labels, count) in self.of(&format!("{name}_bucket")) {
            let mut labels = labels.clone();
            let bound =
                labels.remove("le").and_then(|le| number(&le)).ok_or_else(|| format!("`{name}` has no `le`"))?;
            all.entry(labels).or_default().push((bound, count));
        }
        for (labels, mut classes) in all {
            classes.sort_by(|a, b| a.0.total_cmp(&b.0));
            let count =
                self.value(&format!("{name}_count"), &labels).ok_or_else(|| format!("`{name}` has no count"))?;
            let last = classes.last().copied();
            if classes.windows(2).any(|pair| pair[0].1 > pair[1].1) || last != Some((f64::INFINITY, count)) {
                return Err(format!("the classes of `{name}` do not add up: {classes:?}, {count} in all"));
            }
            self.value(&format!("{name}_sum"), &labels).ok_or_else(|| format!("`{name}` has no sum"))?;
        }
        Ok(())
    }

    /// Names of the families.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// Samples by this name.
    pub fn of(&self, name: &str) -> impl Iterator<Item = (&Labels, f64)> {
        self.samples.get(name).into_iter().flatten().map(|(labels, value)| (labels, *value))
    }

    /// The sample with exactly these labels.
    pub fn value(&self, name: &str, labels: &Labels) -> Option<f64> {
        self.samples.get(name)?.get(labels).copied()
    }

    /// The sum of the samples by this name of which each label given has the value given.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |of: &Labels| labels.iter().all(|(name, value)| of.get(*name).is_some_and(|v| v == value));
        self.of(name).filter(|(of, _)| fits(of)).map(|(_, value)| value).sum()
    }
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || label.contains(':') || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            match after.split_at_checked(1)? {
                (",", after) => rest = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => return None,
            }
        }
    }
    let value = number(rest.strip_prefix(' ')?)?;
    is_name(name).then(|| (name.to_owned(), labels, value))
}

/// The text up to the quote that ends it, and what follows on that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, c)) = letters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') => text.parse().ok(),
        _ => None,
    }
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total what\n# TYPE a_total counter\na_total{t=\"x\\\"y\\\\\\n\"} 3\na_total 4.5\n\
                        # HELP b what\n# TYPE b histogram\nb_bucket{le=\"1\"} 1\nb_bucket{le=\"+Inf\"} 2\nb_sum 7\nb_count 2\n";

    #[test]
    fn a_sound_page_is_read() {
        let page = Exposition::parse(GOOD).unwrap();
        let labels = Labels::from([("t".to_owned(), "x\"y\\\n".to_owned())]);
        assert_eq!((page.value("a_total", &labels), page.sum("a_total", &[])), (Some(3.0), 7.5));
        assert_eq!(page.families().collect::<Vec<_>>(), ["a_total", "b"]);
    }

    #[test]
    fn a_page_that_breaks_the_format_is_refused() {
        for (old, new) in [
            ("b_count 2\n", "b_count 2"),
            ("# HELP a_total what\n", ""),
            ("TYPE a_total counter", "TYPE a_total gauge"),
            ("a_total 4.5", "a_total 4.5\na_total 4.5"),
            ("a_total 4.5", "a_total -4.5"),
            ("a_total 4.5", "a_total many"),
            ("a_total 4.5", "a_other 4.5"),
            ("\\\"y", "\\qy"),
            ("{t=", "{t t="),
            ("+Inf\"} 2", "+Inf\"} 3"),
            ("le=\"1\"} 1", "le=\"1\"} 5"),
            ("b_sum 7\n", ""),
            ("b_count 2\n", "b_count 2\na_total{t=\"z\"} 1\n"),
        ] {
            assert!(GOOD.contains(old));
            assert!(Exposition::parse(&GOOD.replacen(old, new, 1)).is_err(), "`{new}` for `{old}`");
        }
    }
}
