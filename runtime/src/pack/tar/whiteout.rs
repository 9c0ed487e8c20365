//! Names that take files of lower layers away: OCI image specification, "Image Layer Filesystem Changeset",
//! section "Whiteouts".

/// What the name of an entry means in a layer.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// An entry like any other.
    Entry,
    /// This name of lower layers is gone.
    Gone(&'a [u8]),
    /// Everything that lower layers have in the directory is gone.
    Opaque,
    /// The bookkeeping of aufs.
    Ignored,
}

const PREFIX: &[u8] = b".wh.";

/// What the parts of a name mean.
///
/// # Errors
/// What is wrong with a whiteout.
pub fn meaning<'a>(parts: &[&'a [u8]]) -> Result<Meaning<'a>, &'static str> {
    let Some((&name, parents)) = parts.split_last() else { return Ok(Meaning::Entry) };
    let aufs = |part: &[u8]| part.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(PREFIX));
    if name == b".wh..wh..opq" && !parents.iter().any(|part| part.starts_with(PREFIX)) {
        return Ok(Meaning::Opaque);
    }
    if parts.iter().any(|part| aufs(part)) {
        return Ok(Meaning::Ignored);
    }
    if parents.iter().any(|part| part.starts_with(PREFIX)) {
        return Err("it lies below a whiteout");
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Meaning::Entry),
        Some(b"" | b"." | b"..") => Err("it is a whiteout of no name"),
        Some(rest) => Ok(Meaning::Gone(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_are_told_from_names() {
        let cases: [(&[&[u8]], _); 9] = [
            (&[], Ok(Meaning::Entry)),
            (&[b"etc", b"passwd"], Ok(Meaning::Entry)),
            (&[b"etc", b".wh.passwd"], Ok(Meaning::Gone(b"passwd"))),
            (&[b".wh..hidden"], Ok(Meaning::Gone(b".hidden"))),
            (&[b"etc", b".wh..wh..opq"], Ok(Meaning::Opaque)),
            (&[b".wh..wh.plnk", b"12.3"], Ok(Meaning::Ignored)),
            (&[b".wh."], Err("it is a whiteout of no name")),
            (&[b"etc", b".wh..."], Err("it is a whiteout of no name")),
            (&[b".wh.etc", b"passwd"], Err("it lies below a whiteout")),
        ];
        for (parts, expected) in cases {
            assert_eq!(meaning(parts), expected, "{parts:?}");
        }
    }
}
