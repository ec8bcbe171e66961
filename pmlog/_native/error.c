/* The calling thread's last failure, in words. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

#if PML_TESTING
enum pml_canary pml_canary;
#endif

static _Thread_local struct pml_detail detail;

const struct pml_detail *pml_error(void) { return &detail; }

struct pml_detail *pml_detail_new(int status) {
    memset(&detail, 0, sizeof detail);
    detail.status = status;
    return &detail;
}

static void say(const char *format, va_list arguments) {
    vsnprintf(detail.text, sizeof detail.text, format, arguments);
}

int pml_fail(int status, const char *format, ...) {
    pml_detail_new(status);
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return status;
}

int pml_fail_errno(int status, int os_errno, const char *format, ...) {
    if (os_errno == EACCES || os_errno == EPERM || os_errno == EROFS) status = PML_E_PERMISSION;
    if (os_errno == ENOSPC || os_errno == EDQUOT || os_errno == EFBIG) status = PML_E_POOL_FULL;
    if (os_errno == ENOMEM) status = PML_E_MEMORY;
    pml_detail_new(status)->os_errno = os_errno;
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return status;
}

/* A failed flush or sync says nothing about what is durable, even when the reason is a full disk. */
int pml_fail_io(int os_errno, const char *what) {
    pml_detail_new(PML_E_MEDIUM)->os_errno = os_errno;
    snprintf(detail.text, sizeof detail.text, "%s", what);
    return PML_E_MEDIUM;
}

int pml_fail_corrupt(const char *file, uint64_t lsn, uint64_t offset, uint64_t expected,
                     uint64_t found, const char *format, ...) {
    struct pml_detail *d = pml_detail_new(PML_E_CORRUPT);
    snprintf(d->file, sizeof d->file, "%s", file);
    d->lsn = lsn;
    d->offset = offset;
    d->expected = expected;
    d->found = found;
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return PML_E_CORRUPT;
}

const char *pml_status_name(int status) {
    static const char *const names[] = {
        "OK",      "CLOSED",    "FORKED",   "READ_ONLY",  "LOCKED",    "NOT_FOUND",
        "EXISTS",  "TOO_LARGE", "ARGUMENT", "LOG_FULL",   "POOL_FULL", "MEDIUM",
        "CORRUPT", "FORMAT",    "FROZEN",   "INVARIANT",  "MISSING",   "BUSY",
        "TYPE",    "DROPPED",   "STALE",    "BUFFER",     "MEMORY",    "NO_TRANSACTION",
        "TIMEOUT", "GAP",       "FENCED",   "PERMISSION", "AGAIN",     "BEHIND",
    };
    if (status > 0 || -status >= (int)(sizeof names / sizeof names[0])) return "UNKNOWN";
    return names[-status];
}
