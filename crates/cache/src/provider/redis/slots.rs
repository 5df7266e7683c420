//! Slots of a cluster, as its specification has them: CRC16 (XMODEM) of the key, or of what stands between its first `{`
//! and the next `}`.

/// How many there are.
pub(super) const SLOTS: u16 = 16_384;

pub(super) fn slot_of(key: &str) -> u16 {
    crc16(hashed(key).as_bytes()) % SLOTS
}

fn hashed(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// Bit by bit: keys are short, and only clusters need it.
fn crc16(bytes: &[u8]) -> u16 {
    const POLYNOMIAL: u16 = 0x1021;
    let mut crc = 0_u16;
    for byte in bytes {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of("{user1000}.following"), slot_of("user1000"));
        assert_eq!(hashed("foo{}{bar}"), "foo{}{bar}");
        assert_eq!(hashed("foo{{bar}}zap"), "{bar");
        assert_eq!(hashed("foo{bar}{zap}"), "bar");
    }
}
