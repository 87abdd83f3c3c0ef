/* SPDX-License-Identifier: Apache-2.0 */
/* loop.c - see loop.h. */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "log.h"
#include "wire.h"

/* Threads beyond options->threads_max are refused: requests then wait for a worker to finish. */
struct fs_loop {
    pthread_mutex_t lead;    /* held by the thread that reads requests */
    pthread_mutex_t lock;    /* protects the fields below */
    pthread_cond_t ended;
    unsigned threads, waiting; /* running; of these, those that wait for the lead */
    int result;
    bool greeted;            /* INIT was answered; only the leader looks */
    int wake_fd;             /* eventfd: stop asked for, or the last thread ended */
    _Atomic pthread_t leader;
    _Atomic bool has_leader;
};

/* How long the leading thread looks for the next request before it sleeps. */
#define SPIN_NS 60000

static _Thread_local bool loop_leading;
static _Thread_local bool loop_resting; /* the request that is served said so */

static int64_t loop_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static void *loop_thread(void *arg);

int loop_new(fs_state *fs)
{
    struct fs_loop *l = calloc(1, sizeof *l);
    if (!l)
        return -ENOMEM;
    pthread_mutex_init(&l->lead, NULL);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->ended, NULL);
    l->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (l->wake_fd < 0) {
        free(l);
        return -errno;
    }
    fs->loop = l;
    return 0;
}

void loop_free(fs_state *fs)
{
    if (!fs->loop)
        return;
    close(fs->loop->wake_fd);
    free(fs->loop);
    fs->loop = NULL;
}

/* l->lock is held. */
static int loop_spawn(fs_state *fs)
{
    struct fs_loop *l = fs->loop;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 512 << 10);
    pthread_t id;
    l->threads++;
    l->waiting++;
    int err = -pthread_create(&id, &attr, loop_thread, fs);
    pthread_attr_destroy(&attr);
    if (err) {
        l->threads--;
        l->waiting--;
    }
    atomic_store_explicit(&fs->stats.threads, l->threads, memory_order_relaxed);
    return err;
}

void loop_yield(fs_state *fs)
{
    if (!loop_leading)
        return;
    struct fs_loop *l = fs->loop;
    pthread_mutex_lock(&l->lock);
    bool heir = l->waiting > 0 || (l->threads < fs->options->threads_max && loop_spawn(fs) == 0);
    if (heir) {
        loop_leading = false;
        atomic_store(&l->has_leader, false);
    }
    pthread_mutex_unlock(&l->lock);
    if (heir)
        pthread_mutex_unlock(&l->lead);
    /* Without an heir the caller stays the leader and the next request waits for it: all threads are at work. */
}

void loop_yield_if_asked(fs_state *fs)
{
    if (!loop_leading)
        return;
    struct pollfd p = {.fd = fuse_session_fd(fs->session), .events = POLLIN};
    if (poll(&p, 1, 0) > 0)
        loop_yield(fs);
}

void loop_rest(void)
{
    loop_resting = true;
}

/* The device has nothing to read: look again for a short while after the last request, then sleep until there is
 * something. Waking a sleeping thread costs several times what a request does, and requests come in bursts. */
static void loop_await(fs_state *fs, int64_t last_ns)
{
    if (loop_now_ns() - last_ns < SPIN_NS) {
        sched_yield(); /* whoever wants this CPU may be the one to send the next request */
        return;
    }
    struct pollfd p = {.fd = fuse_session_fd(fs->session), .events = POLLIN};
    poll(&p, 1, -1);
}

