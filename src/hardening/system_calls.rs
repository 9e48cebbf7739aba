//! The system calls that the process gives up, by seccomp. Floor 5.
//!
//! The list is of what is forbidden, not of what is allowed: which calls a C library makes changes with its version and with the
//! modules that look names up, and one that is missing from a list of allowed ones ends sessions on the machine of somebody else. What
//! is forbidden is what leasehold never does and an attacker would: run a program, look into or control another process, change
//! namespaces, mounts, the clock, keys or the kernel, make memory executable, and open sockets of other families.
//!
//! Source: <https://docs.kernel.org/userspace-api/seccomp_filter.html>

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// Forbids them to this thread, and to those that it will start.
///
/// # Errors
/// The kernel has no seccomp, another filter forbids this one, or the processor is unknown to the compiler of filters.
pub(super) fn forbid() -> io::Result<()> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    rules.extend(by_argument()?);
    install(rules, libc::EPERM)?;
    // Its flags are in memory, where no filter sees them. The C library then takes clone.
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> io::Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(with_twins(rules), SeccompAction::Allow, refuse, arch);
    let program = filter.and_then(BpfProgram::try_from).map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

/// On x86-64 each call has a second number, with which it takes pointers of 32 bits.
#[cfg(target_arch = "x86_64")]
fn with_twins(rules: BTreeMap<i64, Vec<SeccompRule>>) -> BTreeMap<i64, Vec<SeccompRule>> {
    const X32: i64 = 0x4000_0000;
    // execve, ptrace, kexec_load, process_vm_readv, process_vm_writev, execveat
    const OWN: [i64; 6] = [520, 521, 528, 539, 540, 545];
    let twins: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
    rules.into_iter().chain(twins).chain(OWN.map(|call| (call | X32, Vec::new()))).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn with_twins(rules: BTreeMap<i64, Vec<SeccompRule>>) -> BTreeMap<i64, Vec<SeccompRule>> {
    rules
}

/// Those that are forbidden with some arguments only.
fn by_argument() -> io::Result<Vec<(i64, Vec<SeccompRule>)>> {
    let executable = masked(2, EXECUTABLE, EXECUTABLE)?;
    let writable_and_executable = masked(2, WRITABLE | EXECUTABLE, WRITABLE | EXECUTABLE)?;
    let other_families: Vec<_> = FAMILIES
        .into_iter()
        .map(|family| condition(0, SeccompCmpOp::Ne, family))
        .collect::<io::Result<_>>()?;
    let of_terminals = TERMINALS.map(|request| rule(vec![condition(1, SeccompCmpOp::Eq, request)?]));
    Ok(vec![
        // A new process; a thread is none.
        (libc::SYS_clone, vec![masked(0, u64::from(libc::CLONE_THREAD.cast_unsigned()), 0)?]),
        (libc::SYS_mmap, vec![writable_and_executable]),
        (libc::SYS_mprotect, vec![executable.clone()]),
        (libc::SYS_pkey_mprotect, vec![executable]),
        (libc::SYS_socket, vec![rule(other_families)?]),
        (libc::SYS_ioctl, of_terminals.into_iter().collect::<io::Result<_>>()?),
    ])
}

/// These bits of an argument have this value.
fn masked(argument: u8, bits: u64, value: u64) -> io::Result<SeccompRule> {
    rule(vec![condition(argument, SeccompCmpOp::MaskedEq(bits), value)?])
}

fn condition(argument: u8, operation: SeccompCmpOp, value: impl Into<u64>) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value.into())
        .map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

const WRITABLE: u64 = 2;
const EXECUTABLE: u64 = 4;

/// AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK, by which the C library asks for the machine's addresses.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];

/// TIOCSTI, which types into a terminal, and TIOCLINUX, which pastes into a console. Their type differs between C libraries.
const TERMINALS: [u64; 2] = [0x5412, 0x541c];

/// Never made, whatever the arguments.
const NEVER: &[i64] = &[
    // Programs, and other processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    libc::SYS_mknodat,
    // The kernel, and what it is attacked by.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_memfd_create,
    libc::SYS_syslog,
    libc::SYS_acct,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    // The machine.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
];

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn the_requests_of_terminals_have_the_numbers_of_the_c_library() {
        assert_eq!(TERMINALS, [libc::TIOCSTI, libc::TIOCLINUX]);
    }

    #[test]
    fn no_program_no_process_and_no_other_sockets_but_threads_and_names() {
        // A filter is a thread's own, so a thread of the test gets it.
        let filtered = thread::spawn(|| {
            forbid().unwrap();
            // Name look-ups, threads and their memory are as before.
            let names = std::net::ToSocketAddrs::to_socket_addrs("localhost:1").unwrap().count();
            assert!(names > 0);
            assert_eq!(thread::spawn(|| 42).join().unwrap(), 42);
            for family in [Domain::IPV4, Domain::IPV6, Domain::UNIX] {
                Socket::new(family, Type::STREAM, None).unwrap();
            }
            let errno = |error: io::Error| error.raw_os_error();
            [
                Command::new("/proc/self/exe").arg("--list").spawn().map(drop).map_err(errno),
                // Of packets; of the kernel's ciphers.
                Socket::new(Domain::from(17), Type::RAW, None).map(drop).map_err(errno),
                Socket::new(Domain::from(38), Type::from(5), None).map(drop).map_err(errno),
                rustix::process::chroot("/").map_err(|error| Some(error.raw_os_error())),
            ]
        });
        assert_eq!(filtered.join().unwrap(), [Err(Some(libc::EPERM)); 4]);
    }
}
