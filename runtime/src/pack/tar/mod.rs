//! A tar becomes a squashfs as it streams by. Nothing is extracted: the names grow into a tree in memory, so an
//! archive cannot reach anything outside it.

mod decompress;
mod header;
mod pax;
mod sparse;

pub use header::is_header;

use super::{Error, Options, Progress, Summary, clamp_time};
use crate::squashfs::write::{Content, Kind, Metadata, NodeId, Tree, Writer};
use header::{Archive, Member, Type};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Packs the tar at `path`.
pub fn pack(path: &Path, mut writer: Writer, options: &Options, progress: &mut dyn Progress) -> Result<Summary, Error> {
    let file = File::open(path).map_err(Error::read("open", path))?;
    let input = decompress::open(file).map_err(Error::read("read", path))?;
    let mut builder = Builder {
        path,
        tree: Tree::new(),
        root_given: false,
        first: options
            .first
            .iter()
            .filter_map(|path| components(path.as_os_str().as_bytes()).ok())
            .map(joined)
            .collect(),
    };
    progress.total(None, None);
    let mut archive = Archive::new(input);
    let mut buffer = vec![0; 1 << 20];
    let mut after = String::new();
    loop {
        let broken = |reason: String, after: &str| Error::Tar { path: path.to_owned(), after: after.into(), reason };
        let Some(member) = archive.next().map_err(|error| broken(describe(&error), &after))? else { break };
        after = member.path.escape_ascii().to_string();
        let (parent, name) = builder.place(&member)?;
        let content = if member.kind == Type::File {
            let uncompressed = builder.first.contains(&joined(components(&member.path).unwrap_or_default()));
            let mut content = writer.content(uncompressed);
            copy(&mut archive, &member, &mut content, &mut buffer, progress).map_err(|error| match error {
                CopyError::Archive(error) => broken(describe(&error), &after),
                CopyError::Write(error) => error.into(),
                CopyError::Interrupted => Error::Interrupted,
            })?;
            progress.advance(0, 1);
            Some(content.end()?)
        } else {
            None
        };
        builder.add(parent, name, &member, content)?;
    }
    let newest = builder.tree.newest(options.epoch.limit());
    let mtime = options.epoch.limit().unwrap_or(newest);
    if !builder.root_given {
        let root = Metadata { mtime, ..builder.tree.metadata(Tree::ROOT) };
        // It has the owner it had.
        let _ = builder.tree.set_metadata(Tree::ROOT, root);
    }
    Ok(writer.finish(&builder.tree, mtime)?.into())
}

/// An error with its sources in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

enum CopyError {
    Interrupted,
    Archive(std::io::Error),
    Write(crate::squashfs::write::Error),
}

/// Moves the data of the current member into `content`, its holes as holes.
fn copy(
    archive: &mut Archive<impl Read>,
    member: &Member,
    content: &mut crate::squashfs::write::ContentWriter<'_>,
    buffer: &mut [u8],
    progress: &mut dyn Progress,
) -> Result<(), CopyError> {
    let mut at = 0;
    for &(start, length) in &member.data {
        content.hole(start - at).map_err(CopyError::Write)?;
        let mut left = length;
        while left > 0 {
            if progress.stopped() {
                return Err(CopyError::Interrupted);
            }
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            archive.read_data(&mut buffer[..room]).map_err(CopyError::Archive)?;
            content.write(&buffer[..room]).map_err(CopyError::Write)?;
            progress.advance(room as u64, 0);
            left -= room as u64;
        }
        at = start + length;
    }
    content.hole(member.size - at).map_err(CopyError::Write)
}

/// The parts of a path inside the archive. Leading `/` and `.` parts mean nothing; `..` is refused.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let parts: Vec<_> = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) { Err("its name leads outside with ..") } else { Ok(parts) }
}

fn joined(parts: Vec<&[u8]>) -> PathBuf {
    PathBuf::from(OsString::from_vec(parts.join(&b'/')))
}

struct Builder<'a> {
    path: &'a Path,
    tree: Tree,
    /// Whether an entry `./` gave the root's metadata.
    root_given: bool,
    first: HashSet<PathBuf>,
}

