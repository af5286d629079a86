//! The generated half of `shm_layout.md`: tables of records and words, from the declarations.

use super::packed::PackedInfo;
use super::{RecordInfo, VERSION_MAJOR, VERSION_MINOR, fingerprint, packed_words, records};
use std::fmt::Write;

/// Line that opens a generated part of the document.
pub const BEGIN: &str = "<!-- generated: layout -->";
/// Line that closes it.
pub const END: &str = "<!-- end generated -->";

/// Version and fingerprint, as the document's history writes them.
pub fn version_line() -> String {
    format!("| {VERSION_MAJOR}.{VERSION_MINOR} | `{:#018x}` |", fingerprint())
}

/// All tables.
pub fn tables() -> String {
    let mut text = String::new();
    for record in records() {
        record_table(&mut text, &record);
    }
    for word in packed_words() {
        word_table(&mut text, &word);
    }
    text
}

fn sentence(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn record_table(text: &mut String, record: &RecordInfo) {
    let _ = writeln!(
        text,
        "### Record `{}` ({} bytes, aligned to {})\n\n{}\n",
        record.name,
        record.size,
        record.align,
        sentence(record.doc)
    );
    text.push_str("| offset | size | field | type | meaning |\n|---:|---:|---|---|---|\n");
    for field in &record.fields {
        let _ = writeln!(
            text,
            "| {} | {} | `{}` | `{}` | {} |",
            field.offset,
            field.size,
            field.name,
            field.kind,
            sentence(field.doc)
        );
    }
    text.push('\n');
}

fn word_table(text: &mut String, word: &PackedInfo) {
    let _ = writeln!(text, "### Word `{}`\n\n{}\n", word.name, sentence(word.doc));
    text.push_str("| bits | field | meaning |\n|---|---|---|\n");
    for field in word.fields {
        let last = field.shift + field.bits - 1;
        let _ = writeln!(
            text,
            "| {}..{last} | `{}` | {} |",
            field.shift,
            field.name,
            sentence(field.doc)
        );
    }
    text.push('\n');
}
