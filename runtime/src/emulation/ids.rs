//! Calls that set or tell who a process is.

use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::calls::{Abi, Name};
use super::identity::{Change, Identity};
use super::target::Target;
use super::{Answer, Supervisor};

/// Most supplementary groups (`NGROUPS_MAX`).
const MOST_GROUPS: usize = 65_536;
/// What 16-bit calls tell of an ID that does not fit (`DEFAULT_OVERFLOWUID`).
const OVERFLOW: u32 = 65_534;

/// An ID among a call's arguments; `None` for -1, which leaves one as it is.
pub(super) fn id(argument: u64, abi: Abi) -> Option<u32> {
    match abi {
        Abi::I386Narrow => (argument as u16 != u16::MAX).then_some(u32::from(argument as u16)),
        _ => (argument as u32 != u32::MAX).then_some(argument as u32),
    }
}

/// An ID as a call tells it.
fn told(id: u32, abi: Abi) -> u32 {
    if abi == Abi::I386Narrow && id > u32::from(u16::MAX) { OVERFLOW } else { id }
}

/// Bytes that an ID takes in memory.
fn width(abi: Abi) -> usize {
    if abi == Abi::I386Narrow { 2 } else { 4 }
}

fn encode(ids: &[u32], abi: Abi) -> Vec<u8> {
    ids.iter().flat_map(|&id| told(id, abi).to_le_bytes()[..width(abi)].to_vec()).collect()
}

fn decode(bytes: &[u8], abi: Abi) -> Vec<u32> {
    let wide = |bytes: &[u8]| bytes.iter().rev().fold(0, |id, &byte| (id << 8) | u32::from(byte));
    bytes.chunks_exact(width(abi)).map(wide).collect()
}

impl Supervisor {
    /// Who the process of a thread believes to be.
    pub(super) fn identity(&self, target: &Target<'_>) -> Arc<Identity> {
        let known = self.identities.lock().ok().and_then(|identities| identities.of(target.call.thread));
        let known = known.unwrap_or_default();
        if known.keeps.is_none() && known.capable.is_none() {
            return known;
        }
        Arc::new(Identity::clone(&known).seen_by(target.program().unwrap_or_default()))
    }

    /// prctl(2) with `PR_SET_KEEPCAPS`, which the kernel does too.
    pub(super) fn keep_capabilities(&self, target: &Target<'_>) -> nix::Result<Answer> {
        let wanted = target.call.arguments[1] == 1;
        let mut identity = Identity::clone(&self.identity(target));
        if wanted != identity.keeps.is_some() {
            identity.keeps = if wanted { Some(target.program()?) } else { None };
            self.assume(target.call.thread, identity)?;
        }
        Ok(Answer::CarryOn)
    }

    fn assume(&self, thread: Pid, identity: Identity) -> nix::Result<()> {
        self.identities.lock().map_err(|_| Errno::EAGAIN)?.assume(thread, identity)
    }

    /// setuid(2) and its kin.
    pub(super) fn become_other(&self, target: &Target<'_>, name: Name, abi: Abi) -> nix::Result<Answer> {
        let [one, two, three] = [0, 1, 2].map(|index| id(target.call.arguments[index], abi));
        let before = self.identity(target);
        let (user, change) = match name {
            Name::Setuid => (true, Change::One(one.ok_or(Errno::EINVAL)?)),
            Name::Setgid => (false, Change::One(one.ok_or(Errno::EINVAL)?)),
            Name::Setreuid => (true, Change::Two(one, two)),
            Name::Setregid => (false, Change::Two(one, two)),
            Name::Setresuid => (true, Change::Three([one, two, three])),
            Name::Setresgid => (false, Change::Three([one, two, three])),
            Name::Setfsuid => (true, Change::Files(one)),
            _ => (false, Change::Files(one)),
        };
        let after = before.change(user, &change)?;
        if after != *before {
            self.assume(target.call.thread, after)?;
        }
        let ids = if user { before.user } else { before.group };
        Ok(Answer::Return(if matches!(change, Change::Files(_)) { i64::from(told(ids.files, abi)) } else { 0 }))
    }

    /// setgroups(2).
    pub(super) fn set_groups(&self, target: &Target<'_>, abi: Abi) -> nix::Result<Answer> {
        let count = target.call.arguments[0] as u32 as usize;
        if count > MOST_GROUPS {
            return Err(Errno::EINVAL);
        }
        let len = count * width(abi);
        let bytes = if len == 0 { Vec::new() } else { target.read(target.call.arguments[1], len)? };
        if bytes.len() != len {
            return Err(Errno::EFAULT);
        }
        let after = self.identity(target).with_groups(decode(&bytes, abi))?;
        self.assume(target.call.thread, after)?;
        Ok(Answer::Return(0))
    }

    /// getuid(2) and its kin: the kernel answers for whoever has set nothing.
    pub(super) fn tell(&self, target: &Target<'_>, name: Name, abi: Abi) -> nix::Result<Answer> {
        let known = self.identities.lock().ok().and_then(|identities| identities.of(target.call.thread));
        let Some(identity) = known else { return Ok(Answer::CarryOn) };
        let Identity { user, group, groups, .. } = &*identity;
        let value = match name {
            Name::Getuid => user.real,
            Name::Geteuid => user.effective,
            Name::Getgid => group.real,
            Name::Getegid => group.effective,
            Name::Getgroups => return tell_groups(target, groups, abi),
            _ => {
                let ids = if name == Name::Getresuid { user } else { group };
                for (index, id) in [ids.real, ids.effective, ids.saved].into_iter().enumerate() {
                    target.write(target.call.arguments[index], &encode(&[id], abi))?;
                }
                return Ok(Answer::Return(0));
            }
        };
        Ok(Answer::Return(i64::from(told(value, abi))))
    }
}

fn tell_groups(target: &Target<'_>, groups: &[u32], abi: Abi) -> nix::Result<Answer> {
    let room = target.call.arguments[0] as i32;
    if room < 0 || (room > 0 && (room as usize) < groups.len()) {
        return Err(Errno::EINVAL);
    }
    if room > 0 && !groups.is_empty() {
        target.write(target.call.arguments[1], &encode(groups, abi))?;
    }
    Ok(Answer::Return(groups.len() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_both_widths() {
        assert_eq!(id(u64::MAX, Abi::Native), None);
        assert_eq!(id(0xffff_ffff, Abi::I386), None);
        assert_eq!(id(0xffff, Abi::I386), Some(65_535));
        assert_eq!(id(0xffff, Abi::I386Narrow), None);
        assert_eq!(id(5, Abi::I386Narrow), Some(5));
        assert_eq!(encode(&[1, 70_000], Abi::I386Narrow), [1, 0, 0xfe, 0xff]);
        assert_eq!(encode(&[0x0102_0304], Abi::Native), [4, 3, 2, 1]);
        assert_eq!(decode(&[1, 0, 2, 1], Abi::I386Narrow), [1, 0x102]);
        assert_eq!(decode(&[4, 3, 2, 1], Abi::I386), [0x0102_0304]);
    }
}