impl Builder<'_> {
    fn refuse(&self, member: &Member, reason: impl Into<String>) -> Error {
        let entry = member.path.escape_ascii().to_string();
        Error::TarEntry { path: self.path.to_owned(), entry, reason: reason.into() }
    }

    fn unstorable(&self, member: &Member) -> impl FnOnce(crate::squashfs::write::TreeError) -> Error {
        let path = self.path.join(OsString::from_vec(member.path.clone()));
        move |source| Error::Unstorable { path, source }
    }

    /// Where a member goes: directory and name; no name for the root itself. Missing directories on the way are
    /// made, 0755 and owned by root, with the time of the member.
    fn place<'m>(&mut self, member: &'m Member) -> Result<(NodeId, Option<&'m [u8]>), Error> {
        let parts = components(&member.path).map_err(|reason| self.refuse(member, reason))?;
        let Some((&name, parents)) = parts.split_last() else {
            let is_directory = member.kind == Type::Directory;
            let place = is_directory.then_some((Tree::ROOT, None));
            return place.ok_or_else(|| self.refuse(member, "it has no name"));
        };
        let mut directory = Tree::ROOT;
        for &part in parents {
            directory = match self.tree.get(directory, part) {
                Some(id) if self.tree.is_directory(id) => id,
                Some(id) => {
                    let what = match self.tree.kind(id) {
                        Some(Kind::Symlink(_)) => "a symbolic link",
                        _ => "not a directory",
                    };
                    let part = part.escape_ascii();
                    return Err(self.refuse(member, format!("an earlier entry makes {part:?} on its way {what}")));
                }
                None => {
                    let metadata = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: clamp_time(member.mtime) };
                    let made = self.tree.add(directory, part, metadata, Kind::Directory);
                    made.map_err(self.unstorable(member))?
                }
            };
        }
        Ok((directory, Some(name)))
    }

    fn add(
        &mut self,
        parent: NodeId,
        name: Option<&[u8]>,
        member: &Member,
        content: Option<Content>,
    ) -> Result<(), Error> {
        let (uid, gid) = (member.uid, member.gid);
        let metadata = Metadata { mode: member.mode, uid, gid, mtime: clamp_time(member.mtime) };
        let old = name.map_or(Some(Tree::ROOT), |name| self.tree.get(parent, name));
        let old_directory = old.filter(|&id| self.tree.is_directory(id));
        if member.kind == Type::Directory
            && let Some(id) = old_directory
        {
            self.root_given |= id == Tree::ROOT;
            self.tree.set_metadata(id, metadata).map_err(self.unstorable(member))?;
            self.tree.set_xattrs(id, member.xattrs.clone());
            return Ok(());
        }
        // `place` gives no name for a directory only, which was handled above.
        let Some(name) = name else { return Err(self.refuse(member, "it has no name")) };
        if old_directory.is_some_and(|id| self.tree.children(id).next().is_some()) {
            return Err(self.refuse(member, "an earlier entry makes it a directory that is not empty"));
        }
        let (major, minor) = member.device;
        let kind = match member.kind {
            Type::Link => return self.link(parent, name, member),
            Type::Directory => Kind::Directory,
            Type::File => Kind::File(content),
            Type::Symlink => Kind::Symlink(member.link.clone().into()),
            Type::Block => Kind::BlockDevice { major, minor },
            Type::Char => Kind::CharDevice { major, minor },
            Type::Fifo => Kind::Fifo,
        };
        let id = self.tree.add(parent, name, metadata, kind).map_err(self.unstorable(member))?;
        self.tree.set_xattrs(id, member.xattrs.clone());
        Ok(())
    }

    fn link(&mut self, parent: NodeId, name: &[u8], member: &Member) -> Result<(), Error> {
        let target = member.link.escape_ascii().to_string();
        let parts = components(&member.link)
            .map_err(|_| self.refuse(member, format!("it is a hard link to {target:?}, outside the archive")))?;
        let found = parts.iter().try_fold(Tree::ROOT, |id, part| self.tree.get(id, part));
        match found {
            None => Err(self.refuse(member, format!("it is a hard link to {target:?}, which no earlier entry has"))),
            Some(id) if self.tree.is_directory(id) => {
                Err(self.refuse(member, format!("it is a hard link to the directory {target:?}")))
            }
            Some(id) => self.tree.link(parent, name, id).map_err(self.unstorable(member)),
        }
    }
}
