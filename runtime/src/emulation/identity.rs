//! Who a process believes to be, by the rules of the kernel (credentials(7)), and how the processes it starts come to
//! believe the same.
//!
//! The kernel knows one user and one group. What a program has set is kept by the supervisor; the process itself
//! carries the number of its identity in a place that the kernel hands on by fork and keeps across exec: the soft
//! limit of `RLIMIT_LOCKS`, which has had no other meaning since Linux 2.4.25. A guest that changes the limit changes
//! who it believes to be, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::sys::process;

/// The four IDs of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
    /// For file systems.
    pub files: u32,
}

impl Ids {
    fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn knows(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2), setgid(2).
    fn set(self, id: u32, privileged: bool) -> nix::Result<Self> {
        match () {
            () if privileged => Ok(Self::all(id)),
            () if id == self.real || id == self.saved => Ok(Self { effective: id, files: id, ..self }),
            () => Err(Errno::EPERM),
        }
    }

    /// setreuid(2), setregid(2).
    fn set_two(self, real: Option<u32>, effective: Option<u32>, privileged: bool) -> nix::Result<Self> {
        let allowed =
            real.is_none_or(|id| id == self.real || id == self.effective) && effective.is_none_or(|id| self.knows(id));
        if !privileged && !allowed {
            return Err(Errno::EPERM);
        }
        let now = effective.unwrap_or(self.effective);
        let keeps_saved = real.is_none() && effective.is_none_or(|id| id == self.real);
        let saved = if keeps_saved { self.saved } else { now };
        Ok(Self { real: real.unwrap_or(self.real), effective: now, saved, files: now })
    }

    /// setresuid(2), setresgid(2).
    fn set_three(self, ids: [Option<u32>; 3], privileged: bool) -> nix::Result<Self> {
        if !privileged && !ids.iter().flatten().all(|&id| self.knows(id)) {
            return Err(Errno::EPERM);
        }
        let effective = ids[1].unwrap_or(self.effective);
        let (real, saved) = (ids[0].unwrap_or(self.real), ids[2].unwrap_or(self.saved));
        Ok(Self { real, effective, saved, files: effective })
    }

    /// setfsuid(2), setfsgid(2): what is not allowed changes nothing.
    fn set_files(self, id: Option<u32>, privileged: bool) -> Self {
        match id {
            Some(id) if privileged || self.knows(id) || id == self.files => Self { files: id, ..self },
            _ => self,
        }
    }
}

/// All IDs of a process. The first one is root with no other groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// User IDs.
    pub user: Ids,
    /// Group IDs.
    pub group: Ids,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The program that keeps its capabilities when it becomes another user (`PR_SET_KEEPCAPS`), until it executes
    /// another.
    pub keeps: Option<Program>,
    /// The program that has kept them.
    pub capable: Option<Program>,
}

/// What tells a program from the next one that the same process executes: the address of its stack.
pub type Program = u64;

/// A change of IDs that a program asks for; `None` leaves one as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// setuid(2), setgid(2).
    One(u32),
    /// setreuid(2), setregid(2): real, effective.
    Two(Option<u32>, Option<u32>),
    /// setresuid(2), setresgid(2): real, effective, saved.
    Three([Option<u32>; 3]),
    /// setfsuid(2), setfsgid(2).
    Files(Option<u32>),
}

impl Identity {
    /// Whether the process may become anybody and change any file's owner.
    #[must_use]
    pub fn is_privileged(&self) -> bool {
        self.user.effective == 0 || self.capable.is_some()
    }

    /// The identity as the program that runs now has it.
    #[must_use]
    pub fn seen_by(mut self, program: Program) -> Self {
        self.keeps = self.keeps.filter(|&keeper| keeper == program);
        self.capable = self.capable.filter(|&capable| capable == program);
        self
    }

    /// The identity after a change of user or group IDs.
    ///
    /// # Errors
    /// `EPERM` when only root may make it.
    pub fn change(&self, user: bool, change: &Change) -> nix::Result<Self> {
        let privileged = self.is_privileged();
        let ids = if user { self.user } else { self.group };
        let ids = match *change {
            Change::One(id) => ids.set(id, privileged)?,
            Change::Two(real, effective) => ids.set_two(real, effective, privileged)?,
            Change::Three(three) => ids.set_three(three, privileged)?,
            Change::Files(id) => ids.set_files(id, privileged),
        };
        let mut changed = self.clone();
        *(if user { &mut changed.user } else { &mut changed.group }) = ids;
        if user && privileged && !changed.user.knows(0) {
            changed.capable = self.keeps;
        }
        Ok(changed)
    }

    /// The identity with other supplementary groups.
    ///
    /// # Errors
    /// `EPERM` when only root may set them.
    pub fn with_groups(&self, groups: Vec<u32>) -> nix::Result<Self> {
        if !self.is_privileged() {
            return Err(Errno::EPERM);
        }
        Ok(Self { groups, ..self.clone() })
    }

    /// Whether the process is in a group, as far as files are concerned.
    #[must_use]
    pub fn is_in(&self, group: u32) -> bool {
        self.group.files == group || self.groups.contains(&group)
    }
}

/// Added to the number of an identity in the limit: no limit that anybody sets comes near.
const MARK: u64 = 0x6669_6d00_0000_0000;
/// Most identities, and most supplementary groups of all of them, that the guests of an instance get remembered.
const MOST: usize = 1 << 16;
const MOST_GROUPS: usize = 1 << 20;

