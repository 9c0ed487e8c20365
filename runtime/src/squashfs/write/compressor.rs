//! The `sqfs_compressor_t` of this crate: zstd at a chosen level.
//!
//! Our own, so that neither libsquashfs's compressor objects nor the libraries behind them are linked.

use super::ffi;
use std::ffi::c_int;
use std::ptr::NonNull;
use zstd_safe::CCtx;

#[repr(C)]
struct State {
    /// First, so that a pointer to the state is a pointer to the `sqfs_compressor_t`.
    interface: ffi::Compressor,
    context: CCtx<'static>,
    level: i32,
    block_size: u32,
}

/// Owns one compressor; libsquashfs borrows it through [`Zstd::as_ptr`] and copies it for each worker.
pub struct Zstd(NonNull<State>);

impl Zstd {
    /// A compressor at zstd `level`, or `None` when there is no memory for its context.
    pub fn new(level: i32, block_size: u32) -> Option<Self> {
        Some(Self(NonNull::from(Box::leak(state(level, block_size)?))))
    }

    /// The interface for libsquashfs; valid as long as `self` lives.
    pub fn as_ptr(&self) -> *mut ffi::Compressor {
        self.0.as_ptr().cast()
    }
}

impl Drop for Zstd {
    fn drop(&mut self) {
        // SAFETY: leaked in `new`, given back exactly once; the writer drops every libsquashfs object that
        // knows the pointer before this, and workers use copies.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

fn state(level: i32, block_size: u32) -> Option<Box<State>> {
    Some(Box::new(State {
        interface: ffi::Compressor {
            base: ffi::Object { destroy: Some(destroy), copy: Some(copy) },
            get_configuration,
            write_options,
            read_options,
            do_block,
        },
        context: CCtx::try_create()?,
        level,
        block_size,
    }))
}

/// Called by libsquashfs for the copies it made; the original is freed by `Zstd::drop`.
unsafe extern "C" fn destroy(object: *mut ffi::Object) {
    // SAFETY: `object` is the leaked box of `copy` below, and libsquashfs destroys a copy exactly once.
    drop(unsafe { Box::from_raw(object.cast::<State>()) });
}

unsafe extern "C" fn copy(object: *const ffi::Object) -> *mut ffi::Object {
    // SAFETY: `object` is a compressor of this module, alive during the call.
    let (level, block_size) = unsafe { ((*object.cast::<State>()).level, (*object.cast::<State>()).block_size) };
    state(level, block_size).map_or(std::ptr::null_mut(), |copy| Box::into_raw(copy).cast())
}

unsafe extern "C" fn get_configuration(compressor: *const ffi::Compressor, config: *mut ffi::CompressorConfig) {
    // SAFETY: `compressor` is one of this module; `config` is room for a configuration, which plain integers
    // make valid whatever was in it.
    unsafe {
        let state = &*compressor.cast::<State>();
        config.write(ffi::CompressorConfig {
            id: ffi::COMP_ZSTD as u16,
            flags: 0,
            block_size: state.block_size,
            level: state.level.unsigned_abs(),
            options: [0; 2],
        });
    }
}

/// Never called: the writer puts the options block into the archive itself.
unsafe extern "C" fn write_options(_: *mut ffi::Compressor, _: *mut ffi::File) -> c_int {
    ffi::ERROR_UNSUPPORTED
}

/// Never called: this compressor does not decompress.
unsafe extern "C" fn read_options(_: *mut ffi::Compressor, _: *mut ffi::File) -> c_int {
    ffi::ERROR_UNSUPPORTED
}

/// Returns the compressed length, or 0 when the block does not get smaller and is stored as it is.
unsafe extern "C" fn do_block(
    compressor: *mut ffi::Compressor,
    input: *const u8,
    size: u32,
    output: *mut u8,
    room: u32,
) -> i32 {
    // SAFETY: `compressor` is one of this module, and each worker has its own copy, so nobody else uses it now.
    let state = unsafe { &mut *compressor.cast::<State>() };
    if size == 0 {
        return 0;
    }
    // A result that is not smaller than the input is worthless; zstd may stop as soon as it gets there.
    let room = room.min(size - 1) as usize;
    // SAFETY: the contract of `do_block`: `input` holds `size` initialised bytes and `output` has room for
    // `room` bytes; the two do not overlap. zstd only writes to the output.
    let (input, output) =
        unsafe { (std::slice::from_raw_parts(input, size as usize), std::slice::from_raw_parts_mut(output, room)) };
    match state.context.compress(output, input, state.level) {
        Ok(length) => i32::try_from(length).unwrap_or(ffi::ERROR_COMPRESSOR),
        // The code is zstd's negated error number; 70 is ZSTD_error_dstSize_tooSmall (zstd_errors.h, stable).
        Err(code) if code == 70_usize.wrapping_neg() => 0,
        Err(_) => ffi::ERROR_COMPRESSOR,
    }
}
