//! The filter that has the calls of [`super::calls`] wait for an answer.

use seccompiler::sock_filter;

use super::calls::{self, Condition, Name};
use crate::sandbox::bpf::{ARCHITECTURE, JUMP_EQUAL, JUMP_SET, NUMBER, allow, argument, give, jump, load, skip};

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xC000_003E; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xC000_00B7; // AUDIT_ARCH_AARCH64

/// The program. Other architectures pass: the filters of the sandbox say what becomes of them.
#[must_use]
pub fn program() -> Vec<sock_filter> {
    let i386 = list(calls::i386());
    let mut program = vec![load(ARCHITECTURE), jump(JUMP_EQUAL, calls::I386, 1, 0)];
    program.push(skip(i386.len()));
    program.extend(i386);
    program.extend([jump(JUMP_EQUAL, NATIVE, 1, 0), allow()]);
    program.extend(list(calls::native()));
    program
}

/// Each entry is followed by its own answer, so that no jump is long.
fn list(calls: impl Iterator<Item = (u32, Name)>) -> Vec<sock_filter> {
    let mut body = vec![load(NUMBER)];
    for (number, name) in calls {
        let Some((index, condition)) = calls::condition(name) else {
            body.extend([jump(JUMP_EQUAL, number, 0, 1), give(libc::SECCOMP_RET_USER_NOTIF)]);
            continue;
        };
        let (test, value) = match condition {
            Condition::Set(bits) => (JUMP_SET, bits),
            Condition::Equal(value) => (JUMP_EQUAL, value),
        };
        body.extend([
            jump(JUMP_EQUAL, number, 0, 4),
            load(argument(index)),
            jump(test, value, 0, 1),
            give(libc::SECCOMP_RET_USER_NOTIF),
            allow(),
        ]);
    }
    body.push(allow());
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_fits_and_every_jump_stays_inside() {
        let program = program();
        assert!(program.len() < 4096, "{} instructions", program.len());
        for (at, line) in program.iter().enumerate() {
            if line.code & 0x07 == 0x05 {
                let far = if line.code == 0x05 { line.k as usize } else { usize::from(line.jt.max(line.jf)) };
                assert!(at + 1 + far < program.len(), "instruction {at} leads out");
            }
        }
    }
}
