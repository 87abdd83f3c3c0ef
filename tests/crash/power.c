/* SPDX-License-Identifier: Apache-2.0 */
/*
 * npk-power OPERATION: the operation is recorded (io_record.h) and the record replayed up to each of its syncs and to
 * each point before one, as a loss of power there could leave the disk: with what was synced, and nothing, all or a
 * random part of the rest. Each such store is opened, compared with what had been acknowledged as durable, checked and
 * repaired.
 *
 * What a sync makes durable: of a file, its bytes and size; of a directory, the names in it; a rename with either of
 * its directories. Everything else may be there or not, each change by itself, a write also in part. NPK_POWER_SEED
 * chooses another random part.
 */
#include <dirent.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "crash.h"
#include "io.h"
#include "io_record.h"
#include "place.h"

#define RANDOM_PARTS 6
#define SECTOR       512u

/* ---- the disk in memory ---------------------------------------------------------------------------------------- */

struct object {
    uint64_t ino, birth_ns;
    mode_t type;
    uint8_t *first, *data; /* as it was before the operation; now */
    size_t first_bytes, bytes;
    struct object *next; /* all of them, newest first */
    int real;            /* while it is written out: already there as this path's number; -1 */
};

struct entry { /* a name in a directory */
    struct object *dir, *object;
    char name[256];
    bool gone;
};

struct op {
    npk_record_entry e;
    char name[256], new_name[256];
    const uint8_t *data;
    struct object *object, *dir, *new_dir;
};

struct disk {
    struct object *all, *root;
    struct entry *first, *now;
    size_t first_count, count;
    struct op *ops;
    size_t op_count;
    uint8_t *record;
};

static struct object *object_of(const struct disk *d, uint64_t ino)
{
    for (struct object *o = d->all; o; o = o->next)
        if (o->ino == ino)
            return o; /* the newest of this number */
    return NULL;
}

static struct object *new_object(struct disk *d, uint64_t ino, uint64_t birth_ns, mode_t type)
{
    struct object *o = calloc(1, sizeof(*o));
    NEED(o != NULL);
    *o = (struct object){.ino = ino, .birth_ns = birth_ns, .type = type, .next = d->all};
    return d->all = o;
}

static void set_name(struct disk *d, struct object *dir, const char *name, struct object *o)
{
    for (size_t i = 0; i < d->count; i++)
        if (!d->now[i].gone && d->now[i].dir == dir && strcmp(d->now[i].name, name) == 0)
            d->now[i].gone = true;
    if (!o)
        return;
    d->now = realloc(d->now, (d->count + 1) * sizeof(*d->now));
    NEED(d->now != NULL);
    struct entry *e = &d->now[d->count++];
    *e = (struct entry){.dir = dir, .object = o};
    memcpy(e->name, name, strlen(name) + 1);
}

static struct object *name_in(const struct disk *d, const struct object *dir, const char *name)
{
    for (size_t i = 0; i < d->count; i++)
        if (!d->now[i].gone && d->now[i].dir == dir && strcmp(d->now[i].name, name) == 0)
            return d->now[i].object;
    return NULL;
}

static void set_size(struct object *o, size_t bytes)
{
    if (bytes > o->bytes) {
        o->data = realloc(o->data, bytes);
        NEED(o->data != NULL);
        memset(o->data + o->bytes, 0, bytes - o->bytes);
    }
    o->bytes = bytes;
}

static void scan(struct disk *d, int dir_fd, struct object *dir)
{
    DIR *list = fdopendir(dir_fd);
    NEED(list != NULL);
    for (struct dirent *e; (e = readdir(list)) != NULL;) {
        struct statx stx;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        NEED(statx(dir_fd, e->d_name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &stx) == 0);
        uint64_t birth =
            stx.stx_mask & STATX_BTIME ? (uint64_t)stx.stx_btime.tv_sec * 1000000000u + stx.stx_btime.tv_nsec : 0;
        struct object *o = new_object(d, stx.stx_ino, birth, stx.stx_mode & S_IFMT);
        set_name(d, dir, e->d_name, o);
        if (o->type == S_IFDIR) {
            scan(d, openat(dir_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), o);
        } else if (o->type == S_IFREG) {
            int fd = openat(dir_fd, e->d_name, O_RDONLY | O_CLOEXEC);
            set_size(o, (size_t)stx.stx_size);
            NEED(fd >= 0 && read(fd, o->data, o->bytes) == (ssize_t)o->bytes);
            close(fd);
        } else {
            char target[4096];
            ssize_t n = readlinkat(dir_fd, e->d_name, target, sizeof(target));
            NEED(n > 0);
            set_size(o, (size_t)n);
            memcpy(o->data, target, (size_t)n);
        }
    }
    closedir(list);
}