/* Read and process requests for as long as this thread leads. */
static int loop_lead(fs_state *fs, struct fuse_buf *buf)
{
    struct fs_loop *l = fs->loop;
    int64_t last_ns = loop_now_ns();
    while (loop_leading && !fuse_session_exited(fs->session)) {
        int n = fuse_session_receive_buf(fs->session, buf);
        if (n == -EAGAIN)
            loop_await(fs, last_ns);
        if (n == -EINTR || n == -EAGAIN)
            continue;
        if (n <= 0) {
            fuse_session_exit(fs->session);
            return n == -ENODEV ? 0 : n;
        }
        buf->size = (size_t)n;
        if (!wire_intercept(fs, buf))
            fuse_session_process_buf(fs->session, buf);
        if (!l->greeted) { /* that was INIT: the kernel has taken the reply, so its privileges can be tried */
            l->greeted = true;
            wire_decide_mode(fs);
            if (fs->options->passthrough == FS_PASSTHROUGH_ON && fs->mode != FS_MODE_PASSTHROUGH) {
                fs_log(FS_LOG_ERROR, "passthrough=on cannot be had: %s", fs->mode_reason);
                fuse_session_exit(fs->session);
                return -EOPNOTSUPP;
            }
        }
        last_ns = loop_resting ? 0 : loop_now_ns();
        loop_resting = false;
    }
    return 0;
}

static void *loop_thread(void *arg)
{
    fs_state *fs = arg;
    struct fs_loop *l = fs->loop;
    struct fuse_buf buf = {.mem = NULL};
    int err = 0;
    for (bool first = true; !fuse_session_exited(fs->session); first = false) {
        if (!first) {
            pthread_mutex_lock(&l->lock);
            l->waiting++;
            pthread_mutex_unlock(&l->lock);
        }
        pthread_mutex_lock(&l->lead);
        pthread_mutex_lock(&l->lock);
        l->waiting--;
        pthread_mutex_unlock(&l->lock);
        loop_leading = true;
        atomic_store(&l->leader, pthread_self());
        atomic_store(&l->has_leader, true);
        err = loop_lead(fs, &buf);
        if (loop_leading) {
            loop_leading = false;
            atomic_store(&l->has_leader, false);
            pthread_mutex_unlock(&l->lead);
        }
        if (err)
            break;
    }
    free(buf.mem);
    pthread_mutex_lock(&l->lock);
    if (err && !l->result)
        l->result = err;
    l->threads--;
    uint64_t one = 1;
    (void)!write(l->wake_fd, &one, sizeof one); /* under the lock: the last to leave must not outlive the loop */
    pthread_cond_broadcast(&l->ended);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static void loop_nudge(int signo)
{
    (void)signo; /* only its arrival matters: a blocked read returns EINTR */
}

int loop_run(fs_state *fs)
{
    struct fs_loop *l = fs->loop;
    struct sigaction sa = {.sa_handler = loop_nudge};
    sigaction(SIGUSR1, &sa, NULL);
    int device = fuse_session_fd(fs->session);
    fcntl(device, F_SETFL, fcntl(device, F_GETFL) | O_NONBLOCK);
    /* Signals for the whole process are for the main thread; the request threads are nudged by name. */
    sigset_t ours, before;
    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    pthread_mutex_lock(&l->lock);
    int err = loop_spawn(fs);
    pthread_mutex_unlock(&l->lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err)
        return err;

    pthread_mutex_lock(&l->lock);
    while (l->threads > 0) {
        if (!fuse_session_exited(fs->session)) {
            pthread_mutex_unlock(&l->lock);
            uint64_t n;
            (void)!read(l->wake_fd, &n, sizeof n); /* EINTR is fine: the state is looked at again */
            pthread_mutex_lock(&l->lock);
            continue;
        }
        /* Ending: nudge whoever still reads until no thread is left. */
        if (atomic_load(&l->has_leader))
            pthread_kill(atomic_load(&l->leader), SIGUSR1);
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 10 * 1000 * 1000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&l->ended, &l->lock, &until);
    }
    err = l->result;
    pthread_mutex_unlock(&l->lock);
    return err;
}

void loop_stop(fs_state *fs)
{
    fuse_session_exit(fs->session);
    uint64_t one = 1;
    (void)!write(fs->loop->wake_fd, &one, sizeof one);
}
