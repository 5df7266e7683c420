//! Payloads made smaller: lz4 for small ones, which costs about a microsecond, zstd for large ones, which saves more.
//!
//! A compressed payload begins with its true length as a varint. That length is believed only up to
//! [`DECOMPRESSED_BYTES_MAX`], and nothing beyond it is written, so that an entry which claims or holds more costs no
//! memory.

use std::borrow::Cow;

use super::DecodeError;
use super::format_2::{Rest, put_varint};

/// Payloads from this size on are compressed, unless the policy says otherwise: 1 KiB.
pub const COMPRESS_FROM_DEFAULT: usize = 1 << 10;

/// From here on zstd is used in place of lz4: 16 KiB.
pub const ZSTD_FROM: usize = 16 << 10;

/// A compressed entry has at most this length once decompressed: 24 MiB. Larger values are stored as they are, and an
/// entry that claims more is a counted miss.
pub const DECOMPRESSED_BYTES_MAX: usize = 24 << 20;

/// A payload stays as it is unless at least this part of it is saved.
const SAVED_PART_MIN: usize = 8;

const ZSTD_LEVEL: i32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Lz4,
    Zstd,
}

/// The payload as it is to be stored. A compressor that fails leaves it as it is.
pub(super) fn compress(payload: &[u8], from: Option<usize>) -> (Compression, Cow<'_, [u8]>) {
    let is_worth_trying = from.is_some_and(|from| payload.len() >= from);
    if !is_worth_trying || payload.len() > DECOMPRESSED_BYTES_MAX {
        return (Compression::None, Cow::Borrowed(payload));
    }
    let compression = if payload.len() < ZSTD_FROM { Compression::Lz4 } else { Compression::Zstd };
    let packed = match compression {
        Compression::Zstd => zstd::bulk::compress(payload, ZSTD_LEVEL).ok(),
        Compression::Lz4 | Compression::None => Some(lz4_flex::block::compress(payload)),
    };
    let mut stored = Vec::new();
    put_varint(&mut stored, u64::try_from(payload.len()).unwrap_or(u64::MAX));
    let len_max = payload.len() - payload.len() / SAVED_PART_MIN;
    match packed {
        Some(packed) if stored.len() + packed.len() <= len_max && !payload.is_empty() => {
            stored.extend_from_slice(&packed);
            (compression, Cow::Owned(stored))
        }
        _ => (Compression::None, Cow::Borrowed(payload)),
    }
}

/// The payload as it was given; without a copy when it is not compressed.
pub(super) fn decompress(compression: Compression, stored: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    if compression == Compression::None {
        return Ok(Cow::Borrowed(stored));
    }
    let mut rest = Rest(stored);
    let claimed = rest.varint().ok_or(DecodeError::Header)?;
    let len = usize::try_from(claimed).ok().filter(|len| *len <= DECOMPRESSED_BYTES_MAX);
    let len = len.ok_or(DecodeError::TooLarge { claimed })?;
    let mut payload = vec![0; len];
    let written = match compression {
        Compression::Zstd => zstd::bulk::decompress_to_buffer(rest.0, &mut payload).ok(),
        Compression::Lz4 | Compression::None => lz4_flex::block::decompress_into(rest.0, &mut payload).ok(),
    };
    if written == Some(len) { Ok(Cow::Owned(payload)) } else { Err(DecodeError::Compression) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        b"the same words again and again, ".iter().copied().cycle().take(len).collect()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()[7]
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    fn stored(payload: &[u8], from: Option<usize>) -> (Compression, usize) {
        let (compression, stored) = compress(payload, from);
        assert_eq!(decompress(compression, &stored).unwrap(), payload);
        (compression, stored.len())
    }

    #[test]
    fn the_size_decides_how() {
        let from = Some(COMPRESS_FROM_DEFAULT);
        assert_eq!(stored(&text(COMPRESS_FROM_DEFAULT - 1), from).0, Compression::None);
        assert_eq!(stored(&text(COMPRESS_FROM_DEFAULT), from).0, Compression::Lz4);
        assert_eq!(stored(&text(ZSTD_FROM - 1), from).0, Compression::Lz4);
        assert_eq!(stored(&text(ZSTD_FROM), from).0, Compression::Zstd);
        assert_eq!(stored(&text(ZSTD_FROM), None).0, Compression::None);
        assert_eq!(stored(&[], Some(0)).0, Compression::None);
    }

    #[test]
    fn what_saves_less_than_an_eighth_stays_as_it_is() {
        for len in [2_000, 20_000] {
            let mut payload = noise(len);
            assert_eq!(stored(&payload, Some(0)), (Compression::None, len));
            payload.truncate(len * 9 / 10);
            payload.resize(len, 0);
            assert_eq!(stored(&payload, Some(0)), (Compression::None, len), "a tenth is too little");
            payload.truncate(len / 2);
            payload.resize(len, 0);
            let (compression, stored_len) = stored(&payload, Some(0));
            assert_ne!(compression, Compression::None);
            assert!(stored_len < len * 7 / 8);
        }
    }

    #[test]
    fn what_is_larger_than_would_be_read_is_not_compressed() {
        let large = vec![0; DECOMPRESSED_BYTES_MAX + 1];
        assert_eq!(compress(&large, Some(0)).0, Compression::None);
    }

    /// Both codecs; the claim is `claimed`, the content `len` zeros.
    fn bombs(claimed: usize, len: usize) -> [(Compression, Vec<u8>); 2] {
        let zeros = vec![0; len];
        let packed = [
            (Compression::Lz4, lz4_flex::block::compress(&zeros)),
            (Compression::Zstd, zstd::bulk::compress(&zeros, ZSTD_LEVEL).unwrap()),
        ];
        packed.map(|(compression, packed)| {
            let mut stored = Vec::new();
            put_varint(&mut stored, u64::try_from(claimed).unwrap());
            stored.extend_from_slice(&packed);
            (compression, stored)
        })
    }

    #[test]
    fn a_claim_beyond_the_limit_is_refused_unread() {
        for (compression, bomb) in bombs(DECOMPRESSED_BYTES_MAX + 1, 8) {
            let claimed = u64::try_from(DECOMPRESSED_BYTES_MAX + 1).unwrap();
            assert_eq!(decompress(compression, &bomb), Err(DecodeError::TooLarge { claimed }));
        }
    }

    #[test]
    fn content_that_is_not_as_long_as_claimed_is_refused() {
        for (claimed, len) in [(1_000, 5_000_000), (1_000, 1_001), (1_000, 999), (0, 1)] {
            for (compression, bomb) in bombs(claimed, len) {
                assert_eq!(
                    decompress(compression, &bomb),
                    Err(DecodeError::Compression),
                    "{compression:?}: {claimed} claimed, {len} there"
                );
            }
        }
    }
}