/// All identities that processes have taken.
#[derive(Debug, Default)]
pub struct Identities {
    all: Vec<Arc<Identity>>,
    numbers: HashMap<Arc<Identity>, u64>,
    groups: usize,
}

impl Identities {
    /// Who the process of a thread believes to be; `None` when it has set nothing: then the kernel's answers hold.
    #[must_use]
    pub fn of(&self, thread: Pid) -> Option<Arc<Identity>> {
        let limit = process::soft_limit(thread, libc::RLIMIT_LOCKS).ok()?;
        let number = usize::try_from(limit.checked_sub(MARK)?).ok()?;
        self.all.get(number).cloned()
    }

    /// Makes the process of a thread believe to be somebody else.
    ///
    /// # Errors
    /// `EAGAIN` when no more can be remembered, `EPERM` when the process has forbidden the change to itself (by a hard
    /// limit).
    pub fn assume(&mut self, thread: Pid, identity: Identity) -> nix::Result<()> {
        let number = self.number(identity)?;
        process::set_soft_limit(thread, libc::RLIMIT_LOCKS, MARK + number).map_err(|_| Errno::EPERM)
    }

    fn number(&mut self, identity: Identity) -> nix::Result<u64> {
        if let Some(number) = self.numbers.get(&identity) {
            return Ok(*number);
        }
        if self.all.len() >= MOST || self.groups + identity.groups.len() > MOST_GROUPS {
            return Err(Errno::EAGAIN);
        }
        self.groups += identity.groups.len();
        let (identity, number) = (Arc::new(identity), self.all.len() as u64);
        self.all.push(Arc::clone(&identity));
        self.numbers.insert(identity, number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(real: u32, effective: u32, saved: u32) -> Ids {
        Ids { real, effective, saved, files: effective }
    }

    #[test]
    fn root_becomes_anybody_and_nobody_becomes_root() {
        let root = Identity::default();
        let ann = root.change(true, &Change::One(1000)).unwrap();
        assert_eq!(ann.user, user(1000, 1000, 1000));
        for change in [
            Change::One(0),
            Change::Two(None, Some(0)),
            Change::Two(Some(0), None),
            Change::Three([None, Some(0), None]),
            Change::Three([None, None, Some(7)]),
        ] {
            assert_eq!(ann.change(true, &change), Err(Errno::EPERM), "{change:?}");
        }
        // Groups take the user's privilege.
        assert_eq!(ann.change(false, &Change::One(5)), Err(Errno::EPERM));
        assert_eq!(ann.with_groups(vec![]), Err(Errno::EPERM));
        assert_eq!(ann.change(true, &Change::Files(Some(0))).unwrap(), ann);
        assert!(root.change(false, &Change::One(5)).unwrap().is_in(5));
    }

    #[test]
    fn a_saved_id_is_a_way_back() {
        let root = Identity::default();
        let lowered = root.change(true, &Change::Three([None, Some(42), None])).unwrap();
        assert_eq!(lowered.user, user(0, 42, 0));
        assert!(!lowered.is_privileged());
        assert_eq!(lowered.change(true, &Change::One(0)).unwrap().user, user(0, 0, 0));
        let swapped = root.change(true, &Change::Two(Some(42), Some(0))).unwrap();
        assert_eq!(swapped.user, user(42, 0, 0));
        // The effective ID goes to the saved one when the real one is set, or the effective is not the real one.
        assert_eq!(root.change(true, &Change::Two(None, Some(42))).unwrap().user, user(0, 42, 42));
        assert_eq!(root.change(true, &Change::Two(Some(42), Some(42))).unwrap().user, user(42, 42, 42));
    }

    #[test]
    fn capabilities_are_kept_until_another_program_runs() {
        let root = Identity { keeps: Some(7), ..Identity::default() };
        let ann = root.change(true, &Change::Three([Some(1000); 3])).unwrap();
        assert!(ann.is_privileged());
        let with_group = ann.seen_by(7).change(false, &Change::One(50)).unwrap();
        assert_eq!(with_group.group.effective, 50);
        let next = with_group.seen_by(8);
        assert!(!next.is_privileged() && next.change(false, &Change::One(0)).is_err());
        assert!(!Identity::default().change(true, &Change::One(5)).unwrap().is_privileged());
    }

    #[test]
    fn numbers_are_shared_and_bounded() {
        let mut identities = Identities::default();
        let ann = Identity::default().change(true, &Change::One(1)).unwrap();
        let first = identities.number(ann.clone()).unwrap();
        assert_eq!(identities.number(ann), Ok(first));
        for id in 2..=MOST as u32 {
            identities.number(Identity { user: Ids::all(id), ..Identity::default() }).unwrap();
        }
        assert_eq!(
            identities.number(Identity { user: Ids::all(99), groups: vec![1], ..Identity::default() }),
            Err(Errno::EAGAIN)
        );
    }

    #[test]
    fn a_process_carries_its_identity() {
        let mut identities = Identities::default();
        let me = Pid::this();
        assert_eq!(identities.of(me), None);
        let ann = Identity::default().change(true, &Change::One(1)).unwrap();
        let before = process::soft_limit(me, libc::RLIMIT_LOCKS).unwrap();
        identities.assume(me, ann.clone()).unwrap();
        assert_eq!(identities.of(me).as_deref(), Some(&ann));
        process::set_soft_limit(me, libc::RLIMIT_LOCKS, MARK + 77).unwrap();
        assert_eq!(identities.of(me), None);
        process::set_soft_limit(me, libc::RLIMIT_LOCKS, before).unwrap();
    }
}
