//! The tree of names and inodes that becomes a squashfs. In memory; holds no file contents.

use super::Content;
use super::inode;
use crate::squashfs::Time;
use std::collections::{BTreeMap, HashMap, HashSet};
use thiserror::Error;

/// Distinct user and group ids that a squashfs can hold (the superblock counts them in 16 bits).
pub const MAX_IDS: usize = 65_535;
/// Longest name in bytes (`NAME_MAX`; the format itself would allow 256).
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link in bytes (`PATH_MAX` without its final NUL).
pub const MAX_TARGET: usize = 4095;

/// Why a node cannot be part of a squashfs.
#[derive(Debug, Error)]
pub enum TreeError {
    /// Empty, `.`, `..`, too long, or with a `/` or NUL in it.
    #[error("the name {name:?} cannot be stored: it must have 1 to 255 bytes, no '/' and no NUL, and not be . or ..")]
    Name {
        /// The name, escaped.
        name: String,
    },
    /// Empty, too long, or with a NUL in it.
    #[error("the symbolic link's target cannot be stored: it has {length} bytes (1 to 4095 without NUL are possible)")]
    Target {
        /// Bytes in the target.
        length: usize,
    },
    /// The device number does not fit.
    #[error("device {major}:{minor} cannot be stored: squashfs holds majors up to 4095 and minors up to 1048575")]
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Too many owners.
    #[error(
        "more than 65535 distinct user and group ids: squashfs cannot hold them; pack fewer owners, for example \
         by changing the owner of the files first"
    )]
    Ids,
    /// Too many inodes.
    #[error("more than 4294967294 inodes: squashfs cannot hold them")]
    Inodes,
}

/// An index into a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Extended attributes: full name (`user.x`) and value, in any order.
pub type Xattrs = Vec<Xattr>;

/// One extended attribute: full name and value.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// What a node has besides its type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky (0o7777); higher bits are ignored.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the contents.
    pub mtime: Time,
}

/// The type of a node and what belongs to it.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory. Its entries are added with [`Tree::add`].
    Directory,
    /// A regular file; `None` until its content is written ([`Tree::set_content`]), then empty files too are `Some`.
    File(Option<Content>),
    /// A symbolic link with its target: 1 to 4095 bytes without NUL.
    Symlink(Box<[u8]>),
    /// A block device.
    BlockDevice {
        /// 0..=4095
        major: u32,
        /// 0..=1048575
        minor: u32,
    },
    /// A character device.
    CharDevice {
        /// 0..=4095
        major: u32,
        /// 0..=1048575
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A UNIX socket.
    Socket,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub metadata: Metadata,
    /// Index into `Tree::xattrs`, or `inode::NONE`.
    pub xattrs: u32,
    /// Names that lead here; 0 after the last one was replaced.
    pub links: u32,
    pub body: Body,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Directory { parent: NodeId, children: BTreeMap<Box<[u8]>, NodeId> },
    Other(Kind),
}

