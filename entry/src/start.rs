//! From the kernel's stack to the execution of the second stage.

use core::convert::Infallible;
use core::ffi::CStr;
use core::mem::{MaybeUninit, size_of};

use crate::bytes::{Text, after, equal};
use crate::file::{File, is_open};
use crate::image::Image;
use crate::kernel::{call, checked};
use crate::session::{self, PATH, SEALS};

/// Arguments of the second stage before the user's own (`boot/src/stage.rs`): its mark, the image's descriptor, the
/// image's path, which standard streams were closed, and the installation, which is the default one here.
const HIDDEN: usize = 5;

/// What the kernel gave to the program: the argument and the environment vector, each with a null pointer at its end.
pub(crate) struct Command {
    count: usize,
    arguments: *const usize,
    environment: *const usize,
}

impl Command {
    /// # Safety
    /// `stack` points to the argument count, with both vectors behind it, which live as long as the process.
    #[inline(always)]
    pub(crate) unsafe fn new(stack: *const usize) -> Self {
        // SAFETY: as promised by the caller; one null pointer stands between the vectors.
        unsafe {
            let count = stack.read();
            let arguments = stack.add(1);
            Self { count, arguments, environment: arguments.add(count + 1) }
        }
    }

    #[inline(always)]
    fn argument(&self, index: usize) -> Option<&[u8]> {
        // SAFETY: the vector has `count` pointers to strings.
        (index < self.count).then(|| unsafe { string(self.arguments.add(index).read()) })
    }

    /// The value of a variable; `name` ends with the equals sign.
    #[inline(always)]
    fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        let mut entry = self.environment;
        loop {
            // SAFETY: the vector has pointers to strings up to the null pointer.
            let pointer = unsafe { entry.read() };
            if pointer == 0 {
                return None;
            }
            // SAFETY: as above.
            if let Some(value) = after(unsafe { string(pointer) }, name) {
                return Some(value);
            }
            // SAFETY: this entry was not the last.
            entry = unsafe { entry.add(1) };
        }
    }

    /// The path that was executed, before symlinks were resolved.
    #[inline(always)]
    fn executed(&self) -> Option<&[u8]> {
        let mut entry = self.environment;
        // SAFETY: behind the null pointer at the end of the environment stand pairs of a kind and a value, the last of
        // which has the kind AT_NULL (getauxval(3)).
        unsafe {
            while entry.read() != 0 {
                entry = entry.add(1);
            }
            entry = entry.add(1);
            while entry.read() != libc::AT_EXECFN as usize {
                if entry.read() == libc::AT_NULL as usize {
                    return None;
                }
                entry = entry.add(2);
            }
            Some(string(entry.add(1).read()))
        }
    }

    /// Whether this may be about another installation than the default one (`runtime::installation`): a key is in the
    /// environment, or was executed through a link with an underscore in its name, or through the link of a key.
    #[inline(always)]
    fn may_have_key(&self, image: &[u8]) -> Option<bool> {
        if self.variable(b"FIM_INSTANCE_KEY=").is_some_and(|value| !value.is_empty()) {
            return Some(true);
        }
        let executed = self.executed()?;
        let (rest, name) = split_last(executed);
        let (data, holder) = split_last(rest);
        let keys = split_last(split_last(data).0).1;
        if equal(holder, b"image") && equal(keys.get(keys.len().saturating_sub(4)..)?, b"keys") {
            return Some(true);
        }
        let image = split_last(image).1;
        if equal(name, image) {
            return Some(false);
        }
        // Through a link: to the image itself, or to another link, which may have a key in its name.
        let mut place = [MaybeUninit::uninit(); libc::PATH_MAX as usize];
        let target = split_last(read_link(executed, &mut place)?).1;
        Some(name.iter().position(|&byte| byte == b'_').is_some() || !equal(target, image))
    }

    /// What this asks for; `None` when the C library's side has to decide.
    #[inline(always)]
    fn wish(&self) -> Option<Wish> {
        let Some(word) = self.argument(1) else { return Some(Wish::Start) };
        if after(word, b"fim\x01").is_some() {
            return None;
        }
        let asks_for_help = || self.argument(2).is_some_and(|word| equal(word, b"--help") || equal(word, b"-h"));
        match after(word, b"fim-") {
            None => Some(Wish::Start),
            Some(name) if (equal(name, b"exec") || equal(name, b"root")) && !asks_for_help() => Some(Wish::Start),
            Some(name) if equal(name, b"instance") && equal(self.argument(2)?, b"exec") => Some(Wish::Join),
            Some(_) => None,
        }
    }
}

/// The directory and the name of a path.
#[inline(always)]
fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    let split = path.iter().rposition(|&byte| byte == b'/').and_then(|at| Some((path.get(..at)?, path.get(at + 1..)?)));
    match split {
        Some(parts) => parts,
        None => (&[], path),
    }
}

/// What a command needs the image file to be free for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// An instance: `fim-exec`, `fim-root`, or the boot command.
    Start,
    /// A command in one (`fim-instance exec`): where no session lives, there is nothing to be done for long.
    Join,
}

