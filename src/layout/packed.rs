//! Packed words as types: several small integers that one compare-and-swap changes together.

/// One bit range of a packed word.
#[derive(Debug, Clone, Copy)]
pub struct BitField {
    /// Field name.
    pub name: &'static str,
    /// Lowest bit.
    pub shift: u32,
    /// Width.
    pub bits: u32,
    /// One-sentence description.
    pub doc: &'static str,
}

/// A packed word's description.
#[derive(Debug, Clone)]
pub struct PackedInfo {
    /// Type name.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its ranges, lowest first.
    pub fields: &'static [BitField],
}

/// Declares a packed 64-bit word. Every range is masked on the way in, so that a value too large for
/// its range can never spill into its neighbour.
macro_rules! packed {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $fdoc:literal])* $field:ident @ $shift:literal, $bits:literal; )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Packs the ranges; bits above a range's width are dropped.
            pub const fn new($($field: u64),*) -> Self {
                Self(0 $( | (($field & (u64::MAX >> (64 - $bits))) << $shift) )*)
            }
            $(
                $(#[doc = $fdoc])*
                pub const fn $field(self) -> u64 {
                    (self.0 >> $shift) & (u64::MAX >> (64 - $bits))
                }
            )*
            const INFO: $crate::layout::packed::PackedInfo = $crate::layout::packed::PackedInfo {
                name: stringify!($name),
                doc: concat!($($doc, "\n"),*),
                fields: &[$(
                    $crate::layout::packed::BitField {
                        name: stringify!($field),
                        shift: $shift,
                        bits: $bits,
                        doc: concat!($($fdoc, " "),*),
                    }
                ),*],
            };
        }

        const _: () = assert!(0 $( + $bits )* < 65, concat!(stringify!($name), ": more than 64 bits"));

        impl $crate::sync::Bits for $name {
            const NAME: &'static str = stringify!($name);
            fn from_bits(bits: u64) -> Self {
                Self(bits)
            }
            fn bits(self) -> u64 {
                self.0
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $( .field(stringify!($field), &self.$field()) )*
                    .finish()
            }
        }
    };
}
