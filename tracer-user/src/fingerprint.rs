//! A short name for bytes.

/// FNV-1a: a fingerprint that no version of a library changes.
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        // The length sets parts apart.
        for byte in part.iter().copied().chain(part.len().to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
