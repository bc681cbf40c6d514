//! Guests written by hand: core modules in WebAssembly text that claim whatever a test wants.

use super::super::contract::{GUEST, HOST, VERSION};

/// Where a hand-written guest keeps the words of its description and of its output, and where data may begin.
const DESCRIPTION: u32 = 1024;
const OUTPUT: u32 = 4096;
pub(crate) const DATA: u32 = 16384;

/// A guest whose parts can be replaced one by one. As it stands it reads column 0 and gives it back.
pub(crate) struct Guest {
    pub(crate) version: &'static str,
    pub(crate) imports: String,
    pub(crate) memory_pages: u32,
    /// reads, as pairs of relation and field
    pub(crate) reads: Vec<[u32; 2]>,
    /// computed columns: name, format, nullable, place
    pub(crate) writes: Vec<(&'static str, &'static str, bool, u32)>,
    /// passed columns: name, relation and field
    pub(crate) passes: Vec<(&'static str, [u32; 2])>,
    pub(crate) key: Vec<u32>,
    pub(crate) describe: String,
    pub(crate) transform: String,
    pub(crate) realloc: String,
    /// further definitions, and data at [`DATA`] and after
    pub(crate) more: String,
}

impl Default for Guest {
    fn default() -> Self {
        Guest {
            version: VERSION,
            imports: format!("(import \"{HOST}\" \"log\" (func $log (param i32 i32 i32)))"),
            memory_pages: 4,
            reads: vec![[0, 0]],
            writes: vec![("out", "l", true, 0)],
            passes: vec![],
            key: vec![],
            describe: format!("(i32.const {DESCRIPTION})"),
            transform: echo(),
            realloc: "
                (global.set $top (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
                (local.set $at (global.get $top))
                (global.set $top (i32.add (global.get $top) (local.get $size)))
                (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
                    (then (if (i32.eq (i32.const -1) (memory.grow
                        (i32.add (i32.const 1) (i32.div_u (local.get $size) (i32.const 65536)))))
                        (then unreachable))))
                (local.get $at)"
                .into(),
            more: String::new(),
        }
    }
}

impl Guest {
    pub(crate) fn wasm(&self) -> Vec<u8> {
        wat::parse_str(self.wat()).unwrap()
    }

    fn wat(&self) -> String {
        let Guest { version, imports, memory_pages, describe, transform, realloc, more, .. } = self;
        let description = data(DESCRIPTION, &self.description());
        format!(
            "(module
                {imports}
                (memory (export \"memory\") {memory_pages})
                (global $top (mut i32) (i32.const 131072))
                (func $realloc (export \"cabi_realloc\") (param i32 i32 i32) (param $size i32) (result i32)
                    (local $at i32) {realloc})
                (func (export \"{GUEST}@{version}#describe\") (param i32 i32 i32 i32) (result i32) {describe})
                (func (export \"{GUEST}@{version}#transform\")
                    (param i32 i32 i32 i32) (param $rows i32) (param $columns i32) (param i32) (result i32)
                    (local $n i32) (local $values i32)
                    {transform})
                {description}
                {more})"
        )
    }

    /// The words of `ok(description)`, with lists and texts after them.
    fn description(&self) -> Vec<u8> {
        const WORDS: u32 = 8;
        let reads = DESCRIPTION + WORDS * 4;
        let writes = reads + self.reads.len() as u32 * 8;
        let writes_count = (self.writes.len() + self.passes.len()) as u32;
        let key = writes + writes_count * 28;
        let mut text_at = key + self.key.len() as u32 * 4;
        let mut words = vec![0, reads, self.reads.len() as u32, writes, writes_count, key, self.key.len() as u32, 0];
        words.extend(self.reads.iter().flatten());
        let mut texts = String::new();
        for (name, format, nullable, place) in &self.writes {
            words.push(0);
            for text in [name, format] {
                words.extend([text_at, text.len() as u32]);
                text_at += text.len() as u32;
                texts.push_str(text);
            }
            words.extend([u32::from(*nullable), *place]);
        }
        for (name, from) in &self.passes {
            words.extend([1, text_at, name.len() as u32, from[0], from[1], 0, 0]);
            text_at += name.len() as u32;
            texts.push_str(name);
        }
        words.extend(&self.key);
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        bytes.extend(texts.bytes());
        bytes
    }
}

/// A column as a guest claims it: places and lengths in its memory.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) length: u32,
    pub(crate) null_count: u32,
    pub(crate) buffers: Vec<[u32; 2]>,
    pub(crate) children: u32,
    pub(crate) source_rows: Option<[u32; 2]>,
    pub(crate) rejected: [u32; 2],
    /// bytes at [`DATA`]
    pub(crate) data: Vec<u8>,
}

impl Claim {
    /// Four int64 in order, all of them from row 0 (the guest's memory begins with zeros).
    pub(crate) fn sound() -> Claim {
        Claim {
            length: 4,
            null_count: 0,
            buffers: vec![[1, 0], [DATA, 32]],
            children: 0,
            source_rows: Some([0, 4]),
            rejected: [4, 0],
            data: (1..=4_i64).flat_map(i64::to_le_bytes).collect(),
        }
    }

    /// A guest that gives this claim for every batch, whatever is in it.
    pub(crate) fn guest(&self) -> Guest {
        let buffers = OUTPUT + 64;
        let column = OUTPUT + 128;
        let [disc, rows, rows_len] = self.source_rows.map_or([0, 0, 0], |[at, len]| [1, at, len]);
        let output = [0, column, 1, disc, rows, rows_len, self.rejected[0], self.rejected[1]];
        let described = [self.length, self.null_count, buffers, self.buffers.len() as u32, self.children];
        let bytes = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        Guest {
            transform: format!("(i32.const {OUTPUT})"),
            more: [
                data(OUTPUT, &bytes(&output)),
                data(buffers, &bytes(self.buffers.as_flattened())),
                data(column, &bytes(&described)),
                data(DATA, &self.data),
            ]
            .join("\n"),
            ..Guest::default()
        }
    }
}

/// The body of a transform that gives column 0 back as the one output column, one to one.
pub(crate) fn echo() -> String {
    let column = OUTPUT + 64;
    format!(
        "(i32.store (i32.const {OUTPUT}) (i32.const 0))
         (i32.store offset=4 (i32.const {OUTPUT}) (i32.const {column}))
         (i32.store offset=8 (i32.const {OUTPUT}) (i32.const 1))
         (i32.store offset=12 (i32.const {OUTPUT}) (i32.const 0))
         (i32.store offset=24 (i32.const {OUTPUT}) (i32.const 4))
         (i32.store offset=28 (i32.const {OUTPUT}) (i32.const 0))
         (memory.copy (i32.const {column}) (local.get $columns) (i32.const 20))
         (i32.const {OUTPUT})"
    )
}

/// The body that does `before` and then gives column 0 back.
pub(crate) fn echo_after(before: &str) -> String {
    format!("{before}\n{}", echo())
}

/// A guest that gives column 0 back, and traps where one of its values is `value`.
pub(crate) fn trapping_on(value: i64) -> Guest {
    let search = format!(
        "(local.set $values (i32.load offset=8 (i32.load offset=8 (local.get $columns))))
         (loop $next (if (i32.lt_u (local.get $n) (local.get $rows)) (then
             (if (i64.eq (i64.const {value})
                 (i64.load (i32.add (local.get $values) (i32.shl (local.get $n) (i32.const 3)))))
                 (then unreachable))
             (local.set $n (i32.add (local.get $n) (i32.const 1)))
             (br $next))))"
    );
    Guest { transform: echo_after(&search), ..Guest::default() }
}

fn data(at: u32, bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|b| format!("\\{b:02x}")).collect();
    format!("(data (i32.const {at}) \"{escaped}\")")
}
