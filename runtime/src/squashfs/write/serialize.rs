//! From the tree to inode table, directory table and the tables behind them.

use super::inode::{self, Common, Data, Special};
use super::object::{Owned, check};
use super::tree::{Body, Kind, Node, NodeId, Tree};
use super::{Content, Error, Writer, ffi, nanoseconds};
use crate::squashfs::time::parent_of_root;
use std::collections::HashMap;
use std::ffi::CString;
use std::ptr::NonNull;

/// Writes everything behind the data blocks; returns the numbers of inodes and of regular files, and the bytes
/// in the latter.
pub fn serialize(writer: &mut Writer, tree: &Tree) -> Result<(u32, u64, u64), Error> {
    let order = directories(tree);
    let (numbers, count) = number(tree, &order);
    let has_nanoseconds = nanoseconds::write(writer, tree, &numbers, count)?;
    let parent_of_root = parent_of_root(count, has_nanoseconds);
    let mut pass = Pass::new(writer, tree, numbers)?;
    for &directory in &order {
        for (_, child) in tree.children(directory) {
            pass.inode(child)?;
        }
        pass.listing(directory, parent_of_root)?;
    }
    pass.inode(Tree::ROOT)?;
    pass.tables()?;
    Ok((count, pass.files, pass.bytes))
}

/// All directories, each after those it holds, and otherwise sorted.
fn directories(tree: &Tree) -> Vec<NodeId> {
    let mut order = Vec::new();
    let mut stack = vec![Tree::ROOT];
    while let Some(directory) = stack.pop() {
        order.push(directory);
        stack.extend(tree.children(directory).map(|(_, child)| child).filter(|&child| tree.is_directory(child)));
    }
    order.reverse();
    order
}

/// Inode numbers, from 1, in the order in which the inodes are written: then the entries of a directory have
/// numbers close to each other, which its listing stores as small differences. 0: not in the tree any more.
fn number(tree: &Tree, order: &[NodeId]) -> (Vec<u32>, u32) {
    let mut numbers = vec![0; tree.nodes.len()];
    let mut last = 0;
    let children = order.iter().flat_map(|&directory| tree.children(directory));
    for id in children.map(|(_, child)| child).chain([Tree::ROOT]) {
        if numbers[id.index()] == 0 {
            last += 1;
            numbers[id.index()] = last;
        }
    }
    (numbers, last)
}

/// An inode that `sqfs_dir_writer_create_inode` allocated.
struct DirectoryInode(NonNull<ffi::Inode>);

impl Drop for DirectoryInode {
    fn drop(&mut self) {
        // SAFETY: allocated by libsquashfs, owned here, freed once.
        unsafe { ffi::sqfs_free(self.0.as_ptr().cast()) };
    }
}

/// The state of writing inodes and directories.
///
/// The fields are dropped in order: what borrows stands before what it borrows from.
struct Pass<'a> {
    listings: Owned<ffi::DirWriter>,
    directories: Owned<ffi::MetaWriter>,
    inodes: Owned<ffi::MetaWriter>,
    ids: Owned<ffi::IdTable>,
    xattrs: Owned<ffi::XattrWriter>,
    writer: &'a mut Writer,
    tree: &'a Tree,
    numbers: Vec<u32>,
    /// Where each inode is: offset of its metadata block << 16 | offset in it.
    references: Vec<Option<u64>>,
    id_indices: HashMap<u32, u16>,
    xattr_indices: Vec<Option<u32>>,
    /// Directories whose listing is written and whose inode is not yet.
    pending: HashMap<NodeId, DirectoryInode>,
    buffer: Vec<u8>,
    files: u64,
    bytes: u64,
}