/// # Safety
/// `pointer` is that of a string of the kernel's.
#[inline(always)]
unsafe fn string<'a>(pointer: usize) -> &'a [u8] {
    let start = pointer as *const u8;
    let mut len = 0;
    // SAFETY: the string has an end.
    while unsafe { start.add(len).read() } != 0 {
        len += 1;
    }
    // SAFETY: `len` bytes were read.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// Executes the second stage. `None` when this is no plain start, and nothing has changed then.
#[inline(always)]
pub(crate) fn become_second_stage(command: &Command) -> Option<Infallible> {
    let wish = command.wish()?;
    if !(is_open(0) && is_open(1) && is_open(2)) {
        return None;
    }
    let image = Image::open()?;
    let mut path = Text::<PATH>::new();
    read_own_path(&mut path)?;
    if command.may_have_key(path.as_bytes())? {
        return None;
    }
    let mut data = Text::<PATH>::new();
    match command.variable(b"FIM_DIR_DATA=").filter(|value| !value.is_empty()) {
        Some(chosen) => data.push(chosen)?,
        None => beside(path.as_bytes(), &mut data)?,
    };
    // Elsewhere there may be data, and a session, that only the complete search finds.
    if !session::is_used(data.as_bytes())? {
        return None;
    }
    let program = match session::program(data.as_bytes(), &image) {
        Some(program) => program,
        None if wish == Wish::Join => return None,
        None => image.file.sealed_copy(image.elf_len, SEALS)?,
    };
    path.push(b"\0")?;
    execute(command, &program, &image.file, path.as_bytes())
}

#[inline(always)]
fn read_own_path(path: &mut Text<PATH>) -> Option<()> {
    let mut place = [MaybeUninit::uninit(); libc::PATH_MAX as usize];
    let link = c"/proc/self/exe".to_bytes();
    path.push(read_link(link, &mut place)?)?;
    Some(())
}

/// What a link holds; behind `link` stands its end, a zero.
#[inline(always)]
fn read_link<'a>(link: &[u8], place: &'a mut [MaybeUninit<u8>; libc::PATH_MAX as usize]) -> Option<&'a [u8]> {
    let arguments = [libc::AT_FDCWD as usize, link.as_ptr() as usize, place.as_mut_ptr() as usize, place.len(), 0, 0];
    // SAFETY: the link's name is a string with its end, and the kernel writes into `place` only.
    let len = checked(unsafe { call(libc::SYS_readlinkat, arguments) })?;
    // One that fills the place may have been cut.
    let found = place.get(..len).filter(|found| found.len() < place.len())?;
    // SAFETY: the kernel has written these.
    Some(unsafe { core::slice::from_raw_parts(found.as_ptr().cast(), len) })
}

/// `.NAME.data` beside the image.
#[inline(always)]
fn beside<'a>(image: &[u8], data: &'a mut Text<PATH>) -> Option<&'a mut Text<PATH>> {
    let name = image.iter().rposition(|&byte| byte == b'/')? + 1;
    data.push(image.get(..name)?)?.push(b".")?.push(image.get(name..)?)?.push(b".data")
}

#[inline(always)]
fn execute(command: &Command, program: &File, image: &File, path: &[u8]) -> Option<Infallible> {
    let mut descriptor = Text::<24>::new();
    descriptor.push_number(image.descriptor() as u64)?.push(b"\0")?;
    // The name, the hidden arguments, the user's, and the null pointer at the end.
    let bytes = (command.count.max(1) + HIDDEN + 1).checked_mul(size_of::<usize>())?;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory; it is unmapped below, or with this program's end.
    let vector = checked(unsafe { call(libc::SYS_mmap, [0, bytes, access as usize, kind as usize, usize::MAX, 0]) })?
        as *mut usize;
    let mark: &CStr = c"fim\x01stage";
    let (streams, installation): (&CStr, &CStr) = (c"000", c"");
    let hidden: [*const u8; HIDDEN] = [
        mark.as_ptr().cast(),
        descriptor.as_bytes().as_ptr(),
        path.as_ptr(),
        streams.as_ptr().cast(),
        installation.as_ptr().cast(),
    ];
    // SAFETY: the vector has room for all of these; its last element is zero, as all of the memory was.
    unsafe {
        vector.write(if command.count == 0 { c"".as_ptr() as usize } else { command.arguments.read() });
        for (index, word) in hidden.iter().enumerate() {
            vector.add(1 + index).write(*word as usize);
        }
        for index in 1..command.count {
            vector.add(HIDDEN + index).write(command.arguments.add(index).read());
        }
    }
    let empty = c"".as_ptr() as usize;
    let (environment, flags) = (command.environment as usize, libc::AT_EMPTY_PATH as usize);
    // SAFETY: the vectors end with a null pointer, and their strings live. On success this does not return.
    unsafe {
        call(libc::SYS_execveat, [program.descriptor(), empty, vector as usize, environment, flags, 0]);
        call(libc::SYS_munmap, [vector as usize, bytes, 0, 0, 0, 0]);
    }
    None
}
