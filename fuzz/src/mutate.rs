//! Changes to an input, and the random numbers that choose them.

/// Numbers at which arithmetic goes wrong.
pub const TROUBLE: [u64; 12] = [
    0,
    1,
    0xFFF,
    0x1000,
    0x10_0000,
    0xC000_0000,
    1 << 32,
    1 << 47,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 0xFFF,
    u64::MAX,
];

/// SplitMix64: small, and good enough to break things.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number: any of 64 bits.
    #[expect(
        clippy::should_implement_trait,
        reason = "an endless iterator would need an `expect` at each call"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// A change to one place of an input. Places behind its end change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Turns a bit over.
    FlipBit {
        /// In this byte.
        byte: usize,
        /// This one, from 0.
        bit: usize,
    },
    /// Replaces a byte.
    SetByte {
        /// This one.
        byte: usize,
        /// By this.
        value: u8,
    },
    /// Replaces eight bytes by a number, its lowest byte first.
    SetWord {
        /// The first of them.
        byte: usize,
        /// The number.
        value: u64,
    },
    /// Replaces four bytes by a number, its lowest byte first.
    SetHalf {
        /// The first of them.
        byte: usize,
        /// The number.
        value: u32,
    },
    /// Adds to a byte.
    Add {
        /// This one.
        byte: usize,
        /// So much, modulo 256.
        value: u8,
    },
    /// Takes bytes out.
    Remove {
        /// The first.
        byte: usize,
        /// How many.
        size: usize,
    },
    /// Inserts a copy of some bytes.
    Repeat {
        /// The first of them.
        from: usize,
        /// How many.
        size: usize,
        /// Before this one.
        to: usize,
    },
}

impl Change {
    /// Makes the change.
    pub fn make(self, bytes: &mut Vec<u8>) {
        let mut replace = |at: usize, new: &[u8]| {
            if let Some(old) = bytes.get_mut(at..at.saturating_add(new.len())) {
                old.copy_from_slice(new);
            }
        };
        match self {
            Self::FlipBit { byte, bit } => {
                bytes.iter_mut().skip(byte).take(1).for_each(|b| *b ^= 1 << (bit % 8))
            }
            Self::SetByte { byte, value } => replace(byte, &[value]),
            Self::SetWord { byte, value } => replace(byte, &value.to_le_bytes()),
            Self::SetHalf { byte, value } => replace(byte, &value.to_le_bytes()),
            Self::Add { byte, value } => {
                bytes.iter_mut().skip(byte).take(1).for_each(|b| *b = b.wrapping_add(value));
            }
            Self::Remove { byte, size } => {
                let end = byte.saturating_add(size).min(bytes.len());
                bytes.drain(byte.min(end)..end);
            }
            Self::Repeat { from, size, to } => {
                let part: Vec<u8> = bytes.iter().skip(from).take(size).copied().collect();
                let to = to.min(bytes.len());
                bytes.splice(to..to, part);
            }
        }
    }

    /// Any change of an input of `size` bytes.
    pub fn any(random: &mut Random, size: usize) -> Self {
        let byte = random.below(size.max(1));
        let trouble = TROUBLE[random.below(TROUBLE.len())].wrapping_add(random.next() % 3).wrapping_sub(1);
        let few = 1 + random.below(16);
        match random.below(12) {
            0..3 => Self::FlipBit { byte, bit: random.below(8) },
            3..5 => Self::SetByte { byte, value: random.next() as u8 },
            5 => Self::Add { byte, value: random.below(17) as u8 },
            6 => Self::Add { byte, value: 0u8.wrapping_sub(random.below(17) as u8) },
            7 => Self::SetWord { byte: byte & !7, value: trouble },
            8 => Self::SetHalf { byte: byte & !3, value: trouble as u32 },
            9 => Self::Remove { byte, size: few },
            10 => Self::Repeat { from: byte, size: few, to: random.below(size + 1) },
            _ => Self::Repeat { from: byte, size: few * 8, to: size },
        }
    }
}

/// `input` with a few changes, perhaps ending as `other` does; no larger than `max_size`.
pub fn changed(random: &mut Random, input: &[u8], other: &[u8], max_size: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if random.below(8) == 0 {
        bytes.truncate(random.below(bytes.len() + 1));
        bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
    }
    // Most often one change, seldom many.
    for _ in 0..1 << random.below(6).saturating_sub(2) {
        Change::any(random, bytes.len()).make(&mut bytes);
    }
    bytes.truncate(max_size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_any_place_are_made_or_change_nothing() {
        let mut random = Random(1);
        for size in 0..40 {
            for _ in 0..200 {
                let mut bytes = vec![7; size];
                Change::any(&mut random, size + 20).make(&mut bytes);
                assert!(bytes.len() <= 2 * size + 1, "a part is repeated once");
            }
            assert!(changed(&mut random, &vec![0; size], &[1, 2, 3], 10).len() <= 10);
        }
    }

    #[test]
    fn a_change_does_what_it_says() {
        let after = |change: Change| {
            let mut bytes = vec![0, 1, 2, 3];
            change.make(&mut bytes);
            bytes
        };
        assert_eq!(after(Change::FlipBit { byte: 1, bit: 7 }), [0, 0x81, 2, 3]);
        assert_eq!(after(Change::SetHalf { byte: 0, value: 0x0403_0201 }), [1, 2, 3, 4]);
        assert_eq!(after(Change::SetWord { byte: 0, value: 1 }), [0, 1, 2, 3], "there is no room");
        assert_eq!(after(Change::Remove { byte: 1, size: 2 }), [0, 3]);
        assert_eq!(after(Change::Repeat { from: 2, size: 9, to: 0 }), [2, 3, 0, 1, 2, 3]);
    }
}
