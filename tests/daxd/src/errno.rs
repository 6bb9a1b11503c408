// SPDX-License-Identifier: GPL-2.0

//! Names of error numbers, for the control socket and the counters.

use rustix::io::Errno;

/// The errors that tests ask for or that a file system answers.
const NAMES: &[(&str, Errno)] = &[
    ("EPERM", Errno::PERM),
    ("ENOENT", Errno::NOENT),
    ("EINTR", Errno::INTR),
    ("EIO", Errno::IO),
    ("ENXIO", Errno::NXIO),
    ("EBADF", Errno::BADF),
    ("EAGAIN", Errno::AGAIN),
    ("ENOMEM", Errno::NOMEM),
    ("EACCES", Errno::ACCESS),
    ("EFAULT", Errno::FAULT),
    ("EBUSY", Errno::BUSY),
    ("EEXIST", Errno::EXIST),
    ("EXDEV", Errno::XDEV),
    ("ENODEV", Errno::NODEV),
    ("ENOTDIR", Errno::NOTDIR),
    ("EISDIR", Errno::ISDIR),
    ("EINVAL", Errno::INVAL),
    ("ENFILE", Errno::NFILE),
    ("EMFILE", Errno::MFILE),
    ("ENOTTY", Errno::NOTTY),
    ("ETXTBSY", Errno::TXTBSY),
    ("EFBIG", Errno::FBIG),
    ("ENOSPC", Errno::NOSPC),
    ("ESPIPE", Errno::SPIPE),
    ("EROFS", Errno::ROFS),
    ("EMLINK", Errno::MLINK),
    ("ERANGE", Errno::RANGE),
    ("EDEADLK", Errno::DEADLK),
    ("ENAMETOOLONG", Errno::NAMETOOLONG),
    ("ENOLCK", Errno::NOLCK),
    ("ENOSYS", Errno::NOSYS),
    ("ENOTEMPTY", Errno::NOTEMPTY),
    ("ELOOP", Errno::LOOP),
    ("ENODATA", Errno::NODATA),
    ("EPROTO", Errno::PROTO),
    ("EOVERFLOW", Errno::OVERFLOW),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("ECONNABORTED", Errno::CONNABORTED),
    ("ECONNRESET", Errno::CONNRESET),
    ("ENOTCONN", Errno::NOTCONN),
    ("ETIMEDOUT", Errno::TIMEDOUT),
    ("ESTALE", Errno::STALE),
    ("EDQUOT", Errno::DQUOT),
];

/// The error's name, or its number where it has none here.
pub fn name(errno: Errno) -> String {
    match NAMES.iter().find(|(_, known)| *known == errno) {
        Some((name, _)) => (*name).to_owned(),
        None => errno.raw_os_error().to_string(),
    }
}

/// The error that `name` means.
pub fn parse(name: &str) -> Option<Errno> {
    let known = NAMES.iter().find(|(known, _)| *known == name);
    known.map(|(_, errno)| *errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        assert_eq!(parse("ESTALE"), Some(Errno::STALE));
        assert_eq!(name(Errno::STALE), "ESTALE");
        assert_eq!(parse("E"), None);
    }
}