impl<'a> Pass<'a> {
    fn new(writer: &'a mut Writer, tree: &'a Tree, numbers: Vec<u32>) -> Result<Self, Error> {
        writer.superblock.inode_table_start = writer.target.size();
        let (target, compressor) = (writer.target.as_ptr(), writer.compressor.as_ptr());
        // SAFETY: a new object each; `writer` holds target and compressor and outlives them, and the field order
        // of `Pass` (here: reverse order of creation) drops `listings` before `directories`.
        let (ids, xattrs, inodes, directories, listings) = unsafe {
            let ids = Owned::new(ffi::sqfs_id_table_create(0), "creating the id table")?;
            let xattrs = Owned::new(ffi::sqfs_xattr_writer_create(0), "creating the xattr table")?;
            let inodes = ffi::sqfs_meta_writer_create(target, compressor, 0);
            let inodes = Owned::new(inodes, "creating the inode table")?;
            let directories = ffi::sqfs_meta_writer_create(target, compressor, ffi::META_WRITER_KEEP_IN_MEMORY);
            let directories = Owned::new(directories, "creating the directory table")?;
            let listings = ffi::sqfs_dir_writer_create(directories.as_ptr(), ffi::DIR_WRITER_EXPORT_TABLE);
            (ids, xattrs, inodes, directories, Owned::new(listings, "creating the directory writer")?)
        };
        Ok(Self {
            listings,
            directories,
            inodes,
            ids,
            xattrs,
            writer,
            tree,
            references: vec![None; numbers.len()],
            numbers,
            id_indices: HashMap::new(),
            xattr_indices: vec![None; tree.xattrs.len()],
            pending: HashMap::new(),
            buffer: Vec::new(),
            files: 0,
            bytes: 0,
        })
    }

    /// Writes the inode of `id`, unless another name of it was met before.
    fn inode(&mut self, id: NodeId) -> Result<(), Error> {
        if self.references[id.index()].is_some() {
            return Ok(());
        }
        let (mut block, mut offset) = (0, 0);
        // SAFETY: the meta writer is live; both out pointers are.
        unsafe { ffi::sqfs_meta_writer_get_position(self.inodes.as_ptr(), &raw mut block, &raw mut offset) };
        self.references[id.index()] = Some(block << 16 | u64::from(offset));
        let tree = self.tree;
        let node = &tree.nodes[id.index()];
        let common = self.common(id, node)?;
        let special = match &node.body {
            Body::Directory { .. } => return self.directory(id, &common),
            Body::Other(Kind::File(content)) => return self.file(&common, content.ok_or(Error::NoContent)?),
            Body::Other(Kind::Symlink(target)) => Special::Symlink(target),
            // The tree refuses numbers that do not fit.
            Body::Other(Kind::BlockDevice { major, minor }) => {
                Special::Block(inode::device(*major, *minor).unwrap_or_default())
            }
            Body::Other(Kind::CharDevice { major, minor }) => {
                Special::Char(inode::device(*major, *minor).unwrap_or_default())
            }
            Body::Other(Kind::Fifo) => Special::Fifo,
            Body::Other(Kind::Socket) => Special::Socket,
            Body::Other(Kind::Directory) => unreachable!("a directory is never Body::Other"),
        };
        inode::special(&mut self.buffer, &common, &special);
        self.append()
    }

    fn common(&mut self, id: NodeId, node: &Node) -> Result<Common, Error> {
        let metadata = &node.metadata;
        Ok(Common {
            mode: metadata.mode & 0o7777,
            uid: self.id_index(metadata.uid)?,
            gid: self.id_index(metadata.gid)?,
            mtime: metadata.mtime.seconds,
            number: self.numbers[id.index()],
            nlink: node.links,
            xattr: self.xattr_index(node.xattrs)?,
        })
    }

    fn append(&mut self) -> Result<(), Error> {
        let (data, size) = (self.buffer.as_ptr().cast(), self.buffer.len());
        // SAFETY: the meta writer is live and copies the bytes.
        check("writing an inode", unsafe { ffi::sqfs_meta_writer_append(self.inodes.as_ptr(), data, size) })
    }

    fn file(&mut self, common: &Common, content: Content) -> Result<(), Error> {
        self.files += 1;
        self.bytes += content.size;
        let mut data =
            Data { size: content.size, start: 0, sparse: 0, fragment: inode::NONE, offset: inode::NONE, blocks: &[] };
        if let Some(place) = content.blocks {
            let at = self.writer.slots.get(place);
            // SAFETY: the block processor has finished, so the place holds a complete file inode, which nobody
            // changes until `slots` is dropped; `payload_bytes_used` bytes of 32-bit sizes follow it.
            let (known, blocks) = unsafe {
                let count = (*at).payload_bytes_used as usize / size_of::<u32>();
                (&*at, std::slice::from_raw_parts(at.add(1).cast::<u32>(), count))
            };
            (data.start, data.sparse) = blocks_of(known);
            data.blocks = blocks;
        }
        if let Some(place) = content.tail {
            // SAFETY: as above.
            let known = unsafe { &*self.writer.slots.get(place) };
            (data.fragment, data.offset) = fragment_of(known);
        }
        inode::file(&mut self.buffer, common, &data);
        self.append()
    }

