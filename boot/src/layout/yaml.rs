//! The `layout:` block of a snapcraft.yaml: a strict parser of the part of YAML that such a block is written in, block
//! mappings of plain or quoted words. Every other key of the file is passed over; whatever else stands in the block is an
//! error with its line.

/// One entry of the block.
#[derive(Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Its line, from 1.
    pub line: usize,
    /// The key.
    pub target: String,
    /// `symlink`, `bind`, `bind-file` or `tmpfs`.
    pub kind: &'static str,
    /// Empty for a tmpfs.
    pub source: String,
}

/// A file that has no block, or one that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Error {
    line: usize,
    reason: String,
}

/// A line with something on it.
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

impl Line<'_> {
    fn error(&self, reason: impl Into<String>) -> Error {
        Error { line: self.number, reason: reason.into() }
    }
}

/// Reads the block.
///
/// # Errors
/// No block, two, or what is no such block.
pub fn parse(text: &str) -> Result<Vec<Declaration>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<Line<'_>> = text.lines().enumerate().filter_map(|(index, text)| line(index + 1, text)).collect();
    let mut block: Option<&[Line<'_>]> = None;
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.indent == 0) {
        // Text at the beginning of a line is a key, or nothing that could be the block.
        let Ok((key, value)) = entry(line) else { continue };
        if key != "layout" {
            continue;
        }
        if block.is_some() {
            return Err(line.error("there are two layout: blocks; keep one"));
        }
        if !value.is_empty() {
            return Err(line.error("the layouts must stand below layout:, each on lines of its own"));
        }
        let rest = &lines[at + 1..];
        let end = rest.iter().position(|line| line.indent == 0).unwrap_or(rest.len());
        if end == 0 {
            return Err(line.error("there is nothing below layout:"));
        }
        block = Some(&rest[..end]);
    }
    declarations(block.ok_or(Error { line: lines.len().max(1), reason: "there is no layout: block".into() })?)
}

/// `None` when there is nothing but blanks or a comment.
fn line(number: usize, text: &str) -> Option<Line<'_>> {
    let text = text.trim_end();
    let content = text.trim_start();
    let is_empty = content.is_empty() || content.starts_with('#');
    (!is_empty).then(|| Line { number, indent: text.len() - content.len(), text })
}

fn declarations(block: &[Line<'_>]) -> Result<Vec<Declaration>, Error> {
    let mut declarations = Vec::new();
    let mut rest = block;
    let indent = block.first().map_or(0, |line| line.indent);
    while let Some((first, behind)) = rest.split_first() {
        if first.indent != indent {
            return Err(first.error("it stands further left or right than the targets above it"));
        }
        let (target, value) = entry(first)?;
        if !value.is_empty() {
            return Err(first.error("what a target is stands below it, as in 'bind: $SNAP/x'"));
        }
        let end = behind.iter().position(|line| line.indent <= indent).unwrap_or(behind.len());
        let (kind, source) = match &behind[..end] {
            [] => {
                return Err(
                    first.error("nothing says what it is; put symlink, bind, bind-file or type: tmpfs below it")
                );
            }
            [one] => declaration(one)?,
            [_, second, ..] => {
                return Err(second.error("a target has one of symlink, bind, bind-file and type, and nothing else"));
            }
        };
        declarations.push(Declaration { line: first.number, target, kind, source });
        rest = &behind[end..];
    }
    Ok(declarations)
}

fn declaration(line: &Line<'_>) -> Result<(&'static str, String), Error> {
    let (key, value) = entry(line)?;
    let kind = ["symlink", "bind", "bind-file"].into_iter().find(|kind| *kind == key);
    match (kind, key.as_str(), value.as_str()) {
        (Some(_), _, "") => Err(line.error(format!("{key} has no source"))),
        (Some(kind), ..) => Ok((kind, value)),
        (None, "type", "tmpfs") => Ok(("tmpfs", String::new())),
        (None, "type", _) => Err(line.error(format!("the type '{}' is unknown; there is tmpfs", value.escape_debug()))),
        (None, ..) => Err(line.error(format!(
            "'{}' is unknown; a target has one of symlink, bind, bind-file and type: tmpfs",
            key.escape_debug()
        ))),
    }
}

/// `KEY: VALUE`, of which the value may be missing.
fn entry(line: &Line<'_>) -> Result<(String, String), Error> {
    let text = &line.text[line.indent..];
    if line.text[..line.indent].contains(|char| char != ' ') {
        return Err(line.error("it is indented with something else than blanks"));
    }
    let (key, rest) = word(line, text, true)?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(':').filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
    let rest = rest.ok_or_else(|| line.error("it is no 'KEY: VALUE'"))?.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        return Ok((key, String::new()));
    }
    let (value, rest) = word(line, rest, false)?;
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok((key, value))
    } else {
        Err(line.error("there is something behind the value"))
    }
}

/// What begins plain words of no use here: collections, references, tags, blocks of text.
const SPECIAL: &[char] = &['{', '}', '[', ']', '&', '*', '!', '|', '>', '%', '@', '`', ',', '?', '-'];

