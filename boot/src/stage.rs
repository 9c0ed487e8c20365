//! How the program finds its image and frees the image file.
//!
//! A file that is being executed cannot be written (ETXTBSY). The program therefore executes itself again from a
//! sealed copy in memory that holds only the ELF part; the image goes along as an open descriptor. The second stage is
//! recognised by its own sealed executable, which nobody else can make it be, and a hidden first argument.
//!
//! A plain start does so in the `entry` crate, before the C library begins. What is done here is the same for all
//! other commands, and for starts that are not plain.

use std::ffi::{CString, NulError, OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use runtime::image::Image;
use runtime::installation::Installation;
use runtime::portal;
use runtime::sys::{descriptor, memfd, process, title};

use crate::{Failure, Invocation, Message, key};

/// First argument of the second stage; followed by the image's descriptor, its path, which streams were closed, and the
/// installation.
const SECOND_STAGE: &str = "fim\u{1}stage";
/// Number of hidden arguments, [`SECOND_STAGE`] included.
const HIDDEN: usize = 5;

/// What the program is.
#[derive(Debug)]
pub enum Stage {
    /// A program without a payload: the builder.
    Tool {
        /// The whole argument vector.
        args: Vec<OsString>,
    },
    /// A guest's `fim_portal`.
    PortalClient {
        /// The whole argument vector.
        args: Vec<OsString>,
    },
    /// An image.
    Image {
        /// Its command line.
        invocation: Box<Invocation>,
    },
}

/// Finds out what the program is. A first stage whose command needs the image file to be free does not return: it
/// becomes the second.
///
/// # Errors
/// When the program's own file cannot be read, or is a damaged image.
pub fn enter(args: Vec<OsString>) -> Result<Stage, Failure> {
    let closed = descriptor::fill_standard_streams()?;
    let exe = File::open("/proc/self/exe").map_err(|error| {
        Message::boxed(format!("cannot open /proc/self/exe: {error}; try: sudo mount -t proc proc /proc"))
    })?;
    if args.get(1).is_some_and(|word| word == SECOND_STAGE) && memfd::is_sealed_program(&exe) {
        return second(args);
    }
    if portal::is_client(&exe) {
        return Ok(Stage::PortalClient { args });
    }
    let path = std::fs::read_link("/proc/self/exe")?;
    let Some(image) = Image::open(exe, &path)? else { return Ok(Stage::Tool { args }) };
    let mut args = args.into_iter();
    let name = args.next().unwrap_or_default();
    let (installation, args) = key::choose(&path, args.collect())?;
    let mut invocation = Invocation { image, path, args, name, closed, installation, inherited: None, sealed: false };
    key::redirect(&invocation)?;
    if crate::cli::needs_free_file(&invocation.args) {
        // Returns only where executing the copy is forbidden; the file then stays busy while this start lives.
        free_the_file(&invocation)?;
    }
    warn_of_damage(&invocation.image);
    invocation.sealed = false;
    key::settle(&mut invocation)?;
    Ok(Stage::Image { invocation: Box::new(invocation) })
}

fn warn_of_damage(image: &Image) {
    if let Some(fault) = &image.slot_fault {
        crate::report(&format!(
            "warning: a config slot of {} is damaged ({fault}); the other one is used",
            image.path.display()
        ));
    }
}

/// Executes the sealed copy of the program with the same command line. Returns only where that is forbidden.
///
/// # Errors
/// When the image cannot be handed on.
pub(crate) fn free_the_file(invocation: &Invocation) -> Result<(), Failure> {
    let image = &invocation.image;
    let program = match crate::launch::session::program(invocation) {
        Some(program) => program,
        None => match memfd::copy_program(&image.file, image.elf_len()) {
            Ok(program) => program,
            Err(error) => {
                log::debug!("no sealed copy of the program: {error}");
                return Ok(());
            }
        },
    };
    descriptor::keep_across_exec(&*image.file)?;
    let argv = second_stage(invocation, &invocation.args)?;
    let env = std::env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    let errno = process::exec_descriptor(&program, &argv, &env);
    log::debug!("cannot execute the sealed copy of the program: {errno}");
    Ok(())
}

/// The words by which the sealed copy, which inherits the image's descriptor, becomes the image with these arguments.
///
/// # Errors
/// When a word holds a NUL byte.
pub(crate) fn second_stage(invocation: &Invocation, args: &[OsString]) -> Result<Vec<CString>, NulError> {
    let closed: String = invocation.closed.iter().map(|closed| if *closed { '1' } else { '0' }).collect();
    let hidden: [&OsStr; HIDDEN] = [
        OsStr::new(SECOND_STAGE),
        &OsString::from(invocation.image.file.as_raw_fd().to_string()),
        invocation.path.as_os_str(),
        OsStr::new(&closed),
        &invocation.installation.encode(),
    ];
    let words = std::iter::once(invocation.name.as_os_str()).chain(hidden).chain(args.iter().map(OsString::as_os_str));
    words.map(|word| CString::new(word.as_bytes())).collect()
}

fn second(args: Vec<OsString>) -> Result<Stage, Failure> {
    let broken = || Message::boxed("the program was started in a way it starts itself only; start the image file");
    let mut words = args.into_iter();
    let name = words.next().ok_or_else(broken)?;
    let mut hidden = words.by_ref().skip(1);
    let given = (hidden.next(), hidden.next(), hidden.next(), hidden.next());
    let (Some(fd), Some(path), Some(closed), Some(installation)) = given else { return Err(broken()) };
    let fd = fd.to_str().and_then(|fd| fd.parse().ok()).ok_or_else(broken)?;
    let path = PathBuf::from(path);
    let installation = Installation::decode(&installation, &path).ok_or_else(broken)?;
    let file = File::from(descriptor::adopt(fd)?);
    let args: Vec<OsString> = words.collect();
    show_as(&path, &name, &args);
    let image = Image::open(file, &path)?.ok_or_else(broken)?;
    warn_of_damage(&image);
    let mut streams = [false; 3];
    for (stream, bit) in streams.iter_mut().zip(closed.as_bytes()) {
        *stream = *bit == b'1';
    }
    let mut invocation =
        Invocation { image, path, args, name, closed: streams, installation, inherited: None, sealed: true };
    key::settle(&mut invocation)?;
    Ok(Stage::Image { invocation: Box::new(invocation) })
}

/// Makes ps(1) show what the user typed.
fn show_as(path: &Path, name: &OsStr, args: &[OsString]) {
    let mut shown = name.to_owned().into_vec();
    for word in args {
        shown.push(0);
        shown.extend_from_slice(word.as_bytes());
    }
    let short = path.file_name().unwrap_or(name).to_string_lossy();
    title::set(&short, &shown);
}