    fn directory(&mut self, id: NodeId, common: &Common) -> Result<(), Error> {
        // `serialize` writes the listing of a directory before its inode.
        let Some(inode) = self.pending.remove(&id) else { unreachable!("a directory has a listing") };
        let subdirectories = self.tree.children(id).filter(|&(_, child)| self.tree.is_directory(child)).count();
        // SAFETY: `inode` is live and only ours.
        let fields = unsafe { &mut *inode.0.as_ptr() };
        fields.mode = common.mode;
        (fields.uid_idx, fields.gid_idx) = (common.uid, common.gid);
        (fields.mod_time, fields.inode_number) = (common.mtime, common.number);
        // The library counts every entry as a link; each subdirectory's `..` is one, `.` and the name are two.
        let nlink = if fields.kind == ffi::INODE_DIR { 1 } else { 0 };
        fields.data[nlink] = u32::try_from(subdirectories + 2).unwrap_or(u32::MAX);
        // SAFETY: both are live; the inode is complete, and its index follows it as the library laid it out.
        check("writing a directory's inode", unsafe {
            ffi::sqfs_meta_writer_write_inode(self.inodes.as_ptr(), inode.0.as_ptr())
        })
    }

    /// Writes the entries of a directory, whose inodes are all written.
    fn listing(&mut self, directory: NodeId, parent_of_root: u32) -> Result<(), Error> {
        let (tree, listings) = (self.tree, self.listings.as_ptr());
        // SAFETY: the directory writer is live.
        check("beginning a directory", unsafe { ffi::sqfs_dir_writer_begin(listings, 0) })?;
        for (name, child) in tree.children(directory) {
            // The tree refuses names with NUL; the loop in `serialize` wrote every child.
            let (Ok(name), Some(reference)) = (CString::new(name), self.references[child.index()]) else {
                unreachable!("an entry without a name or an inode")
            };
            let (number, kind) = (self.numbers[child.index()], type_bits(&tree.nodes[child.index()]));
            // SAFETY: the directory writer is live and copies the name.
            let code = unsafe { ffi::sqfs_dir_writer_add_entry(listings, name.as_ptr(), number, reference, kind) };
            check("adding a directory entry", code)?;
        }
        // SAFETY: the directory writer is live.
        check("writing a directory", unsafe { ffi::sqfs_dir_writer_end(listings) })?;
        let parent = match tree.parent(directory) {
            _ if directory == Tree::ROOT => parent_of_root,
            Some(parent) => self.numbers[parent.index()],
            None => unreachable!("only directories have listings"),
        };
        let xattr = self.xattr_index(tree.nodes[directory.index()].xattrs)?;
        // SAFETY: the directory writer is live and has just ended a directory.
        let inode = unsafe { ffi::sqfs_dir_writer_create_inode(listings, 0, xattr, parent) };
        let inode = NonNull::new(inode).ok_or_else(|| Error::Output(std::io::ErrorKind::OutOfMemory.into()))?;
        self.pending.insert(directory, DirectoryInode(inode));
        Ok(())
    }

    fn id_index(&mut self, id: u32) -> Result<u16, Error> {
        if let Some(&index) = self.id_indices.get(&id) {
            return Ok(index);
        }
        let mut index = 0;
        // SAFETY: the id table is live; `index` is.
        let code = unsafe { ffi::sqfs_id_table_id_to_index(self.ids.as_ptr(), id, &raw mut index) };
        check("adding an owner", code)?;
        self.id_indices.insert(id, index);
        Ok(index)
    }

