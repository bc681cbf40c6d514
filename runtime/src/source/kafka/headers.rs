//! A record's headers as the text that Bronze keeps.
//!
//! JSON `[["name","value"],…]`; a value that is not UTF-8 stands as `["name",null,"base64"]`, a header whose name is not
//! UTF-8 as `[null]`: rdkafka panics over such a name instead of giving it, so that its bytes cannot be had. The record and
//! its other headers are kept.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use base64::Engine as _;
use rdkafka::message::Headers;

/// Writes the text to `out`, which is emptied first; nothing where there are no headers.
pub(super) fn write_headers<H: Headers>(headers: Option<&H>, out: &mut Vec<u8>) {
    out.clear();
    let Some(headers) = headers.filter(|h| h.count() > 0) else { return };
    // One guard for all of them is what costs nothing; one for each is needed only where a name is not text.
    if unless_it_panics(|| write_all(headers, out, write_header)).is_none() {
        out.clear();
        write_all(headers, out, |headers, index, out| {
            let start = out.len();
            if unless_it_panics(|| write_header(headers, index, out)).is_none() {
                out.truncate(start);
                out.extend(b"[null]");
            }
        });
    }
}

fn write_all<H: Headers>(headers: &H, out: &mut Vec<u8>, write: impl Fn(&H, usize, &mut Vec<u8>)) {
    out.push(b'[');
    for index in 0..headers.count() {
        if index > 0 {
            out.push(b',');
        }
        write(headers, index, out);
    }
    out.push(b']');
}

fn write_header<H: Headers>(headers: &H, index: usize, out: &mut Vec<u8>) {
    let Some(header) = headers.try_get(index) else {
        out.extend(b"[null]");
        return;
    };
    out.push(b'[');
    write_text(header.key, out);
    match header.value.map(|v| (std::str::from_utf8(v), v)) {
        None => out.extend(b",null"),
        Some((Ok(text), _)) => {
            out.push(b',');
            write_text(text, out);
        }
        Some((Err(_), raw)) => {
            out.extend(b",null,");
            write_text(&base64::engine::general_purpose::STANDARD.encode(raw), out);
        }
    }
    out.push(b']');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

thread_local! {
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// What `read` gives; `None` when it panics, which is not reported.
fn unless_it_panics<T>(read: impl FnOnce() -> T) -> Option<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_EXPECTED.try_with(Cell::get).unwrap_or(false) {
                report(panic);
            }
        }));
    });
    IS_EXPECTED.set(true);
    let given = catch_unwind(AssertUnwindSafe(read)).ok();
    IS_EXPECTED.set(false);
    given
}
