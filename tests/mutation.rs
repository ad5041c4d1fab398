//! Inputs as a fuzzer would make them: seeds with a few edits, and noise.

use proptest::{prelude::*, sample::Index};

/// One thing that a fuzzer would do to an input.
#[derive(Debug, Clone)]
enum Edit {
    Flip(Index, u8),
    Write(Index, u8),
    Insert(Index, u8),
    Remove(Index, Index),
    Repeat(Index, Index),
}

impl Edit {
    fn apply(&self, input: &mut Vec<u8>) {
        let end = input.len();
        let range = |from: &Index, length: &Index| {
            let from = from.index(end + 1);
            from..(from + length.index(40)).min(end)
        };
        match self {
            Self::Flip(at, bit) if end > 0 => input[at.index(end)] ^= 1 << (bit % 8),
            Self::Write(at, byte) if end > 0 => input[at.index(end)] = *byte,
            Self::Flip(..) | Self::Write(..) => {}
            Self::Insert(at, byte) => input.insert(at.index(end + 1), *byte),
            Self::Remove(from, length) => drop(input.drain(range(from, length))),
            Self::Repeat(from, length) => {
                let piece = input[range(from, length)].to_vec();
                let at = from.index(end + 1);
                input.splice(at..at, piece);
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\n +=/.x0123456789A".to_vec())];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Edit::Write(at, byte)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        any::<(Index, Index)>().prop_map(|(from, length)| Edit::Remove(from, length)),
        any::<(Index, Index)>().prop_map(|(from, length)| Edit::Repeat(from, length)),
    ]
}

/// Seeds with a few edits, and now and then noise.
pub fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edited = (prop::sample::select(seeds), prop::collection::vec(edit(), 0..4)).prop_map(|(mut input, edits)| {
        for edit in edits {
            edit.apply(&mut input);
        }
        input
    });
    prop_oneof![4 => edited, 1 => prop::collection::vec(any::<u8>(), 0..400)]
}
