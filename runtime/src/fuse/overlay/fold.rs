//! Names without regard to case: Unicode simple case folding (`CaseFolding.txt`, statuses C and S), as the kernel's own
//! file systems nearly have it and as Windows programs expect. Bytes that are no UTF-8 stay as they are.

use std::collections::HashMap;

/// A name with its case folded.
pub(super) fn fold(name: &[u8]) -> Box<[u8]> {
    if name.is_ascii() {
        return name.to_ascii_lowercase().into();
    }
    let mut folded = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            let code = unicode_case_mapping::case_folded(character);
            let character = code.and_then(|code| char::from_u32(code.get())).unwrap_or(character);
            folded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        folded.extend_from_slice(chunk.invalid());
    }
    folded.into()
}

/// The names of one directory by their folded form.
#[derive(Default)]
pub(super) struct Index(HashMap<Box<[u8]>, Names>);

/// Names that fold to the same; a layer may have several.
enum Names {
    /// Nearly always.
    One(Box<[u8]>),
    Many(Vec<Box<[u8]>>),
}

impl Index {
    pub(super) fn add(&mut self, name: &[u8]) {
        let own = || Box::from(name);
        match self.0.get_mut(&fold(name)) {
            None => {
                self.0.insert(fold(name), Names::One(own()));
            }
            Some(Names::One(other)) if **other == *name => {}
            Some(names @ Names::One(_)) => {
                let mut many = vec![own()];
                if let Names::One(other) = std::mem::replace(names, Names::Many(Vec::new())) {
                    many.push(other);
                }
                many.sort_unstable();
                *names = Names::Many(many);
            }
            Some(Names::Many(many)) => {
                if let Err(place) = many.binary_search_by(|other| (**other).cmp(name)) {
                    many.insert(place, own());
                }
            }
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        let folded = fold(name);
        let is_last = match self.0.get_mut(&folded) {
            Some(Names::One(one)) => **one == *name,
            Some(Names::Many(many)) => {
                many.retain(|other| **other != *name);
                many.is_empty()
            }
            None => false,
        };
        if is_last {
            self.0.remove(&folded);
        }
    }

    /// This name, or one that folds to the same; the first in the order of bytes when there are several.
    pub(super) fn find(&self, name: &[u8]) -> Option<&[u8]> {
        match self.0.get(&fold(name))? {
            Names::One(one) => Some(one),
            Names::Many(many) => {
                many.iter().find(|other| ***other == *name).or_else(|| many.first()).map(|name| &**name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_is_simple_and_spares_what_is_no_text() {
        let same = |one: &str, other: &str| fold(one.as_bytes()) == fold(other.as_bytes());
        assert!(same("Program Files", "PROGRAM files") && same("ÄÖÜ", "äöü") && same("ΣΊΣΥΦΟΣ", "σίσυφος"));
        assert!(same("K", "\u{212a}") && same("ẞ", "ß"));
        assert!(!same("ß", "ss") && !same("é", "e\u{301}") && !same("İ", "i"));
        assert_eq!(*fold(b"A\xffB\xc3"), *b"a\xffb\xc3");
    }

    #[test]
    fn an_index_knows_what_was_added_and_not_removed() {
        let mut index = Index::default();
        for name in ["Foo", "foo", "FOO", "bar", "foo"] {
            index.add(name.as_bytes());
        }
        assert_eq!((index.find(b"fOO"), index.find(b"foo")), (Some(&b"FOO"[..]), Some(&b"foo"[..])));
        index.remove(b"FOO");
        assert_eq!(index.find(b"fOO"), Some(&b"Foo"[..]));
        for name in [&b"Foo"[..], b"foo", b"BAR"] {
            index.remove(name);
        }
        assert_eq!((index.find(b"foo"), index.find(b"BAR")), (None, Some(&b"bar"[..])));
    }

    #[test]
    fn a_large_directory() {
        let mut index = Index::default();
        for number in 0..100_000 {
            index.add(format!("File{number}.DLL").as_bytes());
        }
        for number in 0..100_000 {
            assert!(index.find(format!("FILE{number}.dll").as_bytes()).is_some());
        }
        assert_eq!(index.find(b"file100000.dll"), None);
    }
}