/* What is there is where every replay begins. */
static void snapshot(struct disk *d, const place *p)
{
    struct stat st;
    NEED(stat(p->path, &st) == 0);
    d->root = new_object(d, st.st_ino, 0, S_IFDIR);
    scan(d, open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), d->root);
    d->first = d->now;
    d->first_count = d->count;
    d->now = NULL;
    for (struct object *o = d->all; o; o = o->next) {
        o->first = o->data;
        o->first_bytes = o->bytes;
        o->data = NULL;
        o->bytes = 0;
    }
}

/* ---- the record ------------------------------------------------------------------------------------------------ */

static void read_record(struct disk *d, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0 && fstat(fd, &st) == 0);
    size_t size = (size_t)st.st_size;
    d->record = malloc(size + 1);
    NEED(d->record && read(fd, d->record, size) == (ssize_t)size);
    close(fd);
    for (size_t at = 0; at < size;) {
        d->ops = realloc(d->ops, (d->op_count + 1) * sizeof(*d->ops));
        NEED(d->ops && size - at >= sizeof(npk_record_entry));
        struct op *op = &d->ops[d->op_count++];
        *op = (struct op){0};
        memcpy(&op->e, d->record + at, sizeof(op->e));
        at += sizeof(op->e);
        NEED(op->e.name_bytes < 256 && op->e.new_name_bytes < 256);
        memcpy(op->name, d->record + at, op->e.name_bytes);
        at += op->e.name_bytes;
        memcpy(op->new_name, d->record + at, op->e.new_name_bytes);
        at += op->e.new_name_bytes;
        op->data = d->record + at;
        at += op->e.data_bytes;
        NEED(at <= size);
    }
}

/* Numbers are used again: what each op means is found in the order of the record. */
static void bind(struct disk *d)
{
    for (size_t i = 0; i < d->op_count; i++) {
        struct op *op = &d->ops[i];
        uint32_t what = op->e.what;
        bool made = what == NPK_RECORDED_FILE || what == NPK_RECORDED_DIR || what == NPK_RECORDED_SYMLINK;
        if (made)
            op->object = new_object(d, op->e.ino, op->e.birth_ns,
                                    what == NPK_RECORDED_FILE  ? S_IFREG
                                    : what == NPK_RECORDED_DIR ? S_IFDIR
                                                               : S_IFLNK);
        else if (op->e.ino)
            op->object = object_of(d, op->e.ino);
        if (what == NPK_RECORDED_SYMLINK) {
            op->object->first = (uint8_t *)(uintptr_t)op->data;
            op->object->first_bytes = op->e.data_bytes;
        }
        op->dir = op->e.dir ? object_of(d, op->e.dir) : NULL;
        op->new_dir = op->e.new_dir ? object_of(d, op->e.new_dir) : NULL;
    }
}

static bool is_sync(const struct op *op)
{
    return op->e.what == NPK_RECORDED_SYNC || op->e.what == NPK_RECORDED_SYNC_ALL;
}

/* Is what op `at` did on the disk for sure when the first `cut` ops were made? */
static bool is_durable(const struct disk *d, size_t at, size_t cut)
{
    const struct op *op = &d->ops[at];
    bool bytes = op->e.what == NPK_RECORDED_WRITE || op->e.what == NPK_RECORDED_SIZE;
    for (size_t i = at + 1; i < cut; i++) {
        const struct op *s = &d->ops[i];
        if (s->e.what == NPK_RECORDED_SYNC_ALL)
            return true;
        if (s->e.what == NPK_RECORDED_SYNC && s->object &&
            (bytes ? s->object == op->object : s->object == op->dir || s->object == op->new_dir))
            return true;
    }
    return false;
}

