/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1

#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

struct guard {
    uintptr_t from, to;
    sigjmp_buf back;
};

/* Initial-exec: reading it in the handler must not allocate. */
static _Thread_local struct guard *volatile active __attribute__((tls_model("initial-exec")));
static struct sigaction before;
static int install_error;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    struct guard *g = active;
    uintptr_t at = (uintptr_t)info->si_addr;
    if (g && info->si_code > 0 && at >= g->from && at < g->to) {
        active = NULL;
        siglongjmp(g->back, 1);
    }
    /* Not ours. Whoever was there before us decides. */
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler == SIG_DFL || (before.sa_handler == SIG_IGN && info->si_code > 0)) {
        /* Returning runs the faulting instruction again, now with the default action; a sent signal is sent again. */
        signal(SIGBUS, SIG_DFL);
        if (info->si_code <= 0)
            raise(SIGBUS);
    } else if (before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    }
}

static void install(void)
{
    struct sigaction ours;
    memset(&ours, 0, sizeof(ours));
    ours.sa_sigaction = on_sigbus;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    install_error = sigaction(SIGBUS, &ours, &before) == 0 ? 0 : -errno;
}

int npk__guarded(const void *at, unsigned long bytes, int (*work)(void *ctx), void *ctx)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    struct sigaction now;
    if (install_error || sigaction(SIGBUS, NULL, &now) != 0 || !(now.sa_flags & SA_SIGINFO) ||
        now.sa_sigaction != on_sigbus)
        return -ENOSYS;
    struct guard g = {.from = (uintptr_t)at, .to = (uintptr_t)at + bytes};
    /* With the mask: the handler runs with SIGBUS blocked, and is left by the jump. */
    if (sigsetjmp(g.back, 1) != 0)
        return -EIO;
    active = &g;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    int result = work(ctx);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    active = NULL;
    return result;
}
