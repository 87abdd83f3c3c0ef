/* SPDX-License-Identifier: Apache-2.0 */
/* mountpoint.h - is the mount point fit to be mounted on, and can anything be mounted at all. */
#ifndef FS_MOUNTPOINT_H
#define FS_MOUNTPOINT_H

/* Check the absolute path *mountpoint and make it canonical: *mountpoint is replaced by a malloc()ed path without
 * symlinks. Dead npkfs mounts there are detached first, with a sentence on stderr. 0; or -errno with a sentence in
 * why[0..why_bytes): -ENOENT, -ENOTDIR, -EACCES, -EBUSY (a live npkfs is mounted there), -ENOTCONN, -ENODEV. */
int mountpoint_prepare(char **mountpoint, char *why, unsigned why_bytes);

/* Can this process mount a FUSE filesystem: /dev/fuse, and the right to mount or the program that does it for users.
 * 0 or -errno with a sentence. */
int mountpoint_check_fuse(char *why, unsigned why_bytes);

/* The type of the topmost mount at exactly this canonical path, from mountinfo text such as /proc/self/mountinfo holds:
 * type[0..type_bytes), "" when nothing is mounted there; and its device as MAJOR:MINOR. Pure; the text is changed while it
 * is read and is not kept. */
void mountpoint_find(char *mountinfo, const char *path, char *type, unsigned type_bytes, char *device, unsigned device_bytes);

/* Let the kernel read further ahead in files of the npkfs mounted here, where it may be told to (root; Linux gives every
 * FUSE mount 128 KiB, whatever it asks for). Never less than it does. Asks nothing of the mount itself. */
void mountpoint_raise_readahead(const char *path, unsigned kib);

#endif
