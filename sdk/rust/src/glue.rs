//! The canonical ABI of the contract: how values lie in memory when they cross. Beside it only the heap and
//! the cutting of texts have `unsafe`.
//!
//! Arguments were written into this memory by the host through `cabi_realloc`; results are left where they are, for
//! the host drops the whole instance after the call, and freeing would be time lost.
//!
//! Every record of the contract consists of words of 32 bits (a bool or a discriminant is padded to one), so results
//! are built as vectors of words, and only arguments need raw reads.
#![allow(unsafe_code, reason = "the canonical ABI hands over pointers")]

use std::alloc::Layout;

use crate::contract::{Batch, Column, Columns, Description, Field, OutputField, Relation};
use crate::log::Level;
use crate::params::Params;
use crate::row::Transform;

#[link(wasm_import_module = "lodestream:transform/host@0.1.0")]
unsafe extern "C" {
    #[link_name = "log"]
    fn host_log(level: u32, message: *const u8, length: usize);
}

pub(crate) fn log(level: Level, message: &str) {
    // SAFETY: the host reads the text during the call and keeps nothing of it.
    unsafe { host_log(level as u32, message.as_ptr(), message.len()) }
}

/// Memory for the host to write arguments into.
///
/// # Safety
/// The canonical ABI: `old` of `old_size` bytes came from here, or is null with a size of 0.
pub unsafe fn realloc(old: *mut u8, old_size: usize, align: usize, size: usize) -> *mut u8 {
    if size == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    let Ok(layout) = Layout::from_size_align(size, align) else { std::process::abort() };
    // SAFETY: the size is not 0, and what the caller promises.
    let new = unsafe {
        match old_size {
            0 => std::alloc::alloc(layout),
            _ => std::alloc::realloc(old, Layout::from_size_align_unchecked(old_size, align), size),
        }
    };
    if new.is_null() {
        std::alloc::handle_alloc_error(layout);
    }
    new
}

/// The export `describe`.
///
/// # Safety
/// The arguments are those of the canonical ABI.
pub unsafe fn describe<T: Transform>(
    params: *mut u8,
    params_length: usize,
    relations: *mut u32,
    count: usize,
) -> *const u32 {
    set_panic_hook();
    // SAFETY: the host wrote a text and `count` relations of 6 words.
    let described = unsafe {
        let params = text(params, params_length);
        let relations: Vec<Relation> = (0..count).map(|n| relation(relations.add(n * 6))).collect();
        Params::parse(&params).and_then(|params| T::describe(&params, &relations))
    };
    match described {
        Ok(description) => give(&description_words(description)),
        Err(message) => give(&error_words(message)),
    }
}

/// The export `transform`.
///
/// # Safety
/// The arguments are those of the canonical ABI.
pub unsafe fn transform<T: Transform>(
    params: *mut u8,
    params_length: usize,
    reads: *mut u32,
    reads_count: usize,
    rows: u32,
    columns: *mut u32,
    columns_count: usize,
) -> *const u32 {
    set_panic_hook();
    // SAFETY: the host wrote a text, fields of 5 words and columns of 5 words.
    let transformed = unsafe {
        let params = text(params, params_length);
        let batch = Batch {
            fields: (0..reads_count).map(|n| field(reads.add(n * 5))).collect(),
            rows,
            columns: (0..columns_count).map(|n| column(columns.add(n * 5))).collect(),
        };
        Params::parse(&params).and_then(|params| T::transform(&params, &batch))
    };
    match transformed {
        Ok(columns) => give(&columns_words(columns)),
        Err(message) => give(&error_words(message)),
    }
}

/// Lets the host log say what a panic said, before the trap.
fn set_panic_hook() {
    std::panic::set_hook(Box::new(|info| log(Level::Error, &info.to_string())));
}

unsafe fn word(at: *const u32, n: usize) -> usize {
    // SAFETY: the caller's record has more than `n` words.
    unsafe { at.add(n).read() as usize }
}

unsafe fn bytes(pointer: *mut u8, length: usize) -> Vec<u8> {
    // SAFETY: allocated by `realloc` with this very size and an alignment of 1, and owned by nobody else; of length 0
    // the pointer is not null and nothing is freed.
    unsafe { Vec::from_raw_parts(pointer, length, length) }
}