/// The word that `text` begins with, and what is behind it.
fn word<'a>(line: &Line<'_>, text: &'a str, is_key: bool) -> Result<(String, &'a str), Error> {
    match text.chars().next() {
        Some('\'') => quoted(line, text),
        Some('"') => escaped(line, text),
        Some(first) if SPECIAL.contains(&first) => {
            Err(line.error(format!("a word that begins with '{first}' is not understood; put it into single quotes")))
        }
        _ => {
            let comment = text.match_indices('#').find(|(at, _)| *at == 0 || text[..*at].ends_with([' ', '\t']));
            let text_end = comment.map_or(text.len(), |(at, _)| at);
            let colon = |(at, _): &(usize, &str)| text[at + 1..].is_empty() || text[at + 1..].starts_with([' ', '\t']);
            let end = text[..text_end].match_indices(':').find(colon).map(|(at, _)| at);
            match end {
                Some(_) if !is_key => Err(line.error("there is a second ':' in it; put the value into single quotes")),
                end => {
                    let end = end.unwrap_or(text_end);
                    Ok((text[..end].trim_end().to_owned(), &text[end..]))
                }
            }
        }
    }
}

/// A word in single quotes, in which two mean one.
fn quoted<'a>(line: &Line<'_>, text: &'a str) -> Result<(String, &'a str), Error> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
                out.push('\'');
            }
            '\'' => return Ok((out, &text[at + 1..])),
            other => out.push(other),
        }
    }
    Err(line.error("a quote is not closed"))
}

/// A word in double quotes; of the escapes, those of a quote and a backslash.
fn escaped<'a>(line: &Line<'_>, text: &'a str) -> Result<(String, &'a str), Error> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\' | '/'))) => out.push(escaped),
                _ => return Err(line.error("an escape is not understood; use single quotes")),
            },
            '"' => return Ok((out, &text[at + 1..])),
            other => out.push(other),
        }
    }
    Err(line.error("a quote is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, &'static str, String)>, String> {
        let all = parse(text).map_err(|error| error.to_string())?;
        Ok(all.into_iter().map(|one| (one.target, one.kind, one.source)).collect())
    }

    fn owned(entries: &[(&str, &'static str, &str)]) -> Vec<(String, &'static str, String)> {
        entries.iter().map(|(target, kind, source)| ((*target).into(), *kind, (*source).into())).collect()
    }

    #[test]
    fn the_block_of_the_documentation() {
        let text = "layout:\n  /var/lib/foo:\n    bind: $SNAP_DATA/var/lib/foo\n  /usr/share/foo:\n    bind: $SNAP/usr/share/foo\n  /etc/foo.conf:\n    bind-file: $SNAP_DATA/etc/foo.conf\n";
        let expected = owned(&[
            ("/var/lib/foo", "bind", "$SNAP_DATA/var/lib/foo"),
            ("/usr/share/foo", "bind", "$SNAP/usr/share/foo"),
            ("/etc/foo.conf", "bind-file", "$SNAP_DATA/etc/foo.conf"),
        ]);
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn other_keys_comments_and_quotes() {
        let text = "# head\n---\nname: app\nversion: '1'\ndescription: |\n  layout:\n    no: block\n  - text: [x\nparts:\n- x: {a: b}\nlayout: # here\n\n    '/it''s: here': # why\n        type: tmpfs # memory\n    \"/a \\\"b\\\"\":\n      symlink:   \"$SNAP/x y\"\r\n    /c d:\n            bind: $SNAP_DATA/c#d\napps:\n  app:\n    command: bin/app\n";
        let expected = owned(&[
            ("/it's: here", "tmpfs", ""),
            ("/a \"b\"", "symlink", "$SNAP/x y"),
            ("/c d", "bind", "$SNAP_DATA/c#d"),
        ]);
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn what_is_no_block_is_told_with_its_line() {
        for (text, error) in [
            ("", "line 1: there is no layout: block"),
            ("name: x\n", "there is no layout: block"),
            ("layout:\nname: x\n", "line 1: there is nothing below layout:"),
            ("layout: {}\n", "line 1"),
            ("layout: x\n", "line 1: the layouts must stand below"),
            ("layout:\n  /a:\n    type: tmpfs\nlayout:\n  /b:\n    type: tmpfs\n", "line 4: there are two"),
            ("layout:\n  /a:\n  /b:\n    type: tmpfs\n", "line 2: nothing says what it is"),
            ("layout:\n  /a: {type: tmpfs}\n", "line 2: a word that begins with '{'"),
            ("layout:\n  /a: x\n", "line 2: what a target is stands below it"),
            ("layout:\n  - /a\n", "line 2: a word that begins with '-'"),
            ("layout:\n  /a\n", "line 2: it is no 'KEY: VALUE'"),
            ("layout:\n  /a:\n    bind: $SNAP/a\n    type: tmpfs\n", "line 4: a target has one of"),
            ("layout:\n  /a:\n    type: ramfs\n", "line 3: the type 'ramfs' is unknown"),
            ("layout:\n  /a:\n    mode: 0755\n", "line 3: 'mode' is unknown"),
            ("layout:\n  /a:\n    bind:\n", "line 3: bind has no source"),
            ("layout:\n  /a:\n    bind: a: b\n", "line 3: there is a second ':'"),
            ("layout:\n  /a:\n    bind: 'a' b\n", "line 3: there is something behind the value"),
            ("layout:\n  /a:\n    bind: 'a\n", "line 3: a quote is not closed"),
            ("layout:\n  /a:\n    bind: \"\\x41\"\n", "line 3: an escape is not understood"),
            ("layout:\n  /a:\n    bind: *x\n", "line 3: a word that begins with '*'"),
            ("layout:\n\t/a:\n    type: tmpfs\n", "line 2: it is indented with something else"),
            ("layout:\n  /a:\n    type: tmpfs\n /b:\n    type: tmpfs\n", "line 4: it stands further left or right"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(error), "{text:?}: {found}");
        }
    }
}