/// Names, inodes and extended attributes. Entries are kept sorted bytewise, so the order of adding does not
/// show in the result.
#[derive(Debug, Clone)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) xattrs: Vec<Xattrs>,
    xattr_index: HashMap<Xattrs, u32>,
    ids: HashSet<u32>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The root, which always exists.
    pub const ROOT: NodeId = NodeId(0);

    /// A tree with an empty root: 0755, owned by 0:0, at the epoch.
    #[must_use]
    pub fn new() -> Self {
        let root = Node {
            metadata: Metadata { mode: 0o755, ..Metadata::default() },
            xattrs: inode::NONE,
            links: 1,
            body: Body::Directory { parent: Self::ROOT, children: BTreeMap::new() },
        };
        Self { nodes: vec![root], xattrs: Vec::new(), xattr_index: HashMap::new(), ids: HashSet::from([0]) }
    }

    /// Adds a node under `name`, replacing what was there.
    ///
    /// # Errors
    /// When squashfs cannot hold the name, the node, or one more owner.
    ///
    /// # Panics
    /// When `parent` is not a directory of this tree.
    pub fn add(&mut self, parent: NodeId, name: &[u8], metadata: Metadata, kind: Kind) -> Result<NodeId, TreeError> {
        check_name(name)?;
        check_kind(&kind)?;
        self.note_owners(&metadata)?;
        let id = u32::try_from(self.nodes.len()).ok().filter(|&id| id < u32::MAX - 1).ok_or(TreeError::Inodes)?;
        let id = NodeId(id);
        let body = match kind {
            Kind::Directory => Body::Directory { parent, children: BTreeMap::new() },
            other => Body::Other(other),
        };
        self.nodes.push(Node { metadata, xattrs: inode::NONE, links: 1, body });
        self.put(parent, name, id);
        Ok(id)
    }

    /// Adds one more name for a node that is not a directory, replacing what was there.
    ///
    /// # Errors
    /// When squashfs cannot hold the name.
    ///
    /// # Panics
    /// When `parent` is not a directory of this tree, or `target` is one.
    pub fn link(&mut self, parent: NodeId, name: &[u8], target: NodeId) -> Result<(), TreeError> {
        check_name(name)?;
        assert!(!self.is_directory(target), "a directory has one name");
        // Counted first: a link over the node's own last name must not end it.
        self.nodes[target.index()].links += 1;
        self.put(parent, name, target);
        Ok(())
    }

    /// Takes away the name `name` of the directory `parent`, and what is below it.
    pub fn remove(&mut self, parent: NodeId, name: &[u8]) {
        let Body::Directory { children, .. } = &mut self.nodes[parent.index()].body else { return };
        let mut gone: Vec<NodeId> = children.remove(name).into_iter().collect();
        while let Some(id) = gone.pop() {
            let node = &mut self.nodes[id.index()];
            node.links -= 1;
            if let Body::Directory { children, .. } = &mut node.body {
                gone.extend(std::mem::take(children).into_values());
            }
        }
    }

    fn put(&mut self, parent: NodeId, name: &[u8], id: NodeId) {
        let Body::Directory { children, .. } = &mut self.nodes[parent.index()].body else {
            panic!("the parent is not a directory");
        };
        if let Some(old) = children.insert(name.into(), id) {
            self.nodes[old.index()].links -= 1;
        }
    }

    /// Replaces mode, owner and time.
    ///
    /// # Errors
    /// When squashfs cannot hold one more owner.
    pub fn set_metadata(&mut self, id: NodeId, metadata: Metadata) -> Result<(), TreeError> {
        self.note_owners(&metadata)?;
        self.nodes[id.index()].metadata = metadata;
        Ok(())
    }

    /// Mode, owner and time.
    #[must_use]
    pub fn metadata(&self, id: NodeId) -> Metadata {
        self.nodes[id.index()].metadata
    }

    /// Replaces the extended attributes. Those that squashfs cannot hold (anything but `user.`, `trusted.` and
    /// `security.`: POSIX ACLs, say) are left out, as mksquashfs does.
    pub fn set_xattrs(&mut self, id: NodeId, mut xattrs: Xattrs) {
        xattrs.retain(|(name, _)| storable(name));
        xattrs.sort();
        xattrs.dedup_by(|later, earlier| later.0 == earlier.0);
        self.nodes[id.index()].xattrs = if xattrs.is_empty() {
            inode::NONE
        } else if let Some(&index) = self.xattr_index.get(&xattrs) {
            index
        } else {
            // Fewer sets than nodes, so the index fits.
            let index = self.xattrs.len() as u32;
            self.xattr_index.insert(xattrs.clone(), index);
            self.xattrs.push(xattrs);
            index
        };
    }

    /// The extended attributes, sorted by name.
    #[must_use]
    pub fn xattrs(&self, id: NodeId) -> &[Xattr] {
        let set = self.nodes[id.index()].xattrs;
        if set == inode::NONE { &[] } else { &self.xattrs[set as usize] }
    }

    /// Gives a regular file its content.
    ///
    /// # Panics
    /// When `id` is not a regular file.
    pub fn set_content(&mut self, id: NodeId, content: Content) {
        match &mut self.nodes[id.index()].body {
            Body::Other(Kind::File(slot)) => *slot = Some(content),
            _ => panic!("only a regular file has content"),
        }
    }

    /// The node called `name` in the directory `parent`; `None` too when `parent` is no directory.
    #[must_use]
    pub fn get(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match &self.nodes[parent.index()].body {
            Body::Directory { children, .. } => children.get(name).copied(),
            Body::Other(_) => None,
        }
    }

    /// The directory that holds the directory `id` (the root's is the root); `None` for anything else.
    #[must_use]
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        match self.nodes[id.index()].body {
            Body::Directory { parent, .. } => Some(parent),
            Body::Other(_) => None,
        }
    }

    /// Whether the node is a directory.
    #[must_use]
    pub fn is_directory(&self, id: NodeId) -> bool {
        matches!(self.nodes[id.index()].body, Body::Directory { .. })
    }

    /// The type of a node and what belongs to it, unless it is a directory.
    #[must_use]
    pub fn kind(&self, id: NodeId) -> Option<&Kind> {
        match &self.nodes[id.index()].body {
            Body::Directory { .. } => None,
            Body::Other(kind) => Some(kind),
        }
    }

    /// The entries of a directory, sorted bytewise; none for anything else.
    pub fn children(&self, id: NodeId) -> impl DoubleEndedIterator<Item = (&[u8], NodeId)> {
        let children = match &self.nodes[id.index()].body {
            Body::Directory { children, .. } => Some(children),
            Body::Other(_) => None,
        };
        children.into_iter().flatten().map(|(name, &id)| (&**name, id))
    }

    /// The regular files that have a name, in the order in which they were added.
    pub fn named_files(&self) -> impl Iterator<Item = NodeId> + '_ {
        let named = |node: &Node| node.links > 0 && matches!(node.body, Body::Other(Kind::File(_)));
        // `add` refuses what does not fit.
        (0u32..).map(NodeId).zip(&self.nodes).filter(move |(_, node)| named(node)).map(|(id, _)| id)
    }

    /// The newest modification time in the tree. With `limit` (seconds), all become whole seconds, and later ones the limit.
    pub fn newest(&mut self, limit: Option<u32>) -> Time {
        let mut newest = Time::default();
        for node in self.nodes.iter_mut().filter(|node| node.links > 0) {
            let time = &mut node.metadata.mtime;
            if let Some(limit) = limit {
                *time = time.seconds.min(limit).into();
            }
            newest = newest.max(*time);
        }
        newest
    }

    fn note_owners(&mut self, metadata: &Metadata) -> Result<(), TreeError> {
        for id in [metadata.uid, metadata.gid] {
            self.ids.insert(id);
        }
        if self.ids.len() > MAX_IDS { Err(TreeError::Ids) } else { Ok(()) }
    }
}

