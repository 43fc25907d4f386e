/* A malloc for audit_operators.py: while armed, every tensor's block, and at level 2 every block, ends at an unmapped page.

   An access one byte behind a block, 8 KiB before it, or to a freed block is a segmentation fault. New blocks are
   filled with a byte that the auditor chooses: a result that depends on it was computed from memory nobody wrote.
   Addresses are never used twice. Disarmed, it is glibc's malloc. Meant for one thread. */
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

#define PAGE 4096ul
#define FIRST 0x200000000000ul
#define END 0x500000000000ul /* programs and their heaps start at 0x55... */
#define GAP (16ul << 20) /* unmapped behind each block, so that a forged index of some size does not hit the next one */

struct header { size_t size, mapped; unsigned char fill; };

static int armed, report_fd = 2;
static unsigned char fill = 0xA5;
static uintptr_t next = FIRST;
static size_t limit = 256ul << 20;
static struct { uint64_t largest, live, peak, underflows; } stats;

void guard_arm(int level) { armed = level; }
void guard_fill(int byte) { fill = byte; }
void guard_reset(void) { stats.largest = stats.underflows = 0; stats.peak = stats.live; }
uint64_t guard_largest(void) { return stats.largest; }
uint64_t guard_peak(void) { return stats.peak; }
uint64_t guard_underflows(void) { return stats.underflows; }

static int ours(void *p) { return (uintptr_t)p >= FIRST && (uintptr_t)p < END; }
static struct header *head(void *p) { return (struct header *)(((uintptr_t)p & ~(PAGE - 1)) - PAGE); }

static void *take(size_t size, size_t align) {
    if (size > stats.largest) stats.largest = size;
    if (size > limit || next + size + GAP > END) { errno = ENOMEM; return NULL; }
    size_t room = (size + align - 1) / align * align;
    size_t mapped = PAGE + (room ? (room + PAGE - 1) / PAGE * PAGE : PAGE);
    char *at = mmap((void *)next, mapped, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (at == MAP_FAILED) { errno = ENOMEM; return NULL; }
    next += mapped + GAP;
    memset(at, fill, mapped);
    *(struct header *)at = (struct header){size, mapped, fill};
    stats.live += size;
    if (stats.live > stats.peak) stats.peak = stats.live;
    /* A block of no bytes starts in the last bytes of its page: its header must stay one page before. */
    return at + mapped - (room ? room : align);
}

static void drop(void *p) {
    struct header *h = head(p), copy = *h;
    unsigned char *at = (unsigned char *)(h + 1), *data = p;
    if (copy.mapped == 0 || (copy.mapped & (PAGE - 1))) { stats.underflows++; return; }
    for (; at < data; at++) if (*at != copy.fill) { stats.underflows++; break; }
    stats.live -= copy.size;
    munmap(h, copy.mapped);
}

static void *plain(size_t size) {
    if (armed && size > stats.largest) stats.largest = size;
    if (armed && size > limit) { errno = ENOMEM; return NULL; }
    return __libc_malloc(size);
}

void *malloc(size_t size) { return armed > 1 ? take(size, 16) : plain(size); }
void free(void *p) {
    int e = errno;
    if (ours(p)) drop(p); else __libc_free(p);
    errno = e;
}
void *calloc(size_t n, size_t size) {
    if (armed < 2) return n && size > limit / n ? plain(n * size) : __libc_calloc(n, size);
    if (size && n > SIZE_MAX / size) { errno = ENOMEM; return NULL; }
    void *p = take(n * size, 16);
    return p ? memset(p, 0, n * size) : NULL;
}
size_t malloc_usable_size(void *p) {
    if (p && ours(p)) return head(p)->size;
    if (!p) return 0;
    return (((size_t *)p)[-1] & ~15ul) - 16; /* glibc's chunk: its size stands before the block */
}
void *realloc(void *p, size_t size) {
    if (!p) return malloc(size);
    if ((!armed || (armed == 1 && size <= limit)) && !ours(p)) return __libc_realloc(p, size);
    void *q = malloc(size);
    if (!q) return NULL;
    size_t old = malloc_usable_size(p);
    memcpy(q, p, old < size ? old : size);
    free(p);
    return q;
}
void *memalign(size_t align, size_t size) {
    if (!armed) return __libc_memalign(align, size);
    /* torch asks for 64 bytes; its kernels do with the alignment of an element, and then the end is exact. */
    size_t enough = 1;
    while (enough < 16 && size % (enough * 2) == 0) enough *= 2;
    return take(size, align > 64 ? align : enough);
}
int posix_memalign(void **out, size_t align, size_t size) {
    *out = memalign(align, size);
    return *out ? 0 : ENOMEM;
}
void *aligned_alloc(size_t align, size_t size) { return memalign(align, size); }

static void died(int sig, siginfo_t *info, void *context) {
    void *frames[24];
    char line[160];
    armed = 0;
    int write_access = sig == SIGSEGV && (((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2);
    int n = snprintf(line, sizeof line, "signal %d, %s at %p\n", sig, write_access ? "write" : "read", info->si_addr);
    if (write(report_fd, line, n) < 0) _exit(1);
    backtrace_symbols_fd(frames, backtrace(frames, 24), report_fd);
    signal(sig, SIG_DFL);
    raise(sig);
}

void guard_report(int fd) {
    static char stack[1 << 16];
    void *warm[2];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = died, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    report_fd = fd;
    backtrace(warm, 2);
    sigaltstack(&alt, NULL);
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
}
