//! Where choices come from: a seed, for tests, or the bytes of a fuzzer.

/// A stream of numbers that decides what happens next.
#[derive(Debug, Clone)]
pub enum Source<'a> {
    /// Without end, from a seed.
    Seeded(u64),
    /// As long as there are bytes; then zeroes.
    Bytes(&'a [u8]),
}

impl Source<'_> {
    /// Whether nothing is left to choose.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    pub fn byte(&mut self) -> u8 {
        match self {
            Self::Seeded(_) => self.word().to_le_bytes()[7],
            Self::Bytes(bytes) => bytes.split_off_first().copied().unwrap_or(0),
        }
    }

    pub fn word(&mut self) -> u64 {
        match self {
            Self::Seeded(state) => {
                // SplitMix64.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            }
            Self::Bytes(_) => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// A number below `end`, of two bytes: enough to choose a record.
    pub fn below(&mut self, end: usize) -> usize {
        let number = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        number % end.max(1)
    }

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::from(self.byte()) % list.len()]
    }

    /// A number of interest: small, at the edge of some range, or any.
    pub fn number(&mut self) -> u64 {
        match self.byte() % 8 {
            0..4 => u64::from(self.byte() % 16),
            4 => u64::from(self.byte()) << 8,
            5 => u64::MAX >> (self.byte() % 64),
            6 => 1 << (self.byte() % 64),
            _ => self.word(),
        }
    }
}