unsafe fn text(pointer: *mut u8, length: usize) -> String {
    // SAFETY: as for bytes; the component model carries only well-formed text.
    unsafe { String::from_utf8_unchecked(bytes(pointer, length)) }
}

unsafe fn text_at(at: *const u32, n: usize) -> String {
    // SAFETY: words `n` and `n + 1` are a text's place and length.
    unsafe { text(word(at, n) as *mut u8, word(at, n + 1)) }
}

unsafe fn field(at: *const u32) -> Field {
    // SAFETY: a field is two texts and a bool.
    unsafe { Field { name: text_at(at, 0), format: text_at(at, 2), nullable: word(at, 4) & 0xff != 0 } }
}

unsafe fn relation(at: *const u32) -> Relation {
    // SAFETY: a relation is a text, a list of fields and a list of texts.
    unsafe {
        let (fields, fields_count) = (word(at, 2) as *const u32, word(at, 3));
        let (key, key_count) = (word(at, 4) as *const u32, word(at, 5));
        Relation {
            name: text_at(at, 0),
            fields: (0..fields_count).map(|n| field(fields.add(n * 5))).collect(),
            key: (0..key_count).map(|n| text_at(key, n * 2)).collect(),
        }
    }
}

unsafe fn column(at: *const u32) -> Column {
    // SAFETY: a column is two numbers, a list of byte lists, and a number.
    unsafe {
        let (buffers, count) = (word(at, 2) as *const u32, word(at, 3));
        Column {
            length: word(at, 0) as u32,
            null_count: word(at, 1) as u32,
            buffers: (0..count).map(|n| bytes(word(buffers, n * 2) as *mut u8, word(buffers, n * 2 + 1))).collect(),
            children: word(at, 4) as u32,
        }
    }
}

/// Leaves a result in memory and says where.
fn give(words: &[u32]) -> *const u32 {
    words.to_vec().leak().as_ptr()
}

fn place<T>(items: Vec<T>) -> [u32; 2] {
    let items = items.leak();
    [items.as_ptr() as usize as u32, items.len() as u32]
}

/// A list of records of `width` words.
fn place_words(words: Vec<u32>, width: usize) -> [u32; 2] {
    let [pointer, length] = place(words);
    [pointer, length / width as u32]
}

fn place_text(text: String) -> [u32; 2] {
    place(text.into_bytes())
}

fn error_words(message: String) -> Vec<u32> {
    let mut words = vec![1];
    words.extend(place_text(message));
    // The result area is as large as its larger case.
    words.resize(8, 0);
    words
}

fn description_words(description: Description) -> Vec<u32> {
    let reads: Vec<u32> = description.reads.iter().flat_map(|r| [r.relation, r.field]).collect();
    let mut writes = Vec::with_capacity(description.writes.len() * 7);
    for write in description.writes {
        match write {
            OutputField::Computed { field, column } => {
                writes.push(0);
                writes.extend(place_text(field.name));
                writes.extend(place_text(field.format));
                writes.extend([u32::from(field.nullable), column]);
            }
            OutputField::Passed { name, from } => {
                writes.push(1);
                writes.extend(place_text(name));
                writes.extend([from.relation, from.field, 0, 0]);
            }
        }
    }
    let mut words = vec![0];
    words.extend(place_words(reads, 2));
    words.extend(place_words(writes, 7));
    words.extend(place_words(description.key, 1));
    words.resize(8, 0);
    words
}

fn columns_words(output: Columns) -> Vec<u32> {
    let mut columns = Vec::with_capacity(output.columns.len() * 5);
    for column in output.columns {
        let buffers: Vec<u32> = column.buffers.into_iter().flat_map(place).collect();
        columns.extend([column.length, column.null_count]);
        columns.extend(place_words(buffers, 2));
        columns.push(column.children);
    }
    let rejected: Vec<u32> = output
        .rejected
        .into_iter()
        .flat_map(|(row, reason)| {
            let [pointer, length] = place_text(reason);
            [row, pointer, length]
        })
        .collect();
    let mut words = vec![0];
    words.extend(place_words(columns, 5));
    match output.source_rows {
        Some(rows) => {
            words.push(1);
            words.extend(place_words(rows, 1));
        }
        None => words.extend([0; 3]),
    }
    words.extend(place_words(rejected, 3));
    words
}
