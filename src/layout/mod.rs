//! What every byte of the region is: records of 64-bit words, and the fingerprint of all of them.
//!
//! A record is declared once with `record!`, a packed word once with `packed!`; the compile-time size
//! checks, the fingerprint in the header and the tables of `shm_layout.md` all follow from that.

#[macro_use]
mod packed;
mod header;
mod records;
pub mod render;
mod words;

pub use header::{BYTE_ORDER, HEADER_LEN, Header, MAGIC, SectionRow, State, section};
pub use packed::BitField;
pub use records::{
    Bucket, CHUNK_SLOTS, Deployment, Endpoint, Event, Feature, HISTOGRAM_BUCKETS, Histogram, Job,
    LeaseChunk, Line, NAME_BYTES, Name, Notice, SAMPLES, SHEET_BYTES, Series, Sheet, StatsRow,
    TEXT_BYTES, WorkerRow,
};
pub use words::{
    BoardWord, BreakerWord, CauseWord, ClaimWord, CooldownWord, CounterWord, EventKind, EwmaWord,
    FailureKind, FailureWord, FlagMode, FlagWord, GcraWord, HandCommand, IdentityWord, KeyKind,
    LeaseLimits, LeaseWord, NameWord, OwnerTag, PairWord, SampleWord, SinceWord, SlidingWord,
    SlotState, TagWord, TermWord, TextWord, WindowWord, WorkerState,
};

/// Layout version: a different major is refused, a newer minor only appends sections.
pub const VERSION_MAJOR: u16 = 4;
/// See [`VERSION_MAJOR`].
pub const VERSION_MINOR: u16 = 0;

/// One field of a record, for the fingerprint and the specification.
#[derive(Debug, Clone)]
pub struct Field {
    /// Field name.
    pub name: &'static str,
    /// Bytes from the start of the record.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
    /// Word type, or `[type; n]`.
    pub kind: String,
    /// One-sentence description.
    pub doc: &'static str,
}

/// One shared record type.
#[derive(Debug, Clone)]
pub struct RecordInfo {
    /// Type name.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Bytes, a multiple of `align`.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// All fields in order; they cover the record without a gap.
    pub fields: Vec<Field>,
}

/// A type made by `record!`: only words, no padding, zero is valid.
///
/// The macro is the only implementer. It demands [`crate::sync::SharedField`] of every field, which is
/// what makes it sound to see zeroed shared memory as `&Self`.
pub trait Record: Sized + 'static {
    /// The record's description.
    fn info() -> RecordInfo;
}

/// Declares a shared record: `repr(C)`, explicit size and alignment, no implicit padding.
macro_rules! record {
    (
        $(#[doc = $doc:literal])*
        #[size($size:literal)] #[align($align:literal)]
        pub struct $name:ident {
            $( $(#[doc = $fdoc:literal])* $field:ident : $ty:ty ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[repr(C, align($align))]
        #[allow(missing_debug_implementations, reason = "a live shared record has no stable value")]
        pub struct $name {
            $( $(#[doc = $fdoc])* pub $field: $ty ),*
        }

        #[cfg(not(loom))]
        const _: () = {
            assert!(size_of::<$name>() == $size, concat!(stringify!($name), ": declared size is wrong"));
            assert!(
                0 $( + size_of::<$ty>() )* == $size,
                concat!(stringify!($name), ": implicit padding")
            );
        };

        impl $name {
            /// A record of zeroes: unused.
            pub fn zeroed() -> Self {
                Self { $( $field: $crate::sync::SharedField::zeroed() ),* }
            }
        }

        impl $crate::layout::Record for $name {
            fn info() -> $crate::layout::RecordInfo {
                $crate::layout::RecordInfo {
                    name: stringify!($name),
                    doc: concat!($($doc, "\n"),*),
                    size: $size,
                    align: $align,
                    fields: vec![$(
                        $crate::layout::Field {
                            name: stringify!($field),
                            offset: std::mem::offset_of!($name, $field),
                            size: size_of::<$ty>(),
                            kind: <$ty as $crate::sync::SharedField>::type_name(),
                            doc: concat!($($fdoc, " "),*),
                        }
                    ),*],
                }
            }
        }
    };
}
pub(crate) use record;

/// All records, in the order of the specification.
pub fn records() -> Vec<RecordInfo> {
    vec![
        Header::info(),
        SectionRow::info(),
        WorkerRow::info(),
        StatsRow::info(),
        Feature::info(),
        Bucket::info(),
        LeaseChunk::info(),
        Name::info(),
        Deployment::info(),
        Series::info(),
        Histogram::info(),
        Event::info(),
        Job::info(),
        Notice::info(),
        Sheet::info(),
        Endpoint::info(),
    ]
}

/// FNV-1a over every record's and word's name, size, offset and type: two builds that disagree about
/// one bit of the layout disagree about this number.
pub fn fingerprint() -> u64 {
    static KNOWN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(calculate)
}

fn calculate() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut feed = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for record in records() {
        feed(&format!("{}:{}:{}", record.name, record.size, record.align));
        for field in record.fields {
            feed(&format!("{}:{}:{}:{}", field.name, field.offset, field.size, field.kind));
        }
    }
    for word in words::all() {
        feed(word.name);
        for field in word.fields {
            feed(&format!("{}:{}:{}", field.name, field.shift, field.bits));
        }
    }
    hash
}

/// All packed words, in the order of the specification.
pub use words::all as packed_words;
