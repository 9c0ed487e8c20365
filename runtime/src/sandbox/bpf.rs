//! Instructions of classic BPF, and a search tree of them that finds the answer to a system call by its number.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, sock_filter};

use super::Error;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const SKIP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(crate) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(crate) const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K

/// Offsets into `struct seccomp_data` (linux/seccomp.h); the low half of an argument comes first on these machines.
pub(crate) const NUMBER: u32 = 0;
pub(crate) const ARCHITECTURE: u32 = 4;
pub(crate) const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

pub(crate) fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: offset }
}

pub(crate) fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Goes on after the next `count` instructions. A conditional jump reaches 255 of them only.
pub(crate) fn skip(count: usize) -> sock_filter {
    sock_filter { code: SKIP, jt: 0, jf: 0, k: count as u32 }
}

pub(crate) fn give(value: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: value }
}

pub(crate) fn allow() -> sock_filter {
    give(libc::SECCOMP_RET_ALLOW)
}

pub(crate) fn refuse(errno: i32) -> sock_filter {
    give(libc::SECCOMP_RET_ERRNO | errno as u32)
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn kill() -> sock_filter {
    give(libc::SECCOMP_RET_KILL_PROCESS)
}

/// What a call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This error number.
    Errno(i32),
    /// What the program at this place among the conditions says.
    Condition(usize),
}

/// Calls by their numbers; all others are allowed.
pub(crate) type Answers = BTreeMap<u32, Answer>;

/// A program that gives each call its answer.
///
/// # Errors
/// When there are more calls than its jumps can span.
pub(crate) fn by_number(answers: &Answers, conditions: &[BpfProgram]) -> Result<BpfProgram, Error> {
    let leaves: Vec<(u32, Answer)> = answers.iter().map(|(&call, &answer)| (call, answer)).collect();
    let tree = branch(&leaves)?;
    let mut program = vec![load(NUMBER)];
    // Where each condition begins, counted from the first instruction of the tree.
    let mut starts = Vec::new();
    let mut end = tree.len();
    for condition in conditions {
        starts.push(end);
        end += condition.len();
    }
    for (place, step) in tree.into_iter().enumerate() {
        program.push(match step {
            Step::Is(instruction) => instruction,
            Step::To(condition) => skip(starts[condition] - place - 1),
        });
    }
    program.extend(conditions.iter().flatten().cloned());
    Ok(program)
}

/// An instruction of the tree, which does not know yet where the conditions will be.
enum Step {
    Is(sock_filter),
    To(usize),
}

/// The tree of these calls, with the call's number in the accumulator.
fn branch(leaves: &[(u32, Answer)]) -> Result<Vec<Step>, Error> {
    match leaves {
        [] => Ok(vec![Step::Is(allow())]),
        [(call, answer)] => {
            let answer = match answer {
                Answer::Errno(errno) => Step::Is(refuse(*errno)),
                Answer::Condition(index) => Step::To(*index),
            };
            Ok(vec![Step::Is(jump(JUMP_EQUAL, *call, 0, 1)), answer, Step::Is(allow())])
        }
        _ => {
            let (low, high) = leaves.split_at(leaves.len() / 2);
            let below = branch(low)?;
            let over = u8::try_from(below.len())
                .map_err(|_| Error::Filter("more calls than a search tree can hold".to_owned()))?;
            let mut steps = vec![Step::Is(jump(JUMP_AT_LEAST, high[0].0, over, 0))];
            steps.extend(below);
            steps.extend(branch(high)?);
            Ok(steps)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program returns for a call with this number and nothing else.
    fn run(program: &BpfProgram, number: u32) -> u32 {
        let (mut place, mut value) = (0, 0);
        loop {
            let instruction = &program[place];
            place += 1;
            let (yes, no) = (usize::from(instruction.jt), usize::from(instruction.jf));
            match instruction.code {
                LOAD_WORD => value = if instruction.k == NUMBER { number } else { 0 },
                SKIP => place += instruction.k as usize,
                RETURN => return instruction.k,
                JUMP_EQUAL => place += if value == instruction.k { yes } else { no },
                JUMP_AT_LEAST => place += if value >= instruction.k { yes } else { no },
                other => panic!("instruction {other:#x} is not used here"),
            }
        }
    }

    #[test]
    fn every_number_finds_its_answer_and_no_other() {
        for count in [0, 1, 2, 3, 40, 80] {
            let mut answers: Answers =
                (0..count).map(|index| (index * 3 + 5, Answer::Errno(index as i32 + 1))).collect();
            answers.insert(1000, Answer::Condition(1));
            answers.insert(2000, Answer::Condition(0));
            let conditions = [vec![load(4), give(77)], vec![give(78)]];
            let program = by_number(&answers, &conditions).unwrap();
            for number in 0..2100 {
                let expected = match answers.get(&number) {
                    None => libc::SECCOMP_RET_ALLOW,
                    Some(Answer::Errno(errno)) => libc::SECCOMP_RET_ERRNO | *errno as u32,
                    Some(Answer::Condition(index)) => 77 + *index as u32,
                };
                assert_eq!(run(&program, number), expected, "{number} of {count}");
            }
        }
    }

    #[test]
    fn too_many_calls_are_refused() {
        let answers = (0..1000).map(|call| (call, Answer::Errno(1))).collect();
        assert!(by_number(&answers, &[]).is_err());
    }
}
