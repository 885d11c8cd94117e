//! Payloads that tell their own number, and of which no byte can change unnoticed.

#![allow(dead_code, reason = "each test uses a part of it")]

/// The payload with a number: from 8 to `most` bytes, all of which depend on the number.
pub fn payload(number: u64, most: usize) -> Vec<u8> {
    let len = 8 + (mixed(number) % (most as u64 - 7)) as usize;
    let mut bytes = number.to_le_bytes().to_vec();
    let mut word = number;
    while bytes.len() < len {
        word = mixed(word);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The number of a payload, which must be whole.
pub fn number_of(bytes: &[u8], most: usize) -> u64 {
    let (first, _) = bytes.split_first_chunk().expect("a payload begins with its number");
    let number = u64::from_le_bytes(*first);
    assert_eq!(
        bytes,
        payload(number, most),
        "the payload of {number} did not arrive as it was sent"
    );
    number
}

/// A number that looks random (SplitMix64).
pub fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
