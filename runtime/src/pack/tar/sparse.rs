//! Maps of sparse members: GNU tar manual, "Storing Sparse Files".

use super::pax::{Records, leading_number, whole_number};
use std::io::{self, Read};
use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

/// Ranges of data in a file: offset and length, ordered and apart.
pub type Map = Vec<(u64, u64)>;

/// More ranges than this are refused: nobody has them, and they cost memory.
const MAX_RANGES: usize = 1 << 22;

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Checks that the ranges of a map are in order, end within `size` and hold the `stored` bytes.
pub fn check(map: &Map, size: u64, stored: u64) -> io::Result<()> {
    let (mut end, mut sum) = (0, 0_u64);
    for &(offset, length) in map {
        let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
        end = next.ok_or_else(|| bad("the map of a sparse file is out of order or beyond its end"))?;
        sum += length;
    }
    if sum == stored { Ok(()) } else { Err(bad("the map of a sparse file does not fit its data")) }
}

/// The map of the old GNU format (type `S`): in the header, and in blocks behind it.
pub fn old(header: &GnuHeader, input: &mut impl Read) -> io::Result<Map> {
    let mut map = Map::new();
    let mut add = |ranges: &[GnuSparseHeader]| -> io::Result<()> {
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            map.push((range.offset()?, range.length()?));
        }
        if map.len() > MAX_RANGES { Err(bad("the map of a sparse file is too long")) } else { Ok(()) }
    };
    add(&header.sparse)?;
    let mut more = header.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        input.read_exact(block.as_mut_bytes())?;
        add(&block.sparse)?;
        more = block.is_extended();
    }
    Ok(map)
}

/// A map in pax records: version 0.0 (a pair of records for each range) or 0.1 (one list).
pub fn from_records(records: &Records) -> io::Result<Option<Map>> {
    let mut numbers = Vec::new();
    if let Some(list) = records.get("GNU.sparse.map") {
        for number in list.split(|&byte| byte == b',') {
            numbers.push(whole_number(number, "GNU.sparse.map")?);
        }
    } else if records.get("GNU.sparse.numblocks").is_some() {
        for (key, value) in records.iter() {
            // They alternate; two of the same kind in a row make a wrong number of ranges or a map out of order.
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                numbers.push(whole_number(value, "GNU.sparse.offset")?);
            }
        }
    } else {
        return Ok(None);
    }
    pairs(&numbers).map(Some)
}

/// The map of version 1.0: decimal numbers, each with a newline, before the data, padded to a block of 512
/// bytes. Returns how many bytes it took.
pub fn from_data(input: &mut impl Read) -> io::Result<(Map, u64)> {
    let mut text = Vec::new();
    let mut block = [0; 512];
    let mut numbers: Vec<u64> = Vec::new();
    let mut wanted = None;
    let mut taken = 0;
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        input.read_exact(&mut block)?;
        taken += block.len() as u64;
        text.extend_from_slice(&block);
        let mut rest = &text[..];
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            let Some(newline) = rest.iter().position(|&byte| byte == b'\n') else { break };
            let number = leading_number(rest).filter(|&(_, digits)| digits == newline);
            let (number, _) = number.ok_or_else(|| bad("the map of a sparse file is not made of numbers"))?;
            rest = &rest[newline + 1..];
            if wanted.is_some() {
                numbers.push(number);
            } else {
                let count = usize::try_from(number).ok().filter(|&count| count <= MAX_RANGES);
                wanted = Some(2 * count.ok_or_else(|| bad("the map of a sparse file is too long"))?);
            }
        }
        text = rest.to_vec();
        // A number has at most 20 digits.
        if text.len() > 1024 {
            return Err(bad("the map of a sparse file is not made of numbers"));
        }
    }
    Ok((pairs(&numbers)?, taken))
}

fn pairs(numbers: &[u64]) -> io::Result<Map> {
    if !numbers.len().is_multiple_of(2) {
        return Err(bad("the map of a sparse file has an offset without a length"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_be_in_order_and_fit() {
        check(&vec![(0, 5), (10, 5), (20, 0)], 20, 10).unwrap();
        for (map, size, stored) in [
            (vec![(5, 5), (0, 5)], 20, 10),
            (vec![(0, 21)], 20, 21),
            (vec![(u64::MAX, 2)], 20, 2),
            (vec![(0, 5)], 20, 6),
        ] {
            assert!(check(&map, size, stored).is_err(), "{map:?}");
        }
    }

    #[test]
    fn a_map_before_the_data_takes_whole_blocks() {
        let mut data = b"2\n0\n5\n1000\n7\n".to_vec();
        data.resize(512, 0);
        assert_eq!(from_data(&mut &data[..]).unwrap(), (vec![(0, 5), (1000, 7)], 512));
        assert!(from_data(&mut &b"x\n".repeat(256)[..]).is_err());
        assert!(from_data(&mut &[b'1'; 4096][..]).is_err());
        assert!(from_data(&mut &b"99999999999\n".repeat(128)[..]).is_err());
    }
}
