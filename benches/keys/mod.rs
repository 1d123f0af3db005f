//! Keys that nobody hashed.

use palisade::store::Key;

/// As unlike each other as keyed hashes are (splitmix64).
pub(crate) fn key(n: u64) -> Key {
    let mut state = n.wrapping_mul(2);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(mixed ^ (mixed >> 31))
    };
    Key::from_bytes((next() << 64 | next()).to_le_bytes())
}