static void apply_write(const struct op *op, bool torn)
{
    size_t at = op->e.offset, n = op->e.data_bytes;
    if (!op->object || op->object->type != S_IFREG)
        return;
    if (torn) { /* whole sectors of it */
        size_t over = (at + n / 2) % SECTOR;
        n = n / 2 > over ? n / 2 - over : 0;
    }
    if (n && at + n > op->object->bytes)
        set_size(op->object, at + n);
    if (n)
        memcpy(op->object->data + at, op->data, n);
}

static void apply(struct disk *d, const struct op *op, bool torn)
{
    switch (op->e.what) {
    case NPK_RECORDED_WRITE:
        apply_write(op, torn);
        break;
    case NPK_RECORDED_SIZE:
        if (op->object)
            set_size(op->object, op->e.offset);
        break;
    case NPK_RECORDED_FILE:
    case NPK_RECORDED_DIR:
    case NPK_RECORDED_SYMLINK:
    case NPK_RECORDED_LINK:
        if (op->dir)
            set_name(d, op->dir, op->name, op->object);
        break;
    case NPK_RECORDED_UNLINK:
        if (op->dir)
            set_name(d, op->dir, op->name, NULL);
        break;
    case NPK_RECORDED_RENAME:
        if (op->dir && name_in(d, op->dir, op->name) == op->object)
            set_name(d, op->dir, op->name, NULL);
        if (op->new_dir)
            set_name(d, op->new_dir, op->new_name, op->object);
        break;
    default:
        break;
    }
}

enum part { PART_NOTHING, PART_ALL, PART_RANDOM };

/* The disk after a loss of power when the first `cut` ops were made. */
static void replay(struct disk *d, size_t cut, int part)
{
    free(d->now);
    d->now = malloc((d->first_count + 1) * sizeof(*d->now));
    NEED(d->now != NULL);
    memcpy(d->now, d->first, d->first_count * sizeof(*d->now));
    d->count = d->first_count;
    for (struct object *o = d->all; o; o = o->next) {
        o->bytes = 0;
        set_size(o, o->first_bytes);
        if (o->first_bytes)
            memcpy(o->data, o->first, o->first_bytes);
    }
    for (size_t i = 0; i < cut; i++) {
        bool durable = is_durable(d, i, cut), torn = !durable && part >= PART_RANDOM && random() % 4 == 0;
        if (durable || part == PART_ALL || (part >= PART_RANDOM && random() % 2))
            apply(d, &d->ops[i], torn);
    }
}

/* ---- writing it out -------------------------------------------------------------------------------------------- */

static void remember(int identities, int dir_fd, const char *name, const struct object *o)
{
    struct stat st;
    NEED(fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) == 0);
    const uint64_t line[4] = {st.st_ino, o->ino, o->birth_ns, 0};
    NEED(write(identities, line, sizeof(line)) == sizeof(line));
}

static void write_out(struct disk *d, int dir_fd, const struct object *dir, int identities, const char *links)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct entry *e = &d->now[i];
        struct object *o = e->object;
        char link[300], target[4096];
        if (e->gone || e->dir != dir)
            continue;
        if (o->type == S_IFDIR) {
            NEED(mkdirat(dir_fd, e->name, 0755) == 0);
            remember(identities, dir_fd, e->name, o);
            int below = openat(dir_fd, e->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            write_out(d, below, o, identities, links);
            close(below);
            continue;
        }
        snprintf(link, sizeof(link), "%s/%d", links, o->real);
        if (o->real >= 0) { /* another name of it is there */
            NEED(linkat(AT_FDCWD, link, dir_fd, e->name, 0) == 0);
            continue;
        }
        if (o->type == S_IFLNK) {
            memcpy(target, o->data, o->bytes);
            target[o->bytes] = '\0';
            NEED(symlinkat(target, dir_fd, e->name) == 0);
        } else {
            int fd = openat(dir_fd, e->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
            NEED(fd >= 0 && (o->bytes == 0 || write(fd, o->data, o->bytes) == (ssize_t)o->bytes));
            close(fd);
        }
        remember(identities, dir_fd, e->name, o);
        bool again = false;
        for (size_t j = i + 1; j < d->count; j++)
            again |= !d->now[j].gone && d->now[j].object == o;
        if (again) { /* a name apart, to link the next one to */
            o->real = (int)i;
            snprintf(link, sizeof(link), "%s/%d", links, o->real);
            NEED(linkat(dir_fd, e->name, AT_FDCWD, link, 0) == 0);
        }
    }
}

