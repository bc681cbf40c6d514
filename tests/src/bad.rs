//! Records that no consumer can apply, each made from a sound record of the same topic.

use serde_json::Value;

use crate::capture::{Capture, Event, Place};

/// One kind of bad record.
pub struct Kind {
    /// in words, for messages
    pub name: &'static str,
    make: fn(&mut Event, &str),
}

const DEPTH: usize = 20_000;
const LARGE: usize = 20 * 1024 * 1024;

/// Every kind that the runtime promises to set aside.
pub const KINDS: [Kind; 16] = [
    Kind { name: "not JSON", make: |e, _| e.value = Some(b"{\"op\": oops".to_vec()) },
    Kind { name: "cut in the middle", make: |e, _| cut(e) },
    Kind { name: "a scalar", make: |e, _| e.value = Some(b"42".to_vec()) },
    Kind { name: "an array", make: |e, _| e.value = Some(b"[1, 2, 3]".to_vec()) },
    Kind { name: "empty", make: |e, _| e.value = Some(Vec::new()) },
    Kind { name: "NaN", make: |e, column| replace_column(e, column, "NaN") },
    Kind { name: "bad UTF-8", make: |e, _| bad_utf8(e) },
    Kind { name: "20,000 levels deep", make: |e, _| deep(e) },
    Kind { name: "a column twice", make: column_twice },
    Kind { name: "a text where a number must be", make: |e, column| replace_column(e, column, "\"many\"") },
    Kind { name: "an object where a number must be", make: |e, column| replace_column(e, column, "{\"a\":1}") },
    Kind { name: "no key", make: |e, _| e.key = None },
    Kind { name: "an unknown op", make: |e, _| replace(e, "\"op\":\"u\"", "\"op\":\"q\"") },
    Kind { name: "no source block", make: |e, _| no_source(e) },
    Kind { name: "the value of another row than its key", make: |e, _| other_key(e) },
    Kind { name: "20 MB of no JSON", make: |e, _| e.value = Some(vec![b'x'; LARGE]) },
];

/// Puts one record of every kind into the middle of the changes of `table`, whose number column is `column`.
/// Gives each one's name and place, in order of place.
pub fn spoil(capture: &mut Capture, table: &str, column: &str) -> Vec<(&'static str, Place)> {
    let mut made: Vec<(&'static str, Event)> = Vec::new();
    for kind in &KINDS {
        let updates: Vec<usize> =
            capture.rows_of(table).into_iter().filter(|&i| capture.events[i].text().contains("\"op\":\"u\"")).collect();
        let step = updates.len() / (KINDS.len() + 1);
        let at = updates[step * (made.len() + 1)];
        let mut event = capture.events[at].clone();
        (kind.make)(&mut event, column);
        assert_ne!(event, capture.events[at], "`{}` changed nothing", kind.name);
        capture.insert(at + 1, event.clone());
        made.push((kind.name, event));
    }
    // later insertions moved earlier ones on: find each where it stands now
    let same = |a: &Event, b: &Event| a.key == b.key && a.value == b.value && a.partition == b.partition;
    let find = |bad: &Event| capture.events.iter().find(|e| e.topic == bad.topic && same(e, bad)).map(Event::place);
    let mut places: Vec<_> =
        made.iter().map(|(name, event)| (*name, find(event).expect("a bad record is in the capture"))).collect();
    places.sort_by(|a, b| a.1.cmp(&b.1));
    places
}

fn replace(event: &mut Event, old: &str, new: &str) {
    event.value = Some(event.text().replacen(old, new, 1).into_bytes());
}

fn cut(event: &mut Event) {
    if let Some(value) = &mut event.value {
        value.truncate(value.len() / 2);
    }
}

fn deep(event: &mut Event) {
    event.value = Some(["[".repeat(DEPTH), "]".repeat(DEPTH)].concat().into_bytes());
}

fn bad_utf8(event: &mut Event) {
    let at = after_image(event) + 2;
    if let Some(byte) = event.value.as_mut().and_then(|v| v.get_mut(at)) {
        *byte = 0xff;
    }
}

/// Start of the row image after the change, past its brace.
fn after_image(event: &Event) -> usize {
    event.text().find("\"after\":{").map_or(0, |at| at + "\"after\":{".len())
}

/// `column` in the image after the change: where its name starts and where its value ends.
fn place_of(event: &Event, column: &str) -> (usize, usize) {
    let image = after_image(event);
    let name = format!("\"{column}\":");
    let start = event.text()[image..].find(&name).map_or(image, |at| image + at);
    let value = start + name.len();
    (start, event.text()[value..].find([',', '}']).map_or(value, |at| value + at))
}

fn replace_column(event: &mut Event, column: &str, value: &str) {
    let (start, end) = place_of(event, column);
    let text = event.text();
    event.value = Some(format!("{}\"{column}\":{value}{}", &text[..start], &text[end..]).into_bytes());
}

fn column_twice(event: &mut Event, column: &str) {
    let (start, end) = place_of(event, column);
    let text = event.text();
    event.value = Some(format!("{},{}", &text[..end], &text[start..]).into_bytes());
}

fn no_source(event: &mut Event) {
    let mut value: Value = serde_json::from_slice(event.value.as_deref().unwrap_or_default()).unwrap_or_default();
    let envelope = if value["payload"].is_object() { &mut value["payload"] } else { &mut value };
    if let Some(members) = envelope.as_object_mut() {
        members.remove("source");
    }
    event.value = Some(value.to_string().into_bytes());
}

/// The last number in the key is another one.
fn other_key(event: &mut Event) {
    let key = String::from_utf8_lossy(event.key.as_deref().unwrap_or_default()).into_owned();
    let at = key.rfind(|c: char| c.is_ascii_digit()).map_or(key.len(), |at| at + 1);
    event.key = Some(format!("{}7{}", &key[..at], &key[at..]).into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places;

    #[test]
    fn every_kind_is_made_once_and_nothing_else_changes() {
        let sound = Capture::read(&places::example("events.jsonl.gz")).unwrap();
        let mut spoiled = sound.clone();
        let places = spoil(&mut spoiled, "orders", "customer_id");
        assert_eq!(places.len(), KINDS.len());
        let is_bad = |e: &Event| places.iter().any(|(_, place)| *place == e.place());
        let mut rest: Vec<Event> = spoiled.events.iter().filter(|e| !is_bad(e)).cloned().collect();
        assert_eq!(rest.len(), sound.events.len());
        for (left, right) in rest.iter_mut().zip(&sound.events) {
            left.offset = right.offset;
            assert_eq!(left, right);
        }
    }
}
