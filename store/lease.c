/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "lease.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fail.h"
#include "io.h"
#include "npk.h"
#include "store.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

/* ---- one lease ------------------------------------------------------------------------------------------------- */

/* The kernel makes the taker the signal's owner while it grants the lease, so the owner can only be cleared after it.
 * Until then a breaker would send SIGIO, which kills: choose a signal first that is ignored unless asked for. */
static int take(int ro_fd, int type)
{
    (void)fcntl(ro_fd, F_SETSIG, SIGURG);
    if (fcntl(ro_fd, F_SETLEASE, type) != 0)
        return errno == EAGAIN || errno == EBUSY ? -EAGAIN : -ENOTSUP;
    (void)fcntl(ro_fd, F_SETOWN, 0);
    return 0;
}

int npk__lease_take(int ro_fd)
{
    return take(ro_fd, F_RDLCK);
}

int npk__lease_take_exclusive(int ro_fd)
{
    return take(ro_fd, F_WRLCK);
}

bool npk__lease_holds(int ro_fd)
{
    int type = fcntl(ro_fd, F_GETLEASE); /* while it is being broken: what it is to become */
    return type == F_RDLCK || type == F_WRLCK;
}

void npk__lease_drop(int ro_fd)
{
    (void)fcntl(ro_fd, F_SETLEASE, F_UNLCK);
}

int npk__lease_probe(int ro_fd)
{
    if (!npk__lease_fs_proves(ro_fd))
        return -ENOTSUP;
    int err = npk__lease_take(ro_fd);
    if (err)
        return err == -EAGAIN ? -EBUSY : err;
    npk__lease_drop(ro_fd);
    return 0;
}

npk_err npk_users_of(int fd, npk_users *out)
{
    if (!npk__lease_fs_proves(fd))
        return npk__fail(-ENOTSUP,
                         "leases do not tell who uses a file on this filesystem; ext4, xfs, btrfs and tmpfs do");
    npk_users users = NPK_USERS_NONE;
    int err = npk__lease_take_exclusive(fd);
    if (err == -EAGAIN) {
        users = NPK_USERS_READERS;
        err = npk__lease_take(fd);
    }
    if (err == 0)
        npk__lease_drop(fd);
    else if (err == -EAGAIN)
        users = NPK_USERS_WRITERS;
    else
        return npk__fail(err, "no lease can be taken: only the file's owner or a process with CAP_LEASE may");
    *out = users;
    return 0;
}

/* ---- are they proof? ------------------------------------------------------------------------------------------- */

bool npk__lease_fs_proves(int fd)
{
    struct statfs st;
    int err;
    do
        err = fstatfs(fd, &st);
    while (err != 0 && errno == EINTR);
    if (err != 0)
        return false;
    switch ((unsigned long)st.f_type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
        return true;
    default:
        return false;
    }
}

/* Closes rw_fd. The lease's answer on ro_fd while a mapped writer lives whose descriptor is closed, and after it is
 * gone. */
static int experiment(int rw_fd, int ro_fd)
{
    const size_t bytes = 4096;
    void *at;
    int err = npk__ftruncate(rw_fd, bytes);
    if (!err)
        err = npk__mmap(&at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, rw_fd, 0);
    close(rw_fd);
    if (err)
        return err;
    *(volatile char *)at = 1;
    int with_writer = npk__lease_take(ro_fd);
    if (with_writer == 0)
        npk__lease_drop(ro_fd);
    munmap(at, bytes);
    int without = npk__lease_take(ro_fd);
    if (without == 0)
        npk__lease_drop(ro_fd);
    return with_writer == -EAGAIN && without == 0;
}

int npk__lease_experiment(int dir_fd)
{
    int rw_fd = npk__openat(dir_fd, ".", O_TMPFILE | O_RDWR, 0600);
    if (rw_fd < 0)
        return rw_fd;
    int ro_fd = npk__reopen(rw_fd, O_RDONLY);
    if (ro_fd < 0) {
        close(rw_fd);
        return ro_fd;
    }
    int answer = experiment(rw_fd, ro_fd);
    close(ro_fd);
    return answer;
}

enum proof { PROOF_FAILED = -2, PROOF_NO_TYPE = -1, PROOF_UNKNOWN = 0, PROOF_SHOWN = 1, PROOF_BY_TYPE = 2 };

static enum proof find_proof(const npk_store *s)
{
    if (!npk__lease_fs_proves(s->root_fd))
        return PROOF_NO_TYPE;
    int answer = s->flags & NPK_READ_ONLY ? -EROFS : npk__lease_experiment(s->root_fd);
    if (answer < 0)
        return PROOF_BY_TYPE;
    return answer ? PROOF_SHOWN : PROOF_FAILED;
}

static const char *proof_phrase(int proof)
{
    switch (proof) {
    case PROOF_SHOWN:
        return "a mapped writer with a closed descriptor was found by a lease";
    case PROOF_BY_TYPE:
        return "the filesystem's type is known for it (no experiment was possible)";
    case PROOF_NO_TYPE:
        return "only ext4, xfs, btrfs and tmpfs are known to refuse a lease while a writer lives";
    default:
        return "a mapped writer with a closed descriptor was not found by a lease";
    }
}

bool npk_leases_prove(npk_store *s, const char **why)
{
    int proof = __atomic_load_n(&s->lease_proof, __ATOMIC_RELAXED);
    if (proof == PROOF_UNKNOWN) {
        proof = (int)find_proof(s);
        __atomic_store_n(&s->lease_proof, proof, __ATOMIC_RELAXED); /* two threads find the same */
    }
    if (why)
        *why = proof_phrase(proof);
    return proof > 0;
}
