//! Hand-written bindings for the part of libsquashfs 1.x that writing needs.
//!
//! Source: the public headers `sqfs/*.h` of squashfs-tools-ng 1.2.0. Within major version 1 they are a
//! stable ABI; the layout test at the end holds the sizes a C compiler reports for them.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::marker::{PhantomData, PhantomPinned};

/// `sqfs_object_t`: what every libsquashfs object begins with.
#[repr(C)]
pub struct Object {
    pub destroy: Option<unsafe extern "C" fn(*mut Object)>,
    pub copy: Option<unsafe extern "C" fn(*const Object) -> *mut Object>,
}

/// `sqfs_file_t`: where libsquashfs reads and writes the archive.
#[repr(C)]
pub struct File {
    pub base: Object,
    pub read_at: unsafe extern "C" fn(*mut File, u64, *mut c_void, usize) -> c_int,
    pub write_at: unsafe extern "C" fn(*mut File, u64, *const c_void, usize) -> c_int,
    pub get_size: unsafe extern "C" fn(*const File) -> u64,
    pub truncate: unsafe extern "C" fn(*mut File, u64) -> c_int,
}

/// `sqfs_compressor_t`: turns one block into a smaller one.
#[repr(C)]
pub struct Compressor {
    pub base: Object,
    pub get_configuration: unsafe extern "C" fn(*const Compressor, *mut CompressorConfig),
    pub write_options: unsafe extern "C" fn(*mut Compressor, *mut File) -> c_int,
    pub read_options: unsafe extern "C" fn(*mut Compressor, *mut File) -> c_int,
    pub do_block: unsafe extern "C" fn(*mut Compressor, *const u8, u32, *mut u8, u32) -> i32,
}

/// `sqfs_compressor_config_t`.
#[repr(C)]
pub struct CompressorConfig {
    pub id: u16,
    pub flags: u16,
    pub block_size: u32,
    pub level: u32,
    pub options: [u64; 2],
}

/// `sqfs_block_processor_desc_t`.
#[repr(C)]
pub struct BlockProcessorDesc {
    pub size: u32,
    pub max_block_size: u32,
    pub num_workers: u32,
    pub max_backlog: u32,
    pub cmp: *mut Compressor,
    pub wr: *mut BlockWriter,
    pub tbl: *mut FragTable,
    pub file: *mut File,
    pub uncmp: *mut Compressor,
}

/// `sqfs_inode_generic_t`; the flexible array `extra` follows it in memory. `data` is the union of the
/// type-specific parts, seen as 32-bit words.
#[repr(C, align(8))]
pub struct Inode {
    pub kind: u16,
    pub mode: u16,
    pub uid_idx: u16,
    pub gid_idx: u16,
    pub mod_time: u32,
    pub inode_number: u32,
    pub payload_bytes_available: u32,
    pub payload_bytes_used: u32,
    pub data: [u32; 10],
}

/// `sqfs_super_t`, in host byte order.
#[repr(C)]
#[derive(Default)]
pub struct Super {
    pub magic: u32,
    pub inode_count: u32,
    pub modification_time: u32,
    pub block_size: u32,
    pub fragment_entry_count: u32,
    pub compression_id: u16,
    pub block_log: u16,
    pub flags: u16,
    pub id_count: u16,
    pub version_major: u16,
    pub version_minor: u16,
    pub root_inode_ref: u64,
    pub bytes_used: u64,
    pub id_table_start: u64,
    pub xattr_id_table_start: u64,
    pub inode_table_start: u64,
    pub directory_table_start: u64,
    pub fragment_table_start: u64,
    pub export_table_start: u64,
}