    /// The number that the archive knows a set of attributes by.
    fn xattr_index(&mut self, set: u32) -> Result<u32, Error> {
        if set == inode::NONE {
            return Ok(inode::NONE);
        }
        if let Some(index) = self.xattr_indices[set as usize] {
            return Ok(index);
        }
        const ACTION: &str = "adding extended attributes";
        let xattrs = self.xattrs.as_ptr();
        // SAFETY: the xattr writer is live.
        check(ACTION, unsafe { ffi::sqfs_xattr_writer_begin(xattrs, 0) })?;
        for (name, value) in &self.tree.xattrs[set as usize] {
            // The tree leaves out names with NUL.
            let Ok(name) = CString::new(&**name) else { unreachable!("an attribute without a name") };
            // SAFETY: the xattr writer is live and copies name and value.
            let code = unsafe { ffi::sqfs_xattr_writer_add(xattrs, name.as_ptr(), value.as_ptr().cast(), value.len()) };
            check(ACTION, code)?;
        }
        let mut index = 0;
        // SAFETY: the xattr writer is live; `index` is.
        check(ACTION, unsafe { ffi::sqfs_xattr_writer_end(xattrs, &raw mut index) })?;
        self.xattr_indices[set as usize] = Some(index);
        Ok(index)
    }

    /// Writes the tables in the order the format demands: inodes, directories, fragments, export, ids, xattrs.
    fn tables(&mut self) -> Result<(), Error> {
        let Some(root) = self.references[0] else { unreachable!("the root is written") };
        let number = self.numbers[0];
        let (file, compressor) = (self.writer.target.as_ptr(), self.writer.compressor.as_ptr());
        // SAFETY: the meta writers are live.
        unsafe {
            check("writing the inode table", ffi::sqfs_meta_writer_flush(self.inodes.as_ptr()))?;
            check("writing the directory table", ffi::sqfs_meta_writer_flush(self.directories.as_ptr()))?;
        }
        self.writer.superblock.root_inode_ref = root;
        self.writer.superblock.directory_table_start = self.writer.target.size();
        let fragments = self.writer.fragments.as_ptr();
        let sb = &raw mut self.writer.superblock;
        // SAFETY: every object is live, `sb` is the writer's superblock, and no reference to it is in use.
        unsafe {
            check("writing the directory table", ffi::sqfs_meta_write_write_to_file(self.directories.as_ptr()))?;
            check("writing the fragment table", ffi::sqfs_frag_table_write(fragments, file, sb, compressor))?;
            let listings = self.listings.as_ptr();
            let code = ffi::sqfs_dir_writer_write_export_table(listings, file, compressor, number, root, sb);
            check("writing the export table", code)?;
            check("writing the id table", ffi::sqfs_id_table_write(self.ids.as_ptr(), file, sb, compressor))?;
            check("writing the xattr table", ffi::sqfs_xattr_writer_flush(self.xattrs.as_ptr(), file, sb, compressor))
        }
    }
}

/// Offset of the first block and bytes left out as holes, from a file inode of libsquashfs.
fn blocks_of(inode: &ffi::Inode) -> (u64, u64) {
    let wide = |at: usize| u64::from(inode.data[at]) | u64::from(inode.data[at + 1]) << 32;
    // sqfs_inode_file_t begins with the 32-bit offset; sqfs_inode_file_ext_t has offset, size and sparse in 64.
    if inode.kind == ffi::INODE_FILE { (u64::from(inode.data[0]), 0) } else { (wide(0), wide(4)) }
}

/// Index and offset of the fragment, from a file inode of libsquashfs.
fn fragment_of(inode: &ffi::Inode) -> (u32, u32) {
    let at = if inode.kind == ffi::INODE_FILE { 1 } else { 7 };
    (inode.data[at], inode.data[at + 1])
}

/// The type as `st_mode` has it, which is how the directory writer wants it.
fn type_bits(node: &Node) -> u16 {
    match &node.body {
        Body::Directory { .. } | Body::Other(Kind::Directory) => 0o040_000,
        Body::Other(Kind::File(_)) => 0o100_000,
        Body::Other(Kind::Symlink(_)) => 0o120_000,
        Body::Other(Kind::BlockDevice { .. }) => 0o060_000,
        Body::Other(Kind::CharDevice { .. }) => 0o020_000,
        Body::Other(Kind::Fifo) => 0o010_000,
        Body::Other(Kind::Socket) => 0o140_000,
    }
}