fn storable(xattr: &[u8]) -> bool {
    let known = [&b"user."[..], b"trusted.", b"security."].iter().any(|prefix| xattr.starts_with(prefix));
    known && !xattr.ends_with(b".") && !xattr.contains(&0)
}

fn check_name(name: &[u8]) -> Result<(), TreeError> {
    let fine = (1..=MAX_NAME).contains(&name.len())
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|&byte| byte == b'/' || byte == 0);
    if fine { Ok(()) } else { Err(TreeError::Name { name: name.escape_ascii().to_string() }) }
}

fn check_kind(kind: &Kind) -> Result<(), TreeError> {
    match *kind {
        Kind::Symlink(ref target) if !(1..=MAX_TARGET).contains(&target.len()) || target.contains(&0) => {
            Err(TreeError::Target { length: target.len() })
        }
        Kind::BlockDevice { major, minor } | Kind::CharDevice { major, minor }
            if inode::device(major, minor).is_none() =>
        {
            Err(TreeError::Device { major, minor })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(tree: &mut Tree, name: &[u8]) -> NodeId {
        tree.add(Tree::ROOT, name, Metadata::default(), Kind::Directory).unwrap()
    }

    #[test]
    fn names_that_squashfs_cannot_hold_are_refused() {
        let mut tree = Tree::new();
        let long = [b'x'; 256];
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &long] {
            let added = tree.add(Tree::ROOT, name, Metadata::default(), Kind::Fifo);
            assert!(matches!(added, Err(TreeError::Name { .. })), "{name:?}");
        }
        tree.add(Tree::ROOT, &long[..255], Metadata::default(), Kind::Fifo).unwrap();
        tree.add(Tree::ROOT, b"\xff\xfe", Metadata::default(), Kind::Fifo).unwrap();
    }

    #[test]
    fn entries_are_sorted_bytewise() {
        let mut tree = Tree::new();
        for name in [&b"b"[..], b"a", b"\xff", b"B", b"a-"] {
            directory(&mut tree, name);
        }
        let names: Vec<_> = tree.children(Tree::ROOT).map(|(name, _)| name.to_vec()).collect();
        assert_eq!(names, [&b"B"[..], b"a", b"a-", b"b", b"\xff"]);
    }

    #[test]
    fn the_last_name_ends_a_node_and_a_link_keeps_it() {
        let mut tree = Tree::new();
        let file = tree.add(Tree::ROOT, b"file", Metadata::default(), Kind::File(None)).unwrap();
        tree.link(Tree::ROOT, b"link", file).unwrap();
        assert_eq!(tree.nodes[file.index()].links, 2);
        tree.add(Tree::ROOT, b"file", Metadata::default(), Kind::Fifo).unwrap();
        assert_eq!(tree.nodes[file.index()].links, 1);
        tree.link(Tree::ROOT, b"link", file).unwrap();
        assert_eq!(tree.nodes[file.index()].links, 1);
    }

    #[test]
    fn what_is_removed_takes_everything_below_with_it() {
        let mut tree = Tree::new();
        let outer = directory(&mut tree, b"outer");
        let inner = tree.add(outer, b"inner", Metadata::default(), Kind::Directory).unwrap();
        let kept = tree.add(inner, b"file", Metadata::default(), Kind::File(None)).unwrap();
        let lost = tree.add(inner, b"lost", Metadata::default(), Kind::File(None)).unwrap();
        tree.link(Tree::ROOT, b"link", kept).unwrap();
        tree.remove(Tree::ROOT, b"outer");
        tree.remove(Tree::ROOT, b"missing");
        assert_eq!((tree.nodes[kept.index()].links, tree.nodes[lost.index()].links), (1, 0));
        assert_eq!(tree.named_files().collect::<Vec<_>>(), [kept]);
        assert_eq!(tree.get(Tree::ROOT, b"outer"), None);
    }

    #[test]
    fn the_65536th_id_is_refused() {
        let mut tree = Tree::new();
        // 0 is taken by the root.
        for uid in 1..MAX_IDS as u32 {
            tree.set_metadata(Tree::ROOT, Metadata { uid, ..Metadata::default() }).unwrap();
        }
        let one_more = Metadata { gid: MAX_IDS as u32, ..Metadata::default() };
        assert!(matches!(tree.set_metadata(Tree::ROOT, one_more), Err(TreeError::Ids)));
    }

    #[test]
    fn equal_attribute_sets_are_kept_once_and_acls_not_at_all() {
        let mut tree = Tree::new();
        let pair = |name: &str| (name.as_bytes().into(), b"v"[..].into());
        let (a, b) = (directory(&mut tree, b"a"), directory(&mut tree, b"b"));
        tree.set_xattrs(a, vec![pair("user.b"), pair("user.a"), pair("system.posix_acl_access")]);
        tree.set_xattrs(b, vec![pair("user.a"), pair("user.b")]);
        assert_eq!(tree.xattrs, [vec![pair("user.a"), pair("user.b")]]);
        assert_eq!(tree.nodes[a.index()].xattrs, tree.nodes[b.index()].xattrs);
    }
}
