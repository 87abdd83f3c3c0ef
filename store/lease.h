/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lease.h - leases find the writers that no lock can see (P1).
 *
 * A read lease is refused while anybody has the file open or mapped for writing. It is proof on the filesystems that
 * npk__lease_fs_proves() names; elsewhere a lease may be granted although a writer lives. While a lease is held, an
 * open for writing by anybody waits in the kernel until it is dropped: hold it shortly, look at npk__lease_holds()
 * at least every 100 ms and give up when it says no. No signal is ever sent to the process.
 */
#ifndef NPK_LEASE_H
#define NPK_LEASE_H

#include <stdbool.h>

/* ro_fd: opened O_RDONLY. 0: held; -EAGAIN: a writer lives; -ENOTSUP: no word (no leases here, or not our file). */
int npk__lease_take(int ro_fd);
/* The same for a lease that also finds other readers; -EAGAIN: somebody else has it open or mapped. */
int npk__lease_take_exclusive(int ro_fd);
/* Is the lease held and is nobody breaking it? */
bool npk__lease_holds(int ro_fd);
void npk__lease_drop(int ro_fd);

/* Take and drop. 0: no writer at this moment; -EBUSY: a writer lives; -ENOTSUP: leases prove nothing for this file. */
int npk__lease_probe(int ro_fd);

/* Does a lease prove anything on the filesystem of fd, judged by its type: ext4, xfs, btrfs, tmpfs? */
bool npk__lease_fs_proves(int fd);
/* The same by experiment in a directory: a mapped writer whose descriptor is closed must be found. 1 yes, 0 no,
 * negative errno: the experiment was not possible (read-only, no unnamed files). */
int npk__lease_experiment(int dir_fd);

#endif
