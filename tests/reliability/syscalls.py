"""System calls of Linux on x86-64: which change files, and by which arguments, and which change none.

A call on neither list is reported when it is made, so that a new one is looked at before the counts are believed.
"""

CHANGING = {
    # By number: name, and its arguments: `f` a file descriptor, `p` a path, `d` the folder of the path behind it, `-` others
    1: ("write", "f"),
    18: ("pwrite64", "f"),
    20: ("writev", "f"),
    296: ("pwritev", "f"),
    328: ("pwritev2", "f"),
    40: ("sendfile", "f"),
    326: ("copy_file_range", "--f"),
    275: ("splice", "--f"),
    9: ("mmap", "----f"),
    26: ("msync", ""),
    2: ("open", "p"),
    85: ("creat", "p"),
    257: ("openat", "dp"),
    437: ("openat2", "dp"),
    82: ("rename", "pp"),
    264: ("renameat", "dpdp"),
    316: ("renameat2", "dpdp"),
    86: ("link", "pp"),
    265: ("linkat", "dpdp"),
    88: ("symlink", "-p"),
    266: ("symlinkat", "-dp"),
    87: ("unlink", "p"),
    263: ("unlinkat", "dp"),
    83: ("mkdir", "p"),
    258: ("mkdirat", "dp"),
    84: ("rmdir", "p"),
    133: ("mknod", "p"),
    259: ("mknodat", "dp"),
    76: ("truncate", "p"),
    77: ("ftruncate", "f"),
    285: ("fallocate", "f"),
    74: ("fsync", "f"),
    75: ("fdatasync", "f"),
    277: ("sync_file_range", "f"),
    306: ("syncfs", "f"),
    90: ("chmod", "p"),
    91: ("fchmod", "f"),
    268: ("fchmodat", "dp"),
    452: ("fchmodat2", "dp"),
    92: ("chown", "p"),
    93: ("fchown", "f"),
    94: ("lchown", "p"),
    260: ("fchownat", "dp"),
    132: ("utime", "p"),
    235: ("utimes", "p"),
    261: ("futimesat", "dp"),
    280: ("utimensat", "dp"),
    188: ("setxattr", "p"),
    190: ("fsetxattr", "f"),
}
KINDS = {number: name for number, (name, _) in CHANGING.items()}
GIVEN = dict(CHANGING.values())
NAMES = {name: number for number, name in KINDS.items()}

# Looked at only if one argument has one of some bits: to make or cut a file (O_CREAT, O_TRUNC), to share a mapping
CREATES = {"open": (1, 0o1100), "openat": (2, 0o1100), "mmap": (3, 1)}

# By name in Linux's own list: read, close, stat, fstat, lstat, poll, lseek; mprotect, munmap, brk, signals, ioctl,
# pread64, readv, access, pipe, select, sched_yield, mremap, mincore, madvise, dup, dup2, pause, timers, getpid;
# sockets; clone, fork, vfork, execve, exit, wait4, kill, uname, fcntl, flock, getdents, getcwd, chdir, fchdir;
# readlink, umask, what asks for the time, limits, users and groups, sessions; sigaltstack, prctl, arch_prctl,
# setrlimit, gettid, time, futex, affinity, epoll, getdents64, set_tid_address, fadvise64, clocks, exit_group, tgkill,
# inotify, newfstatat, readlinkat, faccessat, pselect6, ppoll, set_robust_list, eventfd, accept4, epoll_create1, dup3,
# pipe2, prlimit64, getcpu, getrandom, memfd_create, membarrier, statx, rseq, pidfd_open, clone3, faccessat2,
# epoll_pwait2, getxattr
HARMLESS = (
    0, 3, 4, 5, 6, 7, 8, *range(10, 18), 19, 21, 22, 23, 24, 25, 27, 28, *range(32, 40), *range(41, 64), 72, 73, 78, 79,
    80, 81, 89, 95, 96, 97, 98, 99, 100, 102, 104, 107, 108, 109, 110, 111, 112, 115, 118, 120, 121, 124, 131,
    *range(140, 149), 157, 158, 160, 186, 191, 192, 193, 200, 201, 202, 203, 204, 213, 217, 218, 221, *range(222, 236 -
    1), 247, 253, 254, 255, 262, 267, 269, 270, 271, 273, 274, 281, 283, 284, 286, 287, 288, 289, 290, 291, 292, 293,
    294, 299, 302, 307, 309, 314, 315, 317, 318, 319, 324, 332, 334, 424, 434, 435, 436, 439, 441, 449,
)  # fmt: skip