/* The store of this moment in a directory of its own: what is wrong with it, by crash_examine(), in a child, since the
 * engine keeps what it knows of files by their numbers. */
static bool is_right(struct disk *d, const crash_op *op, unsigned acked, char why[512])
{
    place p = place_begin();
    char identities[300], links[300], plan[400];
    int pipe_ends[2];
    snprintf(identities, sizeof(identities), "%s.identities", p.path);
    snprintf(links, sizeof(links), "%s.links", p.path);
    int fd = open(identities, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    NEED(fd >= 0 && mkdir(links, 0700) == 0 && pipe(pipe_ends) == 0);
    for (struct object *o = d->all; o; o = o->next)
        o->real = -1;
    int dir_fd = open(p.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    remember(fd, dir_fd, "", d->root);
    write_out(d, dir_fd, d->root, fd, links);
    close(dir_fd);
    close(fd);
    nftw(links, place_remove_one, 8, FTW_DEPTH | FTW_PHYS); /* or every such file would have a name too many */
    fflush(stdout);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        snprintf(plan, sizeof(plan), "boot:7,identity:%s", identities);
        const char *wrong = npk__io_plan_set(plan) != 0 ? "no plan" : crash_examine(op, p.path, acked, true);
        if (wrong && write(pipe_ends[1], wrong, strnlen(wrong, 511)) < 0)
            _exit(2);
        _exit(wrong ? 1 : 0);
    }
    close(pipe_ends[1]);
    ssize_t n = read(pipe_ends[0], why, 511);
    why[n > 0 ? n : 0] = '\0';
    close(pipe_ends[0]);
    int end = place_wait(child);
    if (end != 0 && n <= 0)
        snprintf(why, 512, "it ended with %d", end);
    unlink(identities);
    place_end(&p);
    return end == 0;
}

/* ---- the test -------------------------------------------------------------------------------------------------- */

static void note(void)
{
    npk__record_note();
}

static void record(const crash_op *op, const place *p, const char *path)
{
    char plan[320];
    snprintf(plan, sizeof(plan), "record:%s", path);
    fflush(stdout);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        npk_store *s;
        if (npk_store_open(p->path, 0, &s) != 0 || npk__io_plan_set(plan) != 0)
            _exit(200);
        int err = op->run(s, note);
        npk__io_plan_set(NULL);
        _exit(err ? 1 : 0);
    }
    NEED(place_wait(child) == 0);
}

int crash_power(const crash_op *op)
{
    static struct disk d; /* for as long as the process lives: one operation is tried in each */
    char path[300], why[512];
    unsigned acked = 0, states = 0, failed = 0, acknowledged = 0, syncs = 0;
    const char *seed = getenv("NPK_POWER_SEED");
    srandom(seed ? (unsigned)strtoul(seed, NULL, 10) : 1);
    place p = place_begin();
    op->setup(p.store);
    snapshot(&d, &p);
    snprintf(path, sizeof(path), "%s.record", p.path);
    record(op, &p, path);
    read_record(&d, path);
    unlink(path);
    bind(&d);
    place_end(&p);
    for (size_t cut = 0; cut <= d.op_count; cut++) {
        bool here = cut == d.op_count || is_sync(&d.ops[cut]) || (cut > 0 && is_sync(&d.ops[cut - 1]));
        acked += cut > 0 && d.ops[cut - 1].e.what == NPK_RECORDED_NOTE;
        syncs += cut > 0 && is_sync(&d.ops[cut - 1]);
        if (cut > 0 && d.ops[cut - 1].e.what == NPK_RECORDED_NOTE)
            here = true;
        for (int part = 0; here && part < PART_RANDOM + RANDOM_PARTS; part++) {
            replay(&d, cut, part);
            states++;
            acknowledged += acked;
            if (is_right(&d, op, acked, why))
                continue;
            failed++;
            printf("FAIL  %s, power lost after %zu of %zu changes (%u syncs, %u steps durable), part %d: %s\n",
                   op->name, cut, d.op_count, syncs, acked, part, why);
        }
    }
    printf("%s power: %zu changes, %u syncs, %u states, %u failures, %u durable steps in all\n", op->name, d.op_count,
           syncs, states, failed, acknowledged);
    if (syncs < 2 || acknowledged == 0) {
        printf("FAIL  the run proves nothing\n");
        return 1;
    }
    return failed ? 1 : 0;
}