macro_rules! opaque {
    ($($name:ident)*) => {$(
        /// Opaque object of libsquashfs; begins with an [`Object`].
        #[repr(C)]
        pub struct $name {
            _bytes: [u8; 0],
            _marker: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}
opaque!(BlockProcessor BlockWriter FragTable IdTable XattrWriter MetaWriter DirWriter);

/// `SQFS_COMP_ZSTD`.
pub const COMP_ZSTD: u32 = 6;
/// `SQFS_FLAG_COMPRESSOR_OPTIONS` of the superblock.
pub const FLAG_COMPRESSOR_OPTIONS: u16 = 0x0400;
/// `SQFS_META_WRITER_KEEP_IN_MEMORY`.
pub const META_WRITER_KEEP_IN_MEMORY: u32 = 1;
/// `SQFS_DIR_WRITER_CREATE_EXPORT_TABLE`.
pub const DIR_WRITER_EXPORT_TABLE: u32 = 1;
/// `SQFS_BLK_DONT_COMPRESS`.
pub const BLK_DONT_COMPRESS: u32 = 0x0001;
/// `SQFS_BLK_DONT_FRAGMENT`.
pub const BLK_DONT_FRAGMENT: u32 = 0x0004;
/// `SQFS_BLK_DONT_DEDUPLICATE`.
pub const BLK_DONT_DEDUPLICATE: u32 = 0x0008;

/// `SQFS_INODE_DIR`.
pub const INODE_DIR: u16 = 1;
/// `SQFS_INODE_FILE`.
pub const INODE_FILE: u16 = 2;

/// `SQFS_ERROR_IO`.
pub const ERROR_IO: c_int = -2;
/// `SQFS_ERROR_COMPRESSOR`.
pub const ERROR_COMPRESSOR: c_int = -3;
/// `SQFS_ERROR_UNSUPPORTED`.
pub const ERROR_UNSUPPORTED: c_int = -6;

unsafe extern "C" {
    pub fn sqfs_free(pointer: *mut c_void);

    pub fn sqfs_super_init(sb: *mut Super, block_size: usize, mtime: u32, compressor: c_uint) -> c_int;
    pub fn sqfs_super_write(sb: *const Super, file: *mut File) -> c_int;

    pub fn sqfs_block_writer_create(file: *mut File, devblksz: usize, flags: u32) -> *mut BlockWriter;
    pub fn sqfs_block_processor_create_ex(desc: *const BlockProcessorDesc, out: *mut *mut BlockProcessor) -> c_int;
    pub fn sqfs_block_processor_begin_file(
        processor: *mut BlockProcessor,
        inode: *mut *mut Inode,
        user: *mut c_void,
        flags: u32,
    ) -> c_int;
    pub fn sqfs_block_processor_append(processor: *mut BlockProcessor, data: *const c_void, size: usize) -> c_int;
    pub fn sqfs_block_processor_end_file(processor: *mut BlockProcessor) -> c_int;
    pub fn sqfs_block_processor_finish(processor: *mut BlockProcessor) -> c_int;

    pub fn sqfs_frag_table_create(flags: u32) -> *mut FragTable;
    pub fn sqfs_frag_table_write(t: *mut FragTable, file: *mut File, sb: *mut Super, cmp: *mut Compressor) -> c_int;

    pub fn sqfs_id_table_create(flags: u32) -> *mut IdTable;
    pub fn sqfs_id_table_id_to_index(table: *mut IdTable, id: u32, out: *mut u16) -> c_int;
    pub fn sqfs_id_table_write(t: *mut IdTable, file: *mut File, sb: *mut Super, cmp: *mut Compressor) -> c_int;

    pub fn sqfs_xattr_writer_create(flags: u32) -> *mut XattrWriter;
    pub fn sqfs_xattr_writer_begin(writer: *mut XattrWriter, flags: u32) -> c_int;
    pub fn sqfs_xattr_writer_add(
        writer: *mut XattrWriter,
        key: *const c_char,
        value: *const c_void,
        size: usize,
    ) -> c_int;
    pub fn sqfs_xattr_writer_end(writer: *mut XattrWriter, out: *mut u32) -> c_int;
    pub fn sqfs_xattr_writer_flush(
        writer: *const XattrWriter,
        file: *mut File,
        sb: *mut Super,
        cmp: *mut Compressor,
    ) -> c_int;

    pub fn sqfs_write_table(
        file: *mut File,
        cmp: *mut Compressor,
        data: *const c_void,
        table_size: usize,
        start: *mut u64,
    ) -> c_int;

    pub fn sqfs_meta_writer_create(file: *mut File, cmp: *mut Compressor, flags: u32) -> *mut MetaWriter;
    pub fn sqfs_meta_writer_flush(writer: *mut MetaWriter) -> c_int;
    pub fn sqfs_meta_writer_append(writer: *mut MetaWriter, data: *const c_void, size: usize) -> c_int;
    pub fn sqfs_meta_writer_get_position(writer: *const MetaWriter, block_start: *mut u64, offset: *mut u32);
    pub fn sqfs_meta_write_write_to_file(writer: *mut MetaWriter) -> c_int;
    pub fn sqfs_meta_writer_write_inode(writer: *mut MetaWriter, inode: *const Inode) -> c_int;

    pub fn sqfs_dir_writer_create(meta: *mut MetaWriter, flags: u32) -> *mut DirWriter;
    pub fn sqfs_dir_writer_begin(writer: *mut DirWriter, flags: u32) -> c_int;
    pub fn sqfs_dir_writer_add_entry(
        writer: *mut DirWriter,
        name: *const c_char,
        inode_num: u32,
        inode_ref: u64,
        mode: u16,
    ) -> c_int;
    pub fn sqfs_dir_writer_end(writer: *mut DirWriter) -> c_int;
    pub fn sqfs_dir_writer_create_inode(
        writer: *const DirWriter,
        hlinks: usize,
        xattr: u32,
        parent_ino: u32,
    ) -> *mut Inode;
    pub fn sqfs_dir_writer_write_export_table(
        writer: *mut DirWriter,
        file: *mut File,
        cmp: *mut Compressor,
        root_inode_num: u32,
        root_inode_ref: u64,
        sb: *mut Super,
    ) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{align_of, offset_of, size_of};

    /// Numbers printed by a C program that includes the headers of 1.2.0 on x86-64.
    #[test]
    fn layouts_match_the_headers() {
        assert_eq!((size_of::<Object>(), align_of::<Object>()), (16, 8));
        assert_eq!((size_of::<File>(), align_of::<File>()), (48, 8));
        assert_eq!((size_of::<Compressor>(), align_of::<Compressor>()), (48, 8));
        assert_eq!((size_of::<CompressorConfig>(), align_of::<CompressorConfig>()), (32, 8));
        assert_eq!((size_of::<BlockProcessorDesc>(), align_of::<BlockProcessorDesc>()), (56, 8));
        assert_eq!(offset_of!(BlockProcessorDesc, cmp), 16);
        assert_eq!(offset_of!(BlockProcessorDesc, uncmp), 48);
        assert_eq!((size_of::<Inode>(), align_of::<Inode>()), (64, 8));
        assert_eq!(offset_of!(Inode, data), 24);
        assert_eq!((size_of::<Super>(), align_of::<Super>()), (96, 8));
        assert_eq!(offset_of!(Super, root_inode_ref), 32);
    }
}
